//! Limits refuse, never delay, and concern one merchant (contract section 5 rule 7).

use std::time::Duration;

use ayova::dialect::OperationId;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::asks::{Ask, CREATE, SNAP_LOGIN, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, CODES, Setup, World};

const OWN: &str = "12345678901";

fn inquiry(merchant: usize) -> Ask {
    snap_inquiry(&crate::asks::padded(OWN)).set("/customerNo", "CUST000123").merchant(CODES[merchant])
}

#[tokio::test(start_paused = true)]
async fn a_merchant_at_its_limit_slows_nobody() {
    let mut setup = Setup::new(2);
    setup.limit(0, (1, 3), 64);
    let world = setup.build();
    let started = Instant::now();
    for round in 0..200 {
        let (flooding, other) = (world.send(inquiry(0)).await, world.send(inquiry(1)).await);
        assert_eq!(flooding.status, if round < 3 { 404 } else { 429 });
        other.expect(404);
        assert_eq!(other.header("ratelimit"), "", "no limit, no headers");
    }
    assert_eq!(started.elapsed(), Duration::ZERO, "nobody was delayed");
    assert_eq!(world.wire.calls().len(), 203);
    let limited = "ayova_rate_limited_total{merchant=\"sample\",operation=\"snap.inquiry\"}";
    assert_eq!(world.metric(limited).await, 197.0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_back() {
    let mut setup = Setup::new(1);
    setup.limit(0, (2, 4), 64);
    let world = setup.build();
    for left in [3, 2, 1, 0] {
        let got = world.send(inquiry(0)).await;
        assert_eq!(got.expect(404).header("ratelimit-policy"), "\"merchant\";q=4;w=2");
        assert!(
            got.header("ratelimit").starts_with(&format!("\"merchant\";r={left};t=")),
            "{}",
            got.header("ratelimit")
        );
        assert_eq!(got.header("retry-after"), "");
    }
    let got = world.send(inquiry(0)).await;
    assert_eq!(got.expect_refusal(429, "RATE_LIMITED").json()["responseCode"], "4293000");
    assert_eq!((got.header("retry-after"), got.header("ratelimit")), ("1", "\"merchant\";r=0;t=2"));
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..2 {
        world.send(inquiry(0)).await.expect(404);
    }
    let classic =
        Ask::new(Method::GET, &format!("{}?virtualAccountNumber=12345678", crate::asks::CLASSIC), Value::Null);
    let got = world.send(classic).await;
    assert_eq!(got.expect_refusal(429, "RATE_LIMITED").json()["responseCode"], 429, "one limit for both generations");
}

#[tokio::test(start_paused = true)]
async fn an_operation_may_have_a_tighter_limit() {
    let mut setup = Setup::new(1);
    setup.limit(0, (100, 100), 64);
    setup.limit_operation(0, OperationId::SnapCreate, (1, 2));
    let world = setup.build();
    for tag in 0..2 {
        let got = world.send(snap_create(tag, "")).await;
        assert_eq!(got.expect(200).header("ratelimit-policy"), "\"merchant\";q=100;w=1, \"snap.create\";q=2;w=2");
    }
    world.send(snap_create(3, "")).await.expect_refusal(429, "RATE_LIMITED");
    let got = world.send(inquiry(0)).await;
    assert_eq!(got.expect(404).header("ratelimit"), "\"merchant\";r=97;t=1", "the refusal cost nothing");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_under_way() {
    let mut setup = Setup::new(2);
    setup.limit(0, (1_000, 1_000), 5);
    let world = setup.build();
    world.wire.acts(vec![Act::Late(Duration::from_secs(1)); 6]);
    let sending: Vec<_> = (0..20).map(|_| tokio::spawn(world.send(inquiry(0)))).collect();
    let other = world.send(inquiry(1)).await;
    let answers: Vec<_> = join_all(sending).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|got| got.status == 404).count(), 5);
    let refused: Vec<_> = answers.iter().filter(|got| got.status == 429).collect();
    assert_eq!(refused.len(), 15);
    for got in refused {
        assert_eq!(got.expect_refusal(429, "TOO_MANY_IN_FLIGHT").header("retry-after"), "1");
    }
    other.expect(404);
    world.send(inquiry(0)).await.expect(404);
    assert_eq!(world.metric("ayova_in_flight{merchant=\"sample\"}").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_sends_nothing_costs_nothing() {
    let mut setup = Setup::new(1);
    setup.limit(0, (1, 2), 2);
    let world = setup.build();
    world.send(snap_create(1, OWN)).await.expect(200);
    for _ in 0..50 {
        let invalid = world.send(snap_create(2, OWN).set("/totalAmount", json!(5))).await;
        assert!(invalid.expect_refusal(400, "INVALID_REQUEST").header("ratelimit").starts_with("\"merchant\";r=1;"));
        world.send(Ask::new(Method::POST, CREATE, Value::Null).body("{")).await.expect_refusal(400, "BAD_JSON");
        world.send(Ask::new(Method::POST, SNAP_LOGIN, Value::Null)).await;
        world.send(snap_update(3, "99999999999")).await.expect_refusal(404, "REFERENCE_UNKNOWN");
        let replay = world.send(snap_create(1, OWN)).await;
        assert_eq!((replay.source(), replay.status), ("replay", 200));
    }
    world.send(snap_update(4, OWN)).await.expect(200);
    // What never left costs nothing either.
    tokio::time::advance(Duration::from_secs(1)).await;
    world.wire.acts(vec![Act::NotSent; 3]);
    world.send(snap_inquiry(OWN)).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
    world.send(snap_inquiry(OWN)).await.expect(200);
    world.send(snap_inquiry(OWN)).await.expect_refusal(429, "RATE_LIMITED");
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_checked_before_the_body_is_read() {
    let mut setup = Setup::new(1);
    setup.limit(0, (1, 1), 2);
    let world = setup.build();
    world.send(inquiry(0)).await.expect(404);
    let request = http::Request::post(CREATE).body(Untouchable).unwrap();
    world.send_request(request).await.expect_refusal(429, "RATE_LIMITED");
}

/// A body that must not be read.
struct Untouchable;

impl http_body::Body for Untouchable {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        panic!("the body was read");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_frees_its_slot() {
    let mut setup = Setup::new(1);
    setup.limit(0, (100, 100), 1);
    let world: World = setup.build();
    world.wire.acts([Act::Late(Duration::from_secs(5))]);
    let leaving = tokio::spawn(world.send(inquiry(0)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.send(inquiry(0)).await.expect_refusal(429, "TOO_MANY_IN_FLIGHT");
    leaving.abort();
    let _ = leaving.await;
    world.send(inquiry(0)).await.expect(404);
}
