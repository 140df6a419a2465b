//! What the simulated Ayoconnect is told: its merchants and every switch the protocol leaves open.
//!
//! Promises that `Default` is the sample the gateway's own sample configuration talks to, and that
//! each switch has the name and default of `protocol/README.md` sections 3 and 4. What a switch
//! *does* is the simulator's affair; the switches are read as they stand here, the rest of the file by
//! `sandbox_file`. The doc comments become the schema's descriptions.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::quantity::{self, Amount, Span};
use super::sandbox_file::{RawSignatureSwitches, StateByBank};

/// One valid sandbox configuration (contract section 9).
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Where the simulator listens.
    pub listen: SocketAddr,
    /// At least one; names and codes are unique.
    pub merchants: Vec<SandboxMerchant>,
    /// How the classic generation behaves.
    pub classic: ClassicSwitches,
    /// How the SNAP generation behaves.
    pub snap: SnapSwitches,
    /// How payments are announced.
    pub callbacks: CallbackSwitches,
}

/// A merchant the simulator knows.
#[derive(Clone, Debug)]
pub struct SandboxMerchant {
    /// Name in the control interface.
    pub name: Arc<str>,
    /// Six alphanumerics: `X-PARTNER-ID` and `A-Merchant-Code`.
    pub merchant_code: Arc<str>,
    /// What the merchant logs in as.
    pub client_id: String,
    /// Proves the classic login and keys the SNAP HMAC.
    pub client_secret: Secret<String>,
    /// Checks the SNAP login.
    pub key: MerchantKey,
}

/// The merchant's RSA key, whichever half was given.
#[derive(Clone, Debug)]
pub enum MerchantKey {
    /// PEM of the public half (SPKI), all that checking needs.
    PublicPem(String),
    /// PEM of the private half; its public half is derived.
    PrivatePem(Secret<String>),
}

/// How the classic generation behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassicSwitches {
    /// Prefix of the operations' paths, without a final slash.
    pub base_path: String,
    /// Whole path of the token call.
    pub token_path: String,
    /// How long a token is good, and what `expiresIn` says, in whole seconds.
    #[serde(with = "quantity::span")]
    #[schemars(with = "Span")]
    pub token_life: Duration,
    /// HTTP status of a refused request: 503 as observed, or 400 or 412 as in sibling products.
    #[schemars(range(min = 400, max = 599))]
    pub validation_status: u16,
    /// `responseCode` in the body of a successful update, whose HTTP status is 200 all the same.
    #[schemars(range(min = 200, max = 299))]
    pub update_body_code: u16,
    /// Whether an update may turn open into closed and back.
    pub allow_amount_type_change: bool,
    /// Whether an update may turn a BNI number from dynamic to static and back.
    pub allow_bni_type_change: bool,
    /// States in which an update is taken.
    #[schemars(length(min = 1))]
    pub updatable_states: Vec<ClassicState>,
    /// Which table of number lengths holds.
    pub number_rules: ClassicNumberRules,
    /// First state by bank; a bank that is not listed starts at `UNUSED`.
    #[schemars(with = "StateByBank")]
    pub initial_state: BTreeMap<Bank, ClassicState>,
    /// Whether get and update must carry the create's `A-Correlation-ID`.
    pub strict_flow: bool,
    /// Whether the bank's question about a `PAID` number brings it back to `INQUIRED`.
    pub paid_to_inquired: bool,
    /// Least closed amount in hundredths of a rupiah; absent: anything above zero.
    #[serde(with = "quantity::bound")]
    #[schemars(with = "Amount")]
    pub min_closed_amount: Option<u64>,
}

