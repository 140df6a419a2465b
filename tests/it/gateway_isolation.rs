//! Nothing of one merchant ever serves another: tokens, secrets, answers, records.
//!
//! A property over interleavings: three merchants use the SAME ids, transactions and numbers in a
//! random order, some of it at once and with trouble upstream, and everything that arrived and every
//! answer is held against whose it is.

use std::collections::HashMap;
use std::time::Duration;

use ayova::signature::{HmacKey, SignedRequest, StringToSign, body_hash};
use proptest::prelude::*;
use serde_json::Value;

use crate::asks::{Ask, classic_create, classic_get, classic_update, id, snap_create, snap_inquiry, snap_update};
use crate::harness::{Act, Arrived, CODES, Got, Setup, World};

const SECRETS: [&str; 3] = ["sandbox-secret", "secret-1", "secret-2"];
const CLIENTS: [&str; 3] = ["sandbox-client", "client-1", "client-2"];

/// One step: a merchant, what it does, which of a few ids it does it under.
#[derive(Clone, Copy, Debug)]
struct Step {
    merchant: usize,
    deed: u8,
    tag: u32,
    /// Started together with the next.
    together: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3usize, 0..6u8, 1..4u32, any::<bool>());
    prop::collection::vec(
        step.prop_map(|(merchant, deed, tag, together)| Step { merchant, deed, tag, together }),
        1..60,
    )
}

/// Every merchant's names, amounts and customers differ; ids, transactions and numbers do not.
fn ask(step: Step) -> Ask {
    let own = format!("{:011}", step.tag);
    let classic_own = format!("{:08}", step.tag);
    let name = format!("Customer of {}", CODES[step.merchant]);
    let ask = match step.deed {
        0 => snap_create(step.tag, &own).set("/customerNo", format!("CUST00{}", step.merchant)),
        1 => snap_update(step.tag + 10, &own),
        2 => return snap_inquiry(&own).merchant(CODES[step.merchant]),
        3 => classic_create(step.tag, &classic_own).header("A-Correlation-ID", &id(step.tag)),
        4 => classic_update(&classic_own).set("/transactionId", id(step.tag + 20)),
        _ => return classic_get(&classic_own).merchant(CODES[step.merchant]),
    };
    ask.set("/virtualAccountName", name).merchant(CODES[step.merchant])
}

/// Whose a request that arrived is, by everything in it that can tell.
fn check_arrived(arrived: &Arrived, tokens: &HashMap<String, usize>) {
    let code =
        ["x-partner-id", "a-merchant-code"].iter().map(|name| arrived.header(name)).find(|code| !code.is_empty());
    let merchant = CODES.iter().position(|known| *known == code.unwrap()).unwrap();
    let token = arrived.header("authorization").strip_prefix("Bearer ").unwrap();
    assert_eq!(tokens.get(token), Some(&merchant), "somebody else's token");
    let body: Value = serde_json::from_slice(&arrived.body).unwrap_or_default();
    if let Some(name) = body["virtualAccountName"].as_str() {
        assert_eq!(name, format!("Customer of {}", CODES[merchant]));
    }
    if let Some(customer) = body["customerNo"].as_str() {
        assert_eq!(customer, format!("CUST00{merchant}"), "somebody else's record");
    }
    for (name, prefix) in [("partnerServiceId", 14_629), ("virtualAccountNo", 14_629)] {
        if let Some(text) = body[name].as_str().filter(|text| text.starts_with(' ')) {
            assert!(text.trim().starts_with(&(prefix + merchant).to_string()), "somebody else's number");
        }
    }
    let customers =
        [arrived.query.clone().unwrap_or_default(), body["customerId"].as_str().unwrap_or_default().to_owned()];
    for (other, code) in CODES.iter().enumerate() {
        assert!(other == merchant || customers.iter().all(|text| !text.contains(code)), "somebody else's customer");
    }
    if arrived.path.contains("transfer-va") {
        assert_eq!(arrived.header("x-client-key"), CLIENTS[merchant]);
        let (hash, timestamp) = (body_hash(&arrived.body), arrived.header("x-timestamp"));
        let signed = SignedRequest { method: &arrived.method, path: &arrived.path, body_hash: &hash, timestamp };
        let key = HmacKey::new(SECRETS[merchant].as_bytes());
        assert!(key.verify(&StringToSign::hmac_sha512(&signed, token), arrived.header("x-signature")));
    }
}

