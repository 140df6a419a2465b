//! What goes on from one configuration to the next, and what does not, in memory on paused time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ayova::callback::deliver::Post;
use ayova::callback::rounds::{Parts, Rounds};
use ayova::config::sandbox::{MerchantKey, SandboxMerchant};
use ayova::config::{Breaker, Config, Deliver, MerchantConfig, Retry, Secret};
use ayova::dialect::Dialect;
use ayova::live::Live;
use ayova::signature::{Encoding, PrivateKey};
use ayova::stack::{Gateway, Surroundings};
use ayova::store::Store;
use ayova::store::memory::MemoryStore;
use ayova::tls::ClientFiles;
use ayova::upstream::{Class, Sign};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::asks::{Ask, classic_create, padded, snap_create, snap_inquiry};
use crate::callbacks::{SECRET, body, callbacks, seconds};
use crate::harness::{Act, CODES, Setup, World};

/// Two configurations of one gateway, before one upstream.
struct Renewal {
    world: World,
    surroundings: Surroundings,
    config: Config,
}

impl Renewal {
    fn new(limit: Option<(u32, u32)>) -> Self {
        let mut setup = Setup::new(1);
        if let Some(limit) = limit {
            setup.limit(0, limit, 64);
        }
        // What the merchant will log in with one day; Ayoconnect takes both for as long as a change takes.
        setup.sandbox.merchants.push(SandboxMerchant {
            name: "next".into(),
            client_id: "next-client".to_owned(),
            client_secret: Secret::new("next-secret".to_owned()),
            key: MerchantKey::PrivatePem(Secret::new(NEXT_KEY.to_owned())),
            ..setup.sandbox.merchants[0].clone()
        });
        let config = setup.config.clone();
        let world = setup.build();
        let surroundings = world.surroundings(Arc::new(MemoryStore::new(1 << 26, 1 << 25)));
        Self { world, surroundings, config }
    }

    fn first(&self) -> Gateway {
        Gateway::new(&self.config, &self.surroundings).unwrap()
    }

    fn second(&self, first: &Gateway, change: impl FnOnce(&mut Config)) -> Gateway {
        let mut config = self.config.clone();
        change(&mut config);
        first.renewed(&config, &self.surroundings).unwrap()
    }
}

const NEXT_KEY: &str = include_str!("../../config/sandbox-callback-key.pem");

