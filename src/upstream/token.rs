//! B2B tokens: one per merchant and generation, fetched once however many wait, renewed early.
//!
//! Promises that a token is never handed out after its expiry, that a fetch outlives the request
//! that asked for it, and that a merchant once served has a fresh token ready: the next fetch starts
//! by itself at 80 % of a token's life, less some jitter (contract section 5 rule 1). Logins are
//! bounded whatever upstream answers: a refused token is replaced about once a second at most, and
//! after refused credentials nobody logs in for a growing pause. Over a reload a token stays for as long as
//! it was got from the same place with the same credentials, whatever else changes. Whether an answer
//! blames the token is the `token` layer's affair.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http::{HeaderValue, Method};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{Breakers, Class, ClockSkew, Gate, Sign, Transport};
use crate::call::Merchant;
use crate::clock::{SharedClock, iso8601};
use crate::config::{Retry, Secret, Upstream};
use crate::dialect::Dialect;
use crate::entropy::Entropy;
use crate::signature::StringToSign;
use crate::telemetry::metrics::Metrics;

/// Share of a token's life after which it is renewed in the background.
const RENEW_AFTER: f64 = 0.8;
/// Share of a token's life by which a renewal may come earlier, so that merchants do not renew together.
const RENEW_JITTER: f64 = 0.1;
/// A token is not handed out this long before its end: the request has yet to arrive.
const TRAVEL_TIME: Duration = Duration::from_secs(2);
/// Longest life that is believed.
const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// First pause between failed renewals in the background; doubles up to a minute.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two tokens that are fetched because upstream refused the one before: where a
/// fresh one is refused too, more of them mend nothing.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// First pause after refused credentials, in which no request logs in; doubles from refusal to refusal.
const CREDENTIALS_PAUSE: Duration = Duration::from_secs(1);
const CREDENTIALS_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A token and its times.
#[derive(Debug)]
pub struct Token {
    /// As upstream gave it.
    pub text: Secret<String>,
    /// `Bearer ...`, marked sensitive.
    pub bearer: HeaderValue,
    renew_at: Instant,
    /// After this it is not handed out.
    pub usable_until: Instant,
}

/// Why there is no token; for the log and `/status`, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoToken(pub String);

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoToken {}

type Flight = Shared<BoxFuture<'static, Result<Arc<Token>, NoToken>>>;

/// Everybody's tokens.
#[derive(Debug)]
pub struct Tokens {
    slots: Vec<Arc<Slot>>,
}

/// What a fetch needs; shared by all.
#[derive(Debug)]
pub struct Source {
    /// Where the token calls go.
    pub upstream: Upstream,
    /// How often a fetch is tried.
    pub retry: Retry,
    /// The connection.
    pub transport: Arc<dyn Transport>,
    /// Token calls have a breaker of their own.
    pub breakers: Arc<Breakers>,
    /// For `X-TIMESTAMP`.
    pub clock: SharedClock,
    /// For jitter.
    pub entropy: Entropy,
    /// Where fetches are counted.
    pub metrics: Arc<Metrics>,
    /// Compares upstream's clock, also while nothing but token calls is answered.
    pub skew: Arc<ClockSkew>,
}

impl Source {
    /// Whether a token of the other's is as good as one of this one's: got at the same place.
    fn is_same_place(&self, other: &Self, dialect: Dialect) -> bool {
        let (one, another) = (&self.upstream, &other.upstream);
        let same_path = match dialect {
            Dialect::Snap => one.snap.token_path == another.snap.token_path,
            Dialect::Classic => one.classic.token_path == another.classic.token_path,
        };
        same_path && one.base_url == another.base_url
    }

    /// Whether what refused the other's login would refuse this one's: the same, sent over the same way.
    fn logs_in_alike(&self, other: &Self) -> bool {
        self.upstream.snap.signature.encoding == other.upstream.snap.signature.encoding
            && Arc::ptr_eq(&self.transport, &other.transport)
    }
}

struct Slot {
    merchant: Arc<Merchant>,
    dialect: Dialect,
    /// The newest configuration's, also for whoever began with one before.
    source: ArcSwap<Source>,
    current: ArcSwapOption<Token>,
    logins: Mutex<Logins>,
}

/// What goes on and went on to fetch a slot's token.
#[derive(Default)]
struct Logins {
    flight: Option<Flight>,
    /// The one task that renews the current token.
    renewing: Option<AbortHandle>,
    /// When a refused token was last replaced.
    forced_at: Option<Instant>,
    /// Set while upstream's last word was that the credentials are wrong.
    refused: Option<Refused>,
}

