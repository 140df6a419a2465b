//! What proves somebody to somebody else, replaced while apps go on: the server's certificate, API keys, the
//! authority of client certificates, and what the gateway logs in with upstream.
//!
//! Each time new and old are good together for a while, then the new alone. Apps keep their connections, half of
//! them HTTP/2, and nothing they ask may fail; what is old is refused afterwards, over connections that were there
//! before too.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use ayova::config::SandboxConfig;
use ayova::config::Secret;
use ayova::config::sandbox::{MerchantKey, SandboxMerchant};
use ayova::tls::{ClientFiles, client_config};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rand::SeedableRng as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::reload::list;
use super::{CREATE_BODY, CREATE_PATH, Gateway, Running, Sandbox, get, patiently, until};
use crate::certificates::{Authority, LOCAL};

/// How an app connects and what it shows; changed under way.
#[derive(Clone, Default)]
struct How {
    tls: Option<Tls>,
    key: Option<&'static str>,
}

#[derive(Clone)]
struct Tls(Arc<rustls::ClientConfig>);

impl Tls {
    /// Believes whoever is in this file, and shows `NAME.crt` where one is named.
    fn new(folder: &Path, believed: &str, shown: Option<&str>) -> Self {
        let path = |name: String| folder.join(name);
        let identity = shown.map(|name| (path(format!("{name}.crt")), path(format!("{name}.key"))));
        let files = ClientFiles { ca: Some(folder.join(believed)), identity };
        Self(Arc::new(client_config(Some(&files)).unwrap()))
    }
}

/// A connection that is kept.
enum Kept {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Kept {
    /// Connects; also what the server has shown.
    async fn open(how: &How, address: &str, is_h2: bool) -> Result<(Self, Option<CertificateDer<'static>>), String> {
        let said = |error: std::io::Error| error.to_string();
        let stream = TcpStream::connect(address).await.map_err(said)?;
        let Some(Tls(config)) = &how.tls else { return Ok((Self::over(stream, is_h2).await?, None)) };
        let mut config = rustls::ClientConfig::clone(config);
        config.alpn_protocols = vec![if is_h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(said)?;
        let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone());
        Ok((Self::over(stream, is_h2).await?, shown))
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_h2: bool) -> Result<Self, String> {
        let (said, stream) = (|error: hyper::Error| format!("{error:?}"), TokioIo::new(stream));
        Ok(if is_h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(said)?;
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(said)?;
            tokio::spawn(connection);
            Self::Http1(sender)
        })
    }

    /// A create of its own; no two have the same number.
    async fn create(&mut self, address: &str, how: &How, number: u64) -> Result<StatusCode, String> {
        let body = CREATE_BODY
            .replace("12345678901", &number.to_string())
            .replace("7f3b1c9e5a2d4f608b1e3c7a9d5f2b41", &format!("{number:032x}"));
        let scheme = if how.tls.is_some() { "https" } else { "http" };
        let path = CREATE_PATH.to_owned();
        let uri = if matches!(self, Self::Http2(_)) { format!("{scheme}://{address}{path}") } else { path };
        let mut request =
            Request::post(uri).header("content-type", "application/json").header("idempotency-key", number.to_string());
        if matches!(self, Self::Http1(_)) {
            request = request.header("host", address);
        }
        if let Some(key) = how.key {
            request = request.header("x-api-key", key);
        }
        let request = request.body(Full::from(body)).unwrap();
        let answering = async {
            let answer = match self {
                Self::Http1(sender) => sender.send_request(request).await,
                Self::Http2(sender) => sender.send_request(request).await,
            };
            let answer = answer.map_err(|error| format!("{error:?}"))?;
            let status = answer.status();
            answer.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
            Ok(status)
        };
        patiently("an answer", answering).await
    }

