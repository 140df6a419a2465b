//! Requests as apps make them: lean (their own fields only) and full (as if sent to Ayoconnect).
//!
//! Ids come from small numbers, so that a test can say which request is the same as which. What a
//! lean request leaves out is the table of contract section 1.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

/// 32 characters for a number.
pub(crate) fn id(number: u32) -> String {
    format!("{number:032x}")
}

/// Paths as configured by default.
pub(crate) const CREATE: &str = "/va/api/v2.0/transfer-va/create-va";
pub(crate) const UPDATE: &str = "/va/api/v2.0/transfer-va/update-va";
pub(crate) const INQUIRY: &str = "/va/api/v2.0/transfer-va/inquiry-va";
pub(crate) const CLASSIC: &str = "/api/v1/virtualAccount";
pub(crate) const SNAP_LOGIN: &str = "/va/api/v2.0/access-token/b2b";
pub(crate) const CLASSIC_LOGIN: &str = "/v1/oauth/client_credential/accesstoken";

/// A request that is being put together.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Members, while they are still members.
    pub(crate) json: Value,
    /// The very bytes, where a test is about them.
    pub(crate) bytes: Option<Bytes>,
}

impl Ask {
    pub(crate) fn new(method: Method, path: &str, json: Value) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), json, bytes: None }
    }

    /// Sets a header.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.without(name).also(name, value.as_bytes())
    }

    /// Adds a header beside those there are.
    pub(crate) fn also(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_vec()));
        self
    }

    /// Takes a header off.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Sets a member by JSON pointer.
    pub(crate) fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = self.json.pointer_mut(parent).unwrap();
        let value = value.into();
        match parent {
            Value::Array(list) if name == list.len().to_string() => list.push(value),
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
            _ => parent[name] = value,
        }
        self
    }

    /// Takes a member off by JSON pointer.
    pub(crate) fn unset(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match self.json.pointer_mut(parent).unwrap() {
            Value::Array(list) => drop(list.remove(name.parse().unwrap())),
            parent => drop(parent.as_object_mut().unwrap().remove(name)),
        }
        self
    }

    /// Sends these bytes instead of the members.
    pub(crate) fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.bytes = Some(bytes.into());
        self
    }

    /// Speaks for a merchant by its code.
    pub(crate) fn merchant(self, code: &str) -> Self {
        let name = if self.path.starts_with(CLASSIC) { "A-Merchant-Code" } else { "X-PARTNER-ID" };
        self.header(name, code)
    }

    /// The bytes of the body.
    pub(crate) fn payload(&self) -> Bytes {
        match (&self.bytes, &self.json) {
            (Some(bytes), _) => bytes.clone(),
            (None, Value::Null) => Bytes::new(),
            (None, json) => Bytes::from(json.to_string()),
        }
    }

    /// Head and body apart, for bodies of a test's own.
    pub(crate) fn into_request(self) -> Request<Full<Bytes>> {
        let payload = self.payload();
        let mut request = Request::new(Full::new(payload));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.path.parse().unwrap();
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        request
    }

    /// Everything an app that talks to Ayoconnect itself sends beside, all of it stale or wrong.
    pub(crate) fn in_full(self) -> Self {
        let classic = self.path.starts_with(CLASSIC);
        let ask = self
            .header("Authorization", "Bearer ayovaPlaceholderTokenNoWorth")
            .header("Content-Type", "application/json; charset=utf-8")
            .header("Accept", "application/json")
            .header("User-Agent", "shop/1.0");
        if classic {
            return ask.header("A-Merchant-Code", "AYOTST");
        }
        ask.header("X-TIMESTAMP", "2019-01-01T00:00:00+07:00")
            .header("X-SIGNATURE", "00ff00ff")
            .header("X-CLIENT-KEY", "somebody-else")
            .header("X-PARTNER-ID", "AYOTST")
            .header("CHANNEL-ID", "95221")
    }
}

/// A lean SNAP create of BCA number `number` (11 digits; empty: upstream chooses) under id and
/// transaction `tag`.
pub(crate) fn snap_create(tag: u32, number: &str) -> Ask {
    let body = json!({
        "customerNo": "CUST000123",
        "virtualAccountNo": number,
        "virtualAccountName": "Budi Santoso",
        "virtualAccountPhone": "628123456789",
        "trxId": id(tag),
        "totalAmount": {"value": "150000.00", "currency": "IDR"},
        "expiredDate": "2026-01-06T10:00:00+07:00",
        "additionalInfo": {"bankCode": "014", "isSingleUse": "Y"},
    });
    Ask::new(Method::POST, CREATE, body).header("X-EXTERNAL-ID", &id(tag))
}

/// A lean SNAP update of the account with that number, in any form.
pub(crate) fn snap_update(tag: u32, number: &str) -> Ask {
    let body = json!({
        "virtualAccountNo": number,
        "virtualAccountName": "Budi Santoso Baru",
        "totalAmount": {"value": "175000.00", "currency": "IDR"},
        "expiredDate": "2026-01-07T10:00:00+07:00",
        "additionalInfo": {"bankCode": "014", "isSingleUse": "Y"},
    });
    Ask::new(Method::PUT, UPDATE, body).header("X-EXTERNAL-ID", &id(tag))
}

/// A lean SNAP inquiry.
pub(crate) fn snap_inquiry(number: &str) -> Ask {
    Ask::new(Method::POST, INQUIRY, json!({"virtualAccountNo": number}))
}

/// A lean classic create of BRI number `number` (8 digits or more; empty: upstream chooses).
pub(crate) fn classic_create(tag: u32, number: &str) -> Ask {
    let body = json!({
        "virtualAccountName": "Budi Santoso",
        "virtualAccountPhone": "628123456789",
        "virtualAccountNumber": number,
        "transactionId": id(tag),
        "bankCode": "002",
        "expiresIn": 360,
        "totalAmount": {"value": "150000.00", "currency": "IDR"},
        "billDetails": [{"billName": "Invoice 1", "billAmount": {"value": "150000.00", "currency": "IDR"}}],
        "virtualAccountConfig": {"virtualAccountType": "dynamic", "amountType": "closed"},
    });
    Ask::new(Method::POST, CLASSIC, body)
}

/// A lean classic update of the account with that number.
pub(crate) fn classic_update(number: &str) -> Ask {
    let body = json!({
        "virtualAccountNumber": number,
        "virtualAccountName": "Budi Santoso Baru",
        "totalAmount": {"value": "175000.00", "currency": "IDR"},
    });
    Ask::new(Method::PATCH, CLASSIC, body)
}

/// A lean classic get of the account with that number.
pub(crate) fn classic_get(number: &str) -> Ask {
    Ask::new(Method::GET, &format!("{CLASSIC}?virtualAccountNumber={number}"), Value::Null)
}

/// The padded BCA number of the first merchant.
pub(crate) fn padded(number: &str) -> String {
    format!("   14629{number}")
}