/// An answer that shows an account shows the asker's own.
fn check_answer(step: Step, got: &Got) {
    let data = &got.json()["virtualAccountData"];
    if let Some(name) = data["virtualAccountName"].as_str() {
        assert_eq!(name, format!("Customer of {}", CODES[step.merchant]), "{step:?}");
    }
    if let Some(number) = data["virtualAccountNo"].as_str() {
        assert!(number.trim().starts_with(&(14_629 + step.merchant).to_string()), "{step:?}");
    }
    assert!([200, 201, 404, 503, 504, 409].contains(&got.status), "{step:?}: {} {}", got.status, got.text());
}

/// Tokens by whose login they answered, from what the simulator noted.
async fn tokens(world: &World) -> HashMap<String, usize> {
    let noted = world.control("GET", "/_sandbox/requests", Value::Null).await;
    let mut tokens = HashMap::new();
    for entry in noted["requests"].as_array().unwrap() {
        if !entry["operation"].as_str().is_some_and(|operation| operation.ends_with(".token")) {
            continue;
        }
        let sent = format!("{}{}", entry["body"].as_str().unwrap(), entry["headers"]["x-client-key"]);
        let merchant = (0..3).find(|merchant| sent.contains(CLIENTS[*merchant])).unwrap();
        let answer: Value = serde_json::from_str(entry["answer"]["body"].as_str().unwrap()).unwrap();
        tokens.insert(answer["accessToken"].as_str().unwrap().to_owned(), merchant);
    }
    tokens
}

async fn run(steps: Vec<Step>, seed: u8) {
    let mut setup = Setup::new(3);
    setup.seed = seed;
    let world = setup.build();
    let mut arrivals = 0u32;
    world.wire.script(move |arrived| {
        arrivals += 1;
        match arrivals % 7 {
            _ if arrived.is_login() => Act::Late(Duration::from_millis(20)),
            3 => Act::Late(Duration::from_millis(50)),
            5 => Act::Swallow,
            _ => Act::Late(Duration::from_millis(5)),
        }
    });
    let mut under_way = Vec::new();
    for step in steps {
        under_way.push((step, tokio::spawn(world.send(ask(step)))));
        if !step.together {
            for (step, sent) in under_way.drain(..) {
                check_answer(step, &sent.await.unwrap());
            }
        }
    }
    for (step, sent) in under_way {
        check_answer(step, &sent.await.unwrap());
    }
    let tokens = tokens(&world).await;
    world.wire.calls().iter().for_each(|arrived| check_arrived(arrived, &tokens));
    assert_eq!(world.stat("duplicate_creates").await, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_of_one_merchant_serves_another(steps in steps(), seed in any::<u8>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(steps, seed));
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_ids_of_three_merchants_are_three_requests() {
    let world = Setup::new(3).build();
    for (merchant, code) in CODES.iter().enumerate() {
        let step = |deed| Step { merchant, deed, tag: 1, together: false };
        for deed in 0..6 {
            let got = world.send(ask(step(deed))).await;
            assert_eq!((got.status / 100, got.source()), (2, "upstream"), "{code} {deed}: {}", got.text());
            check_answer(step(deed), &got);
        }
        assert_eq!(world.send(ask(step(0))).await.source(), "replay");
    }
    assert_eq!((world.stat("creates").await, world.stat("tokens_issued").await), (6, 6));
}
