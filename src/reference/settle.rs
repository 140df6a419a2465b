//! What an inquiry says about a create or update nobody knows the outcome of.
//!
//! Pure: the request as it was sent and the inquiry's answer in, a verdict out. A create happened
//! where the account's reference, wherever it stands, is the id the create was sent under (`snap.md`
//! sections 6, 7); an update happened where the account shows what it asked for. That something does
//! not show proves little, least of all for a create. Asking, waiting and storing are others' affairs.

use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::plan::Asked;
use crate::call::Checked;
use crate::dialect::{Operation, OperationId};
use crate::document::{Document, Value};

/// What an inquiry shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It happened: the body its answer would have had.
    Happened(Bytes),
    /// The account does not show it. Of an update that means it is not in force; of a create it means
    /// nothing: the number may be another's, the reference may stand elsewhere.
    NotSeen,
}

/// What is held against each other.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Which operation is in doubt.
    pub operation: &'static Operation,
    /// Its body as the caller sent it.
    pub request: &'a Document,
    /// The id it was sent under.
    pub sent_id: &'a str,
    /// The inquiry's or get's answer.
    pub answer: &'a Document,
}

/// Holds the request against what upstream shows now.
#[must_use]
pub fn verdict(case: &Case<'_>) -> Verdict {
    let Some(data) = case.answer.root().member("virtualAccountData") else { return Verdict::NotSeen };
    let happened = match case.operation.id {
        OperationId::SnapCreate => references(case.answer.root()).any(|reference| reference == case.sent_id),
        OperationId::SnapUpdate => shows(case.request, data, SNAP_CHANGES),
        OperationId::ClassicUpdate => shows(case.request, data, CLASSIC_CHANGES),
        OperationId::ClassicCreate | OperationId::SnapInquiry | OperationId::ClassicGet => false,
    };
    match happened.then(|| body(case, data)).flatten() {
        Some(body) => Verdict::Happened(body),
        None => Verdict::NotSeen,
    }
}

/// Members an update may change (`snap.md` section 5).
const SNAP_CHANGES: &[&[&str]] = &[
    &["virtualAccountName"],
    &["virtualAccountPhone"],
    &["totalAmount", "value"],
    &["expiredDate"],
    &["additionalInfo", "isSingleUse"],
    &["additionalInfo", "additionalInfo1"],
    &["additionalInfo", "additionalInfo2"],
    &["additionalInfo", "additionalInfo3"],
];

/// Members an update may change and an answer shows as they were sent (`classic.md` sections 4, 5);
/// an update of nothing but the expiry shows nothing that could be compared.
const CLASSIC_CHANGES: &[&[&str]] = &[&["virtualAccountName"], &["virtualAccountPhone"], &["totalAmount", "value"]];

fn shows(request: &Document, data: Value<'_>, changes: &[&[&str]]) -> bool {
    // An update that asks for what cannot be seen is not proven by what can.
    let unseen = request.root().member("expiresIn").is_some() || request.root().member("virtualAccountType").is_some();
    let text = |root: Value<'_>, path: &[&str]| root.at(path).and_then(Value::as_str).map(ToOwned::to_owned);
    !unseen
        && changes.iter().all(|path| match text(request.root(), path) {
            Some(asked) => text(data, path) == Some(asked),
            None => true,
        })
}

/// Every reference an answer shows: under either name, in the data, at the top or in
/// `additionalInfo` (`protocol/README.md` section 4). The inquiry's own id is among them and equals no
/// create's.
fn references(root: Value<'_>) -> impl Iterator<Item = &str> {
    let data = root.member("virtualAccountData");
    let places = [data, Some(root), data.and_then(|data| data.member("additionalInfo"))];
    places.into_iter().flatten().flat_map(|place| {
        ["originalReferenceNo", "referenceNo"].into_iter().filter_map(move |name| place.member(name)?.as_str())
    })
}

/// The body the lost answer would have had: the account as upstream shows it, under the lost request's
/// own ids.
fn body(case: &Case<'_>, data: Value<'_>) -> Option<Bytes> {
    let mut data: Json = serde_json::from_slice(data.raw()).ok()?;
    let members = data.as_object_mut()?;
    let service = case.operation.service_code;
    if service.is_empty() {
        let mut body: Json = serde_json::from_slice(case.answer.root().raw()).ok()?;
        let members = body.as_object_mut()?;
        members.insert("responseCode".to_owned(), json!(201));
        members.insert("responseMessage".to_owned(), json!("updated"));
        return Some(Bytes::from(body.to_string()));
    }
    if case.operation.id == OperationId::SnapCreate {
        members.remove("originalReferenceNo");
    } else if let Some(original) = case.request.root().member("originalReferenceNo").and_then(Value::as_str) {
        members.entry("originalReferenceNo").or_insert_with(|| original.into());
    }
    members.insert("referenceNo".to_owned(), case.sent_id.into());
    let body = json!({
        "responseCode": format!("{}{service}00", case.operation.success),
        "responseMessage": "Successful",
        "virtualAccountData": data,
    });
    Some(Bytes::from(body.to_string()))
}

/// What an inquiry about a doubtful request is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Padded.
    pub partner_service_id: String,
    /// The merchant's key of the customer.
    pub customer_no: String,
    /// Padded.
    pub number: String,
    /// The create's, or the request's own.
    pub trx_id: String,
}

/// Whom to ask about: from the record of an update, from the number a create chose and the prefix
/// learnt from earlier answers; nothing where upstream chose the number and never said it.
#[must_use]
pub fn subject(asked: Asked<'_>, account: Option<&super::Account>, prefix: Option<&str>) -> Option<Subject> {
    use crate::dialect::number::SnapNumber;
    use crate::dialect::{Attach, Identity};
    if let Some(account) = account {
        let text = |attach| account.value(attach).map(ToOwned::to_owned);
        return Some(Subject {
            partner_service_id: text(Attach::Identity(Identity::PartnerServiceId))?,
            customer_no: text(Attach::Identity(Identity::CustomerNo))
                .or_else(|| asked.text("customerNo").map(ToOwned::to_owned))?,
            number: account.number.clone(),
            trx_id: text(Attach::TransactionId).or_else(|| asked.text("trxId").map(ToOwned::to_owned))?,
        });
    }
    let number = match asked.operation.id {
        OperationId::SnapCreate => {
            SnapNumber::compose(prefix?.trim_start_matches(' '), asked.text("virtualAccountNo")?)?
        }
        _ => asked.padded_number()?,
    };
    Some(Subject {
        partner_service_id: number.partner_service_id().to_owned(),
        customer_no: asked.text("customerNo")?.to_owned(),
        number: number.to_string(),
        trx_id: asked.text("trxId")?.to_owned(),
    })
}

/// A doubtful request as it is read back from the store.
#[must_use]
pub fn reread(request: &Bytes, ids: crate::call::Ids) -> Option<Checked> {
    let document = Document::parse(request.clone()).ok()?;
    Some(Checked { document: Some(document), query: Vec::new(), ids, overdue: Vec::new(), in_doubt: true })
}
