//! Finds out, by asking upstream, what became of a create or update in doubt.
//!
//! Used while a caller waits (a conflict with a try of our own) and by the resolver afterwards. Judges
//! nothing itself: the verdict is `reference::settle`'s. Stores nothing: what it found is handed back
//! as the answer the caller would have had.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;

use crate::call::{About, Checked, Reply, Source};
use crate::dialect::{Dialect, Operation, OperationKind};
use crate::document::Document;
use crate::error::{Error, Reason};
use crate::inquiry::{self, Errand, Inquirer};
use crate::reference::plan::Asked;
use crate::reference::settle::{Case, Verdict, subject, verdict};
use crate::reference::{Account, Lesson, learn_create, learn_update};
use crate::store::Store;

/// Finds out.
#[derive(Debug)]
pub struct Settler {
    /// Asks upstream.
    pub inquirer: Arc<Inquirer>,
    /// Knows prefixes.
    pub store: Arc<dyn Store>,
}

/// A request in doubt.
#[derive(Clone, Copy, Debug)]
pub struct Doubtful<'a> {
    /// Which operation.
    pub operation: &'static Operation,
    /// What it says.
    pub checked: &'a Checked,
    /// The record of its account; absent for a create.
    pub account: Option<&'a Account>,
    /// The id it was sent under.
    pub sent_id: &'a str,
    /// When it was sent.
    pub sent_at: Timestamp,
}

/// What was found out.
#[derive(Clone, Debug)]
pub enum Finding {
    /// It happened; this is its answer, put together from what upstream shows.
    Happened(Box<Reply>),
    /// Upstream shows the account, and not what was asked for. Of a create that proves nothing.
    NotSeen,
    /// Its account cannot be named: upstream chose the number, or it is a classic create.
    NobodyToAsk,
    /// Upstream could not be asked.
    NoAnswer,
}

impl Settler {
    /// Asks once.
    pub async fn settle(&self, errand: Errand, doubtful: &Doubtful<'_>) -> Finding {
        let Some(request) = &doubtful.checked.document else { return Finding::NobodyToAsk };
        let merchant = Arc::clone(&errand.merchant.name);
        let asked = match self.ask(errand, doubtful).await {
            None => return Finding::NobodyToAsk,
            Some(Err(_)) => return Finding::NoAnswer,
            Some(Ok(asked)) => asked,
        };
        let answer = match (asked.answer.status.as_u16(), &asked.answer.document) {
            (200..=299, Some(answer)) => answer,
            // A refusal does not prove that nothing was made: a wrong path, another prefix and an unknown
            // number all read alike.
            _ => return Finding::NoAnswer,
        };
        let case = Case { operation: doubtful.operation, request, sent_id: doubtful.sent_id, answer };
        let Verdict::Happened(body) = verdict(&case) else { return Finding::NotSeen };
        let Ok(document) = Document::parse(body.clone()) else { return Finding::NoAnswer };
        let lesson = Lesson {
            merchant: &merchant,
            request: Some(request),
            answer: &document,
            sent_id: doubtful.sent_id,
            transaction: doubtful.checked.ids.transaction.as_deref().unwrap_or_default(),
            sent_at: doubtful.sent_at,
        };
        let learned = match (doubtful.operation.kind, doubtful.account) {
            (OperationKind::Create, _) => learn_create(doubtful.operation.dialect, &lesson),
            (OperationKind::Update, Some(account)) => Some(learn_update(account, None, Some(request))),
            // An update's own id is no reference, and nothing else here is sure to be one.
            (OperationKind::Update | OperationKind::Read, _) => None,
        };
        Finding::Happened(Box::new(Reply {
            status: StatusCode::from_u16(doubtful.operation.success).unwrap_or_default(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
            body,
            source: Source::Gateway,
            reason: Some(Reason::SettledByInquiry),
            attached: Vec::new(),
            learned: learned.map(Arc::new),
            doubt_remains: false,
            about: About::default(),
        }))
    }

    /// Nothing where there is nobody to ask about.
    async fn ask(&self, errand: Errand, doubtful: &Doubtful<'_>) -> Option<Result<inquiry::Asked, Error>> {
        let asked = Asked { operation: doubtful.operation, checked: doubtful.checked };
        match (doubtful.operation.dialect, doubtful.operation.kind) {
            (Dialect::Classic, OperationKind::Update) => Some(self.inquirer.classic(errand, doubtful.account?).await),
            (Dialect::Classic, OperationKind::Create | OperationKind::Read) => None,
            (Dialect::Snap, _) => {
                let bank = doubtful.checked.document.as_ref()?.root().at(&["additionalInfo", "bankCode"])?.as_str()?;
                let prefix = match doubtful.account {
                    Some(_) => None,
                    None => self.store.prefix(&errand.merchant.name, bank).await.ok().flatten(),
                };
                let subject = subject(asked, doubtful.account, prefix.as_deref())?;
                Some(self.inquirer.snap(errand, &subject).await)
            }
        }
    }
}
