//! Attaches what is recorded of an account on the way in, and learns from the answer on the way out.
//!
//! Stands behind `idempotency`, so that a repetition is recognised by what the caller said and not by
//! what was attached, and before `retry`, so that every try sends the same bytes. Makes everything
//! that goes upstream but for token, timestamp and signature; what is not attached goes out byte for
//! byte. Which members there are is the table's affair, what to put there the plan's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use crate::call::{About, Call, Checked, Outgoing, Reply, Source};
use crate::clock::SharedClock;
use crate::config::{self, OnMiss};
use crate::dialect::{Operation, OperationId, OperationKind};
use crate::document::Document;
use crate::entropy::Entropy;
use crate::error::Error;
use crate::inquiry::{Errand, Inquirer};
use crate::layers::next::Next;
use crate::outgoing;
use crate::reference::plan::{Asked, plan};
use crate::reference::settle::Subject;
use crate::reference::{Account, Lesson, Plan, Refusal, learn_create, learn_read, learn_update};
use crate::settling::{Doubtful, Finding, Settler};
use crate::store::Store;
use crate::telemetry::metrics::{Metrics, ReferenceSource};
use crate::upstream::Answer;
use crate::upstream::outcome::is_definite;

/// What attaching needs.
#[derive(Debug)]
pub struct References {
    /// Where accounts are kept.
    pub store: Arc<dyn Store>,
    /// What happens on a miss and on a contradiction.
    pub settings: config::Reference,
    /// Asks upstream where a record is missing.
    pub inquirer: Arc<Inquirer>,
    /// Finds out what became of a try that was answered with a conflict.
    pub settler: Arc<Settler>,
    /// For the age of records.
    pub clock: SharedClock,
    /// For new ids.
    pub entropy: Entropy,
    /// Where look-ups are counted.
    pub metrics: Arc<Metrics>,
}

/// How long a request waits for a record that it does not depend on.
const STORE_PATIENCE: Duration = Duration::from_millis(100);

type Below = Next<Call<Outgoing>, Result<Answer, Error>>;

/// The layer's step.
pub async fn reference(state: Arc<References>, call: Call<Checked>, next: Below) -> Result<Reply, Error> {
    let operation = call.operation();
    let account = match operation.kind {
        OperationKind::Create => None,
        OperationKind::Update | OperationKind::Read => state.account(&call).await?,
    };
    let asked = Asked { operation, checked: &call.body };
    let plan = plan(asked, account.as_deref(), state.settings.on_mismatch, &mut || state.entropy.id());
    let plan = plan.map_err(|refusal| match refusal {
        Refusal::Invalid(faults) => Error::InvalidRequest(faults),
        Refusal::Unknown(faults) => Error::ReferenceUnknown(faults),
        Refusal::AmountTooLow => Error::AmountTooLow,
    })?;
    let sent_at = state.sent_at(&call).await;
    let (call, checked) = call.with_body(());
    let answer = send(&call, &checked, &plan, &next).await?;
    let (answer, plan) = match second_chance(&plan, &answer) {
        Some(other) => {
            let answer = send(&call, &checked, &other, &next).await?;
            // The id was used up by the try with our reference; this one was not looked at.
            if answer.is_conflict() {
                return Err(Error::ReferenceUnknown(vec![]));
            }
            (answer, other)
        }
        None => (answer, plan),
    };
    let mut doubt_remains = false;
    if let Some(says) = says_of_the_first(operation, &checked, &answer) {
        let doubtful = Doubtful {
            operation,
            checked: &checked,
            account: account.as_deref(),
            sent_id: sent_id(&checked, &plan).unwrap_or_default(),
            sent_at,
        };
        match (state.settler.settle(errand(&call), &doubtful).await, says) {
            (Finding::Happened(reply), _) => return Ok(*reply),
            (_, OfTheFirst::Arrived) => return Err(Error::OutcomeUnknown),
            (Finding::NotSeen, OfTheFirst::Nothing) if operation.kind == OperationKind::Update => {}
            (Finding::NotSeen | Finding::NobodyToAsk | Finding::NoAnswer, OfTheFirst::Nothing) => doubt_remains = true,
        }
    }
    let exchange = Exchange { call: &call, checked: &checked, plan: &plan, answer: &answer, sent_at };
    state.touch(&exchange, account.as_ref()).await;
    let learned = state.learn(&exchange, account);
    Ok(Reply { doubt_remains, ..reply(&call, &checked, &plan, answer, learned) })
}