/// Client id, client secret and RSA key change while creates of both generations go on.
#[tokio::test(start_paused = true)]
async fn credentials_are_replaced_under_load() {
    let renewal = Renewal::new(None);
    let live = Live::new(renewal.first());
    let apps: Vec<_> = (0..8_u32)
        .map(|app| {
            let mut live = live.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let tag = 1 + app * 100 + n;
                    let ask = if n % 2 == 0 { snap_create(tag, "") } else { classic_create(tag, "") };
                    let answer = live.call(ask.into_request()).await.unwrap();
                    assert!(answer.status().is_success(), "{tag}: {}", answer.status());
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    let next = renewal.second(&live.now(), |config| {
        let merchant = &mut config.merchants[0];
        merchant.client_id = Secret::new("next-client".to_owned());
        merchant.client_secret = Secret::new("next-secret".to_owned());
        merchant.private_key = Some(Arc::new(PrivateKey::from_pem(NEXT_KEY).unwrap()));
    });
    live.replace(next);
    let changed = renewal.world.wire.all().len();
    for app in apps {
        app.await.unwrap();
    }
    let after = renewal.world.wire.all().split_off(changed);
    assert!(after.len() > 100);
    let logins: Vec<_> = after.iter().filter(|arrived| arrived.is_login()).collect();
    assert_eq!(logins.len(), 2, "one of each generation");
    let snap = logins.iter().find(|arrived| arrived.path.ends_with("b2b")).unwrap();
    assert_eq!(snap.header("x-client-key"), "next-client");
}

async fn status(gateway: &Gateway, ask: Ask) -> u16 {
    gateway.clone().call(ask.into_request()).await.unwrap().status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_merchant_with_the_same_credentials_keeps_its_token() {
    let renewal = Renewal::new(None);
    let first = renewal.first();
    assert_eq!(status(&first, snap_create(1, "12345678901")).await, 200);
    let second = renewal.second(&first, |config| config.idempotency.wait *= 2);
    assert_eq!(status(&second, snap_inquiry("12345678901")).await, 200);
    assert_eq!(renewal.world.wire.logins().len(), 1);
    let third = renewal.second(&second, |config| config.merchants[0].client_secret = Secret::new("new".to_owned()));
    let _ = status(&third, snap_inquiry("12345678901")).await;
    assert_eq!(renewal.world.wire.logins().len(), 2, "other credentials have no token yet");
}

type Change = (&'static str, fn(&mut Config));

/// What changes nothing about a token or a breaker, by the group of keys.
const ELSEWHERE: [Change; 12] = [
    ("upstream's times", |config| {
        let upstream = &mut config.upstream;
        for time in [&mut upstream.connect_timeout, &mut upstream.attempt_timeout, &mut upstream.deadline] {
            *time *= 2;
        }
    }),
    ("upstream.tls", |config| {
        config.upstream.tls = Some(ClientFiles { ca: Some("ca.pem".into()), identity: None });
    }),
    ("base paths", |config| {
        config.upstream.snap.base_path = "/snap".to_owned();
        config.upstream.classic.base_path = "/classic".to_owned();
    }),
    ("upstream.snap.update_method", |config| config.upstream.snap.update_method = http::Method::POST),
    ("upstream.snap.signature", |config| config.upstream.snap.signature.encoding = Encoding::Base64),
    ("upstream.classic.enabled", |config| config.upstream.classic.enabled = false),
    ("retry", |config| {
        let times = Duration::from_secs(1);
        config.retry = Retry { attempts: 1, base_delay: times, max_delay: times, budget_percent: 1 };
    }),
    ("breaker", |config| {
        config.breaker = Breaker { window: Duration::from_secs(60), open_for: Duration::from_secs(60), failures: 10 };
    }),
    ("rate limits", |config| {
        let rate = ayova::config::Rate { per_second: 5.try_into().unwrap(), burst: 5.try_into().unwrap() };
        config.merchants[0].rate_limit = Some(ayova::config::RateLimit { rate, in_flight: 5, operations: vec![] });
    }),
    ("merchants[].channel_id", |config| config.merchants[0].channel_id = "95222".into()),
    ("merchants[].api_keys", |config| config.merchants[0].api_keys = vec![ayova::caller::KeyDigest::of("key")]),
    ("another merchant", |config| {
        let other = MerchantConfig { name: "other".into(), ..config.merchants[0].clone() };
        config.merchants.push(MerchantConfig { merchant_code: "AYOTS2".into(), ..other });
    }),
];

/// What makes a token another one, and how many of SNAP and classic.
const ANOTHER: [(Change, (usize, usize)); 7] = [
    (("upstream.base_url", |config| config.upstream.base_url = "http://127.0.0.2:1".parse().unwrap()), (1, 1)),
    (("upstream.snap.token_path", |config| config.upstream.snap.token_path = "/other".to_owned()), (1, 0)),
    (("upstream.classic.token_path", |config| config.upstream.classic.token_path = "/other".to_owned()), (0, 1)),
    (("client_id", |config| config.merchants[0].client_id = Secret::new("other".to_owned())), (1, 1)),
    (("client_secret", |config| config.merchants[0].client_secret = Secret::new("other".to_owned())), (1, 1)),
    (
        ("private_key", |config| {
            config.merchants[0].private_key = Some(Arc::new(PrivateKey::from_pem(NEXT_KEY).unwrap()));
        }),
        (1, 1),
    ),
    (("merchant_code", |config| config.merchants[0].merchant_code = "AYOTS2".into()), (1, 1)),
];

/// Has a token of each generation fetched where there is none; how often upstream was asked for one.
async fn logins(renewal: &Renewal, gateway: &Gateway) -> (usize, usize) {
    let merchant = &gateway.merchants()[0];
    let mut asked = [Dialect::Snap, Dialect::Classic].into_iter().map(async |dialect| {
        let before = renewal.world.wire.all().len();
        let _ = gateway.tokens().get(merchant, dialect, Instant::now() + Duration::from_secs(60)).await;
        renewal.world.wire.all().len() - before
    });
    (asked.next().unwrap().await, asked.next().unwrap().await)
}

#[tokio::test(start_paused = true)]
async fn a_token_stays_unless_it_would_be_another() {
    for (keys, change) in ELSEWHERE {
        let renewal = Renewal::new(None);
        let first = renewal.first();
        assert_eq!(logins(&renewal, &first).await, (1, 1));
        let second = renewal.second(&first, change);
        assert_eq!(logins(&renewal, &second).await, (0, 0), "{keys}");
        // Once more, and over another way to the same place.
        let surroundings = Surroundings { transport: renewal.world.wire.another_way(), ..renewal.surroundings.clone() };
        let third = second.renewed(&renewal.config, &surroundings).unwrap();
        assert_eq!(logins(&renewal, &third).await, (0, 0), "{keys}");
    }
    for ((keys, change), expected) in ANOTHER {
        let renewal = Renewal::new(None);
        let first = renewal.first();
        assert_eq!(logins(&renewal, &first).await, (1, 1));
        let second = renewal.second(&first, |config| {
            config.retry.attempts = 1;
            change(config);
        });
        assert_eq!(logins(&renewal, &second).await, expected, "{keys}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_stays_is_renewed_as_the_new_configuration_says() {
    let renewal = Renewal::new(None);
    let first = renewal.first();
    logins(&renewal, &first).await;
    let second = renewal.second(&first, |config| {
        config.retry.attempts = 1;
        config.upstream.attempt_timeout = Duration::from_secs(3);
        config.upstream.snap.signature.encoding = Encoding::Base64;
    });
    drop(first);
    renewal.world.wire.clear();
    // Upstream hangs until the renewal has been given up twice.
    renewal.world.wire.login_acts([Act::Hang, Act::Hang, Act::Hang, Act::Hang]);
    while renewal.world.wire.logins().len() < 6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let logins = renewal.world.wire.logins();
    let snap: Vec<_> = logins.iter().filter(|arrived| arrived.path.ends_with("b2b")).collect();
    let pause = snap[1].at - snap[0].at;
    assert!((3..=4).contains(&pause.as_secs()), "one try of three seconds, then a pause of up to one: {pause:?}");
    assert!(snap[0].header("x-signature").ends_with("=="), "base64");
    let left = second.tokens().seconds_left().filter_map(|(_, _, left)| left);
    assert_eq!(left.filter(|left| *left > 800.0).count(), 2, "both are fresh");
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_tried_again_once_what_they_are_sent_with_has_changed() {
    let renewal = Renewal::new(None);
    renewal.world.wire.script(|arrived| if arrived.is_login() { Act::Answer(401, "{}") } else { Act::Deliver });
    let first = renewal.first();
    assert_eq!(logins(&renewal, &first).await, (3, 3));
    let second = renewal.second(&first, |config| config.idempotency.wait *= 2);
    assert_eq!(logins(&renewal, &second).await, (0, 0), "the pause goes on");
    renewal.world.wire.script(|_| Act::Deliver);
    let third = renewal.second(&second, |config| config.upstream.snap.signature.encoding = Encoding::Base64);
    assert_eq!(logins(&renewal, &third).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn breakers_stay_as_they_are_before_the_same_upstream() {
    let read = |gateway: &Gateway| gateway.breakers().state(Class::Read, Instant::now());
    let fail = |gateway: &Gateway| gateway.breakers().record(Class::Read, Sign::Dead, Instant::now());
    for (keys, change) in ELSEWHERE {
        let renewal = Renewal::new(None);
        let first = renewal.first();
        (0..9).for_each(|_| fail(&first));
        let second = renewal.second(&first, change);
        assert_eq!(read(&second), "closed", "{keys}");
        fail(&second);
        assert_eq!(read(&second), "open", "{keys}: nine and one are ten");
        let third = renewal.second(&second, change);
        assert_eq!(read(&third), "open", "{keys}");
        let elsewhere = renewal.second(&third, ANOTHER[0].0.1);
        assert_eq!((read(&elsewhere), read(&third)), ("closed", "open"), "another upstream");
    }
}

/// A certificate store that was wrong, say, and is right in the new configuration.
#[tokio::test(start_paused = true)]
async fn what_a_breaker_has_learnt_of_one_way_does_not_hold_up_another() {
    let renewal = Renewal::new(None);
    let first = renewal.first();
    assert_eq!(status(&first, snap_create(1, "12345678901")).await, 200);
    for class in [Class::Create, Class::Read] {
        (0..10).for_each(|_| first.breakers().record(class, Sign::Dead, Instant::now()));
    }
    // Somebody was answered since, the old way.
    first.breakers().record(Class::Update, Sign::Alive, Instant::now());
    let state = |gateway: &Gateway, class| gateway.breakers().state(class, Instant::now());
    assert_eq!((state(&first, Class::Create), state(&first, Class::Read)), ("open", "open"));
    let surroundings = Surroundings { transport: renewal.world.wire.another_way(), ..renewal.surroundings.clone() };
    let second = first.renewed(&renewal.config, &surroundings).unwrap();
    renewal.world.wire.clear();
    // A create is not what finds out.
    assert_eq!(status(&second, snap_create(2, "12345678902")).await, 503);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((renewal.world.wire.logins().len(), renewal.world.wire.calls().len()), (1, 0));
    assert_eq!(status(&second, snap_create(3, "12345678903")).await, 200);
    // What still goes the old way takes nobody's probe and closes nothing.
    assert_eq!(status(&first, snap_inquiry("12345678901")).await, 503);
    first.breakers().record(Class::Read, Sign::Dead, Instant::now());
    assert_eq!(status(&second, snap_inquiry("12345678901")).await, 200);
    assert_eq!((state(&second, Class::Create), state(&second, Class::Read)), ("closed", "closed"));
    assert_eq!((state(&first, Class::Create), state(&first, Class::Read)), ("open", "open"));
}

#[tokio::test(start_paused = true)]
async fn numbers_of_a_breaker_count_at_once_and_requests_feel_it() {
    let renewal = Renewal::new(None);
    let first = renewal.second(&renewal.first(), |config| config.retry.attempts = 1);
    assert_eq!(status(&first, snap_create(1, "12345678901")).await, 200);
    renewal.world.wire.acts((0..3).map(|_| Act::NotSent));
    for _ in 0..2 {
        assert_eq!(status(&first, snap_inquiry("12345678901")).await, 503);
    }
    let sent = renewal.world.wire.calls().len();
    let second = renewal.second(&first, |config| {
        config.retry.attempts = 1;
        config.breaker.failures = 3;
        config.breaker.open_for = Duration::from_secs(600);
    });
    for _ in 0..2 {
        assert_eq!(status(&second, snap_inquiry("12345678901")).await, 503);
    }
    assert_eq!(renewal.world.wire.calls().len(), sent + 1, "the third failure opened it");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&second, snap_inquiry("12345678901")).await, 503);
    let third = renewal.second(&second, |config| config.breaker.open_for = Duration::from_secs(30));
    assert_eq!(status(&third, snap_inquiry("12345678901")).await, 200, "its time is over by now");
}

/// The second merchant of two is removed; what is shown of it afterwards.
#[tokio::test(start_paused = true)]
async fn gauges_of_a_merchant_that_is_removed_go_and_counters_stay() {
    let mut setup = Setup::new(2);
    setup.config.callbacks = Some(callbacks());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 26, 1 << 25));
    setup.store = Some(Arc::clone(&store));
    let world = setup.build();
    world.send(snap_create(1, "12345678901").merchant(CODES[1])).await.expect(200);
    let before = world.scrape().await;
    let of = |page: &str| {
        let lines = page.lines().filter(|line| line.contains("merchant=\"merchant1\""));
        lines.map(|line| line.split('{').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let counters = ["ayova_requests_total", "ayova_token_refreshes_total"];
    let gauges = ["ayova_event_age_seconds", "ayova_events_pending", "ayova_in_flight", "ayova_token_seconds_left"];
    assert_eq!(of(&before), counters.into_iter().chain(gauges).map(ToOwned::to_owned).collect());
    world.wire.acts([Act::Late(Duration::from_secs(5))]);
    let under_way = tokio::spawn(world.send(snap_inquiry(&padded("12345678901")).merchant(CODES[1])));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let without = world.renewed(|config| drop(config.merchants.pop()));
    let only_counters = counters.map(ToOwned::to_owned).into();
    assert_eq!(of(&without.scrape().await), only_counters);
    under_way.await.unwrap();
    // A scrape that began before the reload brings nothing back for good.
    world.scrape().await;
    assert_eq!(of(&without.scrape().await), only_counters);
    let again = without.renewed(|config| *config = world.config());
    let back = again.scrape().await;
    assert!(back.contains("ayova_in_flight{merchant=\"merchant1\"} 0"), "{back}");
}

#[tokio::test(start_paused = true)]
async fn events_of_a_merchant_that_is_removed_are_counted_for_as_long_as_they_wait() {
    let mut setup = Setup::new(2);
    setup.config.callbacks = Some(callbacks());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 26, 1 << 25));
    setup.store = Some(Arc::clone(&store));
    let world = setup.build();
    let (config, surroundings) = (world.config(), world.surroundings(store));
    let parts = Parts {
        config,
        surroundings,
        gateway: world.gateway.clone(),
        post: Arc::new(Apps::default()),
        bell: world.bell.clone(),
    };
    let path = format!("/callbacks/snap/{}/{SECRET}", CODES[1]);
    let request = Request::builder().method("POST").uri(path).body(Full::from(body("1", "T1"))).unwrap();
    let receiver = parts.circle().unwrap().receiver();
    assert_eq!(tower::ServiceExt::oneshot(receiver, request).await.unwrap().status(), 200);
    world.scrape().await;
    let without = world.renewed(|config| drop(config.merchants.pop()));
    seconds(700).await;
    assert_eq!(without.metric("ayova_events_pending{merchant=\"merchant1\"}").await, 1.0);
    let age = without.metric("ayova_event_age_seconds{merchant=\"merchant1\"}").await;
    assert_eq!(age, 700.0, "it goes on growing: the app has not heard of it");
    // It is back, its app has it, and it is removed for good.
    let (rounds, stop) = (Rounds::new(CancellationToken::new()), CancellationToken::new());
    rounds.begin(parts);
    seconds(10).await;
    stop.cancel();
    assert!(!without.scrape().await.contains("ayova_events_pending{merchant=\"merchant1\"}"));
}

#[tokio::test(start_paused = true)]
async fn limits_keep_their_levels() {
    let renewal = Renewal::new(Some((1, 2)));
    let first = renewal.first();
    assert_eq!(status(&first, snap_create(1, "12345678901")).await, 200);
    assert_eq!(status(&first, snap_inquiry("12345678901")).await, 200);
    let second = renewal.second(&first, |config| config.idempotency.wait *= 2);
    assert_eq!(status(&second, snap_inquiry("12345678901")).await, 429);
    let without = renewal.second(&second, |config| config.merchants[0].rate_limit = None);
    assert_eq!(status(&without, snap_inquiry("12345678901")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_joined_and_the_end_is_one() {
    let renewal = Renewal::new(None);
    let first = renewal.first();
    renewal.world.fault("snap.create", 1, serde_json::json!({"latency": "2s"})).await;
    let began = tokio::spawn({
        let first = first.clone();
        async move { status(&first, snap_create(1, "12345678901")).await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let second = renewal.second(&first, |config| config.idempotency.wait *= 2);
    assert_eq!(status(&second, snap_create(1, "12345678901")).await, 200);
    assert_eq!(began.await.unwrap(), 200);
    assert_eq!(renewal.world.stat("creates").await, 1);
    assert_eq!(renewal.world.wire.calls().len(), 1);
    second.draining().store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(status(&first, snap_inquiry("12345678901")).await, 503);
}

#[tokio::test(start_paused = true)]
async fn a_faster_limit_is_faster_at_once() {
    let renewal = Renewal::new(Some((1, 3)));
    let first = renewal.first();
    for tag in 1..=3 {
        assert_eq!(status(&first, snap_create(tag, "")).await, 200);
    }
    assert_eq!(status(&first, snap_inquiry("12345678901")).await, 429);
    let faster = renewal.second(&first, |config| {
        let limit = config.merchants[0].rate_limit.as_mut().unwrap();
        limit.rate.per_second = 100.try_into().unwrap();
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_ne!(status(&faster, snap_create(4, "")).await, 429);
}

/// Two apps: one answers at once, the other after nine seconds.
#[derive(Clone, Debug, Default)]
struct Apps(Arc<std::sync::Mutex<Vec<String>>>);

impl Post for Apps {
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<()>, String>> {
        let heard = Arc::clone(&self.0);
        async move {
            let host = request.uri().host().unwrap().to_owned();
            heard.lock().unwrap().push(host.clone());
            if host == "slow.example" {
                tokio::time::sleep(std::time::Duration::from_secs(9)).await;
            }
            Ok(Response::builder().status(204).body(()).unwrap())
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_app_holds_up_no_other_over_a_reload_and_hears_of_nothing_twice() {
    let mut setup = Setup::new(2);
    let slow = Deliver { url: "http://slow.example/".parse().unwrap(), ..callbacks().deliver.unwrap() };
    setup.config.merchants[1].deliver = Some(slow);
    setup.config.callbacks = Some(callbacks());
    let config = setup.config.clone();
    let world = setup.build();
    let surroundings = world.surroundings(Arc::new(MemoryStore::new(1 << 26, 1 << 25)));
    let (apps, stop) = (Apps::default(), CancellationToken::new());
    let rounds = Rounds::new(stop.clone());
    let parts = || Parts {
        config: config.clone(),
        surroundings: surroundings.clone(),
        gateway: world.gateway.clone(),
        post: Arc::new(apps.clone()),
        bell: world.bell.clone(),
    };
    rounds.begin(parts());
    let receiver = parts().circle().unwrap().receiver();
    let paid = |code: Arc<str>, time: &str| {
        let path = format!("/callbacks/snap/{code}/{SECRET}");
        let request = Request::builder().method("POST").uri(path).body(Full::from(body("1", time))).unwrap();
        tower::ServiceExt::oneshot(receiver.clone(), request)
    };
    let codes = [0, 1].map(|merchant: usize| Arc::clone(&config.merchants[merchant].merchant_code));
    paid(Arc::clone(&codes[1]), "T1").await.unwrap();
    seconds(1).await;
    for _ in 0..3 {
        rounds.begin(parts());
    }
    paid(Arc::clone(&codes[0]), "T2").await.unwrap();
    seconds(2).await;
    assert_eq!(*apps.0.lock().unwrap(), ["slow.example", "app.example"], "the other one is told at once");
    seconds(30).await;
    assert_eq!(apps.0.lock().unwrap().len(), 2, "and nothing twice");
    paid(Arc::clone(&codes[1]), "T3").await.unwrap();
    seconds(20).await;
    assert_eq!(apps.0.lock().unwrap().len(), 3);
    stop.cancel();
    rounds.ended().await;
}
