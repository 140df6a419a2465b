//! Parking in memory, with the clock stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Context;

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::wire::{KEPT, Kept};

/// Either side of a connection, whatever it goes over.
trait Side: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Side for S {}

type Server = Either<DuplexStream, Either<TlsStream<DuplexStream>, UnixStream>>;

/// A client of a connection that is served.
struct Client {
    stream: Box<dyn Side>,
    protocols: Arc<Protocols>,
    requests: Requests,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// Says what it was asked, after the time the path names, if any.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if let Some(seconds) = path.strip_prefix("/after/").and_then(|text| text.parse().ok()) {
        sleep(Duration::from_secs(seconds)).await;
    }
    let long = path.strip_prefix("/long/").and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = format!("<{path} {}>{}", String::from_utf8_lossy(&body), "x".repeat(long));
    Ok(Response::new(Full::from(text)))
}

fn connect(protocols: &Arc<Protocols>, room: usize) -> Client {
    let (stream, server) = duplex(room);
    connect_over(protocols, Box::new(stream), Either::Left(server))
}

fn connect_over(protocols: &Arc<Protocols>, stream: Box<dyn Side>, server: Server) -> Client {
    let (protocols, stop) = (Arc::clone(protocols), CancellationToken::new());
    let wire = Wire::new(server, HEAD_TIME, Requests::new(Kept::default()));
    let requests = wire.requests();
    let (shared, told, noted) = (Arc::clone(&protocols), stop.clone(), requests.clone());
    let serving = tokio::spawn(async move {
        let answering = |request: Request<Incoming>| {
            let under_way = noted.begin();
            answer(request).inspect(move |_| drop(under_way))
        };
        let _ = shared.converse(wire, answering, told.cancelled()).await;
    });
    Client { stream, protocols, requests, stop, serving }
}

impl Client {
    fn new() -> Self {
        connect(&Arc::default(), 64 * 1024)
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads up to the end of what is expected.
    async fn hear(&mut self, expected: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(expected) {
            let mut bytes = [0; 4096];
            match timeout(Duration::from_secs(200), self.stream.read(&mut bytes)).await.expect("an answer") {
                Ok(0) | Err(_) => panic!("ended after {heard:?}, where {expected:?} is to come"),
                Ok(count) => heard.push_str(std::str::from_utf8(&bytes[..count]).unwrap()),
            }
        }
        heard
    }

    async fn ask(&mut self, path: &str, body: &str) {
        self.say(&post(path, body)).await;
        let heard = self.hear(&format!("<{path} {body}>")).await;
        assert!(heard.starts_with("HTTP/1.1 200") && !heard.contains("close"), "{heard}");
    }

    fn awake(&self) -> usize {
        self.protocols.awake.load(Ordering::Relaxed)
    }

    /// Waits until it is parked; the client sees nothing of it.
    async fn park(&mut self) {
        sleep(2 * PARK_AFTER).await;
        assert_eq!(self.awake(), 0, "it is not parked");
        let mut byte = [0];
        let read = Pin::new(&mut self.stream)
            .poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut tokio::io::ReadBuf::new(&mut byte));
        assert!(read.is_pending(), "the client was told something");
    }

    /// How long it is until the connection ends.
    async fn ends(mut self) -> Duration {
        let began = Instant::now();
        // Over TLS, this is an end that was announced.
        assert_eq!(self.stream.read(&mut [0; 100]).await.unwrap(), 0);
        drop(self.stream);
        self.serving.await.unwrap();
        assert_eq!(self.protocols.awake.load(Ordering::Relaxed), 0);
        began.elapsed()
    }
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(start_paused = true)]
async fn what_comes_on_a_parked_connection_is_answered() {
    let mut client = Client::new();
    client.ask("/first", "").await;
    assert_eq!(client.awake(), 1);
    client.park().await;
    client.ask("/second", "a body").await;
    client.park().await;
    // At once, of which all but the first wait in the wire.
    client.say(&[post("/3", "three"), post("/4", ""), post("/after/5", "five"), post("/6", "six")].concat()).await;
    let heard = client.hear("</6 six>").await;
    let order: Vec<_> = ["</3 three>", "</4 >", "</after/5 five>", "</6 six>"].map(|one| heard.find(one)).to_vec();
    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{heard}");
    client.park().await;
    let chunked = "POST /7 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    client.say(chunked).await;
    client.hear("</7 ab>").await;
    client.park().await;
}

