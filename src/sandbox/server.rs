//! The simulator on a socket.
//!
//! Promises HTTP/1.1 and h2c on one listener, a connection closed without an answer where the service
//! says so, and a shutdown that lets requests end for [`GRACE`] at most. What is answered is
//! `service`'s affair.

use std::convert::Infallible;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use super::Sandbox;

/// Longest time that requests under way may take after the shutdown has begun; a hanging one, by
/// fault, would otherwise hold it up for ever.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Longest time a request head may take.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest request head, which the request list keeps.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is ready.
pub async fn serve(listener: TcpListener, sandbox: Sandbox, shutdown: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    tokio::select! {
        () = shutdown => {}
        never = accept(&listener, &sandbox, &graceful) => match never {},
    }
    // Nobody new while the old ones finish.
    drop(listener);
    // What is still open after this is dropped with the tasks' runtime.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

async fn accept(listener: &TcpListener, sandbox: &Sandbox, graceful: &GracefulShutdown) -> Infallible {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX).max_buf_size(HEAD_BYTES_MAX);
    builder.http2().timer(TokioTimer::new());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Only speed is lost where it does not work.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(sandbox.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        // An error here is a client that went away, or a reset that a fault asked for.
        tokio::spawn(async move { watched.await.is_ok() });
    }
}
