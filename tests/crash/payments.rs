//! Payments: what customers pay, what is announced of it, and what the merchant's app hears.
//!
//! Some payments are made in the sandbox, which announces them itself. The others only exist in their
//! announcements, so that those can come twice, at once and in any order. The app stumbles in some
//! rounds before the death (500, 410) and takes everything afterwards.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::app::{App, Delivery, status};
use crate::client::{get, send};
use crate::processes::{World, callback_path};

/// Accounts whose payments are announced by the test, half of them classic.
pub(crate) const ANNOUNCED: u64 = 4;

/// Announcements repeated after the restart.
const REPEATED: usize = 60;

/// Longest time until the app has heard of everything: an attempt that failed is followed by another
/// five to six seconds later, and the machine may be busy.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// The merchant's app of a round, and the switch that makes it take everything.
pub(crate) async fn app(seed: u64, stumbles: bool) -> (App, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(!stumbles));
    let (calm, mut random) = (Arc::clone(&well), StdRng::seed_from_u64(seed));
    let answer = move |_: &Delivery| match random.random_range(0..100) {
        0..3 if !calm.load(Ordering::Relaxed) => status(500),
        3 if !calm.load(Ordering::Relaxed) => status(410),
        _ => status(204),
    };
    (App::start(answer).await, well)
}

/// An announcement made by the test.
struct Announced {
    dialect: &'static str,
    account: u64,
    body: Value,
    /// When it was sent first, and when its sender first saw it acknowledged, in the test's own order.
    sent: u64,
    acknowledged: Option<u64>,
}

/// What the announcers know, by payment.
#[derive(Default)]
pub(crate) struct Announcements {
    moment: u64,
    by_payment: BTreeMap<String, Announced>,
    broken: Option<String>,
}

