//! What became of one try: answered, never sent, or nobody knows.
//!
//! The three are kept apart because they allow different things: only what never left may be sent
//! again without a thought (`errors.md` sections 1 and 4). Decides nothing about repeating.

use bytes::Bytes;
use http::header::{self, CONNECTION};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::call::Cause;
use crate::dialect::code::{Category, ResponseCode};
use crate::dialect::{Dialect, Operation, OperationKind};
use crate::document::{Document, Kind, Value};

/// What became of one try.
#[expect(clippy::large_enum_variant, reason = "nearly every outcome is an answer; a box would cost each an allocation")]
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Upstream answered, and the answer says what happened.
    Answered(Answer),
    /// The request provably never reached upstream.
    NotSent(NotSent),
    /// It may have happened.
    Unknown(Unknown),
}

/// Why a request never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// No connection could be had.
    Connect,
    /// No token could be had.
    NoToken,
    /// The breaker is open.
    BreakerOpen,
    /// The deadline was over before.
    Deadline,
    /// It could not be built or signed.
    Defect,
}

/// Why nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No answer in time.
    Timeout,
    /// The connection broke after the first byte may have left.
    Broken,
    /// A 5xx that does not say that nothing happened.
    ServerError {
        /// Its status.
        status: u16,
        /// Whether it had an envelope, so that at least the application answered.
        enveloped: bool,
    },
    /// A success whose body is empty, cut off or no JSON object, or an answer over the size bound.
    BadAnswer,
    /// Accepted, the outcome comes later (`errors.md` section 4: SNAP 202).
    Pending,
}

impl Outcome {
    /// All values of the metric's `outcome` label.
    pub const LABELS: [&'static str; 3] = ["answered", "not_sent", "unknown"];

    /// The status received and what went wrong.
    #[must_use]
    pub fn ending(&self) -> (Option<StatusCode>, Option<Cause>) {
        match self {
            Self::Answered(answer) => (Some(answer.status), None),
            Self::NotSent(NotSent::Connect) => (None, Some(Cause::Connect)),
            Self::NotSent(NotSent::NoToken) => (None, Some(Cause::NoToken)),
            Self::NotSent(NotSent::BreakerOpen) => (None, Some(Cause::BreakerOpen)),
            Self::NotSent(NotSent::Deadline) => (None, Some(Cause::Deadline)),
            Self::NotSent(NotSent::Defect) => (None, Some(Cause::Defect)),
            Self::Unknown(Unknown::Timeout) => (None, Some(Cause::Timeout)),
            Self::Unknown(Unknown::Broken) => (None, Some(Cause::Broken)),
            Self::Unknown(Unknown::ServerError { status, .. }) => ((*status).try_into().ok(), Some(Cause::Status)),
            Self::Unknown(Unknown::BadAnswer) => (None, Some(Cause::BadAnswer)),
            Self::Unknown(Unknown::Pending) => (None, Some(Cause::Pending)),
        }
    }

    /// Value of the metric's `outcome` label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::NotSent(_) => "not_sent",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Upstream's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Without those of one connection.
    pub headers: HeaderMap,
    /// Byte for byte.
    pub body: Bytes,
    /// The body where it is a JSON object.
    pub document: Option<Document>,
    /// Whether an earlier try of the same request may have arrived before; set by `retry`.
    pub repeated: bool,
}

impl Answer {
    /// Reads the body once.
    #[must_use]
    pub fn new(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Self {
        connection_headers(&headers).iter().for_each(|name| {
            headers.remove(name);
        });
        HOP_BY_HOP.iter().for_each(|name| {
            headers.remove(name);
        });
        let document = Document::parse(body.clone()).ok().filter(|document| document.root().kind() == Kind::Object);
        Self { status, headers, body, document, repeated: false }
    }

    /// SNAP's response code, whether written as a text or a number.
    #[must_use]
    pub fn code(&self) -> Option<ResponseCode> {
        let value = self.document.as_ref()?.root().member("responseCode")?;
        match value.as_str() {
            Some(text) => ResponseCode::parse(text),
            None => ResponseCode::parse(&value.as_integer()?.to_string()),
        }
    }

    /// The `responseCode` of either generation, as far as it is one: SNAP's has seven digits, classic's
    /// three or four.
    #[must_use]
    pub fn response_code(&self) -> Option<u32> {
        let value = self.document.as_ref()?.root().member("responseCode")?;
        let code = match value.as_str() {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Some(_) => None,
            None => value.as_integer().and_then(|number| u32::try_from(number).ok()),
        };
        code.filter(|code| *code < 10_000_000)
    }

    /// Whether the token is to blame (contract section 5 rule 1).
    #[must_use]
    pub fn blames_token(&self, dialect: Dialect) -> bool {
        self.status == StatusCode::UNAUTHORIZED
            && match dialect {
                Dialect::Classic => true,
                Dialect::Snap => self.code().is_some_and(|code| code.category() == Category::AuthToken),
            }
    }

    /// Whether credentials or signature are to blame, which no new token mends (`errors.md` section 4).
    #[must_use]
    pub fn refuses_credentials(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
            && self.code().is_some_and(|code| code.category() == Category::AuthFatal)
    }

    /// Whether upstream does not know the reference (`snap.md` section 5: 404 case 01).
    #[must_use]
    pub fn knows_no_reference(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.code().is_some_and(|code| code.case == 1)
    }

    /// Whether upstream knows the ids already: after a try of our own that means "arrived".
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT
    }

