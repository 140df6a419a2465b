//! The two processes: the sandbox, which lives through a round, and the gateway, which does not.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::client::{get, send};

/// The binary under test, with its crash points.
const AYOVA: &str = env!("CARGO_BIN_EXE_ayova");

/// What callbacks' senders know.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Where callbacks of a generation go.
pub(crate) fn callback_path(dialect: &str) -> String {
    format!("/callbacks/{dialect}/AYOTST/{SECRET}")
}

/// Longest time a process may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// A process that ends with this value.
pub(crate) struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// SIGKILL: nothing of the process's runs any more.
    pub(crate) fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Whether it is still there.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything a round runs.
pub(crate) struct World {
    /// Where the sandbox is.
    pub(crate) sandbox: SocketAddr,
    /// Where the gateway is, whichever process serves it.
    pub(crate) gateway: SocketAddr,
    /// Where that gateway takes callbacks.
    pub(crate) callbacks: SocketAddr,
    /// Where its operators are.
    pub(crate) admin: SocketAddr,
    _sandbox: Process,
    folder: tempfile::TempDir,
}

impl World {
    /// A running sandbox and a configuration for the gateway, which tells of payments where `deliver` says,
    /// and may ask whether they are true.
    pub(crate) async fn new(idempotency_mode: &str, deliver: &str, asks: bool) -> Result<Self, String> {
        let checks = if asks { "confirm: unsigned, sweep: {}" } else { "confirm: never" };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (sandbox, gateway, admin, callbacks) = (free_port(), free_port(), free_port(), free_port());
        let config = format!(
            "version: 1\nlisten: {{ address: \"{gateway}\" }}\nadmin: {{ address: \"{admin}\" }}\n\
             upstream: {{ base_url: \"http://{sandbox}\", attempt_timeout: 2s, deadline: 6s }}\n\
             merchants:\n  - name: sample\n    merchant_code: AYOTST\n    client_id: sandbox-client\n    \
             client_secret: sandbox-secret\n    private_key: ${{file:{key}}}\n\
             store: {{ kind: sqlite, path: ayova.db }}\nlog: {{ level: error }}\n\
             callbacks: {{ listen: {{ address: \"{callbacks}\" }}, secret: {SECRET}, {checks}, deliver: {deliver} }}\n",
            key = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sandbox-key.pem").display(),
        );
        let mut file = std::fs::File::create(folder.path().join("ayova.yaml")).map_err(|error| error.to_string())?;
        file.write_all(config.as_bytes()).map_err(|error| error.to_string())?;
        let switches = folder.path().join("sandbox.yaml");
        std::fs::write(&switches, format!("snap: {{ idempotency_mode: {idempotency_mode} }}\n"))
            .map_err(|error| error.to_string())?;
        let mut simulator = Command::new(AYOVA);
        simulator.args(["sandbox", "--listen", &sandbox.to_string(), "--config"]).arg(&switches);
        let process = Process::start(&mut simulator);
        wait_for(sandbox, "/_sandbox/stats").await?;
        let addresses = json!({
            "snap": format!("http://{callbacks}{}", callback_path("snap")),
            "classic": format!("http://{callbacks}{}", callback_path("classic")),
        });
        let told = send(sandbox, Method::PUT, "/_sandbox/callbacks", "", Some(addresses)).await;
        if told.is_none_or(|answer| answer.status != 200) {
            return Err("the sandbox does not take the callbacks' addresses".to_owned());
        }
        Ok(Self { sandbox, gateway, callbacks, admin, _sandbox: process, folder })
    }

    /// The gateway over this round's store; it dies by itself at `crash`, if that is given.
    pub(crate) async fn start_gateway(&self, crash: Option<&str>) -> Result<Process, String> {
        let config: PathBuf = self.folder.path().join("ayova.yaml");
        let mut command = Command::new(AYOVA);
        command.arg("run").arg("--config").arg(config);
        if let Some(place) = crash {
            command.env("AYOVA_CRASH", place).stderr(Stdio::null());
        }
        let process = Process::start(&mut command);
        wait_for(self.admin, "/readyz").await?;
        Ok(process)
    }

    /// Creates and updates under way in the gateway.
    pub(crate) async fn under_way(&self) -> Result<u64, String> {
        let status = get(self.admin, "/status").await?;
        status["under_way"].as_u64().ok_or_else(|| "no under_way in /status".to_owned())
    }
}

/// A port nobody has at the moment; bound again by the process a moment later, and once more after its
/// death. Below those the system gives to outgoing connections, one of which could take it in between.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(101);
    let candidates = std::iter::repeat_with(|| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    let ports = candidates.take(12_000).map(|number| 20_000 + u16::try_from(number % 12_000).unwrap());
    let mut free = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.next().unwrap().local_addr().unwrap()
}

async fn wait_for(address: SocketAddr, path: &str) -> Result<(), String> {
    let ready = async {
        while get(address, path).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(START_MAX, ready).await.map_err(|_| format!("{address}{path} did not come up"))
}