/// Credentials that upstream did not accept.
struct Refused {
    until: Instant,
    pause: Duration,
    error: NoToken,
}

/// Why one token call gave no token.
struct Failed {
    error: NoToken,
    /// Whether upstream does not accept the credentials.
    refused: bool,
}

impl From<NoToken> for Failed {
    fn from(error: NoToken) -> Self {
        Self { error, refused: false }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({}, {})", self.merchant.name, self.dialect.name())
    }
}

impl Tokens {
    /// No tokens yet; they are fetched when first needed.
    #[must_use]
    pub fn new(merchants: &[Arc<Merchant>], source: &Arc<Source>) -> Self {
        Self { slots: Vec::new() }.renewed(merchants, source)
    }

    /// The same for another configuration, which is in force from then on. A merchant that logs in at the
    /// same place with the same credentials keeps its token, and logs in anew as the new one says; others
    /// have none yet.
    #[must_use]
    pub fn renewed(&self, merchants: &[Arc<Merchant>], source: &Arc<Source>) -> Self {
        let slot = |merchant: &Arc<Merchant>, dialect| {
            let known = self.slots.iter().find(|slot| slot.dialect == dialect && slot.merchant.name == merchant.name);
            if let Some(slot) = known.filter(|slot| slot.is_good_for(merchant, source)) {
                slot.go_on_with(source);
                return Arc::clone(slot);
            }
            Arc::new(Slot {
                merchant: Arc::clone(merchant),
                dialect,
                source: ArcSwap::new(Arc::clone(source)),
                current: ArcSwapOption::empty(),
                logins: Mutex::default(),
            })
        };
        Self {
            slots: merchants.iter().flat_map(|merchant| Dialect::ALL.map(|dialect| slot(merchant, dialect))).collect(),
        }
    }

    /// A usable token, at once where there is one.
    ///
    /// # Errors
    /// [`NoToken`] where none could be had before the deadline; at once in the pause after refused
    /// credentials.
    pub async fn get(&self, merchant: &Merchant, dialect: Dialect, deadline: Instant) -> Result<Arc<Token>, NoToken> {
        let slot = self.slot(merchant, dialect)?;
        if let Some(token) = slot.usable() {
            return Ok(token);
        }
        if let Some(refused) = slot.logins().refused.as_ref().filter(|refused| Instant::now() < refused.until) {
            return Err(refused.error.clone());
        }
        let late = || NoToken("no answer to the token call before the request's deadline".to_owned());
        timeout_at(deadline, slot.fetch()).await.unwrap_or_else(|_| Err(late()))
    }

    /// Fetches a token in the background although there may be a good one: a call that is always safe,
    /// and whose answer shows that upstream is alive.
    pub fn probe(&self, merchant: &Merchant, dialect: Dialect) {
        if let Ok(slot) = self.slot(merchant, dialect) {
            drop(slot.fetch());
        }
    }

