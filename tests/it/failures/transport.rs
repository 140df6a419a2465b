//! What the real transport says of failures, on real sockets: what is proven never to have left, and
//! what may have arrived.

use std::time::Duration;

use ayova::upstream::{HyperTransport, Transport as _, TransportError, client};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

async fn send(origin: &str) -> Result<Response<Bytes>, TransportError> {
    send_within(origin, Duration::from_secs(5)).await
}

async fn send_within(origin: &str, connect_timeout: Duration) -> Result<Response<Bytes>, TransportError> {
    let transport = HyperTransport::new(&origin.parse().unwrap(), connect_timeout).unwrap();
    let request = Request::post("/path").body(Full::from("{}")).unwrap();
    transport.send(request).await
}

/// An upstream that reads a request, writes this, and then closes or goes silent.
async fn upstream(answer: Vec<u8>, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await.unwrap();
        socket.write_all(&answer).await.unwrap();
        if !closes {
            std::future::pending::<()>().await;
        }
    });
    address.to_string()
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    // Speaks something that is no TLS.
    let no_tls = upstream(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), true).await;
    for origin in [format!("http://{refused}"), "http://no-such-host.invalid".to_owned(), format!("https://{no_tls}")] {
        let sent = send(&origin).await;
        assert!(matches!(sent, Err(TransportError::NotSent(_))), "{origin}: {sent:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_hangs_sent_nothing() {
    // Accepts and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://{}", silent.local_addr().unwrap());
    let connecting = send_within(&origin, Duration::from_millis(200));
    let sent = timeout(Duration::from_secs(10), connecting).await;
    assert!(matches!(sent, Ok(Err(TransportError::NotSent(_)))), "{sent:?}");
}

#[tokio::test]
async fn once_connected_it_may_have_arrived() {
    let cut = [head(100).into_bytes(), b"{\"responseC".to_vec()].concat();
    let endless = [head(client::ANSWER_MAX + 1).into_bytes(), vec![b' '; client::ANSWER_MAX + 1]].concat();
    for (what, answer) in [
        ("closed without an answer", Vec::new()),
        ("cut off in the head", b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        ("no HTTP", b"SSH-2.0-OpenSSH\r\n".to_vec()),
        ("cut off in the body", cut),
        ("too long", endless),
    ] {
        let sent = send(&format!("http://{}", upstream(answer, true).await)).await;
        assert!(matches!(sent, Err(TransportError::Broken(_))), "{what}: {sent:?}");
    }
}

#[tokio::test]
async fn an_answer_is_not_there_before_its_last_byte() {
    let slow = [head(100).into_bytes(), b"{\"responseC".to_vec()].concat();
    let origin = format!("http://{}", upstream(slow, false).await);
    let sent = timeout(Duration::from_millis(300), send(&origin)).await;
    assert!(sent.is_err(), "{sent:?}");
}
