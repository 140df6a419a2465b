//! What a payment callback says (`callbacks.md` sections 3 and 4).
//!
//! Promises to understand every shape the documents allow (an amount as object or text, in either of
//! two places) and to refuse what names no account or no money, rather than to guess. Unknown members
//! are passed over. Whether it is true is not told here.

use jiff::Timestamp;

use crate::clock::JAKARTA;
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::dialect::number::without_blanks;
use crate::document::{Document, Kind, Value};

/// One payment, as a callback announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The account's number as upstream writes it.
    pub number: String,
    /// The money of this payment.
    pub amount: Amount,
    /// Its currency; rupiah where none is named.
    pub currency: String,
    /// When it was paid, as written. Classic says nothing of it.
    pub paid_at: Option<String>,
    /// The account's status afterwards.
    pub status: Option<String>,
    /// The create's transaction, where the callback names it.
    pub trx_id: Option<String>,
    /// The create's reference or, in classic, the payment's own.
    pub reference_no: Option<String>,
    /// Classic: which life of the number was paid.
    pub account_id: Option<String>,
    /// Classic: everything paid so far, this payment included (`protocol/README.md` row 17).
    pub total: Option<Amount>,
    /// What two callbacks of one payment have in common.
    pub key: String,
}

impl Notice {
    /// The number without blanks: what events of one account are put in order by.
    #[must_use]
    pub fn digits(&self) -> &str {
        without_blanks(&self.number)
    }

    /// When it was paid, where that can be told.
    #[must_use]
    pub fn paid_at(&self) -> Option<Timestamp> {
        self.paid_at.as_deref().and_then(moment)
    }
}

/// A time as upstream writes it; one that does not say where is Jakarta's.
#[must_use]
pub fn moment(written: &str) -> Option<Timestamp> {
    let local = || JAKARTA.to_timestamp(written.parse::<jiff::civil::DateTime>().ok()?).ok();
    written.parse().ok().or_else(local)
}

/// What all that is said of one SNAP payment has in common (`callbacks.md` section 4). The same moment
/// may be written in more than one way.
#[must_use]
pub(super) fn payment_key(number: &str, time: &str, amount: Amount) -> String {
    let time = moment(time).map_or_else(|| time.to_owned(), |moment| moment.display_with_offset(JAKARTA).to_string());
    format!("{}/{time}/{amount}", without_blanks(number))
}

/// Reads a callback's body.
///
/// # Errors
/// In a few words why it cannot be understood; never with a value out of it.
pub fn read(dialect: Dialect, body: &Document) -> Result<Notice, &'static str> {
    let data = body.root().member("virtualAccountData").ok_or("it has no virtualAccountData")?;
    match dialect {
        Dialect::Snap => snap(body, data),
        Dialect::Classic => classic(body, data),
    }
}

