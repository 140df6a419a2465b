//! `ayova run`: the gateway.
//!
//! Promises that nothing is opened before the whole configuration is known to be good.

use super::reload::Reloader;
use super::signals::{Signals, Told, block_on};
use super::{ConfigArg, Failure, load, spans, variable};
use crate::app::App;
use crate::config::Config;
use crate::server::{Inherited, raise_descriptors};
use crate::telemetry::log::{self, Guard};

/// Options of `ayova run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The file.
    #[command(flatten)]
    pub file: ConfigArg,
}

/// Runs until a signal.
///
/// # Errors
/// A bad configuration, addresses that are taken, work that did not finish in time.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let mut reloader = Reloader::new(args.file.config.clone());
    let config = load(&args.file.config)?;
    reloader.began(&config);
    #[cfg(feature = "crash-points")]
    if let Some(place) = variable("AYOVA_CRASH") {
        crate::crash::arm(&place);
    }
    // Before there is a second thread, since it changes the environment.
    let inherited = inherited(&config).map_err(|error| Failure::Failed(error.to_string()))?;
    // Kept until everything has ended, so that the last lines are written.
    let log = log::init(config.log, color()).map_err(|error| Failure::Failed(error.to_string()))?;
    block_on(serve(config, inherited, (reloader, &log)))
}

/// The socket that systemd has opened for this very process; a child of it may have the variables, too.
fn inherited(config: &Config) -> std::io::Result<Option<Inherited>> {
    if variable("LISTEN_PID").is_some_and(|process| process == std::process::id().to_string()) {
        Inherited::from_env(&config.listen.address)
    } else {
        Ok(None)
    }
}

/// Whether the environment allows colours: <https://no-color.org>, present and not empty.
pub(super) fn color() -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty())
}

async fn serve(
    config: Config,
    inherited: Option<Inherited>,
    (mut reloader, log): (Reloader, &Guard),
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    let mut signals = Signals::listen().map_err(failed)?;
    if let Err(error) = raise_descriptors() {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
    let listener = inherited.map(Inherited::adopt).transpose().map_err(failed)?;
    let mut app = App::start_on(&config, listener, spans::tracer()).await.map_err(failed)?;
    tracing::info!(
        listen = %app.listen,
        tls = config.listen.tls.is_some(),
        admin = %app.admin,
        callbacks = app.callbacks.map(tracing::field::display),
        upstream = %config.upstream.base_url,
        merchants = config.merchants.len(),
        "ready"
    );
    let is_broken = loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::End => break false,
                Told::Reload => reloader.reload(&mut app, log).await,
            },
            () = reloader.changed() => reloader.reload(&mut app, log).await,
            () = app.broken() => break true,
        }
    };
    tracing::info!(grace_s = app.grace().as_secs(), "shutting down");
    let ending = async { app.stop().await.map_err(|error| Failure::Failed(error.to_string())) };
    signals.while_ending(ending).await?;
    // Whatever runs it shall start another.
    if is_broken { Err(Failure::Failed("a listener ended in a panic".to_owned())) } else { Ok(()) }
}

const EXAMPLES: &str = "\
SIGTERM and SIGINT: not ready, finish what is under way (shutdown.grace), exit 0; a second one ends at
once. SIGHUP, or a changed file: the configuration is read again; one with a fault changes nothing.

Examples:
  ayova run --config config/ayova.yaml
  ayova sandbox & ayova run --config config/minimal.yaml    without Ayoconnect";
