//! The part of the checks that is about payment callbacks.
//!
//! Promises a secret nobody guesses, keys that sign, networks that are networks, and an address for
//! every merchant's events. No message repeats an address or a secret.

use std::net::SocketAddr;

use super::check::{KEEPING, PAUSE, collide, socket_address, within};
use super::check_tls;
use super::findings::Findings;
use super::raw::{RawCallbacks, RawConfig, RawConfirm, RawDeliver, RawVerify};
use super::{Callbacks, Deliver};
use crate::callback::source::{Cidr, Sources};
use crate::callback::webhook::WebhookKey;

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
    check_secret(callbacks.secret.expose(), found);
    match (callbacks.verify, callbacks.confirm) {
        (RawVerify::None, RawConfirm::Never) => {}
    }
    let sources = Sources {
        allow: networks("callbacks.allow", &callbacks.allow, found),
        trusted: networks("callbacks.trusted_proxies", &callbacks.trusted_proxies, found),
    };
    let listen = check_listen(callbacks, others, found)?;
    let tls = check_tls::server("callbacks.listen.tls", callbacks.listen.tls.as_ref(), found);
    Some(Callbacks { listen, tls, secret: callbacks.secret.clone(), sources, deliver: deliver.flatten() })
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

/// It is a part of a path, and all that keeps forged callbacks out.
fn check_secret(secret: &str, found: &mut Findings) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    // A missing one has been reported.
    if !secret.is_empty() && (secret.len() < SECRET_MIN || secret.len() > SECRET_MAX || !secret.bytes().all(plain)) {
        let hint = "32 to 256 letters, digits, `-` or `_`, such as from `openssl rand -hex 32`";
        found.report("callbacks.secret", "too short, too long, or no part of an address", hint);
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
