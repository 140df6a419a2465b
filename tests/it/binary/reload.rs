//! Configurations that change while the gateway runs, in its own process.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::{CREATE_PATH, Gateway, Running, Sandbox, ask, connect, create, get, is_closed, request, until};

/// Keys as they are configured.
pub(super) fn list(keys: &[&str]) -> String {
    let hash = |key: &&str| format!("\"sha256:{}\"", hex::encode(digest(&SHA256, key.as_bytes())));
    format!("[{}]", keys.iter().map(hash).collect::<Vec<_>>().join(", "))
}

impl Gateway {
    /// Changes its configuration file.
    pub(super) fn edit(&self, edit: impl FnOnce(String) -> String) {
        let file = self.folder.path().join("ayova.yaml");
        let text = edit(fs::read_to_string(&file).unwrap());
        // As editors and Kubernetes do: a new file in the place of the old.
        let next = self.folder.path().join("next.yaml");
        fs::write(&next, text).unwrap();
        fs::rename(next, file).unwrap();
    }

    async fn reloads(&self, result: &str) -> u64 {
        let series = format!(r#"ayova_config_reloads_total{{result="{result}"}} "#);
        let text = get(&self.admin, "/metrics").await.body;
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
    }

    pub(super) async fn until_reloads(&self, result: &str, count: u64) {
        until("a reload", || async { self.reloads(result).await >= count }).await;
    }
}

async fn create_with(gateway: &Gateway, key: &str, id: &str) -> u16 {
    let head = format!("X-API-Key: {key}\r\nIdempotency-Key: {id}\r\n");
    ask(&gateway.listen, &request("POST", CREATE_PATH, &head, super::CREATE_BODY)).await.status
}

#[tokio::test]
async fn a_hang_up_reads_the_configuration_again() {
    let sandbox = Sandbox::start().await;
    let mut gateway = Gateway::before(&sandbox).await;
    gateway.running.signal("HUP").await;
    gateway.running.err.line_with("the configuration is unchanged").await;
    assert_eq!(gateway.reloads("unchanged").await, 1);
    gateway.edit(|text| text + "retry: { attempts: 2 }\n");
    gateway.running.signal("HUP").await;
    gateway.running.err.line_with("the configuration is reloaded").await;
    assert_eq!(get(&gateway.admin, "/config").await.json()["retry"]["attempts"], 2);
    assert_eq!(gateway.create("order-1").await.status, 200);
    gateway.running.err.line_with("\"snap.create\"").await;
    gateway.edit(|text| text + "log: { level: warn }\n");
    gateway.until_reloads("applied", 2).await;
    let lines = gateway.running.err.all().len();
    assert_eq!(gateway.create("order-1").await.status, 200);
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    let after = gateway.running.err.whole().await.split_off(lines);
    assert!(after.iter().all(|line| line.contains("reloaded")), "nothing else is severe enough: {after:?}");
}

#[tokio::test]
async fn a_changed_file_is_enough_and_old_keys_end() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let (file, folder) = Gateway::configured(&upstream, ", auth: api_key", "");
    let text = fs::read_to_string(&file).unwrap();
    let merchant = "    client_secret: sandbox-secret\n";
    fs::write(&file, text.replace(merchant, &format!("{merchant}    api_keys: {}\n", list(&["one"])))).unwrap();
    let gateway = Gateway::of(Running::start(&["run", "--config", &file]), folder).await;
    assert_eq!(create_with(&gateway, "one", "order-1").await, 200);
    assert_eq!(create_with(&gateway, "two", "order-1").await, 401);
    gateway.edit(|text| text.replace(&list(&["one"]), &list(&["one", "two"])));
    gateway.until_reloads("applied", 1).await;
    for key in ["one", "two"] {
        assert_eq!(create_with(&gateway, key, "order-1").await, 200, "the stored answer, to either key");
    }
    gateway.edit(|text| text.replace(&list(&["one", "two"]), &list(&["two"])));
    gateway.until_reloads("applied", 2).await;
    assert_eq!(create_with(&gateway, "one", "order-1").await, 401);
    assert_eq!(create_with(&gateway, "two", "order-1").await, 200);
    assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], 1);
    assert_eq!(sandbox.get("/_sandbox/stats").await["tokens_issued"], 1, "nobody logged in again");
}

#[tokio::test]
async fn a_fault_changes_nothing_and_is_reported() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    gateway.edit(|text| text + "retry: { attempts: none }\n");
    let line = gateway.running.err.line_with("stays in force").await;
    assert!(line.contains("retry.attempts") && line.contains("ayova.yaml:"), "{line}");
    assert_eq!(gateway.create("order-1").await.status, 200);
    assert_eq!((gateway.reloads("rejected").await, gateway.reloads("applied").await), (1, 0));
    gateway
        .edit(|text| text.replace("retry: { attempts: none }\n", "store: { kind: memory }\nlog: { format: pretty }\n"));
    let fixed = gateway.running.err.line_with("only a restart can change").await;
    assert!(fixed.contains("only a restart can change store, log.format"), "{fixed}");
    gateway.edit(|text| text.replace("store: { kind: memory }\nlog: { format: pretty }\n", ""));
    gateway.until_reloads("unchanged", 1).await;
    // What is kept is kept under a merchant's name.
    gateway.edit(|text| text.replace("name: sample", "name: other"));
    gateway.running.err.line_with("only a restart can change merchants[].name").await;
    gateway.edit(|text| text.replace("name: other", "name: sample"));
    // It is what is in force.
    gateway.until_reloads("unchanged", 2).await;
    assert_eq!(gateway.create("order-1").await.header("idempotency-replayed"), Some("true"));
}

