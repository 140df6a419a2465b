//! Attaches what is recorded of an account on the way in, and learns from the answer on the way out.
//!
//! Stands behind `idempotency`, so that a repetition is recognised by what the caller said and not by
//! what was attached, and before `retry`, so that every try sends the same bytes. Makes everything
//! that goes upstream but for token, timestamp and signature; what is not attached goes out byte for
//! byte. Which members there are is the table's affair, what to put there the plan's.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::json;

use crate::call::{About, Call, Checked, Outgoing, Reply, Route, Source, Trace};
use crate::clock::SharedClock;
use crate::config::{self, OnMiss};
use crate::dialect::{HeaderSource, Need, Operation, OperationId, OperationKind};
use crate::document::{Document, Member};
use crate::entropy::Entropy;
use crate::error::Error;
use crate::layers::next::Next;
use crate::reference::plan::{Asked, plan};
use crate::reference::{Account, Handle, Lesson, Plan, Refusal, learn_create, learn_read};
use crate::store::Store;
use crate::telemetry::metrics::{Metrics, ReferenceSource};
use crate::upstream::Answer;
use crate::upstream::outcome::HOP_BY_HOP;

/// What attaching needs.
#[derive(Debug)]
pub struct References {
    /// Where accounts are kept.
    pub store: Arc<dyn Store>,
    /// What happens on a miss and on a contradiction.
    pub settings: config::Reference,
    /// Where an inquiry of our own goes; absent where SNAP is disabled.
    pub inquiry: Option<Arc<Route>>,
    /// For the age of records.
    pub clock: SharedClock,
    /// For new ids.
    pub entropy: Entropy,
    /// Where look-ups are counted.
    pub metrics: Arc<Metrics>,
}

type Below = Next<Call<Outgoing>, Result<Answer, Error>>;

/// The layer's step.
pub async fn reference(state: Arc<References>, call: Call<Checked>, next: Below) -> Result<Reply, Error> {
    let operation = call.operation();
    let account = match operation.kind {
        OperationKind::Create => None,
        OperationKind::Update | OperationKind::Read => state.account(&call, &next).await?,
    };
    let asked = Asked { operation, checked: &call.body };
    let plan = plan(asked, account.as_deref(), state.settings.on_mismatch, &mut || state.entropy.id());
    let plan = plan.map_err(|refusal| match refusal {
        Refusal::Invalid(faults) => Error::InvalidRequest(faults),
        Refusal::Unknown(faults) => Error::ReferenceUnknown(faults),
        Refusal::AmountTooLow => Error::AmountTooLow,
    })?;
    let sent_at = state.clock.now();
    let (call, checked) = call.with_body(());
    let answer = send(&call, &checked, &plan, &next).await?;
    let (answer, plan) = match second_chance(&plan, &answer) {
        Some(other) => (send(&call, &checked, &other, &next).await?, other),
        None => (answer, plan),
    };
    let learned =
        state.learn(&Exchange { call: &call, checked: &checked, plan: &plan, answer: &answer, sent_at }, account);
    Ok(reply(&call, &checked, &plan, answer, learned))
}

impl References {
    /// The record of the account a request is about; asked of upstream where the settings say so.
    async fn account(&self, call: &Call<Checked>, next: &Below) -> Result<Option<Arc<Account>>, Error> {
        let operation = call.operation();
        let asked = Asked { operation, checked: &call.body };
        let query = asked.account();
        let count = |source| self.metrics.referenced(operation.id, source);
        if query.is_empty() {
            return Ok(None);
        }
        match self.store.account(&call.merchant.name, operation.dialect, &query).await {
            Ok(Some(account)) => {
                count(ReferenceSource::Store);
                return Ok(Some(account));
            }
            Ok(None) => {}
            // A read changes nothing and may go without its record.
            Err(_) if operation.kind == OperationKind::Read => {}
            Err(_) => return Err(Error::StoreUnavailable),
        }
        if operation.id != OperationId::SnapUpdate || asked.brings_reference() {
            count(ReferenceSource::Caller);
            return Ok(None);
        }
        let found = match self.settings.on_miss {
            OnMiss::Inquiry => self.inquire(call, asked, next).await,
            OnMiss::Reject => Err(Error::ReferenceUnknown(vec![])),
        };
        count(if found.is_ok() { ReferenceSource::Inquiry } else { ReferenceSource::Missing });
        found.map(Some)
    }

