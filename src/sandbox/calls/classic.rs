//! The three operations on `/virtualAccount` (`classic.md` sections 4, 5 and 8).
//!
//! Promises 401 for everything about the token and the switch's status for everything else. A bad
//! `transactionId` is named alone, as in the one sample there is; otherwise every fault is named.

use jiff::SignedDuration;

use super::{CAPITALS, Call, DIGITS, HEX, MERCHANT_DIGITS, generate, random_text, text};
use crate::clock;
use crate::config::sandbox::{Bank as BankName, ClassicNumberRules, ClassicState, ClassicSwitches};
use crate::dialect::amount::Amount;
use crate::dialect::bank::{Bank, CLASSIC_MERCHANT_DIGITS, Uses, bank};
use crate::dialect::check::{Fault, Given, check};
use crate::dialect::{Dialect, Form, OperationKind, Rule};
use crate::document::{self, Document};
use crate::sandbox::account::{Paid, Price, amount_of};
use crate::sandbox::answer::{Answer, ClassicEcho, ClassicRefusal, Problem, status};
use crate::sandbox::classic::{Change, Life, Rules, UpdateRefusal, word};
use crate::sandbox::journal::Checks;
use crate::sandbox::merchant::Merchant;
use crate::sandbox::record::{Account, ClassicAccount, ClassicView, known};
use crate::sandbox::registry::{Registry, Unavailable};
use crate::sandbox::token::bearer;
use crate::sandbox::{Shared, State};

/// Does a call and answers.
pub(super) fn answer(shared: &Shared, state: &mut State, call: &Call<'_>, checks: &mut Checks) -> Answer {
    let reference_number = random_text(&mut state.random, HEX, 32);
    let query = parameters(call);
    let document = Document::parse(call.received.body.clone()).ok();
    let transaction_id = match call.operation.kind {
        OperationKind::Read => parameter(&query, TRANSACTION).to_owned(),
        OperationKind::Create | OperationKind::Update => {
            document.as_ref().map(|document| text(document, &[TRANSACTION]).to_owned()).unwrap_or_default()
        }
    };
    let response_time = clock::compact(call.real);
    let echo = ClassicEcho {
        response_time: &response_time,
        reference_number: &reference_number,
        transaction_id: &transaction_id,
    };
    let given = Received { query: &query, document: document.as_ref() };
    match attempt(shared, state, call, given, checks) {
        Ok(done) => success(&done, &echo),
        Err(refusal) => refusal.answer(shared.config.classic.validation_status, &echo),
    }
}

/// Who asks, and how; the same for every operation.
struct Request<'c> {
    call: &'c Call<'c>,
    merchant: &'c Merchant,
    switches: &'c ClassicSwitches,
}

/// What came beside the headers.
#[derive(Clone, Copy)]
struct Received<'a> {
    query: &'a [(String, String)],
    /// Nothing where the body is no JSON.
    document: Option<&'a Document>,
}

/// What a successful call answers.
struct Done {
    http: u16,
    code: u16,
    message: &'static str,
    data: serde_json::Value,
}

fn success(done: &Done, echo: &ClassicEcho<'_>) -> Answer {
    let body = serde_json::json!({
        "responseCode": done.code,
        "responseMessage": done.message,
        "responseTime": echo.response_time,
        "referenceNumber": echo.reference_number,
        "transactionId": echo.transaction_id,
        "virtualAccountData": done.data,
    });
    Answer::json(status(done.http), &body)
}

