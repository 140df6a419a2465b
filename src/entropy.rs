//! Ids and jitter from one generator that is handed in.
//!
//! Promises ids that nobody can guess and that do not repeat (128 random bits from a generator
//! seeded by the operating system), and a run that can be repeated where a test gives the seed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::digits;

/// A generator as it is passed around.
#[derive(Clone)]
pub struct Entropy(Arc<Mutex<StdRng>>);

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

impl Entropy {
    /// Seeded by the operating system.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn from_system() -> std::io::Result<Self> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
        Ok(Self::from_seed(seed))
    }

    /// Repeats the same run for the same seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_seed(seed))))
    }

    /// 32 lower-case hexadecimal digits: the form of every id of the protocol.
    #[must_use]
    pub fn id(&self) -> String {
        let mut bytes = [0; 16];
        self.with(|generator| generator.fill_bytes(&mut bytes));
        digits::hex(&bytes)
    }

    /// The id of a span (W3C trace context), which is never zero.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.with(|generator| generator.random_range(1..=u64::MAX))
    }

    /// A duration between nothing and `longest`.
    #[must_use]
    pub fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.with(|generator| generator.random_range(0.0..1.0)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_a_run_and_ids_differ() {
        let (one, other) = (Entropy::from_seed([7; 32]), Entropy::from_seed([7; 32]));
        let ids: Vec<_> = (0..100).map(|_| one.id()).collect();
        assert_eq!(ids, (0..100).map(|_| other.id()).collect::<Vec<_>>());
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 100);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert!(one.up_to(Duration::from_secs(2)) < Duration::from_secs(2));
        assert_ne!(Entropy::from_system().unwrap().id(), Entropy::from_system().unwrap().id());
    }
}
