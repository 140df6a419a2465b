//! What goes on from one configuration to the next, and what does not, in memory on paused time.

use std::sync::Arc;

use ayova::config::sandbox::{MerchantKey, SandboxMerchant};
use ayova::config::{Config, Secret};
use ayova::live::Live;
use ayova::signature::PrivateKey;
use ayova::stack::{Gateway, Surroundings};
use ayova::store::memory::MemoryStore;
use tower::Service as _;

use crate::asks::{Ask, classic_create, snap_create, snap_inquiry};
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
