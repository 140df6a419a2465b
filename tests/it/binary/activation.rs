//! Sockets that are handed over as systemd does it, by a parent that opens one and keeps it open.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ayova::tls::{ClientFiles, client_config};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use super::{Gateway, Lines, Running, Sandbox, answer, ask, create, patiently, signal, until};
use crate::certificates::{Authority, LOCAL};

/// Opens a socket and starts the command with it, again when it has ended.
const PARENT: &str = r#"
import ctypes, os, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
for turn in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        # Ends with its parent (PR_SET_PDEATHSIG), however the test ends.
        ctypes.CDLL(None).prctl(1, 9)
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ["LISTEN_FDS"] = "1"
        os.environ["LISTEN_PID"] = sys.argv[1] if sys.argv[1] != "own" else str(os.getpid())
        os.execv(sys.argv[3], sys.argv[3:])
    print("child", child, listener.getsockname()[1], flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        sys.exit(code)
"#;

/// The gateway started by the parent, twice.
fn start(process: &str, config: &str) -> Running {
    start_often(process, 2, config)
}

/// The same, as often as said; `process` is what `LISTEN_PID` says.
fn start_often(process: &str, turns: u64, config: &str) -> Running {
    let mut command = Command::new("python3");
    command.args(["-c", PARENT, process, &turns.to_string(), env!("CARGO_BIN_EXE_ayova"), "run", "--config", config]);
    command.kill_on_drop(true).stdin(Stdio::null());
    Running::spawn(command)
}

/// Process and port of the child that is started in this turn.
async fn child(out: &Lines, turn: usize) -> (u32, String) {
    let waiting = async {
        loop {
            if let Some(line) = out.all().get(turn) {
                return line.clone();
            }
            tokio::time::sleep(super::LOOK_AGAIN).await;
        }
    };
    let line = patiently("a child", waiting).await;
    let mut words = line.split(' ').skip(1);
    (words.next().unwrap().parse().unwrap(), format!("127.0.0.1:{}", words.next().unwrap()))
}

#[tokio::test]
async fn a_socket_outlives_the_process_that_serves_it() {
    let sandbox = Sandbox::start().await;
    let (config, _folder) = Gateway::configured(&format!("http://{}", sandbox.address), "", "");
    let mut parent = start("own", &config);
    let (first, address) = child(&parent.out, 0).await;
    let ready: Value = serde_json::from_str(&parent.err.line_with("\"ready\"").await).unwrap();
    assert_eq!(ready["listen"], address.as_str());
    assert_eq!(ask(&address, &create("order-1")).await.header("ayova-source"), Some("upstream"));
    signal("TERM", first).await;
    let (second, _) = child(&parent.out, 1).await;
    // Whether or not it is up: who connects meanwhile waits, and is not refused.
    assert_eq!(ask(&address, &create("order-1")).await.header("ayova-source"), Some("replay"));
    signal("TERM", second).await;
    assert!(parent.end().await.success());
}

/// A client that only ever tries again when its connection is refused sees nothing of restarts. (Without a
/// parent that keeps the socket open, a connection that is being made at the very moment the listener
/// closes is reset by the system.)
#[tokio::test]
async fn restarts_under_load_are_seen_by_nobody() {
    restarts_are_seen_by_nobody("", None).await;
}

/// Handshakes that are under way when the listener departs are ended, and their requests answered.
#[tokio::test]
async fn restarts_under_load_are_seen_by_nobody_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, client) = over_tls(folder.path());
    restarts_are_seen_by_nobody(&tls, Some(client)).await;
}

/// What `listen` says, and who believes it.
pub(super) fn over_tls(folder: &Path) -> (String, TlsConnector) {
    let authority = Authority::new();
    let (cert, key) = authority.issue_files(folder, "own", LOCAL);
    let files = ClientFiles { ca: Some(authority.write(folder, "ca.crt")), identity: None };
    let client = TlsConnector::from(Arc::new(client_config(Some(&files)).unwrap()));
    (format!(", tls: {{ cert: '{}', key: '{}' }}", cert.display(), key.display()), client)
}

