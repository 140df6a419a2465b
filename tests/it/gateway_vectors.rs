//! The shared validation vectors, sent through the gateway.
//!
//! The vectors say what Ayoconnect takes. Where the gateway may know better because it supplies what
//! is missing, or leaves the judgement to upstream, [`OTHERWISE`] says so with the reason.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::asks::{Ask, CLASSIC, CREATE, INQUIRY, UPDATE, classic_create, id, snap_create, snap_update};
use crate::harness::{Setup, World};

const SNAP: &str = include_str!("../vectors/validation-snap.json");
const CLASSIC_VECTORS: &str = include_str!("../vectors/validation-classic.json");
const NUMBERS: &str = include_str!("../vectors/va-number.json");
const TIMESTAMPS: &str = include_str!("../vectors/timestamps.json");

/// Who decides about a case, and with which status, where the gateway does not do so by the vector.
enum Decides {
    /// The gateway supplies what the vector leaves out or spoils: it succeeds.
    Supplied,
    /// The gateway does not judge this; upstream refuses as the vector says.
    Upstream,
    /// The gateway refuses in its own way: status and rule.
    Gateway(u16, &'static str),
}

const OTHERWISE: [(&str, Decides, &str); 7] = [
    ("vs-head-timestamp", Decides::Supplied, "made anew for every try"),
    ("vs-head-no-channel", Decides::Supplied, "from the merchant's configuration"),
    ("vs-update-no-reference", Decides::Supplied, "attached from the record"),
    ("vs-create-below-min", Decides::Upstream, "the minimum is soft on the client (protocol/README.md row 23)"),
    ("vs-update-customer-changed", Decides::Gateway(400, "mismatch"), "contradicts the record (contract section 9)"),
    ("vc-head-no-token", Decides::Supplied, "the token is the gateway's"),
    ("vc-head-no-merchant", Decides::Supplied, "the only configured merchant"),
];

fn cases(vectors: &str) -> (Value, Vec<Value>) {
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    (vectors["base"].clone(), vectors["cases"].as_array().unwrap().clone())
}

/// The request of a case, with everything the vectors send.
fn ask(base: &Value, case: &Value, method: Method, path: &str) -> Ask {
    let mut ask = Ask::new(method, path, base[case["op"].as_str().unwrap()].clone());
    let mut headers = base["headers"].as_object().unwrap().clone();
    headers.extend(case["headers_set"].as_object().cloned().unwrap_or_default());
    for name in case["headers_unset"].as_array().into_iter().flatten() {
        headers.remove(name.as_str().unwrap());
    }
    for (name, value) in headers {
        let value = value.as_str().unwrap();
        let value = if value.starts_with("<fresh") { id(1) } else { value.replace("AYOAPP", "AYOTST") };
        ask = ask.header(&name, &value);
    }
    for (pointer, value) in case["set"].as_object().into_iter().flatten() {
        ask = ask.set(pointer, value.clone());
    }
    let unset = case["unset"].as_array().into_iter().flatten();
    unset.fold(ask, |ask, pointer| ask.unset(pointer.as_str().unwrap()))
}

/// Sends a case and holds the answer against what the vector, or the exception, says.
async fn check(world: &World, case: &Value, ask: Ask) {
    let (name, expect) = (case["id"].as_str().unwrap(), &case["expect"]);
    world.wire.clear();
    let got = world.send(ask).await;
    let sent = world.wire.calls().len();
    let exception = OTHERWISE.iter().find(|(known, ..)| *known == name).map(|(_, decides, _)| decides);
    let accepted = expect["accepted"] == true || matches!(exception, Some(Decides::Supplied));
    if accepted {
        assert_eq!((got.status / 100, got.source(), sent), (2, "upstream", 1), "{name}: {}", got.text());
        return;
    }
    let mut status = expect["http_status"].as_u64().unwrap() as u16;
    if matches!(exception, Some(Decides::Upstream)) {
        assert_eq!((got.status, got.source(), sent), (status, "upstream", 1), "{name}: {}", got.text());
        return;
    }
    if let Some(Decides::Gateway(other, rule)) = exception {
        assert_eq!(got.json()["errors"][0]["rule"], *rule, "{name}");
        status = *other;
    }
    assert_eq!((got.status, got.reason(), sent), (status, "INVALID_REQUEST", 0), "{name}: {}", got.text());
    assert_eq!(got.faults(), [expect["field"].as_str().unwrap()], "{name}");
    if let (None, Some(case)) = (exception, expect["case"].as_str()) {
        assert!(got.json()["responseCode"].as_str().unwrap().ends_with(case), "{name}: {}", got.text());
    }
}

#[tokio::test(start_paused = true)]
async fn snap_validation_vectors() {
    let (base, cases) = cases(SNAP);
    for case in &cases {
        let world = World::new();
        let (method, path) = match case["op"].as_str().unwrap() {
            "create" => (Method::POST, CREATE),
            "update" => (Method::PUT, UPDATE),
            _ => (Method::POST, INQUIRY),
        };
        if path != CREATE {
            let create = serde_json::json!({"op": "create"});
            world.send(self::ask(&base, &create, Method::POST, CREATE)).await.expect(200);
        }
        let mut ask = ask(&base, case, method, path);
        if path == UPDATE {
            // The base's id is the create's, which would be a conflict.
            ask = ask.header("X-EXTERNAL-ID", &id(9));
        }
        check(&world, case, ask).await;
    }
    assert!(cases.len() >= 40);
}

#[tokio::test(start_paused = true)]
async fn classic_validation_vectors() {
    let (base, cases) = cases(CLASSIC_VECTORS);
    for case in &cases {
        let mut setup = Setup::new(1);
        // Ayoconnect's own habit, which the vectors write down.
        setup.config.errors.classic_validation_status = StatusCode::SERVICE_UNAVAILABLE;
        check(&setup.build(), case, ask(&base, case, Method::POST, CLASSIC)).await;
    }
    assert!(cases.len() >= 25);
}

#[test]
fn every_exception_is_about_a_case() {
    let known: Vec<Value> = [SNAP, CLASSIC_VECTORS].into_iter().flat_map(|vectors| cases(vectors).1).collect();
    for (name, _, reason) in &OTHERWISE {
        assert!(known.iter().any(|case| case["id"] == *name), "{name}");
        assert!(!reason.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn number_vectors() {
    let (_, cases) = cases(NUMBERS);
    for (tag, case) in (1..).zip(&cases) {
        let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
        let world = World::new();
        let snap = case["generation"] == "snap";
        let ask = if snap {
            snap_create(tag, &text("input")).set("/additionalInfo/bankCode", text("bank_code"))
        } else {
            classic_create(tag, &text("input")).set("/bankCode", text("bank_code"))
        };
        let got = world.send(ask).await;
        let member = if snap { "virtualAccountNo" } else { "virtualAccountNumber" };
        if case["valid"] == true {
            let full = got.expect(if snap { 200 } else { 201 }).json()["virtualAccountData"][member].clone();
            let expected = text(member);
            // The merchant's part of a classic number is the simulator's own.
            let own = if snap { expected } else { text("input") };
            assert!(full.as_str().unwrap().ends_with(&own), "{}", case["id"]);
        } else {
            assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), [member], "{}", case["id"]);
            assert!(world.wire.all().is_empty());
        }
    }
    assert!(cases.len() >= 15);
}

#[tokio::test(start_paused = true)]
async fn timestamp_vectors() {
    let (_, cases) = cases(TIMESTAMPS);
    for case in &cases {
        let world = World::new();
        world.send(snap_create(1, "12345678901")).await.expect(200);
        world.wire.clear();
        let got = world.send(snap_update(2, "12345678901").set("/expiredDate", case["value"].clone())).await;
        if case["valid"] == true {
            got.expect(200);
            assert_eq!(world.wire.last().json()["expiredDate"], case["value"]);
        } else {
            assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["expiredDate"], "{}", case["id"]);
            assert!(world.wire.all().is_empty());
        }
    }
    assert!(cases.len() >= 10);
}
