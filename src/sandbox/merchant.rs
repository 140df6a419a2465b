//! The merchants the simulator knows, with their keys ready for use.
//!
//! Promises that every key was read when the simulator was made, so that no request meets a bad one.

use std::fmt;
use std::sync::Arc;

use crate::config::Secret;
use crate::config::sandbox::{MerchantKey, SAMPLE_CLIENT_SECRET, SAMPLE_KEY_PEM, SandboxMerchant};
use crate::dialect::bank::Bank;
use crate::signature::{HmacKey, KeyError, PublicKey};

/// A merchant.
#[derive(Debug)]
pub(super) struct Merchant {
    /// Position among the merchants, which stands for it elsewhere.
    pub(super) index: usize,
    /// Name in the control interface.
    pub(super) name: Arc<str>,
    /// `X-PARTNER-ID` and `A-Merchant-Code`.
    pub(super) code: Arc<str>,
    /// What it logs in as.
    pub(super) client_id: String,
    /// Proves the classic login.
    pub(super) client_secret: Secret<String>,
    /// Checks SNAP calls signed with HMAC.
    pub(super) hmac: HmacKey,
    /// Checks the SNAP login and calls signed with RSA.
    pub(super) public_key: PublicKey,
    /// The private key's PEM, kept only where it is the published sample.
    pub(super) sample_key: Option<&'static str>,
}

/// A merchant's key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidKey {
    /// The merchant's name.
    pub merchant: Arc<str>,
    /// What is wrong with the key.
    pub error: KeyError,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key of merchant {}: {}", self.merchant, self.error)
    }
}

impl std::error::Error for InvalidKey {}

impl Merchant {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`InvalidKey`] where the PEM gives no key.
    pub(super) fn new(index: usize, config: &SandboxMerchant) -> Result<Self, InvalidKey> {
        let public_key = match &config.key {
            MerchantKey::PublicPem(pem) => PublicKey::from_pem(pem),
            MerchantKey::PrivatePem(pem) => PublicKey::from_private_pem(pem.expose()),
        };
        let sample =
            matches!(&config.key, MerchantKey::PrivatePem(pem) if pem.expose().trim_end() == SAMPLE_KEY_PEM.trim_end());
        Ok(Self {
            index,
            name: Arc::clone(&config.name),
            code: Arc::clone(&config.merchant_code),
            client_id: config.client_id.clone(),
            client_secret: config.client_secret.clone(),
            hmac: HmacKey::new(config.client_secret.expose().as_bytes()),
            public_key: public_key.map_err(|error| InvalidKey { merchant: Arc::clone(&config.name), error })?,
            sample_key: sample.then_some(SAMPLE_KEY_PEM),
        })
    }

    /// The client secret where it is the published sample; one that somebody configured stays hidden.
    #[must_use]
    pub(super) fn sample_secret(&self) -> Option<&'static str> {
        (self.client_secret.expose() == SAMPLE_CLIENT_SECRET).then_some(SAMPLE_CLIENT_SECRET)
    }

    /// The digits in front of this merchant's numbers at a bank.
    ///
    /// Ayoconnect assigns them (`snap.md` section 4), so each merchant has its own; the first one's
    /// are those of the vectors.
    #[must_use]
    pub(super) fn prefix(&self, bank: &Bank) -> String {
        let first: usize = match bank.code {
            "002" => 13_925,
            "008" => 88_899,
            "009" => 8_662,
            _ => 14_629,
        };
        let digits = bank.prefix_digits;
        let modulus = 10_usize.pow(u32::try_from(digits).unwrap_or(5));
        format!("{:0digits$}", (first + self.index) % modulus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::bank::BANKS;

    #[test]
    fn prefixes_have_the_digits_of_the_bank_and_start_with_those_of_the_vectors() {
        let first = Merchant::new(0, &SandboxMerchant::default()).unwrap();
        let second = Merchant::new(1, &SandboxMerchant::default()).unwrap();
        let prefixes: Vec<_> = BANKS.iter().map(|bank| first.prefix(bank)).collect();
        assert_eq!(prefixes, ["13925", "88899", "8662", "14629"]);
        for bank in &BANKS {
            assert_eq!(first.prefix(bank).len(), bank.prefix_digits);
            assert_ne!(first.prefix(bank), second.prefix(bank));
        }
    }

    #[test]
    fn an_unusable_key_is_named_with_its_merchant() {
        let config =
            SandboxMerchant { key: MerchantKey::PublicPem("nonsense".to_owned()), ..SandboxMerchant::default() };
        let error = Merchant::new(0, &config).unwrap_err();
        assert_eq!(error, InvalidKey { merchant: "sample".into(), error: KeyError::NoKey });
        assert!(error.to_string().contains("sample"));
    }

    #[test]
    fn only_published_secrets_may_be_shown() {
        let sample = Merchant::new(0, &SandboxMerchant::default()).unwrap();
        assert!(sample.sample_secret().is_some() && sample.sample_key.is_some());
        let own = SandboxMerchant { client_secret: Secret::new("mine".to_owned()), ..SandboxMerchant::default() };
        assert_eq!(Merchant::new(0, &own).unwrap().sample_secret(), None);
    }
}
