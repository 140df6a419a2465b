//! The tables' rules over a request: what passes them and is completed is what upstream takes.
//!
//! Input: `?query` and `Name: value` lines, an empty line, a body. Every operation of a generation judges
//! it, as a caller's request and as one on the wire.

use std::sync::{Arc, LazyLock};

use ayova::call::{Checked, Ids, Merchant};
use ayova::config::OnMismatch;
use ayova::dialect::check::{Fault, Given, check, single_header};
use ayova::dialect::number::{SnapNumber, without_blanks};
use ayova::dialect::{Dialect, Form, Operation, OperationId, OperationKind, Rule};
use ayova::document::{Document, Kind};
use ayova::outgoing;
use ayova::reference::plan::{Asked, plan};
use ayova::reference::{Account, Handle};
use ayova::signature::minify;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde_json::Value as Json;

use super::text::{CANARY, Head, head};
use super::wire;

/// The moment of the vectors.
const NOW: &str = "2026-01-05T03:00:00Z";

const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// The body of the target for SNAP.
pub fn snap(data: &[u8]) {
    run(Dialect::Snap, data);
}

/// The body of the target for classic.
pub fn classic(data: &[u8]) {
    run(Dialect::Classic, data);
}

fn run(dialect: Dialect, data: &[u8]) {
    let head = head(data);
    let document = Document::parse(head.body.clone()).ok().filter(|document| document.root().kind() == Kind::Object);
    let query: Vec<(String, String)> = url_decoded(&head.query);
    for operation in OperationId::ALL.map(OperationId::operation) {
        if operation.dialect == dialect && (operation.body.is_empty() || document.is_some()) {
            let body = document.clone().filter(|_| !operation.body.is_empty());
            judge(operation, &Asking { head: &head, query: &query, body });
        }
    }
}

fn url_decoded(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

struct Asking<'a> {
    head: &'a Head,
    query: &'a [(String, String)],
    body: Option<Document>,
}

impl Asking<'_> {
    fn faults(&self, operation: &Operation, form: Form) -> Vec<Fault> {
        let given = Given { headers: &self.head.headers, query: self.query, body: self.body.as_ref() };
        check(operation, given, form, now())
    }
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn judge(operation: &'static Operation, asking: &Asking<'_>) {
    let (caller, wire) = (asking.faults(operation, Form::Caller), asking.faults(operation, Form::Wire));
    for fault in &caller {
        // Only how a number is written is another rule for callers, and what they break breaks both.
        assert!(
            wire.iter().any(|known| known.field == fault.field),
            "{}: only callers may not: {fault:?}",
            operation.id
        );
    }
    let json = asking.body.as_ref().map(|body| serde_json::from_slice::<Json>(body.text()).unwrap());
    for fault in caller.iter().chain(&wire) {
        describes(operation, fault, json.as_ref());
    }
    if let Some(body) = &asking.body {
        let body = Document::parse(Bytes::copy_from_slice(&minify(body.text()))).unwrap();
        let minified = Asking { body: Some(body), ..*asking };
        assert_eq!(minified.faults(operation, Form::Caller), caller, "blanks do not count");
    }
    if caller.is_empty() {
        for account in [None, Some(account(operation, asking))] {
            completed(operation, asking, account.as_ref());
        }
    }
}

/// A fault says what is wrong, where, and nothing of the value.
fn describes(operation: &Operation, fault: &Fault, body: Option<&Json>) {
    assert!(!fault.message.is_empty() && fault.message.len() < 150, "{fault:?}");
    assert!(!format!("{fault:?}").contains(CANARY), "{}: a value is repeated: {fault:?}", operation.id);
    let (Some(pointer), Some(body)) = (&fault.pointer, body) else { return };
    let found = body.pointer(pointer);
    let absent = found.is_none_or(Json::is_null);
    // A combination blames the member to change, which is there; a closed amount's total may not be.
    assert_eq!(fault.rule == Rule::Required, absent, "{}: {fault:?}", operation.id);
}