    /// Whether it says that the outcome comes later, by its status or by its code.
    #[must_use]
    pub fn is_pending(&self, dialect: Dialect) -> bool {
        let by_code = || self.code().is_some_and(|code| code.category() == Category::Pending);
        dialect == Dialect::Snap && self.status.is_success() && (self.status == StatusCode::ACCEPTED || by_code())
    }

    /// Whether classic says that the correlation id is in use (code 0325): after a try of our own that
    /// means "arrived", as a conflict does in SNAP.
    #[must_use]
    pub fn knows_the_flow(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Classic && self.classic_codes().iter().any(|code| code == FLOW_IN_USE)
    }

    /// The four-digit codes of a classic refusal, however they are written: as a text, as a number, or
    /// at the end of `message` (`errors.md` section 1). One that cannot be read is empty.
    fn classic_codes(&self) -> Vec<String> {
        let Some(document) = &self.document else { return Vec::new() };
        let root = document.root();
        let inner = root.member("errors").into_iter().flat_map(|errors| errors.elements().map(classic_code));
        let outer = ["code", "responseCode"].into_iter().filter_map(|name| root.member(name)).map(code_text);
        // The outer one is mostly the HTTP status over again, which is no code.
        inner.chain(outer.filter(|code| code.len() == 4)).collect()
    }

    /// Whether it says nothing: something before Ayoconnect answered (502, 503 or 504 without an
    /// envelope), or a success is empty, cut off or not JSON.
    #[must_use]
    pub fn says_nothing(&self) -> bool {
        self.document.is_none() && matches!(self.status.as_u16(), 200..=299 | 502..=504)
    }
}

/// Whether an answer of this status stands, so that it is kept for repetitions (contract section 5
/// rule 4).
#[must_use]
pub fn is_definite(status: StatusCode) -> bool {
    match status.as_u16() {
        200..=299 => true,
        401 | 408 | 429 => false,
        400..=499 => true,
        _ => false,
    }
}

/// Headers of one connection, which are never passed on (RFC 9110 section 7.6.1).
static HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether a header is of one connection only, whatever `Connection` says.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Headers that `Connection` declares to be of this connection only, whatever their case.
#[must_use]
pub fn connection_headers(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok()).collect()
}

/// What an answer means for this operation.
#[must_use]
pub fn classify(operation: &Operation, answer: Answer) -> Outcome {
    if operation.kind == OperationKind::Read {
        return Outcome::Answered(answer);
    }
    let status = answer.status.as_u16();
    if answer.status.is_success() && answer.document.is_none() && !is_object(&answer.body) {
        Outcome::Unknown(Unknown::BadAnswer)
    } else if answer.is_pending(operation.dialect) {
        Outcome::Unknown(Unknown::Pending)
    } else if answer.status.is_server_error() && !refuses(operation.dialect, &answer) {
        Outcome::Unknown(Unknown::ServerError { status, enveloped: answer.document.is_some() })
    } else {
        Outcome::Answered(answer)
    }
}

/// Whether a lenient reader finds an object: what only the strict one refuses, such as a repeated
/// name, is no lost answer, and asking again would bring the same.
fn is_object(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).is_ok()
}

/// Whether a server error is really a refusal: classic answers 503 with `errors[]` to nearly
/// everything, except where a code says that nobody knows (`errors.md` section 1).
fn refuses(dialect: Dialect, answer: &Answer) -> bool {
    if dialect != Dialect::Classic || answer.status != StatusCode::SERVICE_UNAVAILABLE {
        return false;
    }
    let codes = answer.classic_codes();
    let refusal = |code: &String| !code.is_empty() && !DOUBTFUL.contains(&code.as_str());
    !codes.is_empty() && codes.iter().all(refusal)
}

/// An entry's code; failing that, the one its message ends with.
fn classic_code(error: Value<'_>) -> String {
    let code = error.member("code").map(code_text).filter(|code| !code.is_empty());
    code.unwrap_or_else(|| {
        let message = error.member("message").and_then(Value::as_str).unwrap_or_default();
        let last = message.rsplit('.').next().unwrap_or_default();
        if last.len() == 4 && last.bytes().all(|byte| byte.is_ascii_digit()) { last.to_owned() } else { String::new() }
    })
}

/// A code as four digits; a number has lost its leading zeros.
fn code_text(value: Value<'_>) -> String {
    match value.as_str() {
        Some(text) => text.trim().to_owned(),
        None => value.as_integer().map_or_else(String::new, |number| format!("{number:04}")),
    }
}

