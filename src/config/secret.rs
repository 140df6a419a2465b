//! Values that must never be seen: they cannot be printed, compared by accident or serialised.
//!
//! Promises that no `{:?}`, log field or error shows what is inside, and that the value is overwritten when
//! it is dropped. Whoever needs the value says so by calling [`Secret::expose`], which makes every such
//! place easy to find; copies made there are theirs to mind.

use std::fmt;

use zeroize::Zeroize;

/// A value that prints as `"***"` and does not outlive itself in memory.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> Secret<T> {
    /// Hides a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; for signing, hashing and sending, never for showing.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Counts how often it was overwritten.
    #[derive(Clone)]
    struct Watched(Arc<AtomicU32>);

    impl Zeroize for Watched {
        fn zeroize(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_copy_is_overwritten_at_its_end() {
        let overwritten = Arc::new(AtomicU32::new(0));
        let secret = Secret::new(Watched(Arc::clone(&overwritten)));
        let copy = secret.clone();
        assert_eq!(overwritten.load(Ordering::Relaxed), 0);
        drop(secret);
        assert_eq!(overwritten.load(Ordering::Relaxed), 1);
        drop(copy);
        assert_eq!(overwritten.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn never_prints_what_it_holds() {
        let secret = Secret::new("sandbox-secret".to_owned());
        assert_eq!(format!("{secret:?}"), "\"***\"");
        assert_eq!(secret.expose(), "sandbox-secret");
    }
}
