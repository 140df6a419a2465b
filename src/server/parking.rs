//! One connection's conversation, and when hyper has to hold nothing of it.
//!
//! A connection that is only kept would hold two buffers of 8 KiB inside hyper. So hyper is there from the
//! first byte of a request until it has been answered and nothing more has come for a moment; in between the
//! connection is parked: its `wire` alone waits. Promises that no byte and no answer gets lost on the way
//! (only what is at rest is parked, and a request that comes then is still unread), that nothing is sent or
//! closed by it, and that a parked connection ends as any other without a request does.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::wire::{Pause, Protocol, Requests, Wire};

/// How a connection has ended.
pub(super) type Ended = Result<(), Box<dyn Error + Send + Sync>>;

type Connection<I, S> = http1::Connection<TokioIo<Wire<I>>, S>;

/// What is spoken, and how many connections of HTTP/1.1 hyper holds now.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    awake: AtomicUsize,
}

/// A connection that hyper holds.
struct Awake<'a>(&'a AtomicUsize);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Protocols {
    fn default() -> Self {
        let (mut http1, mut http2) = (http1::Builder::new(), http2::Builder::new(TokioExecutor::new()));
        // Heads and idle connections have their limits in `wire`.
        http1.timer(TokioTimer::new()).header_read_timeout(None).half_close(true).max_buf_size(HEAD_MAX);
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(RESETS_MAX);
        Self { http1, http2, awake: AtomicUsize::default() }
    }
}

impl Protocols {
    /// Serves what is asked on a connection until it ends, or until `over` and what is under way by then
    /// has been answered.
    pub(super) async fn converse<I, A, F, E>(
        &self,
        mut wire: Wire<I>,
        answering: A,
        over: impl Future<Output = ()>,
    ) -> Ended
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
        A: Fn(Request<Incoming>) -> F,
        F: Future<Output = Result<Response<Full<Bytes>>, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut over = pin!(over);
        loop {
            let protocol = tokio::select! {
                biased;
                begun = wire.begin() => begun?,
                () = over.as_mut() => None,
            };
            match protocol {
                None => {
                    // Whoever does not let the connection end well has it ended.
                    let _ = timeout(PARTING, wire.shutdown()).await;
                    return Ok(());
                }
                Some(Protocol::Http1) => match self.http1(wire, service_fn(&answering), over.as_mut()).await? {
                    Some(parked) => wire = parked,
                    None => return Ok(()),
                },
                Some(Protocol::Http2) => {
                    let requests = wire.requests();
                    // Boxed, as below, since the compiler would keep room for it twice.
                    let connection = self.http2.serve_connection(TokioIo::new(wire), service_fn(&answering));
                    let mut connection = Box::pin(connection);
                    tokio::select! {
                        ended = connection.as_mut() => return Ok(ended?),
                        () = over.as_mut() => {}
                        () = requests.forgotten() => {}
                        () = dismissed(&requests) => {}
                    }
                    return Ok(part(connection.as_mut(), &requests).await?);
                }
            }
        }
    }

    /// HTTP/1.1 until the connection ends, or until it is at rest and comes back.
    async fn http1<I, S>(
        &self,
        wire: Wire<I>,
        service: S,
        over: Pin<&mut impl Future<Output = ()>>,
    ) -> hyper::Result<Option<Wire<I>>>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
        S: HttpService<Incoming, ResBody = Full<Bytes>>,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let requests = wire.requests();
        self.awake.fetch_add(1, Ordering::Relaxed);
        let _awake = Awake(&self.awake);
        let mut connection = Box::pin(self.http1.serve_connection(TokioIo::new(wire), service));
        let pause = tokio::select! {
            // The connection first: whether it is at rest is known once it has looked for bytes.
            biased;
            ended = connection.as_mut() => return ended.map(|()| None),
            () = self.crowd(&requests) => Pause::Rest,
            pause = requests.pause(PARK_AFTER) => pause,
            () = over => Pause::Stuck,
        };
        match pause {
            Pause::Rest => take_apart(connection, &requests).await,
            Pause::Stuck => part(connection.as_mut(), &requests).await.map(|()| None),
        }
    }

    /// Ready where a connection is at rest and hyper holds many: what it holds at once is never given back
    /// to the system by an allocator that keeps small pieces between it.
    async fn crowd(&self, requests: &Requests) {
        poll_fn(|_| match requests.is_at_rest() && self.awake.load(Ordering::Relaxed) > AWAKE_MOST {
            true => Poll::Ready(()),
            // Asked again whenever the connection has done something.
            false => Poll::Pending,
        })
        .await;
    }
}

/// Takes a connection that is at rest out of hyper, which then is done with it at once and neither sends
/// nor closes anything.
async fn take_apart<I, S>(
    mut connection: Pin<Box<Connection<I, S>>>,
    requests: &Requests,
) -> hyper::Result<Option<Wire<I>>>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Full<Bytes>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    connection.as_mut().graceful_shutdown();
    let taking = Box::pin(Pin::into_inner(connection).without_shutdown());
    let parts = tokio::select! {
        biased;
        parts = taking => parts?,
        () = requests.quiet(PARTING) => return Ok(None),
    };
    // Of a request that is over nothing is left unless hyper and `wire` disagree where it ended.
    Ok(parts.read_buf.is_empty().then(|| parts.io.into_inner()))
}

/// Ready once no other request is wanted. Asked again whenever the connection has something to send.
async fn dismissed(requests: &Requests) {
    poll_fn(|_| if requests.is_dismissed() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Lets a connection end, and what is under way on it before.
async fn part<C: GracefulConnection>(mut connection: Pin<&mut C>, requests: &Requests) -> Result<(), C::Error> {
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        // Its farewell is sent in any case.
        biased;
        ended = connection => ended,
        () = requests.quiet(PARTING) => Ok(()),
    }
}

/// Without a request for so long, a connection is parked: longer than a client that is busy pauses, so that
/// it pays nothing.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// Connections that hyper may hold while they are at rest: some 9 MiB.
const AWAKE_MOST: usize = 512;
/// Longest head of HTTP/1.1, and how much of a body is read at once.
const HEAD_MAX: usize = 64 * 1024;
/// Largest head of HTTP/2, uncompressed.
const HEADERS_MAX: u32 = 16 * 1024;
/// Requests under way on one connection of HTTP/2.
const STREAMS_MAX: u32 = 128;
/// Streams that a client has reset before they were looked at; more end the connection.
const RESETS_MAX: usize = 20;
/// Time a connection gets to send what it owes once it is to end.
const PARTING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
