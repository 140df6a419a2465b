//! The part of the checks that is about payment callbacks.
//!
//! Promises a secret nobody guesses, keys that sign and verify, networks that are networks, and an address for
//! every merchant's events. No message repeats an address or a secret.

use std::net::SocketAddr;
use std::sync::Arc;

use super::check::{KEEPING, PAUSE, collide, socket_address, within};
use super::check_tls;
use super::findings::Findings;
use super::raw::{RawCallbacks, RawConfig, RawConfirm, RawDeliver, RawSweep, RawVerify};
use super::{CallbackKey, Callbacks, Confirm, Deliver, Secret, Sweep, Verify};
use crate::callback::source::{Cidr, Sources};
use crate::callback::webhook::WebhookKey;
use crate::signature::PublicKey;

/// Judges the section and every merchant's part of it. `others` are the listeners that are there.
pub(super) fn check(raw: &RawConfig, others: &[(&str, SocketAddr)], found: &mut Findings) -> Option<Callbacks> {
    let Some(callbacks) = &raw.callbacks else {
        for (index, _) in raw.merchants.iter().enumerate().filter(|(_, merchant)| merchant.callbacks.is_some()) {
            let path = format!("merchants[{index}].callbacks");
            found.report(&path, "callbacks are off", "add the section callbacks, or remove this");
        }
        return None;
    };
    let deliver = callbacks.deliver.as_ref().map(|deliver| deliver_to("callbacks.deliver", deliver, found));
    let lacks = raw.merchants.iter().any(|merchant| merchant.callbacks.is_none());
    if lacks && callbacks.deliver.is_none() {
        found.report("callbacks.deliver", "missing", "where events go; or give every merchant its own");
    }
    check_secrets(callbacks, found);
    let verify = check_verify(callbacks, found);
    let confirm = match callbacks.confirm {
        RawConfirm::Always => Confirm::Always,
        RawConfirm::Unsigned => Confirm::Unsigned,
        RawConfirm::Never => Confirm::Never,
    };
    let sweep = callbacks.sweep.as_ref().map(|sweep| check_sweep(sweep, found));
    let sources = Sources {
        allow: networks("callbacks.allow", &callbacks.allow, found),
        trusted: networks("callbacks.trusted_proxies", &callbacks.trusted_proxies, found),
    };
    let listen = check_listen(callbacks, others, found)?;
    let tls = check_tls::server("callbacks.listen.tls", callbacks.listen.tls.as_ref(), found);
    Some(Callbacks {
        listen,
        tls,
        secret: callbacks.secret.clone(),
        previous_secrets: callbacks.previous_secrets.clone(),
        sources,
        verify: verify?,
        confirm,
        deliver: deliver.flatten(),
        sweep,
    })
}

fn check_sweep(raw: &RawSweep, found: &mut Findings) -> Sweep {
    Sweep {
        every: within("callbacks.sweep.every", raw.every, KEEPING, found),
        before_expiry: within("callbacks.sweep.before_expiry", raw.before_expiry, PAUSE, found),
        after_expiry: within("callbacks.sweep.after_expiry", raw.after_expiry, PAUSE, found),
    }
}

/// How signatures are checked; the key stands there exactly where it is used.
fn check_verify(raw: &RawCallbacks, found: &mut Findings) -> Option<Verify> {
    let path = "callbacks.public_key";
    match (raw.verify, &raw.public_key) {
        (RawVerify::None, None) => Some(Verify::None),
        (RawVerify::HmacSha512, None) => Some(Verify::HmacSha512),
        (RawVerify::RsaTransactional, Some(pem)) => match PublicKey::from_pem(pem) {
            Ok(key) => Some(Verify::RsaTransactional(CallbackKey { key: Arc::new(key), pem: pem.as_str().into() })),
            Err(error) => {
                found.report(path, error.to_string(), "usually ${file:ayoconnect-public.pem}");
                None
            }
        },
        (RawVerify::RsaTransactional, None) => {
            found.report(path, "missing", "Ayoconnect's public key as PEM, usually ${file:ayoconnect-public.pem}");
            None
        }
        (RawVerify::None | RawVerify::HmacSha512, Some(_)) => {
            found.report(path, "goes with verify: rsa_transactional", "leave it out, or say so");
            None
        }
    }
}

