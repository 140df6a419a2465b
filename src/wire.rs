//! What hyper leaves unchecked of a connection's bytes, checked as they pass.
//!
//! Three things. A client that connects and says nothing, or only a part of HTTP/2's preface, would
//! hold its connection for ever: hyper's own limit begins once the protocol is known. That limit also
//! cannot tell a slow head from a connection that is kept for the next request, and closing the latter
//! after seconds makes pooled clients fail; here they have a limit each. And a head with both
//! `Content-Length` and `Transfer-Encoding` is read by the latter, while contract section 9 wants it
//! refused. Every byte goes through unchanged; what is answered is `server`'s affair.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a connection is kept for another request; what nginx does.
pub(crate) const KEPT: Duration = Duration::from_secs(75);

/// A connection whose bytes are looked at.
#[derive(Debug)]
pub(crate) struct Wire<I> {
    io: I,
    /// Ends the connection unless an answer is under way; absent in HTTP/2, which has streams instead.
    limit: Option<Pin<Box<Sleep>>>,
    /// Longest time a head may take.
    head_time: Duration,
    /// Bytes so far, where all of them are the preface's.
    preface: Option<usize>,
    head: Head,
    requests: Requests,
}

/// What the bytes say of a connection's requests, and the other way round. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_contradictory: AtomicBool,
    under_way: AtomicUsize,
}

impl Requests {
    /// Whether the head that was read last frames its body in two ways; asked when a request begins.
    /// A head that was sent before the answer to the one before it (pipelining) is not looked at;
    /// hyper then reads it by its `Transfer-Encoding` and closes the connection, which is safe as well.
    pub(crate) fn is_contradictory(&self) -> bool {
        self.0.is_contradictory.load(Ordering::Relaxed)
    }

    /// While the guard lives a request is being answered, and the connection has no limit here.
    pub(crate) fn begin(&self) -> UnderWay {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.0))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<State>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<I> Wire<I> {
    /// `head_time` is how long a head may take from its first byte, and how long that may take to come
    /// on a new connection.
    pub(crate) fn new(io: I, head_time: Duration) -> Self {
        let limit = Some(Box::pin(sleep(head_time)));
        Self { io, limit, head_time, preface: Some(0), head: Head::default(), requests: Requests::default() }
    }

    /// What is found out about requests.
    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    fn look_at(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.limit.is_none() {
            return;
        }
        if let Some(seen) = self.preface {
            let expected = PREFACE.get(seen..).unwrap_or_default();
            let is_more = bytes.iter().zip(expected).all(|(byte, expected)| byte == expected);
            self.preface = is_more.then_some(seen + bytes.len());
            if is_more && seen + bytes.len() >= PREFACE.len() {
                self.limit = None;
                return;
            }
        }
        if !self.head.has_bytes {
            self.limit_to(self.head_time);
        }
        if self.head.read(bytes) {
            self.requests.0.is_contradictory.store(true, Ordering::Relaxed);
        }
    }

    /// An answer begins: what comes next is another head.
    fn expect_head(&mut self, answer: &[u8]) {
        if self.limit.is_none() || answer.starts_with(b"HTTP/1.1 100 ") {
            return;
        }
        self.limit_to(KEPT);
        if self.head.is_over {
            self.head = Head::default();
            self.requests.0.is_contradictory.store(false, Ordering::Relaxed);
        }
    }

    fn limit_to(&mut self, time: Duration) {
        if let Some(limit) = &mut self.limit {
            limit.as_mut().reset(Instant::now() + time);
        }
    }

    fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.limit {
            // Once it is answered the limit is set anew, and hyper reads again.
            Some(limit) if self.requests.0.under_way.load(Ordering::Relaxed) == 0 => limit.as_mut().poll(context),
            Some(_) | None => Poll::Pending,
        }
    }
}

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One head of HTTP/1.1, line by line.
#[derive(Debug, Default)]
struct Head {
    /// The beginning of the present line, as far as a name can be told by it.
    line: Vec<u8>,
    /// Whether anything was read, if only blank lines.
    has_bytes: bool,
    /// Whether a line was read; blank ones before the first do not count.
    is_begun: bool,
    is_over: bool,
    has_length: bool,
    has_encoding: bool,
}

impl Head {
    /// Whether the head is over and has both headers.
    fn read(&mut self, bytes: &[u8]) -> bool {
        self.has_bytes |= !bytes.is_empty();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_over {
                break;
            }
            let room = ENCODING.len().saturating_sub(self.line.len()).min(piece.len());
            self.line.extend_from_slice(piece.get(..room).unwrap_or_default());
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
        self.is_over && self.has_length && self.has_encoding
    }

