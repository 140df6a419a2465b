//! Callbacks somebody made up who knows their address: what they must not be able to do, in memory on
//! paused time.

use std::sync::Arc;
use std::time::Duration;

use ayova::config::{Callbacks, Confirm, Sweep};
use ayova::store::inbox::State;
use serde_json::{Value, json};

use crate::asks::{classic_create, snap_inquiry};
use crate::callbacks::{Circle, body, callbacks, seconds, snap_path};
use crate::harness::Setup;
use crate::payments::{SWEEP, classic_path, confirming, fault, number, paid, sweeping, told};

/// A classic callback about an account, as somebody with the address could make it up.
fn claim(created: &Value, account: Option<&str>, (amount, total): (&str, Option<&str>), reference: &str) -> String {
    let mut body = json!({"code": 200, "message": "ok", "virtualAccountData": created["virtualAccountData"]});
    let data = &mut body["virtualAccountData"];
    if let Some(account) = account {
        data["virtualAccountId"] = account.into();
    }
    data["paymentDetails"] = json!({"trxRefID": reference, "amount": amount});
    data["totalAmount"] = total.map_or(Value::Null, |total| json!({"value": total, "currency": "IDR"}));
    body.to_string()
}

fn unsure(paid: (String, String, String, String, bool)) -> (String, String, String, String, bool) {
    (paid.0, paid.1, paid.2, paid.3, false)
}

