//! The calls of both generations: what is checked in which order, what is done, what is answered.
//!
//! Promises that the tables of `dialect` are the only list of headers and fields. The order of checks
//! is that of `errors.md` section 3; each verdict is noted for the request list.

use http::HeaderMap;
use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::answer::Answer;
use super::journal::Checks;
use super::registry::Registry;
use super::route::Target;
use super::service::Received;
use super::{Shared, State};
use crate::dialect::bank::Bank;
use crate::dialect::check::single_header;
use crate::dialect::{Dialect, Operation, OperationId};
use crate::document::Document;

mod authenticate;
mod classic;
mod login;
mod relocate;
mod snap;

/// One call of an operation.
struct Call<'r> {
    operation: &'static Operation,
    received: &'r Received,
    /// Real time: timestamps and tokens.
    real: Timestamp,
    /// The control clock: expiry and states.
    now: Timestamp,
}

impl Call<'_> {
    /// A header's text; empty where the checks were passed without it.
    fn header(&self, name: &str) -> &str {
        header(&self.received.headers, name)
    }
}

/// Does what was asked and answers.
pub(super) fn answer(
    shared: &Shared,
    state: &mut State,
    target: Target,
    received: &Received,
    checks: &mut Checks,
) -> Answer {
    let real = shared.clock.now();
    let now = state.control_time(real);
    let call = |id: OperationId| Call { operation: id.operation(), received, real, now };
    match target {
        Target::Token(Dialect::Classic) => login::classic(shared, state, received, checks),
        Target::Token(Dialect::Snap) => login::snap(shared, state, received, checks),
        Target::Operation(id) => match id.operation().dialect {
            Dialect::Classic => classic::answer(shared, state, &call(id), checks),
            Dialect::Snap => snap::answer(shared, state, &call(id), checks),
        },
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    single_header(headers, name).ok().flatten().unwrap_or_default()
}

/// A member's text; empty where it is absent or no text, which the checks have judged.
fn text<'d>(document: &'d Document, path: &[&str]) -> &'d str {
    document.root().at(path).and_then(crate::document::Value::as_str).unwrap_or_default()
}

/// So many characters of an alphabet.
fn random_text(random: &mut StdRng, alphabet: &[u8], length: usize) -> String {
    (0..length)
        .filter_map(|_| alphabet.get(random.random_range(0..alphabet.len())))
        .map(|byte| char::from(*byte))
        .collect()
}

/// A number that was never given out; `compose` puts own digits into the full one.
///
/// Nothing after [`GENERATE_TRIES`] draws, which takes a nearly full range of numbers.
fn generate(
    random: &mut StdRng,
    registry: &Registry,
    bank: &Bank,
    dialect: Dialect,
    compose: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let (fixed, digits) = match dialect {
        Dialect::Classic => ("", *bank.classic_digits.start()),
        // The sample's generated number begins with the merchant's digits, like classic ones.
        Dialect::Snap => (MERCHANT_DIGITS, *bank.snap_digits.start()),
    };
    (0..GENERATE_TRIES).find_map(|_| {
        let own = format!("{fixed}{}", random_text(random, DIGITS, digits.saturating_sub(fixed.len())));
        compose(&own).filter(|payable| !registry.knows(payable)).map(|_| own)
    })
}

/// Digits between prefix and own digits of a classic number (vectors `va-number.json`).
const MERCHANT_DIGITS: &str = "000";
const DIGITS: &[u8] = b"0123456789";
const HEX: &[u8] = b"0123456789abcdef";
const CAPITALS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const GENERATE_TRIES: usize = 1_000;
