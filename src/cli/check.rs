//! `ayova check`: every problem of a configuration file, or the configuration that holds.
//!
//! Promises the very path `ayova run` takes, up to the point where it would open sockets.

use super::{ConfigArg, Failure, load};
use crate::config::effective_yaml;

/// Options of `ayova check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// The file.
    #[command(flatten)]
    pub file: ConfigArg,
    /// Print the effective configuration, secrets as "***"
    #[arg(long)]
    pub print: bool,
}

/// What to print: that all is well, or the effective configuration.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn check(args: &CheckArgs) -> Result<String, Failure> {
    let config = load(&args.file.config)?;
    if args.print { Ok(effective_yaml(&config)) } else { Ok(format!("{}: ok\n", args.file.config.display())) }
}

const EXAMPLES: &str = "\
Problems go to standard error, one a line as file:line:column, with exit code 78.

Examples:
  ayova check --config config/ayova.yaml
  ayova check --config config/ayova.yaml --print    what holds, defaults included";
