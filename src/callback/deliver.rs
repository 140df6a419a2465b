//! Tells apps of payments: claim what is due, confirm, sign, post, reschedule (contract section 8).
//!
//! Promises at least one delivery of every event in the inbox, in the order of an account's payments,
//! and that one merchant's slow app holds up no other's. Posts to configured addresses only and follows
//! no redirect. When the next attempt comes is `schedule`'s to say.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::confirm::{Checked, Confirmer};
use super::event;
use super::schedule::{Next, Outcome, Standing, judge, pause, retry_after};
use crate::clock::SharedClock;
use crate::config::Deliver;
use crate::crash::{self, Place};
use crate::entropy::Entropy;
use crate::reference::AccountQuery;
use crate::store::Store;
use crate::store::inbox::{Attempt, Counts, Event, EventKind, Fate};
use crate::telemetry::metrics::{Delivery, Metrics};
use crate::upstream::{HttpsClient, https_client};

/// Tells deliverers that there may be something new. A clone rings the same.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// There may be something new.
    pub fn ring(&self) {
        self.0.notify_waiters();
    }
}

/// Posts one event. The error says in words why there is no answer; time limits are the caller's.
pub trait Post: Send + Sync + fmt::Debug {
    /// Posts it once; of the answer only the head counts.
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<()>, String>>;
}

/// The real thing: pooled connections, TLS by the platform's roots, no redirects.
#[derive(Clone, Debug)]
pub struct HyperPost(HttpsClient);

impl HyperPost {
    /// A client of whatever address an event goes to.
    ///
    /// # Errors
    /// Where the platform's certificate store cannot be used.
    pub fn new() -> std::io::Result<Self> {
        https_client(CONNECT_TIME, None).map(Self)
    }
}

impl Post for HyperPost {
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<()>, String>> {
        let answering = self.0.request(request);
        async move { answering.await.map(|answer| answer.map(|_| ())).map_err(|error| error.to_string()) }.boxed()
    }
}

/// What a deliverer works with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where events wait.
    pub store: Arc<dyn Store>,
    /// Decides what is due.
    pub clock: SharedClock,
    /// Jitter.
    pub entropy: Entropy,
    /// What came of attempts.
    pub metrics: Arc<Metrics>,
    /// Asks upstream whether a payment is true; absent: nobody does.
    pub confirm: Option<Arc<Confirmer>>,
    /// The way to apps.
    pub post: Arc<dyn Post>,
    /// Rings when there may be something new.
    pub bell: Bell,
}

/// Delivers one merchant's events to its app.
#[derive(Debug)]
pub struct Deliverer {
    merchant: Arc<str>,
    app: Deliver,
    means: Means,
}

impl Deliverer {
    /// A deliverer at rest; [`run`](Self::run) sets it going.
    #[must_use]
    pub const fn new(merchant: Arc<str>, app: Deliver, means: Means) -> Self {
        Self { merchant, app, means }
    }

