//! No value of a request, and no secret, shows where it does not belong: in the gateway's own
//! answers, its logs at any level, its metrics and its admin pages (contract sections 4 and 9).
//!
//! Every value an app could send is a canary here; what is searched for afterwards is the canary. The
//! answers of upstream are its own and are not searched.

use std::cell::RefCell;
use std::io;
use std::sync::Once;
use std::time::Duration;

use ayova::callback::source::Sources;
use ayova::callback::webhook::WebhookKey;
use ayova::caller::KeyDigest;
use ayova::config::{Auth, Callbacks, Deliver, Secret};
use http::Method;
use serde_json::{Value, json};

use crate::asks::{
    Ask, CLASSIC, CREATE, SNAP_LOGIN, classic_create, classic_get, classic_update, id, padded, snap_create,
    snap_inquiry, snap_update,
};
use crate::harness::{Act, Setup, World};

const OWN: &str = "98765432109";
const CLASSIC_OWN: &str = "87654399";
const KEY: &str = "canary-api-key-0123456789";
/// The first digits of its SHA-256.
const KEY_HASH: &str = "14c5019e72f3";

thread_local! {
    /// What was logged on this thread, where somebody wants to know.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes to the thread's lines.
struct ToThread;

impl io::Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.as_mut().map(|lines| lines.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Log lines of this thread at every level, from now on.
///
/// One subscriber for the whole binary: with one of its own for a thread, whether an event is seen
/// depends on which thread met it first (tracing caches that).
pub(crate) struct Lines;

impl Lines {
    pub(crate) fn capture() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(|| ToThread)
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            // What a panic says goes where the log goes.
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                LINES.with_borrow_mut(|lines| lines.as_mut().map(|lines| lines.extend(panic.to_string().bytes())));
                usual(panic);
            }));
        });
        LINES.set(Some(Vec::new()));
        Self
    }

    pub(crate) fn text(&self) -> String {
        LINES.with_borrow(|lines| String::from_utf8(lines.clone().unwrap()).unwrap())
    }
}

/// What must not be seen, in lower case.
fn canaries() -> Vec<&'static str> {
    vec!["canary", OWN, CLASSIC_OWN, "6281777666555", "777666", "14629987", "kanari", KEY_HASH, "whsec"]
}

#[track_caller]
fn assert_silent(what: &str, text: &str) {
    let text = text.to_lowercase();
    for canary in canaries() {
        assert!(!text.contains(canary), "{what} shows {canary}: {text}");
    }
}

fn named(ask: Ask) -> Ask {
    ask.set("/virtualAccountName", "Kanari Canary").header("Authorization", "Bearer canary-token")
}

/// Requests that succeed or are judged by upstream.
fn good() -> Vec<Ask> {
    let snap = |ask: Ask| named(ask).set("/virtualAccountPhone", "6281777666555").header("X-API-Key", "canary-key");
    let info = "canary information";
    vec![
        snap(snap_create(1, OWN)).set("/additionalInfo/additionalInfo1", info).set("/customerNo", "CANARY0001"),
        snap(snap_create(1, OWN)).set("/additionalInfo/additionalInfo1", info).set("/customerNo", "CANARY0001"),
        snap(snap_create(1, OWN)),
        snap(snap_update(2, OWN)).header("X-SIGNATURE", "canary").header("Cookie", "session=canary"),
        snap_inquiry(OWN).header("Idempotency-Key", "canary"),
        snap_inquiry("98765432100").header("Idempotency-Key", "canary"),
        named(classic_create(3, CLASSIC_OWN)).set("/virtualAccountPhone", "6281777666555"),
        classic_get(CLASSIC_OWN),
        named(classic_update(CLASSIC_OWN)).header("Idempotency-Key", "canary"),
        Ask::new(Method::POST, SNAP_LOGIN, json!({"additionalInfo": {"merchantId": "canary"}})),
    ]
}

