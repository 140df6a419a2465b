//! `ayova run`: the gateway.
//!
//! Promises that nothing is opened before the whole configuration is known to be good.

use super::{ConfigArg, Failure, load};

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
    let _config = load(&args.file.config)?;
    Err(Failure::Failed("the gateway is wired in the next commit".to_owned()))
}

const EXAMPLES: &str = "\
SIGTERM and SIGINT: not ready, finish what is under way (shutdown.grace), exit 0; a second one ends at
once. SIGHUP: read the file again.

Examples:
  ayova run --config config/ayova.yaml
  ayova sandbox & ayova run --config config/minimal.yaml    without Ayoconnect";