fn attempt(
    shared: &Shared,
    state: &mut State,
    call: &Call<'_>,
    given: Received<'_>,
    checks: &mut Checks,
) -> Result<Done, ClassicRefusal> {
    let token = bearer(call.header("Authorization")).unwrap_or_default();
    let owner = state.tokens.owner(token, Dialect::Classic, call.real).and_then(|index| shared.merchant(index));
    let merchant = checks.note("token", owner.ok_or(ClassicRefusal::Unauthorised))?;
    let switches = &shared.config.classic;
    let body = if call.operation.kind == OperationKind::Read {
        None
    } else {
        let object = given.document.filter(|document| document.root().kind() == document::Kind::Object);
        Some(checks.note("body", object.ok_or_else(|| ClassicRefusal::one("0505", "the body is no JSON object")))?)
    };
    let shape = Given { headers: &call.received.headers, query: given.query, body };
    let mut faults = check(call.operation, shape, Form::Wire, call.now);
    faults.extend(body.and_then(|body| tighter_number(switches, call, body)));
    checks.note("fields", refuse(&faults))?;
    let own = call.header("A-Merchant-Code") == &*merchant.code;
    let foreign = || ClassicRefusal::one("0505", "A-Merchant-Code is invalid");
    checks.note("merchant", if own { Ok(()) } else { Err(foreign()) })?;
    let request = Request { call, merchant, switches };
    let done = match (call.operation.kind, body) {
        (OperationKind::Create, Some(body)) => create(state, &request, body),
        (OperationKind::Update, Some(body)) => update(state, &request, body),
        (OperationKind::Read | OperationKind::Create | OperationKind::Update, _) => get(state, &request, given.query),
    };
    checks.note("account", done)
}

/// All faults in classic's terms.
fn refuse(faults: &[Fault]) -> Result<(), ClassicRefusal> {
    if faults.is_empty() {
        return Ok(());
    }
    let problem = |fault: &Fault| match fault.field.as_str() {
        TRANSACTION if fault.rule == Rule::Required => {
            Problem { code: "0310", details: "transactionId is missing".to_owned() }
        }
        TRANSACTION => Problem { code: "0310", details: "transactionId is invalid".to_owned() },
        "bankCode" => Problem { code: "0016", details: format!("bankCode {}", fault.message) },
        field => Problem { code: "0505", details: format!("{field} {}", fault.message) },
    };
    let transaction = faults.iter().find(|fault| fault.field == TRANSACTION);
    let named: Vec<_> = match transaction {
        Some(fault) => vec![problem(fault)],
        None => faults.iter().map(problem).collect(),
    };
    Err(ClassicRefusal::Invalid(named))
}

/// The newer table counts the merchant's digits in, so the client's own are three fewer.
fn tighter_number(switches: &ClassicSwitches, call: &Call<'_>, body: &Document) -> Option<Fault> {
    if switches.number_rules == ClassicNumberRules::Seed || call.operation.kind != OperationKind::Create {
        return None;
    }
    let (bank, number) = (bank(text(body, &["bankCode"]))?, text(body, &[NUMBER]));
    let fits = bank.snap_digits.contains(&(number.len() + CLASSIC_MERCHANT_DIGITS));
    (!number.is_empty() && !fits)
        .then(|| Fault::of_member(&[NUMBER], Rule::Length, "has a length the bank does not take"))
}

fn create(state: &mut State, request: &Request<'_>, body: &Document) -> Result<Done, ClassicRefusal> {
    let Request { call, merchant, switches } = *request;
    let correlation_id = call.header("A-Correlation-ID").to_owned();
    if state.registry.has_flow(merchant.index, &correlation_id) {
        return Err(ClassicRefusal::one("0325", "The 'A-Correlation-ID' header is already used"));
    }
    let bank = bank(text(body, &["bankCode"])).ok_or_else(|| ClassicRefusal::one("0016", "bankCode is invalid"))?;
    let (price, requested) = price(body, switches)?;
    let number = number(state, bank, merchant, text(body, &[NUMBER]))?;
    state.registry.admits(&number, call.now).map_err(|unavailable| match unavailable {
        Unavailable::Occupied => ClassicRefusal::one("0505", "virtualAccountNumber is in use"),
        Unavailable::Full => full(),
    })?;
    let account = ClassicAccount {
        merchant: merchant.index,
        bank,
        number,
        id: account_id(state, call),
        customer_id: format!("{}-{}", merchant.code, random_text(&mut state.random, CAPITALS, 8)),
        correlation_id: correlation_id.clone(),
        name: text(body, &["virtualAccountName"]).to_owned(),
        phone: text(body, &[PHONE]).to_owned(),
        bills: bills(call, body),
        life: Life {
            stage: first_state(switches, bank),
            uses: uses(text(body, &["virtualAccountConfig", "virtualAccountType"])),
            price,
            requested,
            expires_at: expiry(call, body).unwrap_or(call.now),
            paid: Paid::default(),
        },
    };
    let data = account.data(ClassicView::Create, call.now);
    state.registry.add(Account::Classic(account));
    state.ledger.created((merchant.index, correlation_id, None));
    Ok(Done { http: call.operation.success, code: call.operation.success, message: "created", data })
}

