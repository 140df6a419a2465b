//! Records of creates and updates, by their id and by their transaction.
//!
//! Promises that a record is found by either for as long as there is room for it there. What a record says
//! beyond its names is not looked at.

use std::hash::Hash;
use std::sync::Arc;

use super::Intent;
use super::memory::space;
use super::shelf::Shelf;
use crate::dialect::OperationId;

/// What a record is known by.
pub(super) trait Named {
    fn merchant(&self) -> &str;
    fn operation(&self) -> OperationId;
    fn id(&self) -> &str;
    /// Creates only.
    fn transaction(&self) -> Option<&str>;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Directory<R> {
    pub(super) by_id: Shelf<Arc<R>>,
    pub(super) by_transaction: Shelf<Arc<R>>,
}

impl<R: Named> Directory<R> {
    /// An empty one with room for so many bytes of either.
    pub(super) fn new(most: usize) -> Self {
        Self { by_id: Shelf::new(most), by_transaction: Shelf::new(most) }
    }

    /// The record that has the intent's id.
    pub(super) fn by_id(&mut self, intent: &Intent) -> Option<&Arc<R>> {
        self.by_id.get(self.by_id.place(id(intent)), has_id_of(intent))
    }

    /// The record that has the intent's transaction.
    pub(super) fn by_transaction(&mut self, intent: &Intent) -> Option<&Arc<R>> {
        let place = self.by_transaction.place(transaction(intent)?);
        self.by_transaction.get(place, has_transaction_of(intent))
    }

    /// Enters an intent's record, with what it weighs by id and by transaction.
    pub(super) fn put(&mut self, intent: &Intent, record: &Arc<R>, (by_id, by_transaction): (usize, usize)) {
        self.by_id.put(self.by_id.place(id(intent)), Arc::clone(record), by_id, has_id_of(intent));
        if let Some(transaction) = transaction(intent) {
            let place = self.by_transaction.place(transaction);
            self.by_transaction.put(place, Arc::clone(record), by_transaction, has_transaction_of(intent));
        }
    }

    /// Takes out what has the intent's id, and what has its transaction.
    pub(super) fn remove(&mut self, intent: &Intent) {
        self.by_id.remove(self.by_id.place(id(intent)), has_id_of(intent));
        if let Some(transaction) = transaction(intent) {
            self.by_transaction.remove(self.by_transaction.place(transaction), has_transaction_of(intent));
        }
    }
}

fn id(intent: &Intent) -> impl Hash {
    (&*intent.merchant, space(intent.operation), &*intent.id)
}

fn transaction(intent: &Intent) -> Option<impl Hash> {
    intent.transaction.as_deref().map(|transaction| (&*intent.merchant, intent.operation, transaction))
}

/// Ids of one merchant and space.
fn has_id_of<R: Named>(intent: &Intent) -> impl Fn(&Arc<R>) -> bool {
    |record| {
        *record.id() == *intent.id
            && *record.merchant() == *intent.merchant
            && space(record.operation()) == space(intent.operation)
    }
}

/// Transactions of one merchant and operation.
fn has_transaction_of<R: Named>(intent: &Intent) -> impl Fn(&Arc<R>) -> bool {
    |record| {
        record.transaction() == intent.transaction.as_deref()
            && *record.merchant() == *intent.merchant
            && record.operation() == intent.operation
    }
}
