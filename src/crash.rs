//! Places where a test lets the process die; compiled in with the feature `crash-points` only.
//!
//! Promises to do nothing without the feature, and nothing with it unless a test has armed a place.
//! The death is an abort: no destructor runs, nothing is flushed, as with SIGKILL.

/// A place worth dying at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The intent is recorded, nothing is sent.
    Begun,
    /// The request is about to leave.
    Sending,
    /// Upstream has answered, nothing of it is stored.
    Answered,
    /// The answer is stored, the app has not seen it.
    Stored,
    /// A callback is kept, its sender does not know.
    Kept,
    /// The app has been told of a payment, what it said is not stored.
    Told,
}

impl Place {
    /// All, in the order a request passes them, then a callback.
    pub const ALL: [Self; 6] = [Self::Begun, Self::Sending, Self::Answered, Self::Stored, Self::Kept, Self::Told];

    /// Name in `AYOVA_CRASH`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Sending => "sending",
            Self::Answered => "answered",
            Self::Stored => "stored",
            Self::Kept => "kept",
            Self::Told => "told",
        }
    }
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::Place;

    static ARMED: OnceLock<(Place, AtomicI64)> = OnceLock::new();

    /// Arms a place from a text like `answered:3`: the third request that passes it dies there.
    pub fn arm(text: &str) {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let place = Place::ALL.into_iter().find(|place| place.name() == name);
        if let (Some(place), Ok(nth)) = (place, nth.parse()) {
            // A second arming is a mistake of the test and changes nothing.
            let _ = ARMED.set((place, AtomicI64::new(nth)));
        }
    }

    /// Dies here if this is the place and the time.
    pub fn pass(place: Place) {
        if let Some((armed, left)) = ARMED.get()
            && *armed == place
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}

#[cfg(feature = "crash-points")]
pub use armed::{arm, pass};

/// Without the feature nobody dies.
#[cfg(not(feature = "crash-points"))]
pub const fn pass(_: Place) {}
