//! Payment callbacks over real sockets: sandbox, gateway and the merchant's app each on their own.
//!
//! What is decided without a socket is tested in memory; here it is what only sockets show: redirects
//! that are not followed, connections that close without an answer, bursts, and a store another
//! program holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use http::Response;
use http_body_util::Empty;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Duration, Instant};

use super::{
    Answer, CREATE_BODY, CREATE_PATH, Gateway, Sandbox, ask, connect, get, is_closed, kept_alive, request, until,
};
use crate::app::{App, Delivery, status};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Sandbox, gateway and app, each knowing the next.
struct Circle {
    sandbox: Sandbox,
    gateway: Gateway,
    /// Where the gateway takes callbacks.
    callbacks: String,
    app: App,
}

impl Circle {
    /// One that believes what is announced, be it made up.
    async fn of(app: App) -> Self {
        Self::with(app, &[], "confirm: never, ").await
    }

    /// One that asks first.
    async fn asking(app: App) -> Self {
        Self::with(app, &[], "").await
    }

    async fn with(app: App, sandbox: &[&str], confirm: &str) -> Self {
        let sandbox = Sandbox::start_with(sandbox).await;
        let section = format!(
            "callbacks: {{ listen: {{ address: 127.0.0.1:0 }}, secret: {SECRET}, {confirm}deliver: {} }}",
            app.deliver()
        );
        let gateway = Gateway::start_with(&format!("http://{}", sandbox.address), "", &section).await;
        let ready: Value = serde_json::from_str(&gateway.running.err.line_with("\"ready\"").await).unwrap();
        let callbacks = ready["callbacks"].as_str().unwrap().to_owned();
        let to = |dialect: &str| format!("http://{callbacks}{}", path(dialect));
        let addresses = json!({"snap": to("snap"), "classic": to("classic")}).to_string();
        let told = ask(&sandbox.address, &request("PUT", "/_sandbox/callbacks", "", &addresses)).await;
        assert_eq!(told.status, 200, "{told:?}");
        Self { sandbox, gateway, callbacks, app }
    }

    /// A SNAP account that is paid any number of times; its number.
    async fn snap_account(&self) -> String {
        let created = self.gateway.create("order-1").await;
        created.json()["virtualAccountData"]["virtualAccountNo"].as_str().unwrap().to_owned()
    }

    async fn classic_account(&self) -> String {
        let amount = json!({"value": "150000.00", "currency": "IDR"});
        let body = json!({
            "virtualAccountName": "Budi Santoso",
            "virtualAccountPhone": "628123456789",
            "transactionId": "c0000000000000000000000000000001",
            "bankCode": "002",
            "expiresIn": 1440,
            "totalAmount": amount,
            "billDetails": [{"billName": "Invoice", "billAmount": amount}],
            "virtualAccountConfig": {"virtualAccountType": "static", "amountType": "closed"},
        });
        let created =
            ask(&self.gateway.listen, &request("POST", "/api/v1/virtualAccount", "", &body.to_string())).await;
        created.json()["virtualAccountData"]["virtualAccountNumber"].as_str().unwrap().to_owned()
    }

    async fn pay(&self, member: &str, number: &str) {
        pay(&self.sandbox.address, member, number).await;
    }

    async fn announce(&self, dialect: &str, body: &str) -> Answer {
        ask(&self.callbacks, &request("POST", &path(dialect), "", body)).await
    }

    async fn listed(&self, state: &str) -> Vec<Value> {
        let page = get(&self.gateway.admin, &format!("/callbacks?state={state}")).await.json();
        page["callbacks"].as_array().unwrap().clone()
    }

    fn taken(&self) -> Vec<Delivery> {
        self.app.look(|heard| heard.iter().filter(|delivery| delivery.is_taken()).cloned().collect())
    }

    async fn until_taken(&self, count: usize) -> Vec<Delivery> {
        let enough = || async { self.app.look(|heard| heard.iter().filter(|it| it.is_taken()).count()) >= count };
        until("deliveries", enough).await;
        self.taken()
    }
}

fn path(dialect: &str) -> String {
    format!("/callbacks/{dialect}/AYOTST/{SECRET}")
}

async fn pay(sandbox: &str, member: &str, number: &str) {
    let body = json!({member: number, "amount": "150000.00"}).to_string();
    let paid = ask(sandbox, &request("POST", "/_sandbox/pay", "", &body)).await;
    assert_eq!(paid.status, 200, "{paid:?}");
}

