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
//!
//! It also knows when nothing of a connection is left inside hyper, so that it may do without hyper until
//! the client says more (`server::parking`), and reads what a connection begins with, which says what
//! is spoken on it.

use std::future::poll_fn;
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

/// How long a connection is kept for a request; what nginx does.
pub(crate) const KEPT: Duration = Duration::from_secs(75);

/// How long a connection may be quiet.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Before anything was asked.
    pub unasked: Duration,
    /// After an answer.
    pub asked: Duration,
}

impl Default for Kept {
    fn default() -> Self {
        Self { unasked: KEPT, asked: KEPT }
    }
}

/// A connection whose bytes are looked at.
#[derive(Debug)]
pub(crate) struct Wire<I> {
    io: I,
    /// Ends the connection unless an answer is under way; absent in HTTP/2, which has streams instead.
    limit: Option<Pin<Box<Sleep>>>,
    /// Longest time a head may take.
    head_time: Duration,
    framing: Framing,
    /// Requests that are over, the present one included once it is.
    read: usize,
    /// What was read and not yet seen by hyper: how it begins, or later requests, which wait for the
    /// answer to the present one.
    held: Vec<u8>,
    requests: Requests,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What has become of a connection of HTTP/1.1 that is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It rests: hyper has nothing of it.
    Rest,
    /// Its client does not take its answer.
    Stuck,
}

/// What the bytes say of a connection's requests, and the other way round. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Requests(Arc<State>);

#[derive(Debug)]
struct State {
    born: Instant,
    kept: Kept,
    is_flawed: AtomicBool,
    is_too_slow: AtomicBool,
    /// Whether no other request is wanted.
    is_dismissed: AtomicBool,
    /// Whether all that was written has gone out.
    is_flushed: AtomicBool,
    /// Whether another connection wants its place, and who learns of it.
    is_called: AtomicBool,
    holder: AtomicWaker,
    under_way: AtomicUsize,
    answered: AtomicUsize,
    /// When the last request ended, in milliseconds from the birth.
    quiet_since: AtomicU64,
    /// Whether every request was read and answered to its last byte, and hyper waits for another.
    is_at_rest: AtomicBool,
    /// Whoever waits for an answer before another request may be read.
    reader: AtomicWaker,
}

