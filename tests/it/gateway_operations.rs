//! The six operations through gateway and sandbox, as a lean and as a full app sends them.
//!
//! The sandbox checks tokens, timestamps and signatures strictly; on top of that these tests look at
//! the bytes that arrived. Contract sections 1 and 5 rules 2 and 3.

use ayova::config::SandboxConfig;
use ayova::signature::{Encoding, HmacKey, Scheme, SignedRequest, StringToSign, body_hash};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::asks::{
    Ask, CLASSIC, CLASSIC_LOGIN, CREATE, INQUIRY, SNAP_LOGIN, UPDATE, classic_create, classic_get, classic_update, id,
    padded, snap_create, snap_inquiry, snap_update,
};
use crate::harness::{Arrived, Setup, World};

const OWN: &str = "12345678901";

#[tokio::test(start_paused = true)]
async fn an_app_that_sends_only_its_own_fields_succeeds() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    let inquiry = world.send(snap_inquiry(OWN)).await;
    assert_eq!(inquiry.expect(200).json()["virtualAccountData"]["virtualAccountNo"], padded(OWN));
    assert_eq!(
        inquiry.header("ayova-attached"),
        "partnerServiceId, customerNo, trxId, virtualAccountNo, X-EXTERNAL-ID"
    );
    let update = world.send(snap_update(2, OWN)).await;
    assert_eq!(update.expect(200).json()["virtualAccountData"]["originalReferenceNo"], id(1));
    assert_eq!(
        update.header("ayova-attached"),
        "originalReferenceNo, partnerServiceId, customerNo, trxId, virtualAccountNo"
    );

    let create = world.send(classic_create(3, "12345678")).await;
    let flow = create.expect(201).header("a-correlation-id").to_owned();
    assert_eq!(flow.len(), 32);
    assert_eq!(create.header("ayova-attached"), "A-Correlation-ID");
    let get = world.send(classic_get("12345678")).await;
    assert_eq!(get.expect(200).json()["virtualAccountData"]["correlationId"], flow.as_str());
    let update = world.send(classic_update("12345678")).await;
    assert_eq!(update.expect(200).json()["virtualAccountData"]["virtualAccountName"], "Budi Santoso Baru");
    let arrived = world.wire.last();
    assert_eq!(arrived.header("a-correlation-id"), flow);
    assert_eq!(arrived.json()["transactionId"].as_str().unwrap().len(), 32);
    assert_eq!(world.wire.logins().len(), 2, "one token call for each generation");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_sends_everything_succeeds_too() {
    let world = World::new();
    world.send(snap_create(1, OWN).in_full()).await.expect(200);
    let named = |ask: Ask| {
        ask.set("/partnerServiceId", "   14629").set("/customerNo", "CUST000123").set("/trxId", id(1).as_str())
    };
    let inquiry = named(snap_inquiry(&padded(OWN))).header("X-EXTERNAL-ID", &id(9)).in_full();
    let inquiry = world.send(inquiry).await;
    assert_eq!(inquiry.expect(200).header("ayova-attached"), "");
    let update = named(snap_update(2, &padded(OWN))).set("/originalReferenceNo", id(1).as_str()).in_full();
    assert_eq!(world.send(update).await.expect(200).header("ayova-attached"), "");

    let flow = id(77);
    let full = |ask: Ask| ask.header("A-Correlation-ID", &flow).in_full();
    let create = world.send(full(classic_create(3, "12345678"))).await;
    let data = create.expect(201).json()["virtualAccountData"].clone();
    assert_eq!(create.header("ayova-attached"), "");
    let (account, customer) = (data["virtualAccountId"].as_str().unwrap(), data["customerId"].as_str().unwrap());
    let query = format!("virtualAccountId={account}&transactionId={}&bankCode=002&customerId={customer}", id(4));
    let get = world.send(full(Ask::new(Method::GET, &format!("{CLASSIC}?{query}"), Value::Null))).await;
    assert_eq!(get.expect(200).header("ayova-attached"), "");
    assert_eq!(world.wire.last().query.unwrap(), query);
    let update = classic_update("12345678")
        .set("/virtualAccountId", account)
        .set("/customerId", customer)
        .set("/bankCode", "002")
        .set("/transactionId", id(5).as_str());
    assert_eq!(world.send(full(update)).await.expect(200).header("ayova-attached"), "");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_logs_in_goes_on_working() {
    let world = World::new();
    let form = "client_id=whoever&client_secret=whatever";
    let classic = Ask::new(Method::POST, &format!("{CLASSIC_LOGIN}?grant_type=client_credentials"), Value::Null);
    let classic = world.send(classic.body(form).header("Content-Type", "application/x-www-form-urlencoded")).await;
    let snap = world.send(Ask::new(Method::POST, SNAP_LOGIN, json!({"grantType": "client_credentials"}))).await;
    for login in [&classic, &snap] {
        assert_eq!((login.status, login.source(), login.reason()), (200, "gateway", ""));
        assert_eq!(login.json()["tokenType"], "BearerToken");
    }
    assert_eq!(snap.json()["responseCode"], "2007300");
    assert_eq!(classic.json()["expiresIn"], "3599");
    assert!(world.wire.all().is_empty(), "a login is answered here");
    let bearer = |login: &crate::harness::Got| format!("Bearer {}", login.json()["accessToken"].as_str().unwrap());
    world.send(snap_create(1, OWN).header("Authorization", &bearer(&snap))).await.expect(200);
    world.send(classic_create(1, "").header("Authorization", &bearer(&classic))).await.expect(201);
    for arrived in world.wire.calls() {
        assert!(!arrived.header("authorization").contains("laceholder"));
    }
    let wrong = world.send(Ask::new(Method::GET, SNAP_LOGIN, Value::Null)).await;
    assert_eq!(wrong.expect_refusal(405, "METHOD_NOT_ALLOWED").header("allow"), "POST");
}

/// Holds the signature of an HMAC-signed request against the bytes that arrived.
fn assert_signed(arrived: &Arrived) {
    let timestamp = arrived.header("x-timestamp");
    assert!(timestamp.len() == 25 && timestamp.ends_with("+07:00"), "{timestamp}");
    let hash = body_hash(&arrived.body);
    let request = SignedRequest { method: &arrived.method, path: &arrived.path, body_hash: &hash, timestamp };
    let token = arrived.header("authorization").strip_prefix("Bearer ").unwrap();
    let key = HmacKey::new(b"sandbox-secret");
    assert!(key.verify(&StringToSign::hmac_sha512(&request, token), arrived.header("x-signature")));
    assert_eq!(arrived.header("x-signature").len(), 128, "lower-case hexadecimal by default");
}

#[tokio::test(start_paused = true)]
async fn an_untouched_body_arrives_byte_for_byte() {
    let world = World::new();
    let odd = format!(
        "\r\n{{\t\"trxId\" :\"{}\",\n \"unknown\":[1.50, 1e2,{{\"b\":null ,\"a\":\"\\/\\u00e9\"}}], \"customerNo\":\"CUST\\u0030\\u0031\",\
         \"additionalInfo\" : {{\"isSingleUse\":\"Y\", \"extra\":-0.0,\"bankCode\":\"014\"}},\
         \"virtualAccountName\":\"B\u{fc}di  \\\"S\\\" \u{1f680}\" }} \n",
        id(1)
    );
    let create = Ask::new(Method::POST, CREATE, Value::Null).header("X-EXTERNAL-ID", &id(1)).body(odd.clone());
    let got = world.send(create).await;
    assert_eq!(got.expect(200).header("ayova-attached"), "");
    let arrived = world.wire.last();
    assert_eq!(arrived.body, odd.as_bytes());
    assert_signed(&arrived);
    assert_eq!(arrived.header("content-type"), "application/json");

    let odd = classic_create(2, "").json.to_string().replace(':', " :\n").replace("Budi", "B\\u0075di");
    let create = classic_create(2, "").header("A-Correlation-ID", &id(2)).body(odd.clone());
    world.send(create).await.expect(201);
    assert_eq!(world.wire.last().body, odd.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn attaching_touches_no_other_byte() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    let before = "{ \"virtualAccountNo\" :";
    let after = " ,\n\"additionalInfo\":{\"isSingleUse\":\"Y\",  \"bankCode\":\"014\"},\"x\":[ 1.0 ],\
                 \"virtualAccountName\":\"\\u0042udi\", \"totalAmount\":{\"currency\":\"IDR\",\"value\":\"175000.00\"}}\n";
    let ask = Ask::new(Method::PUT, UPDATE, Value::Null).header("X-EXTERNAL-ID", &id(2));
    world.send(ask.body(format!("{before}\"{OWN}\"{after}"))).await.expect(200);
    let attached = format!(
        "{{\"originalReferenceNo\":\"{}\",\"partnerServiceId\":\"   14629\",\"customerNo\":\"CUST000123\",\"trxId\":\"{}\",",
        id(1),
        id(1)
    );
    let expected = format!("{attached}{}\"{}\"{after}", &before[1..], padded(OWN));
    let arrived = world.wire.last();
    assert_eq!(String::from_utf8(arrived.body.to_vec()).unwrap(), expected);
    assert_signed(&arrived);
}

#[tokio::test(start_paused = true)]
async fn an_absent_amount_stays_absent() {
    let world = World::new();
    world.send(snap_create(1, OWN).unset("/totalAmount")).await.expect(200);
    assert_eq!(world.wire.last().json().get("totalAmount"), None);
}

#[tokio::test(start_paused = true)]
async fn every_call_is_signed_anew_with_the_present_time() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    world.send(snap_inquiry(OWN)).await.expect(200);
    let timestamps: Vec<_> =
        world.wire.calls().iter().map(|arrived| arrived.header("x-timestamp").to_owned()).collect();
    assert_eq!(timestamps, ["2026-01-05T10:00:00+07:00", "2026-01-05T10:01:01+07:00"]);
    world.wire.calls().iter().for_each(assert_signed);
}

#[tokio::test(start_paused = true)]
async fn every_scheme_and_encoding_verifies() {
    for scheme in [Scheme::HmacSha512, Scheme::RsaTransactional, Scheme::RsaClientTimestamp] {
        for encoding in [Encoding::Hex, Encoding::Base64] {
            let mut setup = Setup::new(1);
            setup.config.upstream.snap.signature.scheme = scheme;
            setup.config.upstream.snap.signature.encoding = encoding;
            setup.sandbox.snap.signature.scheme = scheme;
            setup.sandbox.snap.signature.accept = vec![encoding];
            let world = setup.build();
            world.send(snap_create(1, OWN)).await.expect(200);
            world.send(snap_update(2, OWN)).await.expect(200);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn paths_and_the_update_method_are_configurable() {
    let mut setup = Setup::new(1);
    setup.config.upstream.snap.update_method = Method::POST;
    setup.config.upstream.snap.base_path = "/api/v1.0".to_owned();
    setup.config.upstream.snap.token_path = "/login".to_owned();
    let SandboxConfig { snap, .. } = &mut setup.sandbox;
    (snap.base_paths, snap.token_path) = (vec!["/api/v1.0".to_owned()], "/login".to_owned());
    let world = setup.build();
    let moved = |ask: Ask| Ask { path: ask.path.replace("/va/api/v2.0", "/api/v1.0"), ..ask };
    world.send(moved(snap_create(1, OWN))).await.expect(200);
    let put = world.send(moved(snap_update(2, OWN))).await;
    assert_eq!(put.expect_refusal(405, "METHOD_NOT_ALLOWED").header("allow"), "POST");
    let update = Ask { method: Method::POST, ..moved(snap_update(2, OWN)) };
    world.send(update).await.expect(200);
    assert_eq!(world.send(snap_create(3, "")).await.reason(), "UNKNOWN_ROUTE");
    let elsewhere = world.send(Ask::new(Method::POST, INQUIRY, json!({}))).await;
    assert_eq!(elsewhere.json()["responseCode"], "4040000");
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_back_byte_for_byte() {
    let world = World::new();
    let body = "{ \"responseCode\":\"2002700\" ,\n\"virtualAccountData\" : {\"x\":\"\\u0041\"} }\n";
    world.wire.acts([crate::harness::Act::Answer(200, body), crate::harness::Act::Answer(422, "<html>no</html>")]);
    let got = world.send(snap_create(1, OWN)).await;
    assert_eq!(got.expect(200).body, Bytes::from_static(body.as_bytes()));
    let got = world.send(snap_inquiry(&padded(OWN)).set("/customerNo", "CUST000123")).await;
    assert_eq!(got.expect(422).text(), "<html>no</html>");
}
