//! Payment callbacks the whole way: sandbox, receiver, inbox, deliverer, app; in memory on paused time.
//!
//! The app is a function that checks every delivery with a Standard Webhooks library which is not ours.
//! Real sockets are tested with the binary.

mod secret;
mod signed;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ayova::callback::circle::Circle as Parts;
use ayova::callback::deliver::Post;
use ayova::callback::receive::{self, Receiver};
use ayova::callback::webhook::WebhookKey;
use ayova::config::sandbox::CallbackSigning;
use ayova::config::{Callbacks, Config, Confirm, Deliver, Secret, Verify};
use ayova::entropy::Entropy;
use ayova::store::Store;
use ayova::store::inbox::{Event, State};
use ayova::store::memory::MemoryStore;
use ayova::store::sqlite::{Options, SqliteStore};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::asks::{classic_create, snap_create};
use crate::harness::{Setup, World};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The merchant's app: answers from a script, then with 204.
#[derive(Clone, Debug, Default)]
pub(crate) struct App(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    script: VecDeque<u16>,
    down: bool,
    /// Id and body of each delivery that was taken.
    taken: Vec<(String, Value)>,
    attempts: usize,
}

impl Post for App {
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<()>, String>> {
        let app = Arc::clone(&self.0);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let header = |name: &str| head.headers[name].to_str().unwrap().to_owned();
            let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
            let library = standardwebhooks::Webhook::new(WEBHOOK_SECRET).unwrap();
            let expected = library.sign(&id, timestamp.parse().unwrap(), &body).unwrap();
            assert_eq!(header("webhook-signature"), expected);
            assert_eq!(head.uri, "http://app.example/payments");
            let mut heard = app.lock().unwrap();
            heard.attempts += 1;
            if heard.down {
                return Err("connection refused".to_owned());
            }
            let status = heard.script.pop_front().unwrap_or(204);
            if status == 204 {
                heard.taken.push((id, serde_json::from_slice(&body).unwrap()));
            }
            Ok(Response::builder().status(status).body(()).unwrap())
        }
        .boxed()
    }
}

/// The way from the sandbox to whichever receiver is there.
#[derive(Clone, Default)]
pub(crate) struct Line(pub(crate) Arc<Mutex<Option<Receiver>>>);

impl ayova::sandbox::Transport for Line {
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<StatusCode, String>> {
        let receiver = self.0.lock().unwrap().clone();
        async move {
            let receiver = receiver.ok_or("connection refused")?;
            let answer = receiver.oneshot(request).await.map_err(|error| error.to_string())?;
            Ok(answer.status())
        }
        .boxed()
    }
}

/// Everything between the customer and the app.
pub(crate) struct Circle {
    pub(crate) world: World,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) line: Line,
    pub(crate) app: App,
    config: Config,
    _running: tokio_util::sync::DropGuard,
}

impl Circle {
    pub(crate) async fn new() -> Self {
        Self::over(memory(), Verify::None, CallbackSigning::None).await
    }

    /// Over this store, with what the gateway demands of signatures and what the sandbox does.
    async fn over(store: Arc<dyn Store>, verify: Verify, sign: CallbackSigning) -> Self {
        let mut setup = Setup::new(1);
        setup.config.callbacks = Some(Callbacks { verify, ..callbacks() });
        setup.sandbox.callbacks.sign = sign;
        Self::build(setup, store).await
    }

    pub(crate) async fn with(store: Arc<dyn Store>, callbacks: Callbacks) -> Self {
        let mut setup = Setup::new(1);
        setup.config.callbacks = Some(callbacks);
        Self::build(setup, store).await
    }

    pub(crate) async fn build(mut setup: Setup, store: Arc<dyn Store>) -> Self {
        let config = setup.config.clone();
        let line = Line::default();
        setup.store = Some(Arc::clone(&store));
        setup.announce = Some(Arc::new(line.clone()));
        let world = setup.build();
        let (app, stop) = (App::default(), CancellationToken::new());
        let post: Arc<dyn Post> = Arc::new(app.clone());
        let surroundings = world.surroundings(Arc::clone(&store));
        let receiver = {
            let (callbacks, bell) = (config.callbacks.as_ref().unwrap(), &world.bell);
            let parts = Parts {
                config: &config,
                callbacks,
                surroundings: &surroundings,
                gateway: &world.gateway,
                post: &post,
                bell,
            };
            parts.watch().await.unwrap();
            let (crew, tasks) = (parts.crew(), TaskTracker::new());
            config.merchants.iter().for_each(|merchant| parts.start_one(merchant, &crew, (&tasks, &stop)));
            parts.receiver()
        };
        let circle = Self { world, store, line, app, config, _running: stop.drop_guard() };
        circle.line.0.lock().unwrap().replace(receiver);
        let address = |dialect: &str| format!("http://ayova/callbacks/{dialect}/AYOTST/{SECRET}");
        let addresses = json!({"snap": address("snap"), "classic": address("classic")});
        circle.world.control("PUT", "/_sandbox/callbacks", addresses).await;
        circle
    }