impl Requests {
    /// Those of a connection that is made now.
    pub(crate) fn new(kept: Kept) -> Self {
        Self(Arc::new(State {
            born: Instant::now(),
            kept,
            is_flawed: AtomicBool::default(),
            is_too_slow: AtomicBool::default(),
            is_dismissed: AtomicBool::default(),
            is_flushed: AtomicBool::new(true),
            is_called: AtomicBool::default(),
            holder: AtomicWaker::new(),
            under_way: AtomicUsize::default(),
            answered: AtomicUsize::default(),
            quiet_since: AtomicU64::default(),
            is_at_rest: AtomicBool::default(),
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

    /// Whether nothing of the connection is left inside hyper.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.0.is_at_rest.load(Ordering::Relaxed)
    }

    /// No other request is wanted on this connection.
    pub(crate) fn dismiss(&self) {
        self.0.is_dismissed.store(true, Ordering::Relaxed);
    }

    /// Whether that was said; to be asked whenever an answer may have been given.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.0.is_dismissed.load(Ordering::Relaxed)
    }

    /// Wakes whoever holds the connection, since another one wants its place.
    pub(crate) fn call(&self) {
        self.0.is_called.store(true, Ordering::Release);
        self.0.holder.wake();
    }

    /// Whether it was called since this was last so; who asks is woken when it is.
    pub(crate) fn was_called(&self, context: &Context<'_>) -> bool {
        self.0.holder.register(context.waker());
        self.0.is_called.load(Ordering::Acquire) && self.0.is_called.swap(false, Ordering::AcqRel)
    }

    /// Since when nothing has been asked, unless an answer is being made or sent. Of HTTP/2 it may take a
    /// moment from the one to the other.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let since = self.quiet_since()?;
        let is_sent = self.is_unasked() || since + SENDING <= Instant::now();
        (is_sent && self.0.is_flushed.load(Ordering::Relaxed)).then_some(since)
    }

    /// Whether nothing has been answered yet.
    fn is_unasked(&self) -> bool {
        self.0.answered.load(Ordering::Relaxed) == 0
    }

    /// Waits until the connection has been without a request for longer than it may.
    pub(crate) async fn forgotten(&self) {
        loop {
            let kept = if self.is_unasked() { self.0.kept.unasked } else { self.0.kept.asked };
            let enough = self.quiet_since().unwrap_or_else(Instant::now) + kept;
            if enough <= Instant::now() {
                return;
            }
            sleep_until(enough).await;
        }
    }

    /// Waits until the connection has been at rest for so long. Looks once in that time, so that a request
    /// costs no timer.
    pub(crate) async fn pause(&self, time: Duration) -> Pause {
        let began = Instant::now();
        let mut next = began + time;
        loop {
            sleep_until(next).await;
            let now = Instant::now();
            next = match self.quiet_since() {
                Some(since) if self.is_at_rest() && since + time <= now => return Pause::Rest,
                Some(since) if since.max(began) + KEPT <= now => return Pause::Stuck,
                Some(since) if self.is_at_rest() => since + time,
                _ => now + time,
            };
        }
    }

    /// When the last request ended, unless one is under way.
    fn quiet_since(&self) -> Option<Instant> {
        let state = &self.0;
        let ended = || Duration::from_millis(state.quiet_since.load(Ordering::Relaxed));
        // What was noted of the last one is seen with its end.
        (state.under_way.load(Ordering::Acquire) == 0).then(|| state.born + ended())
    }

    /// Waits until no request has been under way for so long.
    pub(crate) async fn quiet(&self, time: Duration) {
        loop {
            let enough = self.quiet_since().unwrap_or_else(Instant::now) + time;
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
        self.0.under_way.fetch_sub(1, Ordering::Release);
        self.0.reader.wake();
    }
}

impl<I> Wire<I> {
    /// `head_time` is how long a head may take from its first byte, and how long that may take to come
    /// on a new connection at most.
    pub(crate) fn new(io: I, head_time: Duration, requests: Requests) -> Self {
        Self {
            io,
            limit: Some(Box::pin(sleep(head_time.min(requests.0.kept.unasked)))),
            head_time,
            framing: Framing::default(),
            read: 0,
            held: Vec::new(),
            requests,
        }
    }

    /// What is found out about requests.
    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Waits for bytes and says what they are part of; nothing where the client has left, or its time is
    /// over. All that is held of a connection until then is this wire.
    pub(crate) async fn begin(&mut self) -> io::Result<Option<Protocol>>
    where
        I: AsyncRead + Unpin,
    {
        poll_fn(|context| self.poll_begin(context)).await
    }

    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Protocol>>>
    where
        I: AsyncRead + Unpin,
    {
        loop {
            let mut bytes = [0; PREFACE.len()];
            let room = bytes.get_mut(self.held.len()..).unwrap_or_default();
            let mut buffer = ReadBuf::new(room);
            match Pin::new(&mut self.io).poll_read(context, &mut buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => return self.poll_limit(context).map(|()| Ok(None)),
            }
            self.note_rest(false);
            let is_first = self.held.is_empty();
            match buffer.filled() {
                // hyper answers what is only a part.
                [] => return Poll::Ready(Ok((!is_first).then_some(Protocol::Http1))),
                new => self.held.extend_from_slice(new),
            }
            if is_first {
                self.limit_to(self.head_time);
            }
            // What has spoken HTTP/1.1 goes on to.
            if self.read > 0 || !PREFACE.starts_with(&self.held) {
                return Poll::Ready(Ok(Some(Protocol::Http1)));
            }
            if self.held.len() == PREFACE.len() {
                self.limit = None;
                return Poll::Ready(Ok(Some(Protocol::Http2)));
            }
        }
    }

    /// Looks at bytes that have come; says how many of them may be seen now.
    fn look_at(&mut self, bytes: &[u8]) -> usize {
        // HTTP/2 has frames.
        if self.limit.is_none() { bytes.len() } else { self.frame(bytes) }
    }

    /// Goes on with the present request, or with the next one if this one has been answered.
    fn frame(&mut self, bytes: &[u8]) -> usize {
        let (mut taken, was_in_head) = (0, self.framing.is_in_head());
        loop {
            if self.framing.is_over() {
                if !self.is_answered() {
                    break;
                }
                self.framing = Framing::default();
                self.requests.0.is_flawed.store(false, Ordering::Relaxed);
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            taken += self.framing.read(rest);
            if self.framing.is_flawed() {
                self.requests.0.is_flawed.store(true, Ordering::Relaxed);
            }
            self.read += usize::from(self.framing.is_over());
        }
        // A head that came whole needs no limit; the first one's began with its first byte.
        if !was_in_head && self.framing.is_in_head() && self.read > 0 {
            self.limit_to(self.head_time);
        }
        taken
    }

    /// Whether every request that is over has been answered.
    fn is_answered(&self) -> bool {
        self.requests.0.answered.load(Ordering::Relaxed) >= self.read
    }

    /// An answer begins: what comes next is another head.
    fn expect_head(&mut self, answer: &[u8]) {
        self.requests.0.is_flushed.store(false, Ordering::Relaxed);
        self.note_rest(false);
        if self.limit.is_some() && !answer.starts_with(b"HTTP/1.1 100 ") {
            self.limit_to(self.requests.0.kept.asked);
        }
    }

    fn limit_to(&mut self, time: Duration) {
        if let Some(limit) = &mut self.limit {
            limit.as_mut().reset(Instant::now() + time);
        }
    }

    /// Ready once the client has taken too long.
    fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_flushed = self.is_flushed();
        let Some(limit) = &mut self.limit else { return Poll::Pending };
        // Once it is answered the limit is set anew, and hyper reads again. An answer that is not taken ends
        // as `Pause::Stuck`.
        let is_answering = self.requests.0.under_way.load(Ordering::Relaxed) > 0 || !is_flushed;
        if is_answering || limit.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let is_begun = self.framing.is_in_head() || !self.held.is_empty();
        self.requests.0.is_too_slow.store(is_begun, Ordering::Relaxed);
        Poll::Ready(())
    }

    /// The same as an error, since the client's silence ends the connection.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let too_long = || io::Error::new(io::ErrorKind::TimedOut, "the client took too long");
        self.poll_limit(context).map(|()| Err(too_long()))
    }

    fn is_flushed(&self) -> bool {
        self.requests.0.is_flushed.load(Ordering::Relaxed)
    }

    /// Notes whether hyper has nothing of the connection: asked where it waits for bytes.
    fn note_rest(&self, is_waiting: bool) {
        let is_at_rest = is_waiting && self.is_flushed() && self.framing.is_over() && self.is_answered();
        self.requests.0.is_at_rest.store(is_at_rest, Ordering::Relaxed);
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

/// How long after a request's end its answer is on its way to the client at the latest, where that is not
/// known otherwise.
const SENDING: Duration = Duration::from_millis(10);

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.note_rest(false);
        if self.framing.is_over() && !self.is_answered() {
            self.requests.0.reader.register(context.waker());
            // It may have been answered in between.
            if !self.is_answered() {
                return self.poll_silence(context);
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
            Poll::Pending => {
                self.note_rest(true);
                self.poll_silence(context)
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.expect_head(bytes);
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.requests.0.is_flushed.store(true, Ordering::Relaxed);
        }
        flushed
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
        let mut wire = Wire::new(server, Duration::from_secs(5), Requests::new(Kept::default()));
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
            let mut wire = Wire::new(server, Duration::from_secs(5), Requests::new(Kept::default()));
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
        let mut wire = Wire::new(server, Duration::from_secs(5), Requests::new(Kept::default()));
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
            let mut wire = Wire::new(server, HEAD_TIME, Requests::new(Kept::default()));
            let began = Instant::now();
            client.write_all(said.as_bytes()).await.unwrap();
            let mut buffer = vec![0; said.len() + 1];
            let reading = async {
                if wire.begin().await.unwrap().is_some() {
                    wire.read_exact(&mut buffer).await.unwrap_err();
                }
            };
            let _ = tokio::time::timeout(2 * KEPT, reading).await;
            let waited = began.elapsed();
            assert!(waited >= expected && waited < expected + Duration::from_secs(1), "{said:?}: {waited:?}");
            assert_eq!(wire.requests().is_too_slow(), !said.is_empty() && expected == HEAD_TIME, "{said:?}");
        }
    }

    /// Whatever pieces it comes in, and once it is HTTP/1.1 it stays so.
    #[tokio::test]
    async fn what_is_spoken_is_known_by_the_first_bytes_which_are_read_again() {
        let preface = std::str::from_utf8(PREFACE).unwrap();
        for (said, expected) in
            [(preface, Protocol::Http2), ("PRI * HTTP/2.0\r\nHost: a\r\n\r\n", Protocol::Http1), (GET, Protocol::Http1)]
        {
            for size in [1, 3, 100] {
                let (mut client, server) = duplex(1024);
                let mut wire = Wire::new(server, HEAD_TIME, Requests::new(Kept::default()));
                let writing = tokio::spawn(async move {
                    for piece in said.as_bytes().chunks(size) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                });
                assert_eq!(wire.begin().await.unwrap(), Some(expected), "{said:?} by {size}");
                let mut seen = vec![0; said.len()];
                wire.read_exact(&mut seen).await.unwrap();
                assert_eq!(std::str::from_utf8(&seen).unwrap(), said);
                writing.await.unwrap();
            }
        }
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, HEAD_TIME, Requests::new(Kept::default()));
        client.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(wire.begin().await.unwrap(), Some(Protocol::Http1));
        wire.read_exact(&mut [0; GET.len()]).await.unwrap();
        drop(wire.requests().begin());
        client.write_all(PREFACE).await.unwrap();
        assert_eq!(wire.begin().await.unwrap(), Some(Protocol::Http1));
    }

    /// What is at rest may be taken from hyper: not before all was read, answered and sent.
    #[tokio::test]
    async fn it_rests_when_all_has_been_answered_and_sent() {
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, HEAD_TIME, Requests::new(Kept::default()));
        let requests = wire.requests();
        let mut buffer = [0; 1024];
        let mut look = async |wire: &mut Wire<_>| {
            let _ = tokio::time::timeout(Duration::from_millis(1), wire.read(&mut buffer)).await;
            requests.is_at_rest()
        };
        assert!(!look(&mut wire).await, "nothing was asked");
        client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na").await.unwrap();
        assert!(!look(&mut wire).await && !look(&mut wire).await, "half a body");
        client.write_all(b"b").await.unwrap();
        assert!(!look(&mut wire).await);
        let answering = requests.begin();
        assert!(!look(&mut wire).await, "not answered");
        drop(answering);
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(!look(&mut wire).await, "not sent");
        wire.flush().await.unwrap();
        assert!(look(&mut wire).await);
        client.write_all(b"\r\n").await.unwrap();
        assert!(!look(&mut wire).await && !look(&mut wire).await, "another one may have begun");
    }

