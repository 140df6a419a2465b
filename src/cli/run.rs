//! `ayova run`: the gateway.
//!
//! Promises that nothing is opened before the whole configuration is known to be good.

use super::signals::{Signals, block_on};
use super::{ConfigArg, Failure, load, spans, variable};
use crate::app::App;
use crate::config::Config;
use crate::telemetry::log;

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
    let config = load(&args.file.config)?;
    #[cfg(feature = "crash-points")]
    if let Some(place) = variable("AYOVA_CRASH") {
        crate::crash::arm(&place);
    }
    // Kept until everything has ended, so that the last lines are written.
    let _written = log::init(config.log, color()).map_err(|error| Failure::Failed(error.to_string()))?;
    block_on(serve(config))
}

/// Whether the environment allows colours: <https://no-color.org>, present and not empty.
pub(super) fn color() -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty())
}

async fn serve(config: Config) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    let mut signals = Signals::listen().map_err(failed)?;
    let app = App::start_traced(&config, spans::tracer()).await.map_err(failed)?;
    tracing::info!(
        listen = %app.listen,
        admin = %app.admin,
        upstream = %config.upstream.base_url,
        merchants = config.merchants.len(),
        "ready"
    );
    let is_broken = tokio::select! {
        () = signals.end() => false,
        () = app.broken() => true,
    };
    tracing::info!(grace_s = config.shutdown.grace.as_secs(), "shutting down");
    let ending = async { app.stop().await.map_err(|error| Failure::Failed(error.to_string())) };
    signals.while_ending(ending).await?;
    // Whatever runs it shall start another.
    if is_broken { Err(Failure::Failed("a listener ended in a panic".to_owned())) } else { Ok(()) }
}

const EXAMPLES: &str = "\
SIGTERM and SIGINT: not ready, finish what is under way (shutdown.grace), exit 0; a second one ends at
once. Reloading on SIGHUP is not available in this version.

Examples:
  ayova run --config config/ayova.yaml
  ayova sandbox & ayova run --config config/minimal.yaml    without Ayoconnect";
