//! A merchant's app: requests by HTTP, answers or the fact that none came.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than the gateway's own deadline.
const PATIENCE: Duration = Duration::from_secs(10);

const BASE: &str = "/va/api/v2.0/transfer-va";

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// `Ayova-Reason`, or nothing.
    pub(crate) reason: String,
    /// Whether it came out of the gateway's store.
    pub(crate) replayed: bool,
    /// Byte for byte.
    pub(crate) body: Bytes,
}

/// One account the app wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order(pub(crate) u64);

impl Order {
    fn id(self, letter: char) -> String {
        format!("{letter}{:031}", self.0)
    }

    fn digits(self) -> String {
        format!("{:011}", self.0)
    }

    /// The create, the same bytes each time.
    pub(crate) async fn create(self, gateway: SocketAddr) -> Option<Answer> {
        let body = json!({
            "customerNo": "CUST000123",
            "virtualAccountNo": self.digits(),
            "virtualAccountName": "Budi Santoso",
            "trxId": self.id('t'),
            "totalAmount": {"value": "150000.00", "currency": "IDR"},
            "expiredDate": "2036-01-01T00:00:00+07:00",
            "additionalInfo": {"bankCode": "014", "isSingleUse": "N"},
        });
        send(gateway, Method::POST, &format!("{BASE}/create-va"), &self.id('e'), Some(body)).await
    }

    /// An update without a reference.
    pub(crate) async fn update(self, gateway: SocketAddr, nth: u64) -> Option<Answer> {
        let body = json!({
            "virtualAccountNo": format!("14629{}", self.digits()),
            "virtualAccountName": "Budi Santoso",
            "totalAmount": {"value": format!("{}.00", 150_000 + nth), "currency": "IDR"},
            "additionalInfo": {"bankCode": "014", "isSingleUse": "N"},
        });
        let id = format!("u{:015}{nth:016}", self.0);
        send(gateway, Method::PUT, &format!("{BASE}/update-va"), &id, Some(body)).await
    }

    /// The transaction's id, as the sandbox's ledger shows it.
    pub(crate) fn transaction(self) -> String {
        self.id('t')
    }
}

/// Nothing where the connection broke or no answer came.
async fn send(to: SocketAddr, method: Method, path: &str, id: &str, body: Option<Value>) -> Option<Answer> {
    timeout(PATIENCE, exchange(to, method, path, id, body)).await.ok()?.ok()
}

async fn exchange(
    to: SocketAddr,
    method: Method,
    path: &str,
    id: &str,
    body: Option<Value>,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let serving = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", to.to_string())
        .header("Content-Type", "application/json")
        .header("X-EXTERNAL-ID", id)
        .body(Full::<Bytes>::from(body.map_or_else(String::new, |body| body.to_string())))?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let reason = response.headers().get("ayova-reason").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let reason = reason.to_owned();
    let replayed = response.headers().contains_key("idempotency-replayed");
    let body = response.into_body().collect().await?.to_bytes();
    serving.abort();
    Ok(Answer { status, reason, replayed, body })
}

/// A JSON page of the sandbox's control or the gateway's admin listener.
pub(crate) async fn get(from: SocketAddr, path: &str) -> Result<Value, String> {
    let answer = send(from, Method::GET, path, "", None).await.ok_or("no answer")?;
    if answer.status != 200 {
        return Err(format!("{path} answers {}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
}

/// Sets the sandbox's faults.
pub(crate) async fn put_faults(sandbox: SocketAddr, faults: Value) -> Result<(), String> {
    let answer = send(sandbox, Method::PUT, "/_sandbox/faults", "", Some(faults)).await.ok_or("no answer")?;
    if answer.status == 200 { Ok(()) } else { Err(format!("faults refused: {:?}", answer.body)) }
}
