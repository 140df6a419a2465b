//! create-va, update-va and inquiry-va (`snap.md` sections 4 to 7).
//!
//! Promises the order of checks of `errors.md` section 3: fields, then idempotency, then existence and
//! reference, then state, then amounts and the bank's rules. A rule that depends on the clock or on the
//! bank's offer stands behind idempotency, so that a repetition is recognised whenever it comes.

use http::HeaderName;
use serde_json::{Map, Value as Json};

use super::authenticate::{self, first};
use super::{Call, generate, relocate, text};
use crate::clock;
use crate::config::sandbox::{PhoneRule, ServiceCodeProfile, SnapSwitches};
use crate::dialect::amount::Amount;
use crate::dialect::bank::{Bank, Uses, bank};
use crate::dialect::check::{Fault, Given, check};
use crate::dialect::number::{SnapNumber, without_blanks};
use crate::dialect::{Dialect, Form, Kind, Operation, OperationId, OperationKind, Rule};
use crate::document::{self, Document};
use crate::sandbox::account::{Paid, Price, amount_of};
use crate::sandbox::answer::{Answer, SnapRefusal, status};
use crate::sandbox::idempotency::{Identity, Verdict, judge};
use crate::sandbox::journal::Checks;
use crate::sandbox::merchant::Merchant;
use crate::sandbox::record::{Account, SnapAccount, SnapView, known_members};
use crate::sandbox::registry::{Registry, Unavailable};
use crate::sandbox::snap::{Change, Life, Rules, UpdateRefusal};
use crate::sandbox::{Shared, State};

/// Does a call and answers.
pub(super) fn answer(shared: &Shared, state: &mut State, call: &Call<'_>, checks: &mut Checks) -> Answer {
    let service = service_digits(shared.config.snap.service_code_profile, call.operation);
    let answer = attempt(shared, state, call, checks).unwrap_or_else(|refusal| refusal.answer(service));
    answer.with(HeaderName::from_static("x-timestamp"), clock::iso8601(call.real))
}

/// Everything a call may look at, once its sender and its form are known.
struct Request<'c> {
    call: &'c Call<'c>,
    merchant: &'c Merchant,
    switches: &'c SnapSwitches,
    /// In the table's form.
    body: Document,
    /// Faults that are judged after idempotency.
    late: Vec<Fault>,
    /// `200`, the service digits, `00`.
    success: String,
}

fn attempt(shared: &Shared, state: &mut State, call: &Call<'_>, checks: &mut Checks) -> Result<Answer, SnapRefusal> {
    let merchant = authenticate::merchant(shared, state, call, checks)?;
    let document = checks.note("body", object(call))?;
    let switches = &shared.config.snap;
    let body = relocate::into_table_form(&document, switches).unwrap_or_else(|| document.clone());
    let (late, early): (Vec<_>, Vec<_>) = faults(call, &body, switches).into_iter().partition(is_late);
    checks.note("fields", first(&early))?;
    let success = format!("200{}00", service_digits(switches.service_code_profile, call.operation));
    let request = Request { call, merchant, switches, body, late, success };
    if call.operation.kind == OperationKind::Read {
        return checks.note("account", inquiry(state, &request));
    }
    let trx_id = text(&document, &["trxId"]).to_owned();
    let identity = Identity { operation: call.operation.id, trx_id, meaning: document.meaning() };
    let external_id = call.header("X-EXTERNAL-ID");
    let kept = state.calls.find(merchant.index, external_id);
    let verdict = match judge(switches.idempotency_mode, kept, &identity, call.real) {
        Verdict::New => Ok(None),
        Verdict::Replay(body) => Ok(Some(Answer::bytes(status(200), body))),
        Verdict::Conflict => Err(SnapRefusal::new(409, "00", "Conflict")),
    };
    if let Some(replay) = checks.note("idempotency", verdict)? {
        return Ok(replay);
    }
    let done = match call.operation.kind {
        OperationKind::Create => create(state, &request),
        OperationKind::Update | OperationKind::Read => update(state, &request),
    };
    let answer = checks.note("account", done)?;
    state.calls.keep((merchant.index, external_id), identity, call.real, answer.body.clone());
    Ok(answer)
}

