//! A merchant's client: logs in, signs, sends; and the tester's hand on the control interface.
//!
//! Promises requests as a real client makes them, with every header open to change before it is
//! signed, so that a test differs from a good request in one thing only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ayova::clock::{SharedClock, TestClock, iso8601};
use ayova::config::SandboxConfig;
use ayova::config::sandbox::{SAMPLE_CLIENT_ID, SAMPLE_CLIENT_SECRET, SAMPLE_KEY_PEM, SAMPLE_MERCHANT_CODE};
use ayova::sandbox::{ConnectionReset, Sandbox};
use ayova::signature::{Encoding, HmacKey, PrivateKey, Scheme, SignedRequest, StringToSign, body_hash};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The vectors' clock, `2026-01-05T10:00:00+07:00`.
pub(crate) const START: &str = "2026-01-05T03:00:00Z";
pub(crate) const BASE: &str = "/va/api/v2.0";
pub(crate) const CLASSIC: &str = "/api/v1/virtualAccount";
pub(crate) const CLASSIC_TOKEN: &str = "/v1/oauth/client_credential/accesstoken";

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// `virtualAccountData`.
    pub(crate) fn data(&self) -> Value {
        assert!(self.status < 300, "{}", self.text());
        self.json()["virtualAccountData"].clone()
    }

    /// The last two digits of SNAP's code.
    pub(crate) fn case(&self) -> String {
        self.json()["responseCode"].as_str().unwrap_or_default().chars().skip(5).collect()
    }

    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.bytes))
    }
}

/// One request, open to change.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// A signature that is sent instead of the right one.
    pub(crate) signature: Option<String>,
}

impl Outgoing {
    pub(crate) fn new(method: Method, path: &str, body: &Value) -> Self {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Self { method, path: path.to_owned(), headers: HeaderMap::new(), body, signature: None }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A merchant with its credentials and the simulator it talks to.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: SharedClock,
    pub(crate) merchant_code: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) key: Arc<PrivateKey>,
    pub(crate) scheme: Scheme,
    pub(crate) encoding: Encoding,
    ids: Arc<AtomicU64>,
}

/// A fresh simulator with the default switches.
pub(crate) fn fresh() -> Client {
    with(SandboxConfig::default())
}

/// A fresh simulator.
pub(crate) fn with(config: SandboxConfig) -> Client {
    let clock: SharedClock = Arc::new(TestClock::new(START.parse().unwrap()));
    let sandbox = Sandbox::new(config, Arc::clone(&clock), StdRng::seed_from_u64(7)).unwrap();
    Client::of(sandbox, clock)
}

/// A fresh simulator with some switches set otherwise.
pub(crate) fn switched(set: impl FnOnce(&mut SandboxConfig)) -> Client {
    let mut config = SandboxConfig::default();
    set(&mut config);
    with(config)
}

impl Client {
    /// The sample merchant.
    pub(crate) fn of(sandbox: Sandbox, clock: SharedClock) -> Self {
        Self {
            sandbox,
            clock,
            merchant_code: SAMPLE_MERCHANT_CODE.to_owned(),
            client_id: SAMPLE_CLIENT_ID.to_owned(),
            client_secret: SAMPLE_CLIENT_SECRET.to_owned(),
            key: Arc::new(PrivateKey::from_pem(SAMPLE_KEY_PEM).unwrap()),
            scheme: Scheme::HmacSha512,
            encoding: Encoding::Hex,
            ids: Arc::default(),
        }
    }