    fn receiver(&self, store: &Arc<dyn Store>) -> Receiver {
        let means = receive::Means {
            store: Arc::clone(store),
            clock: Arc::clone(&self.world.clock),
            entropy: Entropy::from_seed([8; 32]),
            metrics: Arc::clone(&self.world.metrics),
            bell: self.world.bell.clone(),
        };
        Receiver::new(&self.config, self.config.callbacks.as_ref().unwrap(), means)
    }

    /// A SNAP account that takes any number of payments; its number.
    pub(crate) async fn account(&self, tag: u32) -> String {
        let ask = snap_create(tag, "").set("/additionalInfo/isSingleUse", "N");
        self.world.send(ask).await.expect(200).json()["virtualAccountData"]["virtualAccountNo"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn pay(&self, member: &str, number: &str) {
        let paid = self.world.control("POST", "/_sandbox/pay", json!({member: number, "amount": "150000.00"})).await;
        assert_eq!(paid["paid"], true);
    }

    /// Sends a request to the receiver; nothing where the connection is closed without an answer.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        self.ask(Request::builder().method(method).uri(path).body(Full::from(body.to_owned())).unwrap()).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Option<(u16, String)> {
        let receiver = self.line.0.lock().unwrap().clone().unwrap();
        let answer = receiver.oneshot(request).await.ok()?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Some((head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap()))
    }

    pub(crate) fn taken(&self) -> Vec<(String, Value)> {
        self.app.0.lock().unwrap().taken.clone()
    }

    pub(crate) fn attempts(&self) -> usize {
        self.app.0.lock().unwrap().attempts
    }

    pub(crate) async fn listed(&self, state: State) -> Vec<Event> {
        self.store.inbox().events(state, 10_000).await.unwrap()
    }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(1 << 26, 1 << 25))
}

pub(crate) fn callbacks() -> Callbacks {
    let deliver = Deliver {
        url: "http://app.example/payments".parse().unwrap(),
        key: WebhookKey::parse(WEBHOOK_SECRET).unwrap(),
        timeout: Duration::from_secs(10),
        retry_for: Duration::from_secs(72 * 3_600),
        in_flight: 16,
    };
    Callbacks {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        secret: Secret::new(SECRET.to_owned()),
        previous_secrets: vec![],
        sources: ayova::callback::source::Sources::default(),
        verify: Verify::None,
        deliver: Some(deliver),
        confirm: Confirm::Never,
        sweep: None,
    }
}

pub(crate) fn snap_path() -> String {
    format!("/callbacks/snap/AYOTST/{SECRET}")
}

pub(crate) fn body(number: &str, time: &str) -> String {
    let data = json!({"virtualAccountNo": number, "latestPaidAmount": "1000.00", "latestPaidTime": time});
    json!({"virtualAccountData": data}).to_string()
}

