//! The configuration file as written: one struct a section, one field a key, every default.
//!
//! Promises that these structs are the only list of keys: the JSON Schema, the reader's refusals and
//! `ayova check --print` all come from them, and the doc comments become the schema's descriptions.
//! A required key has an empty default here, so that the rest of a faulty file can still be judged;
//! the schema names it as required. Whether values make sense is `check`'s affair.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Secret;
use super::quantity::{Size, Span};
use super::sandbox::UpdateMethod;

/// Configuration of the ayova gateway. Every string may contain ${VAR}, ${VAR:-default} and
/// ${file:/path}; relative paths count from this file's folder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "ayova configuration", extend("required" = ["upstream", "merchants"]))]
pub(super) struct RawConfig {
    /// Version of this format. Default 1, the only one there is.
    #[schemars(range(min = 1, max = 1))]
    pub(super) version: u32,
    /// The listener apps connect to.
    pub(super) listen: RawListen,
    /// The listener for probes, scrapers and operators.
    pub(super) admin: RawAdmin,
    /// Ayoconnect: where it is and how it is called.
    pub(super) upstream: RawUpstream,
    /// The merchants requests are made for; at least one.
    #[schemars(length(min = 1))]
    pub(super) merchants: Vec<RawMerchant>,
    /// How repeated requests are recognised.
    pub(super) idempotency: RawIdempotency,
    /// How records of virtual accounts are used.
    pub(super) reference: RawReference,
    /// How often a request is tried.
    pub(super) retry: RawRetry,
    /// When Ayoconnect counts as down.
    pub(super) breaker: RawBreaker,
    /// Where records live.
    pub(super) store: RawStore,
    /// How refusals look.
    pub(super) errors: RawErrors,
    /// What is written to standard error.
    pub(super) log: RawLog,
    /// How the process ends.
    pub(super) shutdown: RawShutdown,
    /// Payment callbacks: taken in, kept, and passed on to the app. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) callbacks: Option<RawCallbacks>,
}

/// The listener apps connect to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawListen {
    /// IP address and port, a loopback address unless apps authenticate; or unix: and the path of a socket.
    /// Default 127.0.0.1:8080; port 0 takes a free one.
    pub(super) address: String,
    /// Certificate of this listener. Default: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawServerTls>,
    /// How apps prove who they are. Default none.
    pub(super) auth: RawAuth,
    /// Largest request body, inclusive; 1B to 16MiB. Default 64KiB.
    pub(super) max_body: Size,
    /// Longest time a request body may take; up to 1h. Default 5s.
    pub(super) body_timeout: Span,
    /// Longest time a request's head may take; up to 1h. Default 5s.
    pub(super) header_timeout: Span,
}

/// Certificate of a listener; files that change are read again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(super) struct RawServerTls {
    /// PEM file of the certificate, followed by those that lead to its authority.
    pub(super) cert: String,
    /// PEM file of its private key.
    pub(super) key: String,
    /// PEM file of the authorities whose certificates clients may show. Default: none are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_ca: Option<String>,
}

/// How apps prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawAuth {
    /// Not at all, which is why the address must be a loopback one or a unix socket.
    None,
    /// By a key in every request: merchants[].api_keys.
    ApiKey,
    /// By their certificate: merchants[].client_names.
    Mtls,
}

/// The listener for probes, scrapers and operators.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAdmin {
    /// IP address and port, other than the app's. Default 127.0.0.1:9080; port 0 takes a free one.
    pub(super) address: String,
}

/// Ayoconnect: where it is and how it is called.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["base_url"]))]
pub(super) struct RawUpstream {
    /// Ayoconnect's address without a path: https://sandbox.api.of.ayoconnect.id or https://api.of.ayoconnect.id.
    pub(super) base_url: String,
    /// Authorities and a client certificate. Default: the system's authorities, no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawClientTls>,
    /// Longest time a connection may take to open; up to 1h. Default 2s.
    pub(super) connect_timeout: Span,
    /// Longest time one attempt may take; at most the deadline. Default 8s.
    pub(super) attempt_timeout: Span,
    /// Longest time one request may take in all: token, waiting, attempts; up to 1h. Default 20s.
    pub(super) deadline: Span,
    /// The classic generation of the API.
    pub(super) classic: RawClassic,
    /// The SNAP generation of the API.
    pub(super) snap: RawSnap,
}

/// Authorities and a client certificate for connections to Ayoconnect.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawClientTls {
    /// PEM file of the authorities that are believed. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<String>,
    /// PEM file of the certificate that is shown to a server that asks. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_cert: Option<String>,
    /// PEM file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_key: Option<String>,
}

