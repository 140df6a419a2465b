//! Outcomes in doubt while a caller waits or comes back.

use std::time::Duration;

use ayova::config::sandbox::IdempotencyMode;
use http::Response;
use serde_json::json;

use crate::asks::{classic_create, id, snap_create, snap_update};
use crate::harness::{Act, Got, Setup, World};

const OWN: &str = "12345678901";
/// Of an account that exists from the start, so that the merchant's prefix is known.
const KNOWN: &str = "12345678900";
const GAUGE: &str = "ayova_unknown_outcomes{operation=\"snap.create\"}";

async fn world(mode: IdempotencyMode) -> World {
    let mut setup = Setup::new(1);
    setup.sandbox.snap.idempotency_mode = mode;
    let world = setup.build();
    world.send(snap_create(900, KNOWN)).await.expect(200);
    world.wire.clear();
    world
}

#[track_caller]
fn expect_settled(got: &Got, code: &str, reference: &str) {
    assert_eq!((got.status, got.source(), got.reason()), (200, "gateway", "SETTLED_BY_INQUIRY"), "{}", got.text());
    let body = got.json();
    assert_eq!(body["responseCode"], code);
    assert_eq!(body["virtualAccountData"]["referenceNo"], reference);
    assert!(body["virtualAccountData"].get("originalReferenceNo").is_none() || code == "2002800", "{body}");
}

