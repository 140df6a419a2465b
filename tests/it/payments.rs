//! Payments that are confirmed and payments that are found: callbacks that lie, and callbacks that
//! never come, in memory on paused time.

use std::sync::Arc;
use std::time::Duration;

use ayova::config::{Callbacks, Confirm, Sweep};
use ayova::store::inbox::State;
use ayova::store::memory::MemoryStore;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::asks::{classic_create, classic_get, snap_create, snap_inquiry, snap_update};
use crate::callbacks::{Circle, SECRET, body, callbacks, seconds, snap_path};
use crate::harness::Setup;

pub(crate) const SWEEP: Sweep = Sweep {
    every: Duration::from_secs(600),
    before_expiry: Duration::from_secs(120),
    after_expiry: Duration::from_secs(300),
};

async fn circle(callbacks: Callbacks) -> Circle {
    Circle::with(Arc::new(MemoryStore::new(1 << 26, 1 << 25)), callbacks).await
}

pub(crate) async fn confirming() -> Circle {
    circle(Callbacks { confirm: Confirm::Unsigned, ..callbacks() }).await
}

pub(crate) async fn sweeping() -> Circle {
    circle(Callbacks { confirm: Confirm::Unsigned, sweep: Some(SWEEP), ..callbacks() }).await
}

/// A classic account that takes any number of payments; its number.
async fn classic(circle: &Circle, tag: u32, own: &str) -> String {
    let ask = classic_create(tag, own).set("/virtualAccountConfig/virtualAccountType", "static");
    number(&circle.world.send(ask).await.expect(201).json())
}

pub(crate) fn number(answer: &Value) -> String {
    let data = &answer["virtualAccountData"];
    let number =
        if data["virtualAccountNo"].is_null() { &data["virtualAccountNumber"] } else { &data["virtualAccountNo"] };
    number.as_str().unwrap().to_owned()
}

pub(crate) fn classic_path() -> String {
    format!("/callbacks/classic/AYOTST/{SECRET}")
}

/// What the app was told: type, number without blanks, amount, origin, confirmed.
pub(crate) fn told(circle: &Circle) -> Vec<(String, String, String, String, bool)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let event = |(_, event): (String, Value)| {
        let data = &event["data"];
        let amount = text(&data["amount"]["value"]);
        let confirmed = data["confirmed"].as_bool().unwrap();
        (text(&event["type"]), text(&data["virtualAccountNo"]), amount, text(&data["origin"]), confirmed)
    };
    circle.taken().into_iter().map(event).collect()
}

pub(crate) fn paid(number: &str, amount: &str, origin: &str) -> (String, String, String, String, bool) {
    ("va.paid".to_owned(), number.trim().to_owned(), amount.to_owned(), origin.to_owned(), true)
}

fn expired(number: &str) -> (String, String, String, String, bool) {
    ("va.expired".to_owned(), number.trim().to_owned(), String::new(), "sweep".to_owned(), true)
}

