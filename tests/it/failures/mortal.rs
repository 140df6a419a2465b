//! What a gateway needs to die like a process: at any moment, leaving nothing of it moving.
//!
//! Its store and its way upstream stop answering for ever, so that whatever it still had under way
//! waits for good. The entries of the store, and what has already left for upstream, live on.

use std::sync::Arc;

use ayova::dialect::Dialect;
use ayova::reference::{Account, AccountQuery};
use ayova::store::inbox::Inbox;
use ayova::store::memory::MemoryStore;
use ayova::store::watch::Watches;
use ayova::store::{Begun, Doubt, End, Intent, Known, Store, StoreError};
use ayova::upstream::{Transport, TransportError};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::harness::{Life, Wire};

/// A life that ends when `dead` is cancelled.
pub(super) fn mortal(store: &Arc<MemoryStore>, wire: Wire, (dead, seed): (CancellationToken, u8)) -> Life {
    let store: Arc<dyn Store> = Arc::new(Mortal { store: Arc::clone(store), dead: dead.clone() });
    Life { transport: Arc::new(Way { wire, dead }), store, seed, tracer: None }
}

/// A store that stops answering when its gateway dies; the entries live on.
#[derive(Debug)]
struct Mortal {
    store: Arc<MemoryStore>,
    dead: CancellationToken,
}

impl Mortal {
    fn unless_dead<'a, T: Send + 'a>(&'a self, work: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
        async move {
            match self.dead.is_cancelled() {
                true => std::future::pending().await,
                false => work.await,
            }
        }
        .boxed()
    }
}

impl Store for Mortal {
    fn begin<'a>(&'a self, intent: &'a Intent, now: Timestamp) -> BoxFuture<'a, Result<Begun, StoreError>> {
        self.unless_dead(async move { self.store.begin(intent, now).await }.boxed())
    }

    fn finish<'a>(
        &'a self,
        intent: &'a Intent,
        end: End,
        learned: Option<Arc<Account>>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.unless_dead(async move { self.store.finish(intent, end, learned, now).await }.boxed())
    }

    fn remember(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.unless_dead(async move { self.store.remember(account).await }.boxed())
    }

    fn account<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Option<Arc<Account>>, StoreError>> {
        self.unless_dead(self.store.account(merchant, dialect, query))
    }

    fn prefix<'a>(&'a self, merchant: &'a str, bank: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.unless_dead(self.store.prefix(merchant, bank))
    }

    fn accounts<'a>(&'a self, number: &'a str) -> BoxFuture<'a, Result<Vec<Arc<Account>>, StoreError>> {
        self.unless_dead(self.store.accounts(number))
    }

    fn known<'a>(&'a self, id: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Known>, StoreError>> {
        self.unless_dead(self.store.known(id, now))
    }

    fn take_over(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        self.unless_dead(async move { self.store.take_over(now).await }.boxed())
    }

    fn doubts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Doubt>, StoreError>> {
        self.unless_dead(async move { self.store.doubts(limit).await }.boxed())
    }

    fn inbox(&self) -> &dyn Inbox {
        self.store.inbox()
    }

    fn watches(&self) -> &dyn Watches {
        self.store.watches()
    }

    fn problem(&self) -> Option<String> {
        None
    }
}

/// A way to upstream on which what has left goes on, whether or not anybody waits for its answer.
#[derive(Debug)]
struct Way {
    wire: Wire,
    dead: CancellationToken,
}

impl Transport for Way {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        if self.dead.is_cancelled() {
            return std::future::pending().boxed();
        }
        let travelling = tokio::spawn(self.wire.send(request));
        let dead = self.dead.clone();
        async move {
            match dead.run_until_cancelled(travelling).await {
                Some(answered) => answered.unwrap(),
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}