/// Requests that the gateway refuses, a canary in each place where a value can stand.
fn bad() -> Vec<Ask> {
    let long = format!("canary{}", "x".repeat(100));
    let create = || snap_create(9, OWN);
    let mut bad = vec![
        Ask { path: "/canary".to_owned(), ..create() },
        Ask { path: format!("{CREATE}/canary?canary=canary"), ..create() },
        Ask { method: "CANARY".parse().unwrap(), ..create() },
        create().header("X-EXTERNAL-ID", "canary"),
        create().header("X-PARTNER-ID", "CANARYPARTNER"),
        create().header("X-PARTNER-ID", "CANARY"),
        create().header("CHANNEL-ID", "canary"),
        create().header("Content-Type", "text/canary"),
        create().header("Idempotency-Key", &"canary".repeat(50)),
        create().also("Idempotency-Key", "canary\u{e9}".as_bytes()),
        create().body("{\"canary\":canary}"),
        create().body("canary"),
        create().body("{\"canary\":1,\"canary\":2}"),
        create().body("{\"a\":\"canary\\x\"}"),
        create().body(&b"{\"canary\":\"\xffcanary\"}"[..]),
        create().body("{\"canary\":1e999}"),
        create().set("/additionalInfo", json!({"bankCode": "canary", "isSingleUse": "canary"})),
        create().set("/totalAmount", json!({"value": "canary", "currency": "canary"})),
        create().set("/totalAmount", "canary"),
        snap_update(10, OWN).set("/partnerServiceId", "canary").set("/originalReferenceNo", " canary"),
        snap_update(10, &padded(OWN)).set("/customerNo", "CANARY0009"),
        snap_update(10, "98765432100").set("/customerNo", "CANARY0009"),
        classic_create(9, "canary").set("/bankCode", "canary").set("/billDetails", json!(["canary"])),
        classic_create(9, "")
            .set("/virtualAccountConfig", json!({"virtualAccountType": "canary", "amountType": "canary"})),
        classic_create(9, "").header("A-Correlation-ID", "canary"),
        Ask::new(
            Method::GET,
            &format!("{CLASSIC}?virtualAccountNumber=canary&bankCode=canary&virtualAccountId=canary"),
            Value::Null,
        ),
        classic_update(CLASSIC_OWN).set("/customerId", "CANARY-00000000"),
    ];
    for member in
        ["customerNo", "virtualAccountNo", "virtualAccountName", "virtualAccountPhone", "trxId", "expiredDate"]
    {
        bad.push(create().set(&format!("/{member}"), long.as_str()));
    }
    bad
}

fn world() -> World {
    let mut setup = Setup::new(1);
    let merchant = &mut setup.config.merchants[0];
    merchant.client_secret = Secret::new("canary-secret".to_owned());
    merchant.client_id = Secret::new("canary-client".to_owned());
    setup.sandbox.merchants[0].client_secret = Secret::new("canary-secret".to_owned());
    setup.sandbox.merchants[0].client_id = "canary-client".to_owned();
    setup.build()
}

