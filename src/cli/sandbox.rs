//! `ayova sandbox`: the simulated Ayoconnect alone.
//!
//! Promises the sample merchant and every switch at its default where no file is given.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Failure, variable};
use crate::config::SandboxConfig;

/// Options of `ayova sandbox`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SandboxArgs {
    /// Where it listens; wins over the file [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// The switches; config/sandbox.yaml explains them
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl SandboxArgs {
    /// What the arguments and the file they name say together.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(&self) -> Result<SandboxConfig, Failure> {
        let mut config = match &self.config {
            Some(path) => SandboxConfig::load(path, &variable)?,
            None => SandboxConfig::default(),
        };
        config.listen = self.listen.unwrap_or(config.listen);
        Ok(config)
    }
}

/// Runs until a signal.
///
/// # Errors
/// A bad configuration, an address that is taken.
pub fn run(args: &SandboxArgs) -> Result<(), Failure> {
    let _config = args.load()?;
    Err(Failure::Failed("the sandbox is wired in the next commit".to_owned()))
}

const EXAMPLES: &str = "\
Without --config the sample merchant AYOTST (client sandbox-client, secret sandbox-secret) is known.

Examples:
  ayova sandbox
  ayova sandbox --listen 127.0.0.1:9091 --config config/sandbox.yaml";
