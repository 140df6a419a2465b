//! The shapes a request takes on its way through the stack.
//!
//! Each is made in exactly one layer, so that the type of a request says how far it has come and a
//! layer put before what it needs does not compile. Data only; what is done with it is in `layers`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Instant;

use crate::caller::Unproven;
use crate::config::Secret;
use crate::dialect::{Dialect, Fault, Operation};
use crate::document::Document;
use crate::error::Reason;
use crate::notes::Notes;
use crate::reference::Account;
use crate::signature::{HmacKey, PrivateKey};
use crate::upstream::Token;

/// Whatever went wrong while reading a caller's body.
#[derive(Debug)]
pub struct BodyError(pub Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// A caller's body, not yet read.
pub type Inbound = UnsyncBoxBody<Bytes, BodyError>;

/// A merchant as the layers see it.
#[derive(Debug)]
pub struct Merchant {
    /// In logs and metrics.
    pub name: Arc<str>,
    /// `X-PARTNER-ID` and `A-Merchant-Code`.
    pub code: Arc<str>,
    /// The same, ready to send.
    pub code_header: HeaderValue,
    /// `CHANNEL-ID`, ready to send.
    pub channel_header: HeaderValue,
    /// `X-CLIENT-KEY` and the token calls.
    pub client_id: Secret<String>,
    /// The classic token call.
    pub client_secret: Secret<String>,
    /// Signs calls.
    pub hmac_key: HmacKey,
    /// Signs the SNAP token call and, where so configured, calls.
    pub private_key: Option<Arc<PrivateKey>>,
}

impl Merchant {
    /// Whether both log in with the same.
    #[must_use]
    pub fn has_credentials_of(&self, other: &Self) -> bool {
        let same_key = match (&self.private_key, &other.private_key) {
            (Some(one), Some(another)) => one.is_same(another),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_key
            && self.code == other.code
            && self.client_id.expose() == other.client_id.expose()
            && self.client_secret.expose() == other.client_secret.expose()
    }
}

/// An operation at its configured place.
#[derive(Debug)]
pub struct Route {
    /// What it is.
    pub operation: &'static Operation,
    /// How it is called.
    pub method: Method,
    /// Base path and path.
    pub path: String,
}

/// A request whose operation is known. Made by `dispatch`.
#[derive(Debug)]
pub struct Routed {
    /// Which operation.
    pub route: Arc<Route>,
    /// As it came.
    pub request: http::Request<Inbound>,
    /// When everything must be over.
    pub deadline: Instant,
}

/// A request whose merchant is known. Made by `identify`; the body's type says what later layers
/// have done with it.
#[derive(Debug)]
pub struct Call<B> {
    /// Which operation.
    pub route: Arc<Route>,
    /// Whose.
    pub merchant: Arc<Merchant>,
    /// When everything must be over.
    pub deadline: Instant,
    /// The caller's.
    pub headers: HeaderMap,
    /// The caller's query, not decoded.
    pub query: String,
    /// What the request holds of its merchant's allowance.
    pub admission: Arc<Admission>,
    /// The body, in whichever state.
    pub body: B,
}

impl<B> Call<B> {
    /// The same call with its body in another state.
    pub fn with_body<T>(self, body: T) -> (Call<T>, B) {
        let Self { route, merchant, deadline, headers, query, admission, body: before } = self;
        (Call { route, merchant, deadline, headers, query, admission, body }, before)
    }

    /// Which operation.
    pub fn operation(&self) -> &'static Operation {
        self.route.operation
    }
}

/// What a valid request says. Made by `validate`.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The body; absent where the operation has none.
    pub document: Option<Document>,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// What identifies it.
    pub ids: Ids,
    /// What is wrong with it only because of the time of day: it may not be sent as new, while a
    /// repetition of what was right in its time has its answer.
    pub overdue: Vec<Fault>,
    /// Whether an earlier try of it may have arrived; set by `idempotency`.
    pub in_doubt: bool,
}

/// The ids of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// `X-EXTERNAL-ID` or `A-Correlation-ID` as it will be sent; absent in classic get and update,
    /// where it is the record's.
    pub header: Option<Arc<str>>,
    /// Whether the gateway made the header's value.
    pub header_made: bool,
    /// `trxId` or `transactionId` of a create or update, where there is one already.
    pub transaction: Option<Arc<str>>,
    /// Whether the gateway made the transaction's id, so that it has to be put into the body.
    pub transaction_made: bool,
}

/// Everything that goes upstream but for what is made anew for every try. Made by `reference`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// How.
    pub method: Method,
    /// Where, query included.
    pub path_and_query: http::uri::PathAndQuery,
    /// All but `Authorization`, timestamp and signature.
    pub headers: HeaderMap,
    /// The very bytes that are sent and signed.
    pub body: Bytes,
}

