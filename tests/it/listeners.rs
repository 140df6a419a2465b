//! Listeners in this process: TLS as a client sees it, and what a service is told of its clients.

mod crowded;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ayova::server::certificates::Certificates;
use ayova::server::{Address, ClientNames, Departure, Door, Kept, Peer, Terms, bind, serve};
use ayova::telemetry::metrics::Metrics;
use ayova::tls::{ClientFiles, ServerFiles, client_config};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::{Service, service_fn};

use super::certificates::{Authority, LOCAL};

/// Longest wait for anything; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener whose service says who asks.
struct Served {
    address: SocketAddr,
    registry: Registry,
    stop: CancellationToken,
}

impl Served {
    async fn start(files: Option<ServerFiles>, header_timeout: Duration) -> Self {
        Self::holding(64, Kept::default(), service_fn(who), (files, header_timeout)).await
    }

    /// One of so many connections at most.
    async fn holding<S>(
        connections: usize,
        kept: Kept,
        service: S,
        (files, header_timeout): (Option<ServerFiles>, Duration),
    ) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let stop = CancellationToken::new();
        let certificates = files.map(|files| {
            let (certificates, watch) = Certificates::open(files).unwrap();
            tokio::spawn(watch.run("app", Arc::clone(&metrics), stop.clone()));
            certificates
        });
        let terms = Terms {
            name: "app",
            header_timeout,
            connections,
            kept,
            door: Door::default(),
            certificates,
            metrics,
            departure: Departure::default(),
            stop: stop.clone(),
        };
        let bound = bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let address = bound.address.tcp().unwrap();
        tokio::spawn(serve(bound, service, terms));
        Self { address, registry, stop }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    async fn until_counted(&self, line: &str) {
        let counted = async {
            while !self.metrics().contains(line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("no {line} in\n{}", self.metrics()));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// More than the system's buffers take.
const LARGE: usize = 64 << 20;

/// Requests to `/held`, and the word that lets them go on; one test's.
static HELD: AtomicUsize = AtomicUsize::new(0);
static LET_GO: Semaphore = Semaphore::const_new(0);

async fn who(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/held" {
        HELD.fetch_add(1, Ordering::Relaxed);
        LET_GO.acquire().await.unwrap().forget();
    }
    if request.uri().path() == "/large" {
        return Ok(Response::new(Full::from(vec![b'a'; LARGE])));
    }
    let names = request.extensions().get::<ClientNames>().map(|names| names.0.to_vec());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    Ok(Response::new(Full::from(format!("{names:?} {peer:?}"))))
}

/// What a listener's folder holds: `own` by one authority, clients by another.
struct Files {
    folder: TempDir,
    authority: Authority,
    clients: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: TempDir::new().unwrap(), authority: Authority::new(), clients: Authority::new() };
        files.authority.write(files.path(), "ca.crt");
        files.clients.write(files.path(), "clients.crt");
        files.authority.issue_files(files.path(), "own", LOCAL);
        files
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn server(&self) -> ServerFiles {
        let path = |name: &str| self.path().join(name);
        ServerFiles { cert: path("own.crt"), key: path("own.key"), client_ca: Some(path("clients.crt")) }
    }

    /// A client that believes the authority and shows this certificate.
    fn client(&self, shows: Option<(&Authority, &[&str])>) -> TlsConnector {
        let identity = shows.map(|(authority, names)| authority.issue_files(self.path(), "client", names));
        let files = ClientFiles { ca: Some(self.path().join("ca.crt")), identity };
        TlsConnector::from(Arc::new(client_config(Some(&files)).unwrap()))
    }
}

async fn connect(client: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    client.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// What the service says over a connection that is kept, or why it does not.
async fn ask(client: &TlsConnector, address: SocketAddr) -> Result<String, String> {
    let asking = async {
        let stream = connect(client, address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let mut said = String::new();
        for _ in 0..2 {
            let request = Request::get("/").header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            said = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
        }
        Ok(said)
    };
    timeout(PATIENCE, asking).await.unwrap()
}

#[tokio::test]
async fn a_service_is_told_the_names_of_verified_clients_only() {
    let files = Files::new();
    let served = Served::start(Some(files.server()), PATIENCE).await;
    let names: &[&str] = &["app.shop.internal", "spiffe://shop/app", "10.0.0.1"];
    let known = files.client(Some((&files.clients, names)));
    let said = ask(&known, served.address).await;
    assert_eq!(said.unwrap(), r#"Some(["app.shop.internal", "spiffe://shop/app"]) Some("127.0.0.1")"#);
    let nobody = files.client(None);
    assert_eq!(ask(&nobody, served.address).await.unwrap(), r#"None Some("127.0.0.1")"#);
    // Of an authority that is not asked for.
    let stranger = files.client(Some((&files.authority, names)));
    ask(&stranger, served.address).await.unwrap_err();
    served.until_counted(r#"ayova_connections_refused_total{listener="app",cause="handshake"} 1"#).await;
}

#[tokio::test]
async fn a_listener_without_tls_tells_the_address_and_no_names() {
    let served = Served::start(None, PATIENCE).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.ends_with("\r\n\r\nNone Some(\"127.0.0.1\")"), "{said}");
}

#[tokio::test]
async fn a_handshake_has_its_time_and_holds_up_nobody() {
    let files = Files::new();
    let served = Served::start(Some(files.server()), Duration::from_millis(200)).await;
    let mut silent = Vec::new();
    for said in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        silent.push(stream);
    }
    ask(&files.client(None), served.address).await.unwrap();
    for mut stream in silent {
        let mut rest = Vec::new();
        // An alert may come first, a reset instead of an end.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    }
    served.until_counted(r#"ayova_connections_refused_total{listener="app",cause="handshake"} 3"#).await;
}

/// As Kubernetes does it: the files are links through a link to a folder, and that link is swapped.
#[tokio::test]
async fn a_certificate_is_replaced_under_way() {
    let files = Files::new();
    let (first, second) = (files.path().join("first"), files.path().join("second"));
    std::fs::create_dir(&first).unwrap();
    std::fs::create_dir(&second).unwrap();
    files.authority.issue_files(&first, "own", LOCAL);
    let other = Authority::new();
    other.issue_files(&second, "own", LOCAL);
    let link = files.path().join("data");
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let server = ServerFiles { cert: link.join("own.crt"), key: link.join("own.key"), client_ca: None };
    let served = Served::start(Some(server), PATIENCE).await;
    let old = files.client(None);
    let mut before = connect(&old, served.address).await.unwrap();
    std::os::unix::fs::symlink(&second, files.path().join("data.new")).unwrap();
    std::fs::rename(files.path().join("data.new"), &link).unwrap();
    served.until_counted(r#"ayova_certificate_reloads_total{listener="app",result="applied"} 1"#).await;
    // Who trusts the old authority only is not served any more, sessions that could be resumed included.
    ask(&old, served.address).await.unwrap_err();
    other.write(files.path(), "ca.crt");
    let new = files.client(None);
    ask(&new, served.address).await.unwrap();
    // Whoever connected before goes on.
    before.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, before.read_to_end(&mut said)).await.unwrap();
    assert!(said.starts_with(b"HTTP/1.1 200 OK"));
    // What does not fit changes nothing.
    std::fs::write(second.join("own.key"), files.authority.issue(LOCAL).1).unwrap();
    served.until_counted(r#"ayova_certificate_reloads_total{listener="app",result="rejected"} 1"#).await;
    ask(&new, served.address).await.unwrap();
}

/// A connection over which requests are sent by hand.
struct ByHand(TlsStream<TcpStream>);

impl ByHand {
    async fn open(client: &TlsConnector, served: &Served) -> Self {
        Self(connect(client, served.address).await.unwrap())
    }

    async fn get(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// The head of a GET in HTTP/2: names and the first values from its table, the others in full.
    async fn get_h2(&mut self, stream: u8, path: &str) {
        let length = u8::try_from(path.len()).unwrap();
        let block = [&[0x82, 0x87, 0x01, 1, b'a', 0x04, length][..], path.as_bytes()].concat();
        let head = [0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, stream];
        self.0.write_all(&[&head[..], &block].concat()).await.unwrap();
    }

    /// Reads on until this has come; everything that came.
    async fn until(&mut self, end: &str) -> String {
        let mut said = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&said).contains(end) {
                said.push(self.0.read_u8().await.unwrap_or_else(|error| panic!("{error} before {end:?}")));
            }
        };
        timeout(PATIENCE, reading).await.unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    async fn is_ended(&mut self) -> bool {
        timeout(PATIENCE, self.0.read_u8()).await.unwrap().is_err()
    }
}

#[tokio::test]
async fn who_loses_its_authority_is_sent_away_and_nobody_else() {
    let (files, staying) = (Files::new(), Authority::new());
    let place = |name: &str, text: String| std::fs::write(files.path().join(name), text).unwrap();
    place("clients.crt", files.clients.pem() + &staying.pem());
    let served = Served::start(Some(files.server()), PATIENCE).await;
    let (going, others) = (files.client(Some((&files.clients, &["goes"]))), files.client(Some((&staying, &["stays"]))));
    let mut idle = ByHand::open(&going, &served).await;
    let (mut stays, mut nobody) =
        (ByHand::open(&others, &served).await, ByHand::open(&files.client(None), &served).await);
    let (mut asking, mut h2) = (ByHand::open(&going, &served).await, ByHand::open(&going, &served).await);
    asking.get("/held").await;
    h2.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    h2.get_h2(1, "/held").await;
    let held = async {
        while HELD.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, held).await.unwrap();
    // A new certificate of the server's sends nobody away.
    files.authority.issue_files(files.path(), "own", LOCAL);
    served.until_counted(r#"ayova_certificate_reloads_total{listener="app",result="applied"} 1"#).await;
    idle.get("/").await;
    idle.until("Some([\"goes\"]) Some(\"127.0.0.1\")").await;
    h2.get_h2(3, "/").await;
    h2.until("Some([\"goes\"]) Some(\"127.0.0.1\")").await;
    place("clients.crt", staying.pem());
    served.until_counted(r#"ayova_certificate_reloads_total{listener="app",result="applied"} 2"#).await;
    assert!(idle.is_ended().await);
    // A client that goes on regardless is nobody from now on.
    h2.get_h2(5, "/").await;
    h2.until("None Some(\"127.0.0.1\")").await;
    // What was under way is answered.
    LET_GO.add_permits(2);
    let said = asking.until("Some([\"goes\"]) Some(\"127.0.0.1\")").await;
    assert!(said.contains("connection: close\r\n") && asking.is_ended().await, "{said}");
    h2.until("Some([\"goes\"]) Some(\"127.0.0.1\")").await;
    ask(&going, served.address).await.unwrap_err();
    for (kept, name) in [(&mut stays, "Some([\"stays\"])"), (&mut nobody, "None")] {
        for _ in 0..2 {
            kept.get("/").await;
            let said = kept.until(&format!("{name} Some(\"127.0.0.1\")")).await;
            assert!(!said.contains("connection: close"), "{said}");
        }
    }
}

/// In HTTP/2 a connection is not closed by what `wire` knows of heads; and no head is late where an answer
/// is not taken. Time is moved by whoever waits.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_quiet_for_long_is_ended() {
    let served = Served::start(None, Duration::from_secs(3_600)).await;
    for said in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "GET /large HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let began = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        // Nothing is taken until well after the end.
        tokio::time::sleep(Duration::from_secs(200)).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < LARGE, "{}", rest.len());
        assert!(began.elapsed() < Duration::from_secs(201), "{:?}", began.elapsed());
    }
}
