//! Sockets that are handed over as systemd does it, by a parent that opens one and keeps it open.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::{Gateway, Lines, Running, Sandbox, ask, create, patiently, signal};

/// Opens a socket and starts the command with it, again when it has ended.
const PARENT: &str = r#"
import ctypes, os, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
for turn in range(2):
    child = os.fork()
    if child == 0:
        # Ends with its parent (PR_SET_PDEATHSIG), however the test ends.
        ctypes.CDLL(None).prctl(1, 9)
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ["LISTEN_FDS"] = "1"
        os.environ["LISTEN_PID"] = sys.argv[1] if sys.argv[1] != "own" else str(os.getpid())
        os.execv(sys.argv[2], sys.argv[2:])
    print("child", child, listener.getsockname()[1], flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        sys.exit(code)
"#;

/// The gateway started by the parent; `process` is what `LISTEN_PID` says.
fn start(process: &str, config: &str) -> Running {
    let mut command = Command::new("python3");
    command.args(["-c", PARENT, process, env!("CARGO_BIN_EXE_ayova"), "run", "--config", config]);
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