fn object(call: &Call<'_>) -> Result<Document, SnapRefusal> {
    let document = Document::parse(call.received.body.clone()).map_err(|_| SnapRefusal::bad_request())?;
    let is_object = document.root().kind() == document::Kind::Object;
    if is_object { Ok(document) } else { Err(SnapRefusal::bad_request()) }
}

/// The faults of a body, by the table and the switches, named as on the wire.
fn faults(call: &Call<'_>, body: &Document, switches: &SnapSwitches) -> Vec<Fault> {
    let given = Given { headers: &call.received.headers, query: &[], body: Some(body) };
    let mut faults: Vec<_> =
        check(call.operation, given, Form::Wire, call.now).into_iter().filter(|f| f.pointer.is_some()).collect();
    if switches.phone_rule == PhoneRule::AfterPrefix {
        faults.retain(|fault| fault.field != PHONE);
        faults.extend(longer_phone(call.operation, body));
    }
    let total = body.root().member(TOTAL).filter(|value| value.kind() != document::Kind::Null);
    if switches.require_total_amount && call.operation.kind == OperationKind::Create && total.is_none() {
        faults.push(Fault::missing(&[TOTAL]));
    }
    for fault in &mut faults {
        fault.field = relocate::wire_name(&fault.field, switches);
    }
    faults
}

/// Whether a fault is judged after idempotency: the expiry, which depends on the clock, and the
/// bank's offer.
fn is_late(fault: &Fault) -> bool {
    fault.rule == Rule::Combination || (fault.field == EXPIRY && fault.rule == Rule::Range)
}

/// The table's lengths, counted after `62` instead of from the start.
fn longer_phone(operation: &Operation, body: &Document) -> Option<Fault> {
    let field = operation.body.iter().find(|field| field.name == PHONE)?;
    let Kind::Phone(min, max) = field.kind else { return None };
    let value = body.root().member(PHONE).filter(|value| value.kind() != document::Kind::Null)?;
    let misfit = match value.as_str() {
        Some(text) => Kind::Phone(min + 2, max + 2).check_text(text, Form::Wire),
        None => Some((Rule::Type, "must be a string".into())),
    };
    misfit.map(|(rule, message)| Fault::of_member(&[PHONE], rule, message))
}

fn create(state: &mut State, request: &Request<'_>) -> Result<Answer, SnapRefusal> {
    let Request { call, merchant, switches, body, .. } = request;
    if request.late.iter().any(|fault| fault.rule == Rule::Range) {
        return Err(SnapRefusal::format(EXPIRY));
    }
    let bank = bank_of(body)?;
    let number = number(state, request, bank)?;
    state.registry.admits(&number.payable(), call.now).map_err(|unavailable| match unavailable {
        Unavailable::Occupied => SnapRefusal::business(&switches.active_number_case, "virtualAccountNo is active"),
        Unavailable::Full => full(),
    })?;
    let price = price(body).unwrap_or(Price::Open);
    if matches!(price, Price::Closed(amount) if amount < amount_of(switches.min_closed_amount)) {
        return Err(SnapRefusal::business("13", "totalAmount.value is below the minimum"));
    }
    first(&request.late)?;
    let given = clock::parse_iso8601(text(body, &[EXPIRY]));
    let expires_at = given.or_else(|| call.now.checked_add(DEFAULT_LIFE).ok()).unwrap_or(call.now);
    let reference = call.header("X-EXTERNAL-ID").to_owned();
    let account = SnapAccount {
        merchant: merchant.index,
        bank,
        number,
        reference: reference.clone(),
        customer_no: text(body, &["customerNo"]).to_owned(),
        trx_id: text(body, &["trxId"]).to_owned(),
        name: text(body, &["virtualAccountName"]).to_owned(),
        phone: phone(body),
        info: info(call.operation, body),
        life: Life { uses: uses(body), price, expires_at, paid: Paid::default(), settled: false },
    };
    let view = SnapView { switches, now: call.now, reference: &reference, original: None, trx_id: None };
    let answer = Answer::json(status(call.operation.success), &account.body(&request.success, &view));
    state.ledger.created((merchant.index, reference, Some(account.trx_id.clone())));
    state.registry.add(Account::Snap(account));
    Ok(answer)
}

