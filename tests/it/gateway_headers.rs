//! Headers: what is added to answers, and what stays between app and gateway (contract sections 1, 4, 9).

use http::{HeaderValue, Method, Response};
use serde_json::Value;

use crate::asks::{Ask, CLASSIC_LOGIN, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, Setup, World};

const OWN: &str = "12345678901";

#[tokio::test(start_paused = true)]
async fn every_answer_says_who_gave_it_and_carries_an_id() {
    let world = World::new();
    world.wire.acts([Act::Deliver, Act::Deliver, Act::Answer(500, ""), Act::Answer(500, ""), Act::Answer(500, "")]);
    for (ask, status, source, reason) in [
        (snap_create(1, OWN), 200, "upstream", ""),
        (snap_create(1, OWN), 200, "replay", ""),
        (snap_create(1, ""), 409, "gateway", "IDEMPOTENCY_CONFLICT"),
        (snap_create(2, OWN), 404, "upstream", ""),
        (snap_update(3, OWN), 504, "gateway", "OUTCOME_UNKNOWN"),
        (Ask::new(Method::GET, "/", Value::Null), 404, "gateway", "UNKNOWN_ROUTE"),
        (Ask::new(Method::POST, CLASSIC_LOGIN, Value::Null), 200, "gateway", ""),
    ] {
        let got = world.send(ask.clone()).await;
        assert_eq!((got.status, got.source(), got.reason()), (status, source, reason), "{}", ask.path);
        assert_eq!(got.header("idempotency-replayed"), if source == "replay" { "true" } else { "" });
        assert_eq!(got.header("x-request-id").len(), 32);
        assert_eq!(got.header("content-type"), "application/json");
        let got = world.send(ask.header("X-Request-Id", "order 7")).await;
        assert_eq!(got.header("x-request-id").len(), 32, "a blank is not visible ASCII");
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_request_id_is_kept_where_it_is_one() {
    let world = World::new();
    let longest = "x".repeat(128);
    for id in ["a", "5f0c-!~", &longest] {
        assert_eq!(world.send(snap_inquiry(OWN).header("X-Request-Id", id)).await.header("x-request-id"), id);
    }
    for id in ["", " ", "a b", "\t", &"x".repeat(129)] {
        let got = world.send(snap_inquiry(OWN).header("X-Request-Id", id)).await;
        assert_ne!(got.header("x-request-id"), id);
        assert_eq!(got.header("x-request-id").len(), 32);
    }
    let got = world.send(snap_inquiry(OWN).also("X-Request-Id", b"caf\xc3\xa9")).await;
    assert_eq!(got.header("x-request-id").len(), 32);
}

#[tokio::test(start_paused = true)]
async fn what_is_between_app_and_gateway_stays_there() {
    let world = World::new();
    let withheld = [
        ("Authorization", "Bearer canary-authorization"),
        ("Proxy-Authorization", "Basic canary-proxy"),
        ("Cookie", "session=canary-cookie"),
        ("Idempotency-Key", "canary-key"),
        ("X-API-Key", "canary-api-key"),
        ("X-Signature", "canary-signature"),
        ("X-Timestamp", "canary-timestamp"),
        ("X-Client-Key", "canary-client"),
        ("X-Request-Id", "canary-request"),
        ("Host", "canary.example"),
        ("Connection", "Keep-Alive, X-Canary-Named, x-canary-lower"),
        ("X-Canary-Named", "canary-named"),
        ("X-Canary-Lower", "canary-lower"),
        ("Keep-Alive", "canary"),
        ("Proxy-Connection", "canary"),
        ("TE", "trailers, canary"),
        ("Trailer", "canary"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "canary"),
        ("Expect", "100-canary"),
        ("Forwarded", "for=canary"),
        ("X-Forwarded-For", "canary"),
        ("Accept-Encoding", "canary"),
    ];
    let ask = withheld.iter().fold(snap_create(1, OWN), |ask, (name, value)| ask.also(name, value.as_bytes()));
    let passing = ask.header("X-Shop", "jakarta").also("X-Shop", b"bandung").header("Accept-Language", "id");
    world.send(passing).await.expect(200);
    let arrived = world.wire.last();
    for (name, _) in withheld {
        let value = arrived.header(name);
        assert!(!value.contains("canary") && value != "chunked", "{name}: {value}");
    }
    for name in ["connection", "cookie", "idempotency-key", "x-api-key", "te", "upgrade", "proxy-connection"] {
        assert!(!arrived.headers.contains_key(name), "{name}");
    }
    let shops: Vec<_> = arrived.headers.get_all("x-shop").iter().collect();
    assert_eq!(shops, ["jakarta", "bandung"]);
    assert_eq!(arrived.header("accept-language"), "id");
    assert!(arrived.header("user-agent").starts_with("ayova/"));
}

#[tokio::test(start_paused = true)]
async fn merchants_headers_are_added_and_a_callers_channel_is_kept() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    let arrived = world.wire.last();
    for (name, value) in [
        ("x-partner-id", "AYOTST"),
        ("channel-id", "95221"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("x-client-key", "sandbox-client"),
    ] {
        assert_eq!(arrived.header(name), value, "{name}");
        assert_eq!(arrived.headers.get_all(name).iter().count(), 1, "{name}");
    }
    let ask = snap_inquiry(OWN).header("CHANNEL-ID", "95051").header("Accept", "*/*");
    world.send(ask.header("Content-Type", "Application/JSON;charset=utf-8")).await.expect(200);
    let arrived = world.wire.last();
    assert_eq!((arrived.header("channel-id"), arrived.header("accept")), ("95051", "application/json"));
    assert_eq!(arrived.header("content-type"), "application/json");
}

#[tokio::test(start_paused = true)]
async fn upstreams_headers_pass_but_for_those_of_its_connection() {
    let mut setup = Setup::new(1);
    setup.limit(0, (10, 10), 10);
    let world = setup.build();
    let mut answer = Response::new(bytes::Bytes::from_static(b"{\"responseCode\":\"2003000\"}"));
    for (name, value) in [
        ("x-timestamp", "2026-01-05T10:00:00+07:00"),
        ("x-upstream", "one"),
        ("content-type", "application/json;charset=UTF-8"),
        ("connection", "close, X-Of-This-Hop"),
        ("x-of-this-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("content-length", "4711"),
        ("upgrade", "h2c"),
        ("trailer", "x"),
        ("x-request-id", "theirs"),
        ("ayova-source", "theirs"),
        ("ayova-reason", "THEIRS"),
        ("ayova-attached", "theirs"),
        ("idempotency-replayed", "theirs"),
        ("ratelimit", "theirs"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().append("x-upstream", HeaderValue::from_static("two"));
    world.wire.acts([Act::AnswerWith(Box::new(answer))]);
    let ask = snap_inquiry(&crate::asks::padded(OWN)).set("/customerNo", "CUST000123").header("X-Request-Id", "ours");
    let got = world.send(ask.header("X-EXTERNAL-ID", &crate::asks::id(1))).await;
    let mut names: Vec<_> = got.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "ayova-attached",
            "ayova-source",
            "content-type",
            "ratelimit",
            "ratelimit-policy",
            "x-request-id",
            "x-timestamp",
            "x-upstream"
        ]
    );
    assert_eq!((got.source(), got.header("x-request-id")), ("upstream", "ours"));
    assert_eq!(got.header("ayova-attached"), "partnerServiceId, trxId");
    assert!(got.header("ratelimit").starts_with("\"merchant\""));
    assert_eq!(got.header("content-type"), "application/json;charset=UTF-8");
    assert_eq!(got.headers.get_all("x-upstream").iter().count(), 2);
}
