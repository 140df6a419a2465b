//! Headers to merchant.
//!
//! Without authentication the generation's own header names the merchant, and where only one is
//! configured it need not (contract section 3). Stands before everything that is counted or kept per
//! merchant. Who may claim to be whom is authentication's affair, which loopback stands in for.

use std::collections::HashMap;
use std::sync::Arc;

use http::Request;

use crate::call::{About, Admission, Call, Inbound, Merchant, Reply, Routed};
use crate::dialect::check::single_header;
use crate::dialect::{Fault, Form, Rule};
use crate::error::{Error, Failure};
use crate::layers::next::Next;
use crate::notes::Notes;

/// What identifying needs.
#[derive(Debug)]
pub struct Identify {
    by_code: HashMap<Arc<str>, Arc<Merchant>>,
    /// The one to take where a request names none.
    only: Option<Arc<Merchant>>,
}

impl Identify {
    /// The configured merchants.
    #[must_use]
    pub fn new(merchants: &[Arc<Merchant>]) -> Self {
        let only = match merchants {
            [only] => Some(Arc::clone(only)),
            _ => None,
        };
        Self {
            by_code: merchants.iter().map(|merchant| (Arc::clone(&merchant.code), Arc::clone(merchant))).collect(),
            only,
        }
    }

    fn merchant(&self, routed: &Routed) -> Result<&Arc<Merchant>, Error> {
        let operation = routed.route.operation;
        let name = operation.dialect.merchant_header();
        let code = single_header(routed.request.headers(), name).map_err(|fault| Error::InvalidRequest(vec![fault]))?;
        let Some(code) = code else {
            let message = "is missing: several merchants are configured";
            return self
                .only
                .as_ref()
                .ok_or_else(|| Error::InvalidRequest(vec![Fault::of_header(name, Rule::Required, message)]));
        };
        let misfit = operation.header(name).and_then(|header| header.kind.check_text(code, Form::Caller));
        if let Some((rule, message)) = misfit {
            return Err(Error::InvalidRequest(vec![Fault::of_header(name, rule, message)]));
        }
        self.by_code.get(code).ok_or(Error::UnknownMerchant)
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
    let merchant = Arc::clone(state.merchant(&routed)?);
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