fn check_listen(raw: &RawCallbacks, others: &[(&str, SocketAddr)], found: &mut Findings) -> Option<SocketAddr> {
    let path = "callbacks.listen.address";
    let address = socket_address(path, &raw.listen.address, found)?;
    for (other, taken) in others {
        if collide(*taken, address) {
            let hint =
                "take another port, such as 8443; Ayoconnect must reach neither the app's listener nor the admin's";
            found.report(path, format!("the same address as {other}"), hint);
        }
    }
    Some(address)
}

fn check_secrets(raw: &RawCallbacks, found: &mut Findings) {
    // A missing one has been reported.
    if !raw.secret.expose().is_empty() {
        check_secret("callbacks.secret", &raw.secret, found);
    }
    let previous = &raw.previous_secrets;
    if previous.len() > PREVIOUS_MAX {
        let hint = "remove those Ayoconnect no longer calls; the address with each of them is open";
        found.report("callbacks.previous_secrets", format!("more than {PREVIOUS_MAX}"), hint);
    }
    for (index, secret) in previous.iter().enumerate() {
        let path = format!("callbacks.previous_secrets[{index}]");
        check_secret(&path, secret, found);
        let is_same = |other: &Secret<String>| other.expose() == secret.expose();
        if is_same(&raw.secret) {
            found.report(&path, "the same as callbacks.secret", "the new one goes there, what it replaces here");
        } else if previous.iter().take(index).any(is_same) {
            found.report(&path, "given twice", "remove one of them");
        }
    }
}

/// It is a part of a path, and all that keeps forged callbacks out.
fn check_secret(path: &str, secret: &Secret<String>, found: &mut Findings) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let secret = secret.expose();
    if secret.len() < SECRET_MIN || secret.len() > SECRET_MAX || !secret.bytes().all(plain) {
        let hint = "32 to 256 letters, digits, `-` or `_`, such as from `openssl rand -hex 32`";
        found.report(path, "too short, too long, or no part of an address", hint);
    }
}

fn networks(path: &str, texts: &[String], found: &mut Findings) -> Vec<Cidr> {
    let mut networks = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match Cidr::parse(text) {
            Some(network) => networks.push(network),
            None => {
                let message = format!("{} is not a network", found.shown(&path, text));
                found.report(&path, message, "such as 203.0.113.0/24 or 2001:db8::/32, with zeros behind the prefix");
            }
        }
    }
    networks
}

/// Judges where events go.
pub(super) fn deliver_to(path: &str, raw: &RawDeliver, found: &mut Findings) -> Option<Deliver> {
    let at = |key: &str| format!("{path}.{key}");
    let url = app_url(&raw.url);
    // What is missing has been reported.
    if url.is_none() && !raw.url.is_empty() {
        let hint = "such as http://127.0.0.1:3000/payments; no user, no fragment";
        found.report(&at("url"), "expected http:// or https:// with a host", hint);
    }
    let key = WebhookKey::parse(raw.secret.expose());
    if let (Err(why), false) = (&key, raw.secret.expose().is_empty()) {
        found.report(&at("secret"), *why, "such as from `echo whsec_$(openssl rand -base64 32)`");
    }
    let timeout = within(&at("timeout"), raw.timeout, PAUSE, found);
    let retry_for = within(&at("retry_for"), raw.retry_for, KEEPING, found);
    let in_flight = usize::try_from(raw.in_flight).unwrap_or(usize::MAX);
    Some(Deliver { url: url?, key: key.ok()?, timeout, retry_for, in_flight })
}

/// An address to post to.
fn app_url(text: &str) -> Option<http::Uri> {
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let fits = matches!(uri.scheme_str(), Some("http" | "https"))
        && !authority.host().is_empty()
        && !authority.as_str().contains('@')
        && !text.contains('#');
    fits.then_some(uri)
}

const SECRET_MIN: usize = 32;
const SECRET_MAX: usize = 256;
/// Each request is held against all of them.
const PREVIOUS_MAX: usize = 8;
