//! What hyper leaves unchecked of a connection's bytes, checked as they pass.
//!
//! Two things. A client that connects and says nothing, or only a part of HTTP/2's preface, would hold
//! its connection for ever: hyper's own limit begins once the protocol is known. And a head with both
//! `Content-Length` and `Transfer-Encoding` is read by the latter, while contract section 9 wants it
//! refused. Every byte goes through unchanged; what is answered is `server`'s affair.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection whose bytes are looked at.
#[derive(Debug)]
pub(crate) struct Wire<I> {
    io: I,
    silence: Option<Silence>,
    head: Head,
    framing: Framing,
}

/// Whether the head that was read last frames its body in two ways. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Framing(Arc<AtomicBool>);

impl Framing {
    /// Asked when a request begins. A head that was sent before the answer to the one before it
    /// (pipelining) is not looked at; hyper then reads it by its `Transfer-Encoding` and closes the
    /// connection, which is safe as well.
    pub(crate) fn is_contradictory(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<I> Wire<I> {
    /// `first_bytes` is how long the client may take to show which protocol it speaks.
    pub(crate) fn new(io: I, first_bytes: Duration) -> Self {
        let silence = Some(Silence { over: Box::pin(sleep(first_bytes)), seen: 0 });
        Self { io, silence, head: Head::default(), framing: Framing::default() }
    }

    /// What is found out about heads.
    pub(crate) fn framing(&self) -> Framing {
        self.framing.clone()
    }

    fn look_at(&mut self, bytes: &[u8]) {
        if let Some(silence) = &mut self.silence
            && silence.is_broken_by(bytes)
        {
            self.silence = None;
        }
        if self.head.read(bytes) {
            self.framing.0.store(true, Ordering::Relaxed);
        }
    }

    /// An answer begins: what comes next is another head.
    fn expect_head(&mut self) {
        if self.head.is_over {
            self.head = Head::default();
            self.framing.0.store(false, Ordering::Relaxed);
        }
    }
}

/// The time before a client has shown which protocol it speaks.
#[derive(Debug)]
struct Silence {
    over: Pin<Box<Sleep>>,
    /// Bytes so far, all of them the preface's.
    seen: usize,
}

impl Silence {
    fn is_broken_by(&mut self, bytes: &[u8]) -> bool {
        let expected = PREFACE.get(self.seen..).unwrap_or_default();
        self.seen += bytes.len();
        self.seen >= PREFACE.len() || !expected.starts_with(bytes)
    }
}

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One head of HTTP/1.1, line by line.
#[derive(Debug, Default)]
struct Head {
    /// The beginning of the present line, as far as a name can be told by it.
    line: Vec<u8>,
    /// Whether a line was read; blank ones before the first do not count.
    is_begun: bool,
    is_over: bool,
    has_length: bool,
    has_encoding: bool,
}

impl Head {
    /// Whether the head is over and has both headers.
    fn read(&mut self, bytes: &[u8]) -> bool {
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
            Poll::Pending => match self.silence.as_mut().map(|silence| silence.over.as_mut().poll(context)) {
                Some(Poll::Ready(())) => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client said nothing")))
                }
                Some(Poll::Pending) | None => Poll::Pending,
            },
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.expect_head();
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
        self.expect_head();
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
        let framing = wire.framing();
        let mut buffer = [0; 1024];
        let both = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n";
        for (head, expected) in [("GET / HTTP/1.1\r\n\r\n", false), (both, true), ("GET / HTTP/1.1\r\n\r\n", false)] {
            client.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(wire.read(&mut buffer).await.unwrap(), head.len());
            assert_eq!(framing.is_contradictory(), expected, "{head}");
            wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_and_speech_ends_the_wait() {
        let limit = Duration::from_secs(5);
        for (said, is_cut_off) in [("", true), ("PRI * HT", true), ("POST", false), ("PRI * HTTP/1.1", false)] {
            let (mut client, server) = duplex(1024);
            let mut wire = Wire::new(server, limit);
            let began = Instant::now();
            client.write_all(said.as_bytes()).await.unwrap();
            let mut buffer = vec![0; said.len() + 1];
            let reading = tokio::time::timeout(2 * limit, wire.read_exact(&mut buffer)).await;
            assert_eq!(reading.is_ok(), is_cut_off, "{said}");
            assert_eq!(began.elapsed() < 2 * limit, is_cut_off, "{said}");
        }
    }
}