/// Classic code of a correlation id that is in use.
const FLOW_IN_USE: &str = "0325";

/// Classic codes after which the operation may have happened: bank timeout, internal error.
const DOUBTFUL: [&str; 2] = ["0025", "0201"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::OperationId;

    fn outcome(operation: OperationId, status: u16, body: &'static str) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer::new(status, HeaderMap::new(), Bytes::from_static(body.as_bytes()));
        match classify(operation.operation(), answer) {
            Outcome::Unknown(Unknown::ServerError { status, .. }) => format!("ServerError({status})"),
            Outcome::Unknown(why) => format!("{why:?}"),
            other => other.label().to_owned(),
        }
    }

    #[test]
    fn a_success_that_says_nothing_is_no_success() {
        for operation in [OperationId::SnapCreate, OperationId::ClassicUpdate] {
            assert_eq!(outcome(operation, 200, "{}"), "answered");
            for body in ["", "{\"a\":", "<html>", "[]", "null"] {
                assert_eq!(outcome(operation, 200, body), "BadAnswer", "{body}");
            }
        }
        assert_eq!(outcome(OperationId::SnapInquiry, 200, ""), "answered");
    }

    #[test]
    fn a_classic_503_with_errors_is_a_refusal() {
        let create = OperationId::ClassicCreate;
        assert_eq!(outcome(create, 503, r#"{"errors":[{"code":"0505"}]}"#), "answered");
        assert_eq!(outcome(create, 503, r#"{"errors":[{"code":"0924"}]}"#), "answered");
        for body in [
            r#"{"errors":[{"code":"0025"}]}"#,
            r#"{"errors":[{"code":"0505"},{"code":"0201"}]}"#,
            r#"{"errors":[]}"#,
            "{}",
            "",
        ] {
            assert_eq!(outcome(create, 503, body), "ServerError(503)", "{body}");
        }
        assert_eq!(outcome(create, 502, r#"{"errors":[{"code":"0505"}]}"#), "ServerError(502)");
        assert_eq!(outcome(OperationId::SnapCreate, 503, r#"{"errors":[{"code":"0505"}]}"#), "ServerError(503)");
        assert_eq!(outcome(OperationId::SnapUpdate, 504, r#"{"responseCode":"5042800"}"#), "ServerError(504)");
    }

    #[test]
    fn a_code_is_read_however_it_is_written_and_doubted_where_it_cannot_be() {
        let create = OperationId::ClassicCreate;
        assert_eq!(outcome(create, 503, r#"{"responseCode":503,"errors":[{"code":505}]}"#), "answered");
        for body in [
            r#"{"errors":[{"code":201}]}"#,
            r#"{"code":"0201","errors":[{"code":"0505"}]}"#,
            r#"{"errors":[{"message":"error.validator.0025"}]}"#,
            r#"{"errors":[{"details":"something"}]}"#,
            r#"{"errors":[{"code":{}}]}"#,
        ] {
            assert_eq!(outcome(create, 503, body), "ServerError(503)", "{body}");
        }
    }

    #[test]
    fn accepted_is_not_done() {
        for operation in [OperationId::SnapCreate, OperationId::SnapUpdate] {
            assert_eq!(outcome(operation, 202, r#"{"responseCode":"2022700"}"#), "Pending");
            assert_eq!(outcome(operation, 200, r#"{"responseCode":"2022700"}"#), "Pending");
            assert_eq!(outcome(operation, 200, r#"{"responseCode":"2002700"}"#), "answered");
        }
        assert_eq!(outcome(OperationId::SnapInquiry, 202, "{}"), "answered");
        assert_eq!(outcome(OperationId::ClassicCreate, 202, "{}"), "answered");
    }

    #[test]
    fn the_token_is_to_blame_only_where_upstream_says_so() {
        let answer = |status: u16, body: &'static str| {
            Answer::new(StatusCode::from_u16(status).unwrap(), HeaderMap::new(), Bytes::from_static(body.as_bytes()))
        };
        assert!(answer(401, r#"{"responseCode":"4013001"}"#).blames_token(Dialect::Snap));
        assert!(answer(401, r#"{"responseCode":4012703}"#).blames_token(Dialect::Snap));
        assert!(!answer(401, r#"{"responseCode":"4013000"}"#).blames_token(Dialect::Snap));
        assert!(!answer(401, "").blames_token(Dialect::Snap));
        assert!(answer(401, "").blames_token(Dialect::Classic));
        assert!(!answer(403, "").blames_token(Dialect::Classic));
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for name in ["Connection", "Transfer-Encoding", "Content-Length", "Content-Type", "X-TIMESTAMP"] {
            headers.insert(http::HeaderName::try_from(name).unwrap(), http::HeaderValue::from_static("1"));
        }
        let answer = Answer::new(StatusCode::OK, headers, Bytes::new());
        let mut left: Vec<_> = answer.headers.keys().map(http::HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "x-timestamp"]);
    }
}
