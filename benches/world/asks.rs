//! What apps ask and what Ayoconnect answers, by number.
//!
//! Requests are lean, as apps behind the gateway send them, with the blanks that common JSON encoders put;
//! answers are about 900 bytes for a body of the usual size. Account `n` belongs to merchant `n` modulo
//! their number, and everything about it follows from `n`.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;

use super::Sizes;

/// When everything happens.
pub(crate) const START: &str = "2026-01-05T03:00:00Z";

/// What is measured of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A create that is new.
    SnapCreate,
    /// A create that has its answer.
    SnapReplay,
    /// An update without the reference, which is attached.
    SnapUpdate,
    /// An inquiry.
    SnapInquiry,
    /// A create that is new, of the other generation.
    ClassicCreate,
}

impl Operation {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 5] =
        [Self::SnapCreate, Self::SnapReplay, Self::SnapUpdate, Self::SnapInquiry, Self::ClassicCreate];

    /// As it is called in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SnapCreate => "snap.create",
            Self::SnapReplay => "snap.create replayed",
            Self::SnapUpdate => "snap.update",
            Self::SnapInquiry => "snap.inquiry",
            Self::ClassicCreate => "classic.create",
        }
    }

    /// Status, `Ayova-Source` and `Ayova-Attached` of what comes back.
    pub(crate) const fn expected(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::SnapCreate | Self::SnapInquiry => (200, "upstream", ""),
            Self::SnapReplay => (200, "replay", ""),
            Self::SnapUpdate => (200, "upstream", "originalReferenceNo"),
            Self::ClassicCreate => (201, "upstream", ""),
        }
    }
}

/// Makes requests and answers.
#[derive(Clone, Debug)]
pub(crate) struct Asks {
    merchants: usize,
    accounts: usize,
    /// A member that nobody knows, which makes bodies as long as wanted.
    padding: String,
}

impl Asks {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let mut asks = Self { merchants: sizes.merchants, accounts: sizes.accounts, padding: String::new() };
        let missing = sizes.body.saturating_sub(asks.create(0).len());
        let frame = r#", "note": """#.len();
        if missing > frame {
            asks.padding = format!(r#", "note": "{}""#, "x".repeat(missing - frame));
        }
        asks
    }

    /// The body of the create of an account.
    pub(crate) fn create(&self, account: usize) -> String {
        format!(
            r#"{{"customerNo": "CUST{account:012}", "virtualAccountNo": "{account:011}", {}}}"#,
            self.account(account, "150000.00")
        )
    }

    /// The body of an update that leaves its reference to the gateway.
    pub(crate) fn update(&self, account: usize) -> String {
        format!(
            r#"{{"partnerServiceId": "   14629", "customerNo": "CUST{account:012}", "virtualAccountNo": "   14629{account:011}", {}}}"#,
            self.account(account, "175000.00")
        )
    }

    /// The body of a create of the other generation.
    pub(crate) fn classic(&self, account: usize) -> String {
        format!(
            r#"{{"virtualAccountName": "Budi Santoso Wijaya", "virtualAccountPhone": "6281234567890", "virtualAccountNumber": "{account:011}", "transactionId": "{}", "bankCode": "002", "expiresIn": 360, "totalAmount": {AMOUNT}, "billDetails": [{{"billName": "Tagihan toko daring", "billAmount": {AMOUNT}, "billDescription": {{"english": "Online shop order.", "indonesia": "Pembayaran pesanan toko daring."}}}}], "virtualAccountConfig": {{"virtualAccountType": "dynamic", "amountType": "closed"}}{}}}"#,
            id('c', account),
            self.padding
        )
    }

    /// What create and update have in common.
    fn account(&self, account: usize, amount: &str) -> String {
        format!(
            r#""virtualAccountName": "Budi Santoso Wijaya", "virtualAccountPhone": "6281234567890", "trxId": "{}", "totalAmount": {{"value": "{amount}", "currency": "IDR"}}, "expiredDate": "2026-01-06T10:00:00+07:00", "additionalInfo": {INFO}{}"#,
            id('t', account),
            self.padding
        )
    }

    /// A request of an operation.
    pub(crate) fn request(&self, operation: Operation, number: usize) -> Request<Full<Bytes>> {
        // A create is the account's; everything else comes to those there are, again and again.
        let account = number % self.accounts;
        let (method, path, body, id) = match operation {
            Operation::SnapCreate => (Method::POST, CREATE, self.create(number), id('e', number)),
            Operation::SnapReplay => (Method::POST, CREATE, self.create(account), id('e', account)),
            Operation::SnapUpdate => (Method::PUT, UPDATE, self.update(account), id('u', number)),
            Operation::SnapInquiry => (Method::POST, INQUIRY, inquiry(account), id('i', number)),
            Operation::ClassicCreate => (Method::POST, CLASSIC, self.classic(number), id('k', number)),
        };
        let whose = match operation {
            Operation::SnapCreate | Operation::ClassicCreate => number,
            Operation::SnapReplay | Operation::SnapUpdate | Operation::SnapInquiry => account,
        };
        let id_header = if operation == Operation::ClassicCreate { "a-correlation-id" } else { "x-external-id" };
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway.local")
            .header("user-agent", "merchant-sdk/2.4")
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", key(whose % self.merchants)))
            .header(id_header, id)
            .header("content-type", "application/json")
            .header("content-length", body.len())
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    }