/// How the SNAP generation behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnapSwitches {
    /// Prefixes under which the operations are mounted, without a final slash; at least one.
    #[schemars(length(min = 1))]
    pub base_paths: Vec<String>,
    /// Whole path of the token call.
    pub token_path: String,
    /// Service digits of response codes.
    pub service_code_profile: ServiceCodeProfile,
    /// `responseCode` of a successful token call, seven digits.
    pub token_success_code: String,
    /// Which signatures are taken.
    #[schemars(with = "RawSignatureSwitches")]
    pub signature: SignatureSwitches,
    /// Whether `totalAmount` is demanded on create.
    pub require_total_amount: bool,
    /// What a repeated pair of `X-EXTERNAL-ID` and `trxId` meets.
    pub idempotency_mode: IdempotencyMode,
    /// Which table of number lengths holds.
    pub number_rules: SnapNumberRules,
    /// How long a phone number may be.
    pub phone_rule: PhoneRule,
    /// Which bank offers which kind of virtual account.
    pub bank_matrix: BankMatrix,
    /// Least closed amount in hundredths of a rupiah; absent: anything above zero.
    #[serde(with = "quantity::bound")]
    #[schemars(with = "Amount")]
    pub min_closed_amount: Option<u64>,
    /// Least open payment in hundredths of a rupiah; absent: anything above zero.
    #[serde(with = "quantity::bound")]
    #[schemars(with = "Amount")]
    pub min_open_amount: Option<u64>,
    /// HTTP methods of update-va.
    #[schemars(length(min = 1))]
    pub update_methods: Vec<UpdateMethod>,
    /// Where answers carry `referenceNo`.
    pub reference_place: ReferencePlace,
    /// Name of the state's member inside `virtualAccountData`.
    pub status_name: String,
    /// JSON type of `latestPaidAmount`.
    pub latest_paid_amount: PaidAmountShape,
    /// Where create carries `bankCode`.
    pub bank_code_place: MemberPlace,
    /// Where update carries `originalReferenceNo`.
    pub original_reference_place: MemberPlace,
    /// Whether update and inquiry must carry the create's `trxId`.
    pub strict_trx_id: bool,
    /// Case digits (with HTTP 404) of a create whose number is still active.
    pub active_number_case: String,
    /// Case digits (with HTTP 404) of an inquiry for an unknown number.
    pub unknown_number_case: String,
    /// Case digits (with HTTP 404) of an update of an Inactive-Paid single-use number.
    pub paid_update_case: String,
    /// Whether an update may turn open into closed and back.
    pub allow_open_closed_change: bool,
    /// How far `X-TIMESTAMP` may be from real time, either way.
    #[serde(with = "quantity::span")]
    #[schemars(with = "Span")]
    pub clock_skew: Duration,
    /// How long a token is good, and what `expiresIn` says, in whole seconds.
    #[serde(with = "quantity::span")]
    #[schemars(with = "Span")]
    pub token_life: Duration,
    /// JSON type of `expiresIn`.
    pub expires_in_type: NumberShape,
}

/// Which signatures of transactional SNAP calls are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawSignatureSwitches", into = "RawSignatureSwitches")]
pub struct SignatureSwitches {
    /// Which string, which key.
    pub scheme: crate::signature::Scheme,
    /// Text forms that are taken; at least one.
    pub accept: Vec<crate::signature::Encoding>,
}

/// How payments are announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CallbackSwitches {
    /// Where SNAP payments are announced; absent: nowhere until the control interface says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snap: Option<String>,
    /// Where classic payments are announced; absent: nowhere until the control interface says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classic: Option<String>,
    /// How long the receiver may take.
    #[serde(with = "quantity::span")]
    #[schemars(with = "Span")]
    pub timeout: Duration,
    /// Pauses before the second, third, ... attempt, from the end of the failed one.
    #[serde(with = "quantity::spans")]
    #[schemars(with = "Vec<Span>")]
    pub retry_delays: Vec<Duration>,
    /// How they are signed.
    pub sign: CallbackSigning,
}

/// How callbacks are signed, in X-SIGNATURE and X-TIMESTAMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallbackSigning {
    /// Not at all, as far as Ayoconnect documents them.
    None,
    /// HMAC-SHA512 with the merchant's client secret; the token in the string is empty.
    HmacSha512,
    /// SHA256withRSA with the shipped throw-away key.
    RsaTransactional,
}

/// A bank whose virtual accounts Ayoconnect offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Bank {
    /// Bank Rakyat Indonesia.
    Bri,
    /// Bank Mandiri.
    Mandiri,
    /// Bank Negara Indonesia.
    Bni,
    /// Bank Central Asia.
    Bca,
}

impl Bank {
    /// The bank's three digits, as `bankCode` carries them.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Bri => "002",
            Self::Mandiri => "008",
            Self::Bni => "009",
            Self::Bca => "014",
        }
    }
}

/// State of a classic virtual account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClassicState {
    /// Created, nobody has asked.
    Unused,
    /// The bank has asked.
    Inquired,
    /// Paid, and may be paid again.
    Paid,
    /// Paid, and done.
    Inactive,
    /// Too late.
    Expired,
}

/// Which table of classic number lengths holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassicNumberRules {
    /// 8 to 17 own digits, 9 for BNI.
    Seed,
    /// The tighter table by bank of the newer page.
    Newer,
}

/// Which table of SNAP number lengths holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapNumberRules {
    /// The table by bank; no other is known.
    Standard,
}

/// Which bank offers which kind of virtual account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BankMatrix {
    /// The published table; no other is known.
    Standard,
}

/// Service digits of SNAP response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceCodeProfile {
    /// 27, 28, 30 and 73, as the national standard has it.
    Standard,
    /// 24, 25, 24 and 73, as Ayoconnect's error page prints them.
    AyoconnectErrorsPage,
}

/// What a repeated pair of `X-EXTERNAL-ID` and `trxId` meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdempotencyMode {
    /// The first answer again.
    Replay,
    /// 409 within the same day (UTC+7).
    Conflict,
}

/// How long a phone number may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhoneRule {
    /// 10 to 15 digits in all, `62` included.
    TotalLength,
    /// 10 to 15 digits after `62`.
    AfterPrefix,
}

/// HTTP method of update-va.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum UpdateMethod {
    /// By the standard.
    Put,
    /// At some providers.
    Post,
}