/// What the gateway would send of a request without a fault is without a fault on the wire.
fn completed(operation: &'static Operation, asking: &Asking<'_>, account: Option<&Account>) {
    let Some(checked) = checked(operation, asking) else { return };
    let asked = Asked { operation, checked: &checked };
    let Ok(plan) = plan(asked, account, OnMismatch::RecordedFirst, &mut || ID.to_owned()) else { return };
    let id = plan.flow.as_deref().or(checked.ids.header.as_deref());
    let mut headers = outgoing::headers(operation, &MERCHANT, &asking.head.headers, id);
    for (name, value) in ATTEMPT.iter().filter(|(name, _)| operation.header(name).is_some()) {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let sent = outgoing::query(operation, &checked, &plan.members);
    let query = url_decoded(sent.strip_prefix('?').unwrap_or_default());
    let body = checked.document.as_ref().map(|document| Document::parse(document.splice(&plan.members)).unwrap());
    let given = Given { headers: &headers, query: &query, body: body.as_ref() };
    let faults = check(operation, given, Form::Wire, now());
    assert!(faults.is_empty(), "{} would be sent malformed: {faults:?} {:?}", operation.id, plan.members);
    no_secrets(operation, &headers);
}

/// The request as `validate` passes it on; nothing where it would be refused for its ids.
fn checked(operation: &'static Operation, asking: &Asking<'_>) -> Option<Checked> {
    let given = single_header(&asking.head.headers, operation.dialect.id_header()).ok()?;
    let given = given.filter(|id| !id.is_empty()).map(Into::into);
    let flow_is_recorded = operation.dialect == Dialect::Classic && operation.kind != OperationKind::Create;
    let text = |name: &str| asking.body.as_ref()?.root().member(name)?.as_str().filter(|text| !text.is_empty());
    let transaction = operation.key.and_then(|key| text(key.transaction)).map(Into::into);
    let transaction_made = transaction.is_none() && operation.dialect == Dialect::Classic && operation.key.is_some();
    let ids = Ids {
        header_made: given.is_none() && !flow_is_recorded,
        header: given.or_else(|| (!flow_is_recorded).then(|| ID.into())),
        transaction: transaction.or_else(|| transaction_made.then(|| ID.into())),
        transaction_made,
    };
    let query = asking.query.to_vec();
    Some(Checked { document: asking.body.clone(), query, ids, overdue: Vec::new(), in_doubt: false })
}

/// A record that fits the number the request names, where it names one.
fn account(operation: &Operation, asking: &Asking<'_>) -> Account {
    let in_body = asking.body.as_ref().and_then(|body| body.root().member(operation.number)?.as_str());
    let in_query = asking.query.iter().find(|(name, _)| name == operation.number).map(|(_, value)| value.as_str());
    let given = in_body.or(in_query).filter(|number| !number.is_empty()).unwrap_or("12345678901");
    let documented = |number: &SnapNumber| (19..=26).contains(&number.to_string().len());
    let snap = SnapNumber::parse(given).filter(documented);
    let snap = snap.or_else(|| SnapNumber::compose("14629", without_blanks(given)).filter(documented));
    let snap = snap.unwrap_or_else(|| SnapNumber::compose("14629", "12345678901").unwrap());
    let (number, own_digits, handle) = match operation.dialect {
        Dialect::Snap => {
            let handle = Handle::Snap {
                partner_service_id: snap.partner_service_id().to_owned(),
                customer_no: "CUST000123".to_owned(),
                trx_id: ID.to_owned(),
                reference_no: ID.to_owned(),
            };
            (snap.to_string(), snap.own_digits().to_owned(), handle)
        }
        Dialect::Classic => {
            let digits = without_blanks(given);
            // What is too long to be own digits is the whole number.
            let whole = digits.len() > 17 && digits.is_ascii();
            let own = if whole { digits[digits.len() - 11..].to_owned() } else { digits.to_owned() };
            let handle = Handle::Classic {
                account_id: "230411110614699649123IRGG6Q".to_owned(),
                customer_id: "AYOAPP-559PAC23".to_owned(),
                correlation_id: ID.to_owned(),
            };
            (if whole { digits.to_owned() } else { format!("88888000{own}") }, own, handle)
        }
    };
    let (merchant, bank_code) = (Arc::from("sample"), Some("014".to_owned()));
    Account {
        merchant,
        number,
        own_digits,
        bank_code,
        amount: None,
        created: Account::READ,
        expires: None,
        closed: false,
        handle,
    }
}

/// What is between app and gateway stays there.
fn no_secrets(operation: &Operation, headers: &HeaderMap) {
    for name in ["cookie", "x-api-key", "idempotency-key", "connection", "transfer-encoding", "host", "expect"] {
        assert!(!headers.contains_key(name), "{name} would be sent");
    }
    let all = |name: &str, ours: &str| headers.get_all(name).iter().all(|value| value == ours);
    assert!(all("authorization", ATTEMPT[0].1), "the caller's credentials would be sent");
    assert!(all(operation.dialect.merchant_header(), "AYOTST"), "another merchant would be named");
}

/// What is made anew for every try.
const ATTEMPT: [(&str, &str); 4] = [
    ("authorization", "Bearer 0aB1cD2eF3gH4iJ5kL6mN7oP8qR9"),
    ("x-timestamp", "2026-01-05T10:00:00+07:00"),
    ("x-signature", "00ff"),
    ("x-client-key", "sandbox-client"),
];

static MERCHANT: LazyLock<Merchant> = LazyLock::new(wire::merchant);
