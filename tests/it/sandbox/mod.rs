//! The simulated Ayoconnect, driven as a merchant's client drives the real one.
//!
//! Promises that every vector of the dossier that says what a server does is run against the running
//! simulator, signed for real, and that every switch, fault and control path is felt from outside.

mod callbacks;
mod client;
mod control;
mod faults;
mod security;
mod socket;
mod switches;
mod vectors;

use serde_json::{Value, json};

/// A vector file's cases and the rest of it.
fn cases(text: &str) -> (Value, Vec<Value>) {
    let file: Value = serde_json::from_str(text).unwrap();
    let cases = file["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    (file, cases)
}

/// The create of the vectors' samples, with a number that the server makes.
fn snap_create() -> Value {
    json!({
        "customerNo": "CUST000123",
        "virtualAccountName": "Budi Santoso",
        "virtualAccountPhone": "628123456789",
        "trxId": "7f3b1c9e5a2d4f608b1e3c7a9d5f2b41",
        "totalAmount": {"value": "150000.00", "currency": "IDR"},
        "expiredDate": "2026-01-06T10:00:00+07:00",
        "additionalInfo": {"bankCode": "014", "isSingleUse": "Y", "additionalInfo1": "INV-2026-0001"},
    })
}

/// The update that changes nothing of an account as a create's answer shows it.
fn snap_update(data: &Value) -> Value {
    let mut body = data.clone();
    let members = body.as_object_mut().unwrap();
    let reference = members.remove("referenceNo").unwrap();
    members.remove("virtualAccountStatus");
    members.insert("originalReferenceNo".to_owned(), reference);
    body
}

/// The inquiry for an account as a create's answer shows it.
fn snap_inquiry(data: &Value) -> Value {
    json!({
        "partnerServiceId": data["partnerServiceId"],
        "customerNo": data["customerNo"],
        "virtualAccountNo": data["virtualAccountNo"],
        "trxId": data["trxId"],
    })
}

/// A classic create.
fn classic_create() -> Value {
    json!({
        "virtualAccountName": "Budi Santoso",
        "virtualAccountPhone": "628123456789",
        "transactionId": "vXNsQzlmLrJiRmG0e0AhNgqBexupEil9",
        "bankCode": "002",
        "expiresIn": 360,
        "totalAmount": {"value": "150000.00", "currency": "IDR"},
        "billDetails": [{"billName": "Invoice 1", "billAmount": {"value": "150000.00", "currency": "IDR"}}],
        "virtualAccountConfig": {"virtualAccountType": "dynamic", "amountType": "closed"},
    })
}

/// A classic update that changes nothing but the name.
fn classic_update(data: &Value) -> Value {
    json!({
        "virtualAccountId": data["virtualAccountId"],
        "customerId": data["customerId"],
        "transactionId": "wXNsQzlmLrJiRmG0e0AhNgqBexupEil9",
        "virtualAccountName": "Budi S",
    })
}