/// One try of a request. Made by `retry`.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Which operation.
    pub route: Arc<Route>,
    /// Whose.
    pub merchant: Arc<Merchant>,
    /// When everything must be over.
    pub deadline: Instant,
    /// What is sent.
    pub outgoing: Arc<Outgoing>,
    /// What the request holds of its merchant's allowance.
    pub admission: Arc<Admission>,
}

/// A try that has its token. Made by `token`.
#[derive(Clone, Debug)]
pub struct Authorized {
    /// The try.
    pub attempt: Attempt,
    /// Good at this moment.
    pub token: Arc<Token>,
}

/// A try ready to go. Made by `sign`.
#[derive(Debug)]
pub struct Signed {
    /// Which operation.
    pub operation: &'static Operation,
    /// Whose.
    pub merchant: Arc<Merchant>,
    /// When everything must be over.
    pub deadline: Instant,
    /// The request; its URI has a path only.
    pub request: http::Request<Full<Bytes>>,
    /// What the request holds of its merchant's allowance.
    pub admission: Arc<Admission>,
}

/// What a request holds of its merchant's allowance, given back when nothing was sent; and its notes.
#[derive(Debug, Default)]
pub struct Admission {
    notes: Notes,
    held: Vec<Box<dyn Held>>,
}

/// A piece of an allowance; ends when it is dropped.
pub trait Held: Send + Sync + std::fmt::Debug {
    /// Called once at the end, told whether anything went upstream.
    fn release(&self, spent: bool);
}

impl Admission {
    /// An admission that holds these.
    #[must_use]
    pub fn holding(notes: Notes, held: Vec<Box<dyn Held>>) -> Self {
        Self { notes, held }
    }

    /// Something may go upstream now: the quota is used.
    pub fn spend(&self) {
        self.notes.sending();
    }

    /// What was about to go never left.
    pub fn unspend(&self) {
        self.notes.not_sent();
    }

    /// Where the request's layers write down what they know; may be kept after the admission has ended.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let spent = self.notes.sent() > 0;
        self.held.iter().for_each(|held| held.release(spent));
    }
}

/// An answer on its way to the caller.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Without the gateway's own, which `render` adds.
    pub headers: HeaderMap,
    /// Byte for byte.
    pub body: Bytes,
    /// Who answered.
    pub source: Source,
    /// Set where the gateway had a part in it.
    pub reason: Option<Reason>,
    /// Members and headers that were attached or replaced.
    pub attached: Vec<&'static str>,
    /// What the answer taught about an account; taken off by `idempotency`, which has it stored.
    pub learned: Option<Arc<Account>>,
    /// Whether it leaves open what became of an earlier try, so that it does not stand.
    pub doubt_remains: bool,
    /// Which operation, whose.
    pub about: About,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Ayoconnect, just now.
    Upstream,
    /// Ayoconnect, to an earlier or parallel request.
    Replay,
    /// The gateway itself.
    Gateway,
}

impl Source {
    /// The value of `Ayova-Source`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Replay => "replay",
            Self::Gateway => "gateway",
        }
    }
}

/// Why a try gave no answer that says what happened, or why there was none; a closed set, so that a log can
/// be searched for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection could be had.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// A status that leaves open what happened.
    Status,
    /// A success that cannot be read.
    BadAnswer,
    /// Accepted, the outcome comes later.
    Pending,
    /// No token could be had.
    NoToken,
    /// The breaker was open.
    BreakerOpen,
    /// The request's deadline was over before.
    Deadline,
    /// It could not be built or signed.
    Defect,
    /// The caller is nobody.
    Unproven(Unproven),
}

impl Cause {
    /// Name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Status => "status",
            Self::BadAnswer => "bad_answer",
            Self::Pending => "pending",
            Self::NoToken => "no_token",
            Self::BreakerOpen => "breaker_open",
            Self::Deadline => "deadline",
            Self::Defect => "defect",
            Self::Unproven(why) => why.name(),
        }
    }
}

/// What an answer is about; filled in by the layers it passes on its way out.
#[derive(Clone, Debug)]
pub struct About {
    /// Whose shape it has.
    pub dialect: Dialect,
    /// Absent where no route matched.
    pub operation: Option<&'static Operation>,
    /// Absent before it was known.
    pub merchant: Option<Arc<Merchant>>,
}

impl Default for About {
    /// Nothing is known: SNAP's shape (contract section 9).
    fn default() -> Self {
        Self { dialect: Dialect::Snap, operation: None, merchant: None }
    }
}

/// What `observe` wants to know of an answer, carried in the response's extensions.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which operation, whose.
    pub about: About,
    /// Who answered.
    pub source: Source,
    /// Why the gateway did.
    pub reason: Option<Reason>,
}
