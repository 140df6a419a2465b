//! Deliverers and sweepers of one configuration after the other.
//!
//! Promises that a merchant's deliverer begins when that of the configuration before has ended what it had
//! under way, so that nothing is told by both, that no other merchant waits for it, and that the newest
//! configuration is the one that stays, however fast they follow each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::circle::Circle;
use super::deliver::{Bell, Post};
use crate::config::Config;
use crate::stack::{Gateway, Surroundings};

/// What a round is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Everything that is configured.
    pub config: Config,
    /// Store, clock, ids and metrics.
    pub surroundings: Surroundings,
    /// The gateway, through which upstream is asked.
    pub gateway: Gateway,
    /// The way to apps.
    pub post: Arc<dyn Post>,
    /// Rings when there may be something to deliver.
    pub bell: Bell,
}

impl Parts {
    /// Put together; nothing where callbacks are off.
    #[must_use]
    pub fn circle(&self) -> Option<Circle<'_>> {
        let Self { config, surroundings, gateway, post, bell } = self;
        Some(Circle { callbacks: config.callbacks.as_ref()?, config, surroundings, gateway, post, bell })
    }
}

/// Whatever is at work, by merchant.
#[derive(Debug)]
pub struct Rounds {
    stop: CancellationToken,
    /// Changes that wait for what is under way.
    changes: TaskTracker,
    configuration: AtomicU64,
    by_merchant: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<Round>>>>,
}

/// One merchant's.
#[derive(Debug, Default)]
struct Round {
    /// Number of its configuration.
    configuration: u64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Round {
    /// Lets what is under way end.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Rounds {
    /// None yet; all of them end with `stop`.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        let (changes, configuration) = (TaskTracker::new(), AtomicU64::new(0));
        Self { stop, changes, configuration, by_merchant: Mutex::default() }
    }

    /// Goes on with this configuration, each merchant as soon as it can.
    pub fn begin(&self, parts: Parts) {
        let configuration = self.configuration.fetch_add(1, Ordering::Relaxed) + 1;
        let crew = parts.circle().map(|circle| Arc::new(circle.crew()));
        let parts = Arc::new(parts);
        let mut rounds = self.by_merchant.lock().unwrap_or_else(PoisonError::into_inner);
        for merchant in &parts.config.merchants {
            rounds.entry(Arc::clone(&merchant.name)).or_default();
        }
        for (name, round) in rounds.iter() {
            let (name, round, stop) = (Arc::clone(name), Arc::clone(round), self.stop.child_token());
            let (parts, crew) = (Arc::clone(&parts), crew.clone());
            self.changes.spawn(async move {
                let mut round = round.lock().await;
                if round.configuration > configuration {
                    return;
                }
                round.end().await;
                *round = Round { configuration, stop, tasks: TaskTracker::new() };
                let merchant = parts.config.merchants.iter().find(|merchant| merchant.name == name);
                if let (Some(circle), Some(crew), Some(merchant)) = (parts.circle(), crew, merchant) {
                    circle.start_one(merchant, &crew, (&round.tasks, &round.stop));
                }
            });
        }
        let is_configured = |name: &Arc<str>| parts.config.merchants.iter().any(|merchant| merchant.name == *name);
        // What has been taken out above ends all the same.
        rounds.retain(|name, _| is_configured(name));
    }

    /// Waits for the end of everything; to be told to stop before.
    pub async fn ended(&self) {
        self.changes.close();
        self.changes.wait().await;
        let rounds: Vec<_> =
            self.by_merchant.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for round in rounds {
            round.lock().await.end().await;
        }
    }
}
