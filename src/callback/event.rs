//! What the merchant's app is told of an account (contract section 8).
//!
//! Promises the same text for the same event at every attempt, and upstream's own body in it byte for
//! byte. Signing and sending it is for others.

use bytes::Bytes;
use serde_json::{Value, json};

use super::notice::{self, text};
use crate::clock::iso8601;
use crate::dialect::Dialect;
use crate::document::Document;
use crate::reference::{Account, Handle};
use crate::store::inbox::{Event, EventKind, Origin};

/// The body of an event. The account's record, where there is one, says what upstream left out.
#[must_use]
pub fn body(event: &Event, account: Option<&Account>) -> Bytes {
    let document = Document::parse(event.body.clone()).ok();
    let ids = ids(event, document.as_ref(), account);
    let mut data = json!({
        "merchant": &*event.merchant,
        "dialect": event.dialect.name(),
        "virtualAccountNo": ids.number,
        "trxId": ids.trx_id,
        "referenceNo": ids.reference_no,
        "status": event.status,
        "confirmed": event.confirmed,
        "origin": event.origin.name(),
    });
    let mut say = |name: &str, value: Value| {
        if let Value::Object(members) = &mut data {
            members.insert(name.to_owned(), value);
        }
    };
    match event.kind {
        EventKind::Paid => {
            let amount = event.amount.map(|amount| json!({"value": amount.to_string(), "currency": ids.currency}));
            say("amount", amount.unwrap_or_default());
            say("paidAt", json!(event.paid_at));
        }
        EventKind::Expired => say("expiredAt", json!(event.paid_at)),
    }
    let mut text = data.to_string().into_bytes();
    // Upstream's text goes in as it came: a number that was read and written again might differ.
    text.pop();
    text.extend_from_slice(br#","upstream":"#);
    text.extend_from_slice(if document.is_some() { &event.body } else { b"null" });
    text.extend_from_slice(b"}");
    let (kind, timestamp) = (event.kind.name(), Value::from(iso8601(event.received)));
    let mut body = format!(r#"{{"type":"{kind}","timestamp":{timestamp},"data":"#).into_bytes();
    body.extend_from_slice(&text);
    body.extend_from_slice(b"}");
    Bytes::from(body)
}

/// What an event calls its account.
#[derive(Debug)]
struct Ids {
    number: String,
    trx_id: Option<String>,
    reference_no: Option<String>,
    currency: String,
}

fn ids(event: &Event, document: Option<&Document>, account: Option<&Account>) -> Ids {
    let known = account.and_then(|account| match &account.handle {
        Handle::Snap { trx_id, reference_no, .. } => Some((trx_id.clone(), reference_no.clone())),
        Handle::Classic { .. } => None,
    });
    let notice = document.and_then(|document| notice::read(event.dialect, document).ok());
    let currency = notice.as_ref().map_or_else(|| "IDR".to_owned(), |notice| notice.currency.clone());
    let number = match event.dialect {
        Dialect::Snap => "virtualAccountNo",
        Dialect::Classic => "virtualAccountNumber",
    };
    let number = document.and_then(|document| text(document.root().member("virtualAccountData")?, number));
    let number = number.or_else(|| account.map(|account| account.number.clone()));
    let number = number.unwrap_or_else(|| event.digits.clone());
    let (mut trx_id, mut reference_no) = known.unzip();
    // An answer's reference may be the question's own id; a callback's is the payment's or the create's.
    if let Some(notice) = notice.filter(|_| event.origin == Origin::Callback) {
        // Of the two the record is the one nobody else can have written.
        trx_id = trx_id.or(notice.trx_id);
        reference_no = reference_no.or(notice.reference_no);
    }
    Ids { number, trx_id, reference_no, currency }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::amount::Amount;
    use crate::store::inbox::State;

    fn event(kind: EventKind, origin: Origin, upstream: &'static str) -> Event {
        let at = "2026-01-05T03:00:01Z".parse().unwrap();
        Event {
            id: "evt_1".to_owned(),
            merchant: "sample".into(),
            dialect: Dialect::Snap,
            kind,
            origin,
            digits: "1462912345678901".to_owned(),
            state: State::Pending,
            received: at,
            due: Some(at),
            until: at,
            ended: None,
            attempts: 0,
            confirmed: true,
            counted: false,
            doubt: None,
            amount: Amount::parse("150000.00").filter(|_| kind == EventKind::Paid),
            paid_at: Some("2026-01-05T10:00:00+07:00".to_owned()),
            status: Some("Active".to_owned()),
            said: None,
            body: Bytes::from_static(upstream.as_bytes()),
        }
    }

    const UPSTREAM: &str = r#"{"virtualAccountData":{"virtualAccountNo":"   1462912345678901","latestPaidAmount":"150000.00","latestPaidTime":"2026-01-05T10:00:00+07:00","trxId":"T1","referenceNo":"R1","x":1.10}}"#;

    fn told(event: &Event) -> Value {
        serde_json::from_slice(&body(event, None)).unwrap()
    }

    #[test]
    fn a_payment_is_told_as_the_contract_says() {
        let event = event(EventKind::Paid, Origin::Callback, UPSTREAM);
        let read = told(&event);
        assert_eq!((&read["type"], &read["timestamp"]), (&json!("va.paid"), &json!("2026-01-05T10:00:01+07:00")));
        let data = &read["data"];
        assert_eq!(data["virtualAccountNo"], "   1462912345678901");
        assert_eq!(data["amount"], json!({"value": "150000.00", "currency": "IDR"}));
        assert_eq!((&data["trxId"], &data["referenceNo"]), (&json!("T1"), &json!("R1")));
        assert_eq!((&data["confirmed"], &data["origin"]), (&json!(true), &json!("callback")));
        assert_eq!((&data["paidAt"], &data["status"]), (&json!("2026-01-05T10:00:00+07:00"), &json!("Active")));
        assert!(String::from_utf8(body(&event, None).to_vec()).unwrap().contains(r#""x":1.10"#), "byte for byte");
    }

    #[test]
    fn what_was_found_by_asking_does_not_take_the_questions_id_for_a_reference() {
        let data = told(&event(EventKind::Paid, Origin::Sweep, UPSTREAM))["data"].clone();
        assert_eq!((&data["trxId"], &data["referenceNo"]), (&Value::Null, &Value::Null), "there is no record here");
        assert_eq!((&data["origin"], &data["amount"]["value"]), (&json!("sweep"), &json!("150000.00")));
    }

    #[test]
    fn an_end_names_no_money() {
        let read = told(&event(EventKind::Expired, Origin::Sweep, "null"));
        assert_eq!(read["type"], "va.expired");
        let data = &read["data"];
        assert_eq!((data.get("amount"), data.get("paidAt")), (None, None));
        assert_eq!(data["expiredAt"], "2026-01-05T10:00:00+07:00");
        assert_eq!((&data["virtualAccountNo"], &data["upstream"]), (&json!("1462912345678901"), &Value::Null));
    }
}
