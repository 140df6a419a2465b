//! The configuration that holds, as the file would have to be written; secrets as three stars.
//!
//! Promises that every key is there with its value and that the result can be read again once the
//! secrets are put back. It is built as the file's own mirror, so a new key cannot be forgotten.

use std::path::Path;

use serde_json::Value;

use super::quantity::{Size, Span};
use super::raw::{
    RawAdmin, RawAuth, RawBreaker, RawCallbackListen, RawCallbacks, RawClassic, RawClientTls, RawConfig, RawConfirm,
    RawDeliver, RawEncoding, RawErrors, RawIdempotency, RawLevel, RawListen, RawLog, RawLogFormat, RawMerchant,
    RawMerchantCallbacks, RawMissingKey, RawOnMismatch, RawOnMiss, RawOperations, RawRate, RawRateLimit, RawReference,
    RawRetry, RawSameTrxId, RawScheme, RawServerTls, RawShutdown, RawSignature, RawSnap, RawStore, RawStoreKind,
    RawSweep, RawUpstream, RawVerify,
};
use super::sandbox::UpdateMethod;
use super::tree::{self, Key, Node};
use super::{
    Auth, Callbacks, Config, Confirm, Deliver, Errors, Idempotency, Log, LogFormat, MerchantConfig, MissingKey,
    OnMismatch, OnMiss, Rate, RateLimit, Reference, SameTrxId, Secret, SignatureConfig, Store, Upstream, Verify,
};
use crate::callback::source::Cidr;
use crate::dialect::OperationId;
use crate::signature::{Encoding, Scheme};
use crate::tls::{ClientFiles, ServerFiles};

/// The effective configuration as JSON, secrets as `"***"`.
#[must_use]
pub fn effective(config: &Config) -> Value {
    // Strings and numbers under string keys: there is nothing that could fail.
    serde_json::to_value(mirror(config)).unwrap_or_default()
}

/// The effective configuration as YAML in the file's order, secrets as `"***"`.
#[must_use]
pub fn effective_yaml(config: &Config) -> String {
    // JSON keeps the order of the mirror's fields and is YAML, so its own reader can be had again.
    let json = serde_json::to_string(&mirror(config)).unwrap_or_default();
    let mut yaml = String::new();
    if let (Some(Node { value: tree::Value::Map(entries), .. }), _) = tree::parse(&json) {
        write_map(&mut yaml, &entries, 0);
    }
    yaml
}

fn mirror(config: &Config) -> RawConfig {
    RawConfig {
        version: 1,
        listen: RawListen {
            address: config.listen.address.to_string(),
            tls: config.listen.tls.as_ref().map(server_tls),
            auth: match config.listen.auth {
                Auth::None => RawAuth::None,
                Auth::ApiKey => RawAuth::ApiKey,
                Auth::Mtls => RawAuth::Mtls,
            },
            max_body: Size(config.listen.max_body_bytes as u64),
            body_timeout: Span(config.listen.body_timeout),
            header_timeout: Span(config.listen.header_timeout),
        },
        admin: RawAdmin { address: config.admin.address.to_string() },
        upstream: upstream(&config.upstream),
        merchants: config.merchants.iter().map(merchant).collect(),
        idempotency: idempotency(&config.idempotency),
        reference: reference(&config.reference),
        retry: RawRetry {
            attempts: config.retry.attempts,
            base_delay: Span(config.retry.base_delay),
            max_delay: Span(config.retry.max_delay),
            budget_percent: config.retry.budget_percent,
        },
        breaker: RawBreaker {
            failures: config.breaker.failures,
            window: Span(config.breaker.window),
            open_for: Span(config.breaker.open_for),
        },
        store: match &config.store {
            Store::Memory => RawStore { kind: RawStoreKind::Memory, path: None },
            Store::Sqlite(path) => RawStore { kind: RawStoreKind::Sqlite, path: Some(shown(path)) },
        },
        errors: errors(&config.errors),
        log: log(config.log),
        shutdown: RawShutdown { grace: Span(config.shutdown.grace) },
        callbacks: config.callbacks.as_ref().map(callbacks),
    }
}

fn callbacks(callbacks: &Callbacks) -> RawCallbacks {
    let networks = |list: &[Cidr]| list.iter().map(Cidr::to_string).collect();
    RawCallbacks {
        listen: RawCallbackListen {
            address: callbacks.listen.to_string(),
            tls: callbacks.tls.as_ref().map(server_tls),
        },
        secret: Secret::new(String::new()),
        previous_secrets: callbacks.previous_secrets.iter().map(|_| Secret::new(String::new())).collect(),
        allow: networks(&callbacks.sources.allow),
        trusted_proxies: networks(&callbacks.sources.trusted),
        verify: match &callbacks.verify {
            Verify::None => RawVerify::None,
            Verify::HmacSha512 => RawVerify::HmacSha512,
            Verify::RsaTransactional(_) => RawVerify::RsaTransactional,
        },
        public_key: match &callbacks.verify {
            Verify::None | Verify::HmacSha512 => None,
            Verify::RsaTransactional(public) => Some(public.pem.to_string()),
        },
        confirm: match callbacks.confirm {
            Confirm::Always => RawConfirm::Always,
            Confirm::Unsigned => RawConfirm::Unsigned,
            Confirm::Never => RawConfirm::Never,
        },
        deliver: callbacks.deliver.as_ref().map(deliver),
        sweep: callbacks.sweep.map(|sweep| RawSweep {
            every: Span(sweep.every),
            before_expiry: Span(sweep.before_expiry),
            after_expiry: Span(sweep.after_expiry),
        }),
    }
}