fn snap(body: &Document, data: Value<'_>) -> Result<Notice, &'static str> {
    let number = text(data, "virtualAccountNo").ok_or("it names no account")?;
    let extra = data.member("additionalInfo");
    let find = |name: &str| data.member(name).or_else(|| extra?.member(name));
    let (amount, currency) = find("latestPaidAmount").and_then(money).ok_or("it names no amount paid")?;
    let paid_at = find("latestPaidTime").and_then(Value::as_str).filter(|time| !time.is_empty());
    let key = paid_at.map(|time| payment_key(&number, time, amount));
    Ok(Notice {
        amount,
        paid_at: paid_at.map(str::to_owned),
        status: text(data, "virtualAccountStatus"),
        trx_id: text(data, "trxId"),
        reference_no: text(data, "referenceNo"),
        account_id: None,
        total: None,
        // One that claims other money is no copy of it.
        key: match (key, currency.as_str()) {
            (Some(key), "IDR") => key,
            (Some(key), currency) => format!("{key}/{currency}"),
            (None, _) => whole(body),
        },
        currency,
        number,
    })
}

fn classic(body: &Document, data: Value<'_>) -> Result<Notice, &'static str> {
    let number = text(data, "virtualAccountNumber").ok_or("it names no account")?;
    let payment = data.member("paymentDetails").ok_or("it has no paymentDetails")?;
    let (amount, currency) = payment.member("amount").and_then(money).ok_or("it names no amount paid")?;
    let reference_no = text(payment, "trxRefID");
    let account_id = text(data, "virtualAccountId");
    let key = match (&account_id, &reference_no) {
        (Some(account), Some(reference)) => format!("{account}/{reference}"),
        // Whose it is says the key all the same: what was told of an account is added up by it.
        (Some(account), None) => format!("{account}/{}", whole(body)),
        (None, _) => whole(body),
    };
    Ok(Notice {
        number,
        amount,
        currency,
        paid_at: None,
        status: text(data, "virtualAccountStatus"),
        trx_id: None,
        key,
        total: data.member("totalAmount").and_then(money).map(|(total, _)| total),
        account_id,
        reference_no,
    })
}

/// Without the members that tell payments apart, only callbacks that say the very same are one.
fn whole(body: &Document) -> String {
    format!("meaning/{}", hex::encode(body.meaning().0))
}

/// A text that says something.
pub(super) fn text(data: Value<'_>, name: &str) -> Option<String> {
    data.member(name)?.as_str().filter(|text| !without_blanks(text).is_empty()).map(str::to_owned)
}

/// An amount with its currency: `{"value": …, "currency": …}`, a text, or a number.
pub(super) fn money(value: Value<'_>) -> Option<(Amount, String)> {
    let (amount, currency) = match value.kind() {
        Kind::Object => (value.member("value")?, value.member("currency").and_then(Value::as_str)),
        Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::String | Kind::Array => (value, None),
    };
    let written = match amount.kind() {
        Kind::String => amount.as_str()?,
        Kind::Number => std::str::from_utf8(amount.raw()).ok()?,
        Kind::Null | Kind::True | Kind::False | Kind::Array | Kind::Object => return None,
    };
    // Whole rupiah may come without their decimals; nothing else is guessed at.
    let amount = Amount::parse(written).or_else(|| Amount::parse(&format!("{written}.00")))?;
    (!amount.is_zero()).then(|| (amount, currency.unwrap_or("IDR").to_owned()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value as Json, json};

    use super::*;

    fn read_json(dialect: Dialect, body: &Json) -> Result<Notice, &'static str> {
        read(dialect, &Document::parse(Bytes::from(body.to_string())).unwrap())
    }

    fn bodies() -> Vec<(Dialect, Json)> {
        let vectors: Json = serde_json::from_str(include_str!("../../tests/vectors/callbacks.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap().iter().filter(|case| case["type"] == "body");
        let dialect = |case: &Json| if case["generation"] == "snap" { Dialect::Snap } else { Dialect::Classic };
        cases.map(|case| (dialect(case), case.clone())).collect()
    }

    #[test]
    fn bodies_of_the_vectors() {
        let cases = bodies();
        assert_eq!(cases.len(), 3);
        for (dialect, case) in cases {
            let (id, expect) = (&case["id"], &case["expect"]);
            let notice = read_json(dialect, &case["body"]).unwrap();
            assert_eq!(json!(notice.amount.to_string()), expect["paid_amount"], "{id}");
            assert_eq!(json!(notice.currency), expect["currency"], "{id}");
            for (known, found) in [
                ("dedupe_key", Some(notice.key.as_str())),
                ("paid_time", notice.paid_at.as_deref()),
                ("va_digits", Some(notice.digits())),
                ("bank_reference", notice.reference_no.as_deref()),
            ] {
                assert!(expect.get(known).is_none_or(|expected| json!(found) == *expected), "{id} {known}");
            }
        }
    }

    #[test]
    fn the_amount_may_stand_in_either_place_and_shape() {
        let read = |data: Json| read_json(Dialect::Snap, &json!({"virtualAccountData": data}));
        let amount = |value: Json| read(json!({"virtualAccountNo": "   1462912345678901", "latestPaidAmount": value}));
        for value in [json!("5000.00"), json!("5000"), json!(5000), json!({"value": "5000.00", "currency": "IDR"})] {
            assert_eq!(amount(value).unwrap().amount, Amount::from_hundredths(500_000));
        }
        for value in [json!("0.00"), json!("-5.00"), json!("5,000"), json!(null), json!(5.5), json!([]), json!({})] {
            assert!(amount(value.clone()).is_err(), "{value}");
        }
        let extra = json!({"latestPaidAmount": "1.00", "latestPaidTime": "2026-01-05T14:22:10+07:00"});
        let moved = read(json!({"virtualAccountNo": "1", "additionalInfo": extra})).unwrap();
        assert_eq!(moved.key, "1/2026-01-05T14:22:10+07:00/1.00");
    }

    #[test]
    fn a_time_that_does_not_say_where_is_jakartas() {
        let key = |time: &str| payment_key("1", time, Amount::from_hundredths(100));
        assert_eq!(key("2026-01-05T14:22:10"), key("2026-01-05T07:22:10Z"));
        assert_eq!(moment("2026-01-05 14:22:10"), "2026-01-05T14:22:10+07:00".parse().ok());
        assert_eq!(moment("yesterday"), None);
    }

    #[test]
    fn what_names_no_account_or_no_money_is_not_understood() {
        for body in [json!({}), json!([]), json!({"virtualAccountData": {}}), json!({"virtualAccountData": 7})] {
            for dialect in Dialect::ALL {
                assert!(read_json(dialect, &body).is_err(), "{body}");
            }
        }
        // One generation's callback at the other's address.
        for (dialect, case) in bodies() {
            let other = if dialect == Dialect::Snap { Dialect::Classic } else { Dialect::Snap };
            assert!(read_json(other, &case["body"]).is_err());
        }
    }

    #[test]
    fn payments_that_cannot_be_told_apart_are_one_only_where_they_say_the_same() {
        let body = |name: &str| {
            let data = json!({"virtualAccountNo": "1", "latestPaidAmount": "1.00", "virtualAccountName": name});
            read_json(Dialect::Snap, &json!({"virtualAccountData": data})).unwrap().key
        };
        assert_eq!(body("A"), body("A"));
        assert_ne!(body("A"), body("B"));
    }
}
