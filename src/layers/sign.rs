//! Makes what is made anew for every try: `Authorization`, and for SNAP timestamp and signature.
//!
//! Signs the very bytes and the very path that are sent; nothing below changes either. Strings to
//! sign are `signature`'s.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::Full;

use crate::call::{Authorized, Merchant, Outgoing, Signed};
use crate::clock::{SharedClock, iso8601};
use crate::config::SignatureConfig;
use crate::dialect::Dialect;
use crate::layers::next::Next;
use crate::signature::{Scheme, SignedRequest, StringToSign, body_hash};
use crate::upstream::{NotSent, Outcome};

/// What signing needs.
#[derive(Debug)]
pub struct Sign {
    /// For `X-TIMESTAMP`.
    pub clock: SharedClock,
    /// Scheme and encoding.
    pub settings: SignatureConfig,
}

const TIMESTAMP: HeaderName = HeaderName::from_static("x-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
const CLIENT_KEY: HeaderName = HeaderName::from_static("x-client-key");

/// The layer's step.
pub async fn sign(state: Arc<Sign>, authorized: Authorized, next: Next<Signed, Outcome>) -> Outcome {
    match state.sign(authorized) {
        Some(signed) => next.run(signed).await,
        None => Outcome::NotSent(NotSent::Defect),
    }
}

impl Sign {
    fn sign(&self, authorized: Authorized) -> Option<Signed> {
        let Authorized { attempt, token } = authorized;
        let operation = attempt.route.operation;
        let outgoing = &attempt.outgoing;
        let mut headers = outgoing.headers.clone();
        headers.insert(AUTHORIZATION, token.bearer.clone());
        if operation.dialect == Dialect::Snap {
            self.add_signature(&mut headers, &attempt.merchant, outgoing, token.text.expose())?;
        }
        let mut request = http::Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = http::Uri::from(outgoing.path_and_query.clone());
        *request.headers_mut() = headers;
        Some(Signed {
            operation,
            merchant: attempt.merchant,
            deadline: attempt.deadline,
            request,
            admission: attempt.admission,
        })
    }

    fn add_signature(
        &self,
        headers: &mut HeaderMap,
        merchant: &Merchant,
        outgoing: &Outgoing,
        token: &str,
    ) -> Option<()> {
        let timestamp = iso8601(self.clock.now());
        let body_hash = body_hash(&outgoing.body);
        let request = SignedRequest {
            method: outgoing.method.as_str(),
            path: outgoing.path_and_query.path(),
            body_hash: &body_hash,
            timestamp: &timestamp,
        };
        let client_id = merchant.client_id.expose();
        let encoding = self.settings.encoding;
        let by_key = |text: &StringToSign<'_>| merchant.private_key.as_ref()?.sign(text, encoding).ok();
        let signature = match self.settings.scheme {
            Scheme::HmacSha512 => merchant.hmac_key.sign(&StringToSign::hmac_sha512(&request, token), encoding),
            Scheme::RsaTransactional => by_key(&StringToSign::rsa_transactional(&request))?,
            Scheme::RsaClientTimestamp => by_key(&StringToSign::rsa_client_timestamp(client_id, &timestamp))?,
        };
        headers.insert(SIGNATURE, HeaderValue::try_from(signature).ok()?);
        headers.insert(TIMESTAMP, HeaderValue::try_from(timestamp).ok()?);
        headers.insert(CLIENT_KEY, HeaderValue::try_from(client_id).ok()?);
        Some(())
    }
}
