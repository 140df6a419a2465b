//! The configuration in the program's own types: everything checked, everything present.
//!
//! Promises that whoever holds a [`Config`] never asks again whether a value makes sense, and that no
//! `Option` means "default". A file goes `tree` (YAML with positions), `interpolate` (`${…}`),
//! `conform` (held against the schema of `raw`), `check` (what makes no sense), each collecting every
//! problem; `effective` goes the way back. No other module reads configuration.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod check;
mod check_callbacks;
mod check_callers;
mod check_tls;
mod conform;
mod effective;
mod findings;
mod interpolate;
mod later;
mod print;
mod problem;
mod quantity;
mod raw;
mod read;
pub mod sandbox;
mod sandbox_file;
mod schema;
pub mod secret;
#[cfg(test)]
mod tests;
mod tree;

pub use effective::{effective, effective_yaml};
pub use print::Print;
pub use problem::{Place, Problem, Problems};
pub use sandbox::SandboxConfig;
pub use secret::Secret;

use findings::Findings;
use interpolate::Sources;
use raw::{RawCallbackListen, RawCallbacks, RawConfig, RawDeliver, RawMerchant, RawStore, RawStoreKind, RawSweep};
use read::Kind;

use crate::server::Address;
use crate::tls::{ClientFiles, ServerFiles};

/// One valid configuration (contract section 3).
#[derive(Clone, Debug)]
pub struct Config {
    /// The app's listener.
    pub listen: Listen,
    /// The operator's listener.
    pub admin: Admin,
    /// Ayoconnect.
    pub upstream: Upstream,
    /// At least one; names and codes are unique.
    pub merchants: Vec<MerchantConfig>,
    /// How repeated requests are recognised.
    pub idempotency: Idempotency,
    /// How records of virtual accounts are used.
    pub reference: Reference,
    /// How often a request is tried.
    pub retry: Retry,
    /// When an upstream counts as down.
    pub breaker: Breaker,
    /// Where records live.
    pub store: Store,
    /// How refusals look.
    pub errors: Errors,
    /// What is written to standard error.
    pub log: Log,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// Payment callbacks; absent: off.
    pub callbacks: Option<Callbacks>,
}

/// Reads the gateway's configuration file. `env` gives an environment variable's value.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let text = read::text(path, KIND)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut config = from_yaml(&text, &Sources { env, folder })
        .map_err(|list| Problems::new(path.display().to_string(), KIND.example, list))?;
    if let Store::Sqlite(file) = &mut config.store {
        let beside = folder.join(&file);
        // Without a current folder a relative path is as good as it gets.
        *file = std::path::absolute(&beside).unwrap_or(beside);
    }
    Ok(config)
}

/// The JSON Schema (2020-12) of the gateway's configuration file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schema::of::<RawConfig>()
}

impl Config {
    /// The configuration of `ayova dev`: defaults and the sandbox's sample merchant, no file, records
    /// in memory.
    ///
    /// # Errors
    /// As for a file: an address that is not loopback, or two listeners on one address.
    pub fn sample(listen: SocketAddr, admin: SocketAddr, sandbox: SocketAddr) -> Result<Self, Problems> {
        Self::sample_with(listen, admin, sandbox, None)
    }

    /// The same with payment callbacks.
    ///
    /// # Errors
    /// As for a file, also for the secrets.
    pub fn sample_calling_back(
        listen: SocketAddr,
        admin: SocketAddr,
        sandbox: SocketAddr,
        callbacks: &SampleCallbacks,
    ) -> Result<Self, Problems> {
        Self::sample_with(listen, admin, sandbox, Some(callbacks))
    }