/// A SNAP announcement of a payment at this time.
fn paid(number: &str, time: &str) -> String {
    let data = json!({"virtualAccountNo": number, "latestPaidAmount": "1000.00", "latestPaidTime": time});
    json!({"virtualAccountData": data}).to_string()
}

fn classic_paid(reference: &str) -> String {
    let details = json!({"trxRefID": reference, "amount": "1000.00"});
    let data = json!({"virtualAccountId": "V1", "virtualAccountNumber": "26215123", "paymentDetails": details});
    json!({"code": 200, "virtualAccountData": data}).to_string()
}

#[tokio::test]
async fn a_payment_of_either_generation_reaches_the_app() {
    let circle = Circle::asking(App::start(|_| status(204)).await).await;
    let numbers = [circle.snap_account().await, circle.classic_account().await];
    circle.pay("virtualAccountNo", &numbers[0]).await;
    circle.pay("virtualAccountNumber", &numbers[1]).await;
    let taken = circle.until_taken(2).await;
    let of = |dialect: &str| taken.iter().find(|delivery| delivery.event["data"]["dialect"] == dialect).unwrap();
    for (dialect, number) in ["snap", "classic"].into_iter().zip(&numbers) {
        let event = &of(dialect).event;
        assert_eq!((&event["type"], &event["data"]["origin"]), (&json!("va.paid"), &json!("callback")));
        assert_eq!(event["data"]["virtualAccountNo"], json!(number), "{event}");
        assert_eq!(event["data"]["confirmed"], true, "{event}");
        assert_eq!(event["data"]["amount"], json!({"value": "150000.00", "currency": "IDR"}));
    }
    assert_eq!(of("snap").event["data"]["trxId"], "7f3b1c9e5a2d4f608b1e3c7a9d5f2b41");
    until("the record of the ends", || async { circle.listed("delivered").await.len() == 2 }).await;
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let elsewhere = App::start(|_| status(204)).await;
    let to = format!("http://{}/payments", elsewhere.address);
    let mut codes = [301, 302, 303, 307, 308].into_iter();
    let redirect = move |code: u16| Response::builder().status(code).header("Location", &to).body(Empty::new());
    let circle = Circle::of(App::start(move |_| redirect(codes.next().unwrap_or(307)).ok()).await).await;
    for account in 0..5 {
        assert_eq!(circle.announce("snap", &paid(&account.to_string(), "T1")).await.status, 200);
    }
    let tried = || async { circle.listed("pending").await.iter().filter(|event| event["attempts"] != 0).count() == 5 };
    until("five attempts", tried).await;
    let statuses = circle.app.look(|heard| heard.iter().take(5).filter_map(|it| it.status).collect::<Vec<_>>());
    assert_eq!(statuses, [301, 302, 303, 307, 308]);
    assert_eq!(elsewhere.look(<[Delivery]>::len), 0, "the redirect's target has heard of it");
}

#[tokio::test]
async fn an_app_gets_the_pause_it_asks_for() {
    let moments = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&moments);
    let busy = || Response::builder().status(503).header("Retry-After", "9").body(Empty::new()).ok();
    let app = App::start(move |_| {
        let mut moments = noted.lock().unwrap();
        moments.push(Instant::now());
        if moments.len() == 1 { busy() } else { status(204) }
    });
    let circle = Circle::of(app.await).await;
    circle.announce("snap", &paid("1", "T1")).await;
    let taken = circle.until_taken(1).await;
    let ids = circle.app.look(|heard| heard.iter().map(|delivery| delivery.id.clone()).collect::<Vec<_>>());
    assert_eq!(ids, vec![taken[0].id.clone(); 2], "under one id");
    let moments = moments.lock().unwrap();
    // Without being asked it would have come after six seconds at the latest.
    assert!(moments[1] - moments[0] > Duration::from_secs(8), "{:?}", moments[1] - moments[0]);
}

