//! Holds a request against its operation's table and names every fault at once.
//!
//! Pure; reads the table and nothing else. The gateway checks what callers send in [`Form::Caller`]
//! (what it adds itself may be missing), the sandbox what arrives in [`Form::Wire`]. Faults never
//! repeat a value.

use std::borrow::Cow;

use http::HeaderMap;
use jiff::Timestamp;

use super::amount::Amount;
use super::bank::{AmountKind, Uses, bank};
use super::{AmountRule, BankRule, Expiry, Field, Form, Header, HeaderSource, Kind, Operation, Rule};
use crate::clock;
use crate::document::{self, Document, Value, pointer_part};

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// As they came.
    pub headers: &'a HeaderMap,
    /// Decoded, in order.
    pub query: &'a [(String, String)],
    /// Absent where the operation has none.
    pub body: Option<&'a Document>,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Header, parameter, or member with dots (`totalAmount.value`).
    pub field: String,
    /// JSON pointer into the body (RFC 6901); absent for headers and parameters.
    pub pointer: Option<String>,
    /// Which rule.
    pub rule: Rule,
    /// In words, following the field's name.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// A fault of a header or parameter.
    #[must_use]
    pub fn of_header(name: &str, rule: Rule, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: name.to_owned(), pointer: None, rule, message: message.into() }
    }

    /// A fault of a member.
    #[must_use]
    pub fn of_member(path: &[&str], rule: Rule, message: impl Into<Cow<'static, str>>) -> Self {
        let pointer = path.iter().fold(String::new(), |pointer, part| pointer + "/" + &pointer_part(part));
        Self { field: path.join("."), pointer: Some(pointer), rule, message: message.into() }
    }

    /// The fault of something mandatory that is not there.
    #[must_use]
    pub fn missing(path: &[&str]) -> Self {
        Self::of_member(path, Rule::Required, MISSING)
    }
}

const MISSING: &str = "is missing";

/// Every fault of a request, in the order of the table: headers, parameters, members, bank rules.
#[must_use]
pub fn check(operation: &Operation, given: Given<'_>, form: Form, now: Timestamp) -> Vec<Fault> {
    let mut faults = Vec::new();
    for header in operation.headers {
        faults.extend(check_header(header, given.headers, form));
    }
    for field in operation.query {
        faults.extend(check_parameter(field, given.query, form));
    }
    if let Some(body) = given.body {
        check_members(operation.body, body.root(), form, &mut Vec::new(), &mut faults);
        faults.extend(check_expiry(operation, body, now));
        if let Some(rule) = operation.bank_rule {
            check_bank(operation, rule, body, &mut faults);
        }
    }
    faults
}

/// The single value of a header; a fault where it is repeated or no visible ASCII.
///
/// # Errors
/// The [`Fault`] that names the header.
pub fn single_header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::of_header(name, Rule::Repeated, "is given more than once"));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Fault::of_header(name, Rule::Format, "must be visible ASCII")),
    }
}

fn check_header(header: &Header, headers: &HeaderMap, form: Form) -> Option<Fault> {
    let replaced = match header.source {
        HeaderSource::Attempt => true,
        // Clients like curl send `*/*`; upstream gets the protocol's value in any case.
        HeaderSource::Constant(_) => !matches!(header.kind, Kind::Json),
        HeaderSource::Caller | HeaderSource::Merchant => false,
    };
    if form == Form::Caller && replaced {
        return None;
    }
    match single_header(headers, header.name) {
        Err(fault) => Some(fault),
        Ok(None) if form == Form::Wire && header.demanded => {
            Some(Fault::of_header(header.name, Rule::Required, MISSING))
        }
        Ok(None) => None,
        Ok(Some(value)) => {
            header.kind.check_text(value, form).map(|(rule, message)| Fault::of_header(header.name, rule, message))
        }
    }
}