/// What an answer to a repetition says of the try before it, where it is not the first one's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfTheFirst {
    /// It arrived: upstream knows its ids.
    Arrived,
    /// Nothing: it may be refused for what the first try did, or for what has happened since, as a
    /// number that is taken or a date that has passed.
    Nothing,
}

/// Whether upstream looks at ids before or after what the first try has changed is not documented
/// (`errors.md` section 3 is an assumption), so a refusal of a repetition is not yet the first one's.
fn says_of_the_first(operation: &Operation, checked: &Checked, answer: &Answer) -> Option<OfTheFirst> {
    if operation.kind == OperationKind::Read || !(checked.in_doubt || answer.repeated) {
        return None;
    }
    if answer.is_conflict() || answer.knows_the_flow(operation.dialect) {
        return Some(OfTheFirst::Arrived);
    }
    (answer.status.is_client_error() && is_definite(answer.status)).then_some(OfTheFirst::Nothing)
}

impl References {
    /// When a request is sent, as lives of a number are ordered by: the time of day, but for a create
    /// later than the life that is known when it begins, which is over, whatever the clock says since.
    async fn sent_at(&self, call: &Call<Checked>) -> Timestamp {
        let (now, operation) = (self.clock.now(), call.operation());
        let query = Asked { operation, checked: &call.body }.account();
        if operation.kind != OperationKind::Create || query.is_empty() {
            return now;
        }
        // A store that cannot look up has recorded the create all the same, and the clock is mostly right.
        let known = self.store.account(&call.merchant.name, operation.dialect, &query).await.ok().flatten();
        known
            .and_then(|known| known.created.checked_add(SignedDuration::from_nanos(1)).ok())
            .map_or(now, |at| at.max(now))
    }

    /// The record of the account a request is about; asked of upstream where the settings say so.
    async fn account(&self, call: &Call<Checked>) -> Result<Option<Arc<Account>>, Error> {
        let operation = call.operation();
        let asked = Asked { operation, checked: &call.body };
        let query = asked.account();
        let count = |source| self.metrics.referenced(operation.id, source);
        if query.is_empty() {
            return Ok(None);
        }
        match self.store.account(&call.merchant.name, operation.dialect, &query).await {
            Ok(Some(account)) if asked.can_mean(&account) => {
                count(ReferenceSource::Store);
                return Ok(Some(account));
            }
            Ok(_) => {}
            // A read changes nothing and may go without its record.
            Err(_) if operation.kind == OperationKind::Read => {}
            Err(_) => return Err(Error::StoreUnavailable),
        }
        if operation.id != OperationId::SnapUpdate || asked.brings_reference() {
            count(ReferenceSource::Caller);
            return Ok(None);
        }
        let found = match self.settings.on_miss {
            OnMiss::Inquiry => self.inquire(call, asked).await,
            OnMiss::Reject => Err(Error::ReferenceUnknown(vec![])),
        };
        count(if found.is_ok() { ReferenceSource::Inquiry } else { ReferenceSource::Missing });
        found.map(Some)
    }