/// Everything that is watched besides answers.
async fn assert_watchers_silent(world: &World, lines: &Lines) {
    let log = lines.text();
    assert!(log.contains("request_id="), "lines were captured");
    assert_silent("the log", &log);
    assert_silent("/metrics", &world.scrape().await);
    for page in ["/status", "/config", "/routes", "/readyz", "/outcomes", "/callbacks"] {
        assert_silent(page, &world.admin(page).await.text());
    }
    for arrived in world.wire.all() {
        for name in ["authorization", "x-signature"] {
            let secret = arrived.header(name).trim_start_matches("Bearer ");
            assert!(secret.is_empty() || !log.contains(secret), "the log shows {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn good_requests_leave_no_trace_of_their_values() {
    let lines = Lines::capture();
    let world = world();
    for ask in good() {
        let got = world.send(ask).await;
        if got.source() == "gateway" {
            assert_silent("an answer", &got.text());
        } else {
            assert!(got.status < 300, "{}", got.text());
        }
    }
    assert_watchers_silent(&world, &lines).await;
    let shown = world.admin(&format!("/references/{OWN}")).await;
    assert_eq!(shown.json()["accounts"][0]["number"], "****2109");
    assert_silent("/references", &shown.text());
    for key in [id(1), id(3)] {
        assert_silent("/idempotency", &world.admin(&format!("/idempotency/{key}")).await.text());
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_repeat_no_value() {
    let lines = Lines::capture();
    let world = world();
    for ask in good() {
        world.send(ask).await;
    }
    world.wire.clear();
    for ask in bad() {
        let shown = format!("{ask:?}");
        let got = world.send(ask).await;
        assert_eq!(got.source(), "gateway", "{shown}");
        assert!(got.status >= 400 && !got.reason().is_empty());
        assert_silent("an answer", &got.text());
        for (name, value) in &got.headers {
            assert_silent(name.as_str(), value.to_str().unwrap());
        }
    }
    let paths: Vec<_> = world.wire.calls().into_iter().map(|call| call.path).collect();
    assert!(paths.is_empty(), "{paths:?}");
    assert_watchers_silent(&world, &lines).await;
}

#[tokio::test(start_paused = true)]
async fn trouble_repeats_no_value() {
    let lines = Lines::capture();
    let world = world();
    world.send(named(snap_create(1, OWN))).await;
    let canary = "{\"responseCode\":\"5002700\",\"canary\":\"6281777666555\"}";
    for (tag, act) in (20..).zip([
        Act::Answer(500, canary),
        Act::Answer(200, "canary"),
        Act::Broken,
        Act::NotSent,
        Act::Hang,
        Act::Panic,
    ]) {
        world.wire.acts(vec![act; 3]);
        let got = world.send(named(snap_create(tag, "")).set("/customerNo", "CANARY0001")).await;
        assert_eq!(got.source(), "gateway");
        assert_silent("an answer", &got.text());
    }
    let dark = self::world();
    dark.wire.login_acts(vec![Act::Answer(200, "{\"accessToken\":\"canary canary\",\"expiresIn\":\"900\"}"); 3]);
    assert_silent("an answer", &dark.send(named(snap_create(1, OWN))).await.text());
    dark.wire.login_acts(vec![Act::Answer(401, "{\"Error\":\"canary\"}"); 3]);
    assert_silent("an answer", &dark.send(named(classic_create(1, ""))).await.text());
    assert_watchers_silent(&world, &lines).await;
}

#[tokio::test(start_paused = true)]
async fn who_proves_who_they_are_and_how_shows_nowhere() {
    let lines = Lines::capture();
    let mut setup = Setup::new(2);
    setup.config.listen.auth = Auth::ApiKey;
    setup.config.merchants[0].api_keys = vec![KeyDigest::of(KEY)];
    setup.config.merchants[1].api_keys = vec![KeyDigest::of("canary-another")];
    let world = setup.build();
    world.send(named(snap_create(1, OWN)).header("X-API-Key", KEY).without("Authorization")).await.expect(200);
    let ask = || snap_create(2, OWN);
    for (ask, cause) in [
        (ask().header("Authorization", "Basic canary"), "no_key"),
        (ask().header("Authorization", "Bearer canary-key"), "unknown_key"),
        (ask().header("X-API-Key", "canary-key"), "unknown_key"),
        (ask().also("X-API-Key", b"canary\xe9"), "unusable_key"),
        (named(ask()).header("X-API-Key", KEY), "several_keys"),
        (ask().header("X-API-Key", KEY).merchant("CANARY"), "disagreement"),
        (ask().header("X-API-Key", KEY).merchant("AYOTS2"), "disagreement"),
    ] {
        let before = lines.text().len();
        let got = world.send(ask).await;
        got.expect_refusal(401, "UNAUTHENTICATED");
        assert_silent("an answer", &format!("{got:?}"));
        let line = lines.text().split_off(before);
        assert!(line.contains("reason=\"UNAUTHENTICATED\"") && line.contains(&format!("cause=\"{cause}\"")), "{line}");
        assert!(!line.contains("merchant="), "{line}");
    }
    assert_watchers_silent(&world, &lines).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_panic_says_is_watched_too() {
    let lines = Lines::capture();
    let world = world();
    world.wire.acts([Act::Panic]);
    let got = world.send(named(snap_create(1, OWN))).await;
    assert_eq!(got.source(), "gateway");
    assert!(lines.text().contains("the transport has a defect"), "{}", lines.text());
    assert_watchers_silent(&world, &lines).await;
}

#[test]
fn what_is_configured_does_not_print() {
    let mut setup = Setup::new(1);
    setup.config.merchants[0].api_keys.push(KeyDigest::of(KEY));
    setup.config.callbacks = Some(Callbacks {
        listen: "127.0.0.1:0".parse().unwrap(),
        secret: Secret::new("canary".to_owned()),
        previous_secrets: vec![Secret::new("canary".to_owned())],
        tls: None,
        sources: Sources::default(),
        verify: ayova::config::Verify::None,
        confirm: ayova::config::Confirm::Unsigned,
        sweep: None,
        deliver: Some(Deliver {
            url: "http://app.example/".parse().unwrap(),
            key: WebhookKey::parse("whsec_Q2FuYXJ5V2ViaG9va1NlY3JldE9mMzJCeXRlc19fX18=").unwrap(),
            timeout: Duration::from_secs(1),
            retry_for: Duration::from_secs(1),
            in_flight: 1,
        }),
    });
    setup.config.merchants[0].client_secret = Secret::new("canary".to_owned());
    setup.config.merchants[0].client_id = Secret::new("canary".to_owned());
    assert_silent("the configuration", &format!("{:?}", setup.config));
    assert_silent("the effective configuration", &ayova::config::effective_yaml(&setup.config));
}
