//! What goes on from one configuration to the next, and what does not, in memory on paused time.

use std::sync::Arc;

use ayova::callback::deliver::Post;
use ayova::callback::rounds::{Parts, Rounds};
use ayova::config::sandbox::{MerchantKey, SandboxMerchant};
use ayova::config::{Config, Deliver, Secret};
use ayova::live::Live;
use ayova::signature::PrivateKey;
use ayova::stack::{Gateway, Surroundings};
use ayova::store::memory::MemoryStore;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::asks::{Ask, classic_create, snap_create, snap_inquiry};
use crate::callbacks::{SECRET, body, callbacks, seconds};
use crate::harness::{Setup, World};

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
    // Another breaker means another way upstream, whose tokens are its own.
    let fourth = renewal.second(&second, |config| config.breaker.failures = 99.try_into().unwrap());
    assert_eq!(status(&fourth, snap_inquiry("12345678901")).await, 200);
    assert_eq!(renewal.world.wire.logins().len(), 3);
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
