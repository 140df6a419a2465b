//! From the file's mirror to [`Config`], collecting everything that makes no sense.
//!
//! Promises that nobody downstream asks again: addresses parse and are loopback where they must be,
//! durations are neither zero nor absurd (adding one to a clock cannot overflow), names are unique,
//! keys can sign. Shape and words have been judged by `conform`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::findings::Findings;
use super::problem::Problem;
use super::quantity::{Size, Span};
use super::raw::{
    RawAdmin, RawAuth, RawConfig, RawEncoding, RawErrors, RawIdempotency, RawLevel, RawListen, RawLog, RawLogFormat,
    RawMerchant, RawMissingKey, RawOnMismatch, RawOnMiss, RawRate, RawRateLimit, RawReference, RawSameTrxId, RawScheme,
    RawSignature, RawStore, RawStoreKind, RawUpstream,
};
use super::sandbox::UpdateMethod;
use super::{
    Admin, Auth, Breaker, ClassicUpstream, Config, Errors, Idempotency, Listen, Log, LogFormat, MerchantConfig,
    MissingKey, OnMismatch, OnMiss, Rate, RateLimit, Reference, Retry, SameTrxId, Secret, Shutdown, SignatureConfig,
    SnapUpstream, Store, Upstream,
};
use super::{check_callbacks, check_callers, check_tls};
use crate::dialect::OperationId;
use crate::server::Address;
use crate::signature::{Encoding, PrivateKey, Scheme};

/// Judges a whole file.
pub(super) fn check(raw: &RawConfig, mut found: Findings) -> Result<Config, Vec<Problem>> {
    let listen = check_listen(&raw.listen, &mut found);
    let admin = check_admin(&raw.admin, listen.as_ref(), &mut found);
    let upstream = check_upstream(&raw.upstream, &mut found);
    let verifies_clients = raw.listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    check_callers::check(raw, verifies_clients, &mut found);
    let merchants = check_merchants(&raw.merchants, raw.upstream.snap.enabled, &mut found);
    let idempotency = check_idempotency(&raw.idempotency, &mut found);
    let reference = check_reference(&raw.reference, &mut found);
    let retry = Retry {
        attempts: raw.retry.attempts,
        base_delay: within("retry.base_delay", raw.retry.base_delay, PAUSE, &mut found),
        max_delay: within("retry.max_delay", raw.retry.max_delay, PAUSE, &mut found),
        budget_percent: raw.retry.budget_percent,
    };
    if retry.base_delay > retry.max_delay {
        found.report("retry.base_delay", "longer than retry.max_delay", "the pause doubles up to retry.max_delay");
    }
    let breaker = Breaker {
        failures: raw.breaker.failures,
        window: within("breaker.window", raw.breaker.window, PAUSE, &mut found),
        open_for: within("breaker.open_for", raw.breaker.open_for, PAUSE, &mut found),
    };
    let shutdown = Shutdown { grace: within("shutdown.grace", raw.shutdown.grace, WAIT, &mut found) };
    let store = check_store(&raw.store, &mut found);
    let taken = [
        ("listen.address", listen.as_ref().and_then(|listen| listen.address.tcp())),
        ("admin.address", admin.as_ref().map(|admin| admin.address)),
    ];
    let taken: Vec<_> = taken.into_iter().filter_map(|(path, address)| Some((path, address?))).collect();
    let callbacks = check_callbacks::check(raw, &taken, &mut found);
    let config = assemble(listen, admin, upstream, |listen, admin, upstream| Config {
        listen,
        admin,
        upstream,
        merchants,
        idempotency,
        reference,
        retry,
        breaker,
        store,
        errors: check_errors(&raw.errors),
        log: check_log(&raw.log),
        shutdown,
        callbacks,
    });
    match config {
        Some(config) if found.problems.is_empty() => Ok(config),
        _ => Err(found.problems),
    }
}

/// Puts the sections together that may be missing because they were refused.
fn assemble<T>(
    listen: Option<Listen>,
    admin: Option<Admin>,
    upstream: Option<Upstream>,
    build: impl FnOnce(Listen, Admin, Upstream) -> T,
) -> Option<T> {
    Some(build(listen?, admin?, upstream?))
}

