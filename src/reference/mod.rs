//! Records of virtual accounts: what a create teaches, and what an update is given of it.
//!
//! Pure: reads answers and makes plans, touches neither store nor network. The newest create of a
//! number wins and an update's own id never replaces the create's (contract section 5 rule 6,
//! `snap.md` section 7).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

pub mod plan;
pub mod settle;

pub use plan::{Plan, Refusal};

use crate::dialect::amount::Amount;
use crate::dialect::bank::{BNI, bank};
use crate::dialect::number::{SnapNumber, classic_own_digits, without_blanks};
use crate::dialect::{Attach, Dialect, Form, Identity, OperationId};
use crate::document::{Document, Value};

/// What is known of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whose; an account never serves another merchant.
    pub merchant: Arc<str>,
    /// The whole number as upstream writes it, blanks included.
    pub number: String,
    /// The client's own digits; empty where they cannot be told.
    pub own_digits: String,
    /// The bank's code, where it is known.
    pub bank_code: Option<String>,
    /// The amount of the last successful create or update.
    pub amount: Option<Amount>,
    /// Whether it is known to have taken exactly that amount all its life.
    pub closed: bool,
    /// When the create was sent, by the clock but after what was known of the number when it began: the
    /// newest wins. [`Account::READ`] where no create taught it.
    pub created: Timestamp,
    /// When it can no longer be paid, as far as its create said.
    pub expires: Option<Timestamp>,
    /// How upstream wants it named.
    pub handle: Handle,
}

/// How upstream wants an account named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handle {
    /// SNAP: the number and the create's reference.
    Snap {
        /// The padded prefix.
        partner_service_id: String,
        /// The merchant's key of the customer.
        customer_no: String,
        /// The create's.
        trx_id: String,
        /// The create's `referenceNo`.
        reference_no: String,
    },
    /// Classic: ids that only the create's answer brings.
    Classic {
        /// `virtualAccountId`
        account_id: String,
        /// `customerId`
        customer_id: String,
        /// `A-Correlation-ID` of the whole flow.
        correlation_id: String,
    },
}

impl Account {
    /// `created` of what was learnt by reading. A read may show a life that ends while it is being
    /// read, whenever it was sent: it is older than every create, and among reads the latest counts.
    pub const READ: Timestamp = Timestamp::UNIX_EPOCH;

    /// Which generation made it.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        match self.handle {
            Handle::Snap { .. } => Dialect::Snap,
            Handle::Classic { .. } => Dialect::Classic,
        }
    }

    /// The number without blanks, the form it is kept under.
    #[must_use]
    pub fn digits(&self) -> &str {
        without_blanks(&self.number)
    }

    /// Whether this is one of the forms its number may be written in.
    #[must_use]
    pub fn is_called(&self, number: &str) -> bool {
        let digits = without_blanks(number);
        digits == self.digits() || digits == self.own_digits
    }

    /// What is to be attached; nothing where the record does not have it.
    #[must_use]
    pub fn value(&self, attach: Attach) -> Option<&str> {
        let known = match (attach, &self.handle) {
            (Attach::Reference, Handle::Snap { reference_no, .. }) => reference_no,
            (Attach::TransactionId, Handle::Snap { trx_id, .. }) => trx_id,
            (Attach::Identity(identity), handle) => return self.identity(identity, handle),
            (Attach::Reference | Attach::TransactionId, Handle::Classic { .. }) | (Attach::Fresh, _) => return None,
        };
        Some(known.as_str()).filter(|text| !text.is_empty())
    }

    fn identity<'a>(&'a self, identity: Identity, handle: &'a Handle) -> Option<&'a str> {
        let known = match (identity, handle) {
            (Identity::PartnerServiceId, Handle::Snap { partner_service_id, .. }) => partner_service_id.as_str(),
            (Identity::CustomerNo, Handle::Snap { customer_no, .. }) => customer_no,
            (Identity::Number, Handle::Snap { .. }) => &self.number,
            (Identity::Number, Handle::Classic { .. }) => &self.own_digits,
            (Identity::AccountId, Handle::Classic { account_id, .. }) => account_id,
            (Identity::CustomerId, Handle::Classic { customer_id, .. }) => customer_id,
            (Identity::BankCode, _) => self.bank_code.as_deref()?,
            (Identity::PartnerServiceId | Identity::CustomerNo, Handle::Classic { .. })
            | (Identity::AccountId | Identity::CustomerId, Handle::Snap { .. }) => return None,
        };
        Some(known).filter(|text| !text.is_empty())
    }

    /// Whether this bank refuses the new amount (`classic.md` section 5: BNI never goes down).
    #[must_use]
    pub fn refuses_amount(&self, new: Amount) -> bool {
        self.bank_code.as_deref() == Some(BNI) && self.amount.is_some_and(|previous| new < previous)
    }
}

