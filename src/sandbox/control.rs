//! The control interface, outside Ayoconnect's paths (contract section 7).
//!
//! Promises that everything a bank or a tester may do is one request here, and that bad input gets 400
//! with what is wrong and what is allowed. The request list and faults leave these paths alone.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::PayRefusal;
use super::answer::Answer;
use super::callback::Delivery;
use super::fault::Faults;
use super::record::Account;
use super::route::CONTROL;
use super::service::Received;
use super::{Shared, State, callback, duration};
use crate::clock;
use crate::dialect::amount::Amount;
use crate::document::Document;

/// Accounts that one answer shows at most, newest first.
pub(super) const SHOWN_MAX: usize = 1_000;
/// How far the control clock may be moved in all.
const ADVANCE_MAX: SignedDuration = SignedDuration::from_hours(100 * 366 * 24);

/// Every path behind [`CONTROL`] with its methods.
const PATHS: [(&str, &str); 9] = [
    ("/pay", "POST"),
    ("/inquire", "POST"),
    ("/clock", "POST"),
    ("/accounts", "GET"),
    ("/requests", "GET"),
    ("/stats", "GET"),
    ("/reset", "POST"),
    ("/faults", "PUT"),
    ("/credentials", "GET"),
];
/// Has two methods.
const CALLBACKS: (&str, &str) = ("/callbacks", "GET, PUT");

/// A refusal in words, always 400.
struct Bad(String);

/// Answers a request to the control interface.
pub(super) fn answer(shared: &Arc<Shared>, received: &Received) -> Answer {
    let path = received.path.strip_prefix(CONTROL).unwrap_or_default();
    let body = &received.body;
    let done = match (received.method.as_str(), path) {
        ("POST", "/pay") => pay(shared, body),
        ("POST", "/inquire") => inquire(shared, body),
        ("POST", "/clock") => advance(shared, body),
        ("GET", "/accounts") => Ok(accounts(shared)),
        ("GET", "/requests") => Ok(ok(&json!({"requests": shared.lock().journal.show()}))),
        ("GET", "/stats") => Ok(ok(&shared.lock().ledger.stats())),
        ("POST", "/reset") => {
            shared.lock().reset(shared.addresses.clone());
            Ok(ok(&json!({"reset": true})))
        }
        ("PUT", "/faults") => faults(shared, body),
        ("PUT", "/callbacks") => callbacks(shared, body),
        ("GET", "/callbacks") => Ok(ok(&shown_callbacks(&shared.lock()))),
        ("GET", "/credentials") => Ok(credentials(shared)),
        _ => Ok(elsewhere(&received.method, path)),
    };
    done.unwrap_or_else(|Bad(problem)| Answer::json(StatusCode::BAD_REQUEST, &json!({"error": problem})))
}

fn ok(body: &Value) -> Answer {
    Answer::json(StatusCode::OK, body)
}

fn elsewhere(method: &Method, path: &str) -> Answer {
    let paths = || PATHS.into_iter().chain([CALLBACKS]);
    if let Some((_, allow)) = paths().find(|(known, _)| *known == path) {
        return Answer::not_allowed(allow, &json!({"error": format!("{method} is not allowed here: use {allow}")}));
    }
    let known: Vec<_> = paths().map(|(path, methods)| format!("{methods} {CONTROL}{path}")).collect();
    Answer::json(StatusCode::NOT_FOUND, &json!({"error": "no such path", "paths": known}))
}

