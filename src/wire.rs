//! What hyper leaves unchecked of a connection's bytes, checked as they pass.
//!
//! Four things. A client that connects and says nothing, or only a part of HTTP/2's preface, would
//! hold its connection for ever: hyper's own limit begins once the protocol is known. That limit also
//! cannot tell a slow head from a connection that is kept for the next request, and closing the latter
//! after seconds makes pooled clients fail; here they have a limit each. A head that leaves a doubt
//! (`framing` says which do) is found, since hyper picks one meaning where contract section 9 wants a
//! refusal. And a request that was sent before the one ahead of it is answered (pipelining) waits here,
//! so that what is found out about a head is about the request hyper is reading. Every byte goes through
//! unchanged and in order; what is answered is `server`'s affair.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::framing::Framing;

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
    framing: Framing,
    /// Requests that are over, the present one included once it is.
    read: usize,
    /// What was read of later requests; it waits for the answer to the present one.
    held: Vec<u8>,
    requests: Requests,
}

/// What the bytes say of a connection's requests, and the other way round. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Requests(Arc<State>);

#[derive(Debug)]
struct State {
    born: Instant,
    is_flawed: AtomicBool,
    is_too_slow: AtomicBool,
    under_way: AtomicUsize,
    answered: AtomicUsize,
    /// When the last request ended, in milliseconds from the birth.
    quiet_since: AtomicU64,
    /// Whoever waits for an answer before another request may be read.
    reader: AtomicWaker,
}

impl Requests {
    fn new() -> Self {
        Self(Arc::new(State {
            born: Instant::now(),
            is_flawed: AtomicBool::default(),
            is_too_slow: AtomicBool::default(),
            under_way: AtomicUsize::default(),
            answered: AtomicUsize::default(),
            quiet_since: AtomicU64::default(),
            reader: AtomicWaker::new(),
        }))
    }

    /// Whether the head that was read last leaves a doubt; asked when a request begins.
    pub(crate) fn is_flawed(&self) -> bool {
        self.0.is_flawed.load(Ordering::Relaxed)
    }

    /// Whether the connection was ended for a head that took too long.
    pub(crate) fn is_too_slow(&self) -> bool {
        self.0.is_too_slow.load(Ordering::Relaxed)
    }