    /// Asks upstream once for an account the gateway never saw (contract section 5 rule 6).
    async fn inquire(&self, call: &Call<Checked>, asked: Asked<'_>, next: &Below) -> Result<Arc<Account>, Error> {
        let (Some(route), Some(number), Some(customer)) =
            (&self.inquiry, asked.padded_number(), asked.text("customerNo"))
        else {
            return Err(Error::ReferenceUnknown(cannot_inquire(asked)));
        };
        let transaction = asked.text("trxId").map_or_else(|| self.entropy.id(), ToOwned::to_owned);
        let body = json!({
            "partnerServiceId": number.partner_service_id(),
            "customerNo": customer,
            "virtualAccountNo": number.to_string(),
            "trxId": transaction,
        });
        let body = Bytes::from(body.to_string());
        let request = Document::parse(body.clone()).map_err(|_| Error::Internal)?;
        let id = self.entropy.id();
        let headers = outgoing_headers(call, route.operation, Some(&id));
        let outgoing = Outgoing { method: route.method.clone(), path_and_query: path(&route.path)?, headers, body };
        let inquiry = Call {
            route: Arc::clone(route),
            merchant: Arc::clone(&call.merchant),
            deadline: call.deadline,
            headers: HeaderMap::new(),
            query: String::new(),
            admission: Arc::clone(&call.admission),
            body: outgoing,
        };
        let sent_at = self.clock.now();
        // The update itself has not left, so nothing is in doubt.
        let answer = next.run(inquiry).await.map_err(|error| match error {
            Error::UpstreamTimeout | Error::OutcomeUnknown => Error::UpstreamUnavailable,
            other => other,
        })?;
        let unknown = || Error::ReferenceUnknown(vec![]);
        match answer.status.as_u16() {
            200..=299 => {}
            400..=499 if !matches!(answer.status.as_u16(), 401 | 429) => return Err(unknown()),
            _ => return Err(Error::UpstreamUnavailable),
        }
        let document = answer.document.as_ref().ok_or_else(unknown)?;
        let merchant = &call.merchant.name;
        let lesson =
            Lesson { merchant, request: Some(&request), answer: document, sent_id: &id, transaction: "", sent_at };
        let account = Arc::new(learn_read(route.operation.dialect, &lesson).ok_or_else(unknown)?);
        if let Err(error) = self.store.remember(Arc::clone(&account)).await {
            tracing::warn!(error = %error, "what an inquiry taught could not be stored");
        }
        Ok(account)
    }

    /// What a successful answer teaches; nothing where it teaches nothing new.
    fn learn(&self, exchange: &Exchange<'_>, known: Option<Arc<Account>>) -> Option<Arc<Account>> {
        let Exchange { call, checked, plan, answer, sent_at } = exchange;
        let operation = call.operation();
        let document = answer.document.as_ref().filter(|_| answer.status.is_success())?;
        let lesson = Lesson {
            merchant: &call.merchant.name,
            request: checked.document.as_ref(),
            answer: document,
            sent_id: sent_id(checked, plan).unwrap_or_default(),
            transaction: checked.ids.transaction.as_deref().unwrap_or_default(),
            sent_at: *sent_at,
        };
        let learned = match (operation.kind, known) {
            (OperationKind::Create, _) => learn_create(operation.dialect, &lesson),
            (OperationKind::Update, Some(known)) => changed(&known, plan, &lesson),
            (OperationKind::Read, Some(_)) => None,
            (OperationKind::Update | OperationKind::Read, None) => learn_read(operation.dialect, &lesson),
        };
        if learned.is_none() && operation.kind == OperationKind::Create {
            tracing::warn!(
                operation = operation.id.name(),
                "a create's answer names no account; nothing could be recorded"
            );
        }
        learned.map(Arc::new)
    }
}

struct Exchange<'a> {
    call: &'a Call<()>,
    checked: &'a Checked,
    plan: &'a Plan,
    answer: &'a Answer,
    sent_at: Timestamp,
}

/// What an inquiry of our own would need and the update does not bring.
fn cannot_inquire(asked: Asked<'_>) -> Vec<crate::dialect::Fault> {
    let mut faults = Vec::new();
    if asked.padded_number().is_none() {
        let message = "must be the padded number, since nothing is recorded of it";
        faults.push(crate::dialect::Fault::of_member(&["virtualAccountNo"], crate::dialect::Rule::Format, message));
    }
    if asked.text("customerNo").is_none() {
        faults.push(crate::dialect::Fault::missing(&["customerNo"]));
    }
    faults
}

/// The record after an update: its new amount, and the caller's reference where that was the right one.
fn changed(known: &Account, plan: &Plan, lesson: &Lesson<'_>) -> Option<Account> {
    let amount = lesson.request.and_then(|request| {
        let value = request.root().at(&["totalAmount", "value"])?;
        crate::dialect::amount::Amount::parse(value.as_str()?)
    });
    let mut account = known.clone();
    account.amount = amount.or(account.amount);
    let sent = plan.members.iter().find(|member| member.name == "originalReferenceNo");
    if let (Handle::Snap { reference_no, .. }, Some(sent)) = (&mut account.handle, sent) {
        reference_no.clone_from(&sent.value);
    }
    (account != *known).then_some(account)
}

