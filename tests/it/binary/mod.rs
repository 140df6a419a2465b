//! The real binary over real sockets: processes, their output, and just enough HTTP to ask them.
//!
//! Every process listens on ports the system chose and says which. Every wait is for something that
//! can be seen (a line, an answer, an end) and is bounded by [`PATIENCE`], which is long because a
//! test machine may be busy, and never the time a passing test takes. Dropping a process kills it.

mod activation;
mod admin;
mod callbacks;
mod clients;
mod commands;
mod dev;
mod ending;
mod floods;
mod http2;
mod logs;
mod outage;
mod reload;
mod rotation;
mod smuggling;
mod sockets;
mod telemetry;

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const CREATE_PATH: &str = "/va/api/v2.0/transfer-va/create-va";
const CREATE_BODY: &str = r#"{"customerNo":"CUST000123","virtualAccountNo":"12345678901","virtualAccountName":"Budi Santoso","trxId":"7f3b1c9e5a2d4f608b1e3c7a9d5f2b41","totalAmount":{"value":"150000.00","currency":"IDR"},"additionalInfo":{"bankCode":"014","isSingleUse":"N"}}"#;

/// What a bounded wait is for comes, or the test fails here.
async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

/// Waits until something holds that can only be looked at.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    patiently(what, looking).await;
}

fn ayova(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ayova"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
    // Proxies and colours of the machine are not what is tested.
    command.env_clear().env("PATH", std::env::var("PATH").unwrap());
    command
}

/// What a command that ends by itself has said.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn run(arguments: &[&str]) -> Ended {
    ended(ayova(arguments)).await
}

async fn ended(mut command: Command) -> Ended {
    let output = patiently("the end of a command", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A process that serves.
struct Running {
    child: Child,
    out: Lines,
    err: Lines,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::spawn(ayova(arguments))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { out: Lines::of(out), err: Lines::of(err), child }
    }

    /// Sends a signal. bash has the means built in, which not every machine has as a program.
    async fn signal(&self, name: &str) {
        signal(name, self.child.id().expect("it runs")).await;
    }

    async fn end(&mut self) -> ExitStatus {
        patiently("the process's end", self.child.wait()).await.unwrap()
    }
}

async fn signal(name: &str, process: u32) {
    let kill = format!("kill -{name} {process}");
    assert!(Command::new("bash").args(["-c", &kill]).status().await.unwrap().success());
}

/// What a process has written so far, line by line.
#[derive(Clone)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    news: watch::Receiver<()>,
}

impl Lines {
    fn of(stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (tell, news) = watch::channel(());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        tokio::spawn(async move {
            let mut reading = BufReader::new(stream).lines();
            while let Some(line) = reading.next_line().await.unwrap() {
                kept.lock().unwrap().push(line);
                tell.send_replace(());
            }
        });
        Self { lines, news }
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first line that contains this, as soon as there is one.
    async fn line_with(&self, needle: &str) -> String {
        let mut news = self.news.clone();
        let found = async {
            loop {
                news.mark_unchanged();
                if let Some(line) = self.all().into_iter().find(|line| line.contains(needle)) {
                    return Some(line);
                }
                if news.changed().await.is_err() {
                    return self.all().into_iter().find(|line| line.contains(needle));
                }
            }
        };
        let found = patiently(&format!("a line with {needle:?}"), found).await;
        found.unwrap_or_else(|| panic!("the process has ended without a line with {needle:?}:\n{:#?}", self.all()))
    }

    /// Everything, once the process has closed its end.
    async fn whole(&self) -> Vec<String> {
        let mut news = self.news.clone();
        patiently("the end of the output", async { while news.changed().await.is_ok() {} }).await;
        self.all()
    }
}

/// A simulated Ayoconnect in a process of its own.
struct Sandbox {
    running: Running,
    address: String,
}

impl Sandbox {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(arguments: &[&str]) -> Self {
        let running = Running::start(&[&["sandbox", "--listen", "127.0.0.1:0"], arguments].concat());
        let line = running.out.line_with("Simulated Ayoconnect").await;
        let address = line.split("http://").nth(1).unwrap().split(',').next().unwrap().to_owned();
        Self { running, address }
    }