    /// While the guard lives a request is being answered, and the connection has no limit here.
    pub(crate) fn begin(&self) -> UnderWay {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.0))
    }

    /// Waits until no request has been under way for so long.
    pub(crate) async fn quiet(&self, time: Duration) {
        loop {
            let state = &self.0;
            let ended = Duration::from_millis(state.quiet_since.load(Ordering::Relaxed));
            let enough = match state.under_way.load(Ordering::Relaxed) {
                0 => state.born + ended + time,
                _ => Instant::now() + time,
            };
            if enough <= Instant::now() {
                return;
            }
            sleep_until(enough).await;
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<State>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let age = u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.quiet_since.store(age, Ordering::Relaxed);
        self.0.answered.fetch_add(1, Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.reader.wake();
    }
}

impl<I> Wire<I> {
    /// `head_time` is how long a head may take from its first byte, and how long that may take to come
    /// on a new connection.
    pub(crate) fn new(io: I, head_time: Duration) -> Self {
        Self {
            io,
            limit: Some(Box::pin(sleep(head_time))),
            head_time,
            preface: Some(0),
            framing: Framing::default(),
            read: 0,
            held: Vec::new(),
            requests: Requests::new(),
        }
    }

    /// What is found out about requests.
    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Looks at bytes that have come; says how many of them may be seen now.
    fn look_at(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() || self.limit.is_none() {
            return bytes.len();
        }
        if let Some(seen) = self.preface {
            let expected = PREFACE.get(seen..).unwrap_or_default();
            let is_more = bytes.iter().zip(expected).all(|(byte, expected)| byte == expected);
            if is_more && seen + bytes.len() >= PREFACE.len() {
                self.limit = None;
                return bytes.len();
            }
            if seen == 0 {
                self.limit_to(self.head_time);
            }
            self.preface = is_more.then_some(seen + bytes.len());
            if is_more {
                return bytes.len();
            }
            // It is another protocol after all, whose first bytes have been seen.
            self.frame(PREFACE.get(..seen).unwrap_or_default());
        }
        self.frame(bytes)
    }

    /// Goes on with the present request, or with the next one if this one has been answered.
    fn frame(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            if self.framing.is_over() {
                if !self.is_answered() {
                    return taken;
                }
                self.framing = Framing::default();
                self.requests.0.is_flawed.store(false, Ordering::Relaxed);
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return taken;
            }
            let was_in_head = self.framing.is_in_head();
            taken += self.framing.read(rest);
            if !was_in_head && self.framing.is_in_head() && self.read > 0 {
                self.limit_to(self.head_time);
            }
            if self.framing.is_flawed() {
                self.requests.0.is_flawed.store(true, Ordering::Relaxed);
            }
            self.read += usize::from(self.framing.is_over());
        }
    }

    /// Whether every request that is over has been answered.
    fn is_answered(&self) -> bool {
        self.requests.0.answered.load(Ordering::Relaxed) >= self.read
    }

    /// An answer begins: what comes next is another head.
    fn expect_head(&mut self, answer: &[u8]) {
        if self.limit.is_some() && !answer.starts_with(b"HTTP/1.1 100 ") {
            self.limit_to(KEPT);
        }
    }

    fn limit_to(&mut self, time: Duration) {
        if let Some(limit) = &mut self.limit {
            limit.as_mut().reset(Instant::now() + time);
        }
    }

    fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(limit) = &mut self.limit else { return Poll::Pending };
        // Once it is answered the limit is set anew, and hyper reads again.
        if self.requests.0.under_way.load(Ordering::Relaxed) > 0 || limit.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let is_begun = self.framing.is_in_head() || self.preface.is_some_and(|seen| seen > 0);
        self.requests.0.is_too_slow.store(is_begun, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client took too long")))
    }

    /// Hands over what has waited, as far as it may be seen and there is room.
    fn release(&mut self, buffer: &mut ReadBuf<'_>) {
        let held = std::mem::take(&mut self.held);
        let room = held.len().min(buffer.remaining());
        let count = self.look_at(held.get(..room).unwrap_or_default());
        buffer.put_slice(held.get(..count).unwrap_or_default());
        self.held = held.get(count..).unwrap_or_default().to_vec();
    }
}

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.framing.is_over() && !self.is_answered() {
            self.requests.0.reader.register(context.waker());
            // It may have been answered in between.
            if !self.is_answered() {
                return self.poll_limit(context);
            }
        }
        let before = buffer.filled().len();
        if !self.held.is_empty() {
            self.release(buffer);
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let new = buffer.filled().get(before..).unwrap_or_default();
                let count = self.look_at(new);
                self.held = new.get(count..).unwrap_or_default().to_vec();
                buffer.set_filled(before + count);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_limit(context),
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

    const BOTH: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n";
    const GET: &str = "GET / HTTP/1.1\r\n\r\n";

    #[tokio::test]
    async fn a_connection_is_looked_at_again_after_each_answer() {
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, Duration::from_secs(5));
        let requests = wire.requests();
        let mut buffer = [0; 1024];
        for (head, expected) in [(GET, false), (GET, false), (BOTH, true)] {
            client.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(wire.read(&mut buffer).await.unwrap(), head.len());
            assert_eq!(requests.is_flawed(), expected, "{head}");
            let answering = requests.begin();
            wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            drop(answering);
        }
    }

    /// Sent at once, seen one by one, however small the reader's buffer is.
    #[tokio::test]
    async fn a_request_waits_for_the_answer_to_the_one_before_it() {
        let post = "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
        for size in [1, 5, 1024] {
            let (mut client, server) = duplex(1024);
            let mut wire = Wire::new(server, Duration::from_secs(5));
            let requests = wire.requests();
            client.write_all([GET, post, GET, BOTH].concat().as_bytes()).await.unwrap();
            for (request, is_flawed) in [(GET, false), (post, false), (GET, false), (BOTH, true)] {
                let mut seen = Vec::new();
                while seen.len() < request.len() {
                    let mut buffer = vec![0; size];
                    let count = wire.read(&mut buffer).await.unwrap();
                    seen.extend_from_slice(&buffer[..count]);
                }
                assert_eq!((std::str::from_utf8(&seen).unwrap(), requests.is_flawed()), (request, is_flawed));
                let answering = requests.begin();
                if !is_flawed {
                    let more = tokio::time::timeout(Duration::from_millis(1), wire.read_u8()).await;
                    assert!(more.is_err(), "more than {request:?} was seen");
                }
                drop(answering);
            }
        }
    }

    #[tokio::test]
    async fn an_answer_wakes_whoever_waits_for_the_next_request() {
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, Duration::from_secs(5));
        client.write_all([GET, GET].concat().as_bytes()).await.unwrap();
        wire.read_exact(&mut [0; GET.len()]).await.unwrap();
        let answering = wire.requests().begin();
        let reading = tokio::spawn(async move { wire.read_exact(&mut [0; GET.len()]).await });
        tokio::task::yield_now().await;
        drop(answering);
        reading.await.unwrap().unwrap();
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
        let head = "POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n";
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