    /// 32 alphanumerics, never the same.
    pub(crate) fn id(&self) -> String {
        format!("{:032x}", self.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) async fn try_send(&self, outgoing: Outgoing) -> Result<Reply, ConnectionReset> {
        let mut request = Request::new(Full::new(Bytes::from(outgoing.body)));
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = outgoing.path.parse().unwrap();
        *request.headers_mut() = outgoing.headers;
        let response = self.sandbox.clone().oneshot(request).await?;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, bytes })
    }

    pub(crate) async fn send(&self, outgoing: Outgoing) -> Reply {
        self.try_send(outgoing).await.unwrap()
    }

    // === control ===

    pub(crate) async fn control(&self, method: Method, path: &str, body: &Value) -> Reply {
        self.send(Outgoing::new(method, &format!("/_sandbox{path}"), body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.control(Method::POST, path, &body).await
    }

    pub(crate) async fn look(&self, path: &str) -> Value {
        let reply = self.control(Method::GET, path, &Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    pub(crate) async fn pay(&self, number: &Value, amount: &str) -> Reply {
        self.post("/pay", json!({"virtualAccountNo": number, "amount": amount})).await
    }

    pub(crate) async fn advance(&self, by: &str) {
        let reply = self.post("/clock", json!({"advance": by})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    pub(crate) async fn fault(&self, matched: Value, fault: Value) {
        let list = json!([{"match": matched, "fault": fault}]);
        let reply = self.control(Method::PUT, "/faults", &list).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    // === logins ===

    pub(crate) fn snap_login_request(&self) -> Outgoing {
        let body = json!({"grantType": "client_credentials", "additionalInfo": {"merchantId": self.merchant_code}});
        let timestamp = iso8601(self.clock.now());
        let text = StringToSign::rsa_client_timestamp(&self.client_id, &timestamp);
        let signature = self.key.sign(&text, self.encoding).unwrap();
        Outgoing::new(Method::POST, &format!("{BASE}/access-token/b2b"), &body)
            .with("Content-Type", "application/json")
            .with("X-TIMESTAMP", &timestamp)
            .with("X-CLIENT-KEY", &self.client_id)
            .with("X-SIGNATURE", &signature)
    }

    pub(crate) async fn snap_login(&self) -> String {
        let reply = self.send(self.snap_login_request()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["accessToken"].as_str().unwrap().to_owned()
    }

    pub(crate) fn classic_login_request(&self) -> Outgoing {
        let mut outgoing =
            Outgoing::new(Method::POST, &format!("{CLASSIC_TOKEN}?grant_type=client_credentials"), &Value::Null)
                .with("Content-Type", "application/x-www-form-urlencoded");
        outgoing.body = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", &self.client_id)
            .append_pair("client_secret", &self.client_secret)
            .finish();
        outgoing
    }

    pub(crate) async fn classic_login(&self) -> String {
        let reply = self.send(self.classic_login_request()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["accessToken"].as_str().unwrap().to_owned()
    }

    // === SNAP ===

    /// A good request but for its signature, which `sign` makes once everything else stands.
    pub(crate) fn snap_request(&self, operation: &str, token: &str, body: &Value) -> Outgoing {
        let method = if operation == "update" { Method::PUT } else { Method::POST };
        Outgoing::new(method, &format!("{BASE}/transfer-va/{operation}-va"), body)
            .with("Content-Type", "application/json")
            .with("Authorization", &format!("Bearer {token}"))
            .with("X-TIMESTAMP", &iso8601(self.clock.now()))
            .with("X-PARTNER-ID", &self.merchant_code)
            .with("X-EXTERNAL-ID", &self.id())
            .with("CHANNEL-ID", "95221")
    }

    pub(crate) fn sign(&self, outgoing: &mut Outgoing) {
        if let Some(signature) = outgoing.signature.clone() {
            outgoing.set("X-SIGNATURE", &signature);
            return;
        }
        let timestamp = outgoing.header("X-TIMESTAMP").to_owned();
        let token = outgoing.header("Authorization").trim_start_matches("Bearer ").to_owned();
        let body_hash = body_hash(outgoing.body.as_bytes());
        let request = SignedRequest {
            method: outgoing.method.as_str(),
            path: &outgoing.path,
            body_hash: &body_hash,
            timestamp: &timestamp,
        };
        let rsa = |text: &StringToSign<'_>| self.key.sign(text, self.encoding).unwrap();
        let signature = match self.scheme {
            Scheme::HmacSha512 => HmacKey::new(self.client_secret.as_bytes())
                .sign(&StringToSign::hmac_sha512(&request, &token), self.encoding),
            Scheme::RsaClientTimestamp => rsa(&StringToSign::rsa_client_timestamp(&self.client_id, &timestamp)),
            Scheme::RsaTransactional => rsa(&StringToSign::rsa_transactional(&request)),
        };
        outgoing.set("X-SIGNATURE", &signature);
    }

    /// Logs in, signs and sends, after `change`.
    pub(crate) async fn snap_changed(
        &self,
        operation: &str,
        body: &Value,
        change: impl FnOnce(&mut Outgoing),
    ) -> Reply {
        let token = self.snap_login().await;
        let mut outgoing = self.snap_request(operation, &token, body);
        change(&mut outgoing);
        self.sign(&mut outgoing);
        self.send(outgoing).await
    }

    pub(crate) async fn snap(&self, operation: &str, body: &Value) -> Reply {
        self.snap_changed(operation, body, |_| {}).await
    }

    pub(crate) async fn snap_as(&self, operation: &str, body: &Value, external_id: &str) -> Reply {
        self.snap_changed(operation, body, |outgoing| outgoing.set("X-EXTERNAL-ID", external_id)).await
    }

    // === classic ===

    pub(crate) fn classic_request(&self, method: Method, token: &str, body: &Value) -> Outgoing {
        Outgoing::new(method, CLASSIC, body)
            .with("Content-Type", "application/json")
            .with("Accept", "application/json")
            .with("Authorization", &format!("Bearer {token}"))
            .with("A-Correlation-ID", &self.id())
            .with("A-Merchant-Code", &self.merchant_code)
    }

    /// Logs in and sends, after `change`.
    pub(crate) async fn classic_changed(
        &self,
        method: Method,
        body: &Value,
        change: impl FnOnce(&mut Outgoing),
    ) -> Reply {
        let token = self.classic_login().await;
        let mut outgoing = self.classic_request(method, &token, body);
        change(&mut outgoing);
        self.send(outgoing).await
    }

    pub(crate) async fn classic_create(&self, body: &Value) -> Reply {
        self.classic_changed(Method::POST, body, |_| {}).await
    }

    pub(crate) async fn classic_update(&self, flow: &Value, body: &Value) -> Reply {
        let flow = flow.as_str().unwrap();
        self.classic_changed(Method::PATCH, body, |outgoing| outgoing.set("A-Correlation-ID", flow)).await
    }

    pub(crate) async fn classic_get(&self, data: &Value, bank_code: &str) -> Reply {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("virtualAccountId", data["virtualAccountId"].as_str().unwrap())
            .append_pair("transactionId", &self.id())
            .append_pair("bankCode", bank_code)
            .append_pair("customerId", data["customerId"].as_str().unwrap())
            .finish();
        let flow = data["correlationId"].as_str().unwrap();
        self.classic_changed(Method::GET, &Value::Null, |outgoing| {
            outgoing.set("A-Correlation-ID", flow);
            outgoing.path = format!("{CLASSIC}?{query}");
        })
        .await
    }
}