#[tokio::test]
async fn what_is_gone_is_not_tried_again() {
    let mut first = true;
    let app = App::start(move |_| status(if std::mem::take(&mut first) { 410 } else { 204 })).await;
    let circle = Circle::of(app).await;
    for time in ["T1", "T2"] {
        circle.announce("snap", &paid("1", time)).await;
    }
    circle.until_taken(1).await;
    let paid_at =
        circle.app.look(|heard| heard.iter().map(|it| it.event["data"]["paidAt"].clone()).collect::<Vec<_>>());
    assert_eq!(paid_at, ["T1", "T2"], "the second goes on, the first is over");
    let dead = circle.listed("dead").await;
    assert_eq!((dead.len(), &dead[0]["attempts"], &dead[0]["last"]), (1, &json!(1), &json!("answered 410")));
    assert_eq!(dead[0]["next"], Value::Null);
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_acknowledged_and_arrives_later() {
    let folder = TempDir::new().unwrap();
    let switches = folder.path().join("sandbox.yaml");
    std::fs::write(&switches, "callbacks: { retry_delays: [1s, 2s, 4s, 8s] }\n").unwrap();
    let app = App::start(|_| status(204)).await;
    let circle = Circle::with(app, &["--config", switches.to_str().unwrap()], "confirm: never, ").await;
    let numbers = [circle.snap_account().await, circle.classic_account().await];
    let other = Connection::open(circle.gateway.folder.path().join("data/ayova.db")).unwrap();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    circle.pay("virtualAccountNo", &numbers[0]).await;
    circle.pay("virtualAccountNumber", &numbers[1]).await;
    let refused = circle.announce("snap", &paid("1", "T1")).await;
    assert_eq!((refused.status, refused.json()["responseCode"].as_str()), (503, Some("5033400")));
    let mut stream = connect(&circle.callbacks).await;
    stream.write_all(kept_alive("POST", &path("classic"), "", &classic_paid("1")).as_bytes()).await.unwrap();
    assert!(is_closed(&mut stream).await, "a classic 5xx would be the end");
    let attempts = || async {
        let page = circle.sandbox.get("/_sandbox/callbacks").await;
        let callbacks = page["callbacks"].as_array().unwrap().clone();
        let first = |it: &Value| Some((it["dialect"].as_str()?.to_owned(), it["attempts"][0].as_str()?.to_owned()));
        callbacks.iter().filter_map(first).collect::<BTreeMap<_, _>>()
    };
    until("an attempt of each", || async { attempts().await.len() == 2 }).await;
    let attempts = attempts().await;
    assert_eq!(attempts["snap"], "503");
    assert!(attempts["classic"].parse::<u16>().is_err(), "it was answered: {attempts:?}");
    assert_eq!(circle.app.look(<[Delivery]>::len), 0);

    other.execute_batch("ROLLBACK").unwrap();
    until("ready again", || async { get(&circle.gateway.admin, "/readyz").await.status == 200 }).await;
    assert_eq!(circle.announce("snap", &paid("1", "T1")).await.status, 200);
    assert_eq!(circle.announce("classic", &classic_paid("1")).await.status, 201);
    let taken = circle.until_taken(4).await;
    assert_eq!(taken.iter().map(|delivery| &delivery.id).collect::<BTreeSet<_>>().len(), 4);
}

/// Payers at once.
const PAYERS: usize = 8;
const BURST: usize = 1_000;

#[tokio::test]
async fn a_burst_of_equal_payments_of_one_account_arrives_whole_and_in_order() {
    let circle = Circle::asking(App::start(|_| status(204)).await).await;
    let open = CREATE_BODY.replace(r#""totalAmount":{"value":"150000.00","currency":"IDR"},"#, "");
    let created = ask(&circle.gateway.listen, &request("POST", CREATE_PATH, "Idempotency-Key: 1\r\n", &open)).await;
    let number = created.json()["virtualAccountData"]["virtualAccountNo"].as_str().unwrap().to_owned();
    let payers = (0..PAYERS).map(|_| {
        let (sandbox, number) = (circle.sandbox.address.clone(), number.clone());
        tokio::spawn(async move {
            for _ in 0..BURST / PAYERS {
                pay(&sandbox, "virtualAccountNo", &number).await;
            }
        })
    });
    for payer in payers.collect::<Vec<_>>() {
        payer.await.unwrap();
    }
    let taken = circle.until_taken(BURST).await;
    let times: Vec<String> =
        taken.iter().map(|delivery| delivery.event["data"]["paidAt"].as_str().unwrap().to_owned()).collect();
    assert!(taken.iter().all(|delivery| delivery.event["data"]["amount"]["value"] == "150000.00"));
    // Equal amounts are told apart by their times, of which the sandbox never gives one twice.
    assert_eq!((times.iter().collect::<BTreeSet<_>>().len(), times.len()), (BURST, BURST));
    // The sandbox has many callbacks under way at once; the order that counts is the one they were kept in.
    let store = Connection::open(circle.gateway.folder.path().join("data/ayova.db")).unwrap();
    let mut kept = store.prepare("SELECT paid_at FROM events ORDER BY n").unwrap();
    let kept: Vec<String> = kept.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(times, kept);
}
