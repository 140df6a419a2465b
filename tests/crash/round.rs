//! One round: load, death, restart, comparison.
//!
//! What takes time and no work, an app's hearing of payments it has refused once, is left to the
//! round's [`Rest`], which may go on beside the next rounds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ayova::crash::Place;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::client::{Answer, CLASSIC_FROM, Order, get, put_faults};
use crate::payments::{self, ANNOUNCED, Announcements, Told};
use crate::processes::{Process, World};

/// Apps that send at once.
const CLIENTS: u64 = 16;

/// Orders in a round; few, so that duplicates meet each other.
const ORDERS: u64 = 40;

/// Classic orders in a round.
const CLASSIC_ORDERS: u64 = 20;

/// Longest time an order may stay without an answer after the restart: twice the gateway's deadline.
const SETTLED_WITHIN: Duration = Duration::from_secs(12);

/// What was seen in all rounds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    answered: u64,
    unanswered: u64,
    updates: u64,
    places: u64,
    acknowledged: u64,
    dead: u64,
    again: u64,
}

impl Figures {
    /// Adds a round.
    pub(crate) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.updates += other.updates;
        self.places += other.places;
    }

    /// Adds what came of a round's payments.
    pub(crate) fn add_told(&mut self, told: &Told) {
        self.acknowledged += told.acknowledged;
        self.dead += told.dead;
        self.again += told.again;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} creates answered before a death, {} left without an answer by it, {} updates, {} deaths at chosen places, \
             {} callbacks acknowledged ({} in dead letter), {} deliveries of what the app had",
            self.answered, self.unanswered, self.updates, self.places, self.acknowledged, self.dead, self.again
        )
    }
}

/// What the apps know of their orders.
#[derive(Debug, Default)]
struct Book {
    /// The first answer of each order that got one.
    answers: BTreeMap<u64, Bytes>,
    /// Orders that were sent at least once.
    sent: BTreeMap<u64, u64>,
    updates: u64,
    broken: Option<String>,
}

impl Book {
    /// A create's answer: the first is kept, every later one must be the same bytes.
    fn created(&mut self, order: Order, answer: Answer) {
        if answer.status >= 300 {
            let expected =
                matches!(answer.reason.as_str(), "OUTCOME_UNKNOWN" | "TOKEN_UNAVAILABLE" | "UPSTREAM_UNAVAILABLE");
            if !expected {
                self.broken =
                    Some(format!("a create was answered {} {} {:?}", answer.status, answer.reason, answer.body));
            }
            return;
        }
        let first = self.answers.entry(order.0).or_insert_with(|| answer.body.clone());
        if *first != answer.body {
            self.broken = Some(format!("order {} has two answers: {first:?} and {:?}", order.0, answer.body));
        }
    }
}

/// What is left of a round: the app is to hear of every acknowledged callback.
pub(crate) struct Rest {
    world: World,
    _gateway: Process,
    app: App,
    announcements: Announcements,
}

impl Rest {
    /// Waits for that and judges it.
    pub(crate) async fn end(self) -> Result<Told, String> {
        payments::compare(&self.world, &self.app, &self.announcements).await
    }
}

fn faults(share: f64) -> serde_json::Value {
    json!([
        {"match": {"operation": "snap.create", "probability": share}, "fault": {"reset_after_commit": true}},
        {"match": {"operation": "snap.create", "probability": share}, "fault": {"reset_before": true}},
        {"match": {"operation": "classic.create", "probability": share}, "fault": {"reset_after_commit": true}},
        {"match": {"operation": "classic.create", "probability": share}, "fault": {"reset_before": true}},
        {"match": {"operation": "classic.create", "probability": 0.3}, "fault": {"latency": "20ms"}},
        {"match": {"operation": "snap.create", "probability": 0.3}, "fault": {"latency": "20ms"}},
        {"match": {"operation": "snap.update", "probability": 0.3}, "fault": {"latency": "20ms"}},
    ])
}