    /// Asks upstream once for an account the gateway never saw (contract section 5 rule 6).
    async fn inquire(&self, call: &Call<Checked>, asked: Asked<'_>) -> Result<Arc<Account>, Error> {
        let (Some(number), Some(customer)) = (asked.padded_number(), asked.text("customerNo")) else {
            return Err(Error::ReferenceUnknown(cannot_inquire(asked)));
        };
        let subject = Subject {
            partner_service_id: number.partner_service_id().to_owned(),
            customer_no: customer.to_owned(),
            number: number.to_string(),
            trx_id: asked.text("trxId").map_or_else(|| self.entropy.id(), ToOwned::to_owned),
        };
        let sent_at = self.clock.now();
        // The update itself has not left, so nothing is in doubt.
        let found = self.inquirer.snap(errand(call), &subject).await.map_err(|error| match error {
            Error::UpstreamTimeout | Error::OutcomeUnknown => Error::UpstreamUnavailable,
            other => other,
        })?;
        let unknown = || Error::ReferenceUnknown(vec![]);
        match found.answer.status.as_u16() {
            200..=299 => {}
            401 | 429 | 500..=599 => return Err(Error::UpstreamUnavailable),
            _ => return Err(unknown()),
        }
        let document = found.answer.document.as_ref().ok_or_else(unknown)?;
        let lesson = Lesson {
            merchant: &call.merchant.name,
            request: found.request.as_ref(),
            answer: document,
            sent_id: &found.id,
            transaction: "",
            sent_at,
        };
        let account = Arc::new(learn_read(asked.operation.dialect, &lesson).ok_or_else(unknown)?);
        // The update goes on without it; a store that fails says so itself.
        let _ = timeout(STORE_PATIENCE, self.store.remember(Arc::clone(&account))).await;
        Ok(account)
    }

    /// A read that upstream answered shows that the account lives, so its record must too.
    async fn touch(&self, exchange: &Exchange<'_>, known: Option<&Arc<Account>>) {
        let read = exchange.call.operation().kind == OperationKind::Read && exchange.answer.status.is_success();
        if let Some(account) = known.filter(|_| read) {
            // A store that hangs must not hold up a read; the next one tries again.
            let _ = timeout(STORE_PATIENCE, self.store.touch(Arc::clone(account))).await;
        }
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
            (OperationKind::Update, Some(known)) => {
                Some(learn_update(&known, sent_reference(plan, lesson.request), lesson.request))
            }
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

fn errand<B>(call: &Call<B>) -> Errand {
    Errand { merchant: Arc::clone(&call.merchant), deadline: call.deadline, admission: Arc::clone(&call.admission) }
}

/// The reference an update was sent under: the record's where that was attached, else the caller's.
fn sent_reference<'a>(plan: &'a Plan, request: Option<&'a Document>) -> Option<&'a str> {
    let attached = plan.members.iter().find(|member| member.name == REFERENCE).map(|member| member.value.as_str());
    attached.or_else(|| request?.root().member(REFERENCE)?.as_str().filter(|text| !text.is_empty()))
}

const REFERENCE: &str = "originalReferenceNo";

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

/// The plan that leaves the caller's reference as it is, where upstream does not know ours and the
/// caller had sent another (`recorded_first`).
fn second_chance(plan: &Plan, answer: &Answer) -> Option<Plan> {
    if !answer.knows_no_reference() || plan.callers_reference.is_none() {
        return None;
    }
    let members = plan.members.iter().filter(|member| member.name != REFERENCE).cloned().collect();
    Some(Plan { members, callers_reference: None, flow: plan.flow.clone() })
}

async fn send(call: &Call<()>, checked: &Checked, plan: &Plan, next: &Below) -> Result<Answer, Error> {
    let operation = call.operation();
    let query = outgoing::query(operation, checked, &plan.members);
    let body = checked.document.as_ref().map_or_else(Bytes::new, |document| document.splice(&plan.members));
    let outgoing = Outgoing {
        method: call.route.method.clone(),
        path_and_query: outgoing::path(&format!("{}{query}", call.route.path))?,
        headers: outgoing::headers(operation, &call.merchant, &call.headers, sent_id(checked, plan)),
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

fn reply(call: &Call<()>, checked: &Checked, plan: &Plan, answer: Answer, learned: Option<Arc<Account>>) -> Reply {
    let operation = call.operation();
    let mut attached: Vec<&'static str> = plan.members.iter().map(|member| member.name).collect();
    let mut headers = answer.headers;
    if checked.ids.header_made || plan.flow.is_some() {
        attached.push(operation.dialect.id_header());
    }
    if checked.ids.header_made
        && operation.kind == OperationKind::Create
        && let Some(Ok(id)) = checked.ids.header.as_deref().map(HeaderValue::try_from)
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
        doubt_remains: false,
        about: About::default(),
    }
}