fn check_parameter(field: &Field, query: &[(String, String)], form: Form) -> Option<Fault> {
    let mut values = query.iter().filter(|(name, _)| name == field.name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Some(Fault::of_header(field.name, Rule::Repeated, "is given more than once")),
        (None, _) if field.need.demanded(form) => Some(Fault::of_header(field.name, Rule::Required, MISSING)),
        (None, _) => None,
        (Some((_, value)), None) => {
            field.kind.check_text(value, form).map(|(rule, message)| Fault::of_header(field.name, rule, message))
        }
    }
}

fn check_members(
    fields: &'static [Field],
    object: Value<'_>,
    form: Form,
    path: &mut Vec<&'static str>,
    faults: &mut Vec<Fault>,
) {
    for field in fields {
        path.push(field.name);
        match object.member(field.name).filter(|value| value.kind() != document::Kind::Null) {
            None if field.need.demanded(form) => faults.push(Fault::missing(path)),
            None => {}
            Some(value) => match field.kind.check_value(value, form) {
                Some((rule, message)) => faults.push(Fault::of_member(path, rule, message)),
                None => check_inside(&field.kind, value, form, path, faults),
            },
        }
        path.pop();
    }
}

fn check_inside(
    kind: &'static Kind,
    value: Value<'_>,
    form: Form,
    path: &mut Vec<&'static str>,
    faults: &mut Vec<Fault>,
) {
    match kind {
        Kind::Object(fields) => check_members(fields, value, form, path, faults),
        Kind::Single(fields) => {
            path.push("0");
            for element in value.elements() {
                if element.kind() == document::Kind::Object {
                    check_members(fields, element, form, path, faults);
                } else {
                    faults.push(Fault::of_member(path, Rule::Type, "must be an object"));
                }
            }
            path.pop();
        }
        _ => {}
    }
}

fn check_expiry(operation: &Operation, body: &Document, now: Timestamp) -> Option<Fault> {
    let Expiry::Ahead(name) = operation.expiry else { return None };
    let expiry = clock::parse_iso8601(body.root().member(name)?.as_str()?)?;
    (expiry <= now).then(|| Fault::of_member(&[name], Rule::Range, "must lie ahead"))
}

/// The rules that join members; silent about members that are missing or malformed, which the
/// field rules have already named.
fn check_bank(operation: &Operation, rule: &BankRule, body: &Document, faults: &mut Vec<Fault>) {
    let text = |path: &[&str]| body.root().at(path).and_then(Value::as_str);
    let amount = amount_kind(rule.amount, body);
    if let (AmountRule::Named { total, .. }, Some(AmountKind::Closed)) = (rule.amount, amount)
        && body.root().member(total).is_none_or(|value| value.kind() == document::Kind::Null)
    {
        faults.push(Fault::of_member(&[total], Rule::Required, "is missing: a closed amount needs it"));
    }
    let Some(bank) = text(rule.bank).and_then(bank) else { return };
    if rule.checks_number
        && let Some(number) = text(&[operation.number])
        && !number.is_empty()
        && !bank.digits(operation.dialect).contains(&number.len())
    {
        let digits = bank.digits(operation.dialect);
        let message = if digits.start() == digits.end() {
            format!("must have exactly {} digits at {}", digits.start(), bank.name)
        } else {
            format!("must have {} to {} digits at {}", digits.start(), digits.end(), bank.name)
        };
        // The table's own bounds are wider; whoever broke those has been told.
        if !faults.iter().any(|fault| fault.field == operation.number) {
            faults.push(Fault::of_member(&[operation.number], Rule::Length, message));
        }
    }
    let (Some(uses), Some(amount)) = (text(rule.uses).map(|uses| uses_of(rule, uses)), amount) else { return };
    let offer = bank.offer(operation.dialect);
    if !offer.includes(uses, amount) {
        let (path, message) = match rule.amount {
            AmountRule::Named { kind, .. } if !offer.includes(Uses::Single, amount) => {
                (kind, format!("is not offered by {}", bank.name))
            }
            _ => (rule.combination, format!("is not offered by {} with this kind of amount", bank.name)),
        };
        faults.push(Fault::of_member(path, Rule::Combination, message));
    }
}

fn uses_of(rule: &BankRule, uses: &str) -> Uses {
    if uses == rule.multi { Uses::Multi } else { Uses::Single }
}