fn check_listen(raw: &RawListen, found: &mut Findings) -> Option<Listen> {
    let address = listen_address("listen.address", &raw.address, found);
    let tcp = address.as_ref().and_then(Address::tcp);
    let exposed = tcp.is_some_and(|address| !address.ip().to_canonical().is_loopback());
    let auth = match raw.auth {
        RawAuth::None => Auth::None,
        RawAuth::ApiKey => Auth::ApiKey,
        RawAuth::Mtls => Auth::Mtls,
    };
    // A refused `auth` is taken for `none` here, and has been complained about.
    if exposed && auth == Auth::None && !found.has_refused("listen.auth") {
        found.report(
            "listen.address",
            "not a loopback address, which `listen.auth: none` needs",
            "listen on 127.0.0.1 or [::1], or set listen.auth: api_key: whoever reaches this port acts as the merchant",
        );
    }
    let tls = check_tls::server("listen.tls", raw.tls.as_ref(), found);
    let max_body = size_within("listen.max_body", raw.max_body, BODY, found);
    let body_timeout = within("listen.body_timeout", raw.body_timeout, PAUSE, found);
    let header_timeout = within("listen.header_timeout", raw.header_timeout, PAUSE, found);
    Some(Listen {
        address: address?,
        auth,
        tls,
        max_body_bytes: max_body.try_into().unwrap_or(usize::MAX),
        body_timeout,
        header_timeout,
    })
}

/// An IP address with a port, or `unix:` and a path.
fn listen_address(path: &str, text: &str, found: &mut Findings) -> Option<Address> {
    let Some(file) = text.strip_prefix("unix:") else { return socket_address(path, text, found).map(Address::Tcp) };
    let file_path = found.beside(file);
    if file.is_empty() || file_path.file_name().is_none() {
        found.report(path, "names no file", "a socket that ayova makes, such as unix:/run/ayova.sock");
        return None;
    }
    if file_path.as_os_str().len() > SOCKET_PATH_MAX {
        let message = format!("{} bytes are too long for the path of a socket", file_path.as_os_str().len());
        found.report(
            path,
            message,
            format!("at most {SOCKET_PATH_MAX}, counted from the root, such as unix:/run/ayova.sock"),
        );
        return None;
    }
    Some(Address::Unix(file_path))
}

fn check_admin(raw: &RawAdmin, listen: Option<&Listen>, found: &mut Findings) -> Option<Admin> {
    let address = socket_address("admin.address", &raw.address, found)?;
    if listen.and_then(|listen| listen.address.tcp()).is_some_and(|listen| collide(listen, address)) {
        found.report(
            "admin.address",
            "the same address as listen.address",
            "take another port, such as 127.0.0.1:9080; apps must not reach the admin listener",
        );
    }
    Some(Admin { address })
}

/// Whether two listeners could not both be opened. Port 0 is a free one each time.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

/// An IP address with a port.
pub(super) fn socket_address(path: &str, text: &str, found: &mut Findings) -> Option<SocketAddr> {
    if text.starts_with("unix:") {
        found.report(
            path,
            "only listen.address may be a unix socket",
            "an IP address and a port, such as 127.0.0.1:9080",
        );
        return None;
    }
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let message = format!("{} is not an IP address with a port", found.shown(path, text));
        let hint = match text.strip_prefix("localhost") {
            Some(port) if found.shown(path, text).contains(text) => format!("write 127.0.0.1{port}"),
            _ => "such as 127.0.0.1:8080 or [::1]:8080; host names are not looked up".to_owned(),
        };
        found.report(path, message, hint);
    }
    parsed
}

