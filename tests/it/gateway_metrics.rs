//! `/metrics` is what the contract says: every name, type and label, and no label outside its closed set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ayova::dialect::{Dialect, OperationId};
use ayova::error::Error;
use ayova::store::inbox::EventKind;
use ayova::supervise::Task;
use ayova::telemetry::metrics::{Confirmation, Delivery, Intake, Metrics, Sweeping, Waiting};
use http::{HeaderValue, Method, Response};
use prometheus_client::registry::Registry;
use prometheus_parse::{Scrape, Value as Reading};
use serde_json::Value;

use crate::asks::{Ask, classic_create, classic_update, id, padded, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, CODES, Setup, World};

const OWN: &str = "12345678901";

/// Contract section 6: series, type, labels.
const CONTRACT: [(&str, &str, &[&str]); 14] = [
    ("ayova_requests_total", "counter", &["merchant", "operation", "status", "source", "reason"]),
    ("ayova_request_duration_seconds", "histogram", &["operation", "source"]),
    ("ayova_upstream_attempts_total", "counter", &["operation", "outcome"]),
    ("ayova_upstream_duration_seconds", "histogram", &["operation"]),
    ("ayova_in_flight", "gauge", &["merchant"]),
    ("ayova_rate_limited_total", "counter", &["merchant", "operation"]),
    ("ayova_idempotency_total", "counter", &["operation", "result"]),
    ("ayova_reference_total", "counter", &["operation", "result"]),
    ("ayova_token_refreshes_total", "counter", &["merchant", "dialect", "result"]),
    ("ayova_token_seconds_left", "gauge", &["merchant", "dialect"]),
    ("ayova_unknown_outcomes", "gauge", &["operation"]),
    ("ayova_clock_skew_seconds", "gauge", &[]),
    ("ayova_build_info", "gauge", &["version"]),
    ("ayova_config_reloads_total", "counter", &["result"]),
];

/// Contract section 8, and what docs/callbacks.md adds.
const CALLBACKS: [(&str, &str, &[&str]); 7] = [
    ("ayova_callbacks_received_total", "counter", &["merchant", "dialect", "result"]),
    ("ayova_events_delivered_total", "counter", &["merchant", "type", "result"]),
    ("ayova_events_pending", "gauge", &["merchant"]),
    ("ayova_event_age_seconds", "gauge", &["merchant"]),
    ("ayova_events_dead_total", "counter", &["merchant"]),
    ("ayova_confirmations_total", "counter", &["merchant", "dialect", "result"]),
    ("ayova_sweeps_total", "counter", &["merchant", "dialect", "result"]),
];

/// Of our own.
const OWN_SERIES: (&str, &str, &[&str]) = ("ayova_task_panics_total", "counter", &["task"]);

/// The values a label may have.
fn closed_set(family: &str, label: &str) -> BTreeSet<String> {
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    match (label, family) {
        ("merchant", _) => set(&["sample", "merchant1", "none"]),
        ("operation", _) => {
            OperationId::ALL.iter().map(|id| id.name()).chain(["none"]).map(ToOwned::to_owned).collect()
        }
        ("source", _) => set(&["upstream", "replay", "gateway"]),
        ("dialect", _) => set(&["classic", "snap", "none"]),
        ("outcome", _) => set(&["answered", "not_sent", "unknown"]),
        ("version", _) => set(&[env!("CARGO_PKG_VERSION")]),
        ("type", _) => set(&["va.paid", "va.expired"]),
        ("task", _) => Task::ALL.iter().map(|task| task.name().to_owned()).collect(),
        ("reason", _) => {
            let codes = Error::samples().iter().map(|error| error.reason().code()).collect::<Vec<_>>();
            codes.into_iter().chain(["none", "NOT_STORED", "SETTLED_BY_INQUIRY"]).map(ToOwned::to_owned).collect()
        }
        ("result", "ayova_idempotency_total") => set(&["new", "joined", "replayed", "conflict", "in_progress"]),
        ("result", "ayova_reference_total") => set(&["store", "inquiry", "caller", "missing"]),
        ("result", "ayova_token_refreshes_total") => set(&["success", "failure"]),
        ("result", "ayova_config_reloads_total") => set(&["applied", "rejected", "unchanged"]),
        ("result", "ayova_callbacks_received_total") => {
            set(&["stored", "duplicate", "quarantined", "refused", "unavailable"])
        }
        ("result", "ayova_events_delivered_total") => set(&["delivered", "failed", "dead", "contradicted"]),
        ("result", "ayova_confirmations_total") => set(&["confirmed", "hidden", "open", "contradicted"]),
        ("result", "ayova_sweeps_total") => set(&["paid", "expired", "nothing", "failed"]),
        _ => BTreeSet::new(),
    }
}

