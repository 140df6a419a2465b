//! The signals that end a process or have it read its configuration again (contract sections 2, 9).
//!
//! The first SIGTERM or SIGINT asks for a graceful end, the second ends at once with code 1. What a
//! graceful end is belongs to whoever waits here.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, variable};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// SIGTERM or SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// Listens from the moment it is made, so that no signal is lost while servers start.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from their default actions.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }

    /// Waits for a signal that ends, where there is nothing to reload.
    pub async fn end(&mut self) {
        while self.next().await == Told::Reload {}
    }

    /// Lets a graceful end happen unless a second signal comes.
    ///
    /// # Errors
    /// What the end says, or that it was cut short.
    pub async fn while_ending(&mut self, ending: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
        tokio::select! {
            ended = ending => ended,
            () = self.end() => Err(Failure::Failed("ended at once by a second signal".to_owned())),
        }
    }
}

/// Runs an async command to its end. Work that does not end by itself is left behind.
///
/// # Errors
/// What the command says, or that no runtime could be started.
pub fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // Where there is one core, handing tasks between threads is only a cost (docs/performance.md).
    let threads = threads()?;
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = builder
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

/// As many threads as tokio itself would start: `TOKIO_WORKER_THREADS`, or one a CPU this process may use.
fn threads() -> Result<usize, Failure> {
    let Some(wanted) = variable("TOKIO_WORKER_THREADS") else {
        return Ok(std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    };
    let way_out = "TOKIO_WORKER_THREADS must be a number from 1: set it so or leave it out";
    wanted.parse().map(NonZeroUsize::get).map_err(|_| Failure::Failed(way_out.to_owned()))
}
