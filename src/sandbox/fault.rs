//! Faults that are put into the simulator on purpose.
//!
//! Promises that a fault fires exactly where its match says: `nth` counts the matching requests since
//! the fault was set, `probability` is drawn from the simulator's own generator, so the same seed
//! gives the same run; where both are given, both must hold. The first fault of the list that fires
//! is the one that acts, while all of them count. What acting means is `service`'s affair.

use std::time::Duration;

use http::StatusCode;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::duration;
use super::route::Target;

/// Rules held at most.
pub(super) const RULES_MAX: usize = 1_000;
/// Longest delay, so that nothing hangs by mistake: `hang` is there for that.
const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The request is done at once, its answer comes late.
    Latency(Duration),
    /// The request is not done; this is the answer.
    Status(StatusCode, String),
    /// The request is not done, the connection ends without an answer.
    ResetBefore,
    /// The request is done, the connection ends without an answer.
    ResetAfterCommit,
    /// The request is done, its answer is 200 without a body.
    Empty200,
    /// The request is done, its answer breaks off in the middle.
    MalformedJson,
    /// The request is not done and never answered.
    Hang,
    /// The request's token ends before it is looked at; a login's token is dead on arrival.
    ExpireToken,
}

impl Fault {
    /// Name in the control interface.
    #[must_use]
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::Status(..) => "status",
            Self::ResetBefore => "reset_before",
            Self::ResetAfterCommit => "reset_after_commit",
            Self::Empty200 => "empty_200",
            Self::MalformedJson => "malformed_json",
            Self::Hang => "hang",
            Self::ExpireToken => "expire_token",
        }
    }

    fn parse(members: &Map<String, Value>) -> Result<Self, String> {
        let allowed = "one of latency, status (with an optional body), reset_before, reset_after_commit, empty_200, \
                       malformed_json, hang, expire_token";
        let named: Vec<&String> = members.keys().filter(|name| *name != "body").collect();
        let [name] = named.as_slice() else {
            return Err(format!("a fault has exactly one member, {allowed}"));
        };
        if members.contains_key("body") && name.as_str() != "status" {
            return Err("body goes with status only".to_owned());
        }
        let flag = |fault: Self| match members.get(name.as_str()) {
            Some(Value::Bool(true)) => Ok(fault),
            _ => Err(format!("{name} must be true")),
        };
        match name.as_str() {
            "latency" => latency(members),
            "status" => status(members),
            "reset_before" => flag(Self::ResetBefore),
            "reset_after_commit" => flag(Self::ResetAfterCommit),
            "empty_200" => flag(Self::Empty200),
            "malformed_json" => flag(Self::MalformedJson),
            "hang" => flag(Self::Hang),
            "expire_token" => flag(Self::ExpireToken),
            _ => Err(format!("{name:?} is no fault: it must be {allowed}")),
        }
    }
}

fn latency(members: &Map<String, Value>) -> Result<Fault, String> {
    let text = members.get("latency").and_then(Value::as_str).unwrap_or_default();
    match duration::parse(text) {
        Some(delay) if delay <= LATENCY_MAX => Ok(Fault::Latency(delay)),
        Some(_) => Err("latency must be at most 1h".to_owned()),
        None => Err(format!("latency must be {}", duration::EXPECTED)),
    }
}