/// The types a page declares, by family; each declared and explained once, before its samples.
fn types(text: &str) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    let mut explained = BTreeSet::new();
    for line in text.lines() {
        match line.strip_prefix("# ").map(|line| line.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
            Some(["HELP", name, help]) => assert!(explained.insert((*name).to_owned()) && !help.is_empty(), "{line}"),
            Some(["TYPE", name, kind]) => {
                assert!(explained.contains(*name), "no HELP before {line}");
                assert_eq!(types.insert((*name).to_owned(), (*kind).to_owned()), None, "{line}");
            }
            Some(_) => panic!("neither HELP nor TYPE: {line}"),
            None => {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
                assert!(types.contains_key(name) || types.contains_key(family.unwrap_or(name)), "no TYPE: {line}");
            }
        }
    }
    types
}

/// What holds for any page: it can be read whole, no series comes twice, labels are of closed sets,
/// counters and gauges are numbers, buckets grow up to the count.
fn check_page(text: &str, families: &[(&str, &str, &[&str])]) {
    assert_eq!(types(text), families.iter().map(|(name, kind, _)| ((*name).into(), (*kind).into())).collect());
    let series: Vec<&str> = text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    let series: Vec<&str> = series.into_iter().filter(|series| !series.starts_with('#')).collect();
    assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len(), "a series comes twice");
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    for (family, kind, labels) in families {
        let samples: Vec<_> = scrape.samples.iter().filter(|sample| sample.metric == *family).collect();
        assert!(!samples.is_empty(), "{family} has no series");
        for sample in samples {
            assert_eq!(sample.labels.keys().collect::<BTreeSet<_>>().len(), labels.len(), "{sample:?}");
            for label in *labels {
                let value = sample.labels.get(label).unwrap_or_else(|| panic!("no {label}: {sample:?}"));
                let known = match *label {
                    "status" => value.parse().is_ok_and(|status: u16| (100..600).contains(&status)),
                    _ => closed_set(family, label).contains(value),
                };
                assert!(known, "{label}={value} of {family}");
            }
            match (&sample.value, *kind) {
                (Reading::Counter(value), "counter") => assert!(*value >= 0.0 && value.fract() == 0.0, "{sample:?}"),
                (Reading::Gauge(value), "gauge") => assert!(value.is_finite(), "{sample:?}"),
                (Reading::Histogram(buckets), "histogram") => check_buckets(text, sample, buckets),
                _ => panic!("{family} is no {kind}: {sample:?}"),
            }
        }
    }
}

fn check_buckets(text: &str, sample: &prometheus_parse::Sample, buckets: &[prometheus_parse::HistogramCount]) {
    let grow = buckets.windows(2).all(|pair| pair[0].less_than < pair[1].less_than && pair[0].count <= pair[1].count);
    assert!(grow, "{sample:?}");
    let last = buckets.last().unwrap();
    assert!(last.less_than.is_infinite());
    let of_this = |line: &&str| sample.labels.iter().all(|(name, value)| line.contains(&format!("{name}=\"{value}\"")));
    let figure = |part: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{}{part}", sample.metric)));
        lines.find(of_this).and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).unwrap()
    };
    assert_eq!(figure("_count"), last.count, "{sample:?}");
    assert!(figure("_sum") >= 0.0);
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
async fn every_metric_of_the_contract_is_there_and_every_label_is_known() {
    let world = scripted_run().await;
    check_page(&world.scrape().await, &[CONTRACT.as_slice(), &[OWN_SERIES]].concat());
}