/// Strict JSON first, so that a repeated member is named and never guessed at.
fn parse<'b, T: Deserialize<'b>>(body: &'b Bytes, expected: &str) -> Result<T, Bad> {
    let strict = Document::parse(body.clone()).map_err(|error| Bad(format!("{error}; expected {expected}")))?;
    drop(strict);
    serde_json::from_slice(body).map_err(|error| Bad(format!("{error}; expected {expected}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Pay {
    virtual_account_no: Option<String>,
    virtual_account_number: Option<String>,
    amount: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Inquire {
    virtual_account_no: Option<String>,
    virtual_account_number: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance: String,
}

/// Digits of a number that was given under one of its two names, with or without blanks.
fn number(no: Option<String>, number: Option<String>) -> Result<String, Bad> {
    let given = match (no, number) {
        (Some(given), None) | (None, Some(given)) => given,
        (None, None) | (Some(_), Some(_)) => {
            return Err(Bad("give either virtualAccountNo or virtualAccountNumber".to_owned()));
        }
    };
    let digits: String = given.chars().filter(|character| *character != ' ').collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Bad("a virtual account number is digits, with or without blanks".to_owned()));
    }
    Ok(digits)
}

fn pay(shared: &Arc<Shared>, body: &Bytes) -> Result<Answer, Bad> {
    let expected = r#"{"virtualAccountNo"|"virtualAccountNumber": "...", "amount": "10000.00"}"#;
    let given: Pay = parse(body, expected)?;
    let number = number(given.virtual_account_no, given.virtual_account_number)?;
    let Some(amount) = Amount::parse(&given.amount) else {
        return Err(Bad("amount must be digits with two decimals, like 10000.00".to_owned()));
    };
    let mut guard = shared.lock();
    let state = &mut *guard;
    let now = state.control_time(shared.clock.now());
    let Some(account) = state.registry.by_number_mut(&number) else { return Ok(unknown("paid")) };
    if let Err(refusal) = account.pay(amount, &shared.config.snap, now) {
        return Ok(refused("paid", account.status(now), refusal));
    }
    state.payments += 1;
    let status = account.status(now);
    let announcement = account.callback(&shared.config, state.payments, now);
    let (dialect, merchant) = (account.dialect(), account.merchant());
    if let Some(to) = state.addresses.of(dialect).cloned() {
        let delivery = Delivery { id: 0, epoch: state.epoch, dialect, merchant, to, body: announcement };
        if let Some(delivery) = state.deliveries.begin(delivery) {
            tokio::spawn(callback::deliver(Arc::clone(shared), delivery));
        }
    }
    Ok(ok(&json!({"paid": true, "status": status})))
}

fn inquire(shared: &Shared, body: &Bytes) -> Result<Answer, Bad> {
    let given: Inquire = parse(body, r#"{"virtualAccountNo"|"virtualAccountNumber": "..."}"#)?;
    let number = number(given.virtual_account_no, given.virtual_account_number)?;
    let mut state = shared.lock();
    let now = state.control_time(shared.clock.now());
    let Some(account) = state.registry.by_number_mut(&number) else { return Ok(unknown("inquired")) };
    match account.inquire(shared.config.classic.paid_to_inquired, now) {
        Ok(()) => Ok(ok(&json!({"inquired": true, "status": account.status(now)}))),
        Err(refusal) => Ok(refused("inquired", account.status(now), refusal)),
    }
}

fn unknown(what: &str) -> Answer {
    Answer::json(StatusCode::CONFLICT, &json!({what: false, "reason": "no virtual account has this number"}))
}

fn refused(what: &str, status: &str, refusal: PayRefusal) -> Answer {
    let body = json!({what: false, "status": status, "reason": refusal.to_string()});
    Answer::json(StatusCode::CONFLICT, &body)
}

fn advance(shared: &Shared, body: &Bytes) -> Result<Answer, Bad> {
    let given: Advance = parse(body, r#"{"advance": "90m"}"#)?;
    let advance = duration::parse(&given.advance).and_then(|advance| SignedDuration::try_from(advance).ok());
    let Some(advance) = advance else { return Err(Bad(format!("advance must be {}", duration::EXPECTED))) };
    let mut state = shared.lock();
    match state.advanced.checked_add(advance) {
        Some(advanced) if advanced <= ADVANCE_MAX => state.advanced = advanced,
        Some(_) | None => return Err(Bad("the clock may be at most 100 years ahead".to_owned())),
    }
    let now = state.control_time(shared.clock.now());
    Ok(ok(&json!({"now": clock::iso8601(now), "ahead_seconds": state.advanced.as_secs()})))
}

fn accounts(shared: &Shared) -> Answer {
    let state = shared.lock();
    let now = state.control_time(shared.clock.now());
    let show = |account: &Account| {
        let index = match account {
            Account::Classic(account) => account.merchant,
            Account::Snap(account) => account.merchant,
        };
        account.show(shared.merchant(index).map_or("", |merchant| &merchant.name), &shared.config, now)
    };
    let shown: Vec<Value> = state.registry.newest_first().take(SHOWN_MAX).map(show).collect();
    ok(&json!({"total": state.registry.len(), "accounts": shown}))
}

fn faults(shared: &Shared, body: &Bytes) -> Result<Answer, Bad> {
    Document::parse(body.clone()).map_err(|error| Bad(format!("{error}; expected a list of faults")))?;
    let faults = Faults::parse(body).map_err(Bad)?;
    let count = faults.len();
    shared.lock().faults = faults;
    Ok(ok(&json!({"faults": count})))
}

fn callbacks(shared: &Shared, body: &Bytes) -> Result<Answer, Bad> {
    let expected = r#"{"snap"?: URL or null, "classic"?: URL or null}"#;
    // A map and not a struct, since a missing member (unchanged) differs from null (nowhere).
    let given: serde_json::Map<String, Value> = parse(body, expected)?;
    let mut state = shared.lock();
    let mut addresses = state.addresses.clone();
    for (name, value) in &given {
        let slot = match name.as_str() {
            "snap" => &mut addresses.snap,
            "classic" => &mut addresses.classic,
            _ => return Err(Bad(format!("unknown member {name:?}; expected {expected}"))),
        };
        *slot = match value {
            Value::Null => None,
            Value::String(text) => Some(callback::address(text).map_err(|problem| Bad(format!("{name} {problem}")))?),
            _ => return Err(Bad(format!("{name} must be an address or null"))),
        };
    }
    state.addresses = addresses;
    Ok(ok(&shown_addresses(&state)))
}

fn shown_addresses(state: &State) -> Value {
    let show = |address: &Option<http::Uri>| address.as_ref().map(ToString::to_string);
    json!({"snap": show(&state.addresses.snap), "classic": show(&state.addresses.classic)})
}

fn shown_callbacks(state: &State) -> Value {
    json!({"addresses": shown_addresses(state), "callbacks": state.deliveries.show()})
}

/// Secrets that are not the published sample stay hidden: they may be somebody's.
fn credentials(shared: &Shared) -> Answer {
    let merchants: Vec<Value> = shared
        .merchants
        .iter()
        .map(|merchant| {
            json!({
                "name": &*merchant.name,
                "merchant_code": &*merchant.code,
                "client_id": merchant.client_id,
                "client_secret": merchant.sample_secret().unwrap_or("***"),
                "private_key": merchant.sample_key.unwrap_or("***"),
            })
        })
        .collect();
    ok(&json!({"merchants": merchants}))
}