/// The plan with the caller's reference, where upstream does not know ours and the caller had sent
/// another (`recorded_first`).
fn second_chance(plan: &Plan, answer: &Answer) -> Option<Plan> {
    if !answer.knows_no_reference() {
        return None;
    }
    let callers = plan.callers_reference.clone()?;
    let mut other = Plan { callers_reference: None, ..plan.clone() };
    for member in other.members.iter_mut().filter(|member| member.name == "originalReferenceNo") {
        member.value.clone_from(&callers);
    }
    Some(other)
}

async fn send(call: &Call<()>, checked: &Checked, plan: &Plan, next: &Below) -> Result<Answer, Error> {
    let operation = call.operation();
    let query = outgoing_query(operation, checked, &plan.members);
    let body = checked.document.as_ref().map_or_else(Bytes::new, |document| document.splice(&plan.members));
    let outgoing = Outgoing {
        method: call.route.method.clone(),
        path_and_query: path(&format!("{}{query}", call.route.path))?,
        headers: outgoing_headers(call, operation, sent_id(checked, plan)),
        body,
    };
    let attempt = Call {
        route: Arc::clone(&call.route),
        merchant: Arc::clone(&call.merchant),
        deadline: call.deadline,
        headers: HeaderMap::new(),
        query: String::new(),
        admission: Arc::clone(&call.admission),
        body: outgoing,
    };
    next.run(attempt).await
}

fn sent_id<'a>(checked: &'a Checked, plan: &'a Plan) -> Option<&'a str> {
    plan.flow.as_deref().or(checked.ids.header.as_deref())
}

fn path(text: &str) -> Result<PathAndQuery, Error> {
    PathAndQuery::try_from(text).map_err(|_| Error::Internal)
}

/// The query with its members set and what is only for looking up left out; SNAP has none.
fn outgoing_query(operation: &Operation, checked: &Checked, members: &[Member]) -> String {
    if operation.query.is_empty() {
        return String::new();
    }
    let lookup = |name: &str| operation.query.iter().any(|field| field.name == name && field.need == Need::Lookup);
    let set = |name: &str| members.iter().any(|member| member.name == name);
    let mut out = form_urlencoded::Serializer::new(String::from("?"));
    for (name, value) in checked.query.iter().filter(|(name, _)| !lookup(name) && !set(name)) {
        out.append_pair(name, value);
    }
    for member in members {
        out.append_pair(member.name, &member.value);
    }
    out.finish()
}

/// The table's headers, then whatever else the caller sent end to end.
fn outgoing_headers<B>(call: &Call<B>, operation: &Operation, id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    let given = |name: &str| call.headers.get(name).cloned();
    for header in operation.headers {
        let value = match header.source {
            HeaderSource::Constant(value) => Some(HeaderValue::from_static(value)),
            HeaderSource::Attempt => None,
            HeaderSource::Caller => id.and_then(|id| HeaderValue::try_from(id).ok()),
            HeaderSource::Merchant if header.name == operation.dialect.merchant_header() => {
                Some(call.merchant.code_header.clone())
            }
            HeaderSource::Merchant => Some(given(header.name).unwrap_or_else(|| call.merchant.channel_header.clone())),
        };
        if let (Some(value), Ok(name)) = (value, HeaderName::try_from(header.name)) {
            headers.insert(name, value);
        }
    }
    let named = connection_headers(&call.headers);
    for (name, value) in &call.headers {
        let ours = operation.header(name.as_str()).is_some();
        let withheld = WITHHELD.contains(&name.as_str()) || HOP_BY_HOP.contains(&name.as_str());
        if !ours && !withheld && !named.contains(&name.as_str()) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("ayova/", env!("CARGO_PKG_VERSION"))));
    headers
}

/// Headers that `Connection` declares to be of this connection only (RFC 9110 section 7.6.1).
fn connection_headers(headers: &HeaderMap) -> Vec<&str> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).collect()
}

/// Headers that are between app and gateway: credentials, cookies, and what is made anew.
const WITHHELD: [&str; 17] = [
    "accept",
    "accept-encoding",
    "authorization",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "x-api-key",
    "x-client-key",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "x-signature",
    "x-timestamp",
];

fn reply(call: &Call<()>, checked: &Checked, plan: &Plan, answer: Answer, learned: Option<Arc<Account>>) -> Reply {
    let operation = call.operation();
    let mut attached: Vec<&'static str> = plan.members.iter().map(|member| member.name).collect();
    let mut headers = answer.headers;
    if checked.ids.header_made || plan.flow.is_some() {
        attached.push(operation.dialect.id_header());
    }
    if checked.ids.header_made
        && operation.kind == OperationKind::Create
        && let Some(Ok(id)) = checked.ids.header.as_ref().map(HeaderValue::try_from)
        && let Ok(name) = HeaderName::try_from(operation.dialect.id_header())
    {
        headers.insert(name, id);
    }
    Reply {
        status: answer.status,
        headers,
        body: answer.body,
        source: Source::Upstream,
        reason: None,
        attached,
        learned,
        trace: Trace { attempts: call.admission.sent(), upstream_status: Some(answer.status.as_u16()) },
        about: About::default(),
    }
}
