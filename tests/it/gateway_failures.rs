//! Trouble upstream, in the store and in the gateway itself: nobody waits for ever, nothing happens
//! twice (contract section 5 rules 5 and 8, sections 4 and 9).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ayova::dialect::Dialect;
use ayova::reference::{Account, AccountQuery};
use ayova::store::inbox::Inbox;
use ayova::store::memory::MemoryStore;
use ayova::store::watch::Watches;
use ayova::store::{Begun, Doubt, End, Intent, Known, Store, StoreError};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all, pending, ready};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::asks::{
    Ask, CLASSIC, classic_create, classic_get, classic_update, id, padded, snap_create, snap_inquiry, snap_update,
};
use crate::harness::{Act, Setup, World};

const OWN: &str = "12345678901";

/// An inquiry that needs no record.
fn inquiry() -> Ask {
    snap_inquiry(&padded(OWN)).set("/customerNo", "CUST000123")
}

#[tokio::test(start_paused = true)]
async fn what_never_left_is_tried_again() {
    for (ask, status) in [(snap_create(1, OWN), 200), (classic_create(1, ""), 201)] {
        let world = World::new();
        world.wire.acts([Act::NotSent, Act::NotSent]);
        let asked = Instant::now();
        world.send(ask.clone()).await.expect(status);
        assert_eq!((world.wire.calls().len(), world.stat("creates").await), (3, 1));
        assert!((100..=300).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
        let world = World::new();
        world.wire.acts(vec![Act::NotSent; 3]);
        let got = world.send(ask.clone()).await;
        assert_eq!(got.expect_refusal(503, "UPSTREAM_UNAVAILABLE").header("retry-after"), "1");
        assert_eq!(world.wire.calls().len(), 3, "attempts are bounded");
        world.send(ask).await.expect(status);
    }
}

#[tokio::test(start_paused = true)]
async fn tries_end_with_the_deadline() {
    let mut setup = Setup::new(1);
    setup.config.retry.attempts = 50;
    let world = setup.build();
    world.wire.acts(vec![Act::Hang; 50]);
    let asked = Instant::now();
    world.send(inquiry()).await.expect_refusal(504, "UPSTREAM_TIMEOUT");
    assert!(asked.elapsed() <= Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(world.wire.calls().len(), 3, "eight seconds each");
    world.wire.acts(vec![Act::Hang; 50]);
    let asked = Instant::now();
    world.send(classic_create(1, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!(asked.elapsed().as_secs(), 8);
    assert_eq!(world.wire.calls().len(), 4, "a classic create is never repeated");
}

#[tokio::test(start_paused = true)]
async fn reads_may_be_repeated_and_other_answers_are_final() {
    let world = World::new();
    for act in [Act::Broken, Act::Hang, Act::Answer(502, ""), Act::Answer(503, "<html>"), Act::Answer(504, "")] {
        world.wire.acts([act]);
        world.send(inquiry()).await.expect(404);
    }
    world.wire.clear();
    for status in [500, 400, 404, 429, 301] {
        world.wire.acts([Act::Answer(status, "{\"responseCode\":\"x\"}")]);
        world.send(inquiry()).await.expect(status);
    }
    assert_eq!(world.wire.calls().len(), 5);
    world.wire.acts(vec![Act::Broken; 3]);
    world.send(inquiry()).await.expect_refusal(504, "UPSTREAM_TIMEOUT");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_and_recovers_for_its_class_alone() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(classic_create(1, "12345678")).await.expect(201);
    world.wire.script(|arrived| {
        if arrived.method == "POST" && arrived.path.ends_with("inquiry-va") { Act::Broken } else { Act::Deliver }
    });
    for _ in 0..4 {
        let _ = world.send(snap_inquiry(OWN)).await;
    }
    world.wire.clear();
    let got = world.send(snap_inquiry(OWN)).await;
    assert_eq!(got.expect_refusal(503, "UPSTREAM_UNAVAILABLE").header("retry-after"), "1");
    world.send(classic_get("12345678")).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
    assert!(world.wire.all().is_empty(), "nothing is sent while it is open");
    // Creates and updates have breakers of their own.
    world.send(snap_create(2, "")).await.expect(200);
    world.send(snap_update(3, OWN)).await.expect(200);
    assert_eq!(world.admin("/status").await.json()["breakers"]["read"], "open");
    world.wire.acts([]);
    tokio::time::advance(Duration::from_secs(5)).await;
    world.send(snap_inquiry(OWN)).await.expect(200);
    world.send(classic_get("12345678")).await.expect(200);
    assert_eq!(world.admin("/status").await.json()["breakers"]["read"], "closed");
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_application_do_not_open_the_breaker() {
    let world = World::new();
    world.wire.script(|arrived| {
        if arrived.is_login() { Act::Deliver } else { Act::Answer(500, "{\"responseCode\":\"5003000\"}") }
    });
    for _ in 0..30 {
        world.send(inquiry()).await.expect(500);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_one_requests_trouble() {
    let world = World::new();
    // A read changes nothing, so that it happened says enough.
    world.wire.acts([Act::Panic]);
    let got = world.send(inquiry()).await;
    assert_eq!(got.expect_refusal(500, "INTERNAL").json()["responseCode"], "5003000");
    world.wire.acts([Act::Panic]);
    let query = format!("{CLASSIC}?virtualAccountId={}&bankCode=002&customerId=AYOTST-0000000", "x".repeat(27));
    let get = Ask::new(http::Method::GET, &query, serde_json::Value::Null).header("A-Correlation-ID", &id(5));
    assert_eq!(world.send(get).await.expect_refusal(500, "INTERNAL").json()["responseCode"], 500);
    // A create may have arrived, and whoever joined it is told the same.
    for (ask, status) in [(snap_create(1, OWN), 200), (classic_create(1, ""), 201), (snap_update(2, OWN), 200)] {
        world.wire.acts([Act::Panic]);
        let sending: Vec<_> = (0..10).map(|_| tokio::spawn(world.send(ask.clone()))).collect();
        let waiting = tokio::time::timeout(Duration::from_secs(60), join_all(sending));
        for got in waiting.await.unwrap() {
            let got = got.unwrap();
            assert!(matches!((got.status, got.reason()), (504, "OUTCOME_UNKNOWN") | (200 | 201, "")), "{}", got.text());
        }
        let again = world.send(ask).await;
        assert_eq!(again.status, status, "{}", again.text());
    }
    for operation in ["snap.create", "snap.update", "classic.create"] {
        assert_eq!(world.metric(&format!("ayova_unknown_outcomes{{operation=\"{operation}\"}}")).await, 0.0);
    }
    assert_eq!(world.metric("ayova_in_flight{merchant=\"sample\"}").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_only_a_strict_reader_refuses_is_an_answer() {
    let world = World::new();
    let twice = "{\"responseCode\":\"2002700\",\"responseCode\":\"2002700\"}";
    world.wire.acts([Act::Answer(200, twice)]);
    assert_eq!(world.send(snap_create(1, OWN)).await.expect(200).text(), twice);
    assert_eq!(world.send(snap_create(1, OWN)).await.source(), "replay");
}

/// A store that can be broken.
#[derive(Debug)]
struct Fragile {
    inner: MemoryStore,
    begins: AtomicBool,
    finishes: AtomicBool,
    finds: AtomicBool,
    panics: AtomicBool,
    /// How often an account was said to live: recorded again, or touched.
    lives: AtomicUsize,
    /// Takes no more and does not say so.
    hangs: AtomicBool,
    /// Accounts it was asked to keep.
    taught: AtomicUsize,
}

impl Fragile {
    fn new() -> Arc<Self> {
        let no = || AtomicBool::new(false);
        let up = || AtomicBool::new(true);
        let inner = MemoryStore::new(1 << 20, 1 << 20);
        Arc::new(Self {
            inner,
            begins: up(),
            finishes: up(),
            finds: up(),
            panics: AtomicBool::new(false),
            lives: AtomicUsize::new(0),
            hangs: no(),
            taught: AtomicUsize::new(0),
        })
    }

    fn guard<'a, T: Send + 'a>(
        works: &AtomicBool,
        then: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if works.load(Ordering::Relaxed) { then } else { ready(Err(StoreError("disk full".to_owned()))).boxed() }
    }
}

impl Store for Fragile {
    fn begin<'a>(&'a self, intent: &'a Intent, now: Timestamp) -> BoxFuture<'a, Result<Begun, StoreError>> {
        assert!(!self.panics.load(Ordering::Relaxed), "the store has a defect");
        if self.hangs.load(Ordering::Relaxed) {
            return pending().boxed();
        }
        Self::guard(&self.begins, self.inner.begin(intent, now))
    }

    fn finish<'a>(
        &'a self,
        intent: &'a Intent,
        end: End,
        learned: Option<Arc<Account>>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        if !self.finishes.load(Ordering::Relaxed) {
            return ready(Err(StoreError("disk full".to_owned()))).boxed();
        }
        self.lives.fetch_add(usize::from(learned.is_some()), Ordering::Relaxed);
        self.inner.finish(intent, end, learned, now)
    }

    fn touch(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lives.fetch_add(1, Ordering::Relaxed);
        self.inner.touch(account)
    }

    fn remember(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.taught.fetch_add(1, Ordering::Relaxed);
        if self.hangs.load(Ordering::Relaxed) {
            return pending().boxed();
        }
        Self::guard(&self.finishes, self.inner.remember(account))
    }

    fn account<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Option<Arc<Account>>, StoreError>> {
        Self::guard(&self.finds, self.inner.account(merchant, dialect, query))
    }

    fn prefix<'a>(&'a self, merchant: &'a str, bank: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.inner.prefix(merchant, bank)
    }

    fn accounts<'a>(&'a self, number: &'a str) -> BoxFuture<'a, Result<Vec<Arc<Account>>, StoreError>> {
        self.inner.accounts(number)
    }

    fn known<'a>(&'a self, id: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Known>, StoreError>> {
        self.inner.known(id, now)
    }

    fn doubts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Doubt>, StoreError>> {
        self.inner.doubts(limit)
    }

    fn inbox(&self) -> &dyn Inbox {
        self.inner.inbox()
    }

    fn watches(&self) -> &dyn Watches {
        self.inner.watches()
    }

    fn problem(&self) -> Option<String> {
        None
    }
}

fn world_with(store: &Arc<Fragile>) -> World {
    let mut setup = Setup::new(1);
    setup.store = Some(Arc::clone(store) as Arc<dyn Store>);
    setup.build()
}

#[tokio::test(start_paused = true)]
async fn every_use_of_an_account_says_that_it_lives() {
    let store = Fragile::new();
    let world = world_with(&store);
    let lives = || store.lives.load(Ordering::Relaxed);
    world.send(snap_create(1, OWN)).await.expect(200);
    assert_eq!(lives(), 1);
    let unchanged = |tag| snap_update(tag, OWN).set("/totalAmount/value", "150000.00");
    world.send(unchanged(2).set("/expiredDate", "2026-01-08T10:00:00+07:00")).await.expect(200);
    assert_eq!(lives(), 2, "an update of nothing but the expiry");
    world.send(snap_inquiry(OWN)).await.expect(200);
    assert_eq!(lives(), 3, "an inquiry");
    world.wire.acts([Act::Answer(404, "{\"responseCode\":\"4043012\"}")]);
    world.send(snap_inquiry(OWN)).await.expect(404);
    assert_eq!(lives(), 3, "upstream does not know it");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_sent() {
    let store = Fragile::new();
    let world = world_with(&store);
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(classic_create(1, "12345678")).await.expect(201);
    world.wire.clear();
    store.begins.store(false, Ordering::Relaxed);
    for ask in [snap_create(2, ""), snap_update(3, OWN), classic_create(2, ""), classic_update("12345678")] {
        let got = world.send(ask).await;
        assert_eq!(got.expect_refusal(503, "STORE_UNAVAILABLE").header("retry-after"), "1");
    }
    assert!(world.wire.all().is_empty());
    store.begins.store(true, Ordering::Relaxed);
    world.send(snap_create(2, "")).await.expect(200);

    // An update needs its record, a read may go without.
    store.finds.store(false, Ordering::Relaxed);
    world.send(snap_update(4, OWN)).await.expect_refusal(503, "STORE_UNAVAILABLE");
    world.send(inquiry()).await.expect(200);
    store.finds.store(true, Ordering::Relaxed);
    world.send(snap_update(4, OWN)).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_stored_reaches_the_app_all_the_same() {
    let store = Fragile::new();
    let world = world_with(&store);
    world.send(snap_create(1, OWN)).await.expect(200);
    store.finishes.store(false, Ordering::Relaxed);
    let got = world.send(snap_create(2, "")).await;
    assert_eq!((got.status, got.source(), got.reason()), (200, "upstream", "NOT_STORED"));
    assert_eq!(got.json()["responseCode"], "2002700");
    store.finishes.store(true, Ordering::Relaxed);
    // As far as the store knows it is in doubt: it goes again under the same ids, and upstream knows them.
    let again = world.send(snap_create(2, "")).await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(world.stat("creates").await, 2);
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_while_the_store_hangs() {
    let store = Fragile::new();
    let world = world_with(&store);
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(inquiry()).await.expect(200);
    let before = store.taught.load(Ordering::Relaxed);
    store.hangs.store(true, Ordering::Relaxed);
    // Without its record every answer teaches.
    store.finds.store(false, Ordering::Relaxed);
    for _ in 0..300 {
        let began = Instant::now();
        world.send(inquiry()).await.expect(200);
        assert!(began.elapsed() <= Duration::from_millis(200), "{:?}", began.elapsed());
    }
    // What waits for the store has a bound.
    assert_eq!(store.taught.load(Ordering::Relaxed) - before, 256);
    // A create is not sent, and is not kept waiting beyond its deadline.
    let creates = world.stat("creates").await;
    world.send(snap_create(2, "")).await.expect_refusal(503, "STORE_UNAVAILABLE");
    assert_eq!(world.stat("creates").await, creates);
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_anything_was_sent_is_a_defect_and_no_doubt() {
    let store = Fragile::new();
    let world = world_with(&store);
    store.panics.store(true, Ordering::Relaxed);
    let got = world.send(snap_create(1, OWN)).await;
    assert_eq!(got.expect_refusal(500, "INTERNAL").json()["responseCode"], "5002700");
    assert!(world.wire.calls().is_empty());
    store.panics.store(false, Ordering::Relaxed);
    world.send(snap_create(1, OWN)).await.expect(200);
}