#[tokio::test(start_paused = true)]
async fn what_an_alert_looks_at_exists_before_it_has_happened() {
    let world = World::new();
    let text = world.scrape().await;
    for series in [
        "ayova_config_reloads_total{result=\"rejected\"} 0",
        "ayova_unknown_outcomes{operation=\"classic.create\"} 0",
        "ayova_upstream_attempts_total{operation=\"snap.create\",outcome=\"unknown\"} 0",
        "ayova_task_panics_total{task=\"resolver\"} 0",
        "ayova_in_flight{merchant=\"sample\"} 0",
    ] {
        assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
    }
    // A read is never in doubt.
    assert!(!text.contains("ayova_unknown_outcomes{operation=\"snap.inquiry\"}"));
}

#[tokio::test(start_paused = true)]
async fn the_clocks_difference_is_shown() {
    assert_eq!(World::new().admin("/status").await.json()["clock_skew_seconds"], Value::Null);
    let world = scripted_run().await;
    assert_eq!(world.admin("/status").await.json()["clock_skew_seconds"], 42.5);
}

#[test]
fn the_documentation_names_every_series() {
    let page = include_str!("../../docs/telemetry.md");
    for (series, kind, labels) in CONTRACT.iter().chain(&CALLBACKS).chain([&OWN_SERIES]) {
        let row = page.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{series}`")));
        let row = row.unwrap_or_else(|| panic!("docs/telemetry.md lacks {series}"));
        let named = labels.iter().all(|label| row.contains(&format!("`{label}`")));
        assert!(named && row.contains(&format!("| {kind} |")), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scraper_that_asks_gets_openmetrics() {
    let world = World::new();
    let plain = world.admin("/metrics").await;
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let open = world.admin_with("/metrics", ("accept", accept)).await;
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.text().ends_with("\n# EOF\n"));
    assert!(open.text().contains("# TYPE ayova_config_reloads counter\n"));
}

#[test]
fn metrics_of_callbacks_are_the_contracts() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let merchant: Arc<str> = "sample".into();
    metrics.callback_received(None, Intake::Refused);
    for intake in [Intake::Stored, Intake::Duplicate, Intake::Quarantined, Intake::Unavailable] {
        metrics.callback_received(Some((&merchant, Dialect::Snap)), intake);
    }
    for delivery in [Delivery::Delivered, Delivery::Failed, Delivery::Dead, Delivery::Contradicted] {
        metrics.event_delivered(&merchant, EventKind::Paid, delivery);
        metrics.event_delivered(&merchant, EventKind::Expired, delivery);
    }
    for result in [Confirmation::Confirmed, Confirmation::Hidden, Confirmation::Open, Confirmation::Contradicted] {
        metrics.confirmed(&merchant, Dialect::Classic, result);
    }
    for result in [Sweeping::Paid, Sweeping::Expired, Sweeping::Nothing, Sweeping::Failed] {
        metrics.swept(&merchant, Dialect::Classic, result);
    }
    metrics.events_waiting([Waiting { merchant: Arc::clone(&merchant), pending: 3, age_seconds: 1.5 }]);
    let (text, _) = ayova::telemetry::exposition::render(&registry, "").unwrap();
    let ours = |name: &str| CALLBACKS.iter().any(|(family, ..)| name.starts_with(family));
    let name = |line: &str| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").to_owned();
    let lines: Vec<&str> = text.lines().filter(|line| ours(&name(line))).collect();
    check_page(&lines.join("\n"), &CALLBACKS);
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
        ("ayova_clock_skew_seconds", 42.5),
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