/// Waits, in real time, until the app was told so much.
async fn taken(circle: &Circle, count: usize) {
    for _ in 0..600 {
        if circle.taken().len() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not told in time: {:?}", told(circle));
}

const SHORT: Sweep = Sweep { every: Duration::from_secs(5), ..SWEEP };

/// Claims of all the money there is, in a file: no sum of them may stand in the way of other accounts.
#[tokio::test]
async fn absurd_claims_spoil_nobodys_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let options = ayova::store::sqlite::Options {
        path: folder.path().join("ayova.db"),
        answers_bytes: 1 << 20,
        accounts_bytes: 1 << 20,
        clock: Arc::new(ayova::clock::TestClock::new("2026-01-05T03:00:00Z".parse().unwrap())),
    };
    let store = Arc::new(ayova::store::sqlite::SqliteStore::open(&options).unwrap());
    let mut setup = Setup::new(1);
    setup.config.callbacks = Some(Callbacks { confirm: Confirm::Never, sweep: Some(SHORT), ..callbacks() });
    let circle = Circle::build(setup, store).await;
    let (one, other) = (circle.account(1).await, circle.account(2).await);
    for hour in 7..10 {
        let forged = body(&one, &format!("2020-01-05T0{hour}:00:00+07:00")).replace("1000.00", "9999999999999999.00");
        circle.call("POST", &snap_path(), &forged).await.unwrap();
    }
    taken(&circle, 3).await;
    circle.line.0.lock().unwrap().take();
    circle.pay("virtualAccountNo", &other).await;
    taken(&circle, 4).await;
    assert_eq!(told(&circle)[3], paid(&other, "150000.00", "sweep"));
    let all = jiff::Timestamp::MAX;
    assert_eq!(circle.store.watches().due("sample", all, all, 10).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_classic_payment_of_an_account_nobody_recorded_is_told_once_and_as_unsure() {
    let circle = confirming().await;
    let other = Setup::new(1).build_beside(&circle.world);
    let away = circle.line.0.lock().unwrap().take();
    let created = other.send(classic_create(2, "12345678")).await.expect(201).json();
    circle.pay("virtualAccountNumber", &number(&created)).await;
    seconds(100).await;
    *circle.line.0.lock().unwrap() = away;
    for (reference, amount) in [("a", "150000.00"), ("b", "150000.00"), ("c", "1.00")] {
        circle.call("POST", &classic_path(), &claim(&created, None, (amount, None), reference)).await.unwrap();
    }
    seconds(2 * 3_600).await;
    assert_eq!(told(&circle), [unsure(paid(&number(&created), "150000.00", "callback"))]);
    assert_eq!(circle.listed(State::Quarantined).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_claim_under_another_account_id_is_judged_by_that_id_and_holds_nothing_up() {
    let circle = confirming().await;
    let created = circle.world.send(classic_create(2, "12345678")).await.expect(201).json();
    circle.pay("virtualAccountNumber", &number(&created)).await;
    seconds(5).await;
    assert_eq!(circle.taken().len(), 1);
    let other = circle.world.send(classic_create(3, "87654321")).await.expect(201).json();
    let (foreign, made_up) = (other["virtualAccountData"]["virtualAccountId"].as_str().unwrap(), "X".repeat(27));
    for id in [foreign, &made_up] {
        let forged = claim(&created, Some(id), ("150000.00", None), "1");
        circle.call("POST", &classic_path(), &forged).await.unwrap();
    }
    circle.pay("virtualAccountNumber", &number(&other)).await;
    seconds(600).await;
    assert_eq!(told(&circle)[1..], [paid(&number(&other), "150000.00", "callback")]);
    assert_eq!(circle.listed(State::Pending).await.len(), 0);
    assert_eq!(circle.listed(State::Quarantined).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_small_claim_does_not_displace_the_payment() {
    let circle = confirming().await;
    let once = circle.world.send(classic_create(2, "12345678")).await.expect(201).json();
    let ask = classic_create(3, "87654321").set("/virtualAccountConfig/virtualAccountType", "static");
    let often = circle.world.send(ask).await.expect(201).json();
    for created in [&once, &often] {
        let forged = claim(created, None, ("1.00", Some("1.00")), "x");
        circle.call("POST", &classic_path(), &forged).await.unwrap();
        circle.pay("virtualAccountNumber", &number(created)).await;
    }
    seconds(600).await;
    let mut all = told(&circle);
    all.sort();
    assert_eq!(all, [paid(&number(&once), "150000.00", "callback"), paid(&number(&often), "150000.00", "callback")]);
    assert_eq!(circle.listed(State::Quarantined).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_callback_without_a_time_is_the_payment_it_can_be() {
    let circle = sweeping().await;
    let account = circle.account(1).await;
    let away = circle.line.0.lock().unwrap().take();
    circle.pay("virtualAccountNo", &account).await;
    seconds(10).await;
    *circle.line.0.lock().unwrap() = away;
    for name in ["A", "B"] {
        let data = json!({"virtualAccountNo": account, "latestPaidAmount": "150000.00", "virtualAccountName": name});
        let timeless = json!({ "virtualAccountData": data }).to_string();
        circle.call("POST", &snap_path(), &timeless).await.unwrap();
    }
    seconds(2_000).await;
    assert_eq!(told(&circle), [paid(&account, "150000.00", "callback")]);
    let shown = circle.world.send(snap_inquiry(&account)).await.expect(200).json();
    assert_eq!(circle.taken()[0].1["data"]["paidAt"], shown["virtualAccountData"]["latestPaidTime"]);
}

/// Two claims that are announced again and again, and many at once.
#[tokio::test(start_paused = true)]
async fn claims_do_not_keep_a_line_for_longer_than_upstream_may_be_behind() {
    let circle = confirming().await;
    let account = circle.account(1).await;
    fault(&circle, json!({"latency": "300ms"})).await;
    let forged = |n: u32| body(&account, &format!("2026-01-06T10:{:02}:{:02}+07:00", n / 60, n % 60));
    for n in 0..300 {
        circle.call("POST", &snap_path(), &forged(n)).await.unwrap();
    }
    let before = circle.world.wire.calls().len();
    circle.pay("virtualAccountNo", &account).await;
    for _ in 0..400 {
        if !circle.taken().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        for n in 0..2 {
            circle.call("POST", &snap_path(), &forged(n)).await.unwrap();
        }
    }
    assert_eq!(told(&circle), [paid(&account, "150000.00", "callback")]);
    let asked = circle.world.wire.calls().len() - before;
    assert!(asked < 30, "{asked} questions for three hundred claims");
}

#[tokio::test(start_paused = true)]
async fn one_denial_after_an_outage_is_not_the_end() {
    let circle = confirming().await;
    let account = circle.account(1).await;
    fault(&circle, json!({"status": 500, "body": ""})).await;
    circle.pay("virtualAccountNo", &account).await;
    seconds(3_700).await;
    let unknown = r#"{"responseCode":"4042412","responseMessage":"Not Found"}"#;
    fault(&circle, json!({"status": 404, "body": unknown})).await;
    seconds(61).await;
    let waiting = circle.listed(State::Pending).await;
    assert!(waiting[0].doubt.is_some(), "{waiting:?}");
    circle.world.control("PUT", "/_sandbox/faults", json!([])).await;
    seconds(120).await;
    assert_eq!(told(&circle), [paid(&account, "150000.00", "callback")]);
}

#[tokio::test(start_paused = true)]
async fn what_a_confirmed_event_says_of_its_account_is_the_records() {
    let circle = confirming().await;
    let account = circle.account(1).await;
    let away = circle.line.0.lock().unwrap().take();
    circle.pay("virtualAccountNo", &account).await;
    seconds(100).await;
    *circle.line.0.lock().unwrap() = away;
    let shown = circle.world.send(snap_inquiry(&account)).await.expect(200).json();
    let time = shown["virtualAccountData"]["latestPaidTime"].clone();
    let claim = |currency: &str| {
        let data = json!({"virtualAccountNo": account, "latestPaidTime": time, "trxId": "SOMEBODY-ELSES-ORDER",
            "latestPaidAmount": {"value": "150000.00", "currency": currency}, "referenceNo": "SOMEBODY-ELSES"});
        json!({ "virtualAccountData": data }).to_string()
    };
    circle.call("POST", &snap_path(), &claim("USD")).await.unwrap();
    seconds(300).await;
    assert_eq!(circle.taken(), []);
    circle.call("POST", &snap_path(), &claim("IDR")).await.unwrap();
    seconds(10).await;
    let data = circle.taken()[0].1["data"].clone();
    assert_eq!((&data["confirmed"], &data["trxId"]), (&json!(true), &shown["virtualAccountData"]["trxId"]));
    assert_ne!(data["referenceNo"], "SOMEBODY-ELSES");
}

/// Ayoconnect's callbacks of one account overtake each other; nothing is told again by asking.
#[tokio::test(start_paused = true)]
async fn callbacks_that_overtake_each_other_are_all_told_once() {
    let circle = sweeping().await;
    let away = circle.line.0.lock().unwrap().take();
    let ask = classic_create(2, "12345678")
        .set("/virtualAccountConfig/virtualAccountType", "static")
        .set("/virtualAccountConfig/amountType", "open")
        .set("/totalAmount/value", "0.00");
    let created = circle.world.send(ask).await.expect(201).json();
    for amount in ["10000.00", "20000.00", "40000.00"] {
        let pay = json!({"virtualAccountNumber": number(&created), "amount": amount});
        assert_eq!(circle.world.control("POST", "/_sandbox/pay", pay).await["paid"], true);
    }
    seconds(60).await;
    *circle.line.0.lock().unwrap() = away;
    for (reference, amount, total) in
        [("b", "20000.00", "30000.00"), ("a", "10000.00", "10000.00"), ("c", "40000.00", "70000.00")]
    {
        let callback = claim(&created, None, (amount, Some(total)), reference);
        circle.call("POST", &classic_path(), &callback).await.unwrap();
    }
    seconds(4 * 3_600).await;
    let expected = ["20000.00", "10000.00", "40000.00"].map(|amount| paid(&number(&created), amount, "callback"));
    assert_eq!(told(&circle)[..3], expected);
    let others: Vec<_> = told(&circle).split_off(3).into_iter().filter(|event| event.0 == "va.paid").collect();
    assert_eq!(others, []);
}

/// The account is known from a get of the app's own, which names its bank where a body would not.
#[tokio::test(start_paused = true)]
async fn an_account_that_was_only_read_can_be_asked_about() {
    let circle = sweeping().await;
    let other = Setup::new(1).build_beside(&circle.world);
    let created = other.send(classic_create(2, "12345678")).await.expect(201).json();
    let text = |name: &str| created["virtualAccountData"][name].as_str().unwrap().to_owned();
    let path = format!(
        "/api/v1/virtualAccount?virtualAccountId={}&customerId={}&bankCode=002&transactionId={}",
        text("virtualAccountId"),
        text("customerId"),
        crate::asks::id(9)
    );
    let ask = crate::asks::Ask::new(http::Method::GET, &path, Value::Null);
    circle.world.send(ask.header("A-Correlation-ID", &text("correlationId"))).await.expect(200);
    seconds(30).await;
    assert_eq!(
        circle.world.metric(r#"ayova_sweeps_total{merchant="sample",dialect="classic",result="nothing"}"#).await,
        1.0
    );
    circle.pay("virtualAccountNumber", &number(&created)).await;
    seconds(60).await;
    assert_eq!(told(&circle), [paid(&number(&created), "150000.00", "callback")]);
}

/// Of an account without a record upstream is asked by what the callback says; what it says to one that
/// lies is no answer to one that does not.
#[tokio::test(start_paused = true)]
async fn claims_about_a_stranger_do_not_speak_for_the_true_callback() {
    let circle = confirming().await;
    let other = Setup::new(1).build_beside(&circle.world);
    let number = number(&other.send(crate::asks::snap_create(1, "")).await.expect(200).json());
    let away = circle.line.0.lock().unwrap().take();
    circle.pay("virtualAccountNo", &number).await;
    seconds(60).await;
    *circle.line.0.lock().unwrap() = away;
    let truth = other.send(snap_inquiry(&number)).await.expect(200).json();
    for time in ["2026-01-05T01:00:00+07:00", "2026-01-05T02:00:00+07:00"] {
        let mut lie = truth.clone();
        lie["virtualAccountData"]["customerNo"] = "SOMEBODY".into();
        lie["virtualAccountData"]["latestPaidTime"] = time.into();
        circle.call("POST", &snap_path(), &lie.to_string()).await.unwrap();
    }
    circle.call("POST", &snap_path(), &truth.to_string()).await.unwrap();
    seconds(600).await;
    assert_eq!(told(&circle), [paid(&number, "150000.00", "callback")]);
    assert_eq!(circle.listed(State::Quarantined).await.len(), 2);
}