    #[tokio::test(start_paused = true)]
    async fn blank_lines_win_no_time() {
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, HEAD_TIME, Requests::new(Kept::default()));
        let began = Instant::now();
        tokio::spawn(async move {
            while client.write_all(b"\r\n").await.is_ok() {
                sleep(HEAD_TIME / 2).await;
            }
        });
        let mut read = Vec::new();
        assert_eq!(wire.begin().await.unwrap(), Some(Protocol::Http1));
        assert_eq!(wire.read_to_end(&mut read).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= HEAD_TIME, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_be_kept_for_less() {
        let kept = Kept { unasked: Duration::from_secs(1), asked: Duration::from_secs(3) };
        let (mut client, server) = duplex(1024);
        let mut wire = Wire::new(server, HEAD_TIME, Requests::new(kept));
        let requests = wire.requests();
        let began = Instant::now();
        assert_eq!(wire.begin().await.unwrap(), None);
        requests.forgotten().await;
        assert_eq!(began.elapsed().as_secs(), 1);
        drop(requests.begin());
        requests.forgotten().await;
        assert_eq!(began.elapsed().as_secs(), 4);
        let answering = requests.begin();
        assert!(patience(&mut wire, &mut client, GET).await >= FOR_EVER);
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(answering);
        assert!(requests.idle_since().is_none() && patience(&mut wire, &mut client, "").await >= FOR_EVER);
        wire.write_all(b"more").await.unwrap();
        wire.flush().await.unwrap();
        assert_eq!(patience(&mut wire, &mut client, "").await.as_secs(), 3);
        assert!(requests.idle_since().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_no_limit_and_what_follows_has_its_own() {
        let head = "POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n";
        for (said, expected) in [("", KEPT), ("GE", HEAD_TIME)] {
            let (mut client, server) = duplex(1024);
            let mut wire = Wire::new(server, HEAD_TIME, Requests::new(Kept::default()));
            let answering = wire.requests().begin();
            assert!(patience(&mut wire, &mut client, head).await >= FOR_EVER);
            wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            wire.flush().await.unwrap();
            assert!(patience(&mut wire, &mut client, "a body").await >= FOR_EVER);
            wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            wire.flush().await.unwrap();
            drop(answering);
            let waited = patience(&mut wire, &mut client, said).await;
            assert!(waited >= expected && waited < expected + Duration::from_secs(1), "{said:?}: {waited:?}");
        }
    }
}
