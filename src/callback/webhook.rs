//! Standard Webhooks signatures (standardwebhooks.com): what an app verifies with any library.
//!
//! Promises HMAC-SHA256 over `id.timestamp.body`, the bytes that are sent, under the secret the app
//! knows as `whsec_…`, and for the app's side the check of it in constant time. When something is sent
//! is not its affair.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use zeroize::Zeroizing;

/// What deliveries to one app are signed with.
#[derive(Clone)]
pub struct WebhookKey(hmac::Key);

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey")
    }
}

/// Bytes of a key, by the specification.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

impl WebhookKey {
    /// Reads `whsec_` and base64.
    ///
    /// # Errors
    /// In words what is expected, never with a part of the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let encoded = text.strip_prefix("whsec_").ok_or("does not start with whsec_")?;
        let bytes = STANDARD.decode(encoded).map_err(|_| "what follows whsec_ is not base64").map(Zeroizing::new)?;
        if !BYTES.contains(&bytes.len()) {
            return Err("what follows whsec_ is not 24 to 64 bytes in base64");
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature`; `timestamp` in whole seconds since 1970.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.tag(id, timestamp, body)))
    }

    /// Whether a webhook was signed with this key, five minutes ago at most and not later than that in
    /// the future. One right signature among several (while a secret is replaced) is enough.
    #[must_use]
    pub fn verify(&self, webhook: &Webhook<'_>, now: Timestamp) -> bool {
        let Ok(timestamp) = webhook.timestamp.parse::<i64>() else { return false };
        if timestamp.abs_diff(now.as_second()) > TOLERANCE_S {
            return false;
        }
        let tag = self.tag(webhook.id, timestamp, webhook.body);
        let versions = webhook.signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
        versions
            .filter_map(|encoded| STANDARD.decode(encoded).ok())
            .any(|received| verify_slices_are_equal(tag.as_ref(), &received).is_ok())
    }

    fn tag(&self, id: &str, timestamp: i64, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        context.sign()
    }
}

/// A webhook as it came in: three headers and the body.
#[derive(Clone, Copy, Debug)]
pub struct Webhook<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`
    pub timestamp: &'a str,
    /// `webhook-signature`, one or several with blanks between them.
    pub signatures: &'a str,
    /// The bytes.
    pub body: &'a [u8],
}

/// How far a webhook's time may be from ours, by the specification's libraries.
const TOLERANCE_S: u64 = 5 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    /// The example the specification's libraries are tested with.
    #[test]
    fn the_published_example() {
        let key = WebhookKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: i64 = 1_767_582_000;

    fn verified(timestamp: &str, signatures: &str, body: &[u8]) -> bool {
        let webhook = Webhook { id: "evt_1", timestamp, signatures, body };
        WebhookKey::parse(SECRET).unwrap().verify(&webhook, Timestamp::from_second(NOW).unwrap())
    }

    /// Signed by a library that is not ours.
    fn theirs(timestamp: i64) -> String {
        standardwebhooks::Webhook::new(SECRET).unwrap().sign("evt_1", timestamp, b"{}").unwrap()
    }

    #[test]
    fn what_others_sign_is_verified_and_nothing_else() {
        let (at, right) = (NOW.to_string(), theirs(NOW));
        assert!(verified(&at, &right, b"{}"));
        assert!(verified(&at, &format!("v1,AAAA v1a,xyz {right}"), b"{}"), "one of several");
        let other = WebhookKey::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap().sign("evt_1", NOW, b"{}");
        for wrong in ["", "v1,", "v1", right.trim_start_matches("v1,"), &right.replace("v1,", "v2,"), &other] {
            assert!(!verified(&at, wrong, b"{}"), "{wrong}");
        }
        assert!(!verified(&at, &right, b"{ }"));
        assert!(!verified(&(NOW + 1).to_string(), &right, b"{}"));
    }

    #[test]
    fn a_webhook_is_good_for_five_minutes() {
        for (away, good) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            assert_eq!(verified(&(NOW + away).to_string(), &theirs(NOW + away), b"{}"), good, "{away}");
        }
        for text in ["", "soon", "1767582000.0", "99999999999999999999", "-9223372036854775808"] {
            assert!(!verified(text, &theirs(NOW), b"{}"), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in
            ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_MfKQ", "whsec_?", "whsec_MfKQ9r8GKYqr TwjU"]
        {
            assert!(WebhookKey::parse(text).is_err(), "{text}");
        }
        let key = WebhookKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(format!("{key:?}"), "WebhookKey");
    }
}
