//! Outcomes in doubt when nobody waits: the background questions and an operator's word.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ayova::store::memory::MemoryStore;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::mortal::mortal;
use crate::asks::{
    Ask, CREATE, INQUIRY, UPDATE, classic_create, classic_update, id, snap_create, snap_inquiry, snap_update,
};
use crate::harness::{Act, Got, World};

const OWN: &str = "12345678901";
const KNOWN: &str = "12345678900";
const CLASSIC_KNOWN: &str = "12345678";

/// A gateway whose resolver runs, with an account of each generation.
async fn world() -> (World, DropGuard) {
    let world = World::new();
    world.send(snap_create(900, KNOWN)).await.expect(200);
    world.send(classic_create(901, CLASSIC_KNOWN)).await.expect(201);
    world.wire.clear();
    let stop = set_going(&world);
    (world, stop)
}

fn set_going(world: &World) -> DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(world.gateway.resolver()).run(stop.clone()));
    stop.drop_guard()
}

async fn gauge(world: &World, operation: &str) -> f64 {
    world.metric(&format!("ayova_unknown_outcomes{{operation=\"{operation}\"}}")).await
}

async fn outcomes(world: &World) -> Vec<Value> {
    world.admin("/outcomes?state=unknown").await.json()["outcomes"].as_array().unwrap().clone()
}