    /// Drops a token that upstream refused; one that has replaced it meanwhile stays. Says whether
    /// asking for another is worth it: not where one has just been replaced for the same reason.
    #[must_use]
    pub fn refuse(&self, merchant: &Merchant, dialect: Dialect, refused: &Arc<Token>) -> bool {
        let Ok(slot) = self.slot(merchant, dialect) else { return false };
        let now = Instant::now();
        let mut logins = slot.logins();
        let current = slot.current.load();
        if !current.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused)) {
            return true;
        }
        if logins.forced_at.is_some_and(|at| now < at + REFUSAL_PAUSE) {
            return false;
        }
        logins.forced_at = Some(now);
        slot.current.compare_and_swap(&current, None);
        true
    }

    /// Seconds every token is good for, by merchant and generation; nothing where there is none.
    pub fn seconds_left(&self) -> impl Iterator<Item = (&Arc<Merchant>, Dialect, Option<f64>)> {
        let now = Instant::now();
        self.slots.iter().map(move |slot| {
            let left =
                slot.current.load_full().map(|token| token.usable_until.saturating_duration_since(now).as_secs_f64());
            (&slot.merchant, slot.dialect, left)
        })
    }

    fn slot(&self, merchant: &Merchant, dialect: Dialect) -> Result<&Arc<Slot>, NoToken> {
        self.slots
            .iter()
            .find(|slot| slot.dialect == dialect && slot.merchant.name == merchant.name)
            .ok_or_else(|| NoToken("the merchant is not configured".to_owned()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(renewing) = self.logins().renewing.take() {
            renewing.abort();
        }
    }
}

impl Slot {
    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_good_for(&self, merchant: &Merchant, source: &Source) -> bool {
        self.merchant.has_credentials_of(merchant) && self.source.load().is_same_place(source, self.dialect)
    }

    /// The next try of a login is by this.
    fn go_on_with(&self, source: &Arc<Source>) {
        let before = self.source.swap(Arc::clone(source));
        if !source.logs_in_alike(&before) {
            // What has changed may be what was wrong.
            self.logins().refused = None;
        }
    }

    fn usable(&self) -> Option<Arc<Token>> {
        let token = self.current.load_full()?;
        (Instant::now() < token.usable_until).then_some(token)
    }

    /// Joins the fetch under way or starts one, in a task of its own.
    fn fetch(self: &Arc<Self>) -> Flight {
        let mut logins = self.logins();
        if let Some(flight) = logins.flight.as_ref() {
            return flight.clone();
        }
        let slot = Arc::clone(self);
        let task = tokio::spawn(async move {
            // A flight that never landed would be handed to everybody for ever.
            let fetched = AssertUnwindSafe(slot.fetch_with_retries()).catch_unwind().await;
            slot.land(fetched.unwrap_or_else(|_| Err(NoToken("the token call ended in a panic".to_owned()).into())))
        });
        let ended = |_| Err(NoToken("the token call was given up".to_owned()));
        let started = task.map(move |joined| joined.unwrap_or_else(ended)).boxed().shared();
        logins.flight = Some(started.clone());
        started
    }

    fn land(self: &Arc<Self>, fetched: Result<Token, Failed>) -> Result<Arc<Token>, NoToken> {
        let labels = (&self.merchant.name, self.dialect);
        self.source.load().metrics.token_refreshed(labels.0, labels.1, fetched.is_ok());
        let mut logins = self.logins();
        logins.flight = None;
        let refused = logins.refused.take();
        match fetched {
            Ok(token) => {
                let token = Arc::new(token);
                self.current.store(Some(Arc::clone(&token)));
                let renewing = tokio::spawn(renew(Arc::downgrade(self), Arc::clone(&token)));
                // The one before would sleep on until the end of a token that is gone.
                if let Some(before) = logins.renewing.replace(renewing.abort_handle()) {
                    before.abort();
                }
                Ok(token)
            }
            Err(Failed { error, refused: false }) => Err(error),
            Err(Failed { error, refused: true }) => {
                let longer = |before: Refused| (before.pause * 2).min(CREDENTIALS_PAUSE_MAX);
                let pause = refused.map_or(CREDENTIALS_PAUSE, longer);
                logins.refused = Some(Refused { until: Instant::now() + pause, pause, error: error.clone() });
                Err(error)
            }
        }
    }

    async fn fetch_with_retries(&self) -> Result<Token, Failed> {
        let Source { retry, entropy, .. } = &*self.source.load_full();
        // One refusal may be a slip of upstream's; after a fetch that ended in them it is known.
        let attempts = if self.logins().refused.is_some() { 1 } else { retry.attempts };
        let mut pause = retry.base_delay;
        let mut attempt = 1;
        loop {
            match self.fetch_once().await {
                Ok(token) => return Ok(token),
                Err(failed) if attempt >= attempts => {
                    tracing::warn!(
                        merchant = &*self.merchant.name,
                        dialect = self.dialect.name(),
                        error = %failed.error,
                        "token could not be fetched"
                    );
                    return Err(failed);
                }
                Err(_) => sleep(pause / 2 + entropy.up_to(pause / 2)).await,
            }
            pause = (pause * 2).min(retry.max_delay);
            attempt += 1;
        }
    }

    async fn fetch_once(&self) -> Result<Token, Failed> {
        let source = self.source.load_full();
        // Before the breaker, which waits for the outcome of what it admits.
        let request = self.request(&source)?;
        let asked_at = Instant::now();
        if source.breakers.admit(Class::Token, asked_at) != Gate::Go {
            return Err(NoToken("the breaker of token calls is open".to_owned()).into());
        }
        let sending = source.transport.send(request);
        let answered = timeout(source.upstream.attempt_timeout, sending).await;
        let alive = matches!(&answered, Ok(Ok(response)) if !response.status().is_server_error());
        source.breakers.record(Class::Token, if alive { Sign::Alive } else { Sign::Dead }, Instant::now());
        match answered {
            Err(_) => Err(NoToken("no answer in time".to_owned()).into()),
            Ok(Err(error)) => Err(NoToken(error.to_string()).into()),
            Ok(Ok(response)) => {
                source.skew.look(response.headers(), asked_at);
                let refused = matches!(response.status().as_u16(), 400 | 401 | 403);
                read(&response, (&source.entropy, asked_at)).map_err(|error| Failed { error, refused })
            }
        }
    }

    fn request(&self, source: &Source) -> Result<http::Request<Full<Bytes>>, NoToken> {
        let request = match self.dialect {
            Dialect::Snap => self.snap_request(source)?,
            Dialect::Classic => self.classic_request(source),
        };
        request.map_err(|error| NoToken(format!("the token call cannot be built: {error}")))
    }

    /// `snap.md` section 2.
    fn snap_request(&self, source: &Source) -> Result<http::Result<http::Request<Full<Bytes>>>, NoToken> {
        let snap = &source.upstream.snap;
        let client_id = self.merchant.client_id.expose();
        let timestamp = iso8601(source.clock.now());
        let key =
            self.merchant.private_key.as_ref().ok_or_else(|| NoToken("the merchant has no private key".to_owned()))?;
        let signature = key
            .sign(&StringToSign::rsa_client_timestamp(client_id, &timestamp), snap.signature.encoding)
            .map_err(|error| NoToken(error.to_string()))?;
        let body = json!({
            "grantType": "client_credentials",
            "additionalInfo": {"merchantId": &*self.merchant.code},
        });
        Ok(http::Request::builder()
            .method(Method::POST)
            .uri(&snap.token_path)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .header("X-TIMESTAMP", timestamp)
            .header("X-CLIENT-KEY", client_id)
            .header("X-SIGNATURE", signature)
            .header("X-PARTNER-ID", self.merchant.code_header.clone())
            .body(Full::from(body.to_string())))
    }

    /// `classic.md` section 2.
    fn classic_request(&self, source: &Source) -> http::Result<http::Request<Full<Bytes>>> {
        let path = &source.upstream.classic.token_path;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", self.merchant.client_id.expose())
            .append_pair("client_secret", self.merchant.client_secret.expose())
            .finish();
        http::Request::builder()
            .method(Method::POST)
            .uri(format!("{path}?grant_type=client_credentials"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Accept", "application/json")
            .body(Full::from(form))
    }
}

/// The token of an answer to a call that was made at that moment.
fn read(response: &http::Response<Bytes>, (entropy, asked_at): (&Entropy, Instant)) -> Result<Token, NoToken> {
    let status = response.status();
    if !status.is_success() {
        return Err(NoToken(format!("the token call was answered with status {}", status.as_u16())));
    }
    let malformed = |what: &str| NoToken(format!("the answer to the token call {what}"));
    let mut body: Value = serde_json::from_slice(response.body()).map_err(|_| malformed("is not JSON"))?;
    // Taken out rather than copied, so that it is overwritten at the token's end.
    let text = match body.get_mut("accessToken").map(Value::take) {
        Some(Value::String(text)) => Secret::new(text),
        _ => Secret::new(String::new()),
    };
    let plain = text.expose();
    let mut bearer =
        HeaderValue::try_from(format!("Bearer {plain}")).map_err(|_| malformed("has an unusable token"))?;
    bearer.set_sensitive(true);
    if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("has no usable token"));
    }
    let life = life(&body).ok_or_else(|| malformed("has no usable expiresIn"))?;
    let usable = life.saturating_sub(TRAVEL_TIME.min(life / 10));
    let early = RENEW_JITTER * entropy.up_to(Duration::from_secs(1)).as_secs_f64();
    Ok(Token { text, bearer, renew_at: asked_at + life.mul_f64(RENEW_AFTER - early), usable_until: asked_at + usable })
}

/// `expiresIn`: seconds as a number or a text (`protocol/README.md` row 3, `snap.md` section 2).
fn life(body: &Value) -> Option<Duration> {
    let seconds = match body.get("expiresIn")? {
        Value::String(text) => text.parse::<u64>().ok()?,
        number => number.as_u64()?,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds).min(LIFE_MAX))
}

/// Renews a token before its end and goes on trying until it is replaced. Ends when the gateway does.
async fn renew(slot: Weak<Slot>, token: Arc<Token>) {
    sleep_until(token.renew_at).await;
    let mut pause = RENEWAL_PAUSE;
    loop {
        let Some(slot) = slot.upgrade() else { return };
        let current = slot.current.load_full();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, &token)) {
            return;
        }
        let fetched = slot.fetch();
        let jitter = slot.source.load().entropy.up_to(pause / 2);
        drop(slot);
        if fetched.await.is_ok() {
            return;
        }
        sleep(pause / 2 + jitter).await;
        pause = (pause * 2).min(RENEWAL_PAUSE_MAX);
    }
}
