//! A store that cannot be written for a minute, under load: nothing is sent that could be forgotten,
//! reading goes on, readiness tells, and all is well by itself afterwards.
//!
//! Another program's lock on the file is the one real outage a test can make and end on any machine;
//! the other causes are tried beside the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::{Instant, sleep};

use super::{Answer, CREATE_BODY, CREATE_PATH, Gateway, Sandbox, ask, get, request, run, until};

/// As long as a volume takes to be resized or a backup to let go.
const OUTAGE: Duration = Duration::from_secs(60);

/// Apps that go on sending.
const APPS: u64 = 8;

/// Memory that a minute of refusals may cost; the caches are bounded by far more.
const GROWTH_MAX_KIB: u64 = 32 * 1024;

fn create(order: u64) -> String {
    let body = CREATE_BODY
        .replace("12345678901", &format!("{order:011}"))
        .replace("7f3b1c9e5a2d4f608b1e3c7a9d5f2b41", &format!("{order:032}"));
    request("POST", CREATE_PATH, &format!("X-EXTERNAL-ID: {order:032}\r\n"), &body)
}

fn inquiry(order: u64) -> String {
    let body = format!(r#"{{"virtualAccountNo":"14629{order:011}"}}"#);
    request("POST", "/va/api/v2.0/transfer-va/inquiry-va", "", &body)
}

fn resident_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.running.child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What the apps saw.
#[derive(Default)]
struct Seen {
    next: AtomicU64,
    over: AtomicBool,
    refused: AtomicU64,
    answers: std::sync::Mutex<Vec<(u64, Answer)>>,
}

async fn app(seen: Arc<Seen>, listen: String) {
    while !seen.over.load(Ordering::Relaxed) {
        let order = 1 + seen.next.fetch_add(1, Ordering::Relaxed);
        let answer = ask(&listen, &create(order)).await;
        if answer.header("ayova-reason") == Some("STORE_UNAVAILABLE") {
            seen.refused.fetch_add(1, Ordering::Relaxed);
        }
        seen.answers.lock().unwrap().push((order, answer));
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_without_a_store_costs_nothing() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    assert_eq!(ask(&gateway.listen, &create(0)).await.status, 200);
    let seen = Arc::new(Seen::default());
    let apps: Vec<_> = (0..APPS).map(|_| tokio::spawn(app(Arc::clone(&seen), gateway.listen.clone()))).collect();
    until("creates", || async { seen.answers.lock().unwrap().len() > 50 }).await;

    let before = resident_kib(&gateway);
    let other = Connection::open(gateway.folder.path().join("data/ayova.db")).unwrap();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ends = Instant::now() + OUTAGE;
    until("not ready", || async { get(&gateway.admin, "/readyz").await.status == 503 }).await;
    let ready = get(&gateway.admin, "/readyz").await.json();
    assert_ne!(ready["components"]["store"]["reason"], "ok", "{ready}");
    while Instant::now() < ends {
        assert_eq!(ask(&gateway.listen, &inquiry(0)).await.status, 200, "reading goes on");
        assert_eq!(get(&gateway.admin, "/livez").await.status, 200);
        sleep(Duration::from_millis(200)).await;
    }
    assert!(seen.refused.load(Ordering::Relaxed) > APPS, "the outage was felt");
    let grown = resident_kib(&gateway).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more");

    other.execute_batch("ROLLBACK").unwrap();
    until("ready again", || async { get(&gateway.admin, "/readyz").await.status == 200 }).await;
    seen.over.store(true, Ordering::Relaxed);
    for app in apps {
        app.await.unwrap();
    }
    compare(&sandbox, &gateway, &seen).await;
}

#[tokio::test]
async fn an_outage_is_logged_once_however_many_feel_it() {
    let sandbox = Sandbox::start().await;
    let mut gateway = Gateway::before(&sandbox).await;
    let other = Connection::open(gateway.folder.path().join("data/ayova.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for order in 0..3 {
        ask(&gateway.listen, &create(order)).await.assert_refusal(503, "STORE_UNAVAILABLE");
    }
    // Which is why liveness is another question: a restart would not cure it.
    assert_eq!(run(&["healthcheck", "--admin", &gateway.admin]).await.code, Some(1));
    assert_eq!(run(&["healthcheck", "--live", "--admin", &gateway.admin]).await.code, Some(0));
    other.execute_batch("ROLLBACK").unwrap();
    until("ready again", || async { get(&gateway.admin, "/readyz").await.status == 200 }).await;
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    let lines = gateway.running.err.whole().await;
    let said = |needle: &str| lines.iter().filter(|line| line.contains(needle)).count();
    assert_eq!(said("\"level\":\"ERROR\""), 1, "{lines:#?}");
    assert_eq!(said("the store can be written again"), 1, "{lines:#?}");
    assert_eq!(said("\"reason\":\"STORE_UNAVAILABLE\""), 3, "{lines:#?}");
}

/// Every create that upstream made was answered to its app; every one that was refused can be made.
async fn compare(sandbox: &Sandbox, gateway: &Gateway, seen: &Seen) {
    let answers = std::mem::take(&mut *seen.answers.lock().unwrap());
    let made: BTreeSet<u64> =
        answers.iter().filter(|(_, answer)| answer.status == 200).map(|(order, _)| *order).collect();
    let (answered, sent) = (made.len() as u64 + 1, sandbox.get("/_sandbox/stats").await["creates"].as_u64().unwrap());
    assert_eq!(answered, sent, "a create was sent that its app knows nothing of");
    for (order, answer) in &answers {
        if answer.status != 200 {
            answer.assert_refusal(503, "STORE_UNAVAILABLE");
        }
        let again = ask(&gateway.listen, &create(*order)).await;
        assert_eq!(again.status, 200, "{again:?}");
        if made.contains(order) {
            assert_eq!((again.header("ayova-source"), &again.body), (Some("replay"), &answer.body));
        }
    }
    let stats = sandbox.get("/_sandbox/stats").await;
    assert_eq!(
        (stats["creates"].as_u64(), stats["duplicate_creates"].as_u64()),
        (Some(answers.len() as u64 + 1), Some(0))
    );
}
