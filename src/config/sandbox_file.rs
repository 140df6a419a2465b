//! The sandbox's configuration file: the mirror of what is not a plain switch, and its checks.
//!
//! Promises the same treatment as the gateway's file: same reader, every problem at once, positions
//! and hints. The switches themselves are read straight into the types of `sandbox`.

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{self, PAUSE, api_path, credential, merchant_code, merchant_name, socket_address, unique, within};
use super::effective;
use super::findings::Findings;
use super::interpolate::Sources;
use super::problem::{Problem, Problems};
use super::quantity::Span;
use super::raw::{RawEncoding, RawScheme, RawSignature, hidden, hidden_option, secret, secret_option};
use super::read::{self, Kind};
use super::sandbox::{
    CallbackSwitches, ClassicState, ClassicSwitches, MerchantKey, SandboxConfig, SandboxMerchant, SignatureSwitches,
    SnapSwitches,
};
use super::{Secret, SignatureConfig};
use crate::signature::{Encoding, PublicKey};

/// Configuration of the simulated Ayoconnect. Every string may contain ${VAR}, ${VAR:-default} and
/// ${file:/path}; relative paths count from this file's folder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "ayova sandbox configuration")]
pub(super) struct RawSandbox {
    /// IP address and port. Default 127.0.0.1:9090; port 0 takes a free one.
    listen: String,
    /// The merchants it knows. Default: the sample merchant AYOTST.
    #[serde(skip_serializing)]
    #[schemars(length(min = 1))]
    merchants: Option<Vec<RawSandboxMerchant>>,
    /// How the classic generation behaves.
    classic: ClassicSwitches,
    /// How the SNAP generation behaves.
    snap: SnapSwitches,
    /// How payments are announced.
    callbacks: CallbackSwitches,
}

/// A merchant the sandbox knows; one of the two keys is needed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "merchant_code", "client_id", "client_secret"]))]
pub(super) struct RawSandboxMerchant {
    /// Name; 1 to 64 letters, digits, blanks, `.`, `_` or `-`; unique.
    name: String,
    /// Six letters or digits, expected as X-PARTNER-ID and A-Merchant-Code; unique.
    merchant_code: String,
    /// What the merchant logs in as.
    client_id: String,
    /// Proves the classic login and keys the SNAP HMAC.
    #[serde(serialize_with = "hidden", deserialize_with = "secret")]
    #[schemars(with = "String")]
    client_secret: Secret<String>,
    /// RSA public key as PEM text; checks the SNAP login.
    public_key: Option<String>,
    /// RSA private key as PEM text, instead of the public one, as in the gateway's own file.
    #[serde(serialize_with = "hidden_option", deserialize_with = "secret_option")]
    #[schemars(with = "Option<String>")]
    private_key: Option<Secret<String>>,
}

/// Which signatures of transactional SNAP calls are taken.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSignatureSwitches {
    /// What must be signed with which key. Default hmac_sha512.
    scheme: RawScheme,
    /// Text forms that are taken. Default hex and base64.
    #[schemars(length(min = 1))]
    accept: Vec<RawEncoding>,
}

/// States by bank; the schema of a map whose keys are a closed list.
#[derive(JsonSchema)]
#[schemars(rename_all = "UPPERCASE", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the map itself is read by serde")]
pub(super) struct StateByBank {
    /// Bank Rakyat Indonesia.
    bri: Option<ClassicState>,
    /// Bank Mandiri.
    mandiri: Option<ClassicState>,
    /// Bank Negara Indonesia.
    bni: Option<ClassicState>,
    /// Bank Central Asia.
    bca: Option<ClassicState>,
}

impl SandboxConfig {
    /// Reads a sandbox configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        let text = read::text(path, KIND)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_yaml(&text, &Sources { env, folder })
            .map_err(|list| Problems::new(path.display().to_string(), KIND.example, list))
    }

    /// Reads a text.
    pub(super) fn from_yaml(text: &str, sources: &Sources<'_>) -> Result<Self, Vec<Problem>> {
        match read::raw::<RawSandbox>(text, sources, KIND) {
            (Some(raw), found) => check_sandbox(raw, found),
            (None, found) => Err(found.problems),
        }
    }
}

fn check_sandbox(raw: RawSandbox, mut found: Findings) -> Result<SandboxConfig, Vec<Problem>> {
    let found = &mut found;
    let listen = socket_address("listen", &raw.listen, found);
    let merchants = match raw.merchants {
        Some(merchants) => check_merchants(&merchants, found),
        None => SandboxConfig::default().merchants,
    };
    check_classic(&raw.classic, found);
    check_snap(&raw.snap, found);
    within("callbacks.timeout", Span(raw.callbacks.timeout), PAUSE, found);
    for (index, delay) in raw.callbacks.retry_delays.iter().enumerate() {
        within(&format!("callbacks.retry_delays[{index}]"), Span(*delay), PAUSE, found);
    }
    callback_url("callbacks.snap", raw.callbacks.snap.as_deref(), found);
    callback_url("callbacks.classic", raw.callbacks.classic.as_deref(), found);
    match listen {
        Some(listen) if found.problems.is_empty() => {
            Ok(SandboxConfig { listen, merchants, classic: raw.classic, snap: raw.snap, callbacks: raw.callbacks })
        }
        _ => Err(std::mem::take(&mut found.problems)),
    }
}