impl Announcements {
    fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

/// What two announcements of one payment have in common.
fn payment(body: &Value) -> String {
    let data = &body["virtualAccountData"];
    match &data["paymentDetails"] {
        Value::Null => format!("{}/{}/{}", data["virtualAccountNo"], data["latestPaidTime"], data["latestPaidAmount"]),
        details => format!("{}/{}", data["virtualAccountId"], details["trxRefID"]),
    }
}

fn body(account: u64, nth: u64) -> (&'static str, Value) {
    if account.is_multiple_of(2) {
        let time = format!("2026-01-05T{:02}:{:02}:{:02}+07:00", nth / 3_600, nth / 60 % 60, nth % 60);
        let number = format!("   14629{:011}", 90_000_000_000 + account);
        let data = json!({"virtualAccountNo": number, "latestPaidAmount": "1000.00", "latestPaidTime": time});
        return ("snap", json!({"responseCode": "2003400", "virtualAccountData": data}));
    }
    let data = json!({
        "virtualAccountId": format!("{account:027}"),
        "virtualAccountNumber": format!("{:016}", 9_000_000_000 + account),
        "paymentDetails": {"trxRefID": nth.to_string(), "amount": "1000.00"},
    });
    ("classic", json!({"code": 200, "virtualAccountData": data}))
}

/// Announces one account's payments, one after the other and otherwise.
pub(crate) async fn announce(seed: u64, to: SocketAddr, account: u64, book: &RefCell<Announcements>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut nth = 0;
    loop {
        nth += 1;
        let at_once = match random.random_range(0..4) {
            0 => vec![nth],
            1 => vec![nth, nth],
            2 => vec![nth + 1, nth],
            _ => vec![nth, random.random_range(1..=nth)],
        };
        join_all(at_once.iter().map(|nth| post(to, account, body(account, *nth), book))).await;
        nth = at_once.into_iter().max().unwrap_or(nth);
        sleep(Duration::from_millis(4)).await;
    }
}

async fn post(to: SocketAddr, account: u64, (dialect, body): (&'static str, Value), book: &RefCell<Announcements>) {
    let payment = payment(&body);
    {
        let mut book = book.borrow_mut();
        let sent = book.tick();
        let first = Announced { dialect, account, body: body.clone(), sent, acknowledged: None };
        book.by_payment.entry(payment.clone()).or_insert(first);
    }
    let Some(answer) = send(to, Method::POST, &callback_path(dialect), "", Some(body)).await else { return };
    let mut book = book.borrow_mut();
    match (dialect, answer.status) {
        ("snap", 200) | ("classic", 201) => {
            let now = book.tick();
            if let Some(announced) = book.by_payment.get_mut(&payment) {
                announced.acknowledged.get_or_insert(now);
            }
        }
        // It could not be kept in time; its sender knows to come again.
        ("snap", 503) => {}
        (_, other) => book.broken = Some(format!("a {dialect} callback was answered {other}")),
    }
}

/// Pays accounts that the sandbox has, which announces it.
pub(crate) async fn pay(seed: u64, sandbox: SocketAddr) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let known = get(sandbox, "/_sandbox/accounts").await.unwrap_or_default();
        let accounts = known["accounts"].as_array().map(Vec::as_slice).unwrap_or_default();
        for _ in 0..accounts.len().min(6) {
            let account = &accounts[random.random_range(0..accounts.len())];
            let data = &account["virtualAccountData"];
            let price = if account["dialect"] == "snap" { &data["totalAmount"] } else { &data["billAmount"] };
            let name = if account["dialect"] == "snap" { "virtualAccountNo" } else { "virtualAccountNumber" };
            let body = json!({name: account["number"], "amount": price["value"]});
            // Refused where an update has changed the price meanwhile.
            send(sandbox, Method::POST, "/_sandbox/pay", "", Some(body)).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Announces again, as senders do who have seen no answer and some who have.
pub(crate) async fn repeat(seed: u64, to: SocketAddr, book: &RefCell<Announcements>) {
    let mut random = StdRng::seed_from_u64(seed);
    let known: Vec<(u64, &'static str, Value)> = {
        let book = book.borrow();
        book.by_payment.values().map(|known| (known.account, known.dialect, known.body.clone())).collect()
    };
    let share = f64::from(u32::try_from(REPEATED).unwrap()) / known.len().max(REPEATED) as f64;
    let again = known.into_iter().filter(|_| random.random_bool(share));
    join_all(again.map(|(account, dialect, body)| post(to, account, (dialect, body), book))).await;
}

/// What came of a round's payments.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Payments whose announcement was acknowledged.
    pub(crate) acknowledged: u64,
    /// Those of them that are in dead letter.
    pub(crate) dead: u64,
    /// Deliveries of what the app had already.
    pub(crate) again: u64,
}

/// Waits until the app has heard of everything that was acknowledged, and looks at how.
pub(crate) async fn compare(world: &World, app: &App, book: &Announcements) -> Result<Told, String> {
    if let Some(broken) = &book.broken {
        return Err(broken.clone());
    }
    let ours = book.by_payment.iter().filter(|(_, known)| known.acknowledged.is_some());
    let mut owed: BTreeSet<String> = ours.map(|(payment, _)| payment.clone()).collect();
    owed.extend(of_sandbox(world).await?);
    let acknowledged = owed.len() as u64;
    let deadline = Instant::now() + HEARD_WITHIN;
    let mut dead = BTreeSet::new();
    loop {
        app.look(|heard| {
            heard.iter().filter(|delivery| delivery.is_taken()).for_each(|delivery| {
                owed.remove(&payment(&delivery.event["data"]["upstream"]));
            })
        });
        let open: BTreeSet<String> = owed.difference(&dead).cloned().collect();
        if open.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!(
                "acknowledged, and {HEARD_WITHIN:?} after the restart the app has not heard: {open:?}"
            ));
        }
        for (id, payment) in ids_of(app, &open) {
            if get(world.admin, &format!("/callbacks/{id}")).await?["state"] == "dead" {
                dead.insert(payment);
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    let again = app.look(|heard| once_and_in_order(heard, book))?;
    Ok(Told { acknowledged, dead: dead.len() as u64, again })
}

/// Payments whose announcement the sandbox saw acknowledged.
async fn of_sandbox(world: &World) -> Result<BTreeSet<String>, String> {
    let page = get(world.sandbox, "/_sandbox/callbacks").await?;
    let sent = page["callbacks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let acknowledged = sent.iter().filter(|callback| callback["state"] == "delivered");
    let body = |callback: &Value| serde_json::from_str(callback["body"].as_str().unwrap_or_default());
    acknowledged.map(|callback| body(callback).map(|body| payment(&body)).map_err(|error| error.to_string())).collect()
}

/// The ids under which the app has been told of these and would not have them.
fn ids_of(app: &App, payments: &BTreeSet<String>) -> BTreeMap<String, String> {
    app.look(|heard| {
        let refused = heard.iter().filter(|delivery| delivery.status == Some(410));
        let known = refused.map(|delivery| (delivery.id.clone(), payment(&delivery.event["data"]["upstream"])));
        known.filter(|(_, payment)| payments.contains(payment)).collect()
    })
}

/// One id a payment and one payment an id; and what was acknowledged before another announcement of its
/// account was sent at all is taken before that. How many deliveries the app had taken before.
fn once_and_in_order(heard: &[Delivery], book: &Announcements) -> Result<u64, String> {
    let (mut ids, mut payments) = (BTreeMap::new(), BTreeMap::new());
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut again = 0;
    for (place, delivery) in heard.iter().enumerate() {
        let payment = payment(&delivery.event["data"]["upstream"]);
        if *ids.entry(payment.clone()).or_insert(&delivery.id) != &delivery.id {
            return Err(format!("the payment {payment} has two ids"));
        }
        if *payments.entry(&delivery.id).or_insert_with(|| payment.clone()) != payment {
            return Err(format!("the id {} has two payments", delivery.id));
        }
        if delivery.is_taken() {
            again += u64::from(taken.contains_key(&payment));
            taken.entry(payment).or_insert(place);
        }
    }
    let told = |payment: &String, known: &Announced| {
        Some((known.account, known.sent, known.acknowledged, *taken.get(payment)?))
    };
    let told: Vec<_> = book.by_payment.iter().filter_map(|(payment, known)| told(payment, known)).collect();
    for (account, _, acknowledged, place) in &told {
        let Some(acknowledged) = acknowledged else { continue };
        let overtaken = told.iter().any(|(other, sent, _, at)| other == account && sent > acknowledged && at < place);
        if overtaken {
            return Err(format!("payments of the account {account} came out of order"));
        }
    }
    Ok(again)
}
