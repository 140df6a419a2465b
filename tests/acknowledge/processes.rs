//! The simulated Ayoconnect and a gateway before it, as processes that end with this value.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest time a process may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Where callbacks of a generation go.
pub(crate) fn callback_path(dialect: &str) -> String {
    format!("/callbacks/{dialect}/AYOTST/{SECRET}")
}

/// What a round runs.
pub(crate) struct World {
    /// Where apps connect.
    pub(crate) listen: String,
    /// Where callbacks go.
    pub(crate) callbacks: String,
    _processes: [Child; 2],
    _folder: TempDir,
}

impl World {
    /// Starts both; events go where `deliver` says, once they are confirmed as configured, if at all.
    pub(crate) async fn start(deliver: &str, confirm: &str) -> Self {
        // Beside what is built, which is on a disk: the system's folder for such files may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut sandbox = ayova(&["sandbox", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let line = line_with("Simulated Ayoconnect", sandbox.stdout.take().unwrap()).await;
        let upstream = line.split("http://").nth(1).unwrap().split(',').next().unwrap();
        let file = folder.path().join("ayova.yaml");
        let minimal = include_str!("../../config/minimal.yaml").replace("127.0.0.1:9090", upstream);
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sandbox-key.pem");
        let text = minimal.replace("sandbox-key.pem", key)
            + "listen: { address: 127.0.0.1:0 }\nadmin: { address: 127.0.0.1:0 }\ncallbacks:\n  listen: { address: 127.0.0.1:0 }\n"
            + &format!("  secret: {SECRET}\n  confirm: {confirm}\n  deliver: {deliver}\n");
        std::fs::write(&file, text).unwrap();
        let mut gateway = ayova(&["run", "--config", file.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
        let ready = line_with("\"ready\"", gateway.stderr.take().unwrap()).await;
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let address = |name: &str| ready[name].as_str().unwrap().to_owned();
        let (listen, callbacks) = (address("listen"), address("callbacks"));
        Self { listen, callbacks, _processes: [gateway, sandbox], _folder: folder }
    }
}

fn ayova(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ayova"));
    command.args(arguments).kill_on_drop(true).env_clear().stdin(Stdio::null());
    command
}

/// The first such line; the others are read and forgotten, so that the process never waits for a reader.
async fn line_with(needle: &str, stream: impl AsyncRead + Send + Unpin + 'static) -> String {
    let mut lines = BufReader::new(stream).lines();
    let found = async {
        loop {
            match lines.next_line().await.unwrap() {
                Some(line) if line.contains(needle) => return line,
                Some(_) => {}
                None => panic!("a process ended without a line with {needle}"),
            }
        }
    };
    let found = timeout(START_MAX, found).await.unwrap();
    tokio::spawn(async move { while matches!(lines.next_line().await, Ok(Some(_))) {} });
    found
}