/// Repetitions get the same bytes, still marked as put together.
async fn expect_replayed(world: &World, ask: crate::asks::Ask, first: &Got) {
    let again = world.send(ask).await;
    assert_eq!((again.status, again.source(), &again.body), (first.status, "replay", &first.body));
    assert_eq!((again.header("idempotency-replayed"), again.reason()), ("true", first.reason()));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_again_in_both_readings_of_a_repeated_pair() {
    let lost = [json!({"reset_after_commit": true}), json!({"empty_200": true}), json!({"latency": "30s"})];
    for mode in [IdempotencyMode::Replay, IdempotencyMode::Conflict] {
        for fault in &lost {
            let world = world(mode).await;
            world.fault("snap.create", 1, fault.clone()).await;
            let created = world.send(snap_create(1, OWN)).await;
            world.fault("snap.update", 1, fault.clone()).await;
            let updated = world.send(snap_update(2, OWN)).await;
            match mode {
                IdempotencyMode::Replay => drop((created.expect(200), updated.expect(200))),
                IdempotencyMode::Conflict => {
                    expect_settled(&created, "2002700", &id(1));
                    expect_settled(&updated, "2002800", &id(2));
                    assert_eq!(updated.json()["virtualAccountData"]["totalAmount"]["value"], "175000.00");
                }
            }
            expect_replayed(&world, snap_create(1, OWN), &created).await;
            expect_replayed(&world, snap_update(2, OWN), &updated).await;
            world.send(snap_update(3, OWN)).await.expect(200);
            assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
            assert_eq!((world.stat("creates").await, world.stat("duplicate_creates").await), (2, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_arrived_is_simply_done() {
    for mode in [IdempotencyMode::Replay, IdempotencyMode::Conflict] {
        let world = world(mode).await;
        world.fault("snap.create", 1, json!({"hang": true})).await;
        world.send(snap_create(1, OWN)).await.expect(200);
        world.fault("snap.update", 1, json!({"hang": true})).await;
        world.send(snap_update(2, OWN)).await.expect(200);
        assert_eq!(world.stat("creates").await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_prefix_or_a_number_there_is_nobody_to_ask() {
    let conflicting = || {
        let mut setup = Setup::new(1);
        setup.sandbox.snap.idempotency_mode = IdempotencyMode::Conflict;
        setup.build()
    };
    for (world, number) in [(conflicting(), OWN), (world(IdempotencyMode::Conflict).await, "")] {
        world.fault("snap.create", 1, json!({"reset_after_commit": true})).await;
        for _ in 0..2 {
            world.send(snap_create(1, number)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
        }
        let outcomes = world.admin("/outcomes?state=unknown").await.json()["outcomes"].clone();
        assert_eq!((&outcomes[0]["id"], &outcomes[0]["transaction"]), (&json!(id(1)), &json!(id(1))));
        assert_eq!(world.metric(GAUGE).await, 1.0);
        assert_eq!(world.stat("duplicate_creates").await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_stand_leaves_a_try_that_may_have_arrived_in_doubt() {
    let busy = || Act::AnswerWith(Box::new(Response::builder().status(429).body("{}".into()).unwrap()));
    let unauthorized = || Act::Answer(401, "{\"responseCode\":\"4012700\"}");
    for second in [busy(), unauthorized()] {
        let world = world(IdempotencyMode::Replay).await;
        world.wire.acts([Act::Swallow, second]);
        world.send(snap_create(1, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
        assert_eq!(world.metric(GAUGE).await, 1.0);
        // Another id does not make it another create.
        world.send(snap_create(1, OWN).header("X-EXTERNAL-ID", &id(5))).await.expect(200);
        assert_eq!(world.wire.last().header("x-external-id"), id(1));
        assert_eq!((world.stat("creates").await, world.metric(GAUGE).await), (2, 0.0));
    }
}

/// Leaves a create in doubt, whether or not it happened.
async fn doubtful(world: &World, act: Act, number: &str) {
    world.wire.acts([act.clone(), act.clone(), act]);
    world.send(snap_create(1, number)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!(world.metric(GAUGE).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_that_never_left_says_nothing_about_the_first_try() {
    let world = world(IdempotencyMode::Replay).await;
    doubtful(&world, Act::Swallow, OWN).await;
    world.wire.script(|_| Act::NotSent);
    world.send(snap_create(1, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!(world.metric(GAUGE).await, 1.0);
    world.wire.script(|_| Act::Deliver);
    world.send(snap_create(1, OWN)).await.expect(200);
    assert_eq!(world.metric(GAUGE).await, 0.0);
}

const OCCUPIED: Act = Act::Answer(404, "{\"responseCode\":\"4042712\",\"responseMessage\":\"Invalid Bill\"}");

#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_held_against_what_the_account_shows() {
    // It happened: the refusal is for what the first try did.
    let world = world(IdempotencyMode::Replay).await;
    doubtful(&world, Act::Swallow, OWN).await;
    world.wire.acts([OCCUPIED]);
    let settled = world.send(snap_create(1, OWN)).await;
    expect_settled(&settled, "2002700", &id(1));
    expect_replayed(&world, snap_create(1, OWN), &settled).await;
    world.send(snap_update(2, OWN)).await.expect(200);
    assert_eq!(world.metric(GAUGE).await, 0.0);

    // It does not show, which of a create proves nothing: the app sees the refusal, the doubt stays.
    let world = self::world(IdempotencyMode::Replay).await;
    doubtful(&world, Act::Broken, OWN).await;
    world.wire.acts([OCCUPIED]);
    let refused = world.send(snap_create(1, OWN)).await;
    refused.expect(404);
    assert_eq!(world.metric(GAUGE).await, 1.0);
    world.send(snap_create(1, OWN)).await.expect(200);
    assert_eq!((world.stat("creates").await, world.metric(GAUGE).await), (2, 0.0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_our_own_repetition_is_held_against_it_too() {
    let world = world(IdempotencyMode::Replay).await;
    world.wire.acts([Act::Swallow, OCCUPIED]);
    let settled = world.send(snap_create(1, OWN)).await;
    expect_settled(&settled, "2002700", &id(1));
    assert_eq!((world.stat("creates").await, world.metric(GAUGE).await), (2, 0.0));
}

#[tokio::test(start_paused = true)]
async fn accepted_is_found_out_by_inquiry() {
    let world = world(IdempotencyMode::Replay).await;
    world.wire.acts([Act::Instead(202, r#"{"responseCode":"2022700","responseMessage":"Request In Progress"}"#)]);
    world.send(snap_create(1, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!((world.wire.calls().len(), world.metric(GAUGE).await), (1, 1.0), "not sent again by itself");
    let found = world.send(snap_create(1, OWN)).await;
    found.expect(200);
    expect_replayed(&world, snap_create(1, OWN), &found).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_that_cannot_be_checked_is_shown_and_settles_nothing() {
    let world = world(IdempotencyMode::Replay).await;
    doubtful(&world, Act::Swallow, "").await;
    world.wire.acts([OCCUPIED]);
    world.send(snap_create(1, "")).await.expect(404);
    assert_eq!(world.metric(GAUGE).await, 1.0);
    world.send(snap_create(1, "")).await.expect(200);
    assert_eq!((world.stat("creates").await, world.metric(GAUGE).await), (2, 0.0));

    // Classic: the id is known upstream, so it arrived, and cannot be looked up.
    let mut setup = Setup::new(1);
    setup.sandbox.classic.validation_status = 412;
    let world = setup.build();
    world.wire.acts([Act::Swallow]);
    world.send(classic_create(1, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    for _ in 0..2 {
        world.send(classic_create(1, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
        assert_eq!(world.metric("ayova_unknown_outcomes{operation=\"classic.create\"}").await, 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_defect_leaves_a_doubt_and_not_a_request_for_ever_under_way() {
    let world = world(IdempotencyMode::Replay).await;
    world.wire.acts([Act::Panic]);
    world.send(snap_create(1, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!(world.metric(GAUGE).await, 1.0);
    world.send(snap_create(1, OWN)).await.expect(200);
    assert_eq!(world.metric(GAUGE).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn settling_stays_within_the_deadline() {
    let world = world(IdempotencyMode::Conflict).await;
    let mut first = true;
    world.wire.script(move |arrived| match arrived.path.as_str() {
        crate::asks::CREATE if std::mem::take(&mut first) => Act::Swallow,
        crate::asks::INQUIRY => Act::Hang,
        _ => Act::Deliver,
    });
    let began = tokio::time::Instant::now();
    world.send(snap_create(1, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert!(began.elapsed() <= Duration::from_secs(20), "{:?}", began.elapsed());
}
