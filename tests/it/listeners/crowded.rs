//! A listener with as many connections as there may be: who gets in, who makes room, and what is counted.

use ayova::callback::receive::Receiver;
use hyper_util::rt::TokioExecutor;

use super::*;
use crate::callbacks::{Circle, SECRET};

/// As many as each of these listeners takes.
const MOST: usize = 8;
const NEVER: Duration = Duration::from_secs(3_600);
const UNASKED: Duration = Duration::from_millis(200);

impl Served {
    fn counted(&self, cause: &str) -> u64 {
        let name = format!("ayova_connections_refused_total{{listener=\"app\",cause=\"{cause}\"}} ");
        self.metrics().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }
}

/// The receiver of callbacks as it is served, with a head's time that ends nothing.
async fn receiving(circle: &Circle, kept: Kept) -> Served {
    let receiver: Receiver = circle.line.0.lock().unwrap().clone().unwrap();
    Served::holding(MOST, kept, receiver, (None, NEVER)).await
}

/// A client that says this first.
async fn saying(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// The head of an answer.
async fn head(stream: &mut TcpStream) -> String {
    let mut said = String::new();
    while !said.ends_with("\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.unwrap();
        said.push(char::from(byte.unwrap_or_else(|error| panic!("{error} after {said:?}"))));
    }
    said
}

/// Whether it has ended with nothing, or nothing else, being said.
async fn is_ended(stream: &mut TcpStream) -> bool {
    // A reset where it had said something that was not read.
    timeout(PATIENCE, stream.read(&mut [0; 64])).await.unwrap().map_or(true, |count| count == 0)
}

/// A callback that is kept, if only in quarantine; all of it but the last byte, and that.
fn callback() -> (String, &'static str) {
    let path = format!("/callbacks/snap/AYOTST/{SECRET}");
    (format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{"), "}")
}

/// Connects and brings one.
async fn bring(served: &Served) -> TcpStream {
    let (most, last) = callback();
    let mut stream = saying(served.address, &(most + last)).await;
    let said = head(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && !said.contains("close"), "{said}");
    // Its body, of which it is known that it is there.
    stream.readable().await.unwrap();
    stream
}

#[tokio::test]
async fn strangers_shut_no_callback_out() {
    let circle = Circle::new().await;
    for said in ["", "P", "GET /x HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let served = receiving(&circle, Kept::default()).await;
        let mut strangers = Vec::new();
        for _ in 0..3 * MOST {
            strangers.push(saying(served.address, said).await);
        }
        for _ in 0..3 {
            bring(&served).await;
        }
        // Whoever came first went first, and nobody was turned away.
        timeout(PATIENCE, until_its_end(&mut strangers[0])).await.unwrap_or_else(|_| panic!("{said:?} stays"));
        assert_eq!(served.counted("too_many"), 0, "{said:?}");
        assert!(served.counted("evicted") >= 2 * u64::try_from(MOST).unwrap(), "{said:?}: {}", served.metrics());
    }
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_not_kept() {
    let circle = Circle::new().await;
    let served = receiving(&circle, Kept { unasked: UNASKED, ..Kept::default() }).await;
    let (right, last) = callback();
    let wrong = [
        "GET /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        right.replace(SECRET, &"f".repeat(SECRET.len())) + last,
        right.replace("/snap/", "/snap/1") + last,
        right.replace("POST", "PUT") + last,
    ];
    for said in wrong {
        let mut stream = saying(served.address, &said).await;
        let answer = head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close\r\n"), "{answer}");
        assert!(is_ended(&mut stream).await, "{said}");
    }
    // The same in HTTP/2, which has no such header.
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let ending = tokio::spawn(connection);
    let request = Request::get("http://a/x").body(Full::<Bytes>::default()).unwrap();
    let answer = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("connection")), (404, None));
    timeout(PATIENCE, ending).await.unwrap().unwrap().unwrap();
    // Who says nothing but hello, or nothing.
    for said in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", ""] {
        let mut stream = saying(served.address, said).await;
        timeout(PATIENCE, until_its_end(&mut stream)).await.expect("its end");
    }
    // Ayoconnect's connection is kept for longer.
    let mut stream = bring(&served).await;
    assert!(timeout(5 * UNASKED, until_its_end(&mut stream)).await.is_err());
    assert_eq!((served.counted("evicted"), served.counted("too_many")), (0, 0));
}

/// Which may be a reset.
async fn until_its_end(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// Requests that wait until they may go on.
#[derive(Debug)]
struct Held {
    count: AtomicUsize,
    let_go: Semaphore,
}

impl Held {
    /// Waits until there are so many.
    async fn until(&self, count: usize) {
        let held = async {
            while self.count.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, held).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_under_way_makes_no_room() {
    let held = Arc::new(Held { count: AtomicUsize::new(0), let_go: Semaphore::new(1) });
    let noted = Arc::clone(&held);
    let service = service_fn(move |_: Request<Incoming>| {
        let held = Arc::clone(&noted);
        async move {
            held.count.fetch_add(1, Ordering::Relaxed);
            held.let_go.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(Response::<Full<Bytes>>::default())
        }
    });
    let served = Served::holding(MOST, Kept::default(), service, (None, NEVER)).await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut idle = saying(served.address, get).await;
    head(&mut idle).await;
    // By now it is certain that its answer was sent.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut under_way = Vec::new();
    // The one that is idle makes room for the last of them, then there is none.
    for _ in 0..MOST {
        under_way.push(saying(served.address, get).await);
    }
    held.until(1 + MOST).await;
    assert!(is_ended(&mut idle).await);
    for _ in 0..3 {
        assert!(is_ended(&mut TcpStream::connect(served.address).await.unwrap()).await);
    }
    assert_eq!((served.counted("evicted"), served.counted("too_many")), (1, 3));
    held.let_go.add_permits(MOST + 1);
    for stream in &mut under_way {
        assert!(head(stream).await.starts_with("HTTP/1.1 200 "));
    }
    // They are idle again once their answers are on their way.
    let answered = async {
        loop {
            let mut stream = saying(served.address, get).await;
            if stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {
                break;
            }
        }
    };
    timeout(PATIENCE, answered).await.unwrap();
    assert_eq!(served.counted("evicted"), 2);
}

#[tokio::test]
async fn who_shakes_hands_makes_room_too() {
    let files = Files::new();
    let served = Served::holding(MOST, Kept::default(), service_fn(who), (Some(files.server()), NEVER)).await;
    let mut strangers = Vec::new();
    for _ in 0..2 * MOST {
        strangers.push(saying(served.address, "\x16\x03\x01").await);
    }
    for _ in 0..3 {
        ask(&files.client(None), served.address).await.unwrap();
    }
    assert!(is_ended(&mut strangers[0]).await);
    assert_eq!((served.counted("too_many"), served.counted("handshake")), (0, 0));
}
