//! Counted instructions as they are recorded, and what may differ.
//!
//! Promises that what costs more than the tolerance is found, and what costs less too, so that the record
//! stays true. Where something else than our sources may have changed the counts (see [`Machine`]), the
//! tolerance is wider and the report says so; where the sizes differ, nothing is compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Per cent by which a count may differ on the machine it was recorded on.
pub(crate) const TOLERANCE: f64 = 3.0;

/// The same on another.
pub(crate) const TOLERANCE_ELSEWHERE: f64 = 10.0;

/// Counts of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) made_with: Machine,
    /// Requests, bytes of a body, merchants, accounts.
    pub(crate) sizes: [usize; 4],
    /// By operation.
    pub(crate) instructions_per_request: BTreeMap<String, u64>,
}

/// What besides the sources decides about counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) rustc: String,
    pub(crate) target: String,
    pub(crate) valgrind: String,
    /// Its allocator and its copying are counted too.
    pub(crate) libc: String,
    /// Whether the CPU has it, and with it what callgrind shows of hashing.
    pub(crate) avx2: bool,
}

impl Counts {
    /// From a file.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| said(&error))?;
        serde_json::from_str(&text).map_err(|error| said(&error))
    }

    /// Into a file.
    pub(crate) fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Holds newer counts against these: a report, as an error where something differs by too much.
    pub(crate) fn compare(&self, found: &Self) -> Result<String, String> {
        if self.sizes != found.sizes {
            return Ok(format!("not compared: the record is for sizes {:?}, these are {:?}", self.sizes, found.sizes));
        }
        let mut report = String::new();
        let mut tolerance = TOLERANCE;
        if self.made_with != found.made_with {
            tolerance = TOLERANCE_ELSEWHERE;
            let _ = writeln!(report, "recorded with {:?}, counted with {:?}:", self.made_with, found.made_with);
        }
        let mut is_off = self.instructions_per_request.keys().ne(found.instructions_per_request.keys());
        if is_off {
            report.push_str("the operations are not those of the record\n");
        }
        for (operation, now) in &found.instructions_per_request {
            let Some(before) = self.instructions_per_request.get(operation) else { continue };
            let change = change(*before, *now);
            let verdict = if change.abs() > tolerance { "TOO FAR" } else { "well" };
            is_off |= change.abs() > tolerance;
            let _ = writeln!(
                report,
                "{operation} went from {before} to {now} instructions per request ({change:+.1} %, allowed {tolerance} %): {verdict}"
            );
        }
        if is_off { Err(report) } else { Ok(report) }
    }
}

/// Per cent.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn change(before: u64, now: u64) -> f64 {
    (now as f64 / before as f64 - 1.0) * 100.0
}
