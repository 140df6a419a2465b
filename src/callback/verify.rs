//! Whether a callback is signed as the configuration demands (`signature.md`): pure.
//!
//! Promises the SNAP strings over the bytes and the path as they came, both encodings, a comparison in
//! constant time, and reasons that repeat nothing of what was sent: the path carries a secret, so the
//! string to sign is never shown. What becomes of a callback that fails is `receive`'s affair.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use jiff::Timestamp;

use crate::clock::parse_iso8601;
use crate::config::{MerchantConfig, Verify};
use crate::dialect::check::single_header;
use crate::signature::{HmacKey, PublicKey, SignedRequest, StringToSign, body_hash};

/// What a merchant's callbacks are held against.
#[derive(Clone, Debug)]
pub enum Check {
    /// HMAC-SHA512 under the merchant's client secret.
    HmacSha512(Arc<HmacKey>),
    /// SHA256withRSA under Ayoconnect's key.
    RsaTransactional(Arc<PublicKey>),
}

/// A callback as it came in; the method is always `POST`.
#[derive(Clone, Copy, Debug)]
pub struct Callback<'a> {
    /// The whole path, with the secret in it.
    pub path: &'a str,
    /// Where signature and timestamp are.
    pub headers: &'a HeaderMap,
    /// Its bytes.
    pub body: &'a [u8],
}

impl Check {
    /// What is to be checked of a merchant's callbacks, if anything.
    #[must_use]
    pub fn of(verify: &Verify, merchant: &MerchantConfig) -> Option<Self> {
        match verify {
            Verify::None => None,
            Verify::HmacSha512 => {
                let key = HmacKey::new(merchant.client_secret.expose().as_bytes());
                Some(Self::HmacSha512(Arc::new(key)))
            }
            Verify::RsaTransactional(public) => Some(Self::RsaTransactional(Arc::clone(&public.key))),
        }
    }

    /// Checks signature and time.
    ///
    /// # Errors
    /// In a few words what is wrong, without a value.
    pub fn check(&self, callback: &Callback<'_>, now: Timestamp) -> Result<(), &'static str> {
        let header = |name| single_header(callback.headers, name).ok().flatten();
        let (Some(signature), Some(timestamp)) = (header("X-SIGNATURE"), header("X-TIMESTAMP")) else {
            return Err(UNSIGNED);
        };
        let body_hash = body_hash(callback.body);
        let request =
            SignedRequest { method: Method::POST.as_str(), path: callback.path, body_hash: &body_hash, timestamp };
        let right = match self {
            // The standard's token is one that we would have given out; we give none, so its place is empty.
            Self::HmacSha512(key) => key.verify(&StringToSign::hmac_sha512(&request, ""), signature),
            Self::RsaTransactional(key) => key.verify(&StringToSign::rsa_transactional(&request), signature),
        };
        if !right {
            return Err(WRONG);
        }
        let near = parse_iso8601(timestamp).is_some_and(|moment| moment.duration_since(now).unsigned_abs() <= SKEW);
        if near { Ok(()) } else { Err(STALE) }
    }
}

/// How far a callback's time may be from ours, either way.
const SKEW: Duration = Duration::from_secs(5 * 60);

const UNSIGNED: &str = "it is not signed: X-SIGNATURE or X-TIMESTAMP is missing, or given twice";
const WRONG: &str = "its signature does not fit callbacks.verify, the key, or the path and body that came in";
const STALE: &str = "its X-TIMESTAMP is no time, or more than 5 minutes from this machine's clock";

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::Value;

    use super::*;
    use crate::signature::{Encoding, PrivateKey};

    const PATH: &str = "/callbacks/snap/AYOTST/0123456789abcdef0123456789abcdef";
    const TIME: &str = "2026-01-05T10:00:00+07:00";
    const BODY: &[u8] = br#"{ "virtualAccountNo": "   14629" }"#;

    fn now() -> Timestamp {
        TIME.parse().unwrap()
    }