fn deliver(deliver: &Deliver) -> RawDeliver {
    RawDeliver {
        url: deliver.url.to_string(),
        secret: Secret::new(String::new()),
        timeout: Span(deliver.timeout),
        retry_for: Span(deliver.retry_for),
        in_flight: u32::try_from(deliver.in_flight).unwrap_or(u32::MAX),
    }
}

fn server_tls(files: &ServerFiles) -> RawServerTls {
    RawServerTls { cert: shown(&files.cert), key: shown(&files.key), client_ca: files.client_ca.as_deref().map(shown) }
}

fn client_tls(files: &ClientFiles) -> RawClientTls {
    let identity = files.identity.as_ref();
    RawClientTls {
        ca: files.ca.as_deref().map(shown),
        client_cert: identity.map(|(cert, _)| shown(cert)),
        client_key: identity.map(|(_, key)| shown(key)),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn upstream(upstream: &Upstream) -> RawUpstream {
    let scheme = upstream.base_url.scheme_str().unwrap_or_default();
    let authority = upstream.base_url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    RawUpstream {
        base_url: format!("{scheme}://{authority}"),
        tls: upstream.tls.as_ref().map(client_tls),
        connect_timeout: Span(upstream.connect_timeout),
        attempt_timeout: Span(upstream.attempt_timeout),
        deadline: Span(upstream.deadline),
        classic: RawClassic {
            enabled: upstream.classic.enabled,
            base_path: upstream.classic.base_path.clone(),
            token_path: upstream.classic.token_path.clone(),
        },
        snap: RawSnap {
            enabled: upstream.snap.enabled,
            base_path: upstream.snap.base_path.clone(),
            token_path: upstream.snap.token_path.clone(),
            update_method: if upstream.snap.update_method == http::Method::POST {
                UpdateMethod::Post
            } else {
                UpdateMethod::Put
            },
            signature: signature(upstream.snap.signature),
        },
    }
}

pub(super) const fn signature(signature: SignatureConfig) -> RawSignature {
    let scheme = match signature.scheme {
        Scheme::HmacSha512 => RawScheme::HmacSha512,
        Scheme::RsaClientTimestamp => RawScheme::RsaClientTimestamp,
        Scheme::RsaTransactional => RawScheme::RsaTransactional,
    };
    RawSignature { scheme, encoding: encoding(signature.encoding) }
}

pub(super) const fn encoding(encoding: Encoding) -> RawEncoding {
    match encoding {
        Encoding::Hex => RawEncoding::Hex,
        Encoding::Base64 => RawEncoding::Base64,
    }
}

fn merchant(merchant: &MerchantConfig) -> RawMerchant {
    // Shown as stars whatever they hold, so the values need not come along.
    let stars = || Secret::new(String::new());
    RawMerchant {
        name: merchant.name.to_string(),
        merchant_code: merchant.merchant_code.to_string(),
        client_id: stars(),
        client_secret: stars(),
        private_key: merchant.private_key.as_ref().map(|_| stars()),
        channel_id: merchant.channel_id.to_string(),
        api_keys: merchant.api_keys.iter().map(|_| stars()).collect(),
        client_names: merchant.client_names.clone(),
        rate_limit: merchant.rate_limit.as_ref().map(rate_limit),
        callbacks: merchant.deliver.as_ref().map(|own| RawMerchantCallbacks { deliver: deliver(own) }),
    }
}

fn rate_limit(limit: &RateLimit) -> RawRateLimit {
    let of = |wanted: OperationId| {
        limit.operations.iter().find(|(id, _)| *id == wanted).map(|(_, operation)| rate(*operation))
    };
    let RawRate { per_second, burst } = rate(limit.rate);
    RawRateLimit {
        per_second,
        burst,
        in_flight: u32::try_from(limit.in_flight).unwrap_or(u32::MAX),
        operations: RawOperations {
            snap_create: of(OperationId::SnapCreate),
            snap_update: of(OperationId::SnapUpdate),
            snap_inquiry: of(OperationId::SnapInquiry),
            classic_create: of(OperationId::ClassicCreate),
            classic_update: of(OperationId::ClassicUpdate),
            classic_get: of(OperationId::ClassicGet),
        },
    }
}

const fn rate(rate: Rate) -> RawRate {
    RawRate { per_second: rate.per_second.get(), burst: Some(rate.burst.get()) }
}

const fn idempotency(idempotency: &Idempotency) -> RawIdempotency {
    RawIdempotency {
        key: match idempotency.key {
            MissingKey::Require => RawMissingKey::Require,
            MissingKey::Generate => RawMissingKey::Generate,
        },
        retention: Span(idempotency.retention),
        trx_id_retention: Span(idempotency.trx_id_retention),
        wait: Span(idempotency.wait),
        memory: Size(idempotency.memory_bytes),
        same_trx_id: match idempotency.same_trx_id {
            SameTrxId::Replay => RawSameTrxId::Replay,
            SameTrxId::Forward => RawSameTrxId::Forward,
        },
    }
}

const fn reference(reference: &Reference) -> RawReference {
    RawReference {
        on_mismatch: match reference.on_mismatch {
            OnMismatch::RecordedFirst => RawOnMismatch::RecordedFirst,
            OnMismatch::CallerFirst => RawOnMismatch::CallerFirst,
            OnMismatch::Reject => RawOnMismatch::Reject,
        },
        on_miss: match reference.on_miss {
            OnMiss::Inquiry => RawOnMiss::Inquiry,
            OnMiss::Reject => RawOnMiss::Reject,
        },
        memory: Size(reference.memory_bytes),
    }
}

const fn errors(errors: &Errors) -> RawErrors {
    RawErrors { classic_validation_status: errors.classic_validation_status.as_u16() }
}

fn log(log: Log) -> RawLog {
    RawLog {
        format: match log.format {
            LogFormat::Auto => RawLogFormat::Auto,
            LogFormat::Json => RawLogFormat::Json,
            LogFormat::Pretty => RawLogFormat::Pretty,
        },
        level: match log.level {
            tracing::Level::ERROR => RawLevel::Error,
            tracing::Level::WARN => RawLevel::Warn,
            tracing::Level::INFO => RawLevel::Info,
            tracing::Level::DEBUG => RawLevel::Debug,
            tracing::Level::TRACE => RawLevel::Trace,
        },
    }
}

/// Writes a mapping, one key a line.
fn write_map(yaml: &mut String, entries: &[(Key, Node)], depth: usize) {
    for (index, (key, node)) in entries.iter().enumerate() {
        // A mapping in a list starts behind its dash.
        if index > 0 || !yaml.ends_with("- ") {
            yaml.push_str(&"  ".repeat(depth));
        }
        yaml.push_str(&key.name);
        yaml.push(':');
        write_value(yaml, &node.value, depth + 1);
    }
}

/// Writes what follows a key's colon, up to the end of the line.
fn write_value(yaml: &mut String, value: &tree::Value, depth: usize) {
    match value {
        tree::Value::Map(entries) if entries.is_empty() => yaml.push_str(" {}\n"),
        tree::Value::Map(entries) => {
            yaml.push('\n');
            write_map(yaml, entries, depth);
        }
        tree::Value::List(nodes) if nodes.is_empty() => yaml.push_str(" []\n"),
        // Merchants, and networks.
        tree::Value::List(nodes) => {
            yaml.push('\n');
            for node in nodes {
                yaml.push_str(&"  ".repeat(depth));
                yaml.push_str("- ");
                match &node.value {
                    tree::Value::Map(entries) => write_map(yaml, entries, depth + 1),
                    tree::Value::Text(text) => yaml.push_str(&format!("{}\n", Value::from(text.text.as_str()))),
                    // No list of ours holds any of these.
                    tree::Value::Broken
                    | tree::Value::Null
                    | tree::Value::Bool(_)
                    | tree::Value::Integer(_)
                    | tree::Value::Float
                    | tree::Value::List(_) => yaml.push('\n'),
                }
            }
        }
        tree::Value::Text(text) if is_plain(&text.text) => yaml.push_str(&format!(" {}\n", text.text.as_str())),
        tree::Value::Text(text) => yaml.push_str(&format!(" {}\n", Value::from(text.text.as_str()))),
        tree::Value::Bool(value) => yaml.push_str(&format!(" {value}\n")),
        tree::Value::Integer(value) => yaml.push_str(&format!(" {value}\n")),
        // The mirror holds none of these.
        tree::Value::Null | tree::Value::Float | tree::Value::Broken => yaml.push('\n'),
    }
}

/// Whether a text means itself without quotes, to readers of YAML 1.1 as well.
fn is_plain(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte);
    let switch = ["yes", "no", "on", "off", "y", "n"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let ends_well = !text.ends_with(':') && !text.starts_with(['-', ':', '.']);
    text.bytes().all(safe) && ends_well && !switch && matches!(tree::plain(text), tree::Value::Text(_))
}
