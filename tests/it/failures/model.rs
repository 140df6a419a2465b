//! Random schedules over the whole stack, held against a simple model of what an app may rely on.
//!
//! A schedule is a few dozen steps: requests, their duplicates under the same and other ids,
//! conflicting duplicates, callers that hang up, time passing and jumping, and crashes, over a way to
//! upstream on which anything may go wrong. A crash leaves the store, which stands for a durable one,
//! and what is already under way to upstream; nothing of the old gateway moves after it.
//!
//! Promises the same run for the same seed. `AYOVA_MODEL_SEED=n` runs one schedule and
//! `AYOVA_MODEL_SCHEDULES=n` that many instead of 5,000.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ayova::config::sandbox::IdempotencyMode;
use ayova::dialect::{Dialect, OperationId, OperationKind};
use ayova::store::memory::MemoryStore;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};
use tokio_util::sync::CancellationToken;

use super::mortal::mortal;
use crate::asks::{Ask, classic_create, classic_get, classic_update, id, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, Arrived, Got, Setup, World};

/// Schedules of a run of all tests.
const SCHEDULES: u64 = 5_000;
/// Steps of a schedule.
const STEPS: std::ops::Range<u32> = 8..24;
/// Longest time a request may take: the deadline, the pauses before it is seen, and a wait to join.
const PATIENCE: Duration = Duration::from_secs(45);
/// A schedule stays within a day of Jakarta, since upstream may forget an id at midnight.
const TIME_MAX: Duration = Duration::from_secs(11 * 3600);
/// What conflicting requests have in their names.
const MARK: &str = "Another Name";

/// A request of the model: which operation under which tag, about which account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    operation: OperationId,
    tag: u32,
    /// The account's number as it was asked for or answered; empty where upstream chooses.
    number: String,
}

impl Key {
    fn ask(&self) -> Ask {
        match self.operation {
            OperationId::SnapCreate => snap_create(self.tag, &self.number),
            OperationId::SnapUpdate => snap_update(self.tag, &self.number),
            OperationId::SnapInquiry => snap_inquiry(&self.number),
            OperationId::ClassicCreate => classic_create(self.tag, &self.number),
            OperationId::ClassicUpdate => classic_update(&self.number).set("/transactionId", id(self.tag)),
            OperationId::ClassicGet => classic_get(&self.number),
        }
    }

    fn kind(&self) -> OperationKind {
        self.operation.operation().kind
    }
}

/// A request that was sent to the gateway.
struct Sent {
    key: Key,
    /// Whether its answer stood when it was sent.
    stood: bool,
    call: JoinHandle<Got>,
    /// When, in time that has passed and not jumped.
    since: Duration,
    /// Whether nothing with its ids was ever sent before.
    first: bool,
}