    fn sample_with(
        listen: SocketAddr,
        admin: SocketAddr,
        sandbox: SocketAddr,
        callbacks: Option<&SampleCallbacks>,
    ) -> Result<Self, Problems> {
        let mut raw = RawConfig { callbacks: callbacks.map(SampleCallbacks::raw), ..RawConfig::default() };
        raw.listen.address = listen.to_string();
        raw.admin.address = admin.to_string();
        raw.upstream.base_url = format!("http://{sandbox}");
        raw.store = RawStore { kind: RawStoreKind::Memory, path: None };
        raw.merchants.push(RawMerchant {
            name: "sample".to_owned(),
            merchant_code: sandbox::SAMPLE_MERCHANT_CODE.to_owned(),
            client_id: Secret::new(sandbox::SAMPLE_CLIENT_ID.to_owned()),
            client_secret: Secret::new(sandbox::SAMPLE_CLIENT_SECRET.to_owned()),
            private_key: Some(Secret::new(sandbox::SAMPLE_KEY_PEM.to_owned())),
            ..RawMerchant::default()
        });
        check::check(&raw, Findings::default()).map_err(|list| Problems::new("sample", KIND.example, list))
    }
}

/// Payment callbacks of `ayova dev`.
#[derive(Clone, Debug)]
pub struct SampleCallbacks {
    /// Where the sandbox connects.
    pub listen: SocketAddr,
    /// Part of the address the sandbox is given.
    pub secret: Secret<String>,
    /// Where events go.
    pub app: String,
    /// What they are signed with: `whsec_` and base64.
    pub app_secret: Secret<String>,
}

impl SampleCallbacks {
    fn raw(&self) -> RawCallbacks {
        let deliver = RawDeliver { url: self.app.clone(), secret: self.app_secret.clone(), ..RawDeliver::default() };
        RawCallbacks {
            listen: RawCallbackListen { address: self.listen.to_string(), tls: None },
            secret: self.secret.clone(),
            deliver: Some(deliver),
            sweep: Some(RawSweep::default()),
            ..RawCallbacks::default()
        }
    }
}

/// Reads a text.
fn from_yaml(text: &str, sources: &Sources<'_>) -> Result<Config, Vec<Problem>> {
    match read::raw::<RawConfig>(text, sources, KIND) {
        (Some(raw), found) => check::check(&raw, Findings { folder: sources.folder.to_owned(), ..found }),
        (None, found) => Err(found.problems),
    }
}

/// How the gateway's file is read.
const KIND: Kind = Kind { later: later::GATEWAY, example: "config/example.yaml" };

/// The app's listener.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where apps connect; loopback or a unix socket where they do not authenticate.
    pub address: Address,
    /// Absent: plain HTTP.
    pub tls: Option<ServerFiles>,
    /// How apps prove who they are.
    pub auth: Auth,
    /// Largest request body in bytes, inclusive.
    pub max_body_bytes: usize,
    /// Longest time a request body may take.
    pub body_timeout: Duration,
    /// Longest time a request head may take.
    pub header_timeout: Duration,
}

/// How apps prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// By a key in every request.
    ApiKey,
    /// By the certificate of their connection.
    Mtls,
}

/// The operator's listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where probes and scrapers connect.
    pub address: SocketAddr,
}

/// Ayoconnect as seen from here.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `http` or `https` origin; never with a path, query or user.
    pub base_url: http::Uri,
    /// Authorities and a client certificate of one's own; absent: the system's, and none.
    pub tls: Option<ClientFiles>,
    /// Longest time a TCP (and TLS) connection may take to open.
    pub connect_timeout: Duration,
    /// Longest time one try may take.
    pub attempt_timeout: Duration,
    /// Longest time a request may take in all: token, waiting, tries.
    pub deadline: Duration,
    /// The classic generation.
    pub classic: ClassicUpstream,
    /// The SNAP generation.
    pub snap: SnapUpstream,
}

/// Where the classic generation lives.
#[derive(Clone, Debug)]
pub struct ClassicUpstream {
    /// Whether its routes exist.
    pub enabled: bool,
    /// Prefix of the operations' paths, without a final slash.
    pub base_path: String,
    /// Whole path of the token call.
    pub token_path: String,
}

