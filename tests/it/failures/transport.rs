//! What the real transport says of failures, on real sockets: what is proven never to have left, and
//! what may have arrived.

use std::path::Path;
use std::time::Duration;

use ayova::tls::{ClientFiles, ServerFiles};
use ayova::upstream::{HyperTransport, Transport as _, TransportError, client};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::certificates::{Authority, LOCAL};

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

/// An upstream with TLS that asks for a certificate of this authority's, and answers once.
async fn tls_upstream(folder: &Path, authority: &Authority) -> String {
    authority.write(folder, "ca.crt");
    let (cert, key) = authority.issue_files(folder, "upstream", LOCAL);
    let files = ServerFiles { cert, key, client_ca: Some(folder.join("ca.crt")) };
    let acceptor = tokio_rustls::TlsAcceptor::from(files.read().unwrap().terms().unwrap().config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let shown = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
            let _ = stream.write_all(format!("{}{shown}", head(1)).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("https://{address}")
}

#[tokio::test]
async fn upstream_is_verified_by_the_authorities_of_a_file_and_shown_a_certificate() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new();
    let origin = tls_upstream(folder.path(), &authority).await;
    let send = async |tls: Option<&ClientFiles>| {
        let transport = HyperTransport::with_tls(&origin.parse().unwrap(), Duration::from_secs(5), tls).unwrap();
        transport.send(Request::post("/path").body(Full::from("{}")).unwrap()).await
    };
    let identity = Some(authority.issue_files(folder.path(), "client", &["gateway.internal"]));
    let ca = Some(folder.path().join("ca.crt"));
    let shown = send(Some(&ClientFiles { ca: ca.clone(), identity })).await.unwrap();
    assert_eq!(shown.body(), "1");
    assert_eq!(send(Some(&ClientFiles { ca, identity: None })).await.unwrap().body(), "0");
    let other = Some(Authority::new().write(folder.path(), "other.crt"));
    // Neither another authority nor the system's vouches for it, and nothing leaves before that is known.
    for tls in [Some(&ClientFiles { ca: other, identity: None }), None] {
        let refused = send(tls).await;
        assert!(matches!(&refused, Err(TransportError::NotSent(why)) if why.contains("certificate")), "{refused:?}");
    }
}