fn check_merchants(raw: &[RawSandboxMerchant], found: &mut Findings) -> Vec<SandboxMerchant> {
    unique(raw, "name", |merchant| &merchant.name, found);
    unique(raw, "merchant_code", |merchant| &merchant.merchant_code, found);
    let checked = raw.iter().enumerate().filter_map(|(index, merchant)| {
        let at = |key: &str| format!("merchants[{index}].{key}");
        merchant_name(&at("name"), &merchant.name, found);
        merchant_code(&at("merchant_code"), &merchant.merchant_code, found);
        credential(&at("client_id"), &merchant.client_id, found);
        credential(&at("client_secret"), merchant.client_secret.expose(), found);
        let key = merchant_key(&format!("merchants[{index}]"), merchant, found)?;
        Some(SandboxMerchant {
            name: Arc::from(merchant.name.as_str()),
            merchant_code: Arc::from(merchant.merchant_code.as_str()),
            client_id: merchant.client_id.clone(),
            client_secret: merchant.client_secret.clone(),
            key,
        })
    });
    checked.collect()
}

/// The one key a merchant was given.
fn merchant_key(path: &str, merchant: &RawSandboxMerchant, found: &mut Findings) -> Option<MerchantKey> {
    match (&merchant.public_key, &merchant.private_key) {
        (Some(_), Some(_)) => {
            found.report(&format!("{path}.public_key"), "given beside private_key", "one of the two is enough");
            None
        }
        (None, None) => {
            found.report(&format!("{path}.public_key"), "missing", "the public key as PEM, or private_key");
            None
        }
        (Some(pem), None) => {
            if let Err(error) = PublicKey::from_pem(pem) {
                found.report(&format!("{path}.public_key"), error.to_string(), "usually ${file:public.pem}");
            }
            Some(MerchantKey::PublicPem(pem.clone()))
        }
        (None, Some(pem)) => {
            // Only its public half is used, so a key too small to sign with will do.
            if let Err(error) = PublicKey::from_private_pem(pem.expose()) {
                found.report(&format!("{path}.private_key"), error.to_string(), "usually ${file:private.pem}");
            }
            Some(MerchantKey::PrivatePem(pem.clone()))
        }
    }
}

fn check_classic(classic: &ClassicSwitches, found: &mut Findings) {
    api_path("classic.base_path", &classic.base_path, found);
    api_path("classic.token_path", &classic.token_path, found);
    whole_seconds("classic.token_life", Span(classic.token_life), found);
}

fn check_snap(snap: &SnapSwitches, found: &mut Findings) {
    for (index, path) in snap.base_paths.iter().enumerate() {
        api_path(&format!("snap.base_paths[{index}]"), path, found);
    }
    api_path("snap.token_path", &snap.token_path, found);
    whole_seconds("snap.token_life", Span(snap.token_life), found);
    within("snap.clock_skew", Span(snap.clock_skew), PAUSE, found);
    digits("snap.token_success_code", &snap.token_success_code, 7, found);
    digits("snap.active_number_case", &snap.active_number_case, 2, found);
    digits("snap.unknown_number_case", &snap.unknown_number_case, 2, found);
    digits("snap.paid_update_case", &snap.paid_update_case, 2, found);
    if snap.status_name.is_empty() || !snap.status_name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let message = format!("{} is not a member's name", found.shown("snap.status_name", &snap.status_name));
        found.report("snap.status_name", message, "letters and digits, such as virtualAccountStatus");
    }
}

fn digits(path: &str, text: &str, count: usize, found: &mut Findings) {
    if text.len() != count || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = format!("{} is not {count} digits", found.shown(path, text));
        found.report(path, message, "in quotes");
    }
}

/// A token's life, which the protocol tells in seconds.
fn whole_seconds(path: &str, span: Span, found: &mut Findings) {
    let life = within(path, span, TOKEN_LIFE, found);
    if life.subsec_nanos() != 0 {
        found.report(path, "not whole seconds", "the protocol tells a token's life in seconds");
    }
}

fn callback_url(path: &str, text: Option<&str>, found: &mut Findings) {
    let Some(text) = text else { return };
    let uri = text.parse::<http::Uri>().ok();
    let scheme = uri.as_ref().filter(|uri| uri.authority().is_some()).and_then(http::Uri::scheme_str);
    if !matches!(scheme, Some("http" | "https")) {
        // Not repeated: a callback address may carry a secret.
        found.report(path, "expected an http:// or https:// address", "such as http://127.0.0.1:3000/payments");
    }
}

impl Default for RawSandbox {
    fn default() -> Self {
        let SandboxConfig { listen, classic, snap, callbacks, .. } = SandboxConfig::default();
        Self { listen: listen.to_string(), merchants: None, classic, snap, callbacks }
    }
}

impl Default for RawSandboxMerchant {
    fn default() -> Self {
        Self {
            name: String::new(),
            merchant_code: String::new(),
            client_id: String::new(),
            client_secret: Secret::new(String::new()),
            public_key: None,
            private_key: None,
        }
    }
}

impl Default for RawSignatureSwitches {
    fn default() -> Self {
        SignatureSwitches::default().into()
    }
}

impl From<RawSignatureSwitches> for SignatureSwitches {
    fn from(raw: RawSignatureSwitches) -> Self {
        let scheme = RawSignature { scheme: raw.scheme, encoding: RawEncoding::Hex };
        Self { scheme: check::signature(&scheme).scheme, accept: raw.accept.into_iter().map(check::encoding).collect() }
    }
}

impl From<SignatureSwitches> for RawSignatureSwitches {
    fn from(switches: SignatureSwitches) -> Self {
        let scheme = SignatureConfig { scheme: switches.scheme, encoding: Encoding::Hex };
        Self {
            scheme: effective::signature(scheme).scheme,
            accept: switches.accept.into_iter().map(effective::encoding).collect(),
        }
    }
}

/// How this kind of file is read.
pub(super) const KIND: Kind = Kind { later: &[], example: "config/sandbox.yaml" };
/// Bounds of a token's life; short ones make refreshes easy to watch.
const TOKEN_LIFE: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_secs(1), std::time::Duration::from_secs(86_400));