/// What an answer is read with.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// Whose.
    pub merchant: &'a Arc<str>,
    /// The request's body as the caller sent it; absent for a get.
    pub request: Option<&'a Document>,
    /// Upstream's answer.
    pub answer: &'a Document,
    /// The `X-EXTERNAL-ID` or `A-Correlation-ID` that was sent.
    pub sent_id: &'a str,
    /// The transaction's id that was sent.
    pub transaction: &'a str,
    /// When the request was sent.
    pub sent_at: Timestamp,
}

impl Lesson<'_> {
    /// The amount the request asked for.
    fn asked_amount(&self) -> Option<Amount> {
        Amount::parse(self.request?.root().at(&["totalAmount", "value"])?.as_str()?)
    }
}

/// The record of a create, from its successful answer; nothing where the answer names no account.
#[must_use]
pub fn learn_create(dialect: Dialect, lesson: &Lesson<'_>) -> Option<Account> {
    match dialect {
        // The create's X-EXTERNAL-ID is its referenceNo by definition, should the answer leave it out.
        Dialect::Snap => {
            let shown = lesson.answer.root().at(&["virtualAccountData", "totalAmount", "value"]);
            let amount = shown.and_then(Value::as_str).and_then(Amount::parse).or_else(|| lesson.asked_amount());
            let reference = reference_in(lesson.answer, None).unwrap_or(lesson.sent_id);
            snap_account(lesson, reference, amount)
        }
        // What was sent is the flow, whatever the answer calls it.
        Dialect::Classic => classic_account(lesson, lesson.sent_id),
    }
}

/// The record of an account the gateway never saw, from an inquiry, a get, or an update under the
/// caller's own reference.
///
/// A reference that upstream took is the right one; in an answer `referenceNo` may be the request's
/// own id, which is none. An inquiry's amount is no previous amount either: of a multi-payment account
/// it is the sum of its payments (`protocol/README.md` row 17).
#[must_use]
pub fn learn_read(dialect: Dialect, lesson: &Lesson<'_>) -> Option<Account> {
    let account = match dialect {
        Dialect::Snap => {
            let taken = lesson.request.and_then(|request| request.root().member("originalReferenceNo")?.as_str());
            let reference =
                taken.filter(|text| !text.is_empty()).or_else(|| reference_in(lesson.answer, Some(lesson.sent_id)))?;
            snap_account(lesson, reference, lesson.asked_amount())
        }
        Dialect::Classic => classic_account(lesson, flow_in(lesson)),
    };
    account.map(|account| Account { created: Account::READ, ..account })
}

/// The record after an update: its new amount, and the reference it was sent under where that was the
/// right one after all. One that changes nothing shows that the account lives, and is recorded for that.
#[must_use]
pub fn learn_update(known: &Account, sent_reference: Option<&str>, request: Option<&Document>) -> Account {
    let value = request.and_then(|request| request.root().at(&["totalAmount", "value"])?.as_str());
    let mut account = known.clone();
    account.amount = value.and_then(Amount::parse).or(account.amount);
    account.closed &= account.amount == known.amount;
    if let (Handle::Snap { reference_no, .. }, Some(sent)) = (&mut account.handle, sent_reference) {
        sent.clone_into(reference_no);
    }
    account
}

fn snap_account(lesson: &Lesson<'_>, reference: &str, amount: Option<Amount>) -> Option<Account> {
    let data = lesson.answer.root().member("virtualAccountData")?;
    let text = |name: &'static str| usable(name, data.member(name).and_then(Value::as_str)?);
    let sent = |path: &[&str]| lesson.request.and_then(|request| request.root().at(path)).and_then(Value::as_str);
    let number = text("virtualAccountNo")?;
    let parts = SnapNumber::parse(number);
    let bank_code = data
        .at(&["additionalInfo", "bankCode"])
        .and_then(Value::as_str)
        .or_else(|| sent(&["additionalInfo", "bankCode"]));
    Some(Account {
        merchant: Arc::clone(lesson.merchant),
        number: number.to_owned(),
        own_digits: parts.as_ref().map_or_else(String::new, |parts| parts.own_digits().to_owned()),
        bank_code: bank_code.map(ToOwned::to_owned),
        amount,
        closed: amount.is_some_and(|amount| !amount.is_zero()),
        created: lesson.sent_at,
        expires: expiry_in(lesson.answer).or_else(|| sent(&["expiredDate"]).and_then(|text| text.parse().ok())),
        handle: Handle::Snap {
            partner_service_id: text("partnerServiceId")
                .map(ToOwned::to_owned)
                .or_else(|| parts.map(|parts| parts.partner_service_id().to_owned()))?,
            customer_no: text("customerNo").or_else(|| sent(&["customerNo"])).unwrap_or_default().to_owned(),
            trx_id: text("trxId").or_else(|| sent(&["trxId"])).unwrap_or(lesson.transaction).to_owned(),
            reference_no: reference.to_owned(),
        },
    })
}

