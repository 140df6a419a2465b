//! Who may speak for whom: API keys, client certificates, and that neither reaches upstream (contract
//! sections 1, 3 and 9).

use std::sync::Arc;

use ayova::caller::KeyDigest;
use ayova::config::Auth;
use ayova::server::ClientNames;
use http::Method;
use serde_json::Value;

use crate::asks::{
    Ask, CLASSIC_LOGIN, SNAP_LOGIN, classic_create, classic_get, classic_update, snap_create, snap_inquiry, snap_update,
};
use crate::harness::{CODES, Got, Setup, World};

const OWN: &str = "12345678901";
const KEYS: [&str; 3] = ["key-of-the-first", "key-of-the-second", "key-of-the-third"];

/// That many merchants, each with a key, the first with another one.
fn with_keys(merchants: usize) -> World {
    let mut setup = Setup::new(merchants);
    setup.config.listen.auth = Auth::ApiKey;
    for (merchant, key) in setup.config.merchants.iter_mut().zip(KEYS) {
        merchant.api_keys.push(KeyDigest::of(key));
    }
    setup.config.merchants[0].api_keys.push(KeyDigest::of("new-key-of-the-first"));
    setup.build()
}

fn with_names(names: &[&[&str]]) -> World {
    let mut setup = Setup::new(names.len());
    setup.config.listen.auth = Auth::Mtls;
    for (merchant, names) in setup.config.merchants.iter_mut().zip(names) {
        merchant.client_names = names.iter().map(|&name| name.to_owned()).collect();
    }
    setup.build()
}

fn bearer(ask: Ask, token: &str) -> Ask {
    ask.header("Authorization", &format!("Bearer {token}"))
}

