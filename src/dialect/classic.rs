//! The classic generation's table (`classic.md`), and nothing else.

use super::bank::BANK_CODES;
use super::field::{Attach, Field, Identity, Kind, Need};
use super::{
    AmountRule, BankRule, Dialect, Expiry, Header, HeaderSource, Key, Operation, OperationId, OperationKind, Repeat,
};

/// `POST /virtualAccount` (`classic.md` section 4).
pub static CREATE: Operation = Operation {
    id: OperationId::ClassicCreate,
    dialect: Dialect::Classic,
    kind: OperationKind::Create,
    method: http::Method::POST,
    path: PATH,
    service_code: "",
    success: 201,
    headers: HEADERS,
    query: &[],
    body: &[
        NAME,
        field("virtualAccountPhone", Need::Required, Kind::Phone(11, 15)),
        field("virtualAccountNumber", Need::Optional, Kind::DigitsOrEmpty(8, 17)),
        field("transactionId", Need::Keyed, Kind::Visible(32, 32)),
        field("bankCode", Need::Required, Kind::Choice(BANK_CODES)),
        field("expiresIn", Need::Required, EXPIRES_IN),
        TOTAL_AMOUNT,
        field("billDetails", Need::Required, Kind::Single(BILL)),
        field(
            "virtualAccountConfig",
            Need::Required,
            Kind::Object(&[
                field("virtualAccountType", Need::Required, Kind::Choice(&["static", "dynamic"])),
                field("amountType", Need::Required, Kind::Choice(&["closed", "open"])),
            ]),
        ),
    ],
    number: "virtualAccountNumber",
    bank_rule: Some(&BankRule {
        bank: &["bankCode"],
        uses: &["virtualAccountConfig", "virtualAccountType"],
        multi: "static",
        combination: &["virtualAccountConfig"],
        amount: AmountRule::Named {
            kind: &["virtualAccountConfig", "amountType"],
            closed: "closed",
            total: "totalAmount",
        },
        checks_number: true,
    }),
    expiry: Expiry::Any,
    key: Some(Key { id: "A-Correlation-ID", transaction: "transactionId" }),
    repeat: Repeat::Never,
    source: "/reference/createvirtualaccount-2",
};

/// `PATCH /virtualAccount` (`classic.md` section 5).
pub static UPDATE: Operation = Operation {
    id: OperationId::ClassicUpdate,
    dialect: Dialect::Classic,
    kind: OperationKind::Update,
    method: http::Method::PATCH,
    path: PATH,
    service_code: "",
    success: 200,
    headers: HEADERS,
    query: &[],
    body: &[
        ACCOUNT_ID,
        CUSTOMER_ID,
        TRANSACTION_ID,
        NAME,
        field("bankCode", Need::Completed(Attach::Identity(Identity::BankCode)), Kind::Choice(BANK_CODES)),
        field("virtualAccountNumber", Need::Optional, Kind::Padded(8, 17)),
        field("virtualAccountPhone", Need::Optional, Kind::Phone(11, 15)),
        field("expiresIn", Need::Optional, EXPIRES_IN),
        field("virtualAccountType", Need::Optional, Kind::Choice(&["static", "dynamic"])),
        TOTAL_AMOUNT,
    ],
    number: "virtualAccountNumber",
    bank_rule: None,
    expiry: Expiry::Any,
    key: Some(Key { id: "transactionId", transaction: "transactionId" }),
    repeat: Repeat::Always,
    source: "/reference/updatevirtualaccount-2",
};

/// `GET /virtualAccount` (`classic.md` section 5).
pub static GET: Operation = Operation {
    id: OperationId::ClassicGet,
    dialect: Dialect::Classic,
    kind: OperationKind::Read,
    method: http::Method::GET,
    path: PATH,
    service_code: "",
    success: 200,
    headers: HEADERS,
    query: &[
        ACCOUNT_ID,
        TRANSACTION_ID,
        field("bankCode", Need::Attached(Attach::Identity(Identity::BankCode)), Kind::Choice(BANK_CODES)),
        CUSTOMER_ID,
        field("virtualAccountNumber", Need::Lookup, Kind::Padded(8, 17)),
    ],
    body: &[],
    number: "virtualAccountNumber",
    bank_rule: None,
    expiry: Expiry::Any,
    key: None,
    repeat: Repeat::Always,
    source: "/reference/getvirtualaccountdetails",
};

const PATH: &str = "/virtualAccount";

const HEADERS: &[Header] = &[
    header("Authorization", HeaderSource::Attempt, Kind::Text(8, 4096), true),
    header("Content-Type", HeaderSource::Constant("application/json"), Kind::Json, true),
    header("Accept", HeaderSource::Constant("application/json"), Kind::Text(1, 1024), true),
    header("A-Correlation-ID", HeaderSource::Caller, Kind::Alphanumeric(32, 32), true),
    header("A-Merchant-Code", HeaderSource::Merchant, Kind::Alphanumeric(6, 6), true),
];

const NAME: Field = field("virtualAccountName", Need::Required, Kind::Text(1, 100));
const EXPIRES_IN: Kind = Kind::Integer(5, 1_051_200);
const AMOUNT: &[Field] = &[
    field("value", Need::Required, Kind::Money { whole: false }),
    field("currency", Need::Required, Kind::Choice(&["IDR"])),
];
const TOTAL_AMOUNT: Field = field("totalAmount", Need::Optional, Kind::Object(AMOUNT));
const BILL: &[Field] = &[
    field("billName", Need::Required, Kind::Text(1, 100)),
    field("billAmount", Need::Required, Kind::Object(AMOUNT)),
    field(
        "billDescription",
        Need::Optional,
        Kind::Object(&[
            field("english", Need::Optional, Kind::Text(0, 1000)),
            field("indonesia", Need::Optional, Kind::Text(0, 1000)),
        ]),
    ),
];
const ACCOUNT_ID: Field =
    field("virtualAccountId", Need::Attached(Attach::Identity(Identity::AccountId)), Kind::Alphanumeric(27, 27));
const CUSTOMER_ID: Field =
    field("customerId", Need::Attached(Attach::Identity(Identity::CustomerId)), Kind::Visible(13, 26));
const TRANSACTION_ID: Field = field("transactionId", Need::Attached(Attach::Fresh), Kind::Visible(32, 32));

const fn field(name: &'static str, need: Need, kind: Kind) -> Field {
    Field { name, need, kind }
}

const fn header(name: &'static str, source: HeaderSource, kind: Kind, demanded: bool) -> Header {
    Header { name, source, kind, demanded }
}