/// Where the SNAP generation lives.
#[derive(Clone, Debug)]
pub struct SnapUpstream {
    /// Whether its routes exist.
    pub enabled: bool,
    /// Prefix of the operations' paths, without a final slash.
    pub base_path: String,
    /// Whole path of the token call.
    pub token_path: String,
    /// `PUT` by the standard, `POST` at some providers.
    pub update_method: http::Method,
    /// How calls are signed.
    pub signature: SignatureConfig,
}

/// How SNAP calls are signed (`protocol/signature.md` sections 2 and 4).
#[derive(Clone, Copy, Debug)]
pub struct SignatureConfig {
    /// Which string, which key.
    pub scheme: crate::signature::Scheme,
    /// How the bytes become text.
    pub encoding: crate::signature::Encoding,
}

/// One merchant and its credentials.
#[derive(Clone, Debug)]
pub struct MerchantConfig {
    /// Name in logs and metrics.
    pub name: Arc<str>,
    /// Six alphanumerics: `X-PARTNER-ID` and `A-Merchant-Code`.
    pub merchant_code: Arc<str>,
    /// Given by Ayoconnect.
    pub client_id: Secret<String>,
    /// Given by Ayoconnect.
    pub client_secret: Secret<String>,
    /// Signs the SNAP token call; present wherever SNAP is enabled.
    pub private_key: Option<Arc<crate::signature::PrivateKey>>,
    /// `CHANNEL-ID`, five digits.
    pub channel_id: Arc<str>,
    /// Keys of its apps; nobody else has one of them. Not empty with [`Auth::ApiKey`].
    pub api_keys: Vec<crate::caller::KeyDigest>,
    /// Names in its apps' certificates; nobody else has one of them. Not empty with [`Auth::Mtls`].
    pub client_names: Vec<String>,
    /// Absent: no limit.
    pub rate_limit: Option<RateLimit>,
    /// Where its events go; absent: where everybody's do.
    pub deliver: Option<Deliver>,
}

/// Payment callbacks.
#[derive(Clone, Debug)]
pub struct Callbacks {
    /// Where Ayoconnect connects.
    pub listen: SocketAddr,
    /// Absent: plain HTTP, for a proxy that ends TLS.
    pub tls: Option<ServerFiles>,
    /// Part of the address Ayoconnect is given.
    pub secret: Secret<String>,
    /// Parts of the addresses it was given before, which still count.
    pub previous_secrets: Vec<Secret<String>>,
    /// Where callbacks may come from.
    pub sources: crate::callback::source::Sources,
    /// How their own signatures are checked.
    pub verify: Verify,
    /// Where events go unless the merchant has an address of its own; present unless all have.
    pub deliver: Option<Deliver>,
    /// Which callbacks are confirmed by asking.
    pub confirm: Confirm,
    /// Looking for what is not announced; absent: off.
    pub sweep: Option<Sweep>,
}

/// Which callbacks upstream is asked about before their events go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// All.
    Always,
    /// Those without a signature that was checked.
    Unsigned,
    /// None.
    Never,
}

/// When accounts are looked at for payments that were not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Between looks at an account that may be paid.
    pub every: Duration,
    /// Before its end.
    pub before_expiry: Duration,
    /// After its end.
    pub after_expiry: Duration,
}

/// How a callback's own signature is checked.
#[derive(Clone, Debug)]
pub enum Verify {
    /// Not at all.
    None,
    /// HMAC-SHA512 with the merchant's client secret.
    HmacSha512,
    /// SHA256withRSA with this key.
    RsaTransactional(CallbackKey),
}

/// Ayoconnect's key for callbacks.
#[derive(Clone, Debug)]
pub struct CallbackKey {
    /// Ready for use.
    pub key: Arc<crate::signature::PublicKey>,
    /// As configured.
    pub pem: Arc<str>,
}