/// The account's own reference: `originalReferenceNo` before `referenceNo`, in the data, at the top
/// or in `additionalInfo` (`protocol/README.md` section 4, `snap.md` section 6). `no_reference` is an
/// id that `referenceNo` may hold without being one.
fn reference_in<'a>(answer: &'a Document, no_reference: Option<&str>) -> Option<&'a str> {
    let root = answer.root();
    let data = root.member("virtualAccountData")?;
    let places = [Some(data), Some(root), data.member("additionalInfo")];
    let find =
        |name: &'static str| places.iter().flatten().find_map(|place| usable(name, place.member(name)?.as_str()?));
    find("originalReferenceNo").or_else(|| find("referenceNo").filter(|found| Some(*found) != no_reference))
}

/// When an account ends, as an answer of either generation shows it.
#[must_use]
pub fn expiry_in(answer: &Document) -> Option<Timestamp> {
    let data = answer.root().member("virtualAccountData")?;
    let text = data.member("expiredDate").or_else(|| data.member("expiredAt"))?.as_str()?;
    text.parse().ok()
}

/// `expiresIn` from the time the create was sent (`classic.md` section 3).
fn asked_minutes(lesson: &Lesson<'_>) -> Option<Timestamp> {
    let written = lesson.request?.root().member("expiresIn")?.raw();
    let minutes = std::str::from_utf8(written).ok()?.parse().ok()?;
    lesson.sent_at.checked_add(SignedDuration::try_from_mins(minutes)?).ok()
}

/// A text of an answer that may be put into a later request; unknown where that could do harm there.
fn usable<'a>(member: &'static str, text: &'a str) -> Option<&'a str> {
    let is_plain = || text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let fits = text.len() <= TEXT_MAX && (is_plain() || !text.chars().any(char::is_control));
    if !fits {
        tracing::warn!(member, "a member of an answer is too long or holds control characters; it is not recorded");
    }
    Some(text).filter(|text| fits && !text.is_empty())
}

/// More than anything the protocol bounds and less than what a header or query may hold.
const TEXT_MAX: usize = 256;

/// The flow of an account that was read: what the answer says, where it can be sent, else what was sent.
fn flow_in<'a>(lesson: &Lesson<'a>) -> &'a str {
    let said = || lesson.answer.root().at(&["virtualAccountData", "correlationId"])?.as_str();
    let header = OperationId::ClassicGet.operation().header(Dialect::Classic.id_header());
    let fits = |id: &str| header.is_some_and(|header| header.kind.check_text(id, Form::Wire).is_none());
    let said = said().filter(|id| !id.is_empty());
    if said.is_some_and(|id| !fits(id)) {
        tracing::warn!(member = "correlationId", "an answer names a flow that cannot be sent; it is not recorded");
    }
    said.filter(|id| fits(id)).unwrap_or(lesson.sent_id)
}

/// `flow` is the create's `A-Correlation-ID`.
fn classic_account(lesson: &Lesson<'_>, flow: &str) -> Option<Account> {
    let data = lesson.answer.root().member("virtualAccountData")?;
    let text = |name: &'static str| {
        data.member(name).and_then(Value::as_str).and_then(|text| usable(name, text)).unwrap_or_default().to_owned()
    };
    let sent = |path: &[&str]| lesson.request.and_then(|request| request.root().at(path)).and_then(Value::as_str);
    let (account_id, number) = (text("virtualAccountId"), text("virtualAccountNumber"));
    if account_id.is_empty() || number.is_empty() {
        return None;
    }
    let bank_code = sent(&["bankCode"]);
    let own_digits = sent(&["virtualAccountNumber"])
        .filter(|own| !own.is_empty() && number.ends_with(own))
        .or_else(|| classic_own_digits(bank(bank_code?)?, &number))
        .unwrap_or_default()
        .to_owned();
    Some(Account {
        merchant: Arc::clone(lesson.merchant),
        number,
        own_digits,
        bank_code: bank_code.map(ToOwned::to_owned),
        amount: lesson.asked_amount(),
        closed: sent(&["virtualAccountConfig", "amountType"]) == Some("closed"),
        created: lesson.sent_at,
        // What was asked for counts from the create; the answer's own time need not (README row 24).
        expires: asked_minutes(lesson).or_else(|| expiry_in(lesson.answer)),
        handle: Handle::Classic { account_id, customer_id: text("customerId"), correlation_id: flow.to_owned() },
    })
}

