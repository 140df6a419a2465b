//! Values that must never be seen: they cannot be printed, compared by accident or serialised.
//!
//! Promises that no `{:?}`, log field or error shows what is inside. Whoever needs the value says
//! so by calling [`Secret::expose`], which makes every such place easy to find.

use std::fmt;

/// A value that prints as `"***"`.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; for signing, hashing and sending, never for showing.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn never_prints_what_it_holds() {
        let secret = Secret::new("sandbox-secret".to_owned());
        assert_eq!(format!("{secret:?}"), "\"***\"");
        assert_eq!(secret.expose(), "sandbox-secret");
    }
}