/// The classic generation of the API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawClassic {
    /// Whether its routes exist. Default true.
    pub(super) enabled: bool,
    /// Prefix of the operations' paths, without a final slash. Default /api/v1.
    pub(super) base_path: String,
    /// Whole path of the token call. Default /v1/oauth/client_credential/accesstoken.
    pub(super) token_path: String,
}

/// The SNAP generation of the API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSnap {
    /// Whether its routes exist. Default true.
    pub(super) enabled: bool,
    /// Prefix of the operations' paths, without a final slash; part of what is signed. Default /va/api/v2.0.
    pub(super) base_path: String,
    /// Whole path of the token call. Default /va/api/v2.0/access-token/b2b.
    pub(super) token_path: String,
    /// HTTP method of update-va. Default PUT.
    pub(super) update_method: UpdateMethod,
    /// How calls are signed.
    pub(super) signature: RawSignature,
}

/// How SNAP calls are signed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSignature {
    /// What is signed with which key. Default hmac_sha512.
    pub(super) scheme: RawScheme,
    /// How the signature becomes text. Default hex.
    pub(super) encoding: RawEncoding,
}

/// What is signed with which key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawScheme {
    /// Method, path, token, body and time, with the client secret.
    HmacSha512,
    /// Client id and time, with the private key.
    RsaClientTimestamp,
    /// Method, path, body and time, with the private key.
    RsaTransactional,
}

/// How a signature becomes text.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawEncoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Standard base64 with padding.
    Base64,
}

/// One merchant and its credentials.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "merchant_code", "client_id", "client_secret"]))]
pub(super) struct RawMerchant {
    /// Name in logs and metrics; 1 to 64 letters, digits, blanks, `.`, `_` or `-`; unique.
    pub(super) name: String,
    /// Six letters or digits, sent as X-PARTNER-ID and A-Merchant-Code; unique.
    pub(super) merchant_code: String,
    /// Client id, given by Ayoconnect.
    #[serde(serialize_with = "hidden", deserialize_with = "secret")]
    #[schemars(with = "String")]
    pub(super) client_id: Secret<String>,
    /// Client secret, given by Ayoconnect.
    #[serde(serialize_with = "hidden", deserialize_with = "secret")]
    #[schemars(with = "String")]
    pub(super) client_secret: Secret<String>,
    /// RSA private key as PEM text, usually ${file:/path}; needed where SNAP is enabled.
    #[serde(serialize_with = "hidden_option", deserialize_with = "secret_option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(super) private_key: Option<Secret<String>>,
    /// CHANNEL-ID, five digits in quotes. Default "95221".
    pub(super) channel_id: String,
    /// With listen.auth: api_key: sha256: and the SHA-256 of each key its apps may send. Default: none.
    #[serde(serialize_with = "hidden_list", deserialize_with = "secret_list")]
    #[schemars(with = "Vec<String>")]
    pub(super) api_keys: Vec<Secret<String>>,
    /// With listen.auth: mtls: DNS names or URIs of its apps' certificates. Default: none.
    pub(super) client_names: Vec<String>,
    /// What the merchant may ask for. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_limit: Option<RawRateLimit>,
    /// Where this merchant's events go. Default: where callbacks.deliver says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) callbacks: Option<RawMerchantCallbacks>,
}

/// One merchant's part of callbacks.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["deliver"]))]
pub(super) struct RawMerchantCallbacks {
    /// Where this merchant's events go.
    pub(super) deliver: RawDeliver,
}

/// Payment callbacks: taken in, kept, and passed on to the app.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["secret"]))]
pub(super) struct RawCallbacks {
    /// The listener Ayoconnect connects to.
    pub(super) listen: RawCallbackListen,
    /// At least 32 letters, digits, `-` or `_`; the last part of the addresses Ayoconnect is given.
    #[serde(serialize_with = "hidden", deserialize_with = "secret")]
    #[schemars(with = "String")]
    pub(super) secret: Secret<String>,
    /// Up to 8 former secrets, of addresses that Ayoconnect still calls; they are taken as well. Default: none.
    #[serde(serialize_with = "hidden_list", deserialize_with = "secret_list")]
    #[schemars(with = "Vec<String>")]
    pub(super) previous_secrets: Vec<Secret<String>>,
    /// Networks callbacks may come from, such as 203.0.113.0/24. Default: any.
    pub(super) allow: Vec<String>,
    /// Networks of proxies whose X-Forwarded-For is believed. Default: none.
    pub(super) trusted_proxies: Vec<String>,
    /// How a callback's own signature is checked; what fails is kept in quarantine. Default none.
    pub(super) verify: RawVerify,
    /// RSA public key as PEM text, usually ${file:/path}; needed with verify: rsa_transactional.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) public_key: Option<String>,
    /// Which callbacks Ayoconnect is asked about before their events go out. Default unsigned.
    pub(super) confirm: RawConfirm,
    /// Where events go; needed unless every merchant has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deliver: Option<RawDeliver>,
    /// Looks for payments that were not announced, and tells of accounts that ended. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sweep: Option<RawSweep>,
}