#[tokio::test(start_paused = true)]
async fn what_upstream_says_too_is_confirmed() {
    let circle = confirming().await;
    let snap = circle.account(1).await;
    let classic = classic(&circle, 2, "12345678").await;
    for _ in 0..2 {
        circle.pay("virtualAccountNo", &snap).await;
        circle.pay("virtualAccountNumber", &classic).await;
        seconds(5).await;
    }
    let mut told = told(&circle);
    told.sort();
    let mut expected = vec![];
    for number in [classic, snap] {
        expected.extend([paid(&number, "150000.00", "callback"), paid(&number, "150000.00", "callback")]);
    }
    assert_eq!(told, expected);
    let series = |dialect: &str| {
        format!(r#"ayova_confirmations_total{{merchant="sample",dialect="{dialect}",result="confirmed"}}"#)
    };
    assert_eq!(circle.world.metric(&series("snap")).await, 2.0);
    assert_eq!(circle.world.metric(&series("classic")).await, 2.0);
}

/// Callbacks that lie: of accounts nobody has paid, of accounts that do not exist, of money that was not
/// paid, of a payment that was told already under another name.
#[tokio::test(start_paused = true)]
async fn what_upstream_contradicts_is_never_told_as_paid() {
    let circle = confirming().await;
    let snap = circle.account(1).await;
    let own = classic_create(2, "12345678");
    let created = circle.world.send(own).await.expect(201).json();
    let claim = |created: &Value, amount: &str, reference: &str| {
        let mut body = json!({"code": 200, "message": "ok", "virtualAccountData": created["virtualAccountData"]});
        body["virtualAccountData"]["paymentDetails"] = json!({"trxRefID": reference, "amount": amount});
        body.to_string()
    };
    let stranger = claim(&created, "150000.00", "1")
        .replace(created["virtualAccountData"]["virtualAccountId"].as_str().unwrap(), "230411110614699649123IRGG6Q")
        .replace("12345678", "87654321");
    for (path, forged) in [
        (snap_path(), body(&snap, "2026-01-05T10:00:00+07:00")),
        (snap_path(), body("   1462999999999999", "2026-01-05T10:00:00+07:00")),
        (classic_path(), claim(&created, "150000.00", "1")),
        (classic_path(), stranger),
    ] {
        circle.call("POST", &path, &forged).await.unwrap();
    }
    seconds(60).await;
    assert_eq!(circle.listed(State::Pending).await.len(), 3, "upstream may be a moment behind");
    seconds(2 * 3_600).await;
    assert_eq!(circle.attempts(), 0);
    let aside = circle.listed(State::Quarantined).await;
    let mut why: Vec<_> = aside.iter().map(|event| event.said.clone().unwrap()).collect();
    why.sort();
    let (shown, known) = ("upstream does not show this payment", "upstream does not know this account");
    // One that says too little of a SNAP account cannot be asked about.
    let little = "it says too little of its account to ask upstream about it";
    assert_eq!(why, [little, known, shown, shown]);
    assert_eq!(
        circle
            .world
            .metric(r#"ayova_events_delivered_total{merchant="sample",type="va.paid",result="contradicted"}"#)
            .await,
        4.0
    );
    // The real payments of the same accounts are told, and only these.
    circle.pay("virtualAccountNo", &snap).await;
    circle.pay("virtualAccountNumber", &number(&created)).await;
    seconds(5).await;
    let mut all = told(&circle);
    all.sort();
    assert_eq!(all, [paid(&number(&created), "150000.00", "callback"), paid(&snap, "150000.00", "callback")]);
    // What was paid once is not paid again under another reference.
    circle.call("POST", &classic_path(), &claim(&created, "150000.00", "2")).await.unwrap();
    circle.call("POST", &snap_path(), &body(&snap, "2026-01-05T23:00:00+07:00")).await.unwrap();
    seconds(3_600).await;
    assert_eq!(circle.taken().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_payment_behind_a_later_one_is_told_unconfirmed_and_in_order() {
    let circle = confirming().await;
    let number = circle.account(1).await;
    let away = circle.line.0.lock().unwrap().take();
    circle.pay("virtualAccountNo", &number).await;
    seconds(2).await;
    circle.pay("virtualAccountNo", &number).await;
    seconds(1).await;
    *circle.line.0.lock().unwrap() = away;
    seconds(60).await;
    let told = told(&circle);
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].4, told[1].4), (false, true));
    let times: Vec<_> = circle.taken().iter().map(|(_, event)| event["data"]["paidAt"].clone()).collect();
    assert!(times[0].as_str() < times[1].as_str(), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn an_event_waits_while_upstream_cannot_be_asked() {
    let circle = confirming().await;
    let number = circle.account(1).await;
    let faults = json!([{"match": {"operation": "snap.inquiry"}, "fault": {"status": 500, "body": ""}}]);
    circle.world.control("PUT", "/_sandbox/faults", faults).await;
    circle.pay("virtualAccountNo", &number).await;
    seconds(3 * 3_600).await;
    assert_eq!(circle.taken(), []);
    let waiting = circle.listed(State::Pending).await;
    assert_eq!((waiting[0].said.as_deref(), waiting[0].attempts), (Some("upstream could not be asked"), 0));
    circle.world.control("PUT", "/_sandbox/faults", json!([])).await;
    seconds(90).await;
    assert_eq!(told(&circle), [paid(&number, "150000.00", "callback")]);
}

#[tokio::test(start_paused = true)]
async fn whom_the_signature_convinced_is_asked_about_only_where_that_is_wanted() {
    let circle = circle(Callbacks { confirm: Confirm::Never, ..callbacks() }).await;
    circle.call("POST", &snap_path(), &body("   1462912345678901", "2026-01-05T10:00:00+07:00")).await;
    seconds(5).await;
    assert_eq!(circle.taken()[0].1["data"]["confirmed"], false);
    assert!(circle.world.wire.calls().is_empty(), "nobody was asked");
}

#[tokio::test(start_paused = true)]
async fn payments_whose_callbacks_are_lost_are_found_and_told_once() {
    let circle = sweeping().await;
    let away = circle.line.0.lock().unwrap().take();
    let snap = circle.account(1).await;
    let classic = classic(&circle, 2, "12345678").await;
    for _ in 0..3 {
        circle.pay("virtualAccountNo", &snap).await;
        circle.pay("virtualAccountNumber", &classic).await;
        seconds(700).await;
    }
    let mut all = told(&circle);
    all.sort();
    let mut expected = vec![paid(&classic, "150000.00", "sweep"); 3];
    expected.extend(vec![paid(&snap, "150000.00", "sweep"); 3]);
    assert_eq!(all, expected);
    assert_eq!(circle.world.metric(r#"ayova_sweeps_total{merchant="sample",dialect="snap",result="paid"}"#).await, 3.0);
    // Their callbacks come after all.
    *circle.line.0.lock().unwrap() = away;
    for (_, event) in circle.taken() {
        let mut late = event["data"]["upstream"].clone();
        let is_snap = event["data"]["dialect"] == "snap";
        if !is_snap {
            let total = late["virtualAccountData"]["totalAmount"]["value"].as_str().unwrap().to_owned();
            late["virtualAccountData"]["paymentDetails"] = json!({"trxRefID": total, "amount": "150000.00"});
        }
        let path = if is_snap { snap_path() } else { classic_path() };
        circle.call("POST", &path, &late.to_string()).await.unwrap();
    }
    seconds(3_600).await;
    assert_eq!(circle.taken().len(), 6);
    let duplicates = |dialect: &str| {
        format!(r#"ayova_callbacks_received_total{{merchant="sample",dialect="{dialect}",result="duplicate"}}"#)
    };
    assert_eq!(circle.world.metric(&duplicates("snap")).await, 3.0);
    assert_eq!(circle.world.metric(&duplicates("classic")).await, 3.0);
    // The next payment is announced and told as ever.
    circle.pay("virtualAccountNumber", &classic).await;
    circle.pay("virtualAccountNo", &snap).await;
    seconds(5).await;
    let mut last = told(&circle).split_off(6);
    last.sort();
    assert_eq!(last, [paid(&classic, "150000.00", "callback"), paid(&snap, "150000.00", "callback")]);
    seconds(2 * 3_600).await;
    assert_eq!(circle.taken().len(), 8, "and not found again");
}

#[tokio::test(start_paused = true)]
async fn several_lost_classic_payments_are_found_as_their_sum() {
    let circle = sweeping().await;
    let classic = classic(&circle, 2, "12345678").await;
    circle.pay("virtualAccountNumber", &classic).await;
    seconds(5).await;
    let away = circle.line.0.lock().unwrap().take();
    circle.pay("virtualAccountNumber", &classic).await;
    circle.pay("virtualAccountNumber", &classic).await;
    seconds(60).await;
    *circle.line.0.lock().unwrap() = away;
    circle.pay("virtualAccountNumber", &classic).await;
    seconds(700).await;
    let told = told(&circle);
    assert_eq!(
        told,
        [
            paid(&classic, "150000.00", "callback"),
            paid(&classic, "150000.00", "callback"),
            paid(&classic, "300000.00", "sweep")
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_account_is_told_once() {
    let circle = sweeping().await;
    // Both end after a day; one of each generation is paid up before.
    let unpaid = circle.account(1).await;
    let single = number(&circle.world.send(snap_create(2, "")).await.expect(200).json());
    circle.pay("virtualAccountNo", &single).await;
    let classic_unpaid =
        number(&circle.world.send(classic_create(3, "12345678").set("/expiresIn", 1_440)).await.expect(201).json());
    let classic_single =
        number(&circle.world.send(classic_create(4, "12345679").set("/expiresIn", 1_440)).await.expect(201).json());
    circle.pay("virtualAccountNumber", &classic_single).await;
    seconds(60).await;
    assert_eq!(circle.taken().len(), 2);
    seconds(25 * 3_600).await;
    let mut ends = told(&circle).split_off(2);
    ends.sort();
    assert_eq!(ends, [expired(&classic_unpaid), expired(&unpaid)]);
    let snap_end = circle
        .taken()
        .into_iter()
        .find(|(_, event)| event["data"]["dialect"] == "snap" && event["type"] == "va.expired");
    assert_eq!(snap_end.unwrap().1["data"]["expiredAt"], "2026-01-06T10:00:00+07:00");
    seconds(24 * 3_600).await;
    assert_eq!(circle.taken().len(), 4, "once");
    let asked = circle.world.wire.calls().len();
    seconds(12 * 3_600).await;
    assert_eq!(circle.world.wire.calls().len(), asked, "what has ended is not asked about");
    // SNAP gives an account that ran out another time (snap.md section 9): it ends again.
    let later = snap_update(9, &unpaid)
        .set("/expiredDate", "2026-01-09T10:00:00+07:00")
        .set("/additionalInfo/isSingleUse", "N");
    circle.world.send(later).await.expect(200);
    seconds(2 * 24 * 3_600).await;
    let again = told(&circle).split_off(4);
    assert_eq!(again, [expired(&unpaid)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_paid_before_anybody_watched_is_not_told() {
    let circle = sweeping().await;
    // The account is made and paid past this gateway.
    let other = Setup::new(1).build_beside(&circle.world);
    let snap = number(&other.send(snap_create(1, "").set("/additionalInfo/isSingleUse", "N")).await.expect(200).json());
    let away = circle.line.0.lock().unwrap().take();
    circle.pay("virtualAccountNo", &snap).await;
    seconds(60).await;
    // This gateway gets to know it through an update under the app's own reference.
    let update = snap_update(2, &snap)
        .set("/originalReferenceNo", crate::asks::id(1))
        .set("/trxId", crate::asks::id(1))
        .set("/customerNo", "CUST000123")
        .set("/additionalInfo/isSingleUse", "N")
        .set("/totalAmount/value", "150000.00");
    circle.world.send(update).await.expect(200);
    seconds(700).await;
    assert_eq!(circle.taken(), []);
    circle.pay("virtualAccountNo", &snap).await;
    seconds(700).await;
    *circle.line.0.lock().unwrap() = away;
    assert_eq!(told(&circle), [paid(&snap, "150000.00", "sweep")], "what is paid from then on is");
}

#[tokio::test(start_paused = true)]
async fn questions_of_our_own_leave_the_apps_allowance_alone() {
    let mut setup = Setup::new(1);
    setup.limit(0, (4, 40), 64);
    setup.config.callbacks = Some(Callbacks { confirm: Confirm::Unsigned, sweep: Some(SWEEP), ..callbacks() });
    let circle = Circle::build(setup, Arc::new(MemoryStore::new(1 << 26, 1 << 25))).await;
    let mut numbers = Vec::new();
    for tag in 0..20 {
        numbers.push(circle.account(tag).await);
    }
    seconds(60).await;
    for number in &numbers {
        circle.pay("virtualAccountNo", number).await;
    }
    let before = circle.world.wire.calls().len();
    seconds(10).await;
    let asked = circle.world.wire.calls().len() - before;
    assert!((9..=12).contains(&asked), "a quarter of four a second: {asked}");
    // While these wait, the app has its whole burst.
    for _ in 0..40 {
        circle.world.send(snap_inquiry(&numbers[0])).await.expect(200);
    }
    seconds(60).await;
    assert_eq!(circle.taken().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_get_of_the_apps_own_is_no_sweep() {
    let circle = sweeping().await;
    let number = classic(&circle, 2, "12345678").await;
    circle.world.send(classic_get(&number)).await.expect(200);
    seconds(700).await;
    assert_eq!(circle.taken(), []);
    let request = Request::builder().method("POST").uri("/").body(Full::new(bytes::Bytes::new())).unwrap();
    let receiver = circle.line.0.lock().unwrap().clone().unwrap();
    assert_eq!(receiver.oneshot(request).await.unwrap().status(), StatusCode::NOT_FOUND);
}

/// What inquiries get instead of an answer.
pub(crate) async fn fault(circle: &Circle, fault: Value) {
    let faults = json!([{"match": {"operation": "snap.inquiry"}, "fault": fault}]);
    circle.world.control("PUT", "/_sandbox/faults", faults).await;
}

#[tokio::test(start_paused = true)]
async fn an_account_upstream_never_shows_again_is_asked_about_less_and_less_and_then_given_up() {
    const DAY: u64 = 24 * 3_600;
    let circle = sweeping().await;
    circle.account(1).await;
    fault(&circle, json!({"status": 500, "body": ""})).await;
    seconds(2 * DAY).await;
    let failed = r#"ayova_sweeps_total{merchant="sample",dialect="snap",result="failed"}"#;
    let looks = circle.world.metric(failed).await;
    assert!((45.0..60.0).contains(&looks), "{looks} in two days");
    seconds(6 * DAY).await;
    let asked = circle.world.wire.calls().len();
    seconds(DAY).await;
    assert_eq!((circle.world.wire.calls().len(), circle.taken().len()), (asked, 0));
}

#[tokio::test(start_paused = true)]
async fn an_account_ends_when_upstream_does_not_know_it_twice() {
    let circle = sweeping().await;
    let account = circle.account(1).await;
    seconds(24 * 3_600 + 200).await;
    // A question that is not taken says nothing of the account.
    for (status, code, long) in [(400, "4002400", 150), (404, "4042412", 100)] {
        let answer = format!(r#"{{"responseCode":"{code}","responseMessage":"No"}}"#);
        fault(&circle, json!({"status": status, "body": answer})).await;
        seconds(long).await;
        assert_eq!(circle.taken(), [], "{status}");
    }
    seconds(3_600).await;
    assert_eq!(told(&circle), [expired(&account)]);
}
