//! Holds a request against its operation's table and settles its ids.
//!
//! Refuses with every fault at once and before anything is recorded or sent; but what is wrong only
//! because its time is over goes on to `idempotency`, since the repetition of a create that was in
//! time has its answer still. What the gateway itself
//! adds may be missing; ids that a caller left out are made here, those of creates and updates from `Idempotency-Key` where it is sent
//! (contract section 1). Knows no field by name: that is the table's affair.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;

use crate::call::{Call, Checked, Ids, Reply};
use crate::clock::SharedClock;
use crate::config::MissingKey;
use crate::dialect::check::single_header;
use crate::dialect::{Dialect, Fault, Form, Given, Need, Operation, OperationKind, Rule, check};
use crate::digits;
use crate::document::{Document, Kind, Value};
use crate::entropy::Entropy;
use crate::error::Error;
use crate::layers::next::Next;

/// What validating needs.
#[derive(Debug)]
pub struct Validate {
    /// For expiries that must lie ahead.
    pub clock: SharedClock,
    /// For ids that are made.
    pub entropy: Entropy,
    /// What happens to a create or update without a key.
    pub missing_key: MissingKey,
}

/// A client's own key (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest key that is taken.
const KEY_MAX: usize = 255;

/// The layer's step.
pub async fn validate(
    state: Arc<Validate>,
    call: Call<Bytes>,
    next: Next<Call<Checked>, Result<Reply, Error>>,
) -> Result<Reply, Error> {
    let checked = state.check(&call)?;
    let (call, _) = call.with_body(checked);
    next.run(call).await
}

impl Validate {
    fn check(&self, call: &Call<Bytes>) -> Result<Checked, Error> {
        let operation = call.operation();
        let document = document(operation, &call.body)?;
        let query: Vec<(String, String)> = form_urlencoded::parse(call.query.as_bytes()).into_owned().collect();
        note_number(call, document.as_ref(), &query);
        let given = Given { headers: &call.headers, query: &query, body: document.as_ref() };
        let mut faults = check(operation, given, Form::Caller, self.clock.now());
        let of_the_table = faults.len();
        let ids = self.ids(operation, &call.headers, document.as_ref(), &mut faults);
        // At the beginning of time nothing had expired: what is wrong then is wrong for ever.
        let for_ever = || check(operation, given, Form::Caller, Timestamp::MIN);
        if faults.len() > of_the_table || (!faults.is_empty() && !for_ever().is_empty()) {
            return Err(Error::InvalidRequest(faults));
        }
        Ok(Checked { document, query, ids, overdue: faults, in_doubt: false })
    }

    /// The ids a request goes by; faults where it has none and may not have one made.
    fn ids(&self, operation: &Operation, headers: &HeaderMap, body: Option<&Document>, faults: &mut Vec<Fault>) -> Ids {
        let name = operation.dialect.id_header();
        let mut single = |name: &str| match single_header(headers, name) {
            Ok(value) => value.filter(|value| !value.is_empty()),
            Err(fault) => {
                // The table has already named its own headers.
                if !faults.iter().any(|known| known.field.eq_ignore_ascii_case(&fault.field)) {
                    faults.push(fault);
                }
                None
            }
        };
        let given = single(name);
        let key = single(IDEMPOTENCY_KEY);
        if key.as_ref().is_some_and(|key| key.len() > KEY_MAX) {
            faults.push(Fault::of_header(
                "Idempotency-Key",
                Rule::Length,
                format!("must have at most {KEY_MAX} characters"),
            ));
        }
        // The same question asked twice is two questions, and upstream takes an id once.
        let derived = key.filter(|_| operation.kind != OperationKind::Read).map(|key| Arc::from(id_from_key(key)));
        let made = || derived.clone().unwrap_or_else(|| self.entropy.id().into());
        let flow_is_recorded = operation.dialect == Dialect::Classic && operation.kind != OperationKind::Create;
        if given.is_none() && derived.is_none() && self.refuses_without_key(operation) {
            let already = faults.iter().any(|fault| fault.field == name);
            if !already {
                faults.push(Fault::of_header(name, Rule::Required, "is missing; Idempotency-Key would do as well"));
            }
        }
        let header_made = given.is_none() && !flow_is_recorded;
        let header = given.map(Arc::from).or_else(|| (!flow_is_recorded).then(made));
        let transaction = transaction(operation, body);
        let keyed = operation.body.iter().any(|field| field.need == Need::Keyed);
        if transaction.is_none()
            && keyed
            && derived.is_none()
            && let Some(key) = operation.key
        {
            let already = faults.iter().any(|fault| fault.field == key.transaction);
            if !already {
                faults.push(Fault::missing(&[key.transaction]));
            }
        }
        // SNAP's trxId is never made: on create the caller's, on update the record's.
        let transaction_made =
            transaction.is_none() && operation.dialect == Dialect::Classic && operation.key.is_some();
        let transaction = transaction.map(Arc::from).or_else(|| transaction_made.then(made));
        Ids { header, header_made, transaction, transaction_made }
    }

    /// Only where the id is the protocol's own idempotency key: a classic create is known by its
    /// transaction, a classic update gets a new one.
    fn refuses_without_key(&self, operation: &Operation) -> bool {
        self.missing_key == MissingKey::Require
            && operation.kind != OperationKind::Read
            && operation.dialect == Dialect::Snap
    }
}

/// For the request's log line, whether or not it is valid.
fn note_number(call: &Call<Bytes>, document: Option<&Document>, query: &[(String, String)]) {
    let name = call.operation().number;
    let asked = || query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str());
    let number = document.and_then(|document| document.root().member(name)?.as_str()).or_else(asked);
    if let Some(number) = number {
        call.admission.notes().number(number);
    }
}

fn document(operation: &Operation, body: &Bytes) -> Result<Option<Document>, Error> {
    if operation.body.is_empty() {
        return Ok(None);
    }
    let document = Document::parse(body.clone()).map_err(|error| Error::BadJson(error.to_string()))?;
    match document.root().kind() {
        Kind::Object => Ok(Some(document)),
        _ => Err(Error::BadJson("the body must be a JSON object".to_owned())),
    }
}

fn transaction<'a>(operation: &Operation, body: Option<&'a Document>) -> Option<&'a str> {
    let name = operation.key?.transaction;
    body?.root().member(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The first 32 hexadecimal digits of the key's SHA-256 (contract section 1).
#[must_use]
pub fn id_from_key(key: &str) -> String {
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    digits::hex(hash.as_ref().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_the_same_id_for_ever() {
        assert_eq!(id_from_key("order-1"), id_from_key("order-1"));
        // printf %s order-1 | sha256sum
        assert_eq!(id_from_key("order-1"), "0bafe22156d2698c143b86040446d366");
    }
}