/// When accounts are looked at.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSweep {
    /// Between looks at an account that may be paid; 1s to 366d. Default 10m.
    pub(super) every: Span,
    /// Before its end; up to 1h. Default 2m.
    pub(super) before_expiry: Span,
    /// After its end; up to 1h. Default 5m.
    pub(super) after_expiry: Span,
}

/// The listener Ayoconnect connects to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCallbackListen {
    /// IP address and port, other than the app's and the admin's. Default 0.0.0.0:8443; port 0 takes a
    /// free one.
    pub(super) address: String,
    /// Certificate of this listener. Default: plain HTTP, for a proxy that ends TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawServerTls>,
}

/// How a callback's own signature is checked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawVerify {
    /// Not at all: Ayoconnect documents none.
    None,
    /// Method, path, an empty token, body and time, with the merchant's client secret.
    HmacSha512,
    /// Method, path, body and time, with the key of which public_key is the public half.
    RsaTransactional,
}

/// Which callbacks Ayoconnect is asked about before their events go out.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawConfirm {
    /// All.
    Always,
    /// Those without a signature that was checked.
    Unsigned,
    /// None; events say "confirmed": false, and whoever knows the address can make one up.
    Never,
}

/// Where and how events go to an app.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url", "secret"]))]
pub(super) struct RawDeliver {
    /// The app's http:// or https:// address.
    pub(super) url: String,
    /// Standard Webhooks secret: whsec_ and 24 to 64 bytes in base64.
    #[serde(serialize_with = "hidden", deserialize_with = "secret")]
    #[schemars(with = "String")]
    pub(super) secret: Secret<String>,
    /// Longest time one attempt may take; up to 1h. Default 10s.
    pub(super) timeout: Span,
    /// How long an event is tried before it is dead; 1s to 366d. Default 72h.
    pub(super) retry_for: Span,
    /// Attempts at once; 1 to 1000. Default 16.
    #[schemars(range(min = 1, max = 1_000))]
    pub(super) in_flight: u32,
}

/// What a merchant may ask for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["per_second"]))]
pub(super) struct RawRateLimit {
    /// Requests a second in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) per_second: u32,
    /// Requests at once. Default: the same number as per_second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) burst: Option<u32>,
    /// Requests that may be under way upstream at once. Default 64.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) in_flight: u32,
    /// Tighter rates of single operations. Default: none.
    pub(super) operations: RawOperations,
}

/// Tighter rates of single operations.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawOperations {
    /// SNAP create-va.
    #[serde(rename = "snap.create", skip_serializing_if = "Option::is_none")]
    pub(super) snap_create: Option<RawRate>,
    /// SNAP update-va.
    #[serde(rename = "snap.update", skip_serializing_if = "Option::is_none")]
    pub(super) snap_update: Option<RawRate>,
    /// SNAP inquiry-va.
    #[serde(rename = "snap.inquiry", skip_serializing_if = "Option::is_none")]
    pub(super) snap_inquiry: Option<RawRate>,
    /// Classic create.
    #[serde(rename = "classic.create", skip_serializing_if = "Option::is_none")]
    pub(super) classic_create: Option<RawRate>,
    /// Classic update.
    #[serde(rename = "classic.update", skip_serializing_if = "Option::is_none")]
    pub(super) classic_update: Option<RawRate>,
    /// Classic get.
    #[serde(rename = "classic.get", skip_serializing_if = "Option::is_none")]
    pub(super) classic_get: Option<RawRate>,
}

/// A rate and its burst.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["per_second"]))]
pub(super) struct RawRate {
    /// Requests a second in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) per_second: u32,
    /// Requests at once. Default: the same number as per_second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) burst: Option<u32>,
}

/// How repeated requests are recognised.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawIdempotency {
    /// What happens to a create or update without a key. Default require.
    pub(super) key: RawMissingKey,
    /// How long an answer is kept under its id; up to 366d. Default 48h.
    pub(super) retention: Span,
    /// How long a create is known by its trxId; up to 366d. Default 35d.
    pub(super) trx_id_retention: Span,
    /// How long a repetition waits for the first one; up to 1h, 0s answers at once. Default 10s.
    pub(super) wait: Span,
    /// Memory for answers; 1MiB to 64GiB. Default 64MiB.
    pub(super) memory: Size,
    /// What a known trxId under a new X-EXTERNAL-ID means. Default replay.
    pub(super) same_trx_id: RawSameTrxId,
}