    fn end_line(&mut self) {
        let is = |name: &[u8]| self.line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        self.has_length |= is(LENGTH);
        self.has_encoding |= is(ENCODING);
        let is_blank = matches!(self.line.as_slice(), b"\n" | b"\r\n");
        self.is_over = is_blank && self.is_begun;
        self.is_begun |= !is_blank;
        self.line.clear();
    }
}

const LENGTH: &[u8] = b"content-length:";
/// The longer one, which bounds what is kept of a line.
const ENCODING: &[u8] = b"transfer-encoding:";

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let new = buffer.filled().get(before..).unwrap_or_default();
                self.look_at(new);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self
                .poll_limit(context)
                .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client took too long"))),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.expect_head(bytes);
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.expect_head(pieces.first().map(|piece| &**piece).unwrap_or_default());
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    /// Whether a head is found contradictory, however it is cut into pieces.
    fn check(head: &str, expected: bool) {
        for size in [1, 3, 7, head.len()] {
            let mut reader = Head::default();
            let found = head.as_bytes().chunks(size).fold(false, |_, piece| reader.read(piece));
            assert_eq!(found, expected, "in pieces of {size}: {head}");
        }
    }

    #[test]
    fn both_framings_are_found_in_any_order_and_spelling() {
        check("POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nTRANSFER-ENCODING:chunked\r\nA: b\r\ncontent-length:2\r\n\r\n", true);
        check("\r\nPOST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 2\n\n", true);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n", true);
    }

    #[test]
    fn one_framing_and_what_only_looks_like_another_pass() {
        check("POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nx\r\nTransfer-Encoding: chunked\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Content-Length: 2\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Lengths: 2\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n", false);
    }

    #[tokio::test]
    async fn a_connection_is_looked_at_again_after_each_answer() {
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, Duration::from_secs(5));
        let requests = wire.requests();
        let mut buffer = [0; 1024];
        let both = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n";
        for (head, expected) in [("GET / HTTP/1.1\r\n\r\n", false), (both, true), ("GET / HTTP/1.1\r\n\r\n", false)] {
            client.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(wire.read(&mut buffer).await.unwrap(), head.len());
            assert_eq!(requests.is_contradictory(), expected, "{head}");
            wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        }
    }

    /// How long a wire waits for more than it was told, which never comes.
    async fn patience(
        wire: &mut Wire<tokio::io::DuplexStream>,
        client: &mut tokio::io::DuplexStream,
        said: &str,
    ) -> Duration {
        let began = Instant::now();
        client.write_all(said.as_bytes()).await.unwrap();
        let mut buffer = vec![0; said.len() + 1];
        let reading = tokio::time::timeout(2 * KEPT, wire.read_exact(&mut buffer)).await;
        assert!(reading.is_err() || reading.unwrap().unwrap_err().kind() == io::ErrorKind::TimedOut);
        began.elapsed()
    }

    const HEAD_TIME: Duration = Duration::from_secs(5);
    const FOR_EVER: Duration = Duration::from_secs(150);

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_whatever_it_begins_with() {
        for (said, expected) in [
            ("", HEAD_TIME),
            ("PRI * HT", HEAD_TIME),
            ("PRI * HTTP/1.1", HEAD_TIME),
            ("POST", HEAD_TIME),
            ("POST / HTTP/1.1\r\nA: b\r\n", HEAD_TIME),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and frames", FOR_EVER),
        ] {
            let (mut client, server) = duplex(1024);
            let mut wire = Wire::new(server, HEAD_TIME);
            let waited = patience(&mut wire, &mut client, said).await;
            assert!(waited >= expected && waited < expected + Duration::from_secs(1), "{said:?}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn blank_lines_win_no_time() {
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, HEAD_TIME);
        let began = Instant::now();
        tokio::spawn(async move {
            while client.write_all(b"\r\n").await.is_ok() {
                sleep(HEAD_TIME / 2).await;
            }
        });
        let mut read = Vec::new();
        assert_eq!(wire.read_to_end(&mut read).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= HEAD_TIME, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_no_limit_and_what_follows_has_its_own() {
        let head = "GET / HTTP/1.1\r\n\r\n";
        for (said, expected) in [("", KEPT), ("GE", HEAD_TIME)] {
            let (mut client, server) = duplex(1024);
            let mut wire = Wire::new(server, HEAD_TIME);
            let answering = wire.requests().begin();
            assert!(patience(&mut wire, &mut client, head).await >= FOR_EVER);
            wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            assert!(patience(&mut wire, &mut client, "a body").await >= FOR_EVER);
            wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            drop(answering);
            let waited = patience(&mut wire, &mut client, said).await;
            assert!(waited >= expected && waited < expected + Duration::from_secs(1), "{said:?}: {waited:?}");
        }
    }
}
