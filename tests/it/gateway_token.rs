//! Tokens are the gateway's affair alone (contract section 5 rule 1).

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::Instant;

use crate::asks::{classic_create, classic_get, snap_create, snap_inquiry};
use crate::harness::{Act, Setup, World};

const OWN: &str = "12345678901";

/// A world whose tokens live that many seconds.
fn world_of(seconds: u64) -> World {
    let mut setup = Setup::new(1);
    setup.sandbox.snap.token_life = Duration::from_secs(seconds);
    setup.sandbox.classic.token_life = Duration::from_secs(seconds);
    setup.build()
}

#[tokio::test(start_paused = true)]
async fn five_hundred_first_requests_make_one_token_call() {
    let world = World::new();
    world.wire.login_acts([Act::Late(Duration::from_secs(3))]);
    let sending: Vec<_> = (0..500).map(|tag| tokio::spawn(world.send(snap_create(tag, "")))).collect();
    for got in join_all(sending).await {
        got.unwrap().expect(200);
    }
    assert_eq!((world.wire.logins().len(), world.stat("tokens_issued").await), (1, 1));
    assert_eq!(
        world.metric("ayova_token_refreshes_total{merchant=\"sample\",dialect=\"snap\",result=\"success\"}").await,
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn five_hundred_refused_tokens_make_one_new_token_call() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    let first = world.wire.last().header("authorization").to_owned();
    world.wire.clear();
    world.wire.script(move |arrived| {
        let refused = arrived.header("authorization") == first;
        let answer = "{\"responseCode\":\"4013003\"}";
        if refused { Act::AnswerLate(Duration::from_millis(5), 401, answer) } else { Act::Deliver }
    });
    let sending: Vec<_> = (0..500).map(|_| tokio::spawn(world.send(snap_inquiry(OWN)))).collect();
    for got in join_all(sending).await {
        got.unwrap().expect(200);
    }
    assert_eq!((world.wire.logins().len(), world.wire.calls().len()), (1, 1_000));
}

#[tokio::test(start_paused = true)]
async fn over_a_day_nobody_waits_for_a_refresh_or_sees_a_401() {
    let world = world_of(900);
    world.send(snap_create(1, OWN)).await.expect(200);
    world.send(classic_create(1, "12345678")).await.expect(201);
    // From here on a login takes time that a request would notice.
    world.wire.script(|arrived| if arrived.is_login() { Act::Late(Duration::from_secs(4)) } else { Act::Deliver });
    world.wire.clear();
    let mut random = rand::rngs::StdRng::seed_from_u64(9);
    let (day, mut requests) = (Instant::now() + Duration::from_secs(24 * 60 * 60), 0);
    while Instant::now() < day {
        for _ in 0..random.random_range(1..150) {
            tokio::time::sleep(Duration::from_millis(random.random_range(500..9_000))).await;
            let asked = Instant::now();
            world.send(snap_inquiry(OWN)).await.expect(200);
            world.send(classic_get("12345678")).await.expect(200);
            assert_eq!(Instant::now(), asked, "waited");
            requests += 2;
        }
        // Nights and lunch breaks: shorter and much longer than a token's life.
        tokio::time::sleep(Duration::from_secs(random.random_range(60..7_200))).await;
    }
    let calls = world.wire.calls();
    assert_eq!(calls.len(), requests, "nothing was repeated");
    let logins = world.wire.logins();
    // Renewed at 70 to 80 per cent of 900 seconds, day and night, for two generations.
    assert!((2 * 120..=2 * 140).contains(&logins.len()), "{}", logins.len());
}

#[tokio::test(start_paused = true)]
async fn a_blamed_token_is_replaced_and_the_request_repeated_once() {
    let world = World::new();
    for (operation, create, status) in
        [("snap.create", snap_create(1, OWN), 200), ("classic.create", classic_create(1, "12345678"), 201)]
    {
        world.wire.clear();
        world.fault(operation, 1, json!({"expire_token": true})).await;
        world.send(create).await.expect(status);
        let [refused, repeated] = world.wire.calls().try_into().unwrap();
        assert_eq!((refused.body, refused.path), (repeated.body, repeated.path));
        assert_ne!(refused.headers["authorization"], repeated.headers["authorization"]);
        assert_eq!(world.wire.logins().len(), 2);
        for header in ["x-external-id", "a-correlation-id"] {
            assert_eq!(refused.headers.get(header), repeated.headers.get(header));
        }
        if status == 200 {
            assert_ne!(refused.headers["x-signature"], repeated.headers["x-signature"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_blame_reaches_the_app() {
    let world = World::new();
    for (act, ask) in [
        (Act::Answer(401, "{\"responseCode\":\"4012701\"}"), snap_create(1, OWN)),
        (Act::Answer(401, "{\"code\":\"401\"}"), classic_create(1, "")),
        (Act::Answer(401, ""), classic_create(2, "")),
    ] {
        world.wire.clear();
        // A second refusal within a second is not met with another login.
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.wire.acts([act.clone(), act]);
        world.send(ask).await.expect(401);
        assert_eq!(world.wire.calls().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_that_blames_something_else_is_not_repeated() {
    let world = World::new();
    for answer in ["{\"responseCode\":\"4012700\"}", "{\"responseCode\":\"4012702\"}", "", "<html>"] {
        world.wire.clear();
        world.wire.acts([Act::Answer(401, answer)]);
        let ask = snap_inquiry(&crate::asks::padded(OWN)).set("/customerNo", "CUST000123");
        assert_eq!(world.send(ask).await.expect(401).text(), answer);
        assert_eq!(world.wire.calls().len(), 1);
    }
    assert_eq!(world.stat("tokens_issued").await, 1);
}

/// Answers to a token call that give no token.
const USELESS: [&str; 12] = [
    "",
    "<html>maintenance</html>",
    "{\"accessToken\":\"abc",
    "{}",
    "[]",
    "null",
    "{\"accessToken\":\"\",\"expiresIn\":\"900\"}",
    "{\"accessToken\":\"a b\",\"expiresIn\":\"900\"}",
    "{\"accessToken\":\"abc\u{e9}\",\"expiresIn\":\"900\"}",
    "{\"accessToken\":\"abc\"}",
    "{\"accessToken\":\"abc\",\"expiresIn\":0}",
    "{\"accessToken\":\"abc\",\"expiresIn\":\"soon\"}",
];

#[tokio::test(start_paused = true)]
async fn a_useless_token_answer_is_transient() {
    let mut useless: Vec<_> = USELESS.into_iter().map(|answer| Act::Answer(200, answer)).collect();
    useless.extend([
        Act::Answer(500, "{}"),
        Act::Answer(401, "{}"),
        Act::NotSent,
        Act::Broken,
        Act::Swallow,
        Act::Panic,
    ]);
    for act in useless {
        let world = World::new();
        world.wire.login_acts([act.clone()]);
        let got = world.send(snap_create(1, OWN)).await;
        if !matches!(act, Act::Panic) {
            got.expect(200);
            assert_eq!(world.wire.logins().len(), 2);
        }
        world.wire.clear();
        // A world that has no token yet, and gets none three times.
        let world = World::new();
        world.wire.login_acts([act.clone(), act.clone(), act]);
        let got = world.send(snap_create(1, OWN)).await;
        assert_eq!(got.expect_refusal(503, "TOKEN_UNAVAILABLE").json()["responseCode"], "5032700");
        assert!(world.wire.calls().is_empty(), "nothing but the login was sent");
        world.wire.acts([]);
        // The pause after refused credentials.
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.send(snap_create(1, OWN)).await.expect(200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_token_answer_is_transient_too() {
    let world = World::new();
    world.wire.login_acts([Act::Hang]);
    world.send(snap_create(1, OWN)).await.expect(200);
    let world = World::new();
    world.wire.login_acts([Act::Hang, Act::Hang, Act::Hang]);
    let asked = Instant::now();
    world.send(classic_create(1, "")).await.expect_refusal(503, "TOKEN_UNAVAILABLE");
    assert_eq!(asked.elapsed().as_secs(), 20, "the deadline of a request, login included");
    assert!(world.wire.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_is_never_injected_after_its_end() {
    let world = world_of(60);
    world.send(snap_create(1, OWN)).await.expect(200);
    let first = world.wire.last().header("authorization").to_owned();
    world.wire.script(|arrived| if arrived.is_login() { Act::Answer(500, "") } else { Act::Deliver });
    world.wire.clear();
    for second in 1..=90 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let got = world.send(snap_inquiry(OWN)).await;
        assert_eq!(got.status, if second < 58 { 200 } else { 503 }, "second {second}: {}", got.reason());
    }
    let last = world.wire.last();
    assert_eq!(last.header("authorization"), first);
    assert!(last.at.elapsed() > Duration::from_secs(30));
    world.wire.acts([]);
    tokio::time::sleep(Duration::from_secs(70)).await;
    world.send(snap_inquiry(OWN)).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_failing_refresh_is_not_noticed_while_the_token_is_good() {
    let world = world_of(900);
    world.send(snap_create(1, OWN)).await.expect(200);
    let mut failures = 4;
    world.wire.script(move |arrived| match arrived.is_login() && failures > 0 {
        true => {
            failures -= 1;
            Act::Hang
        }
        false => Act::Deliver,
    });
    for _ in 0..1_000 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let asked = Instant::now();
        world.send(snap_inquiry(OWN)).await.expect(200);
        assert_eq!(asked.elapsed(), Duration::ZERO);
    }
    let tokens: HashSet<_> = world.wire.calls().iter().map(|call| call.headers["authorization"].clone()).collect();
    assert!(tokens.len() >= 3, "{}", tokens.len());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_does_not_stop_the_login() {
    let world = World::new();
    world.wire.login_acts([Act::Late(Duration::from_secs(2))]);
    let first = tokio::spawn(world.send(snap_inquiry(&crate::asks::padded(OWN)).set("/customerNo", "CUST000123")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.abort();
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.send(snap_create(1, OWN)).await.expect(200);
    assert_eq!(world.wire.logins().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_all_refused_cost_a_login_a_second() {
    let world = World::new();
    world.send(snap_create(1, OWN)).await.expect(200);
    world.wire.clear();
    world.wire.script(|arrived| match arrived.is_login() {
        true => Act::Deliver,
        false => Act::Answer(401, "{\"responseCode\":\"4013001\"}"),
    });
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..1_000 {
        let got = world.send(snap_inquiry(OWN)).await;
        assert_eq!((got.status, got.source()), (401, "upstream"), "{}", got.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((9..=11).contains(&world.wire.logins().len()), "{}", world.wire.logins().len());
    assert!(tasks() <= before + 1, "{} tasks, {before} before", tasks());
    world.wire.acts([]);
    world.send(snap_inquiry(OWN)).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_not_tried_with_every_request() {
    for status in [400, 401, 403] {
        let world = World::new();
        world.wire.script(move |arrived| if arrived.is_login() { Act::Answer(status, "{}") } else { Act::Deliver });
        for _ in 0..6_000 {
            let asked = Instant::now();
            world.send(classic_create(1, "")).await.expect_refusal(503, "TOKEN_UNAVAILABLE");
            assert!(asked.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Three at first, then one after 1, 2, 4, 8, 16, 30, 30 ... seconds of these two minutes.
        assert!((8..=11).contains(&world.wire.logins().len()), "{}", world.wire.logins().len());
        assert!(world.wire.calls().is_empty());
        world.wire.acts([]);
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.send(classic_create(1, "")).await.expect(201);
    }
}