impl Callbacks {
    /// How long events are tried, by merchant.
    #[must_use]
    pub fn retry_for(&self, merchants: &[MerchantConfig]) -> Vec<(Arc<str>, Duration)> {
        let of = |merchant| self.deliver_to(merchant).map(|deliver| deliver.retry_for);
        merchants.iter().filter_map(|merchant| Some((Arc::clone(&merchant.name), of(merchant)?))).collect()
    }

    /// Where a merchant's events go. There for every merchant of a checked configuration.
    #[must_use]
    pub fn deliver_to<'a>(&'a self, merchant: &'a MerchantConfig) -> Option<&'a Deliver> {
        merchant.deliver.as_ref().or(self.deliver.as_ref())
    }
}

/// Where and how events go to an app.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// `http` or `https`, with a host.
    pub url: http::Uri,
    /// Signs deliveries.
    pub key: crate::callback::webhook::WebhookKey,
    /// Longest time one attempt may take.
    pub timeout: Duration,
    /// How long an event is tried.
    pub retry_for: Duration,
    /// Attempts at once.
    pub in_flight: usize,
}

/// A merchant's allowance.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// The merchant's own rate.
    pub rate: Rate,
    /// Requests that may be under way upstream at once.
    pub in_flight: usize,
    /// Tighter rates of single operations, by operation name.
    pub operations: Vec<(crate::dialect::OperationId, Rate)>,
}

/// A rate and its burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// How repeated requests are recognised.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// What happens to a create or update without a key.
    pub key: MissingKey,
    /// How long an answer is kept under its id.
    pub retention: Duration,
    /// How long a create is known by its transaction id.
    pub trx_id_retention: Duration,
    /// How long a follower waits for the one in flight.
    pub wait: Duration,
    /// Bound of the fast path in bytes.
    pub memory_bytes: u64,
    /// What a known transaction id under a new id means.
    pub same_trx_id: SameTrxId,
}

/// What happens to a create or update without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// Refused.
    Require,
    /// A fresh one is made; the caller forgoes deduplication by it.
    Generate,
}

/// What a known transaction id under a new id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameTrxId {
    /// The same create: its answer comes back.
    Replay,
    /// A new create.
    Forward,
}

/// How records of virtual accounts are used.
#[derive(Clone, Debug)]
pub struct Reference {
    /// When the caller's members contradict the record.
    pub on_mismatch: OnMismatch,
    /// When there is no record.
    pub on_miss: OnMiss,
    /// Bound of the fast path in bytes.
    pub memory_bytes: u64,
}

/// Which side is believed when caller and record differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMismatch {
    /// Ours; the caller's once if upstream does not know ours.
    RecordedFirst,
    /// The caller's.
    CallerFirst,
    /// Neither: refused.
    Reject,
}

/// What happens to an update without a record and without a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// Upstream is asked once.
    Inquiry,
    /// Refused.
    Reject,
}

/// How often a request is tried.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Tries in all, the first included.
    pub attempts: u32,
    /// First pause; doubles.
    pub base_delay: Duration,
    /// Longest pause.
    pub max_delay: Duration,
    /// Repeats allowed per hundred requests.
    pub budget_percent: u32,
}

/// When an upstream counts as down.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// Failures inside the window that open it.
    pub failures: u32,
    /// The window.
    pub window: Duration,
    /// How long it stays open before a probe.
    pub open_for: Duration,
}

/// Where records live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In this process; forgotten at its end.
    Memory,
    /// One file; absolute where the configuration came from a file.
    Sqlite(PathBuf),
}

/// How refusals look.
#[derive(Clone, Debug)]
pub struct Errors {
    /// HTTP status of a classic validation refusal: 400, or 503 as Ayoconnect does.
    pub classic_validation_status: http::StatusCode,
}

/// What is written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Shape of a line.
    pub format: LogFormat,
    /// Least severe line that is written.
    pub level: tracing::Level,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// How the process ends.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Longest time work in flight may take after a signal.
    pub grace: Duration,
}
