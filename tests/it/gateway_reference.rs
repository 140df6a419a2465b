//! What is recorded of an account and what an update is given of it (contract section 5 rule 6, section 9).

use std::sync::Arc;
use std::time::Duration;

use ayova::clock::TestClock;
use ayova::config::{OnMismatch, OnMiss};
use ayova::store::Store;
use ayova::store::memory::MemoryStore;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::asks::{
    Ask, CLASSIC, INQUIRY, classic_create, classic_get, classic_update, id, padded, snap_create, snap_inquiry,
    snap_update,
};
use crate::harness::{Act, Life, Setup, World};

const OWN: &str = "12345678901";

/// An update as an app sends it that knows its account but not the reference.
fn named_update(tag: u32, number: &str) -> Ask {
    snap_update(tag, number).set("/customerNo", "CUST000123").set("/partnerServiceId", "   14629")
}

/// Makes an account behind the gateway's back: through another gateway to the same upstream.
async fn made_elsewhere(world: &World, ask: Ask) {
    let mut setup = Setup::new(1);
    setup.seed = 99;
    let other = setup.build_beside(world);
    let status = if ask.path == CLASSIC { 201 } else { 200 };
    other.send(ask).await.expect(status);
}

#[tokio::test(start_paused = true)]
async fn the_newest_create_of_a_number_wins() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(snap_update(2, OWN)).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
    // An update's own id never becomes the reference.
    world.send(snap_update(3, OWN)).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
    world.control("POST", "/_sandbox/clock", json!({"advance": "72h"})).await;
    let again = snap_create(4, OWN).set("/expiredDate", "2026-01-20T10:00:00+07:00");
    world.send(again).await.expect(200);
    let update = snap_update(5, OWN).set("/expiredDate", "2026-01-21T10:00:00+07:00");
    world.send(update).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(4));
    assert_eq!(world.wire.last().json()["trxId"], id(4));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_does_not_make_a_create_older() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20, 1 << 20));
    let mut setup = Setup::new(1);
    setup.store = Some(Arc::clone(&store));
    let world = setup.build();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.control("POST", "/_sandbox/clock", json!({"advance": "72h"})).await;
    let mut earlier = world.clone();
    earlier.clock = Arc::new(TestClock::new("2026-01-05T02:59:50Z".parse().unwrap()));
    let transport = Arc::new(world.wire.clone());
    let earlier = earlier.again(Life { transport, store, seed: 2, tracer: None });
    earlier.send(snap_create(4, OWN).set("/expiredDate", "2026-01-20T10:00:00+07:00")).await.expect(200);
    earlier.send(snap_update(5, OWN).set("/expiredDate", "2026-01-21T10:00:00+07:00")).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(4));
}

/// What an inquiry shows of the number's earlier life, made under id 9.
const OLD_LIFE: &str = "{\"responseCode\":\"2003000\",\"virtualAccountData\":{\"partnerServiceId\":\"   14629\",\
    \"customerNo\":\"CUST000123\",\"virtualAccountNo\":\"   1462912345678901\",\
    \"originalReferenceNo\":\"00000000000000000000000000000009\",\"trxId\":\"00000000000000000000000000000009\",\
    \"additionalInfo\":{\"bankCode\":\"014\"}}}";

#[tokio::test(start_paused = true)]
async fn a_read_during_a_create_does_not_stand_in_its_way() {
    let world = World::new();
    let gate = Arc::new(Semaphore::new(0));
    world.wire.acts([Act::Hold(Arc::clone(&gate)), Act::Answer(200, OLD_LIFE)]);
    let creating = tokio::spawn(world.send(snap_create(1, OWN)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let inquiry = snap_inquiry(&padded(OWN)).set("/customerNo", "CUST000123").set("/trxId", id(9).as_str());
    world.send(inquiry.clone()).await.expect(200);
    gate.add_permits(1);
    creating.await.unwrap().expect(200);
    world.send(snap_update(2, OWN)).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));

    // One that was sent before the create and shows the old life after it changes nothing either.
    let world = World::new();
    let late = Duration::from_secs(2);
    world.wire.acts([Act::AnswerLate(late, 200, OLD_LIFE)]);
    let reading = tokio::spawn(world.send(inquiry));
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.send(snap_create(1, OWN)).await.expect(200);
    reading.await.unwrap().expect(200);
    world.send(snap_update(2, OWN)).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
}

