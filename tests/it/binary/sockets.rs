//! What goes over the wire: HTTP/1.1, h2c, and clients and upstreams that misbehave.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::SeedableRng as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::time::Instant;

use super::{
    Answer, CREATE_BODY, CREATE_PATH, Gateway, PATIENCE, Sandbox, answer, ask, connect, create, ended, get, is_closed,
    kept_alive, patiently, request,
};

/// An upstream nobody ever calls in these tests.
const NOWHERE: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn run_serves_the_minimal_configuration_against_the_sandbox() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let created = gateway.create("order-1").await;
    assert_eq!((created.status, created.header("ayova-source")), (200, Some("upstream")), "{created:?}");
    assert_eq!(created.header("x-external-id"), Some("0bafe22156d2698c143b86040446d366"));
    let again = gateway.create("order-1").await;
    assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &created.body));
    let other = CREATE_BODY.replace("150000.00", "160000.00");
    let conflict = request("POST", CREATE_PATH, "Idempotency-Key: order-1\r\n", &other);
    ask(&gateway.listen, &conflict).await.assert_refusal(409, "IDEMPOTENCY_CONFLICT");
    assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], 1);
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let mut stream = connect(&gateway.listen).await;
    for turn in 0..20 {
        let request = kept_alive("POST", CREATE_PATH, "Idempotency-Key: order-1\r\n", CREATE_BODY);
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        let source = if turn == 0 { "upstream" } else { "replay" };
        assert_eq!((answer.status, answer.header("ayova-source")), (200, Some(source)));
    }
    // Two at once, the second sent before the first is answered.
    let pair = [create("order-1").replace("Connection: close\r\n", ""), create("order-1")].concat();
    stream.write_all(pair.as_bytes()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(answer(&mut stream).await.status, 200);
    }
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn http2_is_spoken_without_tls() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let stream = connect(&gateway.listen).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let creating = (0..8).map(|_| {
        let request = http::Request::post(format!("http://{}{CREATE_PATH}", gateway.listen))
            .header("idempotency-key", "order-1")
            .body(Full::new(Bytes::from_static(CREATE_BODY.as_bytes())))
            .unwrap();
        sender.send_request(request)
    });
    let answers = patiently("eight answers", futures_util::future::try_join_all(creating)).await.unwrap();
    let mut bodies = Vec::new();
    for answer in answers {
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
        bodies.push(answer.into_body().collect().await.unwrap().to_bytes());
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], 1);
}