    /// Whether another request could be sent; false once the server has ended the connection.
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// Requests over one connection, after which an app opens another one of its own accord.
const A_CONNECTION: u64 = 10;
const APPS: u64 = 4;

/// Apps that ask one thing after the other, and what has become of it.
struct Load {
    tally: Arc<Tally>,
    apps: JoinSet<()>,
}

struct Tally {
    how: ArcSwap<How>,
    address: String,
    is_over: AtomicBool,
    answered: Vec<AtomicU64>,
    /// What is wrong with an answer, or why there was none.
    failed: Mutex<Vec<String>>,
    /// Connections that the server has ended.
    ended: AtomicU64,
    /// The certificate each has seen last.
    seen: Mutex<Vec<Option<CertificateDer<'static>>>>,
}

impl Load {
    fn start(address: &str, how: How) -> Self {
        let tally = Arc::new(Tally {
            how: ArcSwap::from_pointee(how),
            address: address.to_owned(),
            is_over: AtomicBool::default(),
            answered: (0..APPS).map(|_| AtomicU64::default()).collect(),
            failed: Mutex::default(),
            ended: AtomicU64::default(),
            seen: Mutex::new(vec![None; usize::try_from(APPS).unwrap()]),
        });
        let apps = (0..APPS).map(|app| Arc::clone(&tally).run(app)).collect();
        Self { tally, apps }
    }

    /// From now on new connections are made so, and the old ones left once they are answered.
    fn change(&self, how: How) {
        self.tally.how.store(Arc::new(how));
    }

    /// Waits until each app has had so many more answers: what was under way is long over by then.
    async fn goes_on(&self, count: u64) {
        let all = || self.tally.answered.iter().map(|of| of.load(Ordering::Relaxed));
        let goals: Vec<_> = all().map(|now| now + count).collect();
        until("more answers", || async { all().zip(&goals).all(|(now, goal)| now >= *goal) || self.has_failed() })
            .await;
        self.assert_well();
    }

    fn has_failed(&self) -> bool {
        !self.tally.failed.lock().unwrap().is_empty()
    }

    fn assert_well(&self) {
        let failed = self.tally.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} failed: {:#?}", failed.len(), failed.first());
        assert_eq!(self.tally.ended.load(Ordering::Relaxed), 0, "connections that were good have been ended");
    }

    async fn end(mut self) {
        self.goes_on(2 * A_CONNECTION).await;
        self.tally.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.apps.join_next().await {
            ended.unwrap();
        }
        self.assert_well();
    }
}

impl Tally {
    async fn run(self: Arc<Self>, app: u64) {
        let mut kept: Option<(Kept, Arc<How>, u64)> = None;
        let mut number = 10_000_000_000 + app * 1_000_000;
        while !self.is_over.load(Ordering::Relaxed) {
            let how = self.how.load_full();
            let is_good = match &mut kept {
                Some((connection, made, sent)) if *sent < A_CONNECTION && Arc::ptr_eq(made, &how) => {
                    let is_ready = connection.is_ready().await;
                    self.ended.fetch_add(u64::from(!is_ready), Ordering::Relaxed);
                    is_ready
                }
                _ => false,
            };
            if !is_good {
                kept = match Kept::open(&how, &self.address, app % 2 == 1).await {
                    Ok((connection, shown)) => {
                        self.seen.lock().unwrap()[usize::try_from(app).unwrap()] = shown;
                        Some((connection, how, 0))
                    }
                    Err(error) => return self.failed.lock().unwrap().push(error),
                };
            }
            let Some((connection, how, sent)) = &mut kept else { continue };
            (number, *sent) = (number + 1, *sent + 1);
            match connection.create(&self.address, how, number).await {
                Ok(StatusCode::OK) => _ = self.answered[usize::try_from(app).unwrap()].fetch_add(1, Ordering::Relaxed),
                other => return self.failed.lock().unwrap().push(format!("{number}: {other:?}")),
            }
        }
    }
}

/// A gateway whose merchant has this line more.
async fn gateway(upstream: &str, listen: &str, merchant: &str) -> Gateway {
    let (file, folder) = Gateway::configured(upstream, listen, "");
    let line = "    client_secret: sandbox-secret\n";
    let text = fs::read_to_string(&file).unwrap().replace(line, &format!("{line}{merchant}"));
    fs::write(&file, text).unwrap();
    Gateway::of(Running::start(&["run", "--config", &file]), folder).await
}

fn tls(folder: &Path) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    format!("tls: {{ cert: '{}', key: '{}', client_ca: '{}' }}", path("own.crt"), path("own.key"), path("clients.crt"))
}