async fn restarts_are_seen_by_nobody(tls: &str, client: Option<TlsConnector>) {
    let restarts: u64 = std::env::var("AYOVA_RESTARTS").ok().map_or(3, |count| count.parse().unwrap());
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let (config, _folder) = Gateway::configured(&upstream, tls, "shutdown: { grace: 3s }");
    let mut parent = start_often("own", restarts + 1, &config);
    let (mut process, address) = child(&parent.out, 0).await;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let apps: Vec<_> = (0..4)
        .map(|app| {
            let way = Way { address: address.clone(), client: client.clone() };
            tokio::spawn(insist(app, way, Arc::clone(&over), Arc::clone(&answered)))
        })
        .collect();
    for turn in 1..=restarts {
        let before = answered.load(Ordering::Relaxed);
        until("requests", || async { answered.load(Ordering::Relaxed) > before + 20 }).await;
        signal("TERM", process).await;
        (process, _) = child(&parent.out, usize::try_from(turn).unwrap()).await;
    }
    let before = answered.load(Ordering::Relaxed);
    until("requests", || async { answered.load(Ordering::Relaxed) > before + 20 }).await;
    over.store(true, Ordering::Relaxed);
    for app in apps {
        app.await.unwrap();
    }
    signal("TERM", process).await;
    assert!(parent.end().await.success());
    let stats = sandbox.get("/_sandbox/stats").await;
    assert_eq!(stats["creates"], stats["distinct_keys"], "{stats}");
}

/// How an app connects.
pub(super) struct Way {
    pub(super) address: String,
    pub(super) client: Option<TlsConnector>,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Way {
    pub(super) async fn connect(&self) -> Box<dyn Stream> {
        let stream = loop {
            match tokio::net::TcpStream::connect(&self.address).await {
                Ok(stream) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        match &self.client {
            None => Box::new(stream),
            Some(client) => {
                let name = "localhost".try_into().unwrap();
                Box::new(client.connect(name, stream).await.unwrap_or_else(|error| panic!("{error}")))
            }
        }
    }
}

/// Creates over kept connections, another one whenever an answer says so.
async fn insist(app: u64, way: Way, over: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut connection = None;
    for n in 1.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => way.connect().await,
        };
        let number = 10_000_000_000 + app * 1_000_000 + n;
        let request = create(&format!("order-{number}"))
            .replace("Connection: close\r\n", "")
            .replace("12345678901", &number.to_string())
            .replace("7f3b1c9e5a2d4f608b1e3c7a9d5f2b41", &format!("{number:032x}"));
        stream.write_all(request.as_bytes()).await.unwrap();
        let created = answer(&mut stream).await;
        assert_eq!(created.status, 200, "{created:?}");
        answered.fetch_add(1, Ordering::Relaxed);
        connection = (created.header("connection") != Some("close")).then_some(stream);
        // Not quite as fast as it can: a gateway that is never quiet takes half of its grace to leave.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_socket_that_is_not_the_configured_one_is_refused() {
    let (config, _folder) = Gateway::configured("http://127.0.0.1:9", "", "");
    let text = std::fs::read_to_string(&config).unwrap();
    for (address, expected) in [("127.0.0.1:1", "it is 127.0.0.1:"), ("'unix:app.sock'", "ListenStream=")] {
        std::fs::write(&config, text.replacen("address: 127.0.0.1:0", &format!("address: {address}"), 1)).unwrap();
        let mut parent = start("own", &config);
        assert_eq!(parent.end().await.code(), Some(1));
        let said = parent.err.whole().await.join("\n");
        assert!(said.contains("which listen.address names") && said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn a_socket_for_another_process_is_left_alone() {
    let (config, _folder) = Gateway::configured("http://127.0.0.1:9", "", "");
    let parent = start("1", &config);
    let (process, address) = child(&parent.out, 0).await;
    let ready: Value = serde_json::from_str(&parent.err.line_with("\"ready\"").await).unwrap();
    assert_ne!(ready["listen"], address.as_str());
    signal("KILL", process).await;
}