/// Cut anywhere, with a pause of any length around the one that parks.
#[tokio::test(start_paused = true)]
async fn no_cut_and_no_pause_loses_a_byte() {
    let script = [post("/1", "one"), post("/2", ""), post("/3", "three")].concat();
    let first = post("/1", "one").len();
    for cut in (0..=script.len()).step_by(3).chain([first, first + 1]) {
        for pause in [0, 500, 999, 1_000, 1_001, 2_000, 4_500] {
            let mut client = Client::new();
            let (early, late) = script.split_at(cut);
            client.say(early).await;
            sleep(Duration::from_millis(pause)).await;
            client.say(late).await;
            let heard = client.hear("</3 three>").await;
            assert!(heard.contains("</1 one>") && heard.contains("</2 >"), "cut at {cut} for {pause}: {heard}");
            client.park().await;
            client.ask("/last", "x").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_busy_is_not_parked() {
    let mut client = Client::new();
    for _ in 0..40 {
        client.ask("/", "").await;
        sleep(PARK_AFTER / 4).await;
        assert_eq!(client.awake(), 1);
    }
    // A request that takes long, half a head, and an answer that is not taken.
    client.say(&post("/after/60", "")).await;
    sleep(Duration::from_secs(59)).await;
    assert_eq!(client.awake(), 1);
    client.hear("</after/60 >").await;
    client.park().await;
    client.say("POST /half HTTP/1.1\r\n").await;
    sleep(HEAD_TIME - Duration::from_secs(1)).await;
    assert_eq!(client.awake(), 1);
    client.say("Host: a\r\n\r\n").await;
    client.hear("</half >").await;
    client.park().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_half_sent_stays_whole() {
    let mut client = connect(&Arc::default(), 64);
    client.say("GET /long/20000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(client.awake(), 1);
    let mut heard = client.hear("\r\n\r\n").await;
    while heard.matches('x').count() < 20_000 {
        heard.push_str(&client.hear("x").await);
    }
    client.park().await;
    client.ask("/", "").await;
    // Who does not take it at all is ended.
    client.say("GET /long/20000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let began = Instant::now();
    client.serving.await.unwrap();
    assert!(began.elapsed() >= KEPT && began.elapsed() < KEPT + 2 * PARTING, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_ends_as_an_idle_one_does() {
    // Since its last answer, also where it has been parked before.
    let mut client = Client::new();
    client.ask("/", "").await;
    client.park().await;
    client.ask("/", "").await;
    let ended = client.ends().await;
    assert!(ended >= KEPT && ended < KEPT + Duration::from_secs(1), "{ended:?}");
    for parked in [false, true] {
        let mut client = Client::new();
        client.ask("/", "").await;
        if parked {
            client.park().await;
        }
        client.stop.cancel();
        assert_eq!(client.ends().await, Duration::ZERO, "told to, parked: {parked}");
        let mut client = Client::new();
        client.ask("/", "").await;
        if parked {
            client.park().await;
        }
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.ends().await, Duration::ZERO, "its client has left, parked: {parked}");
    }
    // A head that stops half way has the time of a head.
    let mut client = Client::new();
    client.ask("/", "").await;
    client.park().await;
    client.say("GET / HTTP/1.1\r\n").await;
    let requests = client.requests.clone();
    let ended = client.ends().await;
    assert!(ended >= HEAD_TIME && ended < HEAD_TIME + Duration::from_secs(1) && requests.is_too_slow(), "{ended:?}");
}

/// Both sides of a connection over TLS.
async fn over_tls() -> (Box<dyn Side>, Server) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let served = rustls::ServerConfig::builder().with_no_client_auth();
    let served = served.with_single_cert(vec![certificate.clone()], key.into()).unwrap();
    let mut believed = rustls::RootCertStore::empty();
    believed.add(certificate).unwrap();
    let believing = rustls::ClientConfig::builder().with_root_certificates(believed).with_no_client_auth();
    let (client, server) = duplex(64 * 1024);
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(believing)).connect("localhost".try_into().unwrap(), client),
        TlsAcceptor::from(Arc::new(served)).accept(server),
    );
    (Box::new(client.unwrap()), Either::Right(Either::Left(server.unwrap())))
}

#[tokio::test(start_paused = true)]
async fn it_is_the_same_over_tls_and_a_unix_socket() {
    for is_tls in [false, true] {
        let (stream, server) = if is_tls {
            over_tls().await
        } else {
            let (stream, server) = UnixStream::pair().unwrap();
            (Box::new(stream) as Box<dyn Side>, Either::Right(Either::Right(server)))
        };
        let mut client = connect_over(&Arc::default(), stream, server);
        for turn in 0..3 {
            client.ask(&format!("/{turn}"), "a body").await;
            client.park().await;
        }
        client.say(&[post("/3", "three"), post("/4", "four")].concat()).await;
        client.hear("</4 four>").await;
        client.park().await;
        client.say("POST /5 HT").await;
        sleep(Duration::from_secs(2)).await;
        client.say("TP/1.1\r\nHost: a\r\n\r\n").await;
        client.hear("</5 >").await;
        client.park().await;
        client.stop.cancel();
        assert_eq!(client.ends().await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_doubtful_head_is_found_after_parking_too() {
    let mut client = Client::new();
    client.ask("/", "").await;
    client.park().await;
    assert!(!client.requests.is_flawed());
    client.say("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    sleep(Duration::from_millis(1)).await;
    assert!(client.requests.is_flawed());
}

/// Of many, those that are at rest make room at once.
#[tokio::test(start_paused = true)]
async fn hyper_holds_few_at_a_time() {
    let protocols = Arc::default();
    let mut clients: Vec<_> = (0..2 * AWAKE_MOST).map(|_| connect(&protocols, 1024)).collect();
    for client in &mut clients {
        client.ask("/", "").await;
    }
    assert!((AWAKE_MOST..=AWAKE_MOST + 1).contains(&clients[0].awake()), "{}", clients[0].awake());
    for client in &mut clients {
        client.ask("/", "again").await;
    }
    clients[0].park().await;
}

const HEAD_TIME: Duration = Duration::from_secs(5);
