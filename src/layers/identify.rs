//! Headers to merchant.
//!
//! Where apps authenticate, their key or certificate says whose a request is, and a header that names
//! somebody else is refused; without, the generation's own header names the merchant, and where only one
//! is configured it need not (contract section 3). Stands before everything that is counted or kept per
//! merchant, and before the body is read: a stranger costs a hash. What a key is, is `caller`'s affair.

use std::collections::HashMap;
use std::iter::once;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request};

use crate::call::{About, Admission, Call, Cause, Inbound, Merchant, Reply, Routed};
use crate::caller::{KeyDigest, Unproven, comparable, presented_key};
use crate::config::{Auth, Config};
use crate::dialect::check::single_header;
use crate::dialect::{Fault, Form, Rule};
use crate::error::{Error, Failure};
use crate::layers::next::Next;
use crate::notes::Notes;
use crate::server::ClientNames;

/// What identifying needs.
#[derive(Debug)]
pub struct Identify {
    by_code: HashMap<Arc<str>, Arc<Merchant>>,
    /// The one to take where a request names none.
    only: Option<Arc<Merchant>>,
    proof: Proof,
}

/// What a caller has to show, and whose each is.
#[derive(Debug)]
enum Proof {
    None,
    ApiKey(HashMap<KeyDigest, Arc<Merchant>>),
    Certificate(HashMap<String, Arc<Merchant>>),
}

impl Identify {
    /// The configured merchants, in the configuration's order.
    #[must_use]
    pub fn new(config: &Config, merchants: &[Arc<Merchant>]) -> Self {
        let only = match merchants {
            [only] => Some(Arc::clone(only)),
            _ => None,
        };
        let each = || config.merchants.iter().zip(merchants);
        let proof = match config.listen.auth {
            Auth::None => Proof::None,
            Auth::ApiKey => Proof::ApiKey(
                each().flat_map(|(of, whose)| of.api_keys.iter().map(|key| (key.clone(), Arc::clone(whose)))).collect(),
            ),
            Auth::Mtls => {
                let name = |name: &String| comparable(name).into_owned();
                let names = each().flat_map(|(of, whose)| of.client_names.iter().map(move |of| (of, whose)));
                Proof::Certificate(names.map(|(of, whose)| (name(of), Arc::clone(whose))).collect())
            }
        };
        let by_code = merchants.iter().map(|merchant| (Arc::clone(&merchant.code), Arc::clone(merchant))).collect();
        Self { by_code, only, proof }
    }

    fn merchant(&self, routed: &Routed) -> Result<&Arc<Merchant>, Error> {
        match &self.proof {
            Proof::None => match claimed(routed)? {
                Some(code) => self.by_code.get(code).ok_or(Error::UnknownMerchant),
                None => {
                    self.only.as_ref().ok_or_else(|| unnamed(routed, "is missing: several merchants are configured"))
                }
            },
            Proof::ApiKey(keys) => {
                let key = presented_key(routed.request.headers())?;
                proven(routed, once(keys.get(&key).ok_or(Unproven::UnknownKey)?))
            }
            Proof::Certificate(owners) => {
                let ClientNames(names) = routed.request.extensions().get().ok_or(Unproven::NoCertificate)?;
                proven(routed, names.iter().filter_map(|name| owners.get(&*comparable(name))))
            }
        }
    }

    /// What a stranger is told, and what the log says of them.
    fn failure(&self, error: Error, notes: &Notes) -> Failure {
        let mut failure = Failure::from(error);
        if let Error::Unauthenticated(why) = failure.error {
            notes.unproven(Cause::Unproven(why));
            // RFC 6750 section 3. There is no such word for certificates.
            let challenge = match (&self.proof, why) {
                (Proof::ApiKey(_), Unproven::NoKey) => Some("Bearer realm=\"ayova\""),
                (Proof::ApiKey(_), _) => Some("Bearer realm=\"ayova\", error=\"invalid_token\""),
                (Proof::None | Proof::Certificate(_), _) => None,
            };
            let challenge = challenge.map(HeaderValue::from_static);
            failure.headers.extend(challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)));
        }
        failure
    }
}

/// The code in the merchant's header.
fn claimed(routed: &Routed) -> Result<Option<&str>, Error> {
    let operation = routed.route.operation;
    let name = operation.dialect.merchant_header();
    let refuse = |fault: Fault| Error::InvalidRequest(vec![fault]);
    let Some(code) = single_header(routed.request.headers(), name).map_err(refuse)? else { return Ok(None) };
    match operation.header(name).and_then(|header| header.kind.check_text(code, Form::Caller)) {
        Some((rule, message)) => Err(refuse(Fault::of_header(name, rule, message))),
        None => Ok(Some(code)),
    }
}

fn unnamed(routed: &Routed, message: &'static str) -> Error {
    let name = routed.route.operation.dialect.merchant_header();
    Error::InvalidRequest(vec![Fault::of_header(name, Rule::Required, message)])
}

/// The one of these merchants the request is for. A certificate may name several; then the header chooses.
fn proven<'a>(routed: &Routed, mut whose: impl Iterator<Item = &'a Arc<Merchant>>) -> Result<&'a Arc<Merchant>, Error> {
    let first = whose.next().ok_or(Unproven::UnknownCertificate)?;
    match claimed(routed)? {
        Some(code) if *first.code == *code => Ok(first),
        Some(code) => Ok(whose.find(|other| *other.code == *code).ok_or(Unproven::Disagreement)?),
        None if whose.all(|other| Arc::ptr_eq(first, other)) => Ok(first),
        None => Err(unnamed(routed, "is missing: the client certificate is several merchants'")),
    }
}

/// The layer's step.
pub async fn identify(
    state: Arc<Identify>,
    mut routed: Routed,
    next: Next<Call<Inbound>, Result<Reply, Failure>>,
) -> Result<Reply, Failure> {
    // Also of who is refused it is told where the request went.
    let notes = routed.request.extensions_mut().remove::<Notes>().unwrap_or_default();
    notes.routed(&routed.route);
    let merchant = state.merchant(&routed).map(Arc::clone).map_err(|error| state.failure(error, &notes))?;
    let Routed { route, request, deadline } = routed;
    let (head, body) = Request::into_parts(request);
    let call = Call {
        route,
        merchant: Arc::clone(&merchant),
        deadline,
        headers: head.headers,
        query: head.uri.query().unwrap_or_default().to_owned(),
        admission: Arc::new(Admission::holding(notes, Vec::new())),
        body,
    };
    match next.run(call).await {
        Ok(reply) => Ok(Reply { about: About { merchant: Some(merchant), ..reply.about }, ..reply }),
        Err(failure) => Err(Failure { about: About { merchant: Some(merchant), ..failure.about }, ..failure }),
    }
}