/// Leaves a request in doubt; every try of it meets the act.
async fn doubt(world: &World, ask: Ask, act: Act) -> Instant {
    let (method, path) = (ask.method.to_string(), ask.path.clone());
    world.wire.script(move |arrived| {
        let own = arrived.method == method && arrived.path == path;
        if own { act.clone() } else { Act::Deliver }
    });
    world.send(ask).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    world.wire.script(|_| Act::Deliver);
    world.wire.clear();
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn questions_come_soon_at_first_and_then_hourly_for_a_day() {
    let (world, _stop) = world().await;
    let since = doubt(&world, snap_create(1, OWN), Act::Swallow).await;
    // Upstream does not say.
    world.wire.script(|arrived| match arrived.path == INQUIRY {
        true => Act::Answer(403, "{\"responseCode\":\"4033001\"}"),
        false => Act::Deliver,
    });
    sleep_until(since + Duration::from_secs(30 * 3600)).await;
    let asked: Vec<u64> = world.wire.calls().iter().map(|arrived| (arrived.at - since).as_secs()).collect();
    let hours = (1..=24).map(|hour| hour * 3600);
    let expected: Vec<u64> = [5, 30, 120, 900].into_iter().chain(hours).collect();
    assert_eq!(asked.len(), expected.len(), "{asked:?}");
    for (asked, expected) in asked.iter().zip(&expected) {
        assert!((*expected..=expected + 2).contains(asked), "{asked} for {expected}");
    }
    // Given up, and still visible.
    assert_eq!((outcomes(&world).await.len(), gauge(&world, "snap.create").await), (1, 1.0));
}

#[tokio::test(start_paused = true)]
async fn what_happened_is_found_and_kept_for_the_app() {
    for act in [Act::Swallow, Act::Instead(200, ""), Act::Instead(200, "{\"responseC")] {
        let (world, _stop) = world().await;
        let snap_update = snap_update(2, KNOWN);
        let classic_update = classic_update(CLASSIC_KNOWN).set("/transactionId", id(3));
        for (operation, ask) in
            [("snap.create", snap_create(1, OWN)), ("snap.update", snap_update), ("classic.update", classic_update)]
        {
            doubt(&world, ask.clone(), act.clone()).await;
            assert_eq!((outcomes(&world).await.len(), gauge(&world, operation).await), (1, 1.0), "{operation}");
            sleep(Duration::from_secs(8)).await;
            assert_eq!((outcomes(&world).await.len(), gauge(&world, operation).await), (0, 0.0), "{operation}");
            let found = world.send(ask.clone()).await;
            assert_eq!((found.status, found.source(), found.reason()), (200, "replay", "SETTLED_BY_INQUIRY"));
            assert_eq!(world.send(ask).await.body, found.body);
        }
        assert!(world.wire.calls().iter().all(|call| ![CREATE, UPDATE].contains(&call.path.as_str())));
        world.send(self::snap_update(4, OWN)).await.expect(200);
        assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
        assert_eq!(world.stat("creates").await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_that_does_not_show_is_released_after_a_quarter_of_an_hour_and_a_create_never() {
    let (world, _stop) = world().await;
    let since = doubt(&world, snap_create(1, OWN), Act::Broken).await;
    doubt(&world, snap_update(2, KNOWN), Act::Broken).await;
    sleep_until(since + Duration::from_secs(14 * 60)).await;
    assert_eq!(outcomes(&world).await.len(), 2);
    sleep_until(since + Duration::from_secs(16 * 60)).await;
    let left = outcomes(&world).await;
    assert_eq!((left.len(), &left[0]["operation"]), (1, &json!("snap.create")));
    assert_eq!((gauge(&world, "snap.create").await, gauge(&world, "snap.update").await), (1.0, 0.0));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(outcomes(&world).await.len(), 1, "an app with new ids must not have it twice");
    world.send(snap_create(1, OWN)).await.expect(200);
    assert_eq!(gauge(&world, "snap.create").await, 0.0);
    world.send(snap_update(2, KNOWN)).await.expect(200);
    assert_eq!((world.stat("creates").await, world.stat("duplicate_creates").await), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_up_stays_visible() {
    let (world, _stop) = world().await;
    doubt(&world, classic_create(1, "12345679"), Act::Swallow).await;
    doubt(&world, snap_create(2, ""), Act::Swallow).await;
    sleep(Duration::from_secs(26 * 3600)).await;
    let listed = outcomes(&world).await;
    let shown: Vec<_> = listed.iter().map(|one| (&one["operation"], &one["transaction"], &one["number"])).collect();
    let (first, second) = (json!(id(1)), json!(id(2)));
    assert_eq!(shown[0], (&json!("classic.create"), &first, &json!("****5679")));
    assert_eq!((shown[1].0, shown[1].1), (&json!("snap.create"), &second));
    assert_eq!((gauge(&world, "classic.create").await, gauge(&world, "snap.create").await), (1.0, 1.0));
    assert!(world.wire.calls().is_empty(), "nobody to ask");
    // The app's own repetition ends it, although its date is over by now.
    world.send(snap_create(2, "")).await.expect(200);
    assert_eq!((gauge(&world, "snap.create").await, outcomes(&world).await.len()), (0.0, 1));
    let overdue = world.send(snap_create(3, "")).await;
    assert_eq!(overdue.expect_refusal(400, "INVALID_REQUEST").faults(), ["expiredDate"]);
    assert_eq!(world.send(snap_create(2, "")).await.source(), "replay");
}

#[tokio::test(start_paused = true)]
async fn a_prefix_learnt_later_lets_a_create_be_looked_up() {
    let world = World::new();
    let _stop = set_going(&world);
    doubt(&world, snap_create(1, OWN), Act::Swallow).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(gauge(&world, "snap.create").await, 1.0);
    world.send(snap_create(2, KNOWN)).await.expect(200);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(gauge(&world, "snap.create").await, 0.0);
    assert_eq!(world.send(snap_create(1, OWN)).await.source(), "replay");
}

/// Sends a create whose repetition comes while the resolver's question is on its way.
async fn meet_a_question(first: Act, question: Act) -> (World, Got, Duration) {
    let (world, _stop) = world().await;
    doubt(&world, snap_create(1, OWN), first).await;
    world.wire.script(move |arrived| if arrived.path == INQUIRY { question.clone() } else { Act::Deliver });
    sleep(Duration::from_secs(7)).await;
    assert!(world.wire.calls().iter().any(|arrived| arrived.path == INQUIRY), "the question is on its way");
    let began = Instant::now();
    let got = world.send(snap_create(1, OWN)).await;
    assert_eq!(gauge(&world, "snap.create").await, 0.0);
    (world, got, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_repetition_that_meets_a_question_waits_for_it_and_goes_on() {
    // What is found out is the answer.
    let late = Act::Late(Duration::from_secs(4));
    let (world, got, _) = meet_a_question(Act::Swallow, late.clone()).await;
    assert_eq!((got.status, got.source(), got.reason()), (200, "replay", "SETTLED_BY_INQUIRY"));
    assert_eq!(world.stat("creates").await, 3);
    // What is not, is sent.
    for question in [late, Act::Hang, Act::Broken] {
        let (world, got, waited) = meet_a_question(Act::Broken, question).await;
        got.expect(200);
        assert!(waited < Duration::from_secs(10), "{waited:?}");
        assert_eq!((world.stat("creates").await, world.stat("duplicate_creates").await), (3, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_does_not_write_over_what_came_meanwhile() {
    let (world, stop) = world().await;
    drop(stop);
    for tag in 1..=20 {
        doubt(&world, snap_create(tag, &format!("123456789{:02}", tag + 1)), Act::Swallow).await;
        sleep(Duration::from_secs(6)).await;
    }
    // More than are asked about at the same time, so that the last ones wait on an old list.
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    world.wire.script(move |arrived| if arrived.path == INQUIRY { Act::Hold(Arc::clone(&held)) } else { Act::Deliver });
    let resolver = Arc::clone(world.gateway.resolver());
    let looking = tokio::spawn(async move { resolver.look().await });
    sleep(Duration::from_secs(1)).await;
    let answer = world.send(snap_create(20, "12345678921")).await;
    answer.expect(200);
    gate.add_permits(1_000);
    looking.await.unwrap();
    let again = world.send(snap_create(20, "12345678921")).await;
    assert_eq!((again.source(), again.reason(), &again.body), ("replay", "", &answer.body));
    assert_eq!((outcomes(&world).await.len(), gauge(&world, "snap.create").await), (0, 0.0));
}

#[tokio::test(start_paused = true)]
async fn old_doubts_that_nobody_can_settle_do_not_hide_young_ones() {
    let (world, _stop) = world().await;
    world.wire.script(|_| Act::Answer(503, "{\"errors\":[{\"code\":\"0025\"}]}"));
    for tag in 1_001..=2_100 {
        world.send(classic_create(tag, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    }
    doubt(&world, snap_create(3_000, OWN), Act::Swallow).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!((gauge(&world, "snap.create").await, gauge(&world, "classic.create").await), (0.0, 1_100.0));
    assert_eq!(world.send(snap_create(3_000, OWN)).await.source(), "replay");
}

/// On one thread, as every test here.
#[tokio::test(start_paused = true)]
async fn requests_have_their_turn_while_many_doubts_are_looked_at() {
    let (world, stop) = world().await;
    drop(stop);
    world.wire.script(|_| Act::Answer(503, "{\"errors\":[{\"code\":\"0025\"}]}"));
    for tag in 1_001..=2_000 {
        world.send(classic_create(tag, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    }
    let resolver = Arc::clone(world.gateway.resolver());
    let looking = tokio::spawn(async move { resolver.look().await });
    let mut turns = 0;
    while !looking.is_finished() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(looking.await.unwrap(), 1_000);
    assert!(turns > 30, "{turns} turns: once in every pass over a hundred or so");
}

#[tokio::test(start_paused = true)]
async fn the_next_gateway_settles_what_the_last_one_left() {
    let store = Arc::new(MemoryStore::new(1 << 26, 1 << 25));
    let dead = CancellationToken::new();
    let outside = World::new();
    let world = outside.again(mortal(&store, outside.wire.clone(), (dead.clone(), 1)));
    world.send(snap_create(900, KNOWN)).await.expect(200);
    doubt(&world, snap_create(1, OWN), Act::Swallow).await;
    // This one is under way when the gateway dies, and never arrives.
    world.wire.script(|_| Act::Hang);
    let lost = tokio::spawn(world.send(snap_create(3, "12345678903")));
    sleep(Duration::from_secs(1)).await;
    dead.cancel();
    lost.abort();
    world.wire.script(|_| Act::Deliver);

    let next = outside.again(mortal(&store, outside.wire.clone(), (CancellationToken::new(), 2)));
    next.gateway.resolver().take_over().await.unwrap();
    assert_eq!((outcomes(&next).await.len(), gauge(&next, "snap.create").await), (2, 2.0));
    let _stop = set_going(&next);
    sleep(Duration::from_secs(8)).await;
    assert_eq!(gauge(&next, "snap.create").await, 1.0);
    assert_eq!(next.send(snap_create(1, OWN)).await.source(), "replay");
    sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!(gauge(&next, "snap.create").await, 1.0);
    next.send(snap_create(3, "12345678903")).await.expect(200);
    assert_eq!(gauge(&next, "snap.create").await, 0.0);
    assert_eq!(next.stat("duplicate_creates").await, 0);
}

fn named(operation: &str, tag: u32, rest: Value) -> Value {
    let mut body = json!({"merchant": "sample", "operation": operation, "id": id(tag)});
    let (all, rest) = (body.as_object_mut().unwrap(), rest.as_object().unwrap().clone());
    all.extend(rest);
    body
}

async fn resolve(world: &World, body: Value) -> u16 {
    world.admin_post("/outcomes/resolve", body).await.status
}

#[tokio::test(start_paused = true)]
async fn an_operator_says_that_it_did_not_happen() {
    let (world, _stop) = world().await;
    doubt(&world, snap_create(1, ""), Act::Broken).await;
    let absent = named("snap.create", 1, json!({"as": "absent"}));
    assert_eq!(resolve(&world, absent.clone()).await, 200);
    assert_eq!((outcomes(&world).await.len(), gauge(&world, "snap.create").await), (0, 0.0));
    assert_eq!(resolve(&world, absent).await, 404);
    // It is as if it had not been: other words under the same ids are a new request.
    world.send(snap_create(1, OWN)).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn an_operators_answer_is_kept_and_teaches_the_account() {
    let (world, _stop) = world().await;
    doubt(&world, snap_create(1, ""), Act::Swallow).await;
    let accounts = world.control("GET", "/_sandbox/accounts", Value::Null).await;
    let shown = accounts["accounts"].as_array().unwrap();
    let number = shown.iter().find(|account| account.to_string().contains(&id(1))).unwrap()["virtualAccountData"]["virtualAccountNo"].clone();
    let data = json!({
        "partnerServiceId": "   14629", "customerNo": "CUST000123", "virtualAccountNo": number, "trxId": id(1),
        "referenceNo": id(1),
    });
    let body = json!({"responseCode": "2002700", "responseMessage": "Successful", "virtualAccountData": data});
    let answered = named("snap.create", 1, json!({"as": "answered", "body": body}));
    assert_eq!(resolve(&world, answered).await, 200);
    assert_eq!(gauge(&world, "snap.create").await, 0.0);
    let got = world.send(snap_create(1, "")).await;
    assert_eq!((got.status, got.source(), got.json()), (200, "replay", body));
    world.send(snap_update(2, number.as_str().unwrap())).await.expect(200);
    assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
    world.send(snap_inquiry(number.as_str().unwrap())).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_decision_needs_a_doubt_that_nobody_works_on_and_a_readable_answer() {
    let (world, _stop) = world().await;
    doubt(&world, snap_create(1, ""), Act::Swallow).await;
    let all: BTreeSet<u16> = BTreeSet::from([
        resolve(&world, json!({"merchant": "sample"})).await,
        resolve(&world, named("snap.inquiry2", 1, json!({"as": "absent"}))).await,
        resolve(&world, named("snap.create", 1, json!({"as": "perhaps"}))).await,
        resolve(&world, named("snap.create", 1, json!({"as": "answered"}))).await,
        resolve(&world, named("snap.create", 1, json!({"as": "answered", "body": []}))).await,
        resolve(&world, named("snap.create", 1, json!({"as": "answered", "body": {}, "status": 9}))).await,
    ]);
    assert_eq!(all, BTreeSet::from([400]));
    assert_eq!(resolve(&world, named("snap.update", 1, json!({"as": "absent"}))).await, 404);
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    world.wire.script(move |_| Act::Hold(Arc::clone(&held)));
    let repeating = tokio::spawn(world.send(snap_create(1, "")));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(resolve(&world, named("snap.create", 1, json!({"as": "absent"}))).await, 409);
    gate.add_permits(10);
    repeating.await.unwrap().expect(200);
    assert_eq!(gauge(&world, "snap.create").await, 0.0);
    assert_eq!(resolve(&world, named("snap.create", 1, json!({"as": "absent"}))).await, 404, "it has its answer");
}