pub(crate) async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn a_payment_of_either_generation_reaches_the_app() {
    let circle = Circle::new().await;
    let number = circle.account(1).await;
    circle.pay("virtualAccountNo", &number).await;
    let created = circle.world.send(classic_create(2, "12345678")).await.expect(201).json();
    let classic = created["virtualAccountData"]["virtualAccountNumber"].as_str().unwrap().to_owned();
    circle.pay("virtualAccountNumber", &classic).await;
    seconds(5).await;
    let taken = circle.taken();
    assert_eq!(taken.len(), 2);
    let (snap, classic_event) = (&taken[0].1, &taken[1].1);
    assert_eq!((&snap["type"], &snap["data"]["virtualAccountNo"]), (&json!("va.paid"), &json!(number)));
    assert_eq!(snap["data"]["trxId"], crate::asks::id(1));
    assert_eq!(classic_event["data"]["virtualAccountNo"], json!(classic));
    for event in [snap, classic_event] {
        assert_eq!(event["data"]["amount"], json!({"value": "150000.00", "currency": "IDR"}));
        assert_eq!((&event["data"]["merchant"], &event["data"]["confirmed"]), (&json!("sample"), &json!(false)));
    }
    let known = circle.world.admin(&format!("/references/{}", number.trim())).await.json();
    assert_eq!(known["accounts"][0]["latestPaidAmount"], "150000.00");
    assert_eq!(known["accounts"][0]["status"], snap["data"]["status"]);
    for dialect in ["snap", "classic"] {
        let series =
            format!(r#"ayova_callbacks_received_total{{merchant="sample",dialect="{dialect}",result="stored"}}"#);
        assert_eq!(circle.world.metric(&series).await, 1.0, "{series}");
    }
    assert_eq!(circle.world.metric(r#"ayova_events_pending{merchant="sample"}"#).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_was_down_for_an_hour_hears_of_everything_in_order() {
    let circle = Circle::new().await;
    circle.app.0.lock().unwrap().down = true;
    let numbers = [circle.account(1).await, circle.account(2).await];
    for _ in 0..6 {
        for number in &numbers {
            circle.pay("virtualAccountNo", number).await;
        }
        seconds(600).await;
    }
    assert_eq!(circle.taken(), []);
    assert_eq!(circle.world.metric(r#"ayova_events_pending{merchant="sample"}"#).await, 12.0);
    assert!(circle.world.metric(r#"ayova_event_age_seconds{merchant="sample"}"#).await >= 3_600.0);
    circle.app.0.lock().unwrap().down = false;
    seconds(2 * 3_600).await;
    let taken = circle.taken();
    assert_eq!(taken.len(), 12);
    for number in &numbers {
        let of = taken.iter().filter(|(_, event)| event["data"]["virtualAccountNo"] == json!(number));
        let times: Vec<_> = of.map(|(_, event)| event["data"]["paidAt"].as_str().unwrap()).collect();
        assert_eq!(times.len(), 6);
        assert!(times.is_sorted(), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_payments_of_one_account_arrive_once_and_in_order() {
    let circle = Circle::new().await;
    let time = |n: usize| format!("2026-01-05T10:{:02}:{:02}.{:03}+07:00", n / 60 % 60, n % 60, n % 1_000);
    for n in 0..1_000 {
        for _ in 0..2 {
            let answer = circle.call("POST", &snap_path(), &body("   1462912345678901", &time(n))).await.unwrap();
            assert_eq!(answer.0, 200);
        }
    }
    seconds(60).await;
    let times: Vec<_> = circle.taken().iter().map(|(_, event)| event["data"]["paidAt"].clone()).collect();
    assert_eq!(times, (0..1_000).map(|n| json!(time(n))).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_lacks_the_secret_learns_and_leaves_nothing() {
    let circle = Circle::new().await;
    let body = body("   1462912345678901", "2026-01-05T10:00:00+07:00");
    let wrong = SECRET.replace('0', "1");
    for path in [
        format!("/callbacks/snap/AYOTST/{wrong}"),
        format!("/callbacks/snap/AYOTS9/{SECRET}"),
        format!("/callbacks/other/AYOTST/{SECRET}"),
        format!("/callbacks/snap/AYOTST/{SECRET}/"),
        format!("//callbacks/snap/AYOTST/{SECRET}"),
        "/callbacks/snap/AYOTST/".to_owned(),
        "/".to_owned(),
    ] {
        assert_eq!(circle.call("POST", &path, &body).await, Some((404, String::new())), "{path}");
    }
    assert_eq!(circle.call("GET", &snap_path(), &body).await, Some((404, String::new())));
    let large = " ".repeat(300 * 1024);
    assert_eq!(circle.call("POST", &snap_path(), &large).await.unwrap().0, 413);
    seconds(5).await;
    for state in State::ALL {
        assert_eq!(circle.listed(state).await, []);
    }
    assert_eq!(circle.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_are_those_of_the_generation() {
    let circle = Circle::new().await;
    let snap = circle.call("POST", &snap_path(), &body("1", "T")).await.unwrap();
    assert_eq!(snap, (200, r#"{"responseCode":"2003400","responseMessage":"Successful"}"#.to_owned()));
    // What cannot be understood is acknowledged all the same, and kept.
    let classic = format!("/callbacks/classic/AYOTST/{SECRET}");
    for rubbish in ["", "no JSON", "{}", r#"{"virtualAccountData":{"virtualAccountNumber":"1"}}"#] {
        assert_eq!(circle.call("POST", &classic, rubbish).await.unwrap().0, 201);
    }
    assert_eq!(circle.listed(State::Quarantined).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_not_acknowledged_and_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let circle = Circle::new().await;
    let options = Options {
        path: folder.path().join("ayova.db"),
        answers_bytes: 1 << 20,
        accounts_bytes: 1 << 20,
        clock: Arc::clone(&circle.world.clock),
    };
    let closed = SqliteStore::open(&options).unwrap();
    closed.close().await;
    let broken = circle.receiver(&(Arc::new(closed) as Arc<dyn Store>));
    let ask = |dialect: &str| {
        let path = format!("/callbacks/{dialect}/AYOTST/{SECRET}");
        let request = Request::builder().method("POST").uri(path).body(Full::from("{}")).unwrap();
        broken.clone().oneshot(request)
    };
    assert_eq!(ask("snap").await.unwrap().status(), 503);
    assert!(ask("classic").await.is_err(), "a 5xx would end the deliveries");
    let number = circle.account(1).await;
    let created = circle.world.send(classic_create(2, "12345678")).await.expect(201).json();
    let classic = created["virtualAccountData"]["virtualAccountNumber"].as_str().unwrap().to_owned();
    let well = circle.line.0.lock().unwrap().replace(broken.clone());
    circle.pay("virtualAccountNo", &number).await;
    circle.pay("virtualAccountNumber", &classic).await;
    seconds(10).await;
    assert_eq!(circle.attempts(), 0);
    *circle.line.0.lock().unwrap() = well;
    seconds(60).await;
    assert_eq!(circle.taken().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_account_the_app_stumbles_over_holds_up_no_other() {
    let circle = Circle::new().await;
    circle.app.0.lock().unwrap().script = VecDeque::from([500, 204, 204]);
    for (number, time) in [("1", "T1"), ("1", "T2"), ("2", "T3")] {
        circle.call("POST", &snap_path(), &body(number, time)).await;
        seconds(1).await;
    }
    let paid = |taken: Vec<(String, Value)>| {
        taken.iter().map(|(_, event)| event["data"]["paidAt"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paid(circle.taken()), ["T3"]);
    seconds(10).await;
    assert_eq!(paid(circle.taken()), ["T3", "T1", "T2"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_app_will_not_have_is_dead_until_it_is_replayed() {
    let circle = Circle::new().await;
    circle.app.0.lock().unwrap().script = VecDeque::from([410]);
    circle.call("POST", &snap_path(), &body("1462912345678901", "T1")).await;
    seconds(3_600).await;
    assert_eq!((circle.attempts(), circle.taken().len()), (1, 0));
    let list = circle.world.admin("/callbacks?state=dead").await;
    let shown = list.json()["callbacks"][0].clone();
    assert_eq!((&shown["state"], &shown["last"]), (&json!("dead"), &json!("answered 410")));
    assert!(!list.text().contains("1462912345678901"), "masked: {}", list.text());
    assert_eq!(circle.world.metric(r#"ayova_events_dead_total{merchant="sample"}"#).await, 1.0);
    let id = shown["id"].as_str().unwrap();
    assert_eq!(circle.world.admin(&format!("/callbacks/{id}")).await.json(), shown);
    let replayed = circle.world.admin_post(&format!("/callbacks/{id}/replay"), Value::Null).await;
    assert_eq!(replayed.json(), json!({"replayed": 1}));
    seconds(2).await;
    assert_eq!(circle.taken()[0].0, id, "under the id it had");
    let since = "/callbacks/replay?since=2026-01-05T00:00:00+07:00";
    assert_eq!(circle.world.admin_post(since, Value::Null).await.json()["replayed"], 1);
    seconds(2).await;
    assert_eq!(circle.taken().len(), 2);
    assert_eq!(circle.world.admin_post("/callbacks/replay?since=now", Value::Null).await.status, 400);
    assert_eq!(circle.world.admin_post("/callbacks/evt_0/replay", Value::Null).await.status, 404);
    assert_eq!(circle.world.admin("/callbacks/evt_0").await.status, 404);
    assert_eq!(circle.world.admin("/callbacks?state=lost").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_dead_when_its_time_is_over() {
    let circle = Circle::new().await;
    circle.app.0.lock().unwrap().down = true;
    circle.call("POST", &snap_path(), &body("1", "T1")).await;
    seconds(71 * 3_600).await;
    assert_eq!(circle.listed(State::Pending).await.len(), 1);
    seconds(3_700).await;
    let dead = circle.listed(State::Dead).await;
    assert_eq!(dead[0].said.as_deref(), Some("no answer: connection refused"));
    assert!((20..40).contains(&dead[0].attempts), "{}", dead[0].attempts);
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_is_off_has_no_address() {
    let mut setup = Setup::new(1);
    setup.config.callbacks = Some(callbacks());
    setup.config.upstream.snap.enabled = false;
    let circle = Circle::build(setup, memory()).await;
    let forged = body("   1462912345678901", "2026-01-05T10:00:00+07:00");
    assert_eq!(circle.call("POST", &snap_path(), &forged).await.unwrap().0, 404);
    let classic = snap_path().replace("/snap/", "/classic/");
    assert_eq!(circle.call("POST", &classic, &forged).await.unwrap().0, 201);
}
