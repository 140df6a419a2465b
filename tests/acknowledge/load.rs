//! Requests at a fixed rate, whatever the answers do, and how long each took.
//!
//! Promises that a slow answer cannot hide the ones behind it: a request that had to wait for its
//! connection counts from the moment it was due.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::processes::callback_path;

/// Connections a load is spread over.
const CONNECTIONS: u64 = 64;

/// Accounts the announced payments are of.
const ACCOUNTS: u64 = 997;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Announcements of payments, the generations in turn.
    Callback,
    /// SNAP creates.
    Create,
    /// SNAP creates of other accounts than the measured ones.
    WarmUp,
}

/// How often and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) rate: u64,
    pub(crate) lasting: Duration,
}

/// How long answers took, shortest first.
#[derive(Debug)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many in a hundred did not exceed.
    pub(crate) fn at(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.at(percent).as_secs_f64() * 1_000.0;
        write!(f, "{:.1} {:.1} {:.1}", ms(50), ms(99), ms(100))
    }
}

impl Load {
    /// Sends everything; anything but success is an error.
    pub(crate) async fn run(self, to: &str, kind: Kind) -> Result<Times, String> {
        let count = self.rate * self.lasting.as_millis() as u64 / 1_000;
        let start = Instant::now() + Duration::from_millis(50);
        let due = |index: u64| start + Duration::from_nanos(index * 1_000_000_000 / self.rate.max(1));
        let lane = |first: u64| async move {
            let mut times = Vec::new();
            let mut connection = None;
            for index in (first..count).step_by(CONNECTIONS as usize) {
                let due = due(index);
                let begun = if Instant::now() < due {
                    sleep_until(due).await;
                    // What the timer is late is no time of the gateway's.
                    Instant::now()
                } else {
                    due
                };
                let answered = send(&mut connection, to, request(kind, index)).await;
                answered.map_err(|error| format!("{kind:?} {index}: {error}"))?;
                times.push(begun.elapsed());
            }
            Ok::<_, String>(times)
        };
        let mut times = try_join_all((0..CONNECTIONS).map(lane)).await?.concat();
        times.sort_unstable();
        Ok(Times(times))
    }
}

fn request(kind: Kind, index: u64) -> Request<Full<Bytes>> {
    let (path, body) = match kind {
        Kind::Callback if index.is_multiple_of(2) => (callback_path("snap"), snap_callback(index)),
        Kind::Callback => (callback_path("classic"), classic_callback(index)),
        Kind::Create => ("/va/api/v2.0/transfer-va/create-va".to_owned(), create(index)),
        Kind::WarmUp => ("/va/api/v2.0/transfer-va/create-va".to_owned(), create(900_000_000 + index)),
    };
    let request = Request::post(path).header("Host", "test").header("Content-Type", "application/json");
    let key = format!("{kind:?}-{index}");
    request.header("Idempotency-Key", key).body(Full::from(body.to_string())).unwrap()
}

fn snap_callback(index: u64) -> serde_json::Value {
    let (second, amount) = (index / ACCOUNTS, json!({"value": "150000.00", "currency": "IDR"}));
    let time = format!("2026-01-05T{:02}:{:02}:{:02}+07:00", second / 3_600, second / 60 % 60, second % 60);
    let data = json!({
        "partnerServiceId": "   14629", "customerNo": "CUST000123",
        "virtualAccountNo": format!("   14629{:011}", 80_000_000_000 + index % ACCOUNTS),
        "virtualAccountName": "Budi Santoso", "trxId": format!("{index:032}"), "totalAmount": amount,
        "expiredDate": "2036-01-01T00:00:00+07:00", "virtualAccountStatus": "Active",
        "additionalInfo": {"bankCode": "014", "isSingleUse": "N"}, "referenceNo": format!("{index:032}"),
        "latestPaidAmount": amount, "latestPaidTime": time,
    });
    json!({"responseCode": "2003400", "responseMessage": "Successful", "virtualAccountData": data})
}

fn classic_callback(index: u64) -> serde_json::Value {
    let (account, amount) = (index % ACCOUNTS, json!({"value": "150000.00", "currency": "IDR"}));
    let data = json!({
        "virtualAccountId": format!("{account:027}"), "virtualAccountNumber": format!("26215{account:011}"),
        "virtualAccountStatus": "PAID", "virtualAccountName": "Budi Santoso", "virtualAccountPhone": "628123456789",
        "correlationId": format!("{account:032}"), "customerId": "C1", "totalAmount": amount, "billAmount": amount,
        "adminFee": amount, "billDetails": [{"billName": "Invoice", "billAmount": amount}],
        "paymentDetails": {"trxRefID": index.to_string(), "amount": "150000.00"},
    });
    json!({"code": 200, "message": "ok", "virtualAccountData": data})
}

fn create(index: u64) -> serde_json::Value {
    json!({
        "customerNo": "CUST000123", "virtualAccountNo": format!("{index:011}"), "virtualAccountName": "Budi Santoso",
        "trxId": format!("t{index:031}"), "totalAmount": {"value": "150000.00", "currency": "IDR"},
        "additionalInfo": {"bankCode": "014", "isSingleUse": "N"},
    })
}

type Connection = Option<SendRequest<Full<Bytes>>>;

async fn send(
    connection: &mut Connection,
    to: &str,
    request: Request<Full<Bytes>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let open = connection.take().filter(|open| !open.is_closed());
    let mut open = match open {
        Some(open) => open,
        None => {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let (sender, serving) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(serving);
            sender
        }
    };
    open.ready().await?;
    let answer = open.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    *connection = Some(open);
    if status.is_success() { Ok(()) } else { Err(format!("answered {status} {body:?}").into()) }
}