    /// From now on this happens to calls of the operation.
    async fn fault(&self, operation: &str, fault: &str) {
        let faults = format!(r#"[{{"match":{{"operation":"{operation}"}},"fault":{fault}}}]"#);
        let answer = ask(&self.address, &request("PUT", "/_sandbox/faults", "", &faults)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn get(&self, path: &str) -> Value {
        get(&self.address, path).await.json()
    }
}

/// A gateway in a process of its own.
struct Gateway {
    running: Running,
    listen: String,
    admin: String,
    /// Holds its configuration.
    folder: TempDir,
}

impl Gateway {
    /// `config/minimal.yaml` on ports the system chooses, in front of this upstream.
    async fn start(upstream: &str) -> Self {
        Self::start_with(upstream, "", "").await
    }

    /// The same with more inside `listen` and more keys at the end.
    async fn start_with(upstream: &str, listen: &str, more: &str) -> Self {
        let (file, folder) = Self::configured(upstream, listen, more);
        Self::of(Running::start(&["run", "--config", &file]), folder).await
    }

    /// Its configuration, in a folder of its own.
    fn configured(upstream: &str, listen: &str, more: &str) -> (String, TempDir) {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("ayova.yaml");
        let minimal = include_str!("../../../config/minimal.yaml");
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sandbox-key.pem");
        let text = minimal.replace("http://127.0.0.1:9090", upstream).replace("sandbox-key.pem", key);
        let listeners = format!("listen: {{ address: 127.0.0.1:0{listen} }}\nadmin: {{ address: 127.0.0.1:0 }}\n");
        std::fs::write(&file, format!("{text}{listeners}{more}\n")).unwrap();
        (file.to_str().unwrap().to_owned(), folder)
    }

    /// A gateway that is starting, once it is ready.
    async fn of(running: Running, folder: TempDir) -> Self {
        let ready: Value = serde_json::from_str(&running.err.line_with("\"ready\"").await).unwrap();
        let address = |name: &str| ready[name].as_str().unwrap().to_owned();
        Self { listen: address("listen"), admin: address("admin"), running, folder }
    }

    async fn before(sandbox: &Sandbox) -> Self {
        Self::start(&format!("http://{}", sandbox.address)).await
    }

    async fn create(&self, key: &str) -> Answer {
        ask(&self.listen, &create(key)).await
    }

    async fn status(&self) -> Value {
        get(&self.admin, "/status").await.json()
    }

    /// Waits until a create or update is on its way.
    async fn until_under_way(&self) {
        until("a request under way", || async { self.status().await["under_way"] == 1 }).await;
    }
}

/// A SNAP create as an app sends it.
fn create(key: &str) -> String {
    request("POST", CREATE_PATH, &format!("Idempotency-Key: {key}\r\n"), CREATE_BODY)
}

/// A request after which the connection is closed.
fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    kept_alive(method, path, &format!("{headers}Connection: close\r\n"), body)
}

fn kept_alive(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// An answer over HTTP/1.1.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether the gateway itself answered so.
    #[track_caller]
    fn assert_refusal(&self, status: u16, reason: &str) {
        assert_eq!((self.status, self.header("ayova-reason")), (status, Some(reason)), "{self:?}");
        assert_eq!(self.header("ayova-source"), Some("gateway"));
    }
}

async fn connect(address: &str) -> TcpStream {
    patiently("a connection", TcpStream::connect(address)).await.unwrap()
}

/// Sends a request and reads its answer on a connection of its own.
async fn ask(address: &str, request: &str) -> Answer {
    let mut stream = connect(address).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

async fn get(address: &str, path: &str) -> Answer {
    ask(address, &request("GET", path, "", "")).await
}

/// Reads one answer.
async fn answer(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> Answer {
    let reading = async {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {bytes:?}")));
        }
        let head = String::from_utf8(bytes).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let mut body = vec![0; answer.header("content-length").map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    };
    patiently("an answer", reading).await
}

/// Whether the other side closes without another byte.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = patiently("the connection's end", stream.read(&mut byte)).await;
    // A reset is an end too: it comes where the server did not read everything that was sent.
    read.map_or(true, |count| count == 0)
}
