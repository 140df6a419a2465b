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

/// One account the app wants; from [`CLASSIC_FROM`] on a classic one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order(pub(crate) u64);

/// Orders of the classic generation begin here.
pub(crate) const CLASSIC_FROM: u64 = 1_000;

impl Order {
    fn id(self, letter: char) -> String {
        format!("{letter}{:031}", self.0)
    }

    fn digits(self) -> String {
        format!("{:011}", self.0)
    }

    /// Whether it is of the generation whose creates must never be sent twice, since nobody can ask.
    pub(crate) fn is_classic(self) -> bool {
        self.0 >= CLASSIC_FROM
    }

    /// The create, the same bytes each time.
    pub(crate) async fn create(self, gateway: SocketAddr) -> Option<Answer> {
        if self.is_classic() {
            return self.create_classic(gateway).await;
        }
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

    /// Upstream chooses the number, so that a second create is not refused for the first one's.
    async fn create_classic(self, gateway: SocketAddr) -> Option<Answer> {
        let amount = json!({"value": "150000.00", "currency": "IDR"});
        let body = json!({
            "virtualAccountName": self.name(),
            "virtualAccountPhone": "628123456789",
            "transactionId": self.id('c'),
            "bankCode": "002",
            "expiresIn": 1440,
            "totalAmount": amount,
            "billDetails": [{"billName": "Invoice", "billAmount": amount}],
            "virtualAccountConfig": {"virtualAccountType": "static", "amountType": "closed"},
        });
        send(gateway, Method::POST, "/api/v1/virtualAccount", "", Some(body)).await
    }

    /// The name the sandbox's ledger shows it under.
    pub(crate) fn name(self) -> String {
        if self.is_classic() { format!("Classic {}", self.0) } else { "Budi Santoso".to_owned() }
    }

    /// An update without upstream's ids, of the account that the create's answer named.
    async fn update_classic(self, gateway: SocketAddr, nth: u64, created: &[u8]) -> Option<Answer> {
        let created: Value = serde_json::from_slice(created).ok()?;
        let body = json!({
            "virtualAccountNumber": created["virtualAccountData"]["virtualAccountNumber"],
            "virtualAccountName": self.name(),
            "totalAmount": {"value": format!("{}.00", 150_000 + nth), "currency": "IDR"},
        });
        send(gateway, Method::PATCH, "/api/v1/virtualAccount", "", Some(body)).await
    }

    /// An update without a reference; `created` is the create's answer.
    pub(crate) async fn update(self, gateway: SocketAddr, nth: u64, created: &[u8]) -> Option<Answer> {
        if self.is_classic() {
            return self.update_classic(gateway, nth, created).await;
        }
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
pub(crate) async fn send(to: SocketAddr, method: Method, path: &str, id: &str, body: Option<Value>) -> Option<Answer> {
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
    let mut request = Request::builder();
    if !id.is_empty() {
        request = request.header("X-EXTERNAL-ID", id);
    }
    let request = request
        .method(method)
        .uri(path)
        .header("Host", to.to_string())
        .header("Content-Type", "application/json")
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
