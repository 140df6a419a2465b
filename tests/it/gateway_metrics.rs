//! Every metric of contract section 6 moves, and no label leaves its closed set.

use std::collections::BTreeSet;
use std::time::Duration;

use ayova::dialect::OperationId;
use ayova::error::Error;
use http::{HeaderValue, Method, Response};
use serde_json::Value;

use crate::asks::{Ask, classic_create, classic_update, id, padded, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, CODES, Setup, World};

const OWN: &str = "12345678901";

/// Every family and whether this run must move it. Reloads need a running process.
const FAMILIES: [(&str, bool); 14] = [
    ("ayova_requests", true),
    ("ayova_request_duration_seconds", true),
    ("ayova_upstream_attempts", true),
    ("ayova_upstream_duration_seconds", true),
    ("ayova_in_flight", true),
    ("ayova_rate_limited", true),
    ("ayova_idempotency", true),
    ("ayova_reference", true),
    ("ayova_token_refreshes", true),
    ("ayova_token_seconds_left", true),
    ("ayova_unknown_outcomes", true),
    ("ayova_clock_skew_seconds", true),
    ("ayova_build_info", true),
    ("ayova_config_reloads", false),
];

/// One sample as it is scraped.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

fn samples(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
            let label = |label: &str| {
                let (name, value) = label.split_once('=').unwrap();
                (name.to_owned(), value.trim_matches('"').to_owned())
            };
            Sample { name: name.to_owned(), labels: labels.map(label).collect(), value: value.parse().unwrap() }
        })
        .collect()
}

/// The values a label may have.
fn closed_set(family: &str, label: &str) -> BTreeSet<String> {
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    match (label, family) {
        ("merchant", _) => set(&["sample", "merchant1", "none"]),
        ("operation", _) => {
            OperationId::ALL.iter().map(|id| id.name()).chain(["none"]).map(ToOwned::to_owned).collect()
        }
        ("source", _) => set(&["upstream", "replay", "gateway"]),
        ("dialect", _) => set(&["classic", "snap"]),
        ("outcome", _) => set(&["answered", "not_sent", "unknown"]),
        ("version", _) => set(&[env!("CARGO_PKG_VERSION")]),
        ("reason", _) => {
            let codes = Error::samples().iter().map(|error| error.reason().code()).collect::<Vec<_>>();
            codes.into_iter().chain(["none", "NOT_STORED", "SETTLED_BY_INQUIRY"]).map(ToOwned::to_owned).collect()
        }
        ("result", "ayova_idempotency_total") => set(&["new", "joined", "replayed", "conflict", "in_progress"]),
        ("result", "ayova_reference_total") => set(&["store", "inquiry", "caller", "missing"]),
        ("result", "ayova_token_refreshes_total") => set(&["success", "failure"]),
        _ => BTreeSet::new(),
    }
}

/// A run in which everything happens at least once.
async fn scripted_run() -> World {
    let mut setup = Setup::new(2);
    setup.limit(1, (1, 1), 1);
    setup.config.idempotency.wait = Duration::from_secs(1);
    let world = setup.build();
    let ours = |ask: Ask| ask.merchant(CODES[0]);
    let mut skewed = Response::new(bytes::Bytes::from_static(b"{\"responseCode\":\"4042712\"}"));
    *skewed.status_mut() = http::StatusCode::NOT_FOUND;
    skewed.headers_mut().insert("date", HeaderValue::from_static("Mon, 05 Jan 2026 03:00:42 GMT"));
    world.wire.acts([Act::AnswerWith(Box::new(skewed))]);
    world.send(ours(snap_create(1, OWN))).await.expect(404);
    world.send(ours(snap_create(2, OWN))).await.expect(200);
    assert_eq!(world.send(ours(snap_create(2, OWN))).await.source(), "replay");
    world.send(ours(snap_create(2, ""))).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
    world.wire.acts([Act::Late(Duration::from_secs(3))]);
    let slow = tokio::spawn(world.send(ours(snap_update(3, OWN))));
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.send(ours(snap_update(3, OWN))).await.expect_refusal(409, "IDEMPOTENCY_IN_PROGRESS");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(world.send(ours(snap_update(3, OWN))).await.source(), "replay");
    slow.await.unwrap().expect(200);
    world.wire.acts([Act::NotSent, Act::Broken]);
    world.send(ours(classic_create(4, "12345678"))).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    world.send(ours(classic_update("12345678"))).await.expect_refusal(404, "REFERENCE_UNKNOWN");
    let update = ours(snap_update(5, &padded("98765432109"))).set("/customerNo", "CUST000123");
    world.send(update.clone()).await.expect_refusal(404, "REFERENCE_UNKNOWN");
    world
        .send(update.header("X-EXTERNAL-ID", &id(6)).set("/originalReferenceNo", id(6)).set("/trxId", id(6)))
        .await
        .expect(404);
    world.send(ours(snap_inquiry(OWN))).await.expect(200);
    let theirs = || snap_inquiry(&padded(OWN)).set("/customerNo", "CUST000123").merchant(CODES[1]);
    world.wire.login_acts([Act::Answer(500, ""), Act::Answer(500, ""), Act::Answer(500, "")]);
    world.send(theirs()).await.expect_refusal(503, "TOKEN_UNAVAILABLE");
    world.send(theirs()).await.expect(404);
    world.send(theirs()).await.expect_refusal(429, "RATE_LIMITED");
    world.send(Ask::new(Method::GET, "/nowhere", Value::Null)).await.expect_refusal(404, "UNKNOWN_ROUTE");
    world.wire.acts([Act::Hang]);
    let under_way = tokio::spawn(world.send(ours(snap_inquiry(OWN))));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.metric("ayova_in_flight{merchant=\"sample\"}").await, 1.0);
    under_way.abort();
    let _ = under_way.await;
    world
}

