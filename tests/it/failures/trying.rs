//! Repeats: how often, how soon, how many in all, and when not to try at all.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::asks::{CREATE, classic_create, classic_get, id, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, Setup, World};

const OWN: &str = "12345678901";

/// Pauses between the tries of one create.
async fn pauses(seed: u8) -> Vec<Duration> {
    let mut setup = Setup::new(1);
    setup.seed = seed;
    let world = setup.build();
    world.wire.acts([Act::Broken, Act::Broken]);
    world.send(snap_create(1, OWN)).await.expect(200);
    let times: Vec<Instant> = world.wire.calls().iter().map(|arrived| arrived.at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_with_jitter_from_the_seed() {
    let first = pauses(1).await;
    assert_eq!(first, pauses(1).await);
    assert_ne!(first, pauses(2).await);
    let within = |pause: Duration, longest: u64| (longest / 2..=longest + 1).contains(&(pause.as_millis() as u64));
    assert!(within(first[0], 100) && within(first[1], 200), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn everything_is_over_at_the_deadline() {
    for (deadline, tries) in [(20, 3), (10, 2), (3, 1)] {
        let mut setup = Setup::new(1);
        setup.config.upstream.deadline = Duration::from_secs(deadline);
        let world = setup.build();
        world.wire.acts([Act::Hang, Act::Hang, Act::Hang, Act::Hang]);
        let began = Instant::now();
        world.send(snap_create(1, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
        assert!(began.elapsed() <= Duration::from_secs(deadline), "{:?}", began.elapsed());
        assert_eq!(world.wire.calls().len(), tries, "{deadline} s");
        let began = Instant::now();
        world.wire.script(|_| Act::Hang);
        world.send(snap_inquiry("   1462912345678901").set("/customerNo", "CUST000123")).await;
        assert!(began.elapsed() <= Duration::from_secs(deadline), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_are_a_floor_and_a_share_of_requests() {
    let mut setup = Setup::new(1);
    setup.config.breaker.failures = 1_000_000;
    let world = setup.build();
    world.wire.script(|arrived| if arrived.is_login() { Act::Deliver } else { Act::Broken });
    for tag in 0..300 {
        let world = world.clone();
        tokio::spawn(async move { world.send(snap_create(tag, "")).await });
    }
    sleep(Duration::from_secs(5)).await;
    let repeats = world.wire.calls().len() - 300;
    // Ten a second over the budget's ten seconds, and 20 % of 300.
    assert!((100..=160).contains(&repeats), "{repeats} of 600 possible ones");
}

#[tokio::test(start_paused = true)]
async fn a_try_that_never_left_does_not_lift_an_earlier_ones_doubt() {
    let world = World::new();
    world.wire.acts([Act::Swallow, Act::NotSent, Act::NotSent]);
    world.send(snap_create(1, OWN)).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!(world.admin(&format!("/idempotency/{}", id(1))).await.json()["known"][0]["state"], "in_doubt");
    // What never left at all is not in doubt, and a classic create may be tried again then.
    let world = World::new();
    world.wire.acts([Act::NotSent, Act::NotSent, Act::NotSent]);
    world.send(classic_create(1, "")).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!(world.wire.calls().len(), 3);
    assert_eq!(world.admin(&format!("/idempotency/{}", id(1))).await.status, 404);
}

/// Ten creates fail, which opens their breaker.
async fn open_for_creates(world: &World) {
    world.send(snap_create(900, OWN)).await.expect(200);
    world.send(classic_create(901, "12345678")).await.expect(201);
    world.wire.acts(std::iter::repeat_n(Act::Broken, 10));
    for tag in 0..10 {
        world.send(classic_create(tag, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    }
    assert_eq!(state(world, "create").await, "open");
    world.wire.clear();
}

async fn state(world: &World, class: &str) -> String {
    world.admin("/status").await.json()["breakers"][class].as_str().unwrap().to_owned()
}

fn creates(world: &World) -> usize {
    let calls = world.wire.calls();
    calls.iter().filter(|arrived| arrived.path == CREATE || arrived.method == "POST").count()
}

#[tokio::test(start_paused = true)]
async fn a_breaker_stops_its_own_class_only() {
    let world = World::new();
    open_for_creates(&world).await;
    world.send(snap_create(20, "")).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!(creates(&world), 0);
    world.send(snap_update(21, OWN)).await.expect(200);
    world.send(classic_get("12345678")).await.expect(200);
    for class in ["token", "update", "read"] {
        assert_eq!(state(&world, class).await, "closed");
    }
    // What was refused was never begun.
    assert_eq!(world.admin(&format!("/idempotency/{}", id(20))).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_of_creates_is_probed_by_a_token_call() {
    let world = World::new();
    open_for_creates(&world).await;
    world.wire.script(|arrived| if arrived.is_login() { Act::NotSent } else { Act::Broken });
    sleep(Duration::from_secs(5)).await;
    for tag in 20..30 {
        world.send(snap_create(tag, "")).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(creates(&world), 0, "a create is never the probe");
    assert_eq!(world.wire.logins().len(), 3, "one probe, tried as often as any login");
    assert_eq!(state(&world, "create").await, "half_open");
    // Upstream is back, though not for creates.
    world.wire.script(|arrived| if arrived.is_login() { Act::Deliver } else { Act::Broken });
    sleep(Duration::from_secs(5)).await;
    world.send(snap_create(30, "")).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((state(&world, "create").await.as_str(), creates(&world)), ("closed", 0));
    world.send(classic_create(31, "")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    assert_eq!(state(&world, "create").await, "open", "on trial one failure is enough");
    // And for creates too.
    world.wire.script(|_| Act::Deliver);
    sleep(Duration::from_secs(5)).await;
    world.send(snap_create(32, "")).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
    sleep(Duration::from_secs(1)).await;
    world.send(snap_create(32, "")).await.expect(200);
    world.send(snap_create(33, "")).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn an_answered_read_or_update_closes_the_breaker_of_creates() {
    for tag in [40, 41] {
        let world = World::new();
        open_for_creates(&world).await;
        match tag {
            40 => drop(world.send(snap_inquiry(OWN)).await.expect(200)),
            _ => drop(world.send(snap_update(tag, OWN)).await.expect(200)),
        }
        world.send(snap_create(50, "")).await.expect_refusal(503, "UPSTREAM_UNAVAILABLE");
        sleep(Duration::from_secs(5)).await;
        world.send(snap_create(50, "")).await.expect(200);
        assert_eq!(world.wire.logins().len(), 0, "no probe was needed");
    }
}