impl Gateway {
    async fn until_certificates(&self, count: u64) {
        let line = format!(r#"ayova_certificate_reloads_total{{listener="app",result="applied"}} {count}"#);
        until("new certificates", || async { get(&self.admin, "/metrics").await.body.contains(&line) }).await;
    }

    /// What a create with this key is answered over a connection that is there.
    async fn asked(&self, kept: &mut Kept, how: &How, number: u64) -> u16 {
        kept.create(&self.listen, how, number).await.unwrap().as_u16()
    }
}

async fn open(gateway: &Gateway, how: &How) -> [Kept; 2] {
    let one = |is_h2| async move { Kept::open(how, &gateway.listen, is_h2).await.unwrap().0 };
    [one(false).await, one(true).await]
}

#[tokio::test]
async fn the_servers_certificate_is_replaced_under_load() {
    let (sandbox, files) = (Sandbox::start().await, TempDir::new().unwrap());
    let (old, new) = (Authority::new(), Authority::new());
    old.issue_files(files.path(), "own", LOCAL);
    old.write(files.path(), "clients.crt");
    fs::write(files.path().join("both.crt"), old.pem() + &new.pem()).unwrap();
    new.write(files.path(), "new.crt");
    let upstream = format!("http://{}", sandbox.address);
    let gateway = gateway(&upstream, &format!(", {}", tls(files.path())), "").await;
    let how = How { tls: Some(Tls::new(files.path(), "both.crt", None)), key: None };
    let load = Load::start(&gateway.listen, how.clone());
    load.goes_on(5).await;
    let mut before = open(&gateway, &how).await;
    let (cert, key) = new.issue_files(files.path(), "next", LOCAL);
    fs::rename(cert, files.path().join("own.crt")).unwrap();
    fs::rename(key, files.path().join("own.key")).unwrap();
    gateway.until_certificates(1).await;
    load.goes_on(A_CONNECTION + 1).await;
    let believing = How { tls: Some(Tls::new(files.path(), "new.crt", None)), key: None };
    let shown = Kept::open(&believing, &gateway.listen, true).await.unwrap().1;
    assert!(shown.is_some() && load.tally.seen.lock().unwrap().iter().all(|seen| *seen == shown));
    // Nobody was sent away for it.
    for (kept, number) in before.iter_mut().zip(20_000_000_000..) {
        assert_eq!(gateway.asked(kept, &how, number).await, 200);
    }
    load.end().await;
}

#[tokio::test]
async fn api_keys_are_replaced_under_load() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let keys = |keys: &[&str]| format!("    api_keys: {}\n", list(keys));
    let gateway = gateway(&upstream, ", auth: api_key", &keys(&["old"])).await;
    let (old, new) = (How { tls: None, key: Some("old") }, How { tls: None, key: Some("new") });
    let load = Load::start(&gateway.listen, old.clone());
    load.goes_on(5).await;
    let mut kept = open(&gateway, &old).await;
    for (kept, number) in kept.iter_mut().zip(20_000_000_000..) {
        assert_eq!(gateway.asked(kept, &new, number).await, 401);
        assert_eq!(gateway.asked(kept, &old, number).await, 200);
    }
    gateway.edit(|text| text.replace(&keys(&["old"]), &keys(&["old", "new"])));
    gateway.until_reloads("applied", 1).await;
    load.goes_on(5).await;
    load.change(new.clone());
    // Everybody has changed when the second answer comes.
    load.goes_on(2).await;
    gateway.edit(|text| text.replace(&keys(&["old", "new"]), &keys(&["new"])));
    gateway.until_reloads("applied", 2).await;
    for (kept, number) in kept.iter_mut().zip(20_000_000_100..) {
        assert_eq!(gateway.asked(kept, &old, number).await, 401);
        assert_eq!(gateway.asked(kept, &new, number).await, 200);
    }
    for kept in &mut open(&gateway, &old).await {
        assert_eq!(gateway.asked(kept, &old, 20_000_000_200).await, 401);
    }
    load.end().await;
}