/// What happens to a create or update without a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawMissingKey {
    /// Refused.
    Require,
    /// A fresh one is made; the app forgoes deduplication.
    Generate,
}

/// What a known trxId under a new X-EXTERNAL-ID means.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawSameTrxId {
    /// The same create: its answer comes back.
    Replay,
    /// A new create.
    Forward,
}

/// How records of virtual accounts are used.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawReference {
    /// When the app's reference contradicts the record. Default recorded_first.
    pub(super) on_mismatch: RawOnMismatch,
    /// When there is no record. Default inquiry.
    pub(super) on_miss: RawOnMiss,
    /// Memory for records; 1MiB to 64GiB. Default 32MiB.
    pub(super) memory: Size,
}

/// When the app's reference contradicts the record.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOnMismatch {
    /// Ours is sent; the app's once if Ayoconnect does not know ours.
    RecordedFirst,
    /// The app's is sent.
    CallerFirst,
    /// Refused.
    Reject,
}

/// When there is no record.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOnMiss {
    /// Ayoconnect is asked once.
    Inquiry,
    /// Refused.
    Reject,
}

/// How often a request is tried.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRetry {
    /// Attempts in all, the first included; 1 to 10. Default 3.
    #[schemars(range(min = 1, max = 10))]
    pub(super) attempts: u32,
    /// First pause, doubled each time; up to 1h. Default 100ms.
    pub(super) base_delay: Span,
    /// Longest pause, at least base_delay; up to 1h. Default 2s.
    pub(super) max_delay: Span,
    /// Repeats per hundred requests; 0 to 100. Default 20.
    #[schemars(range(min = 0, max = 100))]
    pub(super) budget_percent: u32,
}

/// When Ayoconnect counts as down.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBreaker {
    /// Failures within the window that stop further calls; 1 to 10000. Default 10.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) failures: u32,
    /// The window; up to 1h. Default 10s.
    pub(super) window: Span,
    /// How long calls are stopped before one is tried; up to 1h. Default 5s.
    pub(super) open_for: Span,
}

/// Where records live.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStore {
    /// Kind of store. Default sqlite.
    pub(super) kind: RawStoreKind,
    /// The file of kind sqlite; a relative path counts from this file's folder. Default ./data/ayova.db.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(super) path: Option<String>,
}

/// Kind of store.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawStoreKind {
    /// One file on a local disk; survives the process.
    Sqlite,
    /// In this process; forgotten at its end.
    Memory,
}

/// How refusals look.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawErrors {
    /// HTTP status of a classic request that breaks a rule: 400, or 503 as Ayoconnect does it. Default 400.
    #[schemars(extend("enum" = [400, 503]))]
    pub(super) classic_validation_status: u16,
}

/// What is written to standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    /// Shape of a line. Default auto.
    pub(super) format: RawLogFormat,
    /// Least severe line that is written. Default info.
    pub(super) level: RawLevel,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Least severe log line that is written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLevel {
    /// What cannot go on.
    Error,
    /// And what should be looked at.
    Warn,
    /// And one line a request.
    Info,
    /// And decisions on the way.
    Debug,
    /// And everything else.
    Trace,
}

/// How the process ends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawShutdown {
    /// Longest time requests under way may take after SIGTERM; up to 1h. Default 30s.
    pub(super) grace: Span,
}

/// Writes a secret as three stars.
pub(super) fn hidden<S: Serializer>(_: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("***")
}

/// Writes a secret that may be absent as three stars.
#[expect(clippy::ref_option, reason = "serde's `with` hands over a reference to the field's type")]
pub(super) fn hidden_option<S: Serializer>(value: &Option<Secret<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(|_| "***").serialize(serializer)
}

/// Writes each secret of a list as three stars.
pub(super) fn hidden_list<S: Serializer>(list: &[Secret<String>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|_| "***"))
}

/// Reads a list of secrets.
pub(super) fn secret_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret<String>>, D::Error> {
    Vec::<String>::deserialize(deserializer).map(|list| list.into_iter().map(Secret::new).collect())
}

/// Reads a secret.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Reads a secret that may be absent.
pub(super) fn secret_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret<String>>, D::Error> {
    secret(deserializer).map(Some)
}

const fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}