    /// Delivers until told to stop, and then what is under way.
    pub async fn run(&self, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut taken: HashSet<String> = HashSet::new();
        loop {
            let ringing = self.means.bell.0.notified();
            for event in self.due(&taken).await {
                taken.insert(event.id.clone());
                under_way.push(self.deliver(event, &stop));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(id) = under_way.next(), if !under_way.is_empty() => {
                    taken.remove(&id);
                }
                () = ringing => {}
                () = sleep(TICK) => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// What is due and not under way, as much as there is room for.
    async fn due(&self, taken: &HashSet<String>) -> Vec<Event> {
        let room = self.app.in_flight.saturating_sub(taken.len());
        if room == 0 {
            return Vec::new();
        }
        let now = self.means.clock.now();
        // What is under way is still due.
        let due = self.means.store.inbox().due(&self.merchant, now, self.app.in_flight).await;
        let due = due.unwrap_or_else(|error| {
            tracing::warn!(merchant = &*self.merchant, %error, "what is due cannot be read");
            Vec::new()
        });
        due.into_iter().filter(|event| !taken.contains(&event.id)).take(room).collect()
    }

    /// One attempt and its record; the event's id. Until it is recorded the event is not tried again.
    async fn deliver(&self, mut event: Event, stop: &CancellationToken) -> String {
        let attempt = match self.check(&mut event).await {
            Ok(counts) => self.tried(&event, counts).await,
            Err(unsent) => unsent,
        };
        self.tell(&event, attempt.fate, &attempt.said);
        while let Err(error) = self.means.store.inbox().attempted(attempt.clone()).await {
            tracing::warn!(merchant = &*self.merchant, %error, "the end of an attempt could not be recorded");
            if stop.run_until_cancelled(sleep(RECORD_AGAIN)).await.is_none() {
                break;
            }
        }
        event.id
    }

    /// Whether it may go out, and what it then adds; if not, what follows instead.
    async fn check(&self, event: &mut Event) -> Result<Counts, Attempt> {
        // What had an end before was found true, or possible, then.
        let is_claim = event.kind == EventKind::Paid && !event.confirmed && !event.counted;
        let Some(confirmer) = self.means.confirm.as_ref().filter(|_| is_claim) else { return Ok(Counts::InFull) };
        let (fate, said, doubt) = match confirmer.check(event).await {
            Checked::Confirmed => {
                event.confirmed = true;
                return Ok(Counts::InFull);
            }
            Checked::Identified(paid_at) => {
                (event.confirmed, event.paid_at) = (true, Some(paid_at));
                return Ok(Counts::InFull);
            }
            Checked::Hidden => return Ok(Counts::AsTold),
            Checked::Later(_, why, doubt) if self.means.clock.now() >= event.until => (Fate::Dead, why, doubt),
            Checked::Later(then, why, doubt) => (Fate::Postponed(then.min(event.until)), why, doubt),
            Checked::Contradicted(why) => (Fate::Quarantined, why, event.doubt),
        };
        // What ends without having been found true is neither told nor counted.
        let (at, said) = (self.means.clock.now(), said.to_owned());
        let (confirmed, counts) = (false, Counts::Nothing);
        Err(Attempt { id: event.id.clone(), at, attempts: event.attempts, fate, said, confirmed, counts, doubt })
    }

    /// One attempt.
    async fn tried(&self, event: &Event, counts: Counts) -> Attempt {
        let (outcome, said) = self.attempt(event).await;
        crash::pass(Place::Told);
        let now = self.means.clock.now();
        let attempts = event.attempts.saturating_add(1);
        let jitter = self.means.entropy.up_to(pause(attempts) / 5);
        let fate = match judge(&outcome, Standing { attempts, until: event.until, now }, jitter) {
            Next::Delivered => Fate::Delivered,
            Next::Again(then) => Fate::Postponed(then),
            Next::Dead => Fate::Dead,
        };
        let (confirmed, doubt) = (event.confirmed, None);
        Attempt { id: event.id.clone(), at: now, attempts, fate, said, confirmed, counts, doubt }
    }

    /// Posts it once.
    async fn attempt(&self, event: &Event) -> (Outcome, String) {
        let Some(request) = self.request(event).await else {
            return (Outcome::Unanswered, "the event could not be put together".to_owned());
        };
        match timeout(self.app.timeout, self.means.post.post(request)).await {
            Ok(Ok(answer)) => {
                let asked = asked(answer.headers(), &self.means.clock);
                (Outcome::Answered(answer.status(), asked), format!("answered {}", answer.status().as_u16()))
            }
            // Whatever it says may name the address, which is configured and no secret.
            Ok(Err(why)) => (Outcome::Unanswered, format!("no answer: {why}")),
            Err(_) => (Outcome::Unanswered, "no answer in time".to_owned()),
        }
    }

    /// The event as it is sent: signed anew, under the same id.
    async fn request(&self, kept: &Event) -> Option<Request<Full<Bytes>>> {
        let query = AccountQuery { digits: kept.digits.clone(), whole: true, ..AccountQuery::default() };
        // Without the record the event lacks two ids at most; it does not wait for it.
        let account = self.means.store.account(&self.merchant, kept.dialect, &query).await.ok().flatten();
        let body = event::body(kept, account.as_deref());
        let timestamp = self.means.clock.now().as_second();
        Request::builder()
            .method(Method::POST)
            .uri(self.app.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("ayova/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &kept.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.app.key.sign(&kept.id, timestamp, &body))
            .body(Full::from(body))
            .ok()
    }

    fn tell(&self, event: &Event, fate: Fate, said: &str) {
        let result = match fate {
            Fate::Delivered => Delivery::Delivered,
            Fate::Postponed(_) => Delivery::Failed,
            Fate::Dead => Delivery::Dead,
            Fate::Quarantined => Delivery::Contradicted,
        };
        self.means.metrics.event_delivered(&self.merchant, event.kind, result);
        let merchant = &*self.merchant;
        match result {
            Delivery::Delivered => tracing::debug!(merchant, event = event.id, "an event is delivered"),
            Delivery::Failed => tracing::info!(merchant, event = event.id, said, "an event is not delivered yet"),
            Delivery::Dead => tracing::error!(merchant, event = event.id, said, "an event is dead: replay it"),
            Delivery::Contradicted => {
                tracing::error!(merchant, event = event.id, said, "a payment is not told: upstream contradicts it");
            }
        }
    }
}

/// The pause the app asks for.
fn asked(headers: &HeaderMap, clock: &SharedClock) -> Option<Duration> {
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, clock.now())
}

/// How often it is looked for what has become due.
const TICK: Duration = Duration::from_secs(1);

/// Pause before an end that could not be recorded is recorded again.
const RECORD_AGAIN: Duration = Duration::from_secs(2);

/// Longest time a connection to an app may take to open; part of the attempt's own limit.
const CONNECT_TIME: Duration = Duration::from_secs(5);