/// One schedule under way.
struct Run {
    random: StdRng,
    seed: u64,
    lives: u8,
    world: World,
    store: Arc<MemoryStore>,
    dead: CancellationToken,
    asked: Vec<Key>,
    /// The answer that stands, by key.
    stood: BTreeMap<Key, (u16, Bytes)>,
    under_way: Vec<Sent>,
    /// Keys under which something was sent to the gateway.
    sent: BTreeSet<Key>,
    /// Time that has passed, jumps included.
    passed: Duration,
    /// Time that has passed, jumps apart.
    slept: Duration,
    next_tag: u32,
    log: Vec<String>,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut setup = Setup::new(1);
        if random.random_bool(0.4) {
            setup.sandbox.snap.idempotency_mode = IdempotencyMode::Conflict;
        }
        let (world, store) = (setup.build(), Arc::new(MemoryStore::new(1 << 26, 1 << 25)));
        let mut run = Self {
            random,
            seed,
            lives: 0,
            world,
            store,
            dead: CancellationToken::new(),
            asked: Vec::new(),
            stood: BTreeMap::new(),
            under_way: Vec::new(),
            sent: BTreeSet::new(),
            passed: Duration::ZERO,
            slept: Duration::ZERO,
            next_tag: 1,
            log: Vec::new(),
        };
        run.script();
        run.live().await;
        run
    }

    /// A fresh gateway over what there is.
    async fn live(&mut self) {
        self.lives += 1;
        self.dead = CancellationToken::new();
        let seed = self.lives ^ self.seed.to_le_bytes()[0];
        let life = mortal(&self.store, self.world.wire.clone(), (self.dead.clone(), seed));
        self.world = self.world.again(life);
        self.world.gateway.resolver().take_over().await.unwrap();
    }

    /// What happens on the way, from a generator of its own.
    fn script(&mut self) {
        let mut random = StdRng::seed_from_u64(self.random.random());
        let trouble = random.random_range(0.0..0.6);
        self.world.wire.script(move |arrived| {
            if random.random_bool(trouble) { trouble_of(&mut random, arrived) } else { Act::Deliver }
        });
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => self.fresh(),
            30..55 => self.duplicate(),
            55..62 => self.conflict().await,
            62..68 => self.hang_up(),
            68..93 => self.wait().await,
            93..97 => self.jump().await,
            _ => self.crash().await,
        }
        self.collect().await;
    }

    /// A create, or a request about an account that was made.
    fn fresh(&mut self) {
        let made: Vec<Key> =
            self.stood.iter().filter(|(key, answer)| is_made(key, answer)).map(|(key, _)| key.clone()).collect();
        let tag = self.next_tag;
        self.next_tag += 1;
        let chosen = self.random.random_bool(0.7);
        let about = (!made.is_empty() && self.random.random_bool(0.5))
            .then(|| made[self.random.random_range(0..made.len())].clone());
        let key = match (about, self.random.random_bool(0.7)) {
            (None, true) => {
                let number = if chosen { format!("123456{tag:05}") } else { String::new() };
                Key { operation: OperationId::SnapCreate, tag, number }
            }
            (None, false) => {
                let number = if chosen { format!("12{tag:06}") } else { String::new() };
                Key { operation: OperationId::ClassicCreate, tag, number }
            }
            (Some(about), update) => {
                let operation = match (about.operation.operation().dialect, update) {
                    (Dialect::Snap, true) => OperationId::SnapUpdate,
                    (Dialect::Snap, false) => OperationId::SnapInquiry,
                    (Dialect::Classic, true) => OperationId::ClassicUpdate,
                    (Dialect::Classic, false) => OperationId::ClassicGet,
                };
                Key { operation, tag, number: number_of(&self.stood[&about]) }
            }
        };
        self.asked.push(key.clone());
        self.send(&key, key.ask());
    }

    /// The same again, a create perhaps under a new id.
    fn duplicate(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let key = self.asked[self.random.random_range(0..self.asked.len())].clone();
        let other = key.operation == OperationId::SnapCreate && self.random.random_bool(0.25);
        let ask = if other { key.ask().header("X-EXTERNAL-ID", &id(1_000_000 + key.tag)) } else { key.ask() };
        for _ in 0..self.random.random_range(1..4) {
            self.send(&key, ask.clone());
        }
    }

    fn send(&mut self, key: &Key, ask: Ask) {
        self.log.push(format!("{} tag {} number {:?}", key.operation.name(), key.tag, key.number));
        let call = tokio::spawn(self.world.send(ask));
        let first = self.sent.insert(key.clone());
        self.under_way.push(Sent {
            key: key.clone(),
            stood: self.stood.contains_key(key),
            call,
            since: self.slept,
            first,
        });
    }

    /// Another body under ids that are taken: always refused, never sent.
    async fn conflict(&mut self) {
        let candidates: Vec<Key> = self.asked.iter().filter(|key| key.kind() != OperationKind::Read).cloned().collect();
        if candidates.is_empty() {
            return;
        }
        let key = candidates[self.random.random_range(0..candidates.len())].clone();
        if !self.is_taken(&key).await {
            return;
        }
        self.log.push(format!("conflict with tag {}", key.tag));
        let got = self.world.send(key.ask().set("/virtualAccountName", MARK)).await;
        self.check(
            got.reason() == "IDEMPOTENCY_CONFLICT",
            &format!("a conflict was answered {} {}", got.status, got.text()),
        );
    }

    async fn is_taken(&self, key: &Key) -> bool {
        self.world.admin(&format!("/idempotency/{}", id(key.tag))).await.status == 200
    }

    fn hang_up(&mut self) {
        if !self.under_way.is_empty() {
            let Sent { key, call, .. } = self.under_way.swap_remove(self.random.random_range(0..self.under_way.len()));
            self.log.push(format!("tag {} hangs up", key.tag));
            call.abort();
        }
    }

    /// Time passes, every timer in its turn, and the resolver looks.
    async fn wait(&mut self) {
        let millis = match self.random.random_range(0..10) {
            0..5 => self.random.random_range(0..3_000),
            5..8 => self.random.random_range(3_000..40_000),
            8 => self.random.random_range(40_000..1_000_000),
            _ => self.random.random_range(1_000_000..5_000_000),
        };
        let time = Duration::from_millis(millis).min(TIME_MAX.saturating_sub(self.passed));
        self.passed += time;
        self.log.push(format!("{time:?} pass"));
        self.slept += time;
        sleep(time).await;
        if self.random.random_bool(0.6) {
            self.look().await;
        }
    }

    async fn look(&mut self) {
        self.log.push("the resolver looks".to_owned());
        let resolver = Arc::clone(self.world.gateway.resolver());
        let looking = tokio::spawn(async move { resolver.look().await });
        // It may be caught in the middle by what comes next.
        if self.random.random_bool(0.5) {
            looking.await.unwrap();
        }
    }

    /// The clock jumps, as on a machine that was asleep.
    async fn jump(&mut self) {
        let time = Duration::from_secs(self.random.random_range(1..1_800)).min(TIME_MAX.saturating_sub(self.passed));
        self.passed += time;
        self.log.push(format!("the clock jumps by {time:?}"));
        advance(time).await;
    }

    async fn crash(&mut self) {
        self.log.push("crash".to_owned());
        self.dead.cancel();
        for sent in self.under_way.drain(..) {
            sent.call.abort();
        }
        self.live().await;
        self.nothing_is_forgotten().await;
    }

    /// What was under way or in doubt when the gateway died is shown by the next one.
    async fn nothing_is_forgotten(&self) {
        let listed = self.world.admin("/outcomes").await.text();
        for key in self.asked.iter().filter(|key| key.kind() != OperationKind::Read) {
            let page = self.world.admin(&format!("/idempotency/{}", id(key.tag))).await;
            let open = page.status == 200 && page.json()["known"][0]["state"] == "in_doubt";
            let shown = listed.contains(&id(key.tag));
            self.check(open == shown, &format!("tag {}: in doubt {open}, listed {shown}", key.tag));
        }
    }

    /// Holds every answer that has come against the model.
    async fn collect(&mut self) {
        let sent = std::mem::take(&mut self.under_way);
        let (ended, under_way): (Vec<_>, Vec<_>) = sent.into_iter().partition(|sent| sent.call.is_finished());
        self.under_way = under_way;
        self.nobody_waits_too_long();
        let mut alone = self.sent.clone();
        ended.iter().chain(&self.under_way).filter(|sent| !sent.first).for_each(|sent| {
            alone.remove(&sent.key);
        });
        for Sent { key, stood, call, first, .. } in ended {
            let got = call.await.unwrap();
            self.judge(&key, &got, stood);
            if first && alone.contains(&key) {
                self.not_sent_is_true(&key, &got).await;
            }
        }
    }

    /// Nobody waits for longer than the deadline and a wait to join.
    fn nobody_waits_too_long(&self) {
        for sent in &self.under_way {
            let waited = self.slept - sent.since;
            self.check(waited <= PATIENCE, &format!("tag {} waits for {waited:?}", sent.key.tag));
        }
    }

    /// "Provably not sent" must be so; judged where nothing else was sent under those ids.
    async fn not_sent_is_true(&self, key: &Key, got: &Got) {
        let says = matches!(got.reason(), "UPSTREAM_UNAVAILABLE" | "TOKEN_UNAVAILABLE");
        if says && key.kind() == OperationKind::Create {
            let accounts = self.world.control("GET", "/_sandbox/accounts", Value::Null).await.to_string();
            let numbered = !key.number.is_empty() && accounts.contains(&key.number);
            let made = numbered || accounts.contains(&id(key.tag));
            self.check(!made, &format!("tag {} was made and the app was told {}", key.tag, got.reason()));
        }
    }

    fn judge(&mut self, key: &Key, got: &Got, stood: bool) {
        self.log.push(format!("tag {} got {} {} {}", key.tag, got.status, got.source(), got.reason()));
        if key.kind() == OperationKind::Read {
            return;
        }
        let said = format!("tag {} got {} {}", key.tag, got.status, got.text());
        self.check(!stood || got.source() == "replay", &format!("it was answered before and is not replayed: {said}"));
        if !stands(got) {
            return;
        }
        let answer = (got.status, got.body.clone());
        let first = self.stood.entry(key.clone()).or_insert_with(|| answer.clone()).clone();
        self.check(first == answer, &format!("another answer than before: {said}"));
    }

    /// All is well again: everything ends, is asked for once more, and adds up.
    async fn end(&mut self) {
        self.log.push("all is well again".to_owned());
        self.world.wire.script(|_| Act::Deliver);
        // Whatever was under way to upstream arrives.
        sleep(Duration::from_secs(400)).await;
        self.look().await;
        sleep(Duration::from_secs(60)).await;
        self.collect().await;
        self.check(self.under_way.is_empty(), "a request hangs");
        self.check(self.world.gateway.tasks().is_empty(), "something is still under way");
        let keys: Vec<Key> = self.asked.iter().filter(|key| key.kind() != OperationKind::Read).cloned().collect();
        for key in &keys {
            let got = self.world.send(key.ask()).await;
            self.judge(key, &got, self.stood.contains_key(key));
            self.settled(key, &got);
        }
        self.updatable().await;
        self.adds_up().await;
    }

    /// What a repetition may still be answered once all is well.
    fn settled(&self, key: &Key, got: &Got) {
        let fine = match (key.operation, got.status) {
            // It cannot be looked up: upstream knows the id, and the create stays in doubt.
            // A conflict that cannot be settled: upstream chose the number, or no prefix is known.
            (OperationId::ClassicCreate | OperationId::SnapCreate, 504) => got.reason() == "OUTCOME_UNKNOWN",
            (_, 400) => got.text().contains("X-TIMESTAMP"),
            _ => stands(got) && got.status < 300,
        };
        self.check(fine, &format!("tag {} ends with {} {}", key.tag, got.status, got.text()));
    }

    /// Every create that was answered can be updated, under its own reference.
    async fn updatable(&mut self) {
        let made: Vec<(Key, String)> = self
            .stood
            .iter()
            .filter(|(key, answer)| is_made(key, answer))
            .map(|(key, answer)| (key.clone(), number_of(answer)))
            .collect();
        for (key, number) in made {
            self.next_tag += 1;
            let update = match key.operation {
                OperationId::SnapCreate => snap_update(self.next_tag, &number),
                _ => classic_update(&number),
            };
            let got = self.world.send(update).await;
            let fine = got.status == 200 && got.source() == "upstream";
            self.check(fine, &format!("tag {} cannot be updated: {} {}", key.tag, got.status, got.text()));
            if key.operation == OperationId::SnapCreate {
                let sent = self.world.wire.last().json()["originalReferenceNo"].clone();
                let (_, body) = &self.stood[&key];
                let body: Value = serde_json::from_slice(body).unwrap();
                self.check(sent == body["virtualAccountData"]["referenceNo"], &format!("tag {}: {sent}", key.tag));
            }
        }
    }

    async fn adds_up(&self) {
        let stat = |name| self.world.stat(name);
        self.check(stat("duplicate_creates").await == 0, "the ledger shows a second create");
        let creates = self.asked.iter().filter(|key| key.kind() == OperationKind::Create).count() as u64;
        let made = stat("creates").await;
        self.check(made <= creates, &format!("{made} accounts for {creates} creates"));
        let conflicting =
            self.world.wire.all().iter().any(|arrived| String::from_utf8_lossy(&arrived.body).contains(MARK));
        self.check(!conflicting, "a conflict reached upstream");
        self.world.gateway.resolver().look().await;
        let outcomes = self.world.admin("/outcomes").await.json()["outcomes"].clone();
        let text = self.world.scrape().await;
        let lines = text.lines().filter_map(|line| line.strip_prefix("ayova_unknown_outcomes{")?.rsplit(' ').next());
        let gauge: u64 = lines.map(|count| count.parse::<u64>().unwrap()).sum();
        self.check(outcomes.as_array().unwrap().len() as u64 == gauge, &format!("the gauge shows {gauge}: {outcomes}"));
    }

    #[track_caller]
    fn check(&self, holds: bool, what: &str) {
        assert!(
            holds,
            "{what}\nseed {} (AYOVA_MODEL_SEED={} cargo test failures::model)\n{}",
            self.seed,
            self.seed,
            self.log.join("\n")
        );
    }
}