/// Where answers carry `referenceNo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReferencePlace {
    /// Inside `virtualAccountData`.
    VirtualAccountData,
    /// Beside `responseCode`.
    Top,
    /// Inside `virtualAccountData.additionalInfo`.
    AdditionalInfo,
}

/// Where a request carries a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MemberPlace {
    /// At the top of the body.
    Top,
    /// Inside `additionalInfo`.
    AdditionalInfo,
}

/// JSON type of `latestPaidAmount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaidAmountShape {
    /// `{"value": "10000.00", "currency": "IDR"}`.
    Object,
    /// `"10000.00"`.
    String,
}

/// JSON type of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NumberShape {
    /// `"3600"`.
    String,
    /// `3600`.
    Number,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            merchants: vec![SandboxMerchant::default()],
            classic: ClassicSwitches::default(),
            snap: SnapSwitches::default(),
            callbacks: CallbackSwitches::default(),
        }
    }
}

impl Default for SandboxMerchant {
    fn default() -> Self {
        Self {
            name: Arc::from("sample"),
            merchant_code: Arc::from(SAMPLE_MERCHANT_CODE),
            client_id: SAMPLE_CLIENT_ID.to_owned(),
            client_secret: Secret::new(SAMPLE_CLIENT_SECRET.to_owned()),
            key: MerchantKey::PrivatePem(Secret::new(SAMPLE_KEY_PEM.trim_end().to_owned())),
        }
    }
}

impl Default for ClassicSwitches {
    fn default() -> Self {
        Self {
            base_path: "/api/v1".to_owned(),
            token_path: "/v1/oauth/client_credential/accesstoken".to_owned(),
            token_life: Duration::from_secs(3599),
            validation_status: 503,
            update_body_code: 201,
            allow_amount_type_change: false,
            allow_bni_type_change: false,
            updatable_states: vec![ClassicState::Unused, ClassicState::Inquired, ClassicState::Paid],
            number_rules: ClassicNumberRules::Seed,
            initial_state: BTreeMap::from([(Bank::Bni, ClassicState::Inquired)]),
            strict_flow: true,
            paid_to_inquired: false,
            min_closed_amount: None,
        }
    }
}

impl Default for SnapSwitches {
    fn default() -> Self {
        Self {
            base_paths: vec!["/va/api/v2.0".to_owned()],
            token_path: "/va/api/v2.0/access-token/b2b".to_owned(),
            service_code_profile: ServiceCodeProfile::Standard,
            token_success_code: "2007300".to_owned(),
            signature: SignatureSwitches::default(),
            require_total_amount: false,
            idempotency_mode: IdempotencyMode::Replay,
            number_rules: SnapNumberRules::Standard,
            phone_rule: PhoneRule::TotalLength,
            bank_matrix: BankMatrix::Standard,
            min_closed_amount: Some(10_000 * 100),
            min_open_amount: None,
            update_methods: vec![UpdateMethod::Put, UpdateMethod::Post],
            reference_place: ReferencePlace::VirtualAccountData,
            status_name: "virtualAccountStatus".to_owned(),
            latest_paid_amount: PaidAmountShape::Object,
            bank_code_place: MemberPlace::AdditionalInfo,
            original_reference_place: MemberPlace::Top,
            strict_trx_id: false,
            active_number_case: "12".to_owned(),
            unknown_number_case: "12".to_owned(),
            paid_update_case: "14".to_owned(),
            allow_open_closed_change: false,
            clock_skew: Duration::from_secs(5 * 60),
            token_life: Duration::from_secs(3600),
            expires_in_type: NumberShape::String,
        }
    }
}

impl Default for SignatureSwitches {
    fn default() -> Self {
        Self {
            scheme: crate::signature::Scheme::HmacSha512,
            accept: vec![crate::signature::Encoding::Hex, crate::signature::Encoding::Base64],
        }
    }
}

impl Default for CallbackSwitches {
    fn default() -> Self {
        Self {
            snap: None,
            classic: None,
            timeout: Duration::from_secs(10),
            retry_delays: vec![Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(30)],
            sign: CallbackSigning::None,
        }
    }
}

/// Merchant code of the sample merchant.
pub const SAMPLE_MERCHANT_CODE: &str = "AYOTST";
/// Client id of the sample merchant.
pub const SAMPLE_CLIENT_ID: &str = "sandbox-client";
/// Client secret of the sample merchant; published, so it guards nothing.
pub const SAMPLE_CLIENT_SECRET: &str = "sandbox-secret";
/// The sample merchant's private key; published, so it guards nothing.
pub const SAMPLE_KEY_PEM: &str = include_str!("../../config/sandbox-key.pem");
/// What the simulator signs callbacks with; published, so it guards nothing.
pub const CALLBACK_KEY_PEM: &str = include_str!("../../config/sandbox-callback-key.pem");
/// Its public half.
pub const CALLBACK_PUBLIC_PEM: &str = include_str!("../../config/sandbox-callback-public.pem");
