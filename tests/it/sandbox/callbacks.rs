//! Payments are announced as documented: bodies, judgement of answers, pauses, bounds.
//!
//! Promises runs in memory on paused time: a function stands where the merchant's server would.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ayova::clock::{SharedClock, TestClock};
use ayova::config::SandboxConfig;
use ayova::config::sandbox::PaidAmountShape;
use ayova::sandbox::{Sandbox, Transport};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Client, START};
use super::vectors::same_shape;
use super::{cases, classic_create, snap_create};

/// What a merchant's server does with one callback.
#[derive(Clone, Debug)]
enum Answer {
    Status(u16),
    Reset,
    Silence,
}

/// A merchant's server: answers from a script, the last answer for ever.
#[derive(Default)]
struct Receiver {
    script: Mutex<VecDeque<Answer>>,
    /// Moment, request head and body of each callback.
    seen: Mutex<Vec<(Instant, http::request::Parts, Value)>>,
}

struct Line(Arc<Receiver>);

impl Transport for Line {
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<StatusCode, String>> {
        let receiver = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            receiver.seen.lock().unwrap().push((Instant::now(), head, body));
            let answer = {
                let mut script = receiver.script.lock().unwrap();
                if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
            };
            match answer {
                Some(Answer::Status(status)) => Ok(StatusCode::from_u16(status).unwrap()),
                Some(Answer::Reset) => Err("connection reset".to_owned()),
                // Longer than every time limit.
                Some(Answer::Silence) | None => std::future::pending().await,
            }
        })
    }
}

fn listening(script: &[Answer], set: impl FnOnce(&mut SandboxConfig)) -> (Client, Arc<Receiver>) {
    let receiver = Arc::new(Receiver { script: Mutex::new(script.iter().cloned().collect()), ..Receiver::default() });
    let mut config = SandboxConfig::default();
    config.callbacks.snap = Some("http://merchant.example/snap".to_owned());
    config.callbacks.classic = Some("http://merchant.example/classic".to_owned());
    set(&mut config);
    let clock: SharedClock = Arc::new(TestClock::new(START.parse().unwrap()));
    let transport = Arc::new(Line(Arc::clone(&receiver)));
    let sandbox = Sandbox::with_transport(config, Arc::clone(&clock), StdRng::seed_from_u64(3), transport).unwrap();
    (Client::of(sandbox, clock), receiver)
}

/// Makes an account of a generation and pays it.
async fn pay(client: &Client, generation: &str) -> Value {
    let data = if generation == "snap" {
        client.snap("create", &snap_create()).await.data()
    } else {
        client.classic_create(&classic_create()).await.data()
    };
    let number = if generation == "snap" { &data["virtualAccountNo"] } else { &data["virtualAccountNumber"] };
    assert_eq!(client.pay(number, "150000.00").await.json()["paid"], true);
    data
}

fn answer(of: &Value) -> Answer {
    match (of["http"].as_u64(), of["transport"].as_str()) {
        (Some(status), _) => Answer::Status(u16::try_from(status).unwrap()),
        (None, Some("timeout")) => Answer::Silence,
        (None, _) => Answer::Reset,
    }
}

