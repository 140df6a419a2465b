//! Who may connect to a listener at all.
//!
//! Promises that whoever may not is closed before a byte of TLS or HTTP is looked at. Which addresses those
//! are is the owner's to say, and may change while it is served.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::Peer;

/// Asked about every connection that comes over IP; by default it lets everybody in.
#[derive(Clone, Default)]
pub struct Door(Option<Arc<Admits>>);

type Admits = dyn Fn(IpAddr) -> bool + Send + Sync;

impl Door {
    /// Lets in whom this says so of.
    #[must_use]
    pub fn new(admits: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(admits)))
    }

    /// Whether somebody may connect. Who comes through a unix socket's file was let in by its mode.
    pub(super) fn admits(&self, peer: Option<Peer>) -> bool {
        self.0.as_ref().zip(peer).is_none_or(|(admits, Peer(address))| admits(address))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}