fn check_upstream(raw: &RawUpstream, found: &mut Findings) -> Option<Upstream> {
    let base_url = origin("upstream.base_url", &raw.base_url, found);
    let (classic, snap) = (&raw.classic, &raw.snap);
    api_path("upstream.classic.base_path", &classic.base_path, found);
    api_path("upstream.classic.token_path", &classic.token_path, found);
    api_path("upstream.snap.base_path", &snap.base_path, found);
    api_path("upstream.snap.token_path", &snap.token_path, found);
    if !classic.enabled && !snap.enabled {
        found.report(
            "upstream.snap.enabled",
            "both generations are off, so there is nothing to serve",
            "set upstream.snap.enabled or upstream.classic.enabled to true",
        );
    }
    if classic.enabled && snap.enabled && classic.token_path == snap.token_path {
        found.report(
            "upstream.snap.token_path",
            "the same path as upstream.classic.token_path",
            "the two logins differ, so each needs its own path",
        );
    }
    let attempt_timeout = within("upstream.attempt_timeout", raw.attempt_timeout, PAUSE, found);
    let deadline = within("upstream.deadline", raw.deadline, PAUSE, found);
    if attempt_timeout > deadline {
        found.report(
            "upstream.attempt_timeout",
            format!("longer than upstream.deadline ({})", raw.deadline),
            "one attempt is part of what the deadline covers",
        );
    }
    // An address that was refused may yet be one.
    let is_https = base_url.as_ref().is_none_or(|url| url.scheme() == Some(&http::uri::Scheme::HTTPS));
    let tls = check_tls::client(raw.tls.as_ref(), is_https, found);
    Some(Upstream {
        base_url: base_url?,
        tls,
        connect_timeout: within("upstream.connect_timeout", raw.connect_timeout, PAUSE, found),
        attempt_timeout,
        deadline,
        classic: ClassicUpstream {
            enabled: classic.enabled,
            base_path: classic.base_path.clone(),
            token_path: classic.token_path.clone(),
        },
        snap: SnapUpstream {
            enabled: snap.enabled,
            base_path: snap.base_path.clone(),
            token_path: snap.token_path.clone(),
            update_method: match snap.update_method {
                UpdateMethod::Put => http::Method::PUT,
                UpdateMethod::Post => http::Method::POST,
            },
            signature: signature(&snap.signature),
        },
    })
}

/// The signing choice in the program's own words.
pub(super) const fn signature(raw: &RawSignature) -> SignatureConfig {
    let scheme = match raw.scheme {
        RawScheme::HmacSha512 => Scheme::HmacSha512,
        RawScheme::RsaClientTimestamp => Scheme::RsaClientTimestamp,
        RawScheme::RsaTransactional => Scheme::RsaTransactional,
    };
    SignatureConfig { scheme, encoding: encoding(raw.encoding) }
}

/// The encoding in the program's own words.
pub(super) const fn encoding(raw: RawEncoding) -> Encoding {
    match raw {
        RawEncoding::Hex => Encoding::Hex,
        RawEncoding::Base64 => Encoding::Base64,
    }
}

/// An `http` or `https` address without path, query or user.
pub(super) fn origin(path: &str, text: &str, found: &mut Findings) -> Option<http::Uri> {
    let uri: Option<http::Uri> = text.parse().ok();
    let shape = uri.as_ref().and_then(|uri| {
        let authority = uri.authority()?;
        // A URI of ours drops the fragment when it is read, so the text is asked.
        let bare = uri.path() == "/" && uri.query().is_none() && !text.contains('#');
        let (host, port) = (authority.host(), authority.port_u16());
        // A port that is no port is still part of the authority's text.
        let host = !host.is_empty() && authority.as_str().len() == host.len() + port.map_or(0, port_len);
        (bare && host).then(|| uri.scheme_str()).flatten()
    });
    if matches!(shape, Some("http" | "https")) {
        return uri;
    }
    // The text is not repeated: an address with a user may hold a password.
    found.report(
        path,
        "expected http:// or https:// with a host and nothing behind it",
        "such as https://sandbox.api.of.ayoconnect.id; paths belong to base_path and token_path",
    );
    None
}

/// Length of `:port` as written without leading zeros.
fn port_len(port: u16) -> usize {
    port.to_string().len() + 1
}

/// A path that starts with a slash, does not end with one and needs no escaping.
pub(super) fn api_path(path: &str, text: &str, found: &mut Findings) {
    let segment = |segment: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
    };
    if text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)) {
        return;
    }
    let message = format!("{} is not a path", found.shown(path, text));
    found.report(path, message, "starts with `/`, does not end with it; letters, digits and -._~ between slashes");
}

