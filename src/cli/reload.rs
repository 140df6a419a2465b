//! Reading the configuration again, on SIGHUP and when one of its files has changed.
//!
//! Promises that a configuration with a fault changes nothing and is reported once, and that a file is
//! read when it has stopped changing. What a changed configuration changes is `app`'s affair.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Failure, load};
use crate::app::App;
use crate::config::{Config, Print};
use crate::telemetry::log::Guard;
use crate::telemetry::metrics::{Metrics, Reload};

/// Knows what was read.
#[derive(Debug)]
pub(super) struct Reloader {
    path: PathBuf,
    /// What the present configuration refers to without naming it as `${file:…}`.
    beside: Vec<PathBuf>,
    /// Of what is in force.
    applied: Print,
    /// Of what was judged last, whatever came of it.
    judged: Print,
}

impl Reloader {
    /// To be made before the configuration is read, so that no change in between is missed.
    pub(super) fn new(path: PathBuf) -> Self {
        let print = Print::of(&path, &[]);
        Self { path, beside: Vec::new(), applied: print, judged: print }
    }

    /// The configuration that was read is in force.
    pub(super) fn began(&mut self, config: &Config) {
        let tls = config.upstream.tls.iter();
        let files = tls.flat_map(|tls| tls.ca.iter().chain(tls.identity.iter().flat_map(|(cert, key)| [cert, key])));
        let beside: Vec<PathBuf> = files.cloned().collect();
        // Otherwise what was read has been looked at before it was read, so that no change is missed.
        if beside != self.beside {
            self.beside = beside;
            self.applied = Print::of(&self.path, &self.beside);
            self.judged = self.applied;
        }
    }

    /// Waits until a file has changed, and then stopped changing.
    pub(super) async fn changed(&self) {
        let mut seen = self.judged;
        loop {
            sleep(LOOK).await;
            let now = self.print().await;
            if now == seen && now != self.judged {
                return;
            }
            seen = now;
        }
    }

    async fn print(&self) -> Print {
        let (path, beside) = (self.path.clone(), self.beside.clone());
        spawn_blocking(move || Print::of(&path, &beside)).await.unwrap_or(self.judged)
    }

    /// Reads it again and, if it is another, puts it in force.
    pub(super) async fn reload(&mut self, app: &mut App, log: &Guard) {
        let metrics = &app.metrics();
        let print = self.print().await;
        self.judged = print;
        if print == self.applied {
            metrics.config_reloaded(Reload::Unchanged);
            tracing::info!("the configuration is unchanged");
            return;
        }
        let path = self.path.clone();
        let loaded = spawn_blocking(move || load(&path)).await;
        let config = match loaded {
            Ok(Ok(config)) => config,
            Ok(Err(Failure::BadConfig(problems))) => return rejected(metrics, &problems),
            Ok(Err(failure)) => return rejected(metrics, &failure.to_string()),
            Err(_) => return rejected(metrics, "it could not be read"),
        };
        let began = config.clone();
        match app.reload(config).await {
            Ok(()) => {
                self.applied = print;
                self.began(&began);
                log.set_level(began.log.level);
                metrics.config_reloaded(Reload::Applied);
                tracing::info!(merchants = began.merchants.len(), "the configuration is reloaded");
            }
            Err(refused) => rejected(metrics, &refused.to_string()),
        }
    }
}

/// The present configuration goes on.
fn rejected(metrics: &Metrics, why: &str) {
    metrics.config_reloaded(Reload::Rejected);
    tracing::error!(why, "the changed configuration is refused; the one before stays in force");
}

/// How often files are looked at; twice the same is a file that has stopped changing.
const LOOK: Duration = Duration::from_secs(1);