fn status(members: &Map<String, Value>) -> Result<Fault, String> {
    let number = members.get("status").and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
    let status =
        number.filter(|number| (200..=599).contains(number)).and_then(|number| StatusCode::from_u16(number).ok());
    let Some(status) = status else { return Err("status must be a number from 200 to 599".to_owned()) };
    match members.get("body") {
        None => Ok(Fault::Status(status, String::new())),
        Some(Value::String(body)) => Ok(Fault::Status(status, body.clone())),
        Some(_) => Err("body must be a string".to_owned()),
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    target: Target,
    nth: Option<u64>,
    probability: Option<f64>,
    fault: Fault,
    /// Matching requests since the rule was set.
    seen: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenRule {
    r#match: GivenMatch,
    fault: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenMatch {
    operation: String,
    nth: Option<u64>,
    probability: Option<f64>,
}

impl Faults {
    /// Reads the list of `PUT /_sandbox/faults`.
    ///
    /// # Errors
    /// In words: what is wrong, with the entry's place, and what is allowed.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let given: Vec<GivenRule> = serde_json::from_slice(text).map_err(|error| {
            format!("{error}; expected a list of {{\"match\": {{\"operation\", \"nth\"?, \"probability\"?}}, \"fault\": {{one member}}}}")
        })?;
        if given.len() > RULES_MAX {
            return Err(format!("at most {RULES_MAX} faults"));
        }
        let rules = given
            .into_iter()
            .enumerate()
            .map(|(index, rule)| Rule::new(rule).map_err(|problem| format!("fault {}: {problem}", index + 1)));
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// How many.
    #[must_use]
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The fault that this request meets.
    pub(super) fn pick(&mut self, target: Target, random: &mut StdRng) -> Option<Fault> {
        let mut picked = None;
        for rule in self.0.iter_mut().filter(|rule| rule.target == target) {
            rule.seen += 1;
            let fires = rule.nth.is_none_or(|nth| nth == rule.seen)
                && rule.probability.is_none_or(|probability| random.random_bool(probability));
            if fires && picked.is_none() {
                picked = Some(rule.fault.clone());
            }
        }
        picked
    }
}

impl Rule {
    fn new(given: GivenRule) -> Result<Self, String> {
        let GivenMatch { operation, nth, probability } = given.r#match;
        let Some(target) = Target::all().find(|target| target.name() == operation) else {
            let names: Vec<_> = Target::all().map(Target::name).collect();
            return Err(format!("{operation:?} is no operation: it must be one of {}", names.join(", ")));
        };
        if nth == Some(0) {
            return Err("nth counts from 1".to_owned());
        }
        if probability.is_some_and(|probability| !(0.0..=1.0).contains(&probability)) {
            return Err("probability must be from 0 to 1".to_owned());
        }
        Ok(Self { target, nth, probability, fault: Fault::parse(&given.fault)?, seen: 0 })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::dialect::{Dialect, OperationId};

    const CREATE: Target = Target::Operation(OperationId::SnapCreate);

    fn picks(faults: &str, times: usize, seed: u64) -> Vec<Option<Fault>> {
        let mut faults = Faults::parse(faults.as_bytes()).unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        (0..times).map(|_| faults.pick(CREATE, &mut random)).collect()
    }

    #[test]
    fn nth_counts_matching_requests_from_one() {
        let faults = r#"[{"match": {"operation": "snap.create", "nth": 2}, "fault": {"hang": true}}]"#;
        assert_eq!(picks(faults, 3, 0), [None, Some(Fault::Hang), None]);
        let mut faults = Faults::parse(faults.as_bytes()).unwrap();
        let mut random = StdRng::seed_from_u64(0);
        assert_eq!(faults.pick(Target::Token(Dialect::Snap), &mut random), None);
        assert_eq!(faults.pick(CREATE, &mut random), None);
        assert_eq!(faults.pick(CREATE, &mut random), Some(Fault::Hang));
    }

    #[test]
    fn probability_is_drawn_from_the_seeded_generator() {
        let faults = r#"[{"match": {"operation": "snap.create", "probability": 0.5}, "fault": {"empty_200": true}}]"#;
        let run = picks(faults, 200, 7);
        assert_eq!(run, picks(faults, 200, 7));
        assert_ne!(run, picks(faults, 200, 8));
        let fired = run.iter().flatten().count();
        assert!((60..140).contains(&fired), "{fired}");
        for (probability, expected) in [("0", 0), ("1", 20)] {
            let faults = faults.replace("0.5", probability);
            assert_eq!(picks(&faults, 20, 1).iter().flatten().count(), expected);
        }
    }

    #[test]
    fn the_first_that_fires_acts_and_all_count() {
        let faults = r#"[
            {"match": {"operation": "snap.create", "nth": 1}, "fault": {"reset_before": true}},
            {"match": {"operation": "snap.create", "nth": 2}, "fault": {"latency": "500ms"}},
            {"match": {"operation": "snap.create"}, "fault": {"status": 503, "body": "busy"}}
        ]"#;
        let busy = Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "busy".to_owned());
        let late = Fault::Latency(Duration::from_millis(500));
        assert_eq!(picks(faults, 3, 0), [Some(Fault::ResetBefore), Some(late), Some(busy)]);
    }

    #[test]
    fn every_mistake_is_named() {
        let fault = |text: &str| format!(r#"[{{"match": {{"operation": "snap.create"}}, "fault": {text}}}]"#);
        let matched = |text: &str| format!(r#"[{{"match": {text}, "fault": {{"hang": true}}}}]"#);
        for (list, says) in [
            ("{}".to_owned(), "expected a list"),
            (fault("{}"), "exactly one member"),
            (fault(r#"{"hang": true, "latency": "1s"}"#), "exactly one member"),
            (fault(r#"{"hang": false}"#), "hang must be true"),
            (fault(r#"{"explode": true}"#), "is no fault"),
            (fault(r#"{"latency": "soon"}"#), "500ms"),
            (fault(r#"{"latency": "2h"}"#), "at most 1h"),
            (fault(r#"{"latency": 5}"#), "500ms"),
            (fault(r#"{"status": 99}"#), "200 to 599"),
            (fault(r#"{"status": "503"}"#), "200 to 599"),
            (fault(r#"{"status": 503, "body": {}}"#), "body must be a string"),
            (fault(r#"{"hang": true, "body": "x"}"#), "status only"),
            (matched(r#"{"operation": "snap.delete"}"#), "classic.token"),
            (matched(r#"{"operation": "snap.create", "nth": 0}"#), "counts from 1"),
            (matched(r#"{"operation": "snap.create", "nth": -1}"#), "nth"),
            (matched(r#"{"operation": "snap.create", "probability": 1.5}"#), "from 0 to 1"),
            (matched(r#"{"operation": "snap.create", "chance": 1}"#), "unknown field"),
            (matched("{}"), "operation"),
        ] {
            let problem = Faults::parse(list.as_bytes()).unwrap_err();
            assert!(problem.contains(says), "{list}: {problem}");
        }
    }
}