/// Fails unless the request was turned away before anything was done for it.
#[track_caller]
fn assert_turned_away(world: &World, got: &Got) {
    got.expect_refusal(401, "UNAUTHENTICATED");
    assert_eq!(world.wire.all().len(), 0, "something went upstream");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_its_merchants_in_either_header() {
    let world = with_keys(2);
    for (tag, (key, code)) in (1..).zip([(KEYS[0], CODES[0]), ("new-key-of-the-first", CODES[0]), (KEYS[1], CODES[1])])
    {
        for (more, ask) in [(0, snap_create(tag, "")), (10, classic_create(tag + 10, ""))] {
            let header = if more == 0 { "x-partner-id" } else { "a-merchant-code" };
            world.send(ask.clone().header("X-API-Key", key)).await;
            assert_eq!(world.wire.last().header(header), code, "{key}");
            // The same request in other words: the first answer comes back.
            let got = world.send(bearer(ask.clone(), key)).await;
            assert_eq!((got.status, got.source()), (if more == 0 { 200 } else { 201 }, "replay"), "{key}");
            let got = world.send(bearer(ask, key).header("X-API-Key", key).merchant(code)).await;
            assert_eq!(got.source(), "replay", "{key}");
        }
    }
    assert_eq!(world.stat("creates").await, 6);
}

#[tokio::test(start_paused = true)]
async fn whoever_shows_no_key_or_two_is_turned_away() {
    let world = with_keys(1);
    let ask = || snap_create(1, OWN);
    let key = KEYS[0];
    for (ask, challenge) in [
        (ask(), "Bearer realm=\"ayova\""),
        (ask().merchant(CODES[0]), "Bearer realm=\"ayova\""),
        (ask().in_full(), "Bearer realm=\"ayova\""),
        (ask().header("Authorization", "Basic a2V5OmtleQ=="), "Bearer realm=\"ayova\""),
        (ask().header("Authorization", key), "Bearer realm=\"ayova\""),
        (bearer(ask(), "KEY-OF-THE-FIRST"), "error"),
        (ask().header("X-API-Key", "key-of-the-firs"), "error"),
        (ask().header("X-API-Key", ""), "error"),
        (ask().also("X-API-Key", b"key-of-the-first\xe9"), "error"),
        (ask().also("X-API-Key", key.as_bytes()).also("X-API-Key", key.as_bytes()), "error"),
        (ask().also("X-API-Key", key.as_bytes()).also("X-API-Key", b"x"), "error"),
        (bearer(ask(), key).also("Authorization", b"Bearer x"), "error"),
        (bearer(ask(), "another").header("X-API-Key", key), "error"),
        (bearer(ask(), key).header("X-API-Key", "another"), "error"),
        // What is configured is a hash, and knowing it is not knowing the key.
        (ask().header("X-API-Key", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "error"),
    ] {
        let shown = format!("{ask:?}");
        let got = world.send(ask).await;
        assert_turned_away(&world, &got);
        assert!(got.header("www-authenticate").contains(challenge), "{shown}: {:?}", got.headers);
        assert_eq!(got.header("www-authenticate").contains("error"), challenge == "error", "{shown}");
        assert_eq!(got.json()["responseCode"], "4012700");
        assert!(got.json()["responseMessage"].as_str().unwrap().starts_with("Unauthorized. "), "{shown}");
    }
    let got = world.send(classic_create(1, OWN)).await;
    assert_turned_away(&world, &got);
    assert_eq!((&got.json()["responseCode"], &got.json()["responseTime"]), (&401.into(), &"20260105100000".into()));
    // Counted as nobody's, and nobody's allowance is touched.
    let refused = |operation| {
        format!(
            "ayova_requests_total{{merchant=\"none\",operation=\"{operation}\",status=\"401\",source=\"gateway\",\
             reason=\"UNAUTHENTICATED\"}}"
        )
    };
    assert_eq!(world.metric(&refused("snap.create")).await, 15.0, "{}", world.scrape().await);
    assert_eq!(world.metric(&refused("classic.create")).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_header_cannot_name_somebody_else() {
    let world = with_keys(2);
    for (ask, other) in [
        (snap_create(1, OWN), CODES[1]),
        (snap_inquiry(OWN), CODES[1]),
        (snap_update(1, OWN), "NOBODY"),
        (classic_create(1, ""), CODES[1]),
        (classic_get(OWN), CODES[1]),
        (classic_update(OWN), "NOBODY"),
    ] {
        let got = world.send(ask.header("X-API-Key", KEYS[0]).merchant(other)).await;
        assert_turned_away(&world, &got);
        assert!(got.text().contains("do not agree"), "{}", got.text());
    }
    // Not a name at all, or two of them, is a mistake of another kind.
    let keyed = || snap_create(1, OWN).header("X-API-Key", KEYS[0]);
    world.send(keyed().merchant("AYO")).await.expect_refusal(400, "INVALID_REQUEST");
    let twice = keyed().merchant(CODES[0]).also("X-PARTNER-ID", CODES[0].as_bytes());
    world.send(twice).await.expect_refusal(400, "INVALID_REQUEST");
    // Nobody without a key learns who is configured.
    for code in [CODES[0], "NOBODY", "AYO"] {
        let got = world.send(snap_create(1, OWN).merchant(code)).await;
        assert_turned_away(&world, &got);
    }
    world.send(keyed().merchant(CODES[0])).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_still_logs_in_goes_on_with_its_key() {
    let world = with_keys(1);
    for (login, ask) in [(SNAP_LOGIN, snap_create(1, "")), (CLASSIC_LOGIN, classic_create(2, ""))] {
        let got = world.send(Ask::new(Method::POST, login, Value::Null).header("X-CLIENT-KEY", "any")).await;
        assert_eq!((got.status, got.source()), (200, "gateway"));
        let token = got.json()["accessToken"].as_str().unwrap().to_owned();
        let got = world.send(bearer(ask.clone(), &token)).await;
        got.expect_refusal(401, "UNAUTHENTICATED");
        assert!(got.text().contains("No API key"), "{}", got.text());
        let got = world.send(bearer(ask, &token).header("X-API-Key", KEYS[0])).await;
        assert_eq!(got.source(), "upstream", "{}", got.text());
        let sent = world.wire.last();
        assert!(!sent.header("authorization").contains(&token) && !sent.header("authorization").contains(KEYS[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn without_authentication_keys_and_tokens_are_dropped() {
    let world = World::new();
    for ask in [
        bearer(snap_create(1, OWN), "anything").header("X-API-Key", "else"),
        snap_inquiry(OWN).also("X-API-Key", b"\xe9").also("Authorization", b"a").also("Authorization", b"b"),
    ] {
        world.send(ask).await.expect(200);
    }
}

#[tokio::test(start_paused = true)]
async fn what_proves_an_app_or_belongs_to_its_connection_never_reaches_upstream() {
    let world = with_keys(1);
    let withheld = [
        ("Authorization", "Bearer key-of-the-first", None),
        ("X-API-Key", KEYS[0], None),
        ("X-SIGNATURE", "marked", None),
        ("X-TIMESTAMP", "2001-01-01T00:00:00+07:00", None),
        ("X-CLIENT-KEY", "marked", None),
        ("Cookie", "session=marked", None),
        ("Proxy-Authorization", "Basic marked", None),
        ("Keep-Alive", "timeout=4711", None),
        ("TE", "marked", None),
        ("Trailer", "X-Marked", None),
        ("Upgrade", "marked", None),
        ("Proxy-Connection", "marked", None),
        ("Transfer-Encoding", "chunked", None),
        ("Connection", "X-Marked, Shop", Some(("Shop", "marked"))),
    ];
    for (tag, (name, value, more)) in (1..).zip(withheld) {
        for ask in [snap_create(tag, ""), classic_create(tag + 100, "")] {
            let ask = ask.header("X-API-Key", KEYS[0]).header(name, value);
            let ask = more.into_iter().fold(ask, |ask, (name, value)| ask.header(name, value));
            let got = world.send(ask).await;
            assert_eq!(got.source(), "upstream", "{name}: {}", got.text());
            let seen = world.control("GET", "/_sandbox/requests", Value::Null).await;
            let arrived = seen["requests"].as_array().unwrap().last().unwrap();
            let headers = arrived["headers"].as_object().unwrap();
            assert!(headers.keys().any(|name| name.eq_ignore_ascii_case("accept")), "{headers:?}");
            let remade = ["authorization", "x-signature", "x-timestamp", "x-client-key"];
            for (name, _) in [(name, "")].into_iter().chain(more) {
                let kept = headers.iter().find(|(kept, _)| kept.eq_ignore_ascii_case(name));
                let is_remade = remade.contains(&name.to_ascii_lowercase().as_str());
                assert!(kept.is_none_or(|(_, kept)| is_remade && kept != value), "{name}: {headers:?}");
            }
            let shown = arrived.to_string();
            assert!(!shown.contains("marked") && !shown.contains(KEYS[0]), "{name}: {shown}");
        }
    }
}

/// Sends over a connection whose certificate has these names; none: has no certificate.
async fn certified(world: &World, ask: Ask, names: Option<&[&str]>) -> Got {
    let mut request = ask.into_request();
    if let Some(names) = names {
        let names: Arc<[String]> = names.iter().map(|&name| name.to_owned()).collect();
        request.extensions_mut().insert(ClientNames(names));
    }
    world.send_request(request).await
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_its_merchants() {
    let world = with_names(&[&["shop.example", "spiffe://example/Shop"], &["other.example"]]);
    let ask = || snap_create(1, OWN);
    for names in [None, Some(&[][..]), Some(&["nobody.example"][..]), Some(&["spiffe://example/shop"][..])] {
        let got = certified(&world, ask().merchant(CODES[0]).header("X-API-Key", "shop.example"), names).await;
        assert_turned_away(&world, &got);
        assert_eq!(got.header("www-authenticate"), "");
        assert!(got.text().contains("client certificate"), "{}", got.text());
    }
    let got = certified(&world, ask().merchant(CODES[1]), Some(&["shop.example"])).await;
    assert_turned_away(&world, &got);
    for (tag, names, code) in [
        (2, &["shop.example"][..], CODES[0]),
        (3, &["SHOP.example", "spiffe://example/Shop", "nobody.example"], CODES[0]),
        (4, &["nobody.example", "other.example"], CODES[1]),
    ] {
        for ask in [snap_create(tag, ""), snap_create(tag + 10, "").merchant(code)] {
            certified(&world, ask, Some(names)).await.expect(200);
            assert_eq!(world.wire.last().header("x-partner-id"), code);
        }
    }
    // A certificate of two merchants: the header chooses.
    let both = Some(&["shop.example", "other.example"][..]);
    let got = certified(&world, ask(), both).await;
    assert_eq!((got.reason(), got.faults()), ("INVALID_REQUEST", vec!["X-PARTNER-ID".to_owned()]));
    for code in [CODES[0], CODES[1]] {
        certified(&world, snap_create(5, "").merchant(code), both).await.expect(200);
        assert_eq!(world.wire.last().header("x-partner-id"), code);
    }
    certified(&world, ask().merchant("NOBODY"), both).await.expect_refusal(401, "UNAUTHENTICATED");
}
