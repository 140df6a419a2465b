//! What is written and shown: one JSON object a line, and nothing that is somebody's secret.

use std::cell::RefCell;
use std::collections::HashSet;

use serde_json::Value;
use tempfile::TempDir;

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Gateway, Lines, Running, Sandbox, ask, ayova, get, request, until};

const SNAP: &str = r#"{"customerNo":"CUST000123","virtualAccountNo":"98765432109","virtualAccountName":"Canary Bird","virtualAccountPhone":"628777666555","trxId":"7f3b1c9e5a2d4f608b1e3c7a9d5f2b41","totalAmount":{"value":"150000.00","currency":"IDR"},"additionalInfo":{"bankCode":"014","isSingleUse":"N"}}"#;
const API_KEY: &str = "canary-api-key-0123456789";
/// Its SHA-256.
const API_KEY_HASH: &str = "14c5019e72f35dc9b98430753f623f8efb2d1e3cb4dd6be3319fadd9b800fcca";
const CALLBACK_SECRET: &str = "canary-callback-secret-0123456789";
const WEBHOOK_SECRET: &str = "whsec_Q2FuYXJ5V2ViaG9va1NlY3JldE9mMzJCeXRlc19fX18=";
const CLASSIC: &str = r#"{"virtualAccountName":"Canary Bird","virtualAccountPhone":"628777666555","virtualAccountNumber":"98765432","transactionId":"vXNsQzlmLrJiRmG0e0AhNgqBexupEil9","bankCode":"002","expiresIn":1440,"totalAmount":{"value":"150000.00","currency":"IDR"},"billDetails":[{"billName":"Invoice 1","billAmount":{"value":"150000.00","currency":"IDR"}}],"virtualAccountConfig":{"virtualAccountType":"static","amountType":"closed"}}"#;