/// Anything that may go wrong, for logins too.
fn trouble_of(random: &mut StdRng, arrived: &Arrived) -> Act {
    let late = Duration::from_millis(match random.random_range(0..4) {
        0 => random.random_range(0..1_000),
        1 => random.random_range(1_000..10_000),
        _ => random.random_range(10_000..200_000),
    });
    match random.random_range(0..14) {
        0 | 1 => Act::NotSent,
        2 => Act::Broken,
        3..6 => Act::Swallow,
        6 => Act::Hang,
        7 | 8 => Act::Late(late),
        9 => Act::Answer([500, 502, 503, 504][random.random_range(0..4)], "<html>busy</html>"),
        10 => Act::Instead(200, ""),
        11 => Act::Instead(200, "{\"responseCode\":\"20027"),
        12 => Act::Answer(429, "{\"responseCode\":\"4290000\"}"),
        _ if arrived.is_login() => Act::Answer(401, "{}"),
        _ => Act::Answer(401, "{\"responseCode\":\"4010001\"}"),
    }
}

/// Whether an answer is one that is kept (contract section 5 rule 4). A request that was on its way
/// for longer than upstream lets a timestamp be old is refused for that, which says nothing of an
/// earlier try.
fn stands(got: &Got) -> bool {
    if got.status == 400 && got.text().contains("X-TIMESTAMP") {
        return false;
    }
    let of_upstream = got.source() != "gateway" || got.reason() == "SETTLED_BY_INQUIRY";
    of_upstream && matches!(got.status, 200..=299 | 400 | 402..=407 | 409..=428)
}

fn is_made(key: &Key, (status, _): &(u16, Bytes)) -> bool {
    key.kind() == OperationKind::Create && *status < 300
}

/// The number an app would write down from a create's answer.
fn number_of((_, body): &(u16, Bytes)) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    let data = &body["virtualAccountData"];
    data["virtualAccountNo"].as_str().or(data["virtualAccountNumber"].as_str()).unwrap().to_owned()
}

fn schedule(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(seed).await;
        for _ in 0..run.random.random_range(STEPS) {
            run.step().await;
        }
        run.end().await;
    });
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn random_schedules_keep_every_promise() {
    if let Some(seed) = from_environment("AYOVA_MODEL_SEED") {
        schedule(seed);
        return;
    }
    let schedules = from_environment("AYOVA_MODEL_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        let worker = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= schedules {
                    return;
                }
                schedule(seed);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}
