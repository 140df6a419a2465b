//! Puts the parts of callbacks together: receiver, deliverers, sweepers and who asks for them.
//!
//! Promises that whatever is asked about is also counted, and that each merchant has a deliverer of its
//! own, so that one merchant's app holds up no other's. Binds nothing and decides nothing.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ask::Asker;
use super::confirm::Confirmer;
use super::deliver::{self, Bell, Deliverer, Post};
use super::receive::{self, Receiver};
use super::sweep::{self, Sweeper};
use crate::config::{Callbacks, Config, Confirm, MerchantConfig};
use crate::stack::{Gateway, Surroundings};
use crate::store::StoreError;
use crate::supervise::{Task, supervise};

/// What the parts are made of.
#[derive(Clone, Copy, Debug)]
pub struct Circle<'a> {
    /// Everything that is configured.
    pub config: &'a Config,
    /// Its section on callbacks.
    pub callbacks: &'a Callbacks,
    /// Store, clock, ids and metrics.
    pub surroundings: &'a Surroundings,
    /// The gateway, through which upstream is asked.
    pub gateway: &'a Gateway,
    /// The way to apps.
    pub post: &'a Arc<dyn Post>,
    /// Rings when there may be something to deliver.
    pub bell: &'a Bell,
}

/// Who asks upstream for all merchants.
#[derive(Clone, Debug)]
pub struct Crew {
    asker: Arc<Asker>,
    confirm: Option<Arc<Confirmer>>,
}

impl Circle<'_> {
    /// Lets the store watch accounts where somebody is going to ask about them: what is asked about has to
    /// be counted, or one payment could be claimed twice. To be called before the first [`start_one`](Self::start_one).
    ///
    /// # Errors
    /// Where the store cannot do its work.
    pub async fn watch(&self) -> Result<(), StoreError> {
        let Surroundings { clock, store, .. } = self.surroundings;
        if self.callbacks.confirm != Confirm::Never || self.callbacks.sweep.is_some() {
            store.watches().take_up(clock.now()).await?;
        }
        Ok(())
    }

    /// Who asks for them.
    #[must_use]
    pub fn crew(&self) -> Crew {
        let asker = self.asker();
        Crew { confirm: self.confirmer(&asker), asker }
    }

    /// Sets one merchant's deliverer and sweeper going.
    pub fn start_one(&self, merchant: &MerchantConfig, crew: &Crew, (tasks, stop): (&TaskTracker, &CancellationToken)) {
        if let Some(deliverer) = self.deliverer(merchant, crew.confirm.clone()).map(Arc::new) {
            let run = move |stop| {
                let deliverer = Arc::clone(&deliverer);
                async move { deliverer.run(stop).await }
            };
            self.keep(Task::Deliverer, tasks, stop, run);
        }
        if let Some(sweeper) = self.sweeper(merchant, &crew.asker).map(Arc::new) {
            let run = move |stop| {
                let sweeper = Arc::clone(&sweeper);
                async move { sweeper.run(stop).await }
            };
            self.keep(Task::Sweeper, tasks, stop, run);
        }
    }

    /// Sets a task going that starts again after a panic.
    fn keep<Work>(
        &self,
        task: Task,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        run: impl Fn(CancellationToken) -> Work + Send + Sync + 'static,
    ) where
        Work: Future<Output = ()> + Send + 'static,
    {
        let (metrics, stop) = (Arc::clone(&self.surroundings.metrics), stop.clone());
        tasks.spawn(async move { supervise(task, &metrics, &stop, || run(stop.clone())).await });
    }

    fn asker(&self) -> Arc<Asker> {
        Arc::new(Asker::new(
            Arc::clone(self.gateway.inquirer()),
            self.gateway.merchants(),
            &self.config.merchants,
            self.surroundings.entropy.clone(),
            self.config.upstream.attempt_timeout,
        ))
    }

    fn confirmer(&self, asker: &Arc<Asker>) -> Option<Arc<Confirmer>> {
        let Surroundings { clock, store, metrics, .. } = self.surroundings;
        (self.callbacks.confirm != Confirm::Never).then(|| {
            let (asker, store) = (Arc::clone(asker), Arc::clone(store));
            Arc::new(Confirmer::new(asker, store, Arc::clone(clock), Arc::clone(metrics)))
        })
    }

    fn deliverer(&self, merchant: &MerchantConfig, confirm: Option<Arc<Confirmer>>) -> Option<Deliverer> {
        let app = self.callbacks.deliver_to(merchant)?.clone();
        let Surroundings { clock, store, metrics, entropy, .. } = self.surroundings;
        let means = deliver::Means {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            entropy: entropy.clone(),
            metrics: Arc::clone(metrics),
            confirm,
            post: Arc::clone(self.post),
            bell: self.bell.clone(),
        };
        Some(Deliverer::new(Arc::clone(&merchant.name), app, means))
    }

    fn sweeper(&self, merchant: &MerchantConfig, asker: &Arc<Asker>) -> Option<Sweeper> {
        let (sweep, app) = (self.callbacks.sweep?, self.callbacks.deliver_to(merchant)?);
        let Surroundings { clock, store, metrics, entropy, .. } = self.surroundings;
        let means = sweep::Means {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            entropy: entropy.clone(),
            metrics: Arc::clone(metrics),
            asker: Arc::clone(asker),
            bell: self.bell.clone(),
        };
        Some(Sweeper::new(Arc::clone(&merchant.name), sweep, app.retry_for, means))
    }

    /// The receiver, which somebody has to serve.
    #[must_use]
    pub fn receiver(&self) -> Receiver {
        let Surroundings { clock, store, metrics, entropy, .. } = self.surroundings;
        let means = receive::Means {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            entropy: entropy.clone(),
            metrics: Arc::clone(metrics),
            bell: self.bell.clone(),
        };
        Receiver::new(self.config, self.callbacks, means)
    }
}
