//! The control interface, with good input and with bad.

use http::Method;
use serde_json::{Value, json};

use super::client::{Outgoing, fresh};
use super::{classic_create, snap_create, snap_inquiry, snap_update};

#[tokio::test(start_paused = true)]
async fn pay_finds_a_number_in_any_form_and_generation() {
    let client = fresh();
    let mut body = snap_create();
    body["additionalInfo"]["isSingleUse"] = json!("N");
    let data = client.snap("create", &body).await.data();
    let padded = data["virtualAccountNo"].as_str().unwrap();
    for (name, number) in [
        ("virtualAccountNo", padded),
        ("virtualAccountNo", padded.trim_start()),
        ("virtualAccountNumber", padded.trim_start()),
    ] {
        let reply = client.post("/pay", json!({name: number, "amount": "150000.00"})).await;
        assert_eq!(reply.json(), json!({"paid": true, "status": "Active"}), "{name} {number}");
    }
    let classic = client.classic_create(&classic_create()).await.data();
    let number = &classic["virtualAccountNumber"];
    let reply = client.post("/inquire", json!({"virtualAccountNo": number})).await;
    assert_eq!(reply.json(), json!({"inquired": true, "status": "INQUIRED"}));
    assert_eq!(client.pay(number, "150000.00").await.json()["status"], "INACTIVE");
    let reply = client.pay(number, "150000.00").await;
    let expected = json!({"paid": false, "status": "INACTIVE", "reason": "the virtual account has been paid"});
    assert_eq!((reply.status, reply.json()), (409, expected));
    let reply = client.post("/inquire", json!({"virtualAccountNumber": number})).await;
    assert_eq!((reply.status, reply.json()["inquired"].clone()), (409, json!(false)));
    let reply = client.pay(&json!("99999999999"), "1.00").await;
    assert_eq!((reply.status, reply.json()["paid"].clone()), (409, json!(false)));
}

