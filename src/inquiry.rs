//! Questions the gateway itself asks upstream about an account.
//!
//! Used where a record is missing and where an outcome is in doubt. Goes through the same tries,
//! token, signature and breaker as everybody's requests. Knows no store and draws no conclusion.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tokio::time::Instant;

use crate::call::{Admission, Call, Merchant, Outgoing, Route};
use crate::dialect::OperationId;
use crate::document::Document;
use crate::entropy::Entropy;
use crate::error::Error;
use crate::layers::next::Next;
use crate::outgoing;
use crate::reference::settle::Subject;
use crate::reference::{Account, Handle};
use crate::upstream::Answer;

/// Asks.
#[derive(Debug)]
pub struct Inquirer {
    snap: Option<Arc<Route>>,
    classic: Option<Arc<Route>>,
    entropy: Entropy,
    below: Next<Call<Outgoing>, Result<Answer, Error>>,
}

/// On whose behalf and until when.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Whose account.
    pub merchant: Arc<Merchant>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// The allowance it counts against.
    pub admission: Arc<Admission>,
}

/// A question and its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What was asked; absent for a get.
    pub request: Option<Document>,
    /// The id it was asked under.
    pub id: String,
    /// What upstream said, whatever its status.
    pub answer: Answer,
}

impl Inquirer {
    /// Asks through `below`, under the configured routes.
    #[must_use]
    pub fn new(routes: &[Arc<Route>], entropy: Entropy, below: Next<Call<Outgoing>, Result<Answer, Error>>) -> Self {
        let route = |id| routes.iter().find(|route| route.operation.id == id).cloned();
        Self { snap: route(OperationId::SnapInquiry), classic: route(OperationId::ClassicGet), entropy, below }
    }

    /// SNAP's inquiry-va (`snap.md` section 6).
    ///
    /// # Errors
    /// Where no answer could be had.
    pub async fn snap(&self, errand: Errand, subject: &Subject) -> Result<Asked, Error> {
        let route = self.snap.as_ref().ok_or(Error::UnknownRoute)?;
        let body = json!({
            "partnerServiceId": subject.partner_service_id,
            "customerNo": subject.customer_no,
            "virtualAccountNo": subject.number,
            "trxId": subject.trx_id,
        });
        let body = Bytes::from(body.to_string());
        let request = Document::parse(body.clone()).map_err(|_| Error::Internal)?;
        let id = self.entropy.id();
        let outgoing = Outgoing {
            method: route.method.clone(),
            path_and_query: outgoing::path(&route.path)?,
            headers: outgoing::headers(route.operation, &errand.merchant, &HeaderMap::new(), Some(&id)),
            body,
        };
        let answer = self.below.run(call(route, errand, outgoing)).await?;
        Ok(Asked { request: Some(request), id, answer })
    }

    /// Classic's get (`classic.md` section 5).
    ///
    /// # Errors
    /// Where no answer could be had.
    pub async fn classic(&self, errand: Errand, account: &Account) -> Result<Asked, Error> {
        let route = self.classic.as_ref().ok_or(Error::UnknownRoute)?;
        let Handle::Classic { account_id, customer_id, correlation_id } = &account.handle else {
            return Err(Error::Internal);
        };
        let query = form_urlencoded::Serializer::new(String::from("?"))
            .append_pair("virtualAccountId", account_id)
            .append_pair("transactionId", &self.entropy.id())
            .append_pair("bankCode", account.bank_code.as_deref().unwrap_or_default())
            .append_pair("customerId", customer_id)
            .finish();
        let outgoing = Outgoing {
            method: route.method.clone(),
            path_and_query: outgoing::path(&format!("{}{query}", route.path))?,
            headers: outgoing::headers(route.operation, &errand.merchant, &HeaderMap::new(), Some(correlation_id)),
            body: Bytes::new(),
        };
        let answer = self.below.run(call(route, errand, outgoing)).await?;
        Ok(Asked { request: None, id: correlation_id.clone(), answer })
    }
}

fn call(route: &Arc<Route>, errand: Errand, outgoing: Outgoing) -> Call<Outgoing> {
    Call {
        route: Arc::clone(route),
        merchant: errand.merchant,
        deadline: errand.deadline,
        headers: HeaderMap::new(),
        query: String::new(),
        admission: errand.admission,
        body: outgoing,
    }
}