/// Plays the round of a seed.
pub(crate) async fn play(seed: u64) -> Result<(Figures, Rest), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mode = if random.random_bool(0.5) { "replay" } else { "conflict" };
    let (app, well) = payments::app(random.random(), random.random_bool(0.25)).await;
    // A gateway that asks is told no lies: of the payments only the sandbox's are true.
    let asks = random.random_bool(0.5);
    let world = World::new(mode, &app.deliver(), asks).await?;
    put_faults(world.sandbox, faults(random.random_range(0.0..0.1))).await?;
    let place = random.random_bool(0.5).then(|| {
        let place = Place::ALL[random.random_range(0..Place::ALL.len())];
        format!("{}:{}", place.name(), random.random_range(1..40))
    });
    let mut gateway = world.start_gateway(place.as_deref()).await?;
    let book = Rc::new(RefCell::new(Book::default()));
    let apps = LocalSet::new();
    for app in 0..CLIENTS {
        let (book, seed, to) = (Rc::clone(&book), random.random::<u64>() ^ app, world.gateway);
        apps.spawn_local(async move { app_loop(seed, to, &book).await });
    }
    let announcements = Rc::new(RefCell::new(Announcements::default()));
    for account in (0..ANNOUNCED).filter(|_| !asks) {
        let (book, seed, to) = (Rc::clone(&announcements), random.random(), world.callbacks);
        apps.spawn_local(async move { payments::announce(seed, to, account, &book).await });
    }
    apps.spawn_local(payments::pay(random.random(), world.sandbox));
    let lifetime = Duration::from_millis(random.random_range(5..350));
    let deadline = Instant::now() + if place.is_some() { Duration::from_secs(3) } else { lifetime };
    apps.run_until(async {
        while Instant::now() < deadline && gateway.runs() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    gateway.kill();
    // Requests that are on the way now find nobody; their apps know no more than that.
    drop(apps);
    well.store(true, Ordering::Relaxed);
    put_faults(world.sandbox, json!([])).await?;
    let again = world.start_gateway(None).await?;
    let mut book = book.take();
    if let Some(broken) = book.broken.take() {
        return Err(broken);
    }
    let figures = Figures {
        answered: book.answers.len() as u64,
        unanswered: book.sent.keys().filter(|order| !book.answers.contains_key(order)).count() as u64,
        updates: book.updates,
        places: u64::from(place.is_some()),
        ..Figures::default()
    };
    payments::repeat(random.random(), world.callbacks, &announcements).await;
    compare(&world, book).await?;
    Ok((figures, Rest { world, _gateway: again, app, announcements: announcements.take() }))
}

/// Sends orders, most of them more than once, and updates of those that were answered.
async fn app_loop(seed: u64, to: std::net::SocketAddr, book: &RefCell<Book>) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let order = Order(if random.random_bool(0.3) {
            CLASSIC_FROM + random.random_range(0..CLASSIC_ORDERS)
        } else {
            random.random_range(1..=ORDERS)
        });
        let created = book.borrow().answers.get(&order.0).cloned();
        if let Some(created) = created.filter(|_| random.random_bool(0.3)) {
            let nth = random.random_range(1..1_000_000);
            if order.update(to, nth, &created).await.is_some_and(|answer| answer.status == 200) {
                book.borrow_mut().updates += 1;
            }
        } else {
            *book.borrow_mut().sent.entry(order.0).or_default() += 1;
            if let Some(answer) = order.create(to).await {
                book.borrow_mut().created(order, answer);
            } else {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Holds what the apps know against what upstream and the restarted gateway say.
async fn compare(world: &World, mut book: Book) -> Result<(), String> {
    let answered: Vec<(u64, Bytes)> = book.answers.iter().map(|(order, answer)| (*order, answer.clone())).collect();
    // Updates first: the reference must come from the store, not from a create sent again.
    for (nth, (order, created)) in answered.iter().enumerate() {
        let answer = Order(*order).update(world.gateway, 2_000_000 + nth as u64, created).await;
        if answer.as_ref().is_none_or(|answer| answer.status != 200) {
            return Err(format!("order {order} cannot be updated after the restart: {answer:?}"));
        }
    }
    for (order, _) in answered {
        let answer = Order(order).create(world.gateway).await;
        if answer.as_ref().is_none_or(|answer| answer.status >= 300 || !answer.replayed) {
            return Err(format!("order {order} was answered before the death and is not replayed: {answer:?}"));
        }
        answer.into_iter().for_each(|answer| book.created(Order(order), answer));
    }
    settle(world, &mut book).await?;
    if let Some(broken) = book.broken.take() {
        return Err(broken);
    }
    if world.under_way().await? != 0 {
        return Err("something is still under way".to_owned());
    }
    ledger(world, &book).await
}

/// Repeats what has no answer, in turn, until everything has one.
async fn settle(world: &World, book: &mut Book) -> Result<(), String> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let unanswered = book.sent.keys().copied().filter(|order| !book.answers.contains_key(order));
    // One that is new goes first: where nothing was answered before the death, nothing has shown the
    // prefix of the merchant's numbers yet, without which a conflict with an earlier try cannot be
    // settled (contract section 9).
    let mut open: Vec<u64> = std::iter::once(ORDERS + 1).chain(unanswered).collect();
    book.sent.insert(ORDERS + 1, 1);
    while !open.is_empty() {
        if Instant::now() > deadline {
            return Err(format!("orders {open:?} have no answer {SETTLED_WITHIN:?} after the restart"));
        }
        for order in std::mem::take(&mut open) {
            match Order(order).create(world.gateway).await {
                Some(answer) if answer.status < 300 => book.created(Order(order), answer),
                // It arrived before the death; what became of it cannot be asked, so this is its answer.
                Some(answer) if Order(order).is_classic() && answer.reason == "OUTCOME_UNKNOWN" => {}
                Some(answer) => {
                    book.created(Order(order), answer);
                    open.push(order);
                }
                None => open.push(order),
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Upstream made each order's account once.
async fn ledger(world: &World, book: &Book) -> Result<(), String> {
    let stats = get(world.sandbox, "/_sandbox/stats").await?;
    if stats["duplicate_creates"] != 0 || stats["creates"] != stats["distinct_keys"] {
        return Err(format!("a create happened twice: {stats}"));
    }
    let ledger = get(world.sandbox, "/_sandbox/accounts").await?;
    let ledger = ledger["accounts"].as_array().cloned().unwrap_or_default();
    for order in book.sent.keys() {
        let (transaction, name) = (Order(*order).transaction(), Order(*order).name());
        let is_it = |data: &serde_json::Value| {
            if Order(*order).is_classic() { data["virtualAccountName"] == *name } else { data["trxId"] == *transaction }
        };
        let made = ledger.iter().filter(|account| is_it(&account["virtualAccountData"])).count();
        if made != 1 {
            return Err(format!("order {order} has {made} accounts upstream"));
        }
    }
    Ok(())
}
