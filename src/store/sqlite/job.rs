//! What the writer is asked to record.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cache::Effect;
use super::events::{Told, Work};
use super::intents::{self, Found, Numbers};
use super::{accounts, trouble, watches};
use crate::reference::Account;
use crate::store::memory::{after, id_key};
use crate::store::{Begun, End, Intent, StoreError};

/// One thing to record, and who waits for it.
pub(super) enum Job {
    Begin(Intent, Timestamp, Waiting<Begun>),
    Finish(Ending, Waiting<()>),
    Remember(Arc<Account>, Waiting<()>),
    Touch(Arc<Account>, Waiting<()>),
    Inbox(Work, Waiting<Told>),
    /// Arranges a fault, or looks on from the writer's side.
    #[cfg(test)]
    Meddle(Box<dyn FnOnce(&Connection) + Send>),
}

/// How an intent ended and what that taught, as it is recorded in one step.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) intent: Intent,
    pub(super) end: End,
    pub(super) learned: Option<Arc<Account>>,
    pub(super) now: Timestamp,
}

/// Whoever waits, with the place in the queue.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    answer: oneshot::Sender<Result<T, StoreError>>,
    _place: OwnedSemaphorePermit,
}

impl<T> Waiting<T> {
    pub(super) fn new(place: OwnedSemaphorePermit) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { answer, _place: place }, answered)
    }

    /// Whether nobody waits any more.
    fn is_alone(&self) -> bool {
        self.answer.is_closed()
    }

    pub(super) fn tell(self, result: Result<T, StoreError>) {
        // Whoever asked may have gone away; what was recorded stays.
        let _ = self.answer.send(result);
    }
}

/// What recording a job came to.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The answer to a begin.
    pub(super) begun: Option<Begun>,
    /// The answer about a callback.
    pub(super) told: Option<Told>,
    pub(super) effects: Vec<Effect>,
    /// Whether anything was written.
    pub(super) wrote: bool,
}

/// What the writer gives each job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) numbers: Numbers,
    /// The store's time, from which accounts are kept.
    pub(super) now: Timestamp,
    /// Whether accounts are watched.
    pub(super) watching: bool,
}

impl Job {
    /// Records it as a part of the open transaction.
    pub(super) fn record(&self, db: &Connection, given: Given) -> rusqlite::Result<Done> {
        match self {
            // Nothing will be sent for whoever has given up waiting. One that gives up after this leaves a
            // record, which the next same request takes for one in doubt: the safe side.
            Self::Begin(_, _, waiting) if waiting.is_alone() => Ok(Done::default()),
            Self::Begin(intent, now, _) => begin(db, intent, *now, given.numbers.next),
            Self::Finish(ending, _) => ending.record(db, given),
            Self::Remember(account, _) => {
                let effects: Vec<Effect> = remember(db, account, given)?.into_iter().collect();
                Ok(Done { effects, wrote: true, ..Done::default() })
            }
            Self::Touch(account, _) => {
                let wrote = accounts::touch(db, account, given.now)?;
                Ok(Done { wrote, ..Done::default() })
            }
            Self::Inbox(work, _) => Ok(Done { told: Some(work.record(db)?), wrote: true, ..Done::default() }),
            #[cfg(test)]
            Self::Meddle(_) => Ok(Done::default()),
        }
    }

    /// Tells whoever waits what came of it.
    pub(super) fn tell(self, result: Result<Done, StoreError>) {
        match self {
            Self::Begin(_, _, waiting) => {
                waiting.tell(result.and_then(|done| done.begun.ok_or_else(trouble::closed)));
            }
            Self::Finish(_, waiting) | Self::Remember(_, waiting) | Self::Touch(_, waiting) => {
                waiting.tell(result.map(|_| ()));
            }
            Self::Inbox(_, waiting) => {
                waiting.tell(result.and_then(|done| done.told.ok_or_else(trouble::closed)));
            }
            #[cfg(test)]
            Self::Meddle(_) => {}
        }
    }
}

fn begin(db: &Connection, intent: &Intent, now: Timestamp, number: i64) -> rusqlite::Result<Done> {
    let found = intents::begin(db, intent, now, number)?;
    let wrote = matches!(found, Found::Nothing | Found::Open { .. });
    let effects = match &found {
        Found::Answered(answer, Some(expires)) => {
            vec![Effect::Answered(id_key(intent), intent.operation, intent.meaning, *expires, Arc::clone(answer))]
        }
        Found::Answered(_, None) | Found::Nothing | Found::Open { .. } | Found::Conflict => vec![],
    };
    Ok(Done { begun: Some(found.begun()), effects, wrote, told: None })
}

impl Ending {
    /// Records end and account as a part of the open transaction.
    pub(super) fn record(&self, db: &Connection, given: Given) -> rusqlite::Result<Done> {
        let Self { intent, end, learned, now } = self;
        intents::finish(db, intent, end, *now, given.numbers)?;
        let mut effects = Vec::new();
        if let End::Answered(answer) = end {
            let expires = after(*now, intent.retention);
            effects.push(Effect::Answered(
                id_key(intent),
                intent.operation,
                intent.meaning,
                expires,
                Arc::clone(answer),
            ));
        }
        if let Some(account) = learned {
            effects.extend(remember(db, account, given)?);
        }
        Ok(Done { effects, wrote: true, ..Done::default() })
    }

    /// Bytes it holds, about.
    pub(super) fn bytes(&self) -> usize {
        let body = match &self.end {
            End::Answered(answer) => answer.body.len(),
            End::InDoubt | End::Released => 0,
        };
        self.intent.request.len() + body + 1024
    }
}

fn remember(db: &Connection, account: &Arc<Account>, given: Given) -> rusqlite::Result<Option<Effect>> {
    let current = accounts::remember(db, account, given.now)?;
    if current && given.watching {
        watches::keep(db, account, given.now)?;
    }
    Ok(current.then(|| Effect::Account(Arc::clone(account))))
}
