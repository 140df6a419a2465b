//! Standard Webhooks signatures (standardwebhooks.com): what an app verifies with any library.
//!
//! Promises HMAC-SHA256 over `id.timestamp.body`, the bytes that are sent, under the secret the app
//! knows as `whsec_…`. When something is sent is not its affair.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

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
