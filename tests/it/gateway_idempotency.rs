//! The same request twice is one request (contract section 5 rules 4 and 5, section 9).

use std::sync::Arc;
use std::time::Duration;

use ayova::config::sandbox::IdempotencyMode;
use ayova::config::{MissingKey, SameTrxId};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::asks::{Ask, classic_create, classic_update, id, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, Setup, World};

const OWN: &str = "12345678901";

/// Lets everything that can happen without time passing happen.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn five_hundred_duplicates_make_one_account() {
    for ask in [snap_create(1, OWN), snap_create(1, ""), classic_create(1, "")] {
        let world = World::new();
        world.wire.acts([Act::Late(Duration::from_millis(300))]);
        let sending: Vec<_> = (0..500).map(|_| tokio::spawn(world.send(ask.clone()))).collect();
        let answers: Vec<_> = join_all(sending).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(world.wire.calls().len(), 1);
        assert_eq!((world.stat("creates").await, world.stat("duplicate_creates").await), (1, 0));
        assert!(answers.iter().all(|got| got.body == answers[0].body && got.status == answers[0].status));
        let replayed = answers.iter().filter(|got| got.header("idempotency-replayed") == "true").count();
        let first = answers.iter().filter(|got| got.source() == "upstream").count();
        assert_eq!((replayed, first), (499, 1));
        assert!(answers.iter().all(|got| (got.source() == "replay") == (got.header("idempotency-replayed") == "true")));
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_may_hang_up() {
    let world = World::new();
    let gate = Arc::new(Semaphore::new(0));
    world.wire.acts([Act::Hold(Arc::clone(&gate))]);
    let first = tokio::spawn(world.send(snap_create(1, OWN)));
    settle().await;
    assert_eq!(world.wire.calls().len(), 1, "it is under way");
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = tokio::spawn(world.send(snap_create(1, OWN)));
    settle().await;
    gate.add_permits(1);
    let second = second.await.unwrap();
    assert_eq!((second.status, second.source()), (200, "replay"));
    let third = world.send(snap_create(1, OWN)).await;
    assert_eq!((&third.body, third.source()), (&second.body, "replay"));
    assert_eq!((world.wire.calls().len(), world.stat("creates").await), (1, 1));
    world.send(snap_update(2, OWN)).await.expect(200);
    assert!(world.scrape().await.contains("status=\"499\""), "who hung up is counted");
}

#[tokio::test(start_paused = true)]
async fn the_same_id_with_another_body_is_a_conflict() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(classic_create(1, "").header("A-Correlation-ID", &id(50))).await.expect(201);
    world.wire.clear();
    let conflict = world.send(snap_create(1, OWN).set("/virtualAccountName", "Somebody Else")).await;
    assert_eq!(conflict.expect_refusal(409, "IDEMPOTENCY_CONFLICT").json()["responseCode"], "4092700");
    let other_transaction = snap_create(1, OWN).set("/trxId", id(2).as_str());
    world.send(other_transaction).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
    let other_operation = world.send(snap_update(1, OWN)).await;
    assert_eq!(other_operation.expect_refusal(409, "IDEMPOTENCY_CONFLICT").json()["responseCode"], "4092800");
    let classic = classic_create(1, "").header("A-Correlation-ID", &id(50)).set("/expiresIn", 361);
    let classic = world.send(classic).await;
    assert_eq!(classic.expect_refusal(409, "IDEMPOTENCY_CONFLICT").json()["responseCode"], 409);
    assert!(world.wire.all().is_empty(), "nothing was sent");
}

#[tokio::test(start_paused = true)]
async fn another_body_is_a_conflict_while_the_first_is_under_way() {
    let world = World::new();
    let gate = Arc::new(Semaphore::new(0));
    world.wire.acts([Act::Hold(Arc::clone(&gate))]);
    let first = tokio::spawn(world.send(snap_create(1, OWN)));
    settle().await;
    world.send(snap_create(1, "")).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
    let same_transaction = snap_create(1, OWN).header("X-EXTERNAL-ID", &id(9)).set("/customerNo", "OTHER01");
    world.send(same_transaction).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
    gate.add_permits(1);
    first.await.unwrap().expect(200);
}