/// The secret is part of the address Ayoconnect has, which learns of another one in its own time.
#[tokio::test]
async fn the_callbacks_secret_is_changed_without_losing_one() {
    let sandbox = Sandbox::start().await;
    let [old, new] = ["o", "n"].map(|letter| letter.repeat(32));
    let deliver = "deliver: { url: http://127.0.0.1:1/, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }";
    let section = |secrets: &str| {
        format!("callbacks: {{ listen: {{ address: 127.0.0.1:0 }}, confirm: never, {deliver}, {secrets} }}")
    };
    let stages = [
        format!("secret: {old}"),
        format!("secret: {new}, previous_secrets: [{old}]"),
        format!("secret: {new}, previous_secrets: []"),
    ];
    let upstream = format!("http://{}", sandbox.address);
    let mut gateway = Gateway::start_with(&upstream, "", &section(&stages[0])).await;
    let ready: Value = serde_json::from_str(&gateway.running.err.line_with("\"ready\"").await).unwrap();
    let callbacks = ready["callbacks"].as_str().unwrap();
    let paid = async |secret: &str| {
        let body = r#"{"virtualAccountData":{"virtualAccountNo":"1","latestPaidAmount":"1.00","latestPaidTime":"T"}}"#;
        ask(callbacks, &request("POST", &format!("/callbacks/snap/AYOTST/{secret}"), "", body)).await.status
    };
    assert_eq!((paid(&old).await, paid(&new).await), (200, 404));
    gateway.edit(|text| text.replace(&section(&stages[0]), &section(&stages[1])));
    gateway.until_reloads("applied", 1).await;
    assert_eq!((paid(&old).await, paid(&new).await), (200, 200));
    assert_eq!(
        get(&gateway.admin, "/config").await.json()["callbacks"]["previous_secrets"],
        serde_json::json!(["***"])
    );
    gateway.edit(|text| text.replace(&section(&stages[1]), &section(&stages[2])));
    gateway.until_reloads("applied", 2).await;
    assert_eq!((paid(&old).await, paid(&new).await), (404, 200));
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    let lines = gateway.running.err.whole().await;
    assert!(!lines.iter().any(|line| line.contains(&old) || line.contains(&new)), "{lines:#?}");
}

/// Each reload changes something; requests go on all the while, new ones and repetitions.
#[tokio::test]
async fn no_request_fails_for_reloads_under_load() {
    let reloads: u64 = std::env::var("AYOVA_RELOADS").ok().map_or(20, |count| count.parse().unwrap());
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let gateway = Gateway::start_with(&upstream, "", "breaker: { failures: 10 }").await;
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let apps: Vec<_> = (0..4)
        .map(|app| {
            let (listen, over, count) = (gateway.listen.clone(), Arc::clone(&over), Arc::clone(&count));
            tokio::spawn(async move {
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    sent += 1;
                    // Every other one is a repetition of what another app sends at the same time.
                    let key = if sent % 2 == 0 { format!("shared-{}", sent / 2) } else { format!("{app}-{sent}") };
                    let number = format!("{:011}", 10_000_000_000_u64 + app * 1_000_000 + sent);
                    let number = if sent % 2 == 0 { format!("{:011}", 20_000_000_000_u64 + sent) } else { number };
                    let transaction = format!("{:032x}", number.parse::<u128>().unwrap());
                    let ask_for = create(&key)
                        .replace("12345678901", &number)
                        .replace("7f3b1c9e5a2d4f608b1e3c7a9d5f2b41", &transaction);
                    let answer = ask(&listen, &ask_for).await;
                    assert_eq!(answer.status, 200, "{key}: {answer:?}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for reload in 1..=reloads {
        gateway.edit(|text| {
            let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("breaker:")).collect();
            format!("{}\nbreaker: {{ failures: {} }}\n", kept.join("\n"), 10 + reload % 7)
        });
        gateway.running.signal("HUP").await;
        gateway.until_reloads("applied", reload).await;
    }
    over.store(true, Ordering::Relaxed);
    for app in apps {
        app.await.unwrap();
    }
    assert!(count.load(Ordering::Relaxed) > reloads);
    let stats = sandbox.get("/_sandbox/stats").await;
    assert_eq!(stats["creates"], stats["distinct_keys"], "{stats}");
    assert_eq!(stats["tokens_issued"], 1, "a changed breaker costs no login");
    assert_eq!(gateway.reloads("rejected").await, 0);
}

/// Strangers are closed at accept, before TLS or a byte; who they are follows the configuration.
#[tokio::test]
async fn who_may_connect_for_callbacks_follows_the_configuration() {
    let section = |allow: &str| {
        format!(
            "callbacks: {{ listen: {{ address: 127.0.0.1:0 }}, secret: {}, allow: [{allow}], confirm: never, \
             deliver: {{ url: http://127.0.0.1:9/, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }} }}",
            "0123456789abcdef".repeat(2)
        )
    };
    let gateway = Gateway::start_with("http://127.0.0.1:9", "", &section("203.0.113.0/24")).await;
    let ready: serde_json::Value = serde_json::from_str(&gateway.running.err.line_with("\"ready\"").await).unwrap();
    let callbacks = ready["callbacks"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        assert!(is_closed(&mut connect(&callbacks).await).await);
    }
    let counted = r#"ayova_connections_refused_total{listener="callbacks",cause="not_allowed"} 3"#;
    let metrics = get(&gateway.admin, "/metrics").await.body;
    assert!(metrics.contains(counted), "{metrics}");
    gateway.edit(|text| text.replace("203.0.113.0/24", "127.0.0.0/8"));
    gateway.running.signal("HUP").await;
    gateway.until_reloads("applied", 1).await;
    assert_eq!(get(&callbacks, "/").await.status, 404);
}
