//! `ayova sandbox`: the simulated Ayoconnect alone.
//!
//! Promises the sample merchant and every switch at its default where no file is given.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::signals::{Signals, block_on};
use super::{Failure, variable};
use crate::clock::SystemClock;
use crate::config::SandboxConfig;
use crate::sandbox::{Sandbox, serve};
use crate::server::cannot_listen;

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
    let config = args.load()?;
    block_on(async {
        let mut signals = Signals::listen().map_err(failed)?;
        let listener = bind(config.listen).await.map_err(failed)?;
        let sandbox = start(listener, config)?;
        let at = sandbox.address;
        super::print(&format!(
            "Simulated Ayoconnect at http://{at}, control at http://{at}/_sandbox/ (accounts, pay, clock, faults, stats)\n\
             Credentials: curl http://{at}/_sandbox/credentials\n"
        ))?;
        signals.end().await;
        signals.while_ending(sandbox.stop()).await
    })
}

/// A simulator that is running.
pub(super) struct Running {
    /// Where.
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    /// Lets what is under way end, for a moment.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.stop.cancel();
        self.serving.await.map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// Binds.
pub(super) async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| cannot_listen(&listen.into(), &error))
}

/// Serves where `listener` is bound.
pub(super) fn start(listener: TcpListener, config: SandboxConfig) -> Result<Running, Failure> {
    let address = listener.local_addr().map_err(failed)?;
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| Failure::Failed("the system gives no random numbers".to_owned()))?;
    let sandbox = Sandbox::new(config, Arc::new(SystemClock), StdRng::from_seed(seed))
        .map_err(|error| Failure::BadConfig(error.to_string()))?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, sandbox, stop.clone().cancelled_owned()));
    Ok(Running { address, stop, serving })
}

fn failed(error: io::Error) -> Failure {
    Failure::Failed(error.to_string())
}

const EXAMPLES: &str = "\
Without --config the sample merchant AYOTST (client sandbox-client, secret sandbox-secret) is known.

Examples:
  ayova sandbox
  ayova sandbox --listen 127.0.0.1:9091 --config config/sandbox.yaml";