/// The price and the amount asked for, which an open account may name too.
fn price(body: &Document, switches: &ClassicSwitches) -> Result<(Price, Amount), ClassicRefusal> {
    let total = Amount::parse(text(body, &["totalAmount", "value"])).unwrap_or(Amount::ZERO);
    if text(body, &["virtualAccountConfig", "amountType"]) != "closed" {
        return Ok((Price::Open, total));
    }
    if total.is_zero() || total < amount_of(switches.min_closed_amount) {
        return Err(ClassicRefusal::one("0505", "totalAmount.value is below the minimum"));
    }
    Ok((Price::Closed(total), total))
}

fn number(state: &mut State, bank: &Bank, merchant: &Merchant, given: &str) -> Result<String, ClassicRefusal> {
    if state.registry.is_full() {
        return Err(full());
    }
    let compose = |own: &str| format!("{}{MERCHANT_DIGITS}{own}", merchant.prefix(bank));
    if !given.is_empty() {
        return Ok(compose(given));
    }
    let State { random, registry, .. } = state;
    let own = generate(random, registry, bank, Dialect::Classic, |own| Some(compose(own))).ok_or_else(full)?;
    Ok(compose(&own))
}

fn full() -> ClassicRefusal {
    ClassicRefusal::one("0226", "the simulator holds no more accounts: POST /_sandbox/reset")
}

/// 27 characters that begin with the time, like the samples.
fn account_id(state: &mut State, call: &Call<'_>) -> String {
    let time = clock::compact(call.real);
    let random = &mut state.random;
    format!(
        "{}{}{}",
        time.get(2..).unwrap_or_default(),
        random_text(random, DIGITS, 9),
        random_text(random, CAPITALS, 6)
    )
}

fn first_state(switches: &ClassicSwitches, bank: &Bank) -> ClassicState {
    let names = [BankName::Bri, BankName::Mandiri, BankName::Bni, BankName::Bca];
    let name = names.into_iter().find(|name| name.code() == bank.code);
    name.and_then(|name| switches.initial_state.get(&name)).copied().unwrap_or(ClassicState::Unused)
}

fn update(state: &mut State, request: &Request<'_>, body: &Document) -> Result<Done, ClassicRefusal> {
    let Request { call, switches, .. } = *request;
    let named = Named {
        id: text(body, &[ACCOUNT]),
        customer_id: text(body, &[CUSTOMER]),
        bank_code: Some(text(body, &["bankCode"])).filter(|code| !code.is_empty()),
    };
    let account = find(&mut state.registry, request, &named)?;
    let total = text(body, &["totalAmount", "value"]);
    let kind = text(body, &["virtualAccountType"]);
    let change = Change {
        uses: (!kind.is_empty()).then(|| uses(kind)),
        total: Amount::parse(total),
        expires_at: expiry(call, body),
    };
    let rules = Rules {
        bank: account.bank,
        allow_kind_change: switches.allow_amount_type_change,
        allow_bni_uses_change: switches.allow_bni_type_change,
        updatable: &switches.updatable_states,
        min_closed: amount_of(switches.min_closed_amount),
    };
    account.life = account.life.update(change, rules, call.now).map_err(refused)?;
    account.name = text(body, &["virtualAccountName"]).to_owned();
    let phone = text(body, &[PHONE]);
    if !phone.is_empty() {
        account.phone = phone.to_owned();
    }
    let data = account.data(ClassicView::Update, call.now);
    Ok(Done { http: call.operation.success, code: switches.update_body_code, message: "updated", data })
}

