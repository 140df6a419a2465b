//! What the benches say of their counts, and that the counts in the repository are complete.

use std::path::Path;

use crate::counts::{Counts, TOLERANCE, TOLERANCE_ELSEWHERE};

fn recorded() -> Counts {
    Counts::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")).unwrap()
}

/// The record with one operation's count changed by so many per cent.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small counts"
)]
fn with_create_changed(per_cent: f64) -> Counts {
    let mut counts = recorded();
    let count = counts.instructions_per_request.get_mut("snap.create").unwrap();
    *count = (*count as f64 * (1.0 + per_cent / 100.0)) as u64;
    counts
}

#[test]
fn what_costs_more_or_less_than_tolerated_is_found_and_named() {
    let recorded = recorded();
    for fine in [0.0, TOLERANCE - 0.1, 0.1 - TOLERANCE] {
        recorded.compare(&with_create_changed(fine)).unwrap();
    }
    for (off, shown) in [(TOLERANCE + 0.2, "+3.2 %"), (-TOLERANCE - 0.2, "-3.2 %")] {
        let report = recorded.compare(&with_create_changed(off)).unwrap_err();
        let line = report.lines().find(|line| line.contains("TOO FAR")).unwrap();
        assert!(line.starts_with("snap.create went from ") && line.contains(shown), "{line}");
        assert_eq!(report.matches("TOO FAR").count(), 1, "{report}");
    }
}

#[test]
fn another_compiler_widens_the_tolerance_and_is_said() {
    let recorded = recorded();
    let elsewhere = |per_cent| {
        let mut counts = with_create_changed(per_cent);
        counts.made_with.rustc = "1.0.0".to_owned();
        recorded.compare(&counts)
    };
    let report = elsewhere(TOLERANCE_ELSEWHERE - 0.1).unwrap();
    assert!(report.contains("1.0.0"), "{report}");
    elsewhere(TOLERANCE_ELSEWHERE + 0.1).unwrap_err();
}

#[test]
fn other_sizes_are_not_compared_and_missing_operations_are() {
    let recorded = recorded();
    let mut other = with_create_changed(50.0);
    other.sizes[0] += 1;
    assert!(recorded.compare(&other).unwrap().starts_with("not compared"));
    let mut fewer = recorded.clone();
    fewer.instructions_per_request.remove("snap.create");
    recorded.compare(&fewer).unwrap_err();
    assert_eq!(recorded.instructions_per_request.len(), 5);
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.json");
    recorded().write(&file).unwrap();
    assert_eq!(recorded().compare(&Counts::read(&file).unwrap()).unwrap().matches("+0.0 %").count(), 5);
    assert!(Counts::read(&folder.path().join("none.json")).unwrap_err().contains("none.json"));
}

/// What callgrind writes, with a task of its own below `idempotency` and blanks where it has addresses.
const PROFILE: &str = "\
version: 1
positions: line
events: Ir
summary: 100000

fl=(1) bench.rs
fn=(1) serve
1 2000
cfn=(2) ayova::layers::observe::observe::{{closure}}
calls=200 7
+1 50000
cfn=(3) poll
calls=200 9
* 48000

fn=(2)
7 10000
cfn=(4) ayova::layers::idempotency::idempotency::{{closure}}
calls=200 8
7 30000
cfn=(5) malloc
calls=200 5
8 10000

fn=(4)
8 30000

fn=(3)
9 8000
cfn=(6) ayova::layers::reference::reference::{{closure}}
calls=200 6
9 40000

fn=(6)
6 35000
cfn=(5)
calls=200 5
6 5000

fn=(5)
5 15000
";

#[test]
fn what_callgrind_wrote_is_told_by_layer() {
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("gungraun/ayova/instructions/counted/stack/serve.snap_create");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("callgrind.serve.snap_create.out"), PROFILE).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/layers.py");
    let told = |what: &[&str]| {
        let mut command = std::process::Command::new("python3");
        command.arg(&script).args(what).env("CARGO_TARGET_DIR", target.path()).env("AYOVA_BENCH_REQUESTS", "200");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = told(&[]);
    let row =
        |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap();
    // The step without the one below, what it calls included; a task's own code is that of who made it.
    let expected =
        [("observe", "100"), ("idempotency", "190"), ("reference", "200"), ("outside", "10"), ("total", "500")];
    assert_eq!(expected.map(|(name, _)| (name, row(name))), expected, "{table}");
    assert!(told(&["snap_create", "observe"]).contains("50  malloc"));
}