/// The pauses between the end of an attempt and the start of the next.
fn pauses(receiver: &Receiver, script: &[Answer]) -> Vec<u64> {
    let seen = receiver.seen.lock().unwrap();
    let starts: Vec<_> = seen.iter().map(|(moment, ..)| *moment).collect();
    let took = |index: usize| match script.get(index).or(script.last()) {
        Some(Answer::Silence) => Duration::from_secs(10),
        _ => Duration::ZERO,
    };
    starts.windows(2).enumerate().map(|(index, pair)| (pair[1] - pair[0] - took(index)).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn deliveries_and_schedules_of_the_vectors() {
    let (_, cases) = cases(include_str!("../../vectors/callbacks.json"));
    for case in &cases {
        let (script, expected) = match case["type"].as_str().unwrap() {
            "delivery" => {
                let expected =
                    (case["max_attempts"].clone(), case["retry_delays_s"].clone(), case["acknowledged"].clone());
                (vec![answer(&case["merchant_answer"])], expected)
            }
            "schedule" => {
                let expect = &case["expect"];
                let answers = case["answers"].as_array().unwrap().iter().map(answer).collect();
                (
                    answers,
                    (expect["attempts"].clone(), expect["delays_after_failure_s"].clone(), expect["delivered"].clone()),
                )
            }
            _ => continue,
        };
        let (client, receiver) = listening(&script, |_| {});
        pay(&client, case["generation"].as_str().unwrap()).await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let id = &case["id"];
        assert_eq!(json!(receiver.seen.lock().unwrap().len()), expected.0, "{id}");
        assert_eq!(json!(pauses(&receiver, &script)), expected.1, "{id}");
        let shown = client.look("/callbacks").await["callbacks"][0].clone();
        let state = if expected.2 == true { "delivered" } else { "lost" };
        assert_eq!(
            (&shown["state"], &json!(shown["attempts"].as_array().unwrap().len())),
            (&json!(state), &expected.0)
        );
        // However it ends, the payment stands.
        assert_eq!(client.look("/accounts").await["accounts"][0]["payments"], 1, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_snap_body_is_the_vectors() {
    let (_, cases) = cases(include_str!("../../vectors/callbacks.json"));
    let case = cases.iter().find(|case| case["id"] == "cb-snap-body-derived").unwrap();
    let (client, receiver) = listening(&[Answer::Status(200)], |_| {});
    let mut body = snap_create();
    body["virtualAccountNo"] = json!("12345678901");
    let data = client.snap_as("create", &body, "0f1e2d3c4b5a69788796a5b4c3d2e1f0").await.data();
    client.advance("262m").await;
    client.advance("10s").await;
    client.pay(&data["virtualAccountNo"], "150000.00").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = receiver.seen.lock().unwrap();
    let (_, head, body) = &seen[0];
    assert_eq!(*body, case["body"]);
    assert_eq!((&head.method, head.uri.to_string().as_str()), (&Method::POST, "http://merchant.example/snap"));
    assert_eq!(head.headers["content-type"], "application/json");
    assert!(!head.headers.contains_key("accept"));
}

#[tokio::test(start_paused = true)]
async fn the_snap_amount_may_be_a_string() {
    let string = |config: &mut SandboxConfig| config.snap.latest_paid_amount = PaidAmountShape::String;
    let (client, receiver) = listening(&[Answer::Status(200)], string);
    pay(&client, "snap").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.seen.lock().unwrap()[0].2["virtualAccountData"]["latestPaidAmount"], "150000.00");
}

#[tokio::test(start_paused = true)]
async fn the_classic_body_has_the_vectors_shape_and_sums() {
    let (_, cases) = cases(include_str!("../../vectors/callbacks.json"));
    let expected = &cases.iter().find(|case| case["id"] == "cb-classic-body-documented").unwrap()["body"];
    let (client, receiver) = listening(&[Answer::Status(201)], |_| {});
    let mut body = classic_create();
    body["virtualAccountConfig"] = json!({"virtualAccountType": "static", "amountType": "open"});
    body["billDetails"] = expected["virtualAccountData"]["billDetails"].clone();
    let data = client.classic_create(&body).await.data();
    for _ in 0..2 {
        client.pay(&data["virtualAccountNumber"], "12500.00").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = receiver.seen.lock().unwrap();
    let (_, head, found) = &seen[1];
    same_shape(expected, found, "classic");
    let (found, expected) = (&found["virtualAccountData"], &expected["virtualAccountData"]);
    for name in ["virtualAccountStatus", "totalAmount", "billAmount", "billDetails"] {
        assert_eq!(found[name], expected[name], "{name}");
    }
    assert_eq!(found["paymentDetails"]["amount"], "12500.00");
    assert_ne!(found["paymentDetails"]["trxRefID"], seen[0].2["virtualAccountData"]["paymentDetails"]["trxRefID"]);
    for (name, told) in [("virtualAccountId", "virtualAccountId"), ("correlationId", "correlationId")] {
        assert_eq!(found[name], data[told]);
    }
    assert_eq!(
        (&head.headers["accept"], &head.headers["content-type"]),
        (&"application/json".parse().unwrap(), &"application/json".parse().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn expiry_and_refused_payments_announce_nothing() {
    let (client, receiver) = listening(&[Answer::Status(200)], |_| {});
    let data = client.snap("create", &snap_create()).await.data();
    client.pay(&data["virtualAccountNo"], "1.00").await;
    client.advance("48h").await;
    client.pay(&data["virtualAccountNo"], "150000.00").await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(receiver.seen.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_payments_of_one_second_differ_in_time() {
    let (client, receiver) = listening(&[Answer::Status(200)], |_| {});
    let mut body = snap_create();
    body["additionalInfo"]["isSingleUse"] = json!("N");
    let data = client.snap("create", &body).await.data();
    for _ in 0..3 {
        client.pay(&data["virtualAccountNo"], "150000.00").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = receiver.seen.lock().unwrap();
    let mut times: Vec<_> =
        seen.iter().map(|(.., body)| body["virtualAccountData"]["latestPaidTime"].to_string()).collect();
    times.sort();
    times.dedup();
    assert_eq!(times.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn addresses_can_be_set_changed_and_removed() {
    let (client, receiver) = listening(&[Answer::Status(200)], |config| {
        (config.callbacks.snap, config.callbacks.classic) = (None, None);
    });
    pay(&client, "snap").await;
    let set = |body: Value| client.control(Method::PUT, "/callbacks", Box::leak(Box::new(body)));
    assert_eq!(set(json!({"snap": "http://127.0.0.1:3000/a"})).await.status, 200);
    let both = set(json!({"classic": "http://127.0.0.1:3000/b"})).await.json();
    assert_eq!(both, json!({"snap": "http://127.0.0.1:3000/a", "classic": "http://127.0.0.1:3000/b"}));
    pay(&client, "snap").await;
    pay(&client, "classic").await;
    set(json!({"snap": null})).await;
    pay(&client, "snap").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = receiver.seen.lock().unwrap();
    let paths: Vec<_> = seen.iter().map(|(_, head, _)| head.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/a", "/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_stops_deliveries() {
    let (client, receiver) = listening(&[Answer::Status(503)], |_| {});
    pay(&client, "snap").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.post("/reset", Value::Null).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    // The one that was due already went out; nothing after it.
    assert_eq!(receiver.seen.lock().unwrap().len(), 2);
    assert_eq!(client.look("/callbacks").await["callbacks"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_sixteen_at_once() {
    let (client, receiver) = listening(&[Answer::Silence], |config| {
        config.callbacks.retry_delays = vec![];
        config.callbacks.timeout = Duration::from_secs(2);
    });
    for _ in 0..40 {
        pay(&client, "snap").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.seen.lock().unwrap().len(), 16);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let seen = receiver.seen.lock().unwrap();
    assert_eq!(seen.len(), 40);
    // Forty silent ones of two seconds each, sixteen at a time, without a second attempt.
    assert_eq!((seen[39].0 - seen[0].0).as_secs(), 4);
}