#[tokio::test]
async fn curl_speaks_http2_with_it() {
    let mut version = Command::new("curl");
    version.arg("--version");
    // Not every curl is built with it; the test above does not need one.
    if !ended(version).await.out.contains("HTTP2") {
        return;
    }
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", "-o", "-"]);
    curl.args(["-H", "Content-Type: application/json", "-H", "Idempotency-Key: order-1", "-d", CREATE_BODY]);
    let said = ended({
        curl.arg(format!("http://{}{CREATE_PATH}", gateway.listen));
        curl
    })
    .await;
    assert!(said.out.ends_with("}2 200") && said.err.is_empty(), "{}{}", said.out, said.err);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_the_callers_shape() {
    let gateway = Gateway::start(NOWHERE).await;
    let large = "a".repeat(10_000_000);
    let announced = kept_alive("POST", CREATE_PATH, "", &large);
    let chunked = format!(
        "POST {CREATE_PATH} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    for sent in [announced, chunked] {
        let mut stream = connect(&gateway.listen).await;
        // The gateway does not wait for the rest, so writing it may fail.
        let _ = stream.write_all(sent.as_bytes()).await;
        let refused = answer(&mut stream).await;
        refused.assert_refusal(413, "BODY_TOO_LARGE");
        assert_eq!(refused.json()["responseCode"], "4132700");
    }
    let classic = kept_alive("POST", "/api/v1/virtualAccount", "", &large);
    let mut stream = connect(&gateway.listen).await;
    let _ = stream.write_all(classic.as_bytes()).await;
    let refused = answer(&mut stream).await;
    refused.assert_refusal(413, "BODY_TOO_LARGE");
    assert!(refused.json()["responseCode"] == 413 && refused.json()["responseTime"].is_string(), "{refused:?}");
}

#[tokio::test]
async fn the_largest_body_is_inclusive() {
    let gateway = Gateway::start_with(NOWHERE, ", max_body: 1KiB", "").await;
    let filled = |length: usize| format!("{}{}", CREATE_BODY, " ".repeat(length - CREATE_BODY.len()));
    let send = async |length| ask(&gateway.listen, &request("POST", CREATE_PATH, "", &filled(length))).await;
    send(1024).await.assert_refusal(400, "INVALID_REQUEST");
    send(1025).await.assert_refusal(413, "BODY_TOO_LARGE");
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let settings = ", body_timeout: 100ms, header_timeout: 100ms";
    let gateway = Gateway::start_with(NOWHERE, settings, "").await;
    let mut slow_body = connect(&gateway.listen).await;
    let head = kept_alive("POST", CREATE_PATH, "", CREATE_BODY).replace(CREATE_BODY, "{");
    slow_body.write_all(head.as_bytes()).await.unwrap();
    let refused = answer(&mut slow_body).await;
    refused.assert_refusal(408, "BODY_TIMEOUT");
    assert_eq!(refused.json()["responseCode"], "4082700");
    // No request has begun, so there is nobody to answer: nothing, a part of a head, and a part of the
    // words that begin HTTP/2.
    for said in ["", "POST / HTTP/1.1\r\nHost: test\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut stream = connect(&gateway.listen).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        assert!(is_closed(&mut stream).await, "{said:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_outlives_the_time_of_a_head() {
    let gateway = Gateway::start_with(NOWHERE, ", header_timeout: 50ms", "").await;
    let mut stream = connect(&gateway.listen).await;
    for _ in 0..3 {
        stream.write_all(kept_alive("GET", "/nowhere", "", "").as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await.status, 404);
        // Several times what a head may take, and far less than what a connection is kept.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_the_connection_closed() {
    let gateway = Gateway::start(NOWHERE).await;
    let fits = format!("Content-Length: {}\r\nIdempotency-Key: a\r\n", CREATE_BODY.len());
    let chunks = format!("{:x}\r\n{CREATE_BODY}\r\n0\r\n\r\n", CREATE_BODY.len());
    let encoding = "Transfer-Encoding: chunked\r\n";
    let post = |headers: &str, body: &str| format!("POST {CREATE_PATH} HTTP/1.1\r\nHost: test\r\n{headers}\r\n{body}");
    let cases = [
        ("\x16\x03\x01\x02\r\n\r\n".to_owned(), 400),
        ("HELO there\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA : space before the colon\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(1_000_000)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1_000)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)), 431),
        (post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"), 400),
        (post("Content-Length: -1\r\n", ""), 400),
        (post("Transfer-Encoding: gzip\r\n", ""), 400),
        (post(&format!("{fits}{encoding}"), &chunks), 400),
        (post(&format!("{encoding}{fits}"), &chunks), 400),
        (post(&format!("{encoding}{fits}"), CREATE_BODY), 400),
    ];
    for (sent, status) in cases {
        let shown: String = sent.chars().take(100).collect();
        let mut stream = connect(&gateway.listen).await;
        let _ = stream.write_all(sent.as_bytes()).await;
        let Answer { status: answered, body, .. } = answer(&mut stream).await;
        assert_eq!((answered, body.as_str()), (status, ""), "{shown:?}");
        assert!(is_closed(&mut stream).await, "{shown:?}");
    }
    // None of them came as far as being a request.
    assert!(!get(&gateway.admin, "/metrics").await.body.contains("ayova_requests_total{"));
}

#[tokio::test]
async fn a_chunked_body_is_as_good_as_any() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let mut stream = connect(&gateway.listen).await;
    let (first, second) = CREATE_BODY.split_at(100);
    let head = format!(
        "POST {CREATE_PATH} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: order-1\r\n\r\n"
    );
    for _ in 0..2 {
        let chunks = format!("64\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
        stream.write_all(format!("{head}{chunks}").as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await.status, 200);
    }
}

#[tokio::test]
async fn many_idle_connections_do_not_block_others() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let gateway = Gateway::start_with(&upstream, ", header_timeout: 1h, body_timeout: 1h", "").await;
    let mut idle = Vec::new();
    for turn in 0..300 {
        let mut stream = connect(&gateway.listen).await;
        let said = ["", "POST / HTTP/1.1\r\n", "PRI * HT"][turn % 3];
        stream.write_all(said.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    let began = Instant::now();
    assert_eq!(gateway.create("order-1").await.status, 200);
    assert!(began.elapsed() < PATIENCE / 3, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_costs_nothing() {
    // Held and not listened on, so that connecting is refused until the simulator listens there.
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap().to_string();
    let gateway = Gateway::start_with(&format!("http://{address}"), "", "retry: { base_delay: 1ms }").await;
    for _ in 0..2 {
        let refused = gateway.create("order-1").await;
        refused.assert_refusal(503, "TOKEN_UNAVAILABLE");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(get(&gateway.admin, "/readyz").await.status, 200, "a restart would not cure the upstream");
    let random = rand::rngs::StdRng::seed_from_u64(1);
    let clock = Arc::new(ayova::clock::SystemClock);
    let sandbox = ayova::sandbox::Sandbox::new(ayova::config::SandboxConfig::default(), clock, random).unwrap();
    tokio::spawn(ayova::sandbox::serve(held.listen(64).unwrap(), sandbox, std::future::pending()));
    let created = gateway.create("order-1").await;
    assert_eq!((created.status, created.header("ayova-source")), (200, Some("upstream")), "{created:?}");
    assert_eq!(get(&address, "/_sandbox/stats").await.json()["creates"], 1);
}