/// No code is documented for these; 0505 is a permanent one, so no client takes them for an outage.
fn refused(refusal: UpdateRefusal) -> ClassicRefusal {
    let details = match refusal {
        UpdateRefusal::State(state) => format!("virtualAccountStatus {} cannot be updated", word(state)),
        UpdateRefusal::BelowMinimum => "totalAmount.value is below the minimum".to_owned(),
        UpdateRefusal::Decrease => "totalAmount.value is below the previous amount".to_owned(),
        UpdateRefusal::KindChange => "totalAmount.value cannot make a closed amount open".to_owned(),
        UpdateRefusal::UsesChange => "virtualAccountType cannot change at BNI".to_owned(),
        UpdateRefusal::NotOffered => {
            "virtualAccountType is not offered by the bank with this kind of amount".to_owned()
        }
    };
    ClassicRefusal::one("0505", details)
}

fn get(state: &mut State, request: &Request<'_>, query: &[(String, String)]) -> Result<Done, ClassicRefusal> {
    let call = request.call;
    let named = Named {
        id: parameter(query, ACCOUNT),
        customer_id: parameter(query, CUSTOMER),
        bank_code: Some(parameter(query, "bankCode")),
    };
    let account = find(&mut state.registry, request, &named)?;
    let data = account.data(ClassicView::Get, call.now);
    Ok(Done { http: call.operation.success, code: call.operation.success, message: "ok", data })
}

/// What a get or update calls its account.
struct Named<'a> {
    id: &'a str,
    customer_id: &'a str,
    bank_code: Option<&'a str>,
}

fn find<'r>(
    registry: &'r mut Registry,
    request: &Request<'_>,
    named: &Named<'_>,
) -> Result<&'r mut ClassicAccount, ClassicRefusal> {
    let account = match registry.by_id_mut(named.id) {
        Some(Account::Classic(account))
            if account.merchant == request.merchant.index
                && account.customer_id == named.customer_id
                && named.bank_code.is_none_or(|code| code == account.bank.code) =>
        {
            account
        }
        Some(Account::Classic(_) | Account::Snap(_)) | None => {
            return Err(ClassicRefusal::one(
                "0213",
                "virtualAccountId, customerId and bankCode name no virtual account",
            ));
        }
    };
    if request.switches.strict_flow && request.call.header("A-Correlation-ID") != account.correlation_id {
        return Err(ClassicRefusal::one("0505", "A-Correlation-ID is not the flow's"));
    }
    Ok(account)
}

fn uses(kind: &str) -> Uses {
    if kind == "static" { Uses::Multi } else { Uses::Single }
}

/// Minutes from this call, be it a create or an update.
fn expiry(call: &Call<'_>, body: &Document) -> Option<jiff::Timestamp> {
    let minutes = body.root().member("expiresIn")?.as_integer()?;
    call.now.checked_add(SignedDuration::from_mins(minutes)).ok()
}

fn bills(call: &Call<'_>, body: &Document) -> serde_json::Value {
    let field = call.operation.body.iter().find(|field| field.name == "billDetails");
    match (field, body.root().member("billDetails")) {
        (Some(field), Some(value)) => known(&field.kind, value),
        _ => serde_json::Value::Null,
    }
}

fn parameters(call: &Call<'_>) -> Vec<(String, String)> {
    let query = call.received.query.as_deref().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn parameter<'q>(query: &'q [(String, String)], name: &str) -> &'q str {
    query.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

const TRANSACTION: &str = "transactionId";
const ACCOUNT: &str = "virtualAccountId";
const CUSTOMER: &str = "customerId";
const NUMBER: &str = "virtualAccountNumber";
const PHONE: &str = "virtualAccountPhone";
