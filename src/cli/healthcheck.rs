//! `ayova healthcheck`: asks a running gateway's admin listener whether it is ready.
//!
//! Promises an answer within three seconds, for images without a shell or curl. It speaks just enough
//! HTTP for the one question, since the other side is this program; no configuration is needed.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::{Failure, load};

/// Options of `ayova healthcheck`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct HealthcheckArgs {
    /// The admin listener [default: admin.address of --config, else 127.0.0.1:9080]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Configuration file to take the address from
    #[arg(short, long, value_name = "FILE", conflicts_with = "admin")]
    pub config: Option<PathBuf>,
}

/// A line saying that the gateway is ready.
///
/// # Errors
/// Why it is not, or could not be asked.
pub fn ask(args: &HealthcheckArgs) -> Result<String, Failure> {
    let address = match (args.admin, &args.config) {
        (Some(address), _) => address,
        (None, Some(path)) => load(path)?.admin.address,
        (None, None) => SocketAddr::from((Ipv4Addr::LOCALHOST, 9080)),
    };
    let address = reachable(address);
    let answer = get_readyz(address, TIMEOUT)
        .map_err(|error| Failure::Failed(format!("not ready: {address} does not answer: {error}")))?;
    judge(address, &answer)
}

/// An address that means "every interface" is asked over loopback.
const fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The whole answer to `GET /readyz`, as far as it is of a sensible size.
fn get_readyz(address: SocketAddr, timeout: Duration) -> io::Result<String> {
    let end = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    // In one piece: formatting straight into the socket would send several packets.
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < MOST_ANSWER_BYTES {
        // A timeout of zero would mean none.
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What an answer says.
fn judge(address: SocketAddr, answer: &str) -> Result<String, Failure> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut status_line = head.lines().next().unwrap_or_default().split(' ');
    let (protocol, status) = (status_line.next().unwrap_or_default(), status_line.next().unwrap_or_default());
    match status {
        "200" if protocol.starts_with("HTTP/1.") => Ok(format!("ready: {address}\n")),
        status if protocol.starts_with("HTTP/1.") => {
            let reasons = body.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(Failure::Failed(format!("not ready: {address} answers {status} {reasons}")))
        }
        _ => Err(Failure::Failed(format!("not ready: {address} does not speak HTTP"))),
    }
}

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const MOST_ANSWER_BYTES: usize = 64 * 1024;

const EXAMPLES: &str = "\
Exit code 0: ready. 1: not ready or not reachable.

Examples:
  ayova healthcheck
  ayova healthcheck --admin 127.0.0.1:9080
  HEALTHCHECK CMD [\"ayova\", \"healthcheck\"]    in a Dockerfile";

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use super::{HealthcheckArgs, ask, get_readyz, reachable};

    /// What comes of a listener that answers once with this text.
    fn check(answer: &'static str, expected: Result<&str, &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let verdict = ask(&HealthcheckArgs { admin: Some(address), config: None });
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
        let shown = verdict.map_err(|failure| failure.to_string().replace(&address.to_string(), "ADDR"));
        let shown = shown.map(|line| line.replace(&address.to_string(), "ADDR"));
        assert_eq!(shown.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn the_answer_decides() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok("ready: ADDR\n"));
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\": false,\n \"store\": \"closed\"}",
            Err("not ready: ADDR answers 503 {\"ready\": false, \"store\": \"closed\"}"),
        );
        check("SSH-2.0-x\r\n", Err("not ready: ADDR does not speak HTTP"));
        check("", Err("not ready: ADDR does not speak HTTP"));
    }

    #[test]
    fn nobody_and_silence_are_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The system accepts the connection; nobody ever answers.
        let error = get_readyz(address, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 50ms");
        drop(listener);
        let failure = ask(&HealthcheckArgs { admin: Some(address), config: None }).unwrap_err();
        assert_eq!(failure.code(), 1);
    }

    #[test]
    fn every_interface_is_asked_over_loopback() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(reachable(address("0.0.0.0:9080")), address("127.0.0.1:9080"));
        assert_eq!(reachable(address("[::]:9080")), address("[::1]:9080"));
        assert_eq!(reachable(address("10.0.0.1:1")), address("10.0.0.1:1"));
    }
}
