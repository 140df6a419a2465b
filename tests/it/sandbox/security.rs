//! Tokens, signatures, timestamps, partners: who is let in, and in which order that is found out.

use std::time::Duration;

use ayova::clock::iso8601;
use ayova::config::SandboxConfig;
use ayova::config::Secret;
use ayova::config::sandbox::SandboxMerchant;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::client::{BASE, CLASSIC, Client, fresh, with};
use super::{classic_create, snap_create};

/// Two merchants of one simulator.
fn two() -> (Client, Client) {
    let other = SandboxMerchant {
        name: "other".into(),
        merchant_code: "OTHER1".into(),
        client_id: "other-client".to_owned(),
        client_secret: Secret::new("other-secret".to_owned()),
        ..SandboxMerchant::default()
    };
    let merchants = vec![SandboxMerchant::default(), other];
    let first = with(SandboxConfig { merchants, ..SandboxConfig::default() });
    let mut second = first.clone();
    "OTHER1".clone_into(&mut second.merchant_code);
    "other-client".clone_into(&mut second.client_id);
    "other-secret".clone_into(&mut second.client_secret);
    (first, second)
}

async fn snap_with_token(client: &Client, token: &str) -> (u16, String) {
    let mut outgoing = client.snap_request("create", token, &snap_create());
    client.sign(&mut outgoing);
    let reply = client.send(outgoing).await;
    (reply.status, reply.case())
}

const REFUSED_TOKEN: (u16, &str) = (401, "01");