#[tokio::test]
async fn client_certificates_are_replaced_under_load() {
    let (sandbox, files) = (Sandbox::start().await, TempDir::new().unwrap());
    let (server, old, new) = (Authority::new(), Authority::new(), Authority::new());
    server.write(files.path(), "ca.crt");
    server.issue_files(files.path(), "own", LOCAL);
    old.write(files.path(), "clients.crt");
    old.issue_files(files.path(), "old", &["app.shop.internal"]);
    new.issue_files(files.path(), "new", &["app.shop.internal"]);
    let upstream = format!("http://{}", sandbox.address);
    let listen = format!(", auth: mtls, {}", tls(files.path()));
    let gateway = gateway(&upstream, &listen, "    client_names: [app.shop.internal]\n").await;
    let how = |name| How { tls: Some(Tls::new(files.path(), "ca.crt", Some(name))), key: None };
    let load = Load::start(&gateway.listen, how("old"));
    load.goes_on(5).await;
    let mut kept = open(&gateway, &how("old")).await;
    let place = |text: String| {
        fs::write(files.path().join("next"), text).unwrap();
        fs::rename(files.path().join("next"), files.path().join("clients.crt")).unwrap();
    };
    place(old.pem() + &new.pem());
    gateway.until_certificates(1).await;
    for (kept, number) in kept.iter_mut().zip(20_000_000_000..) {
        assert_eq!(gateway.asked(kept, &how("old"), number).await, 200, "its authority is there still");
    }
    load.goes_on(5).await;
    load.change(how("new"));
    load.goes_on(2).await;
    place(new.pem());
    gateway.until_certificates(2).await;
    // Who has not changed is sent away, and does not come in again.
    for kept in &kept {
        until("the end of an old connection", || async { kept.is_closed() }).await;
    }
    for is_h2 in [false, true] {
        let refused = async {
            let (mut kept, _) = Kept::open(&how("old"), &gateway.listen, is_h2).await?;
            kept.create(&gateway.listen, &how("old"), 20_000_000_100).await
        };
        refused.await.unwrap_err();
    }
    load.end().await;
}

const NEXT_KEY: &str = include_str!("../../../config/sandbox-callback-key.pem");

/// An upstream that can become another one, without the tokens of the one before.
async fn upstream(first: ayova::sandbox::Sandbox) -> (String, Arc<ArcSwap<ayova::sandbox::Sandbox>>) {
    let now = Arc::new(ArcSwap::from_pointee(first));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = Arc::clone(&now);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let serving = Arc::clone(&serving);
            let service = tower::service_fn(move |request| {
                let now = ayova::sandbox::Sandbox::clone(&serving.load());
                tower::ServiceExt::oneshot(now, request)
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
        }
    });
    (address, now)
}

fn simulated(merchants: Vec<SandboxMerchant>) -> ayova::sandbox::Sandbox {
    let config = SandboxConfig { merchants, ..SandboxConfig::default() };
    let random = rand::rngs::StdRng::seed_from_u64(1);
    ayova::sandbox::Sandbox::new(config, Arc::new(ayova::clock::SystemClock), random).unwrap()
}

#[tokio::test]
async fn what_the_gateway_logs_in_with_is_replaced_under_load() {
    let old = SandboxConfig::default().merchants.remove(0);
    let new = SandboxMerchant {
        name: "next".into(),
        client_id: "next-client".to_owned(),
        client_secret: Secret::new("next-secret".to_owned()),
        key: MerchantKey::PrivatePem(Secret::new(NEXT_KEY.to_owned())),
        ..old.clone()
    };
    let (address, serving) = upstream(simulated(vec![old, new.clone()])).await;
    let url = format!("http://{address}");
    let gateway = Gateway::start(&url).await;
    let load = Load::start(&gateway.listen, How::default());
    load.goes_on(5).await;
    let key = |name: &str| format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"));
    gateway.edit(|text| {
        text.replace("sandbox-client", "next-client")
            .replace("sandbox-secret", "next-secret")
            .replace(&key("sandbox-key.pem"), &key("sandbox-callback-key.pem"))
    });
    gateway.running.signal("HUP").await;
    gateway.until_reloads("applied", 1).await;
    // What was begun with the old ones is over.
    load.goes_on(2).await;
    serving.store(Arc::new(simulated(vec![new])));
    load.goes_on(5).await;
    let requests = get(&address, "/_sandbox/requests").await.json();
    let requests = requests["requests"].as_array().unwrap();
    assert!(requests.len() > 20 && requests.iter().all(|request| !request.to_string().contains("sandbox-client")));
    // One that was not told logs in with the old ones.
    let late = Gateway::start(&url).await;
    late.create("order-1").await.assert_refusal(503, "TOKEN_UNAVAILABLE");
    load.end().await;
}