#[tokio::test(start_paused = true)]
async fn an_account_never_seen_is_asked_for_once() {
    let world = World::new();
    made_elsewhere(&world, snap_create(1, OWN)).await;
    world.wire.clear();
    world.send(named_update(2, &padded(OWN))).await.expect(200);
    let paths: Vec<_> = world.wire.calls().into_iter().map(|call| (call.method, call.path)).collect();
    assert_eq!(paths[0], ("POST".to_owned(), INQUIRY.to_owned()));
    assert_eq!(paths.len(), 2);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
    world.send(snap_update(3, OWN)).await.expect(200);
    assert_eq!(world.wire.calls().len(), 3, "it is known from now on");
    assert_eq!(world.metric("ayova_reference_total{operation=\"snap.update\",result=\"inquiry\"}").await, 1.0);
    assert_eq!(world.metric("ayova_reference_total{operation=\"snap.update\",result=\"store\"}").await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn digits_beside_their_prefix_are_enough_to_ask() {
    let world = World::new();
    made_elsewhere(&world, snap_create(1, OWN)).await;
    world.send(named_update(2, &format!("14629{OWN}"))).await.expect(200);
    assert_eq!(world.wire.last().json()["virtualAccountNo"], padded(OWN));
}

#[tokio::test(start_paused = true)]
async fn an_account_nobody_knows_is_said_so() {
    let world = World::new();
    let got = world.send(named_update(2, &padded(OWN))).await;
    assert_eq!(got.expect_refusal(404, "REFERENCE_UNKNOWN").json()["responseCode"], "4042801");
    let calls = world.wire.calls();
    assert_eq!(calls.iter().map(|call| call.path.as_str()).collect::<Vec<_>>(), [INQUIRY]);
    // Own digits name no account that upstream could be asked about: every gap is named.
    let got = world.send(snap_update(3, OWN)).await;
    assert_eq!(got.expect_refusal(404, "REFERENCE_UNKNOWN").faults(), ["virtualAccountNo", "customerNo"]);
    let got = world.send(snap_inquiry(OWN)).await;
    assert!(got.expect_refusal(404, "REFERENCE_UNKNOWN").faults().contains(&"customerNo".to_owned()));
    let got = world.send(classic_get("12345678")).await;
    got.expect_refusal(404, "REFERENCE_UNKNOWN");
    assert_eq!(got.faults(), ["virtualAccountId", "bankCode", "customerId", "A-Correlation-ID"]);
    assert!(got.json()["errors"].as_array().unwrap().iter().all(|error| error["pointer"].is_null()), "parameters");
    assert_eq!(world.wire.calls().len(), 1);
    assert_eq!(world.metric("ayova_reference_total{operation=\"snap.update\",result=\"missing\"}").await, 2.0);
    // The doubt was never about the update: the same id may be tried again.
    made_elsewhere(&world, snap_create(1, OWN)).await;
    world.send(named_update(2, &padded(OWN))).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn an_inquiry_that_fails_sends_no_update() {
    for act in [Act::Hang, Act::Broken, Act::Answer(500, "{\"responseCode\":\"5003000\"}"), Act::Answer(429, "{}")] {
        let world = World::new();
        world.wire.acts(vec![act; 3]);
        world.send(named_update(2, &padded(OWN))).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
        assert!(world.wire.calls().iter().all(|call| call.path == INQUIRY));
        assert_eq!(world.metric("ayova_unknown_outcomes{operation=\"snap.update\"}").await, 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_a_miss_is_to_be_refused() {
    let mut setup = Setup::new(1);
    setup.config.reference.on_miss = OnMiss::Reject;
    let world = setup.build();
    world.send(named_update(2, &padded(OWN))).await.expect_refusal(404, "REFERENCE_UNKNOWN");
    assert!(world.wire.all().is_empty());
    // A reference of the caller's own is sent as it is.
    let update =
        named_update(3, &padded(OWN)).set("/originalReferenceNo", id(8).as_str()).set("/trxId", id(1).as_str());
    world.send(update).await.expect(404);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(8));
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_number_finds_its_record() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    let created = world.send(classic_create(2, "12345678")).await.json();
    let whole = created["virtualAccountData"]["virtualAccountNumber"].as_str().unwrap().to_owned();
    let account = created["virtualAccountData"]["virtualAccountId"].as_str().unwrap().to_owned();
    for (tag, form) in [padded(OWN), format!("14629{OWN}"), OWN.to_owned()].iter().enumerate() {
        world.send(snap_update(10 + tag as u32, form)).await.expect(200);
        assert_eq!(world.wire.last().json()["virtualAccountNo"], padded(OWN));
        world.send(snap_inquiry(form)).await.expect(200);
    }
    for form in [whole.as_str(), "12345678"] {
        world.send(classic_get(form)).await.expect(200);
        assert!(!world.wire.last().query.unwrap().contains("virtualAccountNumber"));
        world.send(classic_update(form)).await.expect(200);
        assert_eq!(world.wire.last().json()["virtualAccountNumber"], "12345678");
    }
    let by_id = Ask::new(Method::GET, &format!("{CLASSIC}?virtualAccountId={account}"), Value::Null);
    world.send(by_id).await.expect(200);
    let update = classic_update("").unset("/virtualAccountNumber").set("/virtualAccountId", account.as_str());
    world.send(update).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_no_prefix_makes_long_enough_is_not_sent() {
    let world = World::new();
    let asks = [snap_inquiry("1462912345678"), snap_update(1, "1462912345678")];
    for ask in asks.map(|ask| ask.set("/partnerServiceId", "   14629").set("/customerNo", "CUST000123")) {
        world.send(ask).await.expect_refusal(404, "REFERENCE_UNKNOWN");
    }
    assert!(world.wire.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn own_digits_that_fit_two_accounts_find_neither() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(snap_create(2, OWN).set("/additionalInfo/bankCode", "002")).await.expect(200);
    world.wire.clear();
    world.send(snap_update(3, OWN)).await.expect_refusal(404, "REFERENCE_UNKNOWN");
    assert!(world.wire.calls().is_empty());
    world.send(snap_update(4, &padded(OWN))).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
}

#[tokio::test(start_paused = true)]
async fn a_padded_number_is_never_taken_for_somebodys_own_digits() {
    let world = World::new();
    // Its own digits are another account's whole number.
    world.send(snap_create(1, &format!("14629{OWN}"))).await.expect(200);
    world.wire.clear();
    let got = world.send(named_update(2, &padded(OWN))).await;
    got.expect_refusal(404, "REFERENCE_UNKNOWN");
    assert!(world.wire.calls().iter().all(|call| call.path == INQUIRY));
    world.send(snap_inquiry(&padded(OWN)).set("/customerNo", "CUST000123")).await.expect(404);
    assert_eq!(world.wire.last().json()["virtualAccountNo"], padded(OWN));
}

/// A world with an account and the given setting; the caller's update brings reference 9.
async fn mismatch(on_mismatch: OnMismatch) -> (World, Ask) {
    let mut setup = Setup::new(1);
    setup.config.reference.on_mismatch = on_mismatch;
    let world = setup.build();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.wire.clear();
    (world, snap_update(2, OWN).set("/originalReferenceNo", id(9).as_str()))
}

fn references(world: &World) -> Vec<Value> {
    world.wire.calls().iter().map(|call| call.json()["originalReferenceNo"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn recorded_first_uses_ours_and_then_the_callers_once() {
    let (world, update) = mismatch(OnMismatch::RecordedFirst).await;
    let got = world.send(update.clone()).await;
    assert!(got.expect(200).header("ayova-attached").starts_with("originalReferenceNo"));
    assert_eq!(references(&world), [id(1)]);

    // Recreated behind the gateway's back: ours is stale, the caller's is right.
    world.control("POST", "/_sandbox/clock", json!({"advance": "72h"})).await;
    made_elsewhere(&world, snap_create(9, OWN).set("/expiredDate", "2026-01-20T10:00:00+07:00")).await;
    world.wire.clear();
    let fresh =
        |tag: u32| update.clone().header("X-EXTERNAL-ID", &id(tag)).set("/expiredDate", "2026-01-21T10:00:00+07:00");
    let got = world.send(fresh(3)).await;
    assert!(!got.expect(200).header("ayova-attached").contains("originalReferenceNo"), "the caller's was used");
    assert_eq!(references(&world), [id(1), id(9)]);
    world.send(fresh(4).unset("/originalReferenceNo")).await.expect(200);
    assert_eq!(references(&world)[2..], [id(9)], "it is recorded");

    let (world, update) = mismatch(OnMismatch::RecordedFirst).await;
    let unknown = Act::Answer(404, "{\"responseCode\":\"4042801\"}");
    world.wire.acts([unknown.clone(), unknown.clone()]);
    world.send(update.clone()).await.expect(404);
    assert_eq!(references(&world), [id(1), id(9)], "once");
    // Without a reference of the caller's there is nothing else to try.
    world.wire.clear();
    world.wire.acts([unknown]);
    world.send(update.unset("/originalReferenceNo").header("X-EXTERNAL-ID", &id(5))).await.expect(404);
    assert_eq!(references(&world), [id(1)]);
}

#[tokio::test(start_paused = true)]
async fn caller_first_sends_the_callers() {
    let (world, update) = mismatch(OnMismatch::CallerFirst).await;
    world.send(update).await.expect(404);
    assert_eq!(references(&world), [id(9)]);
    let update = snap_update(3, OWN).set("/customerNo", "OTHER001");
    world.send(update).await.expect(404);
    assert_eq!(world.wire.last().json()["customerNo"], "OTHER001");
    world.send(snap_update(4, &padded(OWN)).set("/additionalInfo/bankCode", "002")).await;
    assert_eq!(world.wire.last().json()["additionalInfo"]["bankCode"], "002");

    // Nor is a number of the caller's replaced; another form of ours is completed.
    let created = world.send(classic_create(5, "12345678")).await.json();
    let text = |name: &str| created["virtualAccountData"][name].as_str().unwrap().to_owned();
    let whole = text("virtualAccountNumber");
    for (given, sent) in [("99999999", "99999999"), (whole.as_str(), "12345678"), ("12345678", "12345678")] {
        world.send(classic_update(given).set("/virtualAccountId", text("virtualAccountId").as_str())).await;
        assert_eq!(world.wire.last().json()["virtualAccountNumber"], sent);
    }
}

#[tokio::test(start_paused = true)]
async fn reject_refuses_a_contradiction() {
    let (world, update) = mismatch(OnMismatch::Reject).await;
    let got = world.send(update).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").json()["responseCode"], "4002801");
    assert_eq!(got.faults(), ["originalReferenceNo"]);
    assert_eq!(got.json()["errors"][0]["rule"], "mismatch");
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn members_that_name_another_account_are_refused() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    let created = world.send(classic_create(2, "12345678")).await.json();
    world.send(classic_create(3, "87654321")).await.expect(201);
    let account = created["virtualAccountData"]["virtualAccountId"].as_str().unwrap().to_owned();
    world.wire.clear();
    let update = snap_update(4, &padded(OWN)).set("/customerNo", "OTHER001").set("/partnerServiceId", "   14630");
    let got = world.send(update).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["partnerServiceId", "customerNo"]);
    let got = world.send(snap_inquiry(OWN).set("/customerNo", "OTHER001")).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["customerNo"]);

    let update = snap_update(5, &padded(OWN)).set("/additionalInfo/bankCode", "002");
    let got = world.send(update).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["additionalInfo.bankCode"]);
    assert_eq!(got.json()["errors"][0]["rule"], "mismatch");

    let update = classic_update("12345678").set("/customerId", "AYOTST-00000000").set("/bankCode", "009");
    let got = world.send(update).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["customerId", "bankCode"]);
    // The id of one account with the number of another.
    let got = world.send(classic_update("87654321").set("/virtualAccountId", account.as_str())).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["virtualAccountNumber"]);
    let get = format!("{CLASSIC}?virtualAccountId={account}&virtualAccountNumber=87654321&bankCode=014");
    let got = world.send(Ask::new(Method::GET, &get, Value::Null)).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["bankCode", "virtualAccountNumber"]);
    assert!(got.json()["errors"].as_array().unwrap().iter().all(|error| error["pointer"].is_null()), "parameters");
    assert!(world.wire.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn bni_amounts_never_go_down() {
    let world = World::new();
    let bni = |ask: Ask| ask.set("/additionalInfo/bankCode", "009");
    world.send(bni(snap_create(1, "123456789012"))).await.expect(200);
    world.send(bni(snap_update(2, "123456789012"))).await.expect(200);
    world.wire.clear();
    let lower = bni(snap_update(3, "123456789012")).set("/totalAmount/value", "174999.00");
    let got = world.send(lower).await;
    assert_eq!(got.expect_refusal(404, "AMOUNT_TOO_LOW").json()["responseCode"], "4042813");

    let classic = classic_create(4, "123456789").set("/bankCode", "009");
    world.send(classic).await.expect(201);
    let lower = classic_update("123456789").set("/totalAmount/value", "149999.99");
    let got = world.send(lower).await;
    assert_eq!(got.expect_refusal(400, "AMOUNT_TOO_LOW").json()["responseCode"], 400);
    assert!(world.wire.calls().iter().all(|call| call.method == "POST"), "nothing was sent");
    world.send(classic_update("123456789").set("/totalAmount/value", "150000.00")).await.expect(200);
    // Other banks do not mind, and a refused update does not count as the previous amount.
    world.send(snap_create(5, OWN)).await.expect(200);
    world.send(snap_update(6, OWN).set("/totalAmount/value", "10000.00")).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn what_an_inquiry_shows_is_no_previous_amount() {
    let world = World::new();
    let open = |ask: Ask| ask.set("/additionalInfo/bankCode", "009").set("/additionalInfo/isSingleUse", "N");
    made_elsewhere(&world, open(snap_create(1, "123456789012")).set("/totalAmount/value", "0.00")).await;
    // A multi-payment account shows the sum of its payments.
    let shown = "{\"responseCode\":\"2003000\",\"virtualAccountData\":{\"partnerServiceId\":\"    8662\",\
        \"customerNo\":\"CUST000123\",\"virtualAccountNo\":\"    8662123456789012\",\
        \"originalReferenceNo\":\"00000000000000000000000000000001\",\"trxId\":\"00000000000000000000000000000001\",\
        \"totalAmount\":{\"value\":\"25000.00\",\"currency\":\"IDR\"},\"additionalInfo\":{\"bankCode\":\"009\"}}}";
    world.wire.acts([Act::Answer(200, shown)]);
    let number = "    8662123456789012";
    let update = open(snap_update(2, number)).set("/customerNo", "CUST000123").set("/totalAmount/value", "0.00");
    world.send(update).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn everything_done_to_a_classic_account_carries_its_flow() {
    let world = World::new();
    let flow = id(70);
    world.send(classic_create(1, "12345678").header("A-Correlation-ID", &flow)).await.expect(201);
    for ask in [classic_get("12345678"), classic_update("12345678")] {
        let got = world.send(ask.clone()).await;
        assert!(got.expect(200).header("ayova-attached").contains("A-Correlation-ID"));
        assert_eq!(world.wire.last().header("a-correlation-id"), flow);
        // Another value would break the flow: it is replaced.
        let got = world.send(ask.header("A-Correlation-ID", &id(71))).await;
        assert!(got.expect(200).header("ayova-attached").contains("A-Correlation-ID"));
        assert_eq!(world.wire.last().header("a-correlation-id"), flow);
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_under_the_callers_reference_teaches_that_reference() {
    let world = World::new();
    // Upstream's answer names only the update's own id, which is no reference.
    let answer = "{\"responseCode\":\"2002800\",\"virtualAccountData\":{\"virtualAccountNo\":\"   1462912345678901\",\
        \"referenceNo\":\"00000000000000000000000000000002\"}}";
    made_elsewhere(&world, snap_create(1, OWN)).await;
    world.wire.acts([Act::Answer(200, answer)]);
    let update =
        named_update(2, &padded(OWN)).set("/originalReferenceNo", id(1).as_str()).set("/trxId", id(1).as_str());
    world.send(update).await.expect(200);
    world.send(snap_update(3, OWN)).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
}

#[tokio::test(start_paused = true)]
async fn an_inquiry_keeps_the_callers_id_and_teaches() {
    let world = World::new();
    made_elsewhere(&world, snap_create(1, OWN)).await;
    let inquiry = snap_inquiry(&padded(OWN)).set("/customerNo", "CUST000123").header("X-EXTERNAL-ID", &id(5));
    let got = world.send(inquiry).await;
    assert_eq!(got.expect(200).header("ayova-attached"), "partnerServiceId, trxId");
    assert_eq!(world.wire.last().header("x-external-id"), id(5));
    world.send(snap_update(6, OWN)).await.expect(200);
    assert_eq!(world.wire.calls().len(), 2, "nothing more had to be asked");
}