/// How a request names the account it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountQuery {
    /// The number in any of its forms, without blanks; empty where not given.
    pub digits: String,
    /// Whether the number was padded, hence whole: otherwise it may be own digits as well.
    pub whole: bool,
    /// `virtualAccountId`; empty where not given.
    pub account_id: String,
}

impl AccountQuery {
    /// Whether it names anything at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.digits.is_empty() && self.account_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn exchange(file: &str, id: &str) -> (Document, Document) {
        let vectors: serde_json::Value = serde_json::from_str(file).unwrap();
        let case = vectors["cases"].as_array().unwrap().iter().find(|case| case["id"] == id).unwrap().clone();
        let document = |value: &serde_json::Value| Document::parse(Bytes::from(value.to_string())).unwrap();
        (document(&case["request"]["body"]), document(&case["response"]["body"]))
    }

    fn lesson<'a>(merchant: &'a Arc<str>, request: &'a Document, answer: &'a Document, sent_id: &'a str) -> Lesson<'a> {
        let sent_at = Timestamp::UNIX_EPOCH;
        Lesson { merchant, request: Some(request), answer, sent_id, transaction: "T", sent_at }
    }

    const SNAP: &str = include_str!("../../tests/vectors/exchanges-snap.json");
    const CLASSIC: &str = include_str!("../../tests/vectors/exchanges-classic.json");

    #[test]
    fn a_create_teaches_its_reference() {
        let merchant = Arc::from("sample");
        let (request, answer) = exchange(SNAP, "snap-create-closed-single");
        let account = learn_create(Dialect::Snap, &lesson(&merchant, &request, &answer, "E")).unwrap();
        assert_eq!(account.value(Attach::Reference), Some("0f1e2d3c4b5a69788796a5b4c3d2e1f0"));
        assert_eq!(account.value(Attach::Identity(Identity::PartnerServiceId)), Some("   14629"));
        assert_eq!(account.value(Attach::Identity(Identity::CustomerNo)), Some("CUST000123"));
        assert_eq!((account.digits(), account.own_digits.as_str()), ("1462912345678901", "12345678901"));
        assert_eq!(account.amount, Amount::parse("150000.00"));
        assert_eq!(account.bank_code.as_deref(), Some("014"));
    }

    #[test]
    fn a_create_answer_without_a_reference_has_the_external_id() {
        let merchant = Arc::from("sample");
        let (request, _) = exchange(SNAP, "snap-create-closed-single");
        let answer = r#"{"virtualAccountData":{"virtualAccountNo":"   1462912345678901"}}"#;
        let answer = Document::parse(Bytes::from_static(answer.as_bytes())).unwrap();
        let account = learn_create(Dialect::Snap, &lesson(&merchant, &request, &answer, "E")).unwrap();
        assert_eq!(account.value(Attach::Reference), Some("E"));
        assert_eq!(account.value(Attach::Identity(Identity::PartnerServiceId)), Some("   14629"));
    }

    #[test]
    fn an_inquirys_own_id_is_no_reference() {
        let merchant = Arc::from("sample");
        let (request, answer) = exchange(SNAP, "snap-inquiry-active");
        let own = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
        let account = learn_read(Dialect::Snap, &lesson(&merchant, &request, &answer, own)).unwrap();
        assert_eq!(account.value(Attach::Reference), Some("0f1e2d3c4b5a69788796a5b4c3d2e1f0"));
        let only_own =
            format!(r#"{{"virtualAccountData":{{"virtualAccountNo":"   1462912345678901","referenceNo":"{own}"}}}}"#);
        let only_own = Document::parse(Bytes::from(only_own)).unwrap();
        assert_eq!(learn_read(Dialect::Snap, &lesson(&merchant, &request, &only_own, own)), None);
        assert!(learn_read(Dialect::Snap, &lesson(&merchant, &request, &only_own, "other")).is_some());
    }

    #[test]
    fn a_classic_create_teaches_its_ids() {
        let merchant = Arc::from("sample");
        let (request, answer) = exchange(CLASSIC, "cls-create-bni-dynamic-closed");
        let account = learn_create(Dialect::Classic, &lesson(&merchant, &request, &answer, "C")).unwrap();
        assert_eq!(account.value(Attach::Identity(Identity::AccountId)), Some("230411110614699649123IRGG6Q"));
        assert_eq!(account.value(Attach::Identity(Identity::CustomerId)), Some("AYOAPP-559PAC23"));
        assert_eq!(account.value(Attach::Identity(Identity::BankCode)), Some("009"));
        assert_eq!(account.own_digits, "12345678");
        let Handle::Classic { correlation_id, .. } = &account.handle else { panic!() };
        assert_eq!(correlation_id, "C", "what was sent, whatever the answer says");
    }

    #[test]
    fn a_flow_is_learnt_by_reading_only_where_it_can_be_sent() {
        let merchant = Arc::from("sample");
        let (request, answer) = exchange(CLASSIC, "cls-create-bni-dynamic-closed");
        let text = std::str::from_utf8(answer.text()).unwrap().to_owned();
        let known = "qole43pi7iuylp083ddr5c6xgsuwog64";
        for (said, learnt) in
            [(known, known), ("", "C"), ("short", "C"), ("\\u0000ole43pi7iuylp083ddr5c6xgsuwog6", "C")]
        {
            let answer = Document::parse(Bytes::from(text.replace(known, said))).unwrap();
            let account = learn_read(Dialect::Classic, &lesson(&merchant, &request, &answer, "C")).unwrap();
            let Handle::Classic { correlation_id, .. } = &account.handle else { panic!() };
            assert_eq!(correlation_id, learnt, "{said:?}");
        }
    }

    #[test]
    fn what_could_harm_a_later_request_is_not_learnt() {
        let merchant = Arc::from("sample");
        let (request, answer) = exchange(SNAP, "snap-create-closed-single");
        let learn = |name: &str, value: &str| {
            let mut answer: serde_json::Value = serde_json::from_slice(answer.text()).unwrap();
            answer["virtualAccountData"][name] = value.into();
            let answer = Document::parse(Bytes::from(answer.to_string())).unwrap();
            learn_create(Dialect::Snap, &lesson(&merchant, &request, &answer, "E"))
        };
        let long = "1".repeat(TEXT_MAX + 1);
        for bad in ["a\r\nX-Evil: 1", "a\u{0}", long.as_str()] {
            let value = |name, attach| learn(name, bad).unwrap().value(attach).unwrap().to_owned();
            assert_eq!(value("referenceNo", Attach::Reference), "E");
            assert_eq!(value("partnerServiceId", Attach::Identity(Identity::PartnerServiceId)), "   14629");
            assert_eq!(value("customerNo", Attach::Identity(Identity::CustomerNo)), "CUST000123");
            assert_ne!(value("trxId", Attach::TransactionId), bad);
            assert_eq!(learn("virtualAccountNo", bad), None);
        }
        let (request, answer) = exchange(CLASSIC, "cls-create-bni-dynamic-closed");
        let text = std::str::from_utf8(answer.text()).unwrap().replace("AYOAPP-559PAC23", "AYO\\n1");
        let answer = Document::parse(Bytes::from(text)).unwrap();
        let account = learn_create(Dialect::Classic, &lesson(&merchant, &request, &answer, "C")).unwrap();
        assert_eq!(account.value(Attach::Identity(Identity::CustomerId)), None);
    }

    #[test]
    fn a_closed_amount_is_the_only_one_until_it_is_changed() {
        let merchant = Arc::from("sample");
        let (request, answer) = exchange(CLASSIC, "cls-create-bni-dynamic-closed");
        let known = learn_create(Dialect::Classic, &lesson(&merchant, &request, &answer, "C")).unwrap();
        assert!(known.closed);
        let update = |text: &str| {
            let request = format!(r#"{{"totalAmount":{{"value":"{text}","currency":"IDR"}}}}"#);
            learn_update(&known, None, Some(&Document::parse(Bytes::from(request)).unwrap()))
        };
        assert!(update(&known.amount.unwrap().to_string()).closed);
        assert!(!update("999999.00").closed);
        assert!(learn_update(&known, None, None).closed);
    }

    #[test]
    fn bni_never_goes_down() {
        let merchant = Arc::from("sample");
        let (request, answer) = exchange(CLASSIC, "cls-create-bni-dynamic-closed");
        let mut account = learn_create(Dialect::Classic, &lesson(&merchant, &request, &answer, "C")).unwrap();
        let amount = |text| Amount::parse(text).unwrap();
        assert!(account.refuses_amount(amount("2649999.99")));
        assert!(!account.refuses_amount(amount("2650000.00")));
        account.bank_code = Some("002".to_owned());
        assert!(!account.refuses_amount(amount("1.00")));
    }
}
