//! Each fault as a client feels it, and whether the request was done all the same.

use std::time::Duration;

use ayova::sandbox::ConnectionReset;
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Client, Outgoing, Reply, fresh};
use super::{classic_create, snap_create, snap_inquiry};

async fn create(client: &Client) -> Result<Reply, ConnectionReset> {
    let token = client.snap_login().await;
    let mut outgoing = client.snap_request("create", &token, &snap_create());
    client.sign(&mut outgoing);
    client.try_send(outgoing).await
}

async fn creates(client: &Client) -> u64 {
    client.look("/stats").await["creates"].as_u64().unwrap()
}

fn always() -> Value {
    json!({"operation": "snap.create"})
}

#[tokio::test(start_paused = true)]
async fn latency_answers_late_what_was_done_at_once() {
    let client = fresh();
    client.fault(always(), json!({"latency": "3s"})).await;
    let start = Instant::now();
    let late = tokio::time::timeout(Duration::from_secs(1), create(&client)).await;
    assert!(late.is_err());
    assert_eq!(creates(&client).await, 1);
    assert_eq!(create(&client).await.unwrap().status, 200);
    assert_eq!(start.elapsed(), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn status_answers_without_doing() {
    let client = fresh();
    client.fault(always(), json!({"status": 503, "body": "<html>busy</html>"})).await;
    let reply = create(&client).await.unwrap();
    assert_eq!((reply.status, &reply.bytes[..]), (503, &b"<html>busy</html>"[..]));
    assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    client.fault(always(), json!({"status": 504, "body": "{}"})).await;
    assert_eq!(create(&client).await.unwrap().headers["content-type"], "application/json");
    client.fault(always(), json!({"status": 429})).await;
    let reply = create(&client).await.unwrap();
    assert_eq!((reply.status, reply.bytes.len()), (429, 0));
    assert_eq!(creates(&client).await, 0);
}

#[tokio::test(start_paused = true)]
async fn resets_before_and_after_the_commit() {
    let client = fresh();
    client.fault(always(), json!({"reset_before": true})).await;
    assert!(create(&client).await.is_err());
    assert_eq!(creates(&client).await, 0);
    client.fault(always(), json!({"reset_after_commit": true})).await;
    assert!(create(&client).await.is_err());
    assert_eq!(creates(&client).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_after_a_reset_gets_the_first_answer() {
    let client = fresh();
    client.fault(json!({"operation": "snap.create", "nth": 1}), json!({"reset_after_commit": true})).await;
    let token = client.snap_login().await;
    let mut outgoing = client.snap_request("create", &token, &snap_create());
    client.sign(&mut outgoing);
    assert!(client.try_send(outgoing.clone()).await.is_err());
    let data = client.send(outgoing).await.data();
    assert_eq!(client.snap("inquiry", &snap_inquiry(&data)).await.status, 200);
    assert_eq!(client.look("/stats").await["duplicate_creates"], 0);
    assert_eq!(creates(&client).await, 1);
}

#[tokio::test(start_paused = true)]
async fn empty_and_malformed_answers_come_after_the_commit() {
    let client = fresh();
    client.fault(always(), json!({"empty_200": true})).await;
    let reply = create(&client).await.unwrap();
    assert_eq!((reply.status, reply.bytes.len()), (200, 0));
    client.fault(always(), json!({"malformed_json": true})).await;
    let reply = create(&client).await.unwrap();
    assert_eq!((reply.status, reply.json()), (200, Value::Null));
    assert!(reply.bytes.starts_with(b"{"));
    assert_eq!(creates(&client).await, 2);
}

#[tokio::test(start_paused = true)]
async fn hang_never_answers_and_does_nothing() {
    let client = fresh();
    client.fault(always(), json!({"hang": true})).await;
    assert!(tokio::time::timeout(Duration::from_secs(86_400), create(&client)).await.is_err());
    assert_eq!(creates(&client).await, 0);
    let requests = client.look("/requests").await;
    assert_eq!(requests["requests"].as_array().unwrap().last().unwrap()["ended"], "hanging");
}

#[tokio::test(start_paused = true)]
async fn expire_token_refuses_the_token_that_was_sent() {
    let client = fresh();
    client.fault(json!({"operation": "snap.create", "nth": 1}), json!({"expire_token": true})).await;
    let reply = create(&client).await.unwrap();
    assert_eq!(reply.json()["responseCode"], "4012701");
    assert_eq!(create(&client).await.unwrap().status, 200);
    client.fault(json!({"operation": "classic.create"}), json!({"expire_token": true})).await;
    assert_eq!(client.classic_create(&classic_create()).await.status, 401);
    // On a login the token is dead on arrival.
    client.fault(json!({"operation": "snap.token", "nth": 1}), json!({"expire_token": true})).await;
    assert_eq!(create(&client).await.unwrap().json()["responseCode"], "4012701");
    assert_eq!(create(&client).await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn every_operation_and_both_logins_can_fail() {
    let client = fresh();
    let data = client.snap("create", &snap_create()).await.data();
    let classic = client.classic_create(&classic_create()).await.data();
    for operation in ["snap.create", "snap.update", "snap.inquiry"] {
        client.fault(json!({"operation": operation}), json!({"status": 500})).await;
        let name = operation.trim_start_matches("snap.");
        assert_eq!(client.snap(name, &snap_inquiry(&data)).await.status, 500, "{operation}");
    }
    for (operation, method) in
        [("classic.create", Method::POST), ("classic.update", Method::PATCH), ("classic.get", Method::GET)]
    {
        client.fault(json!({"operation": operation}), json!({"status": 500})).await;
        assert_eq!(client.classic_changed(method, &classic, |_| {}).await.status, 500, "{operation}");
    }
    client.fault(json!({"operation": "snap.token"}), json!({"status": 500})).await;
    assert_eq!(client.send(client.snap_login_request()).await.status, 500);
    client.fault(json!({"operation": "classic.token"}), json!({"status": 500})).await;
    assert_eq!(client.send(client.classic_login_request()).await.status, 500);
    // A new list replaces the old one.
    let none = Outgoing::new(Method::PUT, "/_sandbox/faults", &json!([]));
    assert_eq!(client.send(none).await.status, 200);
    assert_eq!(client.send(client.classic_login_request()).await.status, 200);
}
