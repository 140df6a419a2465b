//! A service that can be replaced while it is served.
//!
//! Promises that a request is answered by one service as a whole: the one that was there when it came.
//! What replaces what, and when, is others' affair.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use tower::Service;

/// Whatever service is the present one. A clone is replaced with it.
pub struct Live<S>(Arc<ArcSwap<S>>);

impl<S> Live<S> {
    /// Begins with this one.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(service)))
    }

    /// The present one.
    #[must_use]
    pub fn now(&self) -> Arc<S> {
        self.0.load_full()
    }

    /// Puts another in its place.
    pub fn replace(&self, service: S) {
        self.0.store(Arc::new(service));
    }
}

impl<S> Clone for Live<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Live<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

/// Of services that are always ready, as all of ours are.
impl<S, R> Service<R> for Live<S>
where
    S: Service<R> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        S::clone(&self.0.load()).call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn clones_are_replaced_together() {
        let answer = |answer: u32| move |(): ()| async move { Ok::<_, Infallible>(answer) };
        let live = Live::new(service_fn(answer(1)).boxed_clone());
        let served = live.clone();
        assert_eq!(served.clone().oneshot(()).await, Ok(1));
        live.replace(service_fn(answer(2)).boxed_clone());
        assert_eq!(served.oneshot(()).await, Ok(2));
    }
}
