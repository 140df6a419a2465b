//! Payment callbacks: read, received, kept and told on.
//!
//! Input: a line `snap`, `classic` or a path, then the body. It is sent twice.

use std::sync::{Arc, LazyLock};

use ayova::callback::deliver::Bell;
use ayova::callback::event;
use ayova::callback::notice;
use ayova::callback::receive::{Means, Receiver};
use ayova::callback::source::Sources;
use ayova::callback::webhook::WebhookKey;
use ayova::clock::{Clock as _, TestClock};
use ayova::config::{Callbacks, Config, Confirm, Deliver, Secret, Verify};
use ayova::dialect::Dialect;
use ayova::document::Document;
use ayova::entropy::Entropy;
use ayova::store::Store;
use ayova::store::inbox::{Event, State};
use ayova::store::memory::MemoryStore;
use ayova::telemetry::metrics::Metrics;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use super::text::line;
use super::wire;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The target's body.
pub fn run(data: &[u8]) {
    let (first, body) = line(data);
    let body = Bytes::copy_from_slice(body);
    let dialect = Dialect::ALL.into_iter().find(|dialect| dialect.name().as_bytes() == first);
    match (dialect, std::str::from_utf8(first).unwrap_or_default().parse::<Uri>()) {
        (Some(dialect), _) => wire::paused(received(dialect, body)),
        (None, Ok(path)) => wire::paused(strange(path, body)),
        (None, Err(_)) => {}
    }
}

/// What is understood is one event, whole and as it came; what is not is kept all the same.
async fn received(dialect: Dialect, body: Bytes) {
    let desk = Desk::new();
    let path: Uri = format!("/callbacks/{}/AYOTST/{SECRET}", dialect.name()).parse().unwrap();
    let documented = match dialect {
        Dialect::Snap => (200, br#"{"responseCode":"2003400","responseMessage":"Successful"}"#.as_slice()),
        Dialect::Classic => (201, b"".as_slice()),
    };
    for _ in 0..2 {
        let (status, answer) = desk.send(path.clone(), body.clone()).await;
        let expected = if body.len() > 256 * 1024 { (413, b"".as_slice()) } else { documented };
        assert_eq!((status, &answer[..]), expected);
    }
    let read = Document::parse(body.clone()).ok();
    let read = read.as_ref().and_then(|document| Some((document, notice::read(dialect, document).ok()?)));
    let (pending, kept) = (desk.events(State::Pending).await, desk.events(State::Quarantined).await);
    assert!(pending.iter().chain(&kept).all(|event| event.body == body && event.dialect == dialect), "byte for byte");
    let Some((document, notice)) = read else {
        let size = if body.len() > 256 * 1024 { 0 } else { 2 };
        assert_eq!((pending.len(), kept.len()), (0, size));
        return;
    };
    assert_eq!((pending.len(), kept.len()), (1, 0), "announced twice, kept once");
    assert!(!notice.amount.is_zero() && !notice.digits().is_empty() && !notice.key.is_empty());
    assert!(!notice.digits().starts_with(' ') && pending[0].digits == notice.digits());
    assert_eq!(pending[0].amount, Some(notice.amount));
    told(&pending[0], &notice, document);
}

/// The event is JSON, has upstream's own bytes in it, and says what the callback says.
fn told(event: &Event, notice: &notice::Notice, document: &Document) {
    let body = event::body(event, None);
    assert_eq!(body, event::body(event, None), "the same at every attempt");
    let json: Json = serde_json::from_slice(&body).expect("an event is JSON");
    let text = document.root().raw();
    assert!(body.windows(text.len()).any(|window| window == text), "upstream's own bytes");
    assert_eq!(json["data"]["upstream"], serde_json::from_slice::<Json>(text).unwrap());
    let data = &json["data"]["upstream"]["virtualAccountData"];
    let number = if event.dialect == Dialect::Snap { "virtualAccountNo" } else { "virtualAccountNumber" };
    assert_eq!(json["data"]["virtualAccountNo"], data[number]);
    assert_eq!(json["data"]["amount"], json!({"value": notice.amount.to_string(), "currency": notice.currency}));
}

/// Without the right path nothing is learnt and nothing is left behind.
async fn strange(path: Uri, body: Bytes) {
    let desk = Desk::new();
    let known = Dialect::ALL.map(|dialect| format!("/callbacks/{}/AYOTST/{SECRET}", dialect.name()));
    if known.iter().any(|known| known == path.path()) {
        return;
    }
    let (status, answer) = desk.send(path, body).await;
    assert_eq!((status, &answer[..]), (404, b"".as_slice()));
    for state in State::ALL {
        assert!(desk.events(state).await.is_empty());
    }
}

/// A receiver and what it keeps.
struct Desk {
    receiver: Receiver,
    store: Arc<dyn Store>,
}

impl Desk {
    fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20, 1 << 20));
        let clock = TestClock::new(wire::START.parse().unwrap());
        assert_eq!(clock.now().to_string(), wire::START);
        let means = Means {
            store: Arc::clone(&store),
            clock: Arc::new(clock),
            entropy: Entropy::from_seed([1; 32]),
            metrics: Arc::new(Metrics::new(&mut Registry::default())),
            bell: Bell::default(),
        };
        Self { receiver: Receiver::new(&CONFIG, CONFIG.callbacks.as_ref().unwrap(), means), store }
    }

    async fn send(&self, path: Uri, body: Bytes) -> (u16, Bytes) {
        let request = Request::post(path).body(Full::new(body)).unwrap();
        let answer = self.receiver.clone().oneshot(request).await.expect("memory keeps everything");
        let (head, body) = answer.into_parts();
        (head.status.as_u16(), body.collect().await.unwrap().to_bytes())
    }

    async fn events(&self, state: State) -> Vec<Event> {
        self.store.inbox().events(state, 10).await.unwrap()
    }
}

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let deliver = Deliver {
        url: Uri::from_static("http://app.example/payments"),
        key: WebhookKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
        timeout: std::time::Duration::from_secs(10),
        retry_for: std::time::Duration::from_secs(72 * 3_600),
        in_flight: 16,
    };
    let listen = "127.0.0.1:0".parse().unwrap();
    let (secret, sources) = (Secret::new(SECRET.to_owned()), Sources::default());
    let (verify, confirm) = (Verify::None, Confirm::Never);
    let callbacks = Callbacks {
        listen,
        tls: None,
        secret,
        previous_secrets: vec![],
        sources,
        verify,
        confirm,
        deliver: Some(deliver),
        sweep: None,
    };
    Config { callbacks: Some(callbacks), ..wire::config() }
});