fn check_merchants(raw: &[RawMerchant], snap: bool, found: &mut Findings) -> Vec<MerchantConfig> {
    unique(raw, "name", |merchant| &merchant.name, found);
    unique(raw, "merchant_code", |merchant| &merchant.merchant_code, found);
    let checked = raw.iter().enumerate().map(|(index, merchant)| {
        let at = |key: &str| format!("merchants[{index}].{key}");
        merchant_name(&at("name"), &merchant.name, found);
        merchant_code(&at("merchant_code"), &merchant.merchant_code, found);
        credential(&at("client_id"), merchant.client_id.expose(), found);
        credential(&at("client_secret"), merchant.client_secret.expose(), found);
        if merchant.channel_id.len() != 5 || !merchant.channel_id.bytes().all(|byte| byte.is_ascii_digit()) {
            let path = at("channel_id");
            let message = format!("{} is not five digits", found.shown(&path, &merchant.channel_id));
            found.report(&path, message, "such as \"95221\"");
        }
        let private_key = private_key(&at("private_key"), merchant.private_key.as_ref(), found);
        if snap && merchant.private_key.is_none() {
            let hint = "${file:/path/to/key.pem}, or upstream.snap.enabled: false";
            found.report(&at("private_key"), "missing, and SNAP is enabled", hint);
        }
        MerchantConfig {
            name: Arc::from(merchant.name.as_str()),
            merchant_code: Arc::from(merchant.merchant_code.as_str()),
            client_id: merchant.client_id.clone(),
            client_secret: merchant.client_secret.clone(),
            private_key,
            channel_id: Arc::from(merchant.channel_id.as_str()),
            api_keys: check_callers::digests(&merchant.api_keys),
            client_names: merchant.client_names.clone(),
            rate_limit: merchant.rate_limit.as_ref().map(rate_limit),
            deliver: merchant
                .callbacks
                .as_ref()
                .and_then(|callbacks| check_callbacks::deliver_to(&at("callbacks.deliver"), &callbacks.deliver, found)),
        }
    });
    checked.collect()
}

/// Says of each merchant whose value an earlier one has that it does.
pub(super) fn unique<T>(merchants: &[T], key: &str, value: impl Fn(&T) -> &String, found: &mut Findings) {
    let mut first = BTreeMap::new();
    for (index, merchant) in merchants.iter().enumerate() {
        let earlier = *first.entry(value(merchant)).or_insert(index);
        if earlier < index {
            let path = format!("merchants[{index}].{key}");
            let message = format!("the same as merchants[{earlier}].{key}");
            found.report(&path, message, format!("each merchant needs its own {key}"));
        }
    }
}

/// A name that is safe as a metric's label and cannot be taken for "no merchant".
pub(super) fn merchant_name(path: &str, text: &str, found: &mut Findings) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-".contains(&byte);
    if text == "none" {
        found.report(path, "`none` stands for no merchant in metrics", "take another name");
    } else if text.trim().is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        let message = format!("{} is not a name", found.shown(path, text));
        found.report(path, message, "1 to 64 letters, digits, blanks, `.`, `_` or `-`");
    }
}

/// Six letters or digits.
pub(super) fn merchant_code(path: &str, text: &str, found: &mut Findings) {
    if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let message = format!("{} is not six letters or digits", found.shown(path, text));
        found.report(path, message, "as given by Ayoconnect, such as AYOTST");
    }
}

/// Something that can go into a header; never shown.
pub(super) fn credential(path: &str, text: &str, found: &mut Findings) {
    if text.is_empty() {
        found.report(path, "empty", "as given by Ayoconnect");
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        found.report(path, "contains a blank, a line end or a letter outside ASCII", "as given by Ayoconnect");
    }
}

fn private_key(path: &str, pem: Option<&Secret<String>>, found: &mut Findings) -> Option<Arc<PrivateKey>> {
    match PrivateKey::from_pem(pem?.expose()) {
        Ok(key) => Some(Arc::new(key)),
        Err(error) => {
            found.report(path, error.to_string(), "usually ${file:/run/secrets/ayo.pem}");
            None
        }
    }
}

fn rate_limit(raw: &RawRateLimit) -> RateLimit {
    let operations = &raw.operations;
    let of = |id: OperationId| match id {
        OperationId::SnapCreate => operations.snap_create,
        OperationId::SnapUpdate => operations.snap_update,
        OperationId::SnapInquiry => operations.snap_inquiry,
        OperationId::ClassicCreate => operations.classic_create,
        OperationId::ClassicUpdate => operations.classic_update,
        OperationId::ClassicGet => operations.classic_get,
    };
    RateLimit {
        rate: rate(RawRate { per_second: raw.per_second, burst: raw.burst }),
        in_flight: usize::try_from(raw.in_flight).unwrap_or(usize::MAX),
        operations: OperationId::ALL.into_iter().filter_map(|id| of(id).map(|raw| (id, rate(raw)))).collect(),
    }
}

/// A rate; a zero has been refused by the schema's bounds.
fn rate(raw: RawRate) -> Rate {
    let positive = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Rate { per_second: positive(raw.per_second), burst: positive(raw.burst.unwrap_or(raw.per_second)) }
}

