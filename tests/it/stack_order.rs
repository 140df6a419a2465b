//! Pins the order of the layers.
//!
//! The shapes in `call.rs` keep a layer from standing before what it needs; between layers of one
//! shape only the list in `stack.rs` decides. This reads that list as text, so that changing it takes
//! changing this too, with a reason.

const STACK: &str = include_str!("../../src/stack.rs");

/// Outermost first (contract section 5, `lib.rs`).
const ORDER: [&str; 14] = [
    "observe",
    "render",
    "dispatch",
    "identify",
    "rate_limit",
    "collect",
    "validate",
    "idempotency",
    "reference",
    "retry",
    "token",
    "sign",
    "breaker",
    "client",
];

/// The steps of the list that begins at the given place of the source, in order.
fn steps(list: &str) -> Vec<&str> {
    let (list, _) = list.split_once(';').unwrap();
    let lines = list.lines().filter(|line| line.contains(".layer(") || line.contains(".service("));
    lines.map(|line| line.trim().trim_end_matches(')').rsplit([' ', '(']).next().unwrap()).collect()
}

#[test]
fn layers_stand_in_the_documented_order() {
    let lists: Vec<_> = STACK.match_indices("ServiceBuilder::new()").map(|(at, _)| steps(&STACK[at..])).collect();
    // The upper list ends where the lower one, which the gateway's own inquiries enter, begins.
    let [lower, upper] = lists.as_slice() else { panic!("{lists:?}") };
    let (ends_in, upper) = upper.split_last().unwrap();
    assert_eq!(*ends_in, "lower");
    assert_eq!([upper, lower].concat(), ORDER);
}