#[tokio::test(start_paused = true)]
async fn the_same_meaning_is_the_same_request() {
    let world = World::new();
    let first = world.send(snap_create(1, OWN)).await;
    let mut members: Vec<_> = snap_create(1, OWN).json.as_object().unwrap().clone().into_iter().collect();
    members.reverse();
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\" :\t{value}")).collect();
    let shuffled = format!(" {{\n{} }}", members.join(" , ")).replace("Budi", "\\u0042udi");
    let second = world.send(snap_create(1, OWN).body(shuffled)).await;
    assert_eq!((second.body, second.status), (first.body, 200));
    let number_text = snap_create(1, OWN)
        .body(snap_create(1, OWN).json.to_string().replace("\"customerNo\"", "\"n\":1.0,\"customerNo\""));
    world.send(number_text).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_under_a_new_id_is_the_same_create() {
    let world = World::new();
    let first = world.send(snap_create(1, OWN)).await;
    let again = world.send(snap_create(1, OWN).header("X-EXTERNAL-ID", &id(2))).await;
    assert_eq!((again.source(), &again.body), ("replay", &first.body));
    let other = snap_create(1, OWN).header("X-EXTERNAL-ID", &id(3)).set("/customerNo", "OTHER01");
    world.send(other).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
    assert_eq!(world.wire.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_under_a_new_id_joins_the_first_while_it_is_under_way() {
    let world = World::new();
    world.wire.acts([Act::Late(Duration::from_secs(2))]);
    let sending: Vec<_> =
        (1..=50).map(|tag| tokio::spawn(world.send(snap_create(1, OWN).header("X-EXTERNAL-ID", &id(tag))))).collect();
    let answers: Vec<_> = join_all(sending).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|got| got.status == 200 && got.body == answers[0].body));
    assert_eq!(answers.iter().filter(|got| got.source() == "upstream").count(), 1);
    assert_eq!(world.wire.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_under_a_new_id_is_forwarded_where_so_configured() {
    let mut setup = Setup::new(1);
    setup.config.idempotency.same_trx_id = SameTrxId::Forward;
    let world = setup.build();
    world.send(snap_create(1, "")).await.expect(200);
    world.send(snap_create(1, "").header("X-EXTERNAL-ID", &id(2))).await.expect(200);
    world.send(snap_create(1, "").header("X-EXTERNAL-ID", &id(3)).set("/customerNo", "OTHER01")).await.expect(200);
    assert_eq!(world.stat("creates").await, 3);
    let replay = world.send(snap_create(1, "").header("X-EXTERNAL-ID", &id(2))).await;
    assert_eq!(replay.source(), "replay");
}

#[tokio::test(start_paused = true)]
async fn ids_come_from_a_clients_own_key() {
    // printf %s order-1 | sha256sum
    let derived = "0bafe22156d2698c143b86040446d366";
    let world = World::new();
    let keyed = |ask: Ask| ask.header("Idempotency-Key", "order-1");
    let create = world.send(keyed(snap_create(1, OWN).without("X-EXTERNAL-ID"))).await;
    assert_eq!(create.expect(200).header("x-external-id"), derived);
    assert_eq!(create.header("ayova-attached"), "X-EXTERNAL-ID");
    assert_eq!(world.wire.last().header("x-external-id"), derived);
    let again = world.send(keyed(snap_create(1, OWN).without("X-EXTERNAL-ID"))).await;
    assert_eq!((again.source(), again.header("x-external-id")), ("replay", derived));
    // X-EXTERNAL-ID wins over the key.
    world.send(keyed(snap_update(7, OWN))).await.expect(200);
    assert_eq!(world.wire.last().header("x-external-id"), id(7));

    let create = world.send(keyed(classic_create(1, "12345678").unset("/transactionId"))).await;
    create.expect(201);
    let arrived = world.wire.last();
    assert_eq!(arrived.header("a-correlation-id"), derived);
    assert_eq!(arrived.json()["transactionId"], derived);
    assert_eq!(create.header("ayova-attached"), "transactionId, A-Correlation-ID");
    let again = world.send(keyed(classic_create(1, "12345678").unset("/transactionId"))).await;
    assert_eq!((again.source(), &again.body), ("replay", &create.body));
    let update = world.send(keyed(classic_update("12345678"))).await;
    assert_eq!(update.expect(200).json()["transactionId"], derived);
    assert_eq!(world.send(keyed(classic_update("12345678"))).await.source(), "replay");
}

#[tokio::test(start_paused = true)]
async fn a_create_or_update_without_any_key_is_refused_unless_configured() {
    let world = World::new();
    for ask in [snap_create(1, OWN), snap_update(1, OWN)] {
        let got = world.send(ask.without("X-EXTERNAL-ID")).await;
        assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["X-EXTERNAL-ID"]);
    }
    let got = world.send(classic_create(1, "").unset("/transactionId")).await;
    assert_eq!(got.expect_refusal(400, "INVALID_REQUEST").faults(), ["transactionId"]);
    assert!(world.wire.all().is_empty());

    let mut setup = Setup::new(1);
    setup.config.idempotency.key = MissingKey::Generate;
    let world = setup.build();
    let got = world.send(snap_create(1, OWN).without("X-EXTERNAL-ID")).await;
    assert_eq!(got.expect(200).header("x-external-id"), world.wire.last().header("x-external-id"));
    assert_eq!(got.header("x-external-id").len(), 32);
}

#[tokio::test(start_paused = true)]
async fn a_classic_create_without_a_correlation_id_goes_by_its_transaction() {
    for same_trx_id in [SameTrxId::Replay, SameTrxId::Forward] {
        let mut setup = Setup::new(1);
        setup.config.idempotency.same_trx_id = same_trx_id;
        let world = setup.build();
        let first = world.send(classic_create(1, "")).await;
        let again = world.send(classic_create(1, "")).await;
        assert_eq!((again.source(), &again.body), ("replay", &first.body));
        assert_eq!(again.header("a-correlation-id"), first.header("a-correlation-id"));
        world.send(classic_create(1, "").set("/expiresIn", 361)).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
        world.send(classic_create(2, "")).await.expect(201);
        assert_eq!(world.stat("creates").await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_classic_update_goes_by_its_transaction() {
    let world = World::new();
    world.send(classic_create(1, "12345678")).await.expect(201);
    let update = || classic_update("12345678").set("/transactionId", id(2).as_str());
    let first = world.send(update()).await;
    assert_eq!(world.send(update()).await.body, first.expect(200).body);
    let other = update().set("/virtualAccountName", "Somebody Else");
    world.send(other).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
    // The create's own transaction is another thing.
    world.send(classic_update("12345678").set("/transactionId", id(1).as_str())).await.expect(200);
    // Without one every update is a new one.
    for _ in 0..2 {
        world.send(classic_update("12345678")).await.expect(200);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_forgotten_after_their_retention() {
    let mut setup = Setup::new(1);
    setup.config.idempotency.retention = Duration::from_secs(100);
    setup.config.idempotency.trx_id_retention = Duration::from_secs(1_000);
    let world = setup.build();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(snap_update(2, OWN)).await.expect(200);
    tokio::time::advance(Duration::from_secs(99)).await;
    assert_eq!(world.send(snap_update(2, OWN)).await.source(), "replay");
    tokio::time::advance(Duration::from_secs(2)).await;
    world.send(snap_update(2, OWN)).await.expect(200);
    assert_eq!(world.send(snap_create(1, OWN)).await.source(), "replay", "known by its transaction");
    tokio::time::advance(Duration::from_secs(900)).await;
    world.send(snap_create(1, OWN)).await.expect(200);
    assert_eq!(world.stat("creates").await, 1, "upstream recognised it");
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_the_first_is_told_so() {
    let mut setup = Setup::new(1);
    setup.config.idempotency.wait = Duration::from_secs(3);
    let world = setup.build();
    world.send(snap_inquiry(&crate::asks::padded(OWN)).set("/customerNo", "CUST000123")).await.expect(404);
    world.wire.acts([Act::Late(Duration::from_secs(5))]);
    let first = tokio::spawn(world.send(snap_create(1, OWN)));
    settle().await;
    let second = world.send(snap_create(1, OWN)).await;
    assert_eq!(second.expect_refusal(409, "IDEMPOTENCY_IN_PROGRESS").json()["responseCode"], "4092701");
    first.await.unwrap().expect(200);
    assert_eq!(world.send(snap_create(1, OWN)).await.source(), "replay");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_is_repeated_with_the_same_pair_and_newly_signed() {
    let world = World::new();
    world.wire.acts([Act::Swallow]);
    world.send(snap_create(1, OWN)).await.expect(200);
    let [first, second] = world.wire.calls().try_into().unwrap();
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("x-external-id"), second.header("x-external-id"));
    assert_eq!((world.stat("creates").await, world.stat("duplicate_creates").await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_a_state_that_a_retry_goes_on_from() {
    for trouble in [Act::Broken, Act::Swallow, Act::Answer(500, ""), Act::Answer(200, ""), Act::Answer(200, "{\"a\":")]
    {
        let world = World::new();
        world.wire.acts([trouble.clone(), trouble.clone(), trouble]);
        let got = world.send(snap_create(1, OWN)).await;
        assert_eq!(got.expect_refusal(504, "OUTCOME_UNKNOWN").json()["responseCode"], "5042700");
        assert_eq!(world.metric("ayova_unknown_outcomes{operation=\"snap.create\"}").await, 1.0);
        world.send(snap_create(1, "")).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
        // Under a new id the transaction is still the first one's.
        let got = world.send(snap_create(1, OWN).header("X-EXTERNAL-ID", &id(2))).await;
        assert_eq!(got.expect(200).header("x-external-id"), id(1));
        assert_eq!(got.header("ayova-attached"), "X-EXTERNAL-ID");
        assert_eq!(world.stat("creates").await, 1);
        assert_eq!(world.metric("ayova_unknown_outcomes{operation=\"snap.create\"}").await, 0.0);
        assert_eq!(world.send(snap_create(1, OWN)).await.source(), "replay");
        world.send(snap_update(3, OWN)).await.expect(200);
        assert_eq!(world.wire.last().json()["originalReferenceNo"], id(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_classic_create_in_doubt_is_never_repeated_by_the_gateway() {
    let world = World::new();
    world.wire.acts([Act::Broken]);
    world.send(classic_create(1, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!(world.wire.calls().len(), 1);
    let flow = world.wire.last().header("a-correlation-id").to_owned();
    let got = world.send(classic_create(1, "")).await;
    assert_eq!(got.expect(201).header("a-correlation-id"), flow, "the caller's retry goes under the first one's id");
    assert_eq!(world.wire.last().header("a-correlation-id"), flow);
    assert_eq!(world.send(classic_create(1, "")).await.source(), "replay");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_our_own_try_is_settled_by_inquiry() {
    let mut setup = Setup::new(1);
    setup.sandbox.snap.idempotency_mode = IdempotencyMode::Conflict;
    let world = setup.build();
    // The prefix is learnt from an earlier answer.
    world.send(snap_create(1, "12345678900")).await.expect(200);
    world.wire.acts([Act::Swallow]);
    let got = world.send(snap_create(2, OWN)).await;
    assert_eq!((got.status, got.source(), got.reason()), (200, "gateway", "SETTLED_BY_INQUIRY"));
    assert_eq!(got.json()["virtualAccountData"]["referenceNo"], id(2));
    assert_eq!(got.json()["responseCode"], "2002700");
    assert_eq!(world.stat("creates").await, 2);
    assert_eq!(world.send(snap_create(2, OWN)).await.source(), "replay");
    world.send(snap_update(3, OWN)).await.expect(200);

    let world = {
        let mut setup = Setup::new(1);
        setup.sandbox.snap.idempotency_mode = IdempotencyMode::Conflict;
        setup.build()
    };
    world.wire.acts([Act::Swallow]);
    world.send(snap_create(2, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    // A conflict that is not with our own try is upstream's answer.
    world.wire.acts([Act::Answer(409, "{\"responseCode\":\"4092700\",\"responseMessage\":\"Conflict\"}")]);
    world.send(snap_create(3, "12345678999")).await.expect(409);
}

#[tokio::test(start_paused = true)]
async fn definite_answers_are_kept_and_others_are_not() {
    for (status, kept) in [(400, true), (403, true), (404, true), (409, true), (422, true), (408, false), (429, false)]
    {
        let world = World::new();
        world.wire.acts([Act::Answer(status, "{\"responseCode\":\"4002700\"}")]);
        world.send(snap_create(1, OWN)).await.expect(status);
        let again = world.send(snap_create(1, OWN)).await;
        let expected = if kept { (status, "replay") } else { (200, "upstream") };
        assert_eq!((again.status, again.source()), expected, "{status}");
    }
    let world = World::new();
    world.wire.acts([Act::Answer(401, "{\"responseCode\":\"4012700\"}")]);
    world.send(snap_create(1, OWN)).await.expect(401);
    world.send(snap_create(1, OWN)).await.expect(200);

    let refusal = "{\"responseCode\":503,\"errors\":[{\"code\":\"0505\",\"message\":\"x\",\"details\":\"y\"}]}";
    let world = World::new();
    world.wire.acts([Act::Answer(503, refusal), Act::Answer(503, &refusal[..20])]);
    assert_eq!(world.send(classic_create(1, "")).await.expect(503).text(), refusal);
    world.send(classic_create(1, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    let doubtful = "{\"errors\":[{\"code\":\"0025\"}]}";
    world.wire.acts([Act::Answer(503, doubtful)]);
    world.send(classic_create(2, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn the_two_generations_share_no_ids() {
    let world = World::new();
    let shared = |ask: Ask, header: &str| ask.header(header, &id(1));
    world.send(shared(snap_create(1, OWN), "X-EXTERNAL-ID")).await.expect(200);
    world.send(shared(classic_create(1, ""), "A-Correlation-ID")).await.expect(201);
    assert_eq!(world.admin(&format!("/idempotency/{}", id(1))).await.json()["known"].as_array().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn joined_and_replayed_calls_use_no_quota_and_no_slot() {
    let mut setup = Setup::new(1);
    setup.limit(0, (1, 2), 2);
    let world = setup.build();
    world.wire.acts([Act::Late(Duration::from_millis(500))]);
    let sending: Vec<_> = (0..100).map(|_| tokio::spawn(world.send(snap_create(1, OWN)))).collect();
    for got in join_all(sending).await {
        let got = got.unwrap();
        assert_eq!(got.status, 200, "{}", got.reason());
    }
    for _ in 0..100 {
        assert_eq!(world.send(snap_create(1, OWN)).await.source(), "replay");
        world.send(snap_create(1, "")).await.expect_refusal(409, "IDEMPOTENCY_CONFLICT");
        world
            .send(snap_create(2, OWN).set("/virtualAccountName", json!(null)))
            .await
            .expect_refusal(400, "INVALID_REQUEST");
    }
    world.send(snap_update(3, OWN)).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn an_inquiry_takes_no_id_from_a_key() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.wire.clear();
    for _ in 0..2 {
        world.send(snap_inquiry(OWN).header("Idempotency-Key", "order-1")).await.expect(200);
    }
    let ids: Vec<String> = world.wire.calls().iter().map(|call| call.header("x-external-id").to_owned()).collect();
    assert_ne!(ids[0], ids[1], "each has an id of its own");
    assert!(ids.iter().all(|id| id != "0bafe22156d2698c143b86040446d366"), "none is the create's: {ids:?}");
}