fn check_idempotency(raw: &RawIdempotency, found: &mut Findings) -> Idempotency {
    Idempotency {
        key: match raw.key {
            RawMissingKey::Require => MissingKey::Require,
            RawMissingKey::Generate => MissingKey::Generate,
        },
        retention: within("idempotency.retention", raw.retention, KEEPING, found),
        trx_id_retention: within("idempotency.trx_id_retention", raw.trx_id_retention, KEEPING, found),
        wait: within("idempotency.wait", raw.wait, WAIT, found),
        memory_bytes: size_within("idempotency.memory", raw.memory, MEMORY, found),
        same_trx_id: match raw.same_trx_id {
            RawSameTrxId::Replay => SameTrxId::Replay,
            RawSameTrxId::Forward => SameTrxId::Forward,
        },
    }
}

fn check_reference(raw: &RawReference, found: &mut Findings) -> Reference {
    Reference {
        on_mismatch: match raw.on_mismatch {
            RawOnMismatch::RecordedFirst => OnMismatch::RecordedFirst,
            RawOnMismatch::CallerFirst => OnMismatch::CallerFirst,
            RawOnMismatch::Reject => OnMismatch::Reject,
        },
        on_miss: match raw.on_miss {
            RawOnMiss::Inquiry => OnMiss::Inquiry,
            RawOnMiss::Reject => OnMiss::Reject,
        },
        memory_bytes: size_within("reference.memory", raw.memory, MEMORY, found),
    }
}

fn check_store(raw: &RawStore, found: &mut Findings) -> Store {
    match (raw.kind, raw.path.as_deref()) {
        (RawStoreKind::Sqlite, path) => {
            let path = PathBuf::from(path.unwrap_or(STORE_PATH));
            if path.file_name().is_none() {
                found.report("store.path", "names no file", "a file that ayova makes, such as ./data/ayova.db");
            }
            Store::Sqlite(path)
        }
        (RawStoreKind::Memory, None) => Store::Memory,
        (RawStoreKind::Memory, Some(_)) => {
            found.report("store.path", "goes with kind sqlite", "leave it out: kind memory has no file");
            Store::Memory
        }
    }
}

/// Where records live unless the file says otherwise.
const STORE_PATH: &str = "./data/ayova.db";

const fn check_errors(raw: &RawErrors) -> Errors {
    // The schema allows these two and no other.
    let classic_validation_status = match raw.classic_validation_status {
        503 => http::StatusCode::SERVICE_UNAVAILABLE,
        _ => http::StatusCode::BAD_REQUEST,
    };
    Errors { classic_validation_status }
}

const fn check_log(raw: &RawLog) -> Log {
    Log {
        format: match raw.format {
            RawLogFormat::Auto => LogFormat::Auto,
            RawLogFormat::Json => LogFormat::Json,
            RawLogFormat::Pretty => LogFormat::Pretty,
        },
        level: match raw.level {
            RawLevel::Error => tracing::Level::ERROR,
            RawLevel::Warn => tracing::Level::WARN,
            RawLevel::Info => tracing::Level::INFO,
            RawLevel::Debug => tracing::Level::DEBUG,
            RawLevel::Trace => tracing::Level::TRACE,
        },
    }
}

/// The duration, after saying so if it is out of bounds.
pub(super) fn within(path: &str, Span(value): Span, bounds: (Duration, Duration), found: &mut Findings) -> Duration {
    let (least, most) = bounds;
    if value < least || value > most {
        let message = if value.is_zero() { "zero".to_owned() } else { format!("{} is out of bounds", Span(value)) };
        found.report(path, message, format!("{} to {}", Span(least), Span(most)));
    }
    value
}

fn size_within(path: &str, Size(value): Size, bounds: (u64, u64), found: &mut Findings) -> u64 {
    let (least, most) = bounds;
    if value < least || value > most {
        let message = format!("{} is out of bounds", Size(value));
        found.report(path, message, format!("{} to {}", Size(least), Size(most)));
    }
    value
}

/// Bytes of a socket's path: what Linux and macOS both take, less their final zero.
const SOCKET_PATH_MAX: usize = 103;
/// Bounds of a timeout or pause: longer than an hour is a unit mistaken for another.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(3_600));
/// Bounds of a wait that may be none.
const WAIT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3_600));
/// Bounds of how long something is kept.
pub(super) const KEEPING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(366 * 86_400));
/// Bounds of a request body in bytes.
const BODY: (u64, u64) = (1, 16 << 20);
/// Bounds of a memory budget in bytes.
const MEMORY: (u64, u64) = (1 << 20, 64 << 30);