    /// Upstream's answer to a request; nothing where it is not asked.
    pub(crate) fn answer(&self, operation: Operation, number: usize) -> Option<Response<Bytes>> {
        let account = number % self.accounts;
        let (status, body) = match operation {
            Operation::SnapReplay => return None,
            Operation::SnapCreate => (200, snap_answer("27", number, &created(number))),
            Operation::SnapUpdate => {
                let reference = format!(r#"{},"originalReferenceNo":"{}""#, named('u', number), id('e', account));
                (200, snap_answer("28", account, &reference))
            }
            Operation::SnapInquiry => (200, snap_answer("30", account, &created(account))),
            Operation::ClassicCreate => (201, classic_answer(number)),
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("content-length", length.into());
        headers.insert("x-timestamp", HeaderValue::from_static("2026-01-05T10:00:00+07:00"));
        Some(response)
    }
}

/// The body of an inquiry.
fn inquiry(account: usize) -> String {
    format!(
        r#"{{"partnerServiceId": "   14629", "customerNo": "CUST{account:012}", "virtualAccountNo": "   14629{account:011}", "trxId": "{}"}}"#,
        id('t', account)
    )
}

/// The key of a merchant.
pub(crate) fn key(merchant: usize) -> String {
    format!("mk_live_{merchant:032}")
}

/// A token, for both generations.
pub(crate) fn login() -> Response<Bytes> {
    Response::new(Bytes::from_static(
        br#"{"responseCode":"2007300","responseMessage":"Successful","tokenType":"BearerToken","responseTime":"20260105100000","accessToken":"341a7c1cdbf54655bb82538ac2224147","expiresIn":"3600"}"#,
    ))
}

/// 32 characters.
fn id(kind: char, number: usize) -> String {
    format!("7be2904fd1c36a{kind}{number:017}")
}

fn named(kind: char, number: usize) -> String {
    format!(r#""referenceNo":"{}""#, id(kind, number))
}

/// A create's reference is its own id.
fn created(account: usize) -> String {
    named('e', account)
}

fn snap_answer(service: &str, account: usize, reference: &str) -> String {
    format!(
        r#"{{"responseCode":"200{service}00","responseMessage":"Successful","virtualAccountData":{{"partnerServiceId":"   14629","customerNo":"CUST{account:012}","virtualAccountNo":"   14629{account:011}","virtualAccountName":"Budi Santoso Wijaya","virtualAccountPhone":"6281234567890","trxId":"{}","totalAmount":{{"value":"150000.00","currency":"IDR"}},"expiredDate":"2026-01-06T10:00:00+07:00",{reference},"virtualAccountStatus":"Active","additionalInfo":{{"bankCode":"014","isSingleUse":"Y","additionalInfo1":"Pembayaran pesanan toko daring - kirim sebelum jatuh tempo bulan ini","additionalInfo2":"budi.santoso@example.co.id","additionalInfo3":"INV-2026-11-0042 cabang Jakarta Selatan lantai dua gedung BB","howToPay":"Buka aplikasi, pilih Virtual Account, masukkan nomor, lalu konfirmasi dengan PIN Anda."}}}}}}"#,
        id('t', account)
    )
}

fn classic_answer(account: usize) -> String {
    format!(
        r#"{{"responseCode":201,"responseMessage":"created","responseTime":"20260105100000","referenceNumber":"aaccad392d7c42e098163c94bc738438","transactionId":"{}","virtualAccountData":{{"virtualAccountId":"2301110614699{account:014}","virtualAccountNumber":"12345000{account:011}","virtualAccountStatus":"UNUSED","virtualAccountName":"Budi Santoso Wijaya","virtualAccountPhone":"6281234567890","correlationId":"{}","customerId":"AYOAPP-559PAC23","totalAmount":{AMOUNT},"adminFee":{{"value":"4000.00","currency":"IDR"}},"billDetails":[{{"billName":"Tagihan toko daring","billAmount":{AMOUNT},"billDescription":{{"english":"Online shop order.","indonesia":"Pembayaran pesanan toko daring."}}}}],"expiredAt":"2026-01-05T16:00:00+07:00"}}}}"#,
        id('c', account),
        id('k', account)
    )
}

const CREATE: &str = "/va/api/v2.0/transfer-va/create-va";
const UPDATE: &str = "/va/api/v2.0/transfer-va/update-va";
const INQUIRY: &str = "/va/api/v2.0/transfer-va/inquiry-va";
const CLASSIC: &str = "/api/v1/virtualAccount";
const AMOUNT: &str = r#"{"value": "150000.00", "currency": "IDR"}"#;
const INFO: &str = r#"{"bankCode": "014", "isSingleUse": "Y", "additionalInfo1": "Pembayaran pesanan toko daring - kirim sebelum jatuh tempo bulan ini", "additionalInfo2": "budi.santoso@example.co.id", "additionalInfo3": "INV-2026-11-0042 cabang Jakarta Selatan lantai dua gedung BB"}"#;