#[tokio::test(start_paused = true)]
async fn only_a_good_token_is_good() {
    let body = snap_create();
    let client = fresh();
    let snap = client.snap_login().await;
    let classic = client.classic_login().await;
    let refused = (REFUSED_TOKEN.0, REFUSED_TOKEN.1.to_owned());
    for token in ["unknown", &classic, ""] {
        assert_eq!(snap_with_token(&client, token).await, refused, "{token}");
    }
    assert_eq!(snap_with_token(&client, &snap).await, (200, "00".to_owned()));
    // The control clock does not age tokens, real time does.
    client.advance("2h").await;
    let mut late = snap_create();
    late["expiredDate"] = json!("2026-01-07T10:00:00+07:00");
    tokio::time::advance(Duration::from_secs(3599)).await;
    let mut outgoing = client.snap_request("create", &snap, &late);
    client.sign(&mut outgoing);
    assert_eq!(client.send(outgoing.clone()).await.status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(snap_with_token(&client, &snap).await, refused);
    for change in ["Basic abcdefgh", "Bearer", "Bearer "] {
        let reply = client.snap_changed("create", &body, |outgoing| outgoing.set("Authorization", change));
        assert_eq!(reply.await.case(), "01", "{change}");
    }
    let reply = client.snap_changed("create", &body, |outgoing| {
        outgoing.headers.remove("Authorization");
    });
    assert_eq!(reply.await.json()["responseCode"], "4012701");
}

#[tokio::test(start_paused = true)]
async fn a_classic_token_ends_too() {
    let client = fresh();
    let token = client.classic_login().await;
    let send = || client.send(client.classic_request(Method::POST, &token, &classic_create()));
    assert_eq!(send().await.status, 201);
    tokio::time::advance(Duration::from_secs(3599)).await;
    let reply = send().await;
    assert_eq!((reply.status, reply.json()["code"].clone()), (401, json!("401")));
    let snap = client.snap_login().await;
    let reply = client.send(client.classic_request(Method::POST, &snap, &classic_create())).await;
    assert_eq!(reply.status, 401);
}

#[tokio::test(start_paused = true)]
async fn every_part_of_the_signature_counts() {
    let client = fresh();
    let token = client.snap_login().await;
    let signed = || {
        let mut outgoing = client.snap_request("create", &token, &snap_create());
        client.sign(&mut outgoing);
        outgoing
    };
    let mut body = signed();
    body.body = body.body.replace("150000.00", "150001.00");
    let mut spaces_inside = signed();
    spaces_inside.body = spaces_inside.body.replace("Budi Santoso", "Budi  Santoso");
    let mut timestamp = signed();
    let later = client.clock.now().checked_add(SignedDuration::from_secs(1)).unwrap();
    timestamp.set("X-TIMESTAMP", &iso8601(later));
    let mut path = signed();
    path.path = format!("{BASE}/transfer-va/update-va");
    let mut query = signed();
    query.path.push_str("?a=1");
    for (what, outgoing) in
        [("body", body), ("spaces", spaces_inside), ("timestamp", timestamp), ("path", path), ("query", query)]
    {
        let reply = client.send(outgoing).await;
        assert_eq!((reply.status, reply.case().as_str()), (401, "00"), "{what}: {}", reply.text());
    }
    for signature in ["00ff", "!", &"0".repeat(128), &"A".repeat(88)] {
        let mut outgoing = signed();
        outgoing.set("X-SIGNATURE", signature);
        let reply = client.send(outgoing).await;
        assert_eq!((reply.status, reply.case().as_str()), (401, "00"), "{signature}");
    }
    // Blanks between the members are minified away, so the same signature holds.
    let mut spaced = signed();
    spaced.body = spaced.body.replace(",\"", " ,\n\t\"");
    assert_eq!(client.send(spaced).await.status, 200);
    let mut upper = signed();
    let shouted = upper.header("X-SIGNATURE").to_uppercase();
    upper.set("X-EXTERNAL-ID", &client.id());
    upper.set("X-SIGNATURE", &shouted);
    assert_eq!(client.send(upper).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn timestamps_may_be_five_minutes_off() {
    let body = snap_create();
    let client = fresh();
    for (offset, good) in [(-300, true), (-301, false), (300, true), (301, false)] {
        let moment = client.clock.now().checked_add(SignedDuration::from_secs(offset)).unwrap();
        let reply = client.snap_changed("create", &body, |outgoing| outgoing.set("X-TIMESTAMP", &iso8601(moment)));
        let reply = reply.await;
        assert_eq!(reply.status == 200, good, "{offset}: {}", reply.text());
        if !good {
            assert_eq!(reply.json()["responseMessage"], "Invalid Field Format {X-TIMESTAMP}");
        }
    }
    // Another zone is the same moment.
    let reply = client.snap_changed("create", &body, |outgoing| {
        outgoing.set("X-TIMESTAMP", "2026-01-05T03:00:00+00:00");
    });
    assert_eq!(reply.await.status, 200);
    // The control clock does not count.
    client.advance("1h").await;
    assert_eq!(client.snap("create", &snap_create()).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_merchant_may_not_speak_for_another() {
    let body = snap_create();
    let (first, second) = two();
    let token = first.snap_login().await;
    // Right token, other partner: the signature cannot give it away, so the partner does.
    let reply = first.snap_changed("create", &body, |outgoing| outgoing.set("X-PARTNER-ID", "OTHER1")).await;
    assert_eq!((reply.status, reply.case().as_str()), (404, "08"), "{}", reply.text());
    // A foreign token with the own secret.
    assert_eq!(snap_with_token(&second, &token).await, (401, "00".to_owned()));
    let reply = first.snap_changed("create", &body, |outgoing| outgoing.set("X-CLIENT-KEY", "other-client"));
    assert_eq!(reply.await.json()["responseCode"], "4012700");
    let data = first.snap("create", &snap_create()).await.data();
    let reply = second.snap("inquiry", &super::snap_inquiry(&data)).await;
    assert_eq!((reply.status, reply.case().as_str()), (404, "12"));
    let reply = second.snap("update", &super::snap_update(&data)).await;
    assert_eq!((reply.status, reply.case().as_str()), (404, "12"));
    let classic = first.classic_create(&classic_create()).await.data();
    let reply = second.classic_get(&classic, "002").await;
    assert_eq!((reply.status, reply.json()["errors"][0]["code"].clone()), (503, json!("0213")));
    let reply = first
        .classic_changed(Method::POST, &classic_create(), |outgoing| outgoing.set("A-Merchant-Code", "OTHER1"))
        .await;
    assert_eq!(reply.json()["errors"][0]["details"], "A-Merchant-Code is invalid");
}

#[tokio::test(start_paused = true)]
async fn two_merchants_share_neither_numbers_nor_ids() {
    let (first, second) = two();
    let mut body = snap_create();
    body["virtualAccountNo"] = json!("12345678901");
    let id = first.id();
    let one = first.snap_as("create", &body, &id).await.data();
    let two = second.snap_as("create", &body, &id).await.data();
    assert_ne!(one["virtualAccountNo"], two["virtualAccountNo"]);
    assert_eq!(first.look("/stats").await["duplicate_creates"], 0);
}

#[tokio::test(start_paused = true)]
async fn refused_logins() {
    let client = fresh();
    let refused = |change: fn(&mut super::client::Outgoing)| {
        let mut outgoing = client.snap_login_request();
        change(&mut outgoing);
        let client = client.clone();
        async move { client.send(outgoing).await.json()["responseCode"].as_str().unwrap().to_owned() }
    };
    assert_eq!(refused(|o| drop(o.headers.remove("X-CLIENT-KEY"))).await, "4007302");
    assert_eq!(refused(|o| o.set("X-TIMESTAMP", "now")).await, "4007301");
    assert_eq!(refused(|o| o.set("X-TIMESTAMP", "2026-01-05T10:06:00+07:00")).await, "4007301");
    assert_eq!(refused(|o| o.set("X-CLIENT-KEY", "nobody")).await, "4017300");
    assert_eq!(refused(|o| o.set("X-SIGNATURE", &"0".repeat(512))).await, "4017300");
    assert_eq!(refused(|o| "{".clone_into(&mut o.body)).await, "4007300");
    assert_eq!(refused(|o| "[]".clone_into(&mut o.body)).await, "4007300");
    assert_eq!(refused(|o| "{}".clone_into(&mut o.body)).await, "4007302");
    assert_eq!(refused(|o| r#"{"grantType":"password"}"#.clone_into(&mut o.body)).await, "4007301");
    let classic = |change: fn(&mut super::client::Outgoing)| {
        let mut outgoing = client.classic_login_request();
        change(&mut outgoing);
        let client = client.clone();
        async move {
            let reply = client.send(outgoing).await;
            (reply.status, reply.json()["ErrorCode"].as_str().unwrap().to_owned())
        }
    };
    let invalid = (401, "invalid_client".to_owned());
    assert_eq!(classic(|o| "client_id=x&client_secret=y".clone_into(&mut o.body)).await, invalid);
    assert_eq!(classic(|o| "client_id=sandbox-client&client_secret=y".clone_into(&mut o.body)).await, invalid);
    assert_eq!(classic(|o| o.set("Content-Type", "application/json")).await.0, 400);
    assert_eq!(classic(|o| super::client::CLASSIC_TOKEN.clone_into(&mut o.path)).await.0, 400);
    assert_eq!(client.look("/stats").await["tokens_issued"], 0);
}

#[tokio::test(start_paused = true)]
async fn checks_come_in_the_documented_order() {
    let client = fresh();
    let send = |steps: usize| {
        let client = client.clone();
        async move {
            let mut body = snap_create();
            body["customerNo"] = json!(5);
            let reply = client
                .snap_changed("create", &body, |outgoing| {
                    let faulty: [fn(&mut super::client::Outgoing); 6] = [
                        |o| drop(o.headers.remove("CHANNEL-ID")),
                        |o| o.set("X-PARTNER-ID", "AYOTS"),
                        |o| o.set("X-TIMESTAMP", "2020-01-01T00:00:00+07:00"),
                        |o| o.set("Authorization", "Bearer expired-token"),
                        |o| o.signature = Some("00".to_owned()),
                        |o| "{".clone_into(&mut o.body),
                    ];
                    faulty.iter().skip(steps).for_each(|change| change(outgoing));
                })
                .await;
            format!("{} {}", reply.json()["responseCode"].as_str().unwrap(), reply.json()["responseMessage"])
        }
    };
    for (steps, expected) in [
        r#"4002702 "Invalid Mandatory Field {CHANNEL-ID}""#,
        r#"4002701 "Invalid Field Format {X-PARTNER-ID}""#,
        r#"4002701 "Invalid Field Format {X-TIMESTAMP}""#,
        r#"4012701 "Invalid Token (B2B)""#,
        r#"4012700 "Unauthorized. [Signature]""#,
        r#"4002700 "Bad Request""#,
        r#"4002701 "Invalid Field Format {customerNo}""#,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(send(steps).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_no_objects_are_refused() {
    let client = fresh();
    for body in ["", "[]", "1", "null", "{\"a\":1,\"a\":2}", "{\"a\":\"\u{0}\"}", "{} {}"] {
        let reply = client.snap_changed("create", &Value::Null, |outgoing| body.clone_into(&mut outgoing.body)).await;
        assert_eq!(reply.json()["responseCode"], "4002700", "{body:?}");
        let reply =
            client.classic_changed(Method::POST, &Value::Null, |outgoing| body.clone_into(&mut outgoing.body)).await;
        assert_eq!(reply.json()["errors"][0]["code"], "0505", "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_methods_and_paths() {
    let client = fresh();
    let send = |method: Method, path: &str| client.send(super::client::Outgoing::new(method, path, &Value::Null));
    let reply = send(Method::DELETE, CLASSIC).await;
    assert_eq!((reply.status, reply.headers["allow"].to_str().unwrap()), (405, "GET, PATCH, POST"));
    let reply = send(Method::DELETE, &format!("{BASE}/transfer-va/delete-va")).await;
    assert_eq!((reply.status, reply.json()["responseCode"].clone()), (405, json!("4053100")));
    assert_eq!(send(Method::GET, &format!("{BASE}/transfer-va/inquiry-va")).await.status, 405);
    assert_eq!(send(Method::GET, "/nowhere").await.status, 404);
    let long = super::client::Outgoing::new(Method::POST, CLASSIC, &json!("x".repeat(64 * 1024)));
    assert_eq!(client.send(long).await.status, 413);
}

/// Whatever is sent gets an answer that refuses it, and nothing is made.
fn any_body_is_refused(body: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let client = fresh();
        for operation in ["create", "update", "inquiry"] {
            let change = |outgoing: &mut super::client::Outgoing| body.clone_into(&mut outgoing.body);
            let reply = client.snap_changed(operation, &Value::Null, change).await;
            assert!([400, 404].contains(&reply.status), "{}", reply.text());
        }
        for method in [Method::POST, Method::PATCH] {
            let change = |outgoing: &mut super::client::Outgoing| body.clone_into(&mut outgoing.body);
            assert_eq!(client.classic_changed(method, &Value::Null, change).await.status, 503);
        }
        for path in ["/pay", "/inquire", "/clock", "/faults", "/callbacks"] {
            let method = if ["/faults", "/callbacks"].contains(&path) { Method::PUT } else { Method::POST };
            let mut outgoing = super::client::Outgoing::new(method, &format!("/_sandbox{path}"), &Value::Null);
            body.clone_into(&mut outgoing.body);
            let status = client.send(outgoing).await.status;
            assert!(status == 400 || ["[]", "{}"].contains(&body.trim()), "{path} {status}");
        }
        assert_eq!(client.look("/stats").await["creates"], 0);
    });
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn hostile_bodies_are_refused(text in ".*", cut in 0_usize..400, at in 0_usize..400, byte in " -~") {
        any_body_is_refused(&text);
        let good = snap_create().to_string();
        // Never whole: one that is not cut off has lost its last brace.
        let half: String = good.chars().take(cut.min(good.len() - 1)).collect();
        any_body_is_refused(&half);
        let mut broken: Vec<char> = half.chars().collect();
        broken.insert(at.min(broken.len()), byte.chars().next().unwrap());
        let broken: String = broken.into_iter().filter(|character| *character != '}').collect();
        any_body_is_refused(&broken);
    }
}