/// The number that was asked for, or a fresh one.
fn number(state: &mut State, request: &Request<'_>, bank: &Bank) -> Result<SnapNumber, SnapRefusal> {
    if state.registry.is_full() {
        return Err(full());
    }
    let prefix = request.merchant.prefix(bank);
    let compose = |own: &str| SnapNumber::compose(&prefix, own);
    let given = text(&request.body, &[NUMBER]);
    if !given.is_empty() {
        return compose(given).ok_or_else(|| SnapRefusal::format(NUMBER));
    }
    let State { random, registry, .. } = state;
    let payable = |own: &str| compose(own).map(|number| number.payable());
    generate(random, registry, bank, Dialect::Snap, payable).and_then(|own| compose(&own)).ok_or_else(full)
}

fn full() -> SnapRefusal {
    SnapRefusal::new(500, "00", "General Error [the simulator holds no more accounts: POST /_sandbox/reset]")
}

fn update(state: &mut State, request: &Request<'_>) -> Result<Answer, SnapRefusal> {
    let Request { call, switches, body, .. } = request;
    let unknown = || SnapRefusal::business("12", "virtualAccountNo is unknown");
    let account = find(&mut state.registry, request).ok_or_else(unknown)?;
    let bank = bank_of(body)?;
    identify(account, body)?;
    if bank.code != account.bank.code {
        return Err(SnapRefusal::business("12", "additionalInfo.bankCode cannot change"));
    }
    if text(body, &["originalReferenceNo"]) != account.reference {
        return Err(SnapRefusal::transaction_not_found());
    }
    same_transaction(account, request)?;
    let change =
        Change { uses: uses(body), price: price(body), expires_at: clock::parse_iso8601(text(body, &[EXPIRY])) };
    let rules = Rules {
        bank,
        allow_kind_change: switches.allow_open_closed_change,
        min_closed: amount_of(switches.min_closed_amount),
    };
    account.life = account.life.update(change, rules, call.now).map_err(|refusal| refused(refusal, switches))?;
    account.name = text(body, &["virtualAccountName"]).to_owned();
    if let Some(phone) = phone(body) {
        account.phone = Some(phone);
    }
    account.info.extend(info(call.operation, body));
    let view = SnapView {
        switches,
        now: call.now,
        reference: call.header("X-EXTERNAL-ID"),
        original: Some(&account.reference),
        trx_id: Some(text(body, &["trxId"])),
    };
    Ok(Answer::json(status(call.operation.success), &account.body(&request.success, &view)))
}

fn refused(refusal: UpdateRefusal, switches: &SnapSwitches) -> SnapRefusal {
    let amount = |reason: &str| SnapRefusal::business("13", &format!("totalAmount.value {reason}"));
    match refusal {
        UpdateRefusal::Paid => SnapRefusal::business(&switches.paid_update_case, "virtualAccountNo is paid"),
        UpdateRefusal::Expired => SnapRefusal::business("19", "virtualAccountNo has expired"),
        UpdateRefusal::BelowMinimum => amount("is below the minimum"),
        UpdateRefusal::Decrease => amount("is below the previous amount"),
        UpdateRefusal::KindChange => amount("cannot change between open and closed"),
        UpdateRefusal::NotOffered => SnapRefusal::format("additionalInfo.isSingleUse"),
    }
}