#[tokio::test(start_paused = true)]
async fn bad_input_is_told_what_is_allowed() {
    let client = fresh();
    for (method, path, body, says) in [
        (Method::POST, "/pay", "", "virtualAccountNo"),
        (Method::POST, "/pay", "{", "expected"),
        (Method::POST, "/pay", r#"{"amount":"1.00"}"#, "either virtualAccountNo or virtualAccountNumber"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"1","virtualAccountNumber":"1","amount":"1.00"}"#, "either"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"1","virtualAccountNo":"2","amount":"1.00"}"#, "repeated"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"1"}"#, "amount"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"1","amount":100}"#, "10000.00"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"1","amount":"-1.00"}"#, "two decimals"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"12a","amount":"1.00"}"#, "digits"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"","amount":"1.00"}"#, "digits"),
        (Method::POST, "/pay", r#"{"virtualAccountNo":"1","amount":"1.00","x":1}"#, "unknown field"),
        (Method::POST, "/inquire", "[]", "expected"),
        (Method::POST, "/clock", r#"{"advance":"-5m"}"#, "90m"),
        (Method::POST, "/clock", r#"{"advance":90}"#, "90m"),
        (Method::POST, "/clock", r#"{"advance":"99999999999d"}"#, "100 years"),
        (Method::POST, "/clock", r#"{"advance":"18446744073709551615s"}"#, "90m"),
        (Method::POST, "/clock", r#"{"set":"now"}"#, "advance"),
        (Method::PUT, "/faults", "{}", "list"),
        (Method::PUT, "/faults", r#"[{"match":{"operation":"snap.create"},"fault":{"oops":true}}]"#, "fault 1"),
        (Method::PUT, "/callbacks", r#"{"snap":"https://127.0.0.1/"}"#, "http://"),
        (Method::PUT, "/callbacks", r#"{"snap":7}"#, "address or null"),
        (Method::PUT, "/callbacks", r#"{"swap":null}"#, "unknown member"),
        (Method::PUT, "/callbacks", "[]", "expected"),
    ] {
        let mut outgoing = Outgoing::new(method, &format!("/_sandbox{path}"), &Value::Null);
        body.clone_into(&mut outgoing.body);
        let reply = client.send(outgoing).await;
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text());
        let problem = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(problem.contains(says), "{path} {body}: {problem}");
    }
    // Deep nesting, long text and no UTF-8 end the same way.
    for body in ["[".repeat(60_000), format!("\"{}\"", "x".repeat(60_000)), "{\"advance\":\"\u{1F4A3}\"}".to_owned()] {
        let mut outgoing = Outgoing::new(Method::POST, "/_sandbox/clock", &Value::Null);
        outgoing.body = body;
        assert_eq!(client.send(outgoing).await.status, 400);
    }
}

#[tokio::test(start_paused = true)]
async fn other_methods_and_paths_say_what_there_is() {
    let client = fresh();
    let reply = client.control(Method::GET, "/pay", &Value::Null).await;
    assert_eq!((reply.status, reply.headers["allow"].to_str().unwrap()), (405, "POST"));
    let reply = client.control(Method::DELETE, "/callbacks", &Value::Null).await;
    assert_eq!(reply.headers["allow"], "GET, PUT");
    for path in ["", "/", "/pay/", "/nothing"] {
        let reply = client.control(Method::GET, path, &Value::Null).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.json()["paths"].as_array().unwrap().len() >= 10);
    }
}

#[tokio::test(start_paused = true)]
async fn accounts_show_state_and_payments() {
    let client = fresh();
    let data = client.snap("create", &snap_create()).await.data();
    client.pay(&data["virtualAccountNo"], "150000.00").await;
    client.classic_create(&classic_create()).await.data();
    let shown = client.look("/accounts").await;
    assert_eq!(shown["total"], 2);
    assert_eq!(shown["accounts"][0]["dialect"], "classic");
    let snap = &shown["accounts"][1];
    assert_eq!((&snap["status"], &snap["paid_total"]), (&json!("Inactive-Paid"), &json!("150000.00")));
    assert_eq!(snap["merchant"], "sample");
    assert_eq!(snap["virtualAccountData"]["virtualAccountNo"], data["virtualAccountNo"]);
    assert_eq!(snap["reference"], data["referenceNo"]);
}

#[tokio::test(start_paused = true)]
async fn requests_show_every_check() {
    let client = fresh();
    client.snap_changed("create", &snap_create(), |outgoing| outgoing.signature = Some("00".to_owned())).await;
    let requests = client.look("/requests").await;
    let [login, create] = requests["requests"].as_array().unwrap().as_slice() else { panic!("{requests}") };
    assert_eq!((&login["operation"], &login["answer"]["status"]), (&json!("snap.token"), &json!(200)));
    assert_eq!(create["method"], "POST");
    assert_eq!(create["path"], "/va/api/v2.0/transfer-va/create-va");
    assert_eq!(create["headers"]["x-signature"], "00");
    assert_eq!(serde_json::from_str::<Value>(create["body"].as_str().unwrap()).unwrap(), snap_create());
    let verdicts: Vec<_> = create["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (check["check"].as_str().unwrap(), check["passed"].as_bool().unwrap()))
        .collect();
    assert_eq!(verdicts, [("headers", true), ("timestamp", true), ("token", true), ("signature", false)]);
    assert!(create["answer"]["body"].as_str().unwrap().contains("4012700"));
    for _ in 0..1_001 {
        client.send(Outgoing::new(Method::GET, "/nowhere", &Value::Null)).await;
    }
    assert_eq!(client.look("/requests").await["requests"].as_array().unwrap().len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn the_clock_moves_expiry_and_states_only() {
    let client = fresh();
    let mut body = snap_create();
    body.as_object_mut().unwrap().remove("expiredDate");
    let data = client.snap("create", &body).await.data();
    client.advance("9m").await;
    client.advance("59s").await;
    let status = |data: Value| {
        let client = client.clone();
        async move { client.snap("inquiry", &snap_inquiry(&data)).await.data()["virtualAccountStatus"].clone() }
    };
    assert_eq!(status(data.clone()).await, "Active");
    let reply = client.post("/clock", json!({"advance": "1000ms"})).await;
    assert_eq!(reply.json(), json!({"now": "2026-01-05T10:10:00+07:00", "ahead_seconds": 600}));
    assert_eq!(status(data).await, "Inactive-Expired");
    // What lies ahead is judged by the control clock too.
    body["expiredDate"] = json!("2026-01-05T10:10:00+07:00");
    assert_eq!(client.snap("create", &body).await.json()["responseMessage"], "Invalid Field Format {expiredDate}");
}

#[tokio::test(start_paused = true)]
async fn reset_forgets_everything() {
    let client = fresh();
    let token = client.snap_login().await;
    let id = client.id();
    let data = client.snap_as("create", &snap_create(), &id).await.data();
    client.fault(json!({"operation": "snap.create"}), json!({"status": 500})).await;
    client.advance("48h").await;
    client.control(Method::PUT, "/callbacks", &json!({"snap": "http://127.0.0.1:9/"})).await;
    assert_eq!(client.post("/reset", Value::Null).await.status, 200);
    let nothing = json!({"creates": 0, "distinct_keys": 0, "duplicate_creates": 0, "tokens_issued": 0});
    assert_eq!(client.look("/stats").await, nothing);
    assert_eq!(client.look("/accounts").await, json!({"total": 0, "accounts": []}));
    assert_eq!(client.look("/requests").await, json!({"requests": []}));
    let callbacks = client.look("/callbacks").await;
    assert_eq!(callbacks, json!({"addresses": {"snap": null, "classic": null}, "callbacks": []}));
    let mut outgoing = client.snap_request("create", &token, &snap_create());
    client.sign(&mut outgoing);
    assert_eq!(client.send(outgoing).await.json()["responseCode"], "4012701");
    assert_eq!(client.snap("update", &snap_update(&data)).await.json()["responseCode"], "4042812");
    // The id, the clock and the faults are as at the start; random numbers go on.
    let again = client.snap_as("create", &snap_create(), &id).await.data();
    assert_ne!(again["virtualAccountNo"], data["virtualAccountNo"]);
}

#[tokio::test(start_paused = true)]
async fn credentials_show_the_published_sample_only() {
    let client = fresh();
    let shown = client.look("/credentials").await;
    let merchant = &shown["merchants"][0];
    assert_eq!(merchant["merchant_code"], "AYOTST");
    assert_eq!(merchant["client_id"], "sandbox-client");
    assert_eq!(merchant["client_secret"], "sandbox-secret");
    let pem = merchant["private_key"].as_str().unwrap();
    assert!(ayova::signature::PrivateKey::from_pem(pem).is_ok());
    let own = super::client::switched(|config| {
        config.merchants[0].client_secret = ayova::config::Secret::new("mine".to_owned());
    });
    assert_eq!(own.look("/credentials").await["merchants"][0]["client_secret"], "***");
}
