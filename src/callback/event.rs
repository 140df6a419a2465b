//! What the merchant's app is told of a payment (contract section 8).
//!
//! Promises the same text for the same payment at every attempt, and upstream's own body in it byte
//! for byte. Signing and sending it is for others.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::notice::Notice;
use crate::clock::iso8601;
use crate::dialect::Dialect;
use crate::reference::{Account, Handle};

/// A payment about to be told.
#[derive(Clone, Copy, Debug)]
pub struct Payment<'a> {
    /// Whose, by its configured name.
    pub merchant: &'a str,
    /// Which generation announced it.
    pub dialect: Dialect,
    /// When the gateway learnt of it.
    pub received: Timestamp,
    /// Whether upstream was asked and said so too.
    pub confirmed: bool,
    /// What the callback said.
    pub notice: &'a Notice,
    /// The account's record, for what the callback left out.
    pub account: Option<&'a Account>,
    /// The callback's body, a JSON text.
    pub upstream: &'a [u8],
}

/// The body of a `va.paid` event.
#[must_use]
pub fn paid(payment: &Payment<'_>) -> Bytes {
    let Payment { merchant, dialect, received, confirmed, notice, account, upstream } = *payment;
    let known = account.and_then(|account| match &account.handle {
        Handle::Snap { trx_id, reference_no, .. } => Some((trx_id.as_str(), reference_no.as_str())),
        Handle::Classic { .. } => None,
    });
    let trx_id = notice.trx_id.as_deref().or_else(|| known.map(|(trx_id, _)| trx_id));
    let reference_no = notice.reference_no.as_deref().or_else(|| known.map(|(_, reference)| reference));
    let head = json!({
        "merchant": merchant,
        "dialect": dialect.name(),
        "virtualAccountNo": notice.number,
        "trxId": trx_id,
        "referenceNo": reference_no,
        "amount": {"value": notice.amount.to_string(), "currency": notice.currency},
        "paidAt": notice.paid_at,
        "status": notice.status,
        "confirmed": confirmed,
        "origin": "callback",
    });
    let mut data = head.to_string().into_bytes();
    // Upstream's text goes in as it came: a number that was read and written again might differ.
    data.pop();
    data.extend_from_slice(br#","upstream":"#);
    data.extend_from_slice(upstream);
    data.extend_from_slice(b"}");
    let mut body = format!(r#"{{"type":"va.paid","timestamp":{},"data":"#, Value::from(iso8601(received))).into_bytes();
    body.extend_from_slice(&data);
    body.extend_from_slice(b"}");
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::notice;
    use crate::document::Document;

    #[test]
    fn a_payment_is_told_as_the_contract_says() {
        let upstream = br#"{"virtualAccountData":{"virtualAccountNo":"   1462912345678901","latestPaidAmount":"150000.00","latestPaidTime":"2026-01-05T10:00:00+07:00","trxId":"T1","x":1.10}}"#;
        let notice = notice::read(Dialect::Snap, &Document::parse(Bytes::from_static(upstream)).unwrap()).unwrap();
        let payment = Payment {
            merchant: "sample",
            dialect: Dialect::Snap,
            received: "2026-01-05T03:00:01Z".parse().unwrap(),
            confirmed: false,
            notice: &notice,
            account: None,
            upstream,
        };
        let body = paid(&payment);
        let read: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&read["type"], &read["timestamp"]), (&json!("va.paid"), &json!("2026-01-05T10:00:01+07:00")));
        let data = &read["data"];
        assert_eq!(data["virtualAccountNo"], "   1462912345678901");
        assert_eq!(data["amount"], json!({"value": "150000.00", "currency": "IDR"}));
        assert_eq!((&data["trxId"], &data["referenceNo"]), (&json!("T1"), &Value::Null));
        assert_eq!((&data["confirmed"], &data["origin"]), (&json!(false), &json!("callback")));
        assert_eq!(data["paidAt"], "2026-01-05T10:00:00+07:00");
        assert!(String::from_utf8(body.to_vec()).unwrap().contains(r#""x":1.10"#), "byte for byte");
    }
}