/// Every kind of line there is: answers, refusals, faults and an upstream that breaks.
async fn use_everything(sandbox: &Sandbox, gateway: &Gateway) -> Vec<String> {
    let own = RefCell::new(Vec::new());
    let send_with = async |headers: &str, method: &str, path: &str, body: &str| {
        let headers = format!("Idempotency-Key: canary-order\r\n{headers}\r\n");
        let answer = ask(&gateway.listen, &request(method, path, &headers, body)).await;
        // Upstream's answers are its own.
        if answer.header("ayova-source") == Some("gateway") {
            own.borrow_mut().push(format!("{answer:?}"));
        }
        answer
    };
    let key = format!("Authorization: Basic canary-app-token\r\nX-API-Key: {API_KEY}");
    let send = async |method: &str, path: &str, body: &str| send_with(&key, method, path, body).await;
    let base = "/va/api/v2.0/transfer-va";
    assert_eq!(send("POST", &format!("{base}/create-va"), SNAP).await.status, 200);
    let number = r#"{"virtualAccountNo":"1462998765432109"}"#;
    assert_eq!(send("POST", &format!("{base}/inquiry-va"), number).await.status, 200);
    assert_eq!(send("PUT", &format!("{base}/update-va"), number).await.status, 400);
    assert_eq!(send("POST", "/api/v1/virtualAccount", CLASSIC).await.status, 201);
    let by_number = "/api/v1/virtualAccount?virtualAccountNumber=1392500098765432";
    assert_eq!(send("GET", by_number, "").await.status, 200);
    assert_eq!(send("POST", "/api/v1/virtualAccount", r#"{"virtualAccountName":"Canary Bird","#).await.status, 400);
    assert_eq!(send("GET", "/nowhere/1462998765432109?name=Canary%20Bird", "").await.status, 404);
    for fault in [r#"{"reset_before":true}"#, r#"{"status":500,"body":"Canary Bird"}"#, r#"{"malformed_json":true}"#] {
        sandbox.fault("snap.inquiry", fault).await;
        send("POST", &format!("{base}/inquiry-va"), number).await;
    }
    for proof in [
        "Accept: */*".to_owned(),
        "Authorization: Bearer canary-app-token".to_owned(),
        format!("Authorization: Bearer canary-app-token\r\nX-API-Key: {API_KEY}"),
        format!("X-API-Key: {API_KEY}\r\nX-API-Key: {API_KEY}"),
        format!("X-API-Key: {API_KEY}\r\nX-PARTNER-ID: CANARY"),
    ] {
        let answer = send_with(&proof, "POST", &format!("{base}/create-va"), SNAP).await;
        answer.assert_refusal(401, "UNAUTHENTICATED");
    }
    own.into_inner()
}

/// A payment that is announced, callbacks nobody understands, and some that are none; what is shown of them.
async fn use_callbacks(sandbox: &Sandbox, gateway: &Gateway, callbacks: &str) -> Vec<String> {
    let address = |dialect: &str| format!("http://{callbacks}/callbacks/{dialect}/AYOTST/{CALLBACK_SECRET}");
    let control = async |method: &str, path: &str, body: String| {
        let answer = ask(&sandbox.address, &request(method, path, "", &body)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let addresses = format!(r#"{{"snap":"{}","classic":"{}"}}"#, address("snap"), address("classic"));
    control("PUT", "/_sandbox/callbacks", addresses).await;
    let paid = r#"{"virtualAccountNo":"1462998765432109","amount":"150000.00"}"#;
    control("POST", "/_sandbox/pay", paid.to_owned()).await;
    let snap = format!("/callbacks/snap/AYOTST/{CALLBACK_SECRET}");
    for (path, body, status) in [
        (snap.clone(), r#"{"virtualAccountName":"Canary Bird""#, 200),
        (snap.clone(), r#"{"virtualAccountName":"Canary Bird","virtualAccountPhone":"628777666555"}"#, 200),
        (format!("{snap}x"), "{}", 404),
        ("/callbacks/snap/AYOTST/canary-callback-secret".to_owned(), "{}", 404),
    ] {
        let answer = ask(callbacks, &request("POST", &path, "Authorization: Bearer canary-app-token\r\n", body)).await;
        assert_eq!(answer.status, status, "{path}");
    }
    // Nobody listens where it should go, which is said of it.
    let pending = "/callbacks?state=pending";
    let tried = async || {
        let listed = get(&gateway.admin, pending).await.json();
        listed["callbacks"][0]["attempts"].as_u64().is_some_and(|attempts| attempts > 0)
    };
    until("an attempt to deliver", tried).await;
    let listed = get(&gateway.admin, "/callbacks").await;
    assert_eq!(listed.json()["callbacks"].as_array().unwrap().len(), 3, "{}", listed.body);
    let id = get(&gateway.admin, pending).await.json()["callbacks"][0]["id"].as_str().unwrap().to_owned();
    let one = get(&gateway.admin, &format!("/callbacks/{id}")).await;
    let replayed = ask(&gateway.admin, &request("POST", &format!("/callbacks/{id}/replay"), "", "")).await;
    assert_eq!((one.status, replayed.status), (200, 200));
    vec![listed.body, one.body, replayed.body]
}

/// What must be seen nowhere: names, phones, numbers, credentials, tokens and signatures.
async fn canaries(sandbox: &Sandbox) -> Vec<String> {
    let fixed = [
        "Canary",
        "628777666555",
        "98765432109",
        "1462998765432109",
        "1392500098765432",
        "canary-client",
        "canary-secret",
        "canary-app-token",
        API_KEY,
        API_KEY_HASH,
        CALLBACK_SECRET,
        "canary-callback-secret",
        WEBHOOK_SECRET,
        "PRIVATE KEY",
    ];
    let mut canaries: Vec<String> = fixed.map(str::to_owned).to_vec();
    // The simulator has seen the tokens and signatures that were really used.
    let seen = sandbox.get("/_sandbox/requests").await;
    for request in seen["requests"].as_array().unwrap() {
        for (name, value) in request["headers"].as_object().unwrap() {
            let value = value.as_str().unwrap_or_default();
            if ["authorization", "x-signature"].contains(&name.to_ascii_lowercase().as_str()) {
                canaries.push(value.trim_start_matches("Bearer ").to_owned());
            }
        }
    }
    assert!(canaries.len() > fixed.len() + 2, "no tokens and signatures were seen: {seen}");
    canaries
}

#[tokio::test]
async fn nothing_secret_is_logged_or_shown_at_any_level() {
    let folder = TempDir::new().unwrap();
    let switches = folder.path().join("sandbox.yaml");
    let merchants = concat!(
        "merchants:\n  - name: sample\n    merchant_code: AYOTST\n    client_id: canary-client\n",
        "    client_secret: canary-secret\n    private_key: ${file:",
        env!("CARGO_MANIFEST_DIR"),
        "/config/sandbox-key.pem}\n"
    );
    std::fs::write(&switches, merchants).unwrap();
    let sandbox = Sandbox::start_with(&["--config", switches.to_str().unwrap()]).await;
    let file = folder.path().join("ayova.yaml");
    let text = format!(
        "listen: {{ address: 127.0.0.1:0, auth: api_key }}\nadmin: {{ address: 127.0.0.1:0 }}\n\
         log: {{ level: trace }}\nupstream: {{ base_url: \"http://{}\" }}\n\
         {merchants}    api_keys: [\"sha256:{API_KEY_HASH}\"]\n\
         callbacks:\n  listen: {{ address: 127.0.0.1:0 }}\n  secret: {CALLBACK_SECRET}\n  confirm: never\n  \
         deliver: {{ url: \"http://127.0.0.1:9/payments\", secret: {WEBHOOK_SECRET} }}\n",
        sandbox.address
    );
    std::fs::write(&file, text).unwrap();
    let mut gateway = Gateway::of(Running::start(&["run", "--config", file.to_str().unwrap()]), folder).await;
    let ready: Value = serde_json::from_str(&gateway.running.err.line_with("\"ready\"").await).unwrap();
    let mut shown = use_everything(&sandbox, &gateway).await;
    assert!(shown.len() >= 9, "{shown:#?}");
    shown.extend(use_callbacks(&sandbox, &gateway, ready["callbacks"].as_str().unwrap()).await);
    let pages = [
        "/metrics",
        "/config",
        "/status",
        "/routes",
        "/readyz",
        "/outcomes",
        "/references/1462998765432109",
        "/references/1392500098765432",
        "/idempotency/vXNsQzlmLrJiRmG0e0AhNgqBexupEil9",
    ];
    for page in pages {
        let answer = get(&gateway.admin, page).await;
        assert_eq!(answer.status, 200, "{page}");
        shown.push(answer.body);
    }
    let canaries = canaries(&sandbox).await;
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    let lines = gateway.running.err.whole().await;
    for line in &lines {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event.is_object() && event["level"].is_string() && event["timestamp"].is_string(), "{line}");
    }
    assert!(lines.iter().filter(|line| line.contains("\"message\":\"request\"")).count() >= 10, "{lines:#?}");
    assert_eq!(gateway.running.out.whole().await, Vec::<String>::new());
    for text in lines.iter().chain(&shown) {
        for canary in &canaries {
            assert!(!text.contains(canary.as_str()), "{canary:?} in: {text}");
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_whoever_reads_the_log() {
    let (file, folder) = Gateway::configured("http://127.0.0.1:9", "", "");
    let mut child = ayova(&["run", "--config", &file]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Read as far as the addresses, and no further.
    let mut unread = BufReader::with_capacity(1, child.stderr.take().unwrap());
    let mut ready = String::new();
    while !ready.contains("\"ready\"") {
        ready.clear();
        assert_ne!(unread.read_line(&mut ready).await.unwrap(), 0);
    }
    let out = Lines::of(child.stdout.take().unwrap());
    let running = Running { child, out, err: Lines::of(tokio::io::empty()) };
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let address = |name: &str| ready[name].as_str().unwrap().to_owned();
    let mut gateway = Gateway { listen: address("listen"), admin: address("admin"), running, folder };
    // Several times what a pipe holds.
    for _ in 0..1500 {
        assert_eq!(get(&gateway.listen, "/nowhere").await.status, 404);
    }
    assert_eq!(get(&gateway.admin, "/livez").await.status, 200);
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    drop(unread);
}

#[tokio::test]
async fn what_goes_wrong_upstream_is_said_at_the_default_level() {
    let sandbox = Sandbox::start().await;
    let more = "breaker: { failures: 4, open_for: 1s }\n";
    let mut gateway = Gateway::start_with(&format!("http://{}", sandbox.address), "", more).await;
    let base = "/va/api/v2.0/transfer-va";
    assert_eq!(gateway.create("order-1").await.status, 200);
    let body = r#"{"virtualAccountNo":"1462912345678901"}"#;
    let inquire = async || ask(&gateway.listen, &request("POST", &format!("{base}/inquiry-va"), "", body)).await.status;
    for fault in [r#"{"reset_before":true}"#, r#"{"status":500,"body":"no"}"#] {
        sandbox.fault("snap.inquiry", fault).await;
        assert_ne!(inquire().await, 200, "{fault}");
    }
    assert_ne!(inquire().await, 200, "the breaker is open");
    sandbox.fault("snap.create", r#"{"status":500}"#).await;
    until("the breaker closes", || async { inquire().await == 200 }).await;
    drop(sandbox);
    assert_ne!(inquire().await, 200, "nobody is there");
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    let lines = gateway.running.err.whole().await;
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let causes: HashSet<_> =
        events.iter().filter_map(|event| Some((event["cause"].as_str()?, event["reason"].as_str()?))).collect();
    for cause in ["broken", "breaker_open"] {
        assert!(causes.iter().any(|(found, _)| *found == cause), "{cause} is not in {causes:?}");
    }
    for change in ["a breaker opened", "a breaker closed"] {
        let said = events.iter().filter(|event| event["message"] == change && event["class"] == "read");
        let levels: Vec<_> = said.map(|event| event["level"].as_str().unwrap()).collect();
        assert_eq!(levels.first(), Some(&"WARN"), "{change}: {events:#?}");
    }
    let fine = events.iter().find(|event| event["status"] == 200).unwrap();
    assert!(fine.get("cause").is_none(), "{fine}");
}
