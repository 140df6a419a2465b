//! The simulator on a real socket: connections that end without an answer, drain, callbacks over HTTP.

use std::sync::Arc;
use std::time::Duration;

use ayova::clock::{SharedClock, SystemClock};
use ayova::config::SandboxConfig;
use ayova::sandbox::{Sandbox, serve};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::Client;
use super::snap_create;

/// A served simulator; the client beside it works in memory on the same state.
struct Served {
    client: Client,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn served() -> Served {
    let clock: SharedClock = Arc::new(SystemClock);
    let config = SandboxConfig::default();
    let sandbox = Sandbox::new(config, Arc::clone(&clock), StdRng::seed_from_u64(1)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let server = tokio::spawn(serve(listener, sandbox.clone(), shutdown));
    Served { client: Client::of(sandbox, clock), address, stop, server }
}

/// A signed create as it goes over the wire.
async fn wire(client: &Client) -> Vec<u8> {
    let token = client.snap_login().await;
    let mut body = snap_create();
    body.as_object_mut().unwrap().remove("expiredDate");
    let mut outgoing = client.snap_request("create", &token, &body);
    client.sign(&mut outgoing);
    let mut text = format!("{} {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n", outgoing.method, outgoing.path);
    for (name, value) in &outgoing.headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{}", outgoing.body.len(), outgoing.body));
    text.into_bytes()
}

/// What comes back until the other side closes; nothing where it does not within `patience`.
async fn exchange(served: &Served, patience: Duration) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&wire(&served.client).await).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    closed.ok().map(|_| answer)
}

/// Waits until a create has arrived.
async fn arrived(client: &Client) {
    let is_create = |entry: &Value| entry["operation"] == "snap.create";
    while !client.look("/requests").await["requests"].as_array().unwrap().iter().any(is_create) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn answers_carry_a_date() {
    let served = served().await;
    let answer = String::from_utf8(exchange(&served, PATIENCE).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for header in ["\r\ndate: ", "\r\nx-timestamp: ", "\r\ncontent-type: application/json\r\n"] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
}

#[tokio::test]
async fn resets_close_and_hanging_stays_silent() {
    let served = served().await;
    for (fault, creates) in [("reset_before", 0), ("reset_after_commit", 1)] {
        served.client.fault(json!({"operation": "snap.create"}), json!({fault: true})).await;
        assert_eq!(exchange(&served, PATIENCE).await, Some(Vec::new()), "{fault}");
        assert_eq!(served.client.look("/stats").await["creates"], creates, "{fault}");
    }
    served.client.fault(json!({"operation": "snap.create"}), json!({"hang": true})).await;
    assert_eq!(exchange(&served, Duration::from_millis(300)).await, None);
}

#[tokio::test]
async fn both_http_versions_are_spoken() {
    let served = served().await;
    let uri = format!("http://{}/_sandbox/stats", served.address);
    for http2 in [false, true] {
        let client: HttpClient<_, Full<Bytes>> =
            HttpClient::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let response = client.get(uri.parse().unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["creates"], 0);
    }
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_waits_for_no_hanging_one() {
    let Served { client, address, stop, server } = served().await;
    client.fault(json!({"operation": "snap.create"}), json!({"latency": "400ms"})).await;
    let bytes = wire(&client).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    arrived(&client).await;
    stop.send(()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());

    let Served { client, address, stop, server } = served().await;
    client.fault(json!({"operation": "snap.create"}), json!({"hang": true})).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&wire(&client).await).await.unwrap();
    arrived(&client).await;
    stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn callbacks_go_over_real_http() {
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let app = axum::Router::new().fallback(move |request: Request<axum::body::Body>| {
        let sender = sender.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            sender.send((head.uri.path().to_owned(), body)).unwrap();
            StatusCode::CREATED
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let served = served().await;
    let to = json!({"snap": format!("http://{address}/callbacks/snap")});
    assert_eq!(served.client.control(http::Method::PUT, "/callbacks", &to).await.status, 200);
    let mut body = snap_create();
    body.as_object_mut().unwrap().remove("expiredDate");
    let data = served.client.snap("create", &body).await.data();
    served.client.pay(&data["virtualAccountNo"], "150000.00").await;
    let (path, body) = tokio::time::timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
    assert_eq!(path, "/callbacks/snap");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["virtualAccountData"]["virtualAccountNo"], data["virtualAccountNo"]);
    // Delivery is noted right after the answer.
    while served.client.look("/callbacks").await["callbacks"][0]["state"] != "delivered" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