/// Whether the request's amount is fixed; nothing where it does not say so properly.
#[must_use]
pub fn amount_kind(rule: AmountRule, body: &Document) -> Option<AmountKind> {
    match rule {
        AmountRule::ZeroIsOpen(path) => match body.root().at(path) {
            None => Some(AmountKind::Open),
            Some(value) => Amount::parse(value.as_str()?)
                .map(|amount| if amount.is_zero() { AmountKind::Open } else { AmountKind::Closed }),
        },
        AmountRule::Named { kind, closed, .. } => {
            let named = body.root().at(kind)?.as_str()?;
            Some(if named == closed { AmountKind::Closed } else { AmountKind::Open })
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderName, HeaderValue};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::dialect::OperationId;

    fn vectors(name: &str) -> Json {
        let text = match name {
            "snap" => include_str!("../../tests/vectors/validation-snap.json"),
            _ => include_str!("../../tests/vectors/validation-classic.json"),
        };
        serde_json::from_str(text).unwrap()
    }

    fn headers(base: &Json, case: &Json) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |members: &Json| {
            for (name, value) in members.as_object().into_iter().flatten() {
                let value = value.as_str().unwrap();
                let value = if value.starts_with("<fresh") { "c0ffee00c0ffee00c0ffee00c0ffee00" } else { value };
                headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
            }
        };
        set(&base["headers"]);
        // Placeholders of the vectors that no rule is about.
        set(&json!({"Authorization": "Bearer 0aB1cD2eF3gH4iJ5kL6mN7oP8qR9"}));
        set(&case["headers_set"]);
        if headers.contains_key("X-SIGNATURE") {
            headers.insert("X-SIGNATURE", HeaderValue::from_static("00ff"));
        }
        for name in case["headers_unset"].as_array().into_iter().flatten() {
            headers.remove(name.as_str().unwrap());
        }
        headers
    }

    fn body(base: &Json, case: &Json) -> Document {
        let mut body = base[case["op"].as_str().unwrap()].clone();
        for (pointer, value) in case["set"].as_object().into_iter().flatten() {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap()[name] = value.clone();
        }
        for pointer in case["unset"].as_array().into_iter().flatten() {
            let (parent, name) = pointer.as_str().unwrap().rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        }
        Document::parse(Bytes::from(body.to_string())).unwrap()
    }

    /// Rules of the vectors that need a record or a switch of the sandbox; proven there.
    const STATEFUL: [&str; 2] = ["vs-create-below-min", "vs-update-customer-changed"];

    fn hold(generation: &str, now: &str) {
        let vectors = vectors(generation);
        for case in vectors["cases"].as_array().unwrap() {
            let id = case["id"].as_str().unwrap();
            let operation = OperationId::from_name(&format!("{generation}.{}", case["op"].as_str().unwrap())).unwrap();
            let (headers, body) = (headers(&vectors["base"], case), body(&vectors["base"], case));
            let given = Given { headers: &headers, query: &[], body: Some(&body) };
            let faults = check(operation.operation(), given, Form::Wire, now.parse().unwrap());
            let accepted = case["expect"]["accepted"].as_bool().unwrap() || STATEFUL.contains(&id);
            assert_eq!(faults.is_empty(), accepted, "{id}: {faults:?}");
            if accepted {
                continue;
            }
            assert_eq!(faults.len(), 1, "{id}: {faults:?}");
            assert_eq!(faults[0].field, case["expect"]["field"].as_str().unwrap(), "{id}");
            if let Some(expected) = case["expect"]["case"].as_str() {
                assert_eq!(faults[0].rule == Rule::Required, expected == "02", "{id}: {faults:?}");
            }
        }
    }

    #[test]
    fn snap_vectors() {
        hold("snap", "2026-01-05T03:00:00Z");
    }

    #[test]
    fn classic_vectors() {
        hold("classic", "2026-01-05T03:00:00Z");
    }

    #[test]
    fn every_fault_is_named_at_once_and_no_value_is_repeated() {
        let text = r#"{"customerNo":7,"virtualAccountNo":"12ab","virtualAccountName":"","trxId":null,
            "virtualAccountPhone":"0812-SECRET","totalAmount":{"value":"1,5","currency":"USD"},"expiredDate":"tomorrow",
            "additionalInfo":{"bankCode":"BCA","isSingleUse":true}}"#;
        let document = Document::parse(Bytes::from_static(text.as_bytes())).unwrap();
        let mut headers = HeaderMap::new();
        headers.append("X-EXTERNAL-ID", HeaderValue::from_static("a"));
        headers.append("X-EXTERNAL-ID", HeaderValue::from_static("b"));
        headers.insert("CHANNEL-ID", HeaderValue::from_static("9522"));
        headers.insert("Content-Type", HeaderValue::from_static("text/plain"));
        let given = Given { headers: &headers, query: &[], body: Some(&document) };
        let faults = check(&crate::dialect::snap::CREATE, given, Form::Caller, Timestamp::UNIX_EPOCH);
        let found: Vec<String> =
            faults.iter().map(|f| format!("{} {:?} {} {}", f.field, f.pointer, f.rule.name(), f.message)).collect();
        expect_test::expect![[r#"
            [
                "Content-Type None format must be application/json",
                "X-EXTERNAL-ID None repeated is given more than once",
                "CHANNEL-ID None length must have exactly 5 characters",
                "customerNo Some(\"/customerNo\") type must be a string",
                "virtualAccountNo Some(\"/virtualAccountNo\") length must have 11 to 18 characters",
                "virtualAccountName Some(\"/virtualAccountName\") length must have 1 to 100 characters",
                "virtualAccountPhone Some(\"/virtualAccountPhone\") format must be digits only",
                "trxId Some(\"/trxId\") required is missing",
                "totalAmount.value Some(\"/totalAmount/value\") format must be digits with two decimals, like 150000.00",
                "totalAmount.currency Some(\"/totalAmount/currency\") choice must be one of IDR",
                "expiredDate Some(\"/expiredDate\") format must be a time like 2026-01-05T10:00:00+07:00, exactly 25 characters",
                "additionalInfo.bankCode Some(\"/additionalInfo/bankCode\") choice must be one of 002, 008, 009, 014",
                "additionalInfo.isSingleUse Some(\"/additionalInfo/isSingleUse\") type must be a string",
            ]
        "#]]
        .assert_debug_eq(&found);
        assert!(!format!("{faults:?}").contains("SECRET"));
    }

    #[test]
    fn callers_may_leave_out_what_the_gateway_attaches() {
        let update = r#"{"virtualAccountNo":"1462912345678901","virtualAccountName":"Budi","additionalInfo":{"bankCode":"014","isSingleUse":"Y"}}"#;
        let document = Document::parse(Bytes::from_static(update.as_bytes())).unwrap();
        let headers = HeaderMap::new();
        let given = Given { headers: &headers, query: &[], body: Some(&document) };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(check(&crate::dialect::snap::UPDATE, given, Form::Caller, now), []);
        let wire = check(&crate::dialect::snap::UPDATE, given, Form::Wire, now);
        let missing: Vec<_> = wire.iter().map(|fault| fault.field.as_str()).collect();
        assert!(missing.contains(&"originalReferenceNo") && missing.contains(&"virtualAccountNo"), "{missing:?}");
    }

    #[test]
    fn a_prefix_of_eight_digits_leaves_no_room_for_padding() {
        let faults = |own: usize| {
            let number = format!("12345678{}", "1".repeat(own));
            let text = json!({"virtualAccountNo": number, "virtualAccountName": "Budi",
                "additionalInfo": {"bankCode": "014", "isSingleUse": "Y"}});
            let document = Document::parse(Bytes::from(text.to_string())).unwrap();
            let given = Given { headers: &HeaderMap::new(), query: &[], body: Some(&document) };
            check(&crate::dialect::snap::UPDATE, given, Form::Caller, Timestamp::UNIX_EPOCH).len()
        };
        assert_eq!((faults(18), faults(19)), (0, 1));
    }
}
