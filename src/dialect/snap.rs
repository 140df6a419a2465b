//! The SNAP generation's table (`snap.md`), and nothing else.

use super::bank::BANK_CODES;
use super::field::{Attach, Field, Identity, Kind, Need};
use super::{
    AmountRule, BankRule, Dialect, Expiry, Header, HeaderSource, Key, Operation, OperationId, OperationKind, Repeat,
};

/// `POST /transfer-va/create-va` (`snap.md` section 4).
pub static CREATE: Operation = Operation {
    id: OperationId::SnapCreate,
    dialect: Dialect::Snap,
    kind: OperationKind::Create,
    method: http::Method::POST,
    path: "/transfer-va/create-va",
    service_code: "27",
    success: 200,
    headers: HEADERS,
    query: &[],
    body: &[
        field("customerNo", Need::Required, Kind::Alphanumeric(6, 20)),
        field("virtualAccountNo", Need::Optional, Kind::DigitsOrEmpty(11, 18)),
        NAME,
        PHONE,
        field("trxId", Need::Required, Kind::Visible(32, 32)),
        TOTAL_AMOUNT,
        EXPIRED_DATE,
        ADDITIONAL_INFO,
    ],
    number: "virtualAccountNo",
    bank_rule: Some(&BankRule { checks_number: true, ..BANK_RULE }),
    expiry: Expiry::Ahead("expiredDate"),
    key: Some(Key { id: "X-EXTERNAL-ID", transaction: "trxId" }),
    repeat: Repeat::SamePair,
    source: "/reference/va-snap-create-va",
};

/// `PUT /transfer-va/update-va` (`snap.md` section 5).
pub static UPDATE: Operation = Operation {
    id: OperationId::SnapUpdate,
    dialect: Dialect::Snap,
    kind: OperationKind::Update,
    method: http::Method::PUT,
    path: "/transfer-va/update-va",
    service_code: "28",
    success: 200,
    headers: HEADERS,
    query: &[],
    body: &[
        field("originalReferenceNo", Need::Attached(Attach::Reference), Kind::Visible(1, 64)),
        PARTNER_SERVICE_ID,
        CUSTOMER_NO,
        FULL_NUMBER,
        NAME,
        PHONE,
        TRX_ID,
        TOTAL_AMOUNT,
        EXPIRED_DATE,
        ADDITIONAL_INFO,
    ],
    number: "virtualAccountNo",
    bank_rule: Some(&BANK_RULE),
    expiry: Expiry::Any,
    key: Some(Key { id: "X-EXTERNAL-ID", transaction: "trxId" }),
    repeat: Repeat::SamePair,
    source: "/docs/update-virtual-account-1",
};

/// `POST /transfer-va/inquiry-va` (`snap.md` section 6).
pub static INQUIRY: Operation = Operation {
    id: OperationId::SnapInquiry,
    dialect: Dialect::Snap,
    kind: OperationKind::Read,
    method: http::Method::POST,
    path: "/transfer-va/inquiry-va",
    service_code: "30",
    success: 200,
    headers: HEADERS,
    query: &[],
    body: &[PARTNER_SERVICE_ID, CUSTOMER_NO, FULL_NUMBER, TRX_ID],
    number: "virtualAccountNo",
    bank_rule: None,
    expiry: Expiry::Any,
    key: None,
    repeat: Repeat::Always,
    source: "/reference/va-snap-inquiry-va",
};

/// Service code of the token call (`snap.md` section 1).
pub const TOKEN_SERVICE_CODE: &str = "73";

const HEADERS: &[Header] = &[
    header("Content-Type", HeaderSource::Constant("application/json"), Kind::Json, true),
    header("Authorization", HeaderSource::Attempt, Kind::Text(8, 4096), true),
    header("X-TIMESTAMP", HeaderSource::Attempt, Kind::Timestamp, true),
    header("X-SIGNATURE", HeaderSource::Attempt, Kind::Visible(1, 2048), true),
    header("X-CLIENT-KEY", HeaderSource::Attempt, Kind::Visible(1, 256), false),
    header("X-PARTNER-ID", HeaderSource::Merchant, Kind::Alphanumeric(6, 6), true),
    header("X-EXTERNAL-ID", HeaderSource::Caller, Kind::Alphanumeric(32, 32), true),
    header("CHANNEL-ID", HeaderSource::Merchant, Kind::Digits(5, 5), true),
    header("Accept", HeaderSource::Constant("application/json"), Kind::Text(1, 1024), false),
];

const NAME: Field = field("virtualAccountName", Need::Required, Kind::Text(1, 100));
const PHONE: Field = field("virtualAccountPhone", Need::Optional, Kind::Phone(10, 15));
const EXPIRED_DATE: Field = field("expiredDate", Need::Optional, Kind::Timestamp);
const TOTAL_AMOUNT: Field = field(
    "totalAmount",
    Need::Optional,
    Kind::Object(&[
        field("value", Need::Required, Kind::Money { whole: true }),
        field("currency", Need::Required, Kind::Choice(&["IDR"])),
    ]),
);
const ADDITIONAL_INFO: Field = field(
    "additionalInfo",
    Need::Required,
    Kind::Object(&[
        field("bankCode", Need::Required, Kind::Choice(BANK_CODES)),
        field("isSingleUse", Need::Required, Kind::Choice(&["Y", "N"])),
        field("additionalInfo1", Need::Optional, Kind::Text(0, 100)),
        field("additionalInfo2", Need::Optional, Kind::Text(0, 100)),
        field("additionalInfo3", Need::Optional, Kind::Text(0, 100)),
    ]),
);
const PARTNER_SERVICE_ID: Field =
    field("partnerServiceId", Need::Attached(Attach::Identity(Identity::PartnerServiceId)), Kind::Padded(8, 8));
const CUSTOMER_NO: Field =
    field("customerNo", Need::Attached(Attach::Identity(Identity::CustomerNo)), Kind::Alphanumeric(6, 20));
const FULL_NUMBER: Field = field("virtualAccountNo", Need::Required, Kind::Padded(19, 26));
const TRX_ID: Field = field("trxId", Need::Attached(Attach::TransactionId), Kind::Visible(32, 32));

const BANK_RULE: BankRule = BankRule {
    bank: &["additionalInfo", "bankCode"],
    uses: &["additionalInfo", "isSingleUse"],
    multi: "N",
    combination: &["additionalInfo", "isSingleUse"],
    amount: AmountRule::ZeroIsOpen(&["totalAmount", "value"]),
    checks_number: false,
};

const fn field(name: &'static str, need: Need, kind: Kind) -> Field {
    Field { name, need, kind }
}

const fn header(name: &'static str, source: HeaderSource, kind: Kind, demanded: bool) -> Header {
    Header { name, source, kind, demanded }
}