    fn headers(signature: &str, timestamp: &str) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-signature", value(signature));
        headers.insert("x-timestamp", value(timestamp));
        headers
    }

    fn hmac(secret: &[u8], path: &str, timestamp: &str, encoding: Encoding) -> String {
        let body_hash = body_hash(BODY);
        let request = SignedRequest { method: "POST", path, body_hash: &body_hash, timestamp };
        HmacKey::new(secret).sign(&StringToSign::hmac_sha512(&request, ""), encoding)
    }

    fn judged(headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
        let check = Check::HmacSha512(Arc::new(HmacKey::new(b"sandbox-secret")));
        check.check(&Callback { path: PATH, headers, body }, now())
    }

    #[test]
    fn a_right_signature_is_taken_in_both_encodings_and_whatever_its_blanks() {
        for encoding in Encoding::ALL {
            let headers = headers(&hmac(b"sandbox-secret", PATH, TIME, encoding), TIME);
            assert_eq!(judged(&headers, BODY), Ok(()));
            assert_eq!(judged(&headers, br#"{"virtualAccountNo":"   14629"}"#), Ok(()), "minified before it is hashed");
        }
    }

    /// Computed elsewhere, so that the string is known to be the standard's with an empty token.
    #[test]
    fn the_token_of_the_string_is_empty() {
        let signature = "c415ae3403f7119b72686d9783b505647f280898679f62fdb986b790dbf9e04b\
                         12c8d20a3e1984dccf8f9e6caafeead717fcbe105420aaa5421b5da4ad8ee506";
        assert_eq!(judged(&headers(signature, TIME), BODY), Ok(()));
    }

    #[test]
    fn everything_that_is_signed_counts() {
        let right = hmac(b"sandbox-secret", PATH, TIME, Encoding::Hex);
        let later = "2026-01-05T10:00:01+07:00";
        for (signature, timestamp, body) in [
            (hmac(b"another-secret", PATH, TIME, Encoding::Hex), TIME, BODY),
            (hmac(b"sandbox-secret", "/callbacks/snap/AYOTST/", TIME, Encoding::Hex), TIME, BODY),
            (right.clone(), later, BODY),
            (right.clone(), TIME, br#"{"virtualAccountNo":"14629"}"#),
            (right[1..].to_owned(), TIME, BODY),
            (String::new(), TIME, BODY),
        ] {
            assert_eq!(judged(&headers(&signature, timestamp), body), Err(WRONG), "{signature}");
        }
    }

    #[test]
    fn five_minutes_either_way_are_the_end() {
        let at =
            |timestamp| judged(&headers(&hmac(b"sandbox-secret", PATH, timestamp, Encoding::Base64), timestamp), BODY);
        for timestamp in ["2026-01-05T09:55:00+07:00", "2026-01-05T10:05:00+07:00"] {
            assert_eq!(at(timestamp), Ok(()));
        }
        for timestamp in ["2026-01-05T09:54:59+07:00", "2026-01-05T10:05:01+07:00", "now", ""] {
            assert_eq!(at(timestamp), Err(STALE), "{timestamp}");
        }
    }

    #[test]
    fn what_is_missing_or_given_twice_is_no_signature() {
        let signature = hmac(b"sandbox-secret", PATH, TIME, Encoding::Hex);
        for name in ["x-signature", "x-timestamp"] {
            let mut without = headers(&signature, TIME);
            let value = without.remove(name).unwrap();
            assert_eq!(judged(&without, BODY), Err(UNSIGNED));
            let mut twice = headers(&signature, TIME);
            twice.append(name, value);
            assert_eq!(judged(&twice, BODY), Err(UNSIGNED));
        }
    }

    #[test]
    fn transactional_signatures_of_the_vectors() {
        let vectors = include_str!("../../tests/vectors/signature-asymmetric.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let text = |case: &Value, name: &str| case[name].as_str().unwrap_or_default().to_owned();
        let mut verdicts = Vec::new();
        for case in vectors["cases"].as_array().unwrap() {
            if case["form"] != "transactional" || case["method"] != "POST" {
                continue;
            }
            let key = &vectors["keys"][text(case, "key_id")];
            let public = PrivateKey::from_pem(&text(key, "private_pem")).unwrap().public_key().clone();
            let timestamp = text(case, "timestamp");
            for name in ["signature_hex", "signature_base64"] {
                let Some(signature) = case[name].as_str() else { continue };
                let (headers, path, body) =
                    (headers(signature, &timestamp), text(case, "path"), text(case, "body_minified"));
                let callback = Callback { path: &path, headers: &headers, body: body.as_bytes() };
                let check = Check::RsaTransactional(Arc::new(public.clone()));
                let verdict = check.check(&callback, parse_iso8601(&timestamp).unwrap());
                assert_eq!(verdict.is_ok(), case["expect_verify"].as_bool().unwrap(), "{}", case["id"]);
                verdicts.push(verdict.is_ok());
            }
        }
        assert!(verdicts.contains(&true), "{verdicts:?}");
    }
}
