//! A simulated Ayoconnect: both API generations, with state, faults and callbacks.
//!
//! Promises what the protocol dossier says, with every open question at the switch's setting, so that
//! the gateway can be developed and tested against it. [`Sandbox`] is a tower service: tests mount it
//! in memory, [`serve`] puts it on a socket. Knows nothing of the gateway; both read the same tables
//! (`dialect`) and the same `signature`. Not meant for load or for secrets.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use ayova::clock::SystemClock;
//! use ayova::config::SandboxConfig;
//! use ayova::sandbox::Sandbox;
//! use rand::SeedableRng as _;
//!
//! let random = rand::rngs::StdRng::seed_from_u64(1);
//! let sandbox = Sandbox::new(SandboxConfig::default(), Arc::new(SystemClock), random)?;
//! # let _ = sandbox.clone();
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Uri;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use tokio::sync::Semaphore;

use crate::clock::SharedClock;
use crate::config::SandboxConfig;
use crate::config::sandbox::{CALLBACK_KEY_PEM, CallbackSigning};
use crate::dialect::Dialect;
use crate::signature::{KeyError, PrivateKey};

mod account;
mod answer;
mod callback;
mod calls;
mod classic;
mod control;
mod duration;
mod fault;
mod idempotency;
mod journal;
mod ledger;
mod merchant;
mod record;
mod registry;
mod route;
mod server;
mod service;
mod snap;
mod token;

pub use callback::{HttpTransport, Transport};
pub use merchant::InvalidKey;
pub use server::serve;
pub use service::{BODY_BYTES_MAX, ConnectionReset};

use callback::{Addresses, Delivery, Next, Outcome};
use merchant::Merchant;

/// The simulator. A clone is the same simulator.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

/// Why a simulator cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxError {
    /// A merchant's key gives no key.
    Key(InvalidKey),
    /// The shipped key that signs callbacks gives no key.
    CallbackKey(KeyError),
    /// A configured callback address is none; the generation and what is allowed.
    CallbackAddress(Dialect, String),
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::CallbackKey(error) => write!(f, "key of callbacks.sign: {error}"),
            Self::CallbackAddress(dialect, problem) => write!(f, "callbacks.{}: {problem}", dialect.name()),
        }
    }
}

impl std::error::Error for SandboxError {}

impl Sandbox {
    /// A simulator without accounts.
    ///
    /// `clock` is real time: it judges `X-TIMESTAMP` and tokens. Ids, numbers, tokens and probable
    /// faults come from `random`, so one seed gives one run.
    ///
    /// # Errors
    /// [`SandboxError`] for configured keys and addresses that cannot be used.
    pub fn new(config: SandboxConfig, clock: SharedClock, random: StdRng) -> Result<Self, SandboxError> {
        Self::with_transport(config, clock, random, Arc::new(HttpTransport::default()))
    }

    /// A simulator whose callbacks go through `transport`.
    ///
    /// # Errors
    /// [`SandboxError`] for configured keys and addresses that cannot be used.
    pub fn with_transport(
        config: SandboxConfig,
        clock: SharedClock,
        random: StdRng,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, SandboxError> {
        let merchants: Result<Vec<_>, _> =
            config.merchants.iter().enumerate().map(|(index, merchant)| Merchant::new(index, merchant)).collect();
        let addresses = Addresses {
            snap: configured(Dialect::Snap, config.callbacks.snap.as_deref())?,
            classic: configured(Dialect::Classic, config.callbacks.classic.as_deref())?,
        };
        let callback_key = match config.callbacks.sign {
            CallbackSigning::None | CallbackSigning::HmacSha512 => None,
            CallbackSigning::RsaTransactional => {
                Some(PrivateKey::from_pem(CALLBACK_KEY_PEM).map_err(SandboxError::CallbackKey)?)
            }
        };
        let state = Mutex::new(State::new(random, addresses.clone(), 0));
        Ok(Self {
            shared: Arc::new(Shared {
                merchants: merchants.map_err(SandboxError::Key)?,
                callback_key,
                config,
                clock,
                transport,
                permits: Semaphore::new(callback::IN_FLIGHT_MAX),
                addresses,
                state,
            }),
        })
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

fn configured(dialect: Dialect, address: Option<&str>) -> Result<Option<Uri>, SandboxError> {
    let read = address.map(callback::address).transpose();
    read.map_err(|problem| SandboxError::CallbackAddress(dialect, problem))
}

/// What every request shares.
struct Shared {
    config: SandboxConfig,
    merchants: Vec<Merchant>,
    /// Signs callbacks where the switch says RSA.
    callback_key: Option<PrivateKey>,
    clock: SharedClock,
    transport: Arc<dyn Transport>,
    permits: Semaphore,
    /// Where a reset brings the callback addresses back to.
    addresses: Addresses,
    /// A std mutex, since nothing waits while it is held.
    state: Mutex<State>,
}

/// What a reset clears.
struct State {
    registry: registry::Registry,
    tokens: token::Tokens,
    calls: idempotency::Calls,
    ledger: ledger::Ledger,
    faults: fault::Faults,
    journal: journal::Journal,
    deliveries: callback::Deliveries,
    addresses: Addresses,
    /// How far the control clock is ahead of real time.
    advanced: SignedDuration,
    /// Payments taken, the newest one's id.
    payments: u64,
    /// Resets so far.
    epoch: u64,
    random: StdRng,
}

impl State {
    fn new(random: StdRng, addresses: Addresses, epoch: u64) -> Self {
        Self {
            registry: registry::Registry::default(),
            tokens: token::Tokens::default(),
            calls: idempotency::Calls::default(),
            ledger: ledger::Ledger::default(),
            faults: fault::Faults::default(),
            journal: journal::Journal::default(),
            deliveries: callback::Deliveries::default(),
            addresses,
            advanced: SignedDuration::ZERO,
            payments: 0,
            epoch,
            random,
        }
    }

    /// The control clock, given real time.
    fn control_time(&self, real: Timestamp) -> Timestamp {
        real.checked_add(self.advanced).unwrap_or(Timestamp::MAX)
    }

    /// Everything as after [`Sandbox::new`], but for the generator, which goes on.
    fn reset(&mut self, addresses: Addresses) {
        use rand::SeedableRng as _;
        let random = StdRng::from_rng(&mut self.random);
        *self = Self::new(random, addresses, self.epoch.wrapping_add(1));
    }
}

impl Shared {
    /// A panic while the lock was held is a bug, but the state is still worth looking at.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn merchant(&self, index: usize) -> Option<&Merchant> {
        self.merchants.get(index)
    }

    /// Notes an attempt; false where a reset has put an end to the delivery.
    fn note_delivery(&self, delivery: &Delivery, outcome: &Outcome, next: Next) -> bool {
        let mut state = self.lock();
        let current = state.epoch == delivery.epoch;
        if current {
            state.deliveries.note(delivery.id, outcome, next);
        }
        current
    }
}