fn inquiry(state: &mut State, request: &Request<'_>) -> Result<Answer, SnapRefusal> {
    let Request { call, switches, body, .. } = request;
    let unknown = || SnapRefusal::business(&switches.unknown_number_case, "virtualAccountNo is unknown");
    let account = find(&mut state.registry, request).ok_or_else(unknown)?;
    identify(account, body)?;
    same_transaction(account, request)?;
    let view = SnapView {
        switches,
        now: call.now,
        reference: call.header("X-EXTERNAL-ID"),
        original: Some(&account.reference),
        trx_id: None,
    };
    Ok(Answer::json(status(call.operation.success), &account.body(&request.success, &view)))
}

/// The newest life of the number, where it is this merchant's and its padding is right.
fn find<'r>(registry: &'r mut Registry, request: &Request<'_>) -> Option<&'r mut SnapAccount> {
    let given = text(&request.body, &[NUMBER]);
    match registry.by_number_mut(without_blanks(given)) {
        Some(Account::Snap(account))
            if account.merchant == request.merchant.index && account.number.to_string() == given =>
        {
            Some(account)
        }
        Some(Account::Snap(_) | Account::Classic(_)) | None => None,
    }
}

/// A member that names the account and says otherwise.
fn identify(account: &SnapAccount, body: &Document) -> Result<(), SnapRefusal> {
    for (name, known) in
        [("partnerServiceId", account.number.partner_service_id()), ("customerNo", account.customer_no.as_str())]
    {
        if text(body, &[name]) != known {
            return Err(SnapRefusal::business("12", &format!("{name} does not belong to virtualAccountNo")));
        }
    }
    Ok(())
}

fn same_transaction(account: &SnapAccount, request: &Request<'_>) -> Result<(), SnapRefusal> {
    let same = text(&request.body, &["trxId"]) == account.trx_id;
    if same || !request.switches.strict_trx_id { Ok(()) } else { Err(SnapRefusal::transaction_not_found()) }
}

/// The service digits of response codes; Ayoconnect's error page has others than the standard.
fn service_digits(profile: ServiceCodeProfile, operation: &Operation) -> &'static str {
    match (profile, operation.id) {
        (ServiceCodeProfile::Standard, _) => operation.service_code,
        (ServiceCodeProfile::AyoconnectErrorsPage, OperationId::SnapUpdate) => "25",
        (ServiceCodeProfile::AyoconnectErrorsPage, _) => "24",
    }
}

fn bank_of(body: &Document) -> Result<&'static Bank, SnapRefusal> {
    let code = text(body, &["additionalInfo", "bankCode"]);
    bank(code).ok_or_else(|| SnapRefusal::format("additionalInfo.bankCode"))
}

fn uses(body: &Document) -> Uses {
    if text(body, &["additionalInfo", "isSingleUse"]) == "N" { Uses::Multi } else { Uses::Single }
}

/// What is asked for; nothing where the request does not say.
fn price(body: &Document) -> Option<Price> {
    let amount = Amount::parse(text(body, &[TOTAL, "value"]))?;
    Some(if amount.is_zero() { Price::Open } else { Price::Closed(amount) })
}

fn phone(body: &Document) -> Option<String> {
    Some(text(body, &[PHONE])).filter(|phone| !phone.is_empty()).map(str::to_owned)
}

fn info(operation: &Operation, body: &Document) -> Map<String, Json> {
    let kind = operation.body.iter().find(|field| field.name == "additionalInfo").map(|field| &field.kind);
    match (kind, body.root().member("additionalInfo")) {
        (Some(Kind::Object(fields)), Some(value)) => known_members(fields, value),
        _ => Map::new(),
    }
}

const NUMBER: &str = "virtualAccountNo";
const PHONE: &str = "virtualAccountPhone";
const TOTAL: &str = "totalAmount";
const EXPIRY: &str = "expiredDate";
/// Without an expiry an account lives ten minutes (`snap.md` section 4).
const DEFAULT_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);
