//! Bad input is answered in the dialect's own shape, names every fault, and goes no further.
//!
//! What such answers must not contain is `gateway_secrecy`'s affair; the shared vectors are
//! `gateway_vectors`'.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::asks::{
    Ask, CLASSIC, CLASSIC_LOGIN, CREATE, INQUIRY, SNAP_LOGIN, UPDATE, classic_create, classic_get, classic_update, id,
    snap_create, snap_inquiry, snap_update,
};
use crate::harness::{Got, Setup, World};

const OWN: &str = "12345678901";

/// Holds a refusal against its generation's shape (contract section 4, `protocol/errors.md`).
#[track_caller]
fn assert_shape(got: &Got, classic: bool) {
    let body = got.json();
    assert_eq!(got.header("content-type"), "application/json");
    assert!(!body["responseMessage"].as_str().unwrap().is_empty());
    if classic {
        assert_eq!(body["responseCode"], got.status);
        assert!(body["responseTime"].as_str().unwrap().starts_with("202601051000"));
    } else {
        let code = body["responseCode"].as_str().unwrap();
        assert!(code.len() == 7 && code.starts_with(&got.status.to_string()), "{code}");
    }
    for error in body["errors"].as_array().into_iter().flatten() {
        for member in ["field", "rule", "message"] {
            assert!(!error[member].as_str().unwrap().is_empty());
        }
        if classic {
            assert!(error["code"].as_str().unwrap().len() == 4 && error["details"].is_string());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn paths_are_compared_as_received() {
    let world = World::new();
    for (path, classic) in [
        ("/", false),
        ("/va/api/v2.0", false),
        ("/va/api/v2.0/transfer-va/create-va/", false),
        ("/va/api/v2.0/transfer-va//create-va", false),
        ("//va/api/v2.0/transfer-va/create-va", false),
        ("/va/api/v2.0/transfer-va/./create-va", false),
        ("/va/api/v2.0/x/../transfer-va/create-va", false),
        ("/va/api/v2.0/transfer-va/%2e/create-va", false),
        ("/va/api/v2.0/transfer-va/create%2Dva", false),
        ("/va/api/v2.0/transfer-va%2Fcreate-va", false),
        ("/VA/api/v2.0/transfer-va/create-va", false),
        ("/va/api/v2.0/transfer-va/Create-VA", false),
        ("/va/api/v2.0/transfer-va/create-va;x=1", false),
        ("/va/api/v2.0/transfer-va/delete-va", false),
        ("/_sandbox/reset", false),
        ("/metrics", false),
        ("/api/v1", true),
        ("/api/v1/virtualAccount/", true),
        ("/api/v1/virtualaccount", true),
        ("/api/v1/%76irtualAccount", true),
        ("/api/v10/virtualAccount", false),
        ("/api/v1/transfer-va/create-va", true),
    ] {
        let got = world.send(Ask { path: path.to_owned(), ..snap_create(1, OWN) }).await;
        got.expect_refusal(404, "UNKNOWN_ROUTE");
        assert_shape(&got, classic);
        if !classic {
            assert_eq!(got.json()["responseCode"], "4040000");
        }
    }
    assert!(world.wire.all().is_empty());
    // A query does not make another path.
    world.send(Ask { path: format!("{CREATE}?x=1"), ..snap_create(1, OWN) }).await.expect(200);
    assert_eq!(world.wire.last().query, None);
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_told_which_there_are() {
    let world = World::new();
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"];
    for (path, allowed) in [
        (CREATE, "POST"),
        (UPDATE, "PUT"),
        (INQUIRY, "POST"),
        (CLASSIC, "GET, PATCH, POST"),
        (SNAP_LOGIN, "POST"),
        (CLASSIC_LOGIN, "POST"),
    ] {
        for method in methods.iter().filter(|method| !allowed.split(", ").any(|known| known == **method)) {
            let got = world.send(Ask::new(method.parse().unwrap(), path, Value::Null)).await;
            assert_eq!(got.expect_refusal(405, "METHOD_NOT_ALLOWED").header("allow"), allowed, "{method} {path}");
            assert_shape(&got, path == CLASSIC || path == CLASSIC_LOGIN);
        }
    }
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_disabled_generation_has_no_routes() {
    let mut setup = Setup::new(1);
    setup.config.upstream.classic.enabled = false;
    let world = setup.build();
    for ask in [classic_create(1, ""), classic_get("12345678"), classic_update("12345678")] {
        let got = world.send(ask).await;
        got.expect_refusal(404, "UNKNOWN_ROUTE");
        assert_shape(&got, true);
    }
    world.send(Ask::new(Method::POST, CLASSIC_LOGIN, Value::Null)).await.expect_refusal(404, "UNKNOWN_ROUTE");
    world.send(snap_create(1, OWN)).await.expect(200);

    let mut setup = Setup::new(1);
    setup.config.upstream.snap.enabled = false;
    let world = setup.build();
    for ask in [snap_create(1, OWN), snap_update(1, OWN), snap_inquiry(OWN)] {
        let got = world.send(ask).await;
        got.expect_refusal(404, "UNKNOWN_ROUTE");
        assert_shape(&got, false);
    }
    world.send(classic_create(1, "")).await.expect(201);
}

/// Bodies that are no JSON object, or not one that every parser reads alike.
fn no_documents() -> Vec<Bytes> {
    let deep = |open: &str, close: &str, levels: usize| format!("{}{}", open.repeat(levels), close.repeat(levels));
    let texts = [
        String::new(),
        " ".to_owned(),
        "{".to_owned(),
        "}".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"text\"".to_owned(),
        "17".to_owned(),
        "{}{}".to_owned(),
        "{} x".to_owned(),
        "{'a':1}".to_owned(),
        "{a:1}".to_owned(),
        "{\"a\":1,}".to_owned(),
        "{\"a\":01}".to_owned(),
        "{\"a\":+1}".to_owned(),
        "{\"a\":NaN}".to_owned(),
        "{\"a\":Infinity}".to_owned(),
        "{\"a\":1e999}".to_owned(),
        "{\"a\":-1e999}".to_owned(),
        "{\"a\":\"\\x\"}".to_owned(),
        "{\"a\":\"\\ud800\"}".to_owned(),
        "{\"a\":\"\u{0}\"}".to_owned(),
        "{\"a\":\"\n\"}".to_owned(),
        "/* */{}".to_owned(),
        "\u{feff}{}".to_owned(),
        "{\"a\":1,\"a\":1}".to_owned(),
        "{\"a\":{\"b\":1,\"\\u0062\":2}}".to_owned(),
        "[{\"a\":1,\"a\":2}]".to_owned(),
        "customerNo=1&trxId=2".to_owned(),
        "<xml/>".to_owned(),
        format!("{{\"a\":{}}}", deep("[", "]", 32)),
        format!("{{\"a\":{}}}", deep("[", "]", 1_000)),
        format!("{}1{}", "{\"a\":".repeat(1_000), "}".repeat(1_000)),
        deep("[", "", 30_000),
    ];
    let mut bodies: Vec<Bytes> = texts.into_iter().map(Bytes::from).collect();
    bodies.extend(
        [&b"{\"a\":\"\xff\"}"[..], b"\xff\xfe{\x00}\x00", b"{\"a\":\"\xed\xa0\x80\"}", b"\x00"].map(Bytes::from_static),
    );
    bodies
}

#[tokio::test(start_paused = true)]
async fn what_is_no_json_object_is_refused() {
    let world = World::new();
    for body in no_documents() {
        for ask in
            [snap_create(1, OWN), snap_update(1, OWN), snap_inquiry(OWN), classic_create(1, ""), classic_update("1")]
        {
            let classic = ask.path == CLASSIC;
            let got = world.send(ask.body(body.clone())).await;
            assert_eq!((got.status, got.reason()), (400, "BAD_JSON"), "{:?}", String::from_utf8_lossy(&body));
            assert_shape(&got, classic);
        }
    }
    assert!(world.wire.all().is_empty());
    // The deepest that is allowed: 31 arrays inside the body's own object.
    let deepest = format!("{{\"deep\":{}{},", "[".repeat(31), "]".repeat(31));
    let body = snap_create(1, OWN).json.to_string().replacen('{', &deepest, 1);
    world.send(snap_create(1, OWN).body(body)).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn nul_in_a_text_is_refused() {
    let world = World::new();
    for (ask, pointer) in [
        (snap_create(1, OWN), "/virtualAccountName"),
        (snap_create(1, OWN), "/customerNo"),
        (snap_create(1, OWN), "/trxId"),
        (snap_create(1, OWN).set("/additionalInfo/additionalInfo1", ""), "/additionalInfo/additionalInfo1"),
        (classic_create(1, ""), "/virtualAccountName"),
        (classic_create(1, ""), "/billDetails/0/billName"),
    ] {
        let length = ask.json.pointer(pointer).unwrap().as_str().unwrap().len().max(2);
        let got = world.send(ask.set(pointer, format!("{}\0", "x".repeat(length - 1)))).await;
        got.expect_refusal(400, "INVALID_REQUEST");
        assert_eq!(got.json()["errors"][0]["pointer"], pointer);
        assert_eq!(got.json()["errors"][0]["rule"], "format");
    }
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_fault_is_named_at_once() {
    let world = World::new();
    let ask = snap_create(1, "123")
        .header("X-EXTERNAL-ID", "short")
        .header("CHANNEL-ID", "9522")
        .header("Content-Type", "text/plain")
        .set("/customerNo", 5)
        .set("/virtualAccountPhone", "0812")
        .set("/trxId", Value::Null)
        .set("/totalAmount", json!({"value": "1", "currency": "USD"}))
        .set("/expiredDate", "tomorrow")
        .set("/additionalInfo", json!({"isSingleUse": "maybe"}))
        .unset("/virtualAccountName");
    let got = world.send(ask).await;
    got.expect_refusal(400, "INVALID_REQUEST");
    assert_shape(&got, false);
    assert_eq!(got.json()["responseCode"], "4002702", "something mandatory is missing");
    assert_eq!(
        got.faults(),
        [
            "Content-Type",
            "X-EXTERNAL-ID",
            "CHANNEL-ID",
            "customerNo",
            "virtualAccountNo",
            "virtualAccountName",
            "virtualAccountPhone",
            "trxId",
            "totalAmount.value",
            "totalAmount.currency",
            "expiredDate",
            "additionalInfo.bankCode",
            "additionalInfo.isSingleUse"
        ]
    );
    assert_eq!(got.json()["errors"][11]["pointer"], "/additionalInfo/bankCode");
    let ask = Ask::new(Method::PATCH, CLASSIC, json!({"expiresIn": 1.5, "bankCode": "1", "virtualAccountId": "x"}));
    let got = world.send(ask.header("A-Correlation-ID", "x-y")).await;
    got.expect_refusal(400, "INVALID_REQUEST");
    assert_shape(&got, true);
    assert_eq!(got.faults(), ["A-Correlation-ID", "virtualAccountId", "virtualAccountName", "bankCode", "expiresIn"]);
    let got =
        world.send(Ask::new(Method::GET, &format!("{CLASSIC}?bankCode=1&bankCode=2&customerId=x"), Value::Null)).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["bankCode", "customerId"]);
    assert_eq!(got.json()["errors"][0]["rule"], "repeated");
    assert_eq!(world.send(Ask::new(Method::GET, CLASSIC, Value::Null)).await.faults().len(), 4);
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn headers_that_are_repeated_or_no_ascii_are_refused() {
    let world = World::new();
    for (ask, name) in [
        (snap_create(1, OWN), "X-EXTERNAL-ID"),
        (snap_create(1, OWN), "X-PARTNER-ID"),
        (snap_create(1, OWN), "CHANNEL-ID"),
        (snap_create(1, OWN), "Content-Type"),
        (snap_create(1, OWN), "Idempotency-Key"),
        (classic_create(1, ""), "A-Correlation-ID"),
        (classic_create(1, ""), "A-Merchant-Code"),
        (classic_create(1, ""), "Idempotency-Key"),
        (classic_get("12345678"), "A-Correlation-ID"),
    ] {
        let ask = ask.without(name);
        let twice = ask.clone().also(name, b"AYOTST").also(name, b"AYOTST");
        for (spoilt, rule) in [(twice, "repeated"), (ask.also(name, b"caf\xc3\xa9"), "format")] {
            let got = world.send(spoilt).await;
            assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").json()["errors"][0]["rule"], rule, "{name}");
            assert_eq!(got.faults()[0].to_lowercase(), name.to_lowercase());
            assert_eq!(got.faults().len(), 1, "{name}: {}", got.text());
        }
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json2", "", "multipart/form-data"] {
        let got = world.send(snap_create(1, OWN).header("Content-Type", kind)).await;
        assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["Content-Type"]);
    }
    let got =
        world.send(snap_create(1, OWN).without("X-EXTERNAL-ID").header("Idempotency-Key", &"k".repeat(256))).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["Idempotency-Key"]);
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_merchant_that_cannot_be_told_is_refused() {
    let world = Setup::new(2).build();
    for (ask, header, classic) in
        [(snap_create(1, OWN), "X-PARTNER-ID", false), (classic_create(1, ""), "A-Merchant-Code", true)]
    {
        let got = world.send(ask.clone()).await;
        assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), [header]);
        assert_shape(&got, classic);
        let got = world.send(ask.clone().header(header, "AYONOT")).await;
        got.expect_refusal(404, "UNKNOWN_MERCHANT");
        assert_shape(&got, classic);
        let got = world.send(ask.header(header, "ayo tst")).await;
        assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), [header]);
    }
    let got = world.send(snap_create(1, OWN).header("X-PARTNER-ID", "AYONOT")).await;
    assert_eq!(got.json()["responseCode"], "4042708");
    assert!(world.wire.all().is_empty());
}

/// A body that goes on for as long as somebody reads it.
struct Endless {
    pulled: Arc<AtomicUsize>,
    chunk: Bytes,
    pause: Option<(Duration, Pin<Box<tokio::time::Sleep>>)>,
    left: usize,
}

impl Endless {
    fn new(bytes: usize, pulled: &Arc<AtomicUsize>) -> Self {
        Self { pulled: Arc::clone(pulled), chunk: Bytes::from(vec![b' '; 1_024]), pause: None, left: bytes }
    }

    fn slow(pause: Duration, pulled: &Arc<AtomicUsize>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(pause));
        Self { chunk: Bytes::from_static(b" "), pause: Some((pause, sleep)), ..Self::new(usize::MAX, pulled) }
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some((pause, sleep)) = &mut self.pause {
            std::task::ready!(sleep.as_mut().poll(context));
            let next = Instant::now() + *pause;
            sleep.as_mut().reset(next);
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left = self.left.saturating_sub(self.chunk.len());
        self.pulled.fetch_add(self.chunk.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}

fn post<B>(path: &str, body: B) -> http::Request<B> {
    http::Request::post(path).header("X-EXTERNAL-ID", id(1)).body(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_long_body_is_not_read_to_its_end() {
    let world = World::new();
    for path in [CREATE, CLASSIC] {
        let pulled = Arc::new(AtomicUsize::new(0));
        let got = world.send_request(post(path, Endless::new(10 << 20, &pulled))).await;
        got.expect_refusal(413, "BODY_TOO_LARGE");
        assert_shape(&got, path == CLASSIC);
        assert!(pulled.load(Ordering::Relaxed) <= 65 * 1_024, "{}", pulled.load(Ordering::Relaxed));
        // One that says its length is not read at all.
        let pulled = Arc::new(AtomicUsize::new(0));
        let mut request = post(path, Endless::new(10 << 20, &pulled));
        request.headers_mut().insert("content-length", (10 << 20).into());
        world.send_request(request).await.expect_refusal(413, "BODY_TOO_LARGE");
        assert_eq!(pulled.load(Ordering::Relaxed), 0);
    }
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_longest_body_is_inclusive() {
    let world = World::new();
    let fill = |length: usize| {
        let body = snap_create(1, OWN).json.to_string();
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    world.send(snap_create(1, OWN).body(fill(64 * 1_024))).await.expect(200);
    world.send(snap_create(1, OWN).body(fill(64 * 1_024 + 1))).await.expect_refusal(413, "BODY_TOO_LARGE");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let world = World::new();
    for (path, classic) in [(CREATE, false), (CLASSIC, true)] {
        for pause in [Duration::from_millis(50), Duration::from_secs(3_600)] {
            let pulled = Arc::new(AtomicUsize::new(0));
            let asked = Instant::now();
            let got = world.send_request(post(path, Endless::slow(pause, &pulled))).await;
            got.expect_refusal(408, "BODY_TIMEOUT");
            assert_shape(&got, classic);
            assert_eq!(asked.elapsed().as_secs(), 5);
        }
    }
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_refused() {
    let world = World::new();
    let broken = http_body_util::StreamBody::new(futures_util::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"{\"customerNo\":"))),
        Err(std::io::Error::other("the caller is gone")),
    ]));
    world.send_request(post(CREATE, broken)).await.expect_refusal(400, "BAD_JSON");
    assert!(world.wire.all().is_empty());
}
