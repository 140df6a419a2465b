//! What a request to upstream is made of, but for what is made anew for every try.
//!
//! Promises that credentials, cookies and everything that belongs to the connection between app and
//! gateway stay behind. Pure; which header comes from where is the table's word.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::call::{Checked, Merchant};
use crate::dialect::{HeaderSource, Need, Operation, OperationId};
use crate::document::Member;
use crate::error::Error;
use crate::upstream::outcome::{connection_headers, is_hop_by_hop};

/// A path and query as hyper wants it.
///
/// # Errors
/// Where a configured path is none, which `config` lets through for no path.
pub fn path(text: &str) -> Result<PathAndQuery, Error> {
    PathAndQuery::try_from(text).map_err(|_| Error::Internal)
}

/// The query with its members set and what is only for looking up left out; SNAP has none.
#[must_use]
pub fn query(operation: &Operation, checked: &Checked, members: &[Member]) -> String {
    if operation.query.is_empty() {
        return String::new();
    }
    let lookup = |name: &str| operation.query.iter().any(|field| field.name == name && field.need == Need::Lookup);
    let set = |name: &str| members.iter().any(|member| member.name == name);
    let mut out = form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
    for (name, value) in checked.query.iter().filter(|(name, _)| !lookup(name) && !set(name)) {
        out.append_pair(name, value);
    }
    for member in members {
        out.append_pair(member.name, &member.value);
    }
    out.finish()
}

/// The table's headers, then whatever else the caller sent end to end.
#[must_use]
pub fn headers(operation: &Operation, merchant: &Merchant, caller: &HeaderMap, id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    let given = |name: &str| caller.get(name).cloned();
    for (header, name) in operation.headers.iter().zip(names(operation)) {
        let value = match header.source {
            HeaderSource::Constant(value) => Some(HeaderValue::from_static(value)),
            HeaderSource::Attempt => None,
            HeaderSource::Caller => id.and_then(|id| HeaderValue::try_from(id).ok()),
            HeaderSource::Merchant if header.name == operation.dialect.merchant_header() => {
                Some(merchant.code_header.clone())
            }
            HeaderSource::Merchant => Some(given(header.name).unwrap_or_else(|| merchant.channel_header.clone())),
        };
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    let named = connection_headers(caller);
    for (name, value) in caller {
        let ours = names(operation).contains(name);
        let withheld = WITHHELD.contains(name) || is_hop_by_hop(name);
        if !ours && !withheld && !named.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("ayova/", env!("CARGO_PKG_VERSION"))));
    headers
}

/// The names of an operation's headers, read once: a table has them as they are written.
fn names(operation: &Operation) -> &'static [HeaderName] {
    static NAMES: LazyLock<HashMap<OperationId, Vec<HeaderName>>> = LazyLock::new(|| {
        let names = |id: OperationId| id.operation().headers.iter().map(|header| HeaderName::try_from(header.name));
        OperationId::ALL.into_iter().map(|id| (id, names(id).filter_map(Result::ok).collect())).collect()
    });
    NAMES.get(&operation.id).map_or(&[], Vec::as_slice)
}

/// Headers that are between app and gateway: credentials, cookies, what is made anew, and what would
/// have upstream answer another question (conditions, ranges, other methods and paths).
static WITHHELD: [HeaderName; 29] = [
    HeaderName::from_static("accept"),
    HeaderName::from_static("accept-encoding"),
    HeaderName::from_static("authorization"),
    HeaderName::from_static("content-encoding"),
    HeaderName::from_static("content-type"),
    HeaderName::from_static("cookie"),
    HeaderName::from_static("expect"),
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("host"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("if-match"),
    HeaderName::from_static("if-modified-since"),
    HeaderName::from_static("if-none-match"),
    HeaderName::from_static("if-range"),
    HeaderName::from_static("if-unmodified-since"),
    HeaderName::from_static("range"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-client-key"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-signature"),
    HeaderName::from_static("x-timestamp"),
];
