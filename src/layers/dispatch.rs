//! Method and path to operation.
//!
//! Paths are compared as received: no decoding, no normalisation, so that nothing reaches an
//! operation by a detour. Refuses unknown paths and methods, and everything once the process ends. Answers the upstream's token paths
//! itself, so that an app which still logs in goes on working; the token it gets is worth nothing.
//! Tells everything that passes on its way out which operation it was.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request};
use serde_json::json;
use tokio::time::Instant;

use crate::call::{About, Inbound, Reply, Route, Routed, Source};
use crate::caller::{CLASSIC_PLACEHOLDER, SNAP_PLACEHOLDER};
use crate::clock::{SharedClock, compact};
use crate::config::Upstream;
use crate::dialect::{Dialect, Operation, OperationId};
use crate::error::{Error, Failure};
use crate::layers::next::Next;

/// What dispatching needs.
#[derive(Debug)]
pub struct Dispatch {
    /// The operations of the enabled generations, where they are configured to be.
    routes: Vec<Arc<Route>>,
    /// Token paths of the enabled generations.
    logins: Vec<(Dialect, String)>,
    /// Base paths, those of a disabled generation too: they tell whose shape a refusal has.
    bases: Vec<(Dialect, String)>,
    /// Longest time from here to the answer.
    deadline: Duration,
    clock: SharedClock,
    draining: Arc<AtomicBool>,
}

impl Dispatch {
    /// The routes of a configuration.
    #[must_use]
    pub fn new(upstream: &Upstream, clock: SharedClock) -> Self {
        let (classic, snap) = (&upstream.classic, &upstream.snap);
        let mut bases = Vec::new();
        let mut logins = Vec::new();
        let mut served = Vec::new();
        for (dialect, enabled, base, login) in [
            (Dialect::Classic, classic.enabled, &classic.base_path, &classic.token_path),
            (Dialect::Snap, snap.enabled, &snap.base_path, &snap.token_path),
        ] {
            bases.push((dialect, base.clone()));
            if enabled {
                logins.push((dialect, login.clone()));
                served.push((dialect, base.clone()));
            }
        }
        let routes = served.iter().flat_map(|(dialect, base)| {
            OperationId::ALL
                .into_iter()
                .map(OperationId::operation)
                .filter(move |operation| operation.dialect == *dialect)
                .map(move |operation| {
                    let method = match operation.id {
                        OperationId::SnapUpdate => snap.update_method.clone(),
                        _ => operation.method.clone(),
                    };
                    Arc::new(Route { operation, method, path: format!("{base}{}", operation.path) })
                })
        });
        let routes = routes.collect();
        Self { routes, logins, bases, deadline: upstream.deadline, clock, draining: Arc::default() }
    }

    /// Ends with another, whose requests it takes over.
    #[must_use]
    pub fn ending_with(self, draining: Arc<AtomicBool>) -> Self {
        Self { draining, ..self }
    }

    /// The configured routes, for `/routes` and for requests the gateway makes itself.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Once set, what comes is refused; what has passed goes on.
    #[must_use]
    pub fn draining(&self) -> &Arc<AtomicBool> {
        &self.draining
    }

    fn find(&self, method: &Method, path: &str) -> Result<&Arc<Route>, Error> {
        let mut here = self.routes.iter().filter(|route| route.path == path).peekable();
        if here.peek().is_none() {
            return Err(Error::UnknownRoute);
        }
        let methods: Vec<&Method> = here.clone().map(|route| &route.method).collect();
        here.find(|route| route.method == *method).ok_or(Error::MethodNotAllowed(allowed(&methods)))
    }

    /// The operation of a path that has no other, for the service code of a wrong method's refusal.
    fn only(&self, path: &str) -> Option<&'static Operation> {
        let mut here = self.routes.iter().filter(|route| route.path == path);
        here.next().filter(|_| here.next().is_none()).map(|route| route.operation)
    }

    fn dialect_of(&self, path: &str) -> Dialect {
        let under = |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let longest = self.bases.iter().filter(|(_, base)| under(base)).max_by_key(|(_, base)| base.len());
        longest.map_or(Dialect::Snap, |(dialect, _)| *dialect)
    }

    /// A token in the generation's shape (`classic.md` section 2, `snap.md` section 2).
    fn log_in(&self, dialect: Dialect) -> Reply {
        let time = compact(self.clock.now());
        let body = match dialect {
            Dialect::Classic => json!({
                "apiProductList": "[ayova]",
                "organizationName": "ayova",
                "developer.email": "",
                "tokenType": "BearerToken",
                "responseTime": time,
                "clientId": "",
                "accessToken": CLASSIC_PLACEHOLDER,
                "expiresIn": "3599",
            }),
            Dialect::Snap => json!({
                "responseCode": "2007300",
                "responseMessage": "Successful",
                "tokenType": "BearerToken",
                "responseTime": time,
                "accessToken": SNAP_PLACEHOLDER,
                "expiresIn": "3600",
            }),
        };
        Reply {
            // A login is the one thing answered here, and it always succeeds: the default status.
            status: Default::default(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
            body: Bytes::from(body.to_string()),
            source: Source::Gateway,
            reason: None,
            attached: Vec::new(),
            learned: None,
            doubt_remains: false,
            about: About { dialect, ..About::default() },
        }
    }
}

/// The `Allow` header of a path; the table has at most three methods on one.
fn allowed(methods: &[&Method]) -> &'static str {
    match methods {
        [method] if *method == Method::PUT => "PUT",
        [method] if *method == Method::POST => "POST",
        _ => "GET, PATCH, POST",
    }
}

/// The layer's step.
pub async fn dispatch(
    state: Arc<Dispatch>,
    request: Request<Inbound>,
    next: Next<Routed, Result<Reply, Failure>>,
) -> Result<Reply, Failure> {
    let path = request.uri().path();
    if state.draining.load(Ordering::Relaxed) {
        let about = About { dialect: state.dialect_of(path), operation: state.only(path), ..About::default() };
        return Err(Failure { about, ..Error::ShuttingDown.into() });
    }
    if let Some((dialect, _)) = state.logins.iter().find(|(_, login)| login == path) {
        if request.method() == Method::POST {
            return Ok(state.log_in(*dialect));
        }
        let about = About { dialect: *dialect, ..About::default() };
        return Err(Failure { about, ..Error::MethodNotAllowed("POST").into() });
    }
    let route = match state.find(request.method(), path) {
        Ok(route) => Arc::clone(route),
        Err(error) => {
            let about = About { dialect: state.dialect_of(path), operation: state.only(path), ..About::default() };
            return Err(Failure { about, ..error.into() });
        }
    };
    let operation = route.operation;
    let routed = Routed { route, request, deadline: Instant::now() + state.deadline };
    let (dialect, operation) = (operation.dialect, Some(operation));
    // Caught here and not only in `render`, since here it is known whose shape the answer takes.
    let Ok(result) = AssertUnwindSafe(next.run(routed)).catch_unwind().await else {
        // The panic hook has told where; its payload may quote a value and is not repeated.
        tracing::error!("a request ended in a panic");
        let about = About { dialect, operation, ..About::default() };
        return Err(Failure { about, ..Error::Internal.into() });
    };
    match result {
        Ok(reply) => Ok(Reply { about: About { dialect, operation, ..reply.about }, ..reply }),
        Err(failure) => Err(Failure { about: About { dialect, operation, ..failure.about }, ..failure }),
    }
}