const MIB: u64 = 1024 * 1024;

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            version: 1,
            listen: RawListen::default(),
            admin: RawAdmin::default(),
            upstream: RawUpstream::default(),
            merchants: Vec::new(),
            idempotency: RawIdempotency::default(),
            reference: RawReference::default(),
            retry: RawRetry::default(),
            breaker: RawBreaker::default(),
            store: RawStore::default(),
            errors: RawErrors::default(),
            log: RawLog::default(),
            shutdown: RawShutdown::default(),
            callbacks: None,
        }
    }
}

impl Default for RawListen {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8080".to_owned(),
            tls: None,
            auth: RawAuth::None,
            max_body: Size(64 * 1024),
            body_timeout: seconds(5),
            header_timeout: seconds(5),
        }
    }
}

impl Default for RawCallbacks {
    fn default() -> Self {
        Self {
            listen: RawCallbackListen::default(),
            secret: Secret::new(String::new()),
            previous_secrets: Vec::new(),
            allow: Vec::new(),
            trusted_proxies: Vec::new(),
            verify: RawVerify::None,
            public_key: None,
            confirm: RawConfirm::Unsigned,
            deliver: None,
            sweep: None,
        }
    }
}

impl Default for RawSweep {
    fn default() -> Self {
        Self { every: seconds(600), before_expiry: seconds(120), after_expiry: seconds(300) }
    }
}

impl Default for RawCallbackListen {
    fn default() -> Self {
        Self { address: "0.0.0.0:8443".to_owned(), tls: None }
    }
}

impl Default for RawDeliver {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: Secret::new(String::new()),
            timeout: seconds(10),
            retry_for: seconds(72 * 3_600),
            in_flight: 16,
        }
    }
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { address: "127.0.0.1:9080".to_owned() }
    }
}

impl Default for RawUpstream {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            tls: None,
            connect_timeout: seconds(2),
            attempt_timeout: seconds(8),
            deadline: seconds(20),
            classic: RawClassic::default(),
            snap: RawSnap::default(),
        }
    }
}

impl Default for RawClassic {
    fn default() -> Self {
        Self {
            enabled: true,
            base_path: "/api/v1".to_owned(),
            token_path: "/v1/oauth/client_credential/accesstoken".to_owned(),
        }
    }
}

impl Default for RawSnap {
    fn default() -> Self {
        Self {
            enabled: true,
            base_path: "/va/api/v2.0".to_owned(),
            token_path: "/va/api/v2.0/access-token/b2b".to_owned(),
            update_method: UpdateMethod::Put,
            signature: RawSignature::default(),
        }
    }
}

impl Default for RawSignature {
    fn default() -> Self {
        Self { scheme: RawScheme::HmacSha512, encoding: RawEncoding::Hex }
    }
}

impl Default for RawMerchant {
    fn default() -> Self {
        Self {
            name: String::new(),
            merchant_code: String::new(),
            client_id: Secret::new(String::new()),
            client_secret: Secret::new(String::new()),
            private_key: None,
            channel_id: "95221".to_owned(),
            api_keys: Vec::new(),
            client_names: Vec::new(),
            rate_limit: None,
            callbacks: None,
        }
    }
}

impl Default for RawRateLimit {
    fn default() -> Self {
        Self { per_second: 0, burst: None, in_flight: 64, operations: RawOperations::default() }
    }
}

impl Default for RawIdempotency {
    fn default() -> Self {
        Self {
            key: RawMissingKey::Require,
            retention: seconds(48 * 3_600),
            trx_id_retention: seconds(35 * 86_400),
            wait: seconds(10),
            memory: Size(64 * MIB),
            same_trx_id: RawSameTrxId::Replay,
        }
    }
}

impl Default for RawReference {
    fn default() -> Self {
        Self { on_mismatch: RawOnMismatch::RecordedFirst, on_miss: RawOnMiss::Inquiry, memory: Size(32 * MIB) }
    }
}

impl Default for RawRetry {
    fn default() -> Self {
        Self { attempts: 3, base_delay: Span(Duration::from_millis(100)), max_delay: seconds(2), budget_percent: 20 }
    }
}

impl Default for RawBreaker {
    fn default() -> Self {
        Self { failures: 10, window: seconds(10), open_for: seconds(5) }
    }
}

impl Default for RawStore {
    fn default() -> Self {
        Self { kind: RawStoreKind::Sqlite, path: None }
    }
}

impl Default for RawErrors {
    fn default() -> Self {
        Self { classic_validation_status: 400 }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: RawLogFormat::Auto, level: RawLevel::Info }
    }
}

impl Default for RawShutdown {
    fn default() -> Self {
        Self { grace: seconds(30) }
    }
}
