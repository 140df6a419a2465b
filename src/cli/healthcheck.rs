//! `ayova healthcheck`: asks a running gateway's admin listener whether it is ready, or only whether it lives.
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
    /// Ask only whether the process answers, as a liveness probe has to: what makes it not ready, such as a
    /// full disk, a restart would not cure
    #[arg(long)]
    pub live: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Question {
    page: &'static str,
    word: &'static str,
}

const READY: Question = Question { page: "/readyz", word: "ready" };
const LIVE: Question = Question { page: "/livez", word: "live" };

/// A line saying that the gateway is ready, or lives.
///
/// # Errors
/// Why it is or does not, or could not be asked.
pub fn ask(args: &HealthcheckArgs) -> Result<String, Failure> {
    let address = match (args.admin, &args.config) {
        (Some(address), _) => address,
        (None, Some(path)) => load(path)?.admin.address,
        (None, None) => SocketAddr::from((Ipv4Addr::LOCALHOST, 9080)),
    };
    let address = reachable(address);
    let question = if args.live { LIVE } else { READY };
    let answer = get(address, question.page, TIMEOUT)
        .map_err(|error| Failure::Failed(format!("not {}: {address} does not answer: {error}", question.word)))?;
    judge(question.word, address, &answer)
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

/// The whole answer to a `GET`, as far as it is of a sensible size.
fn get(address: SocketAddr, page: &str, timeout: Duration) -> io::Result<String> {
    let end = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    // In one piece: formatting straight into the socket would send several packets.
    let request = format!("GET {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
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
fn judge(word: &str, address: SocketAddr, answer: &str) -> Result<String, Failure> {
    if answer.is_empty() {
        let why =
            "closed the connection without an answer; has it too many connections, or does another program listen?";
        return Err(Failure::Failed(format!("not {word}: {address} {why}")));
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut status_line = head.lines().next().unwrap_or_default().split(' ');
    let (protocol, status) = (status_line.next().unwrap_or_default(), status_line.next().unwrap_or_default());
    match status {
        "200" if protocol.starts_with("HTTP/1.") => Ok(format!("{word}: {address}\n")),
        status if protocol.starts_with("HTTP/1.") => {
            let reasons = body.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(Failure::Failed(format!("not {word}: {address} answers {status} {reasons}")))
        }
        _ => Err(Failure::Failed(format!("not {word}: {address} does not speak HTTP"))),
    }
}

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const MOST_ANSWER_BYTES: usize = 64 * 1024;

const EXAMPLES: &str = "\
Exit code 0: ready, or with --live alive. 1: it is not, or does not answer within three seconds.

Examples:
  ayova healthcheck
  ayova healthcheck --admin 127.0.0.1:9080
  ayova healthcheck --live                       as a liveness probe
  HEALTHCHECK CMD [\"ayova\", \"healthcheck\"]    in a Dockerfile";

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use super::{HealthcheckArgs, ask, get, reachable};

    /// What comes of a listener that answers once with this text.
    fn check(answer: &'static str, expected: Result<&str, &str>) {
        check_asking(false, answer, expected);
    }

    fn check_asking(live: bool, answer: &'static str, expected: Result<&str, &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let verdict = ask(&HealthcheckArgs { admin: Some(address), config: None, live });
        let page = if live { "/livez" } else { "/readyz" };
        assert!(server.join().unwrap().starts_with(&format!("GET {page} HTTP/1.1\r\n")));
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
        check(
            "",
            Err("not ready: ADDR closed the connection without an answer; \
                 has it too many connections, or does another program listen?"),
        );
        check_asking(true, "HTTP/1.1 200 OK\r\n\r\n{\"live\":true}", Ok("live: ADDR\n"));
        check_asking(true, "HTTP/1.1 404 Not Found\r\n\r\n", Err("not live: ADDR answers 404 "));
    }

    #[test]
    fn nobody_and_silence_are_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The system accepts the connection; nobody ever answers.
        let error = get(address, "/readyz", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 50ms");
        drop(listener);
        let failure = ask(&HealthcheckArgs { admin: Some(address), config: None, live: false }).unwrap_err();
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