#[tokio::test(start_paused = true)]
async fn every_metric_moves_and_every_label_is_known() {
    let world = scripted_run().await;
    let text = world.scrape().await;
    let samples = samples(&text);
    for (family, moves) in FAMILIES {
        assert_eq!(text.contains(&format!("# TYPE {family} ")), moves, "{family}");
        let moved = samples.iter().any(|sample| sample.name.starts_with(family));
        assert_eq!(moved, moves, "{family}");
    }
    for sample in &samples {
        assert!(sample.value >= 0.0, "{sample:?}");
        for (label, value) in &sample.labels {
            let known = match label.as_str() {
                "le" => true,
                "status" => value.parse().is_ok_and(|status: u16| (100..600).contains(&status)),
                _ => closed_set(&sample.name, label).contains(value),
            };
            assert!(known, "{label}={value} of {}", sample.name);
        }
    }
    let declared = text.lines().filter(|line| line.starts_with("# TYPE ayova_")).count();
    let moving = FAMILIES.iter().filter(|(_, moves)| *moves).count();
    assert_eq!(declared, moving, "a metric that this list does not know");
}

#[tokio::test(start_paused = true)]
async fn metrics_say_what_happened() {
    let world = scripted_run().await;
    for (series, value) in [
        ("ayova_idempotency_total{operation=\"snap.create\",result=\"new\"}", 2.0),
        ("ayova_idempotency_total{operation=\"snap.create\",result=\"replayed\"}", 1.0),
        ("ayova_idempotency_total{operation=\"snap.create\",result=\"conflict\"}", 1.0),
        ("ayova_idempotency_total{operation=\"snap.update\",result=\"in_progress\"}", 1.0),
        ("ayova_idempotency_total{operation=\"snap.update\",result=\"joined\"}", 1.0),
        ("ayova_reference_total{operation=\"snap.update\",result=\"store\"}", 1.0),
        ("ayova_reference_total{operation=\"snap.update\",result=\"missing\"}", 1.0),
        ("ayova_reference_total{operation=\"snap.update\",result=\"caller\"}", 1.0),
        ("ayova_upstream_attempts_total{operation=\"classic.create\",outcome=\"not_sent\"}", 1.0),
        ("ayova_upstream_attempts_total{operation=\"classic.create\",outcome=\"unknown\"}", 1.0),
        ("ayova_unknown_outcomes{operation=\"classic.create\"}", 1.0),
        ("ayova_rate_limited_total{merchant=\"merchant1\",operation=\"snap.inquiry\"}", 1.0),
        ("ayova_token_refreshes_total{merchant=\"merchant1\",dialect=\"snap\",result=\"failure\"}", 1.0),
        ("ayova_token_refreshes_total{merchant=\"merchant1\",dialect=\"snap\",result=\"success\"}", 1.0),
        ("ayova_in_flight{merchant=\"sample\"}", 0.0),
        ("ayova_clock_skew_seconds", 42.0),
        (
            "ayova_requests_total{merchant=\"none\",operation=\"none\",status=\"404\",source=\"gateway\",reason=\"UNKNOWN_ROUTE\"}",
            1.0,
        ),
        (
            "ayova_requests_total{merchant=\"sample\",operation=\"snap.create\",status=\"200\",source=\"replay\",reason=\"none\"}",
            1.0,
        ),
        (
            "ayova_requests_total{merchant=\"merchant1\",operation=\"snap.inquiry\",status=\"429\",source=\"gateway\",reason=\"RATE_LIMITED\"}",
            1.0,
        ),
    ] {
        assert_eq!(world.metric(series).await, value, "{series}");
    }
    let left = world.metric("ayova_token_seconds_left{merchant=\"sample\",dialect=\"snap\"}").await;
    assert!(left > 3_000.0, "{left}");
}
