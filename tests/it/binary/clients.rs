//! Programs and libraries that people use, against the real binary: curl, Python, Node.
//!
//! Each makes one create, and asks for it again, over the kind of connection it is likely to have. What a
//! machine lacks is said by the test that needs it; `.ci/run` installs it.

use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use super::{CREATE_BODY, CREATE_PATH, Ended, Gateway, Running, Sandbox, ended};
use crate::certificates::{Authority, LOCAL};

/// Authority, the gateway's certificate and a client's, as files.
fn certificates() -> TempDir {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "ca.crt");
    authority.issue_files(folder.path(), "own", LOCAL);
    authority.issue_files(folder.path(), "app", &["app.shop.internal"]);
    Authority::new().issue_files(folder.path(), "stranger", &["app.shop.internal"]);
    folder
}

/// A gateway with these certificates before this simulator.
async fn secure(sandbox: &Sandbox, files: &Path) -> Gateway {
    let path = |name: &str| files.join(name).display().to_string();
    let tls = format!(
        ", tls: {{ cert: '{}', key: '{}', client_ca: '{}' }}",
        path("own.crt"),
        path("own.key"),
        path("ca.crt")
    );
    Gateway::start_with(&format!("http://{}", sandbox.address), &tls, "").await
}

/// A create by curl, which says the version of HTTP and the status behind the answer's body.
async fn curl(url: &str, options: &[&str]) -> Ended {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "-w", " HTTP/%{http_version} %{http_code}"]).args(options);
    curl.args(["-H", "Content-Type: application/json", "-H", "Idempotency-Key: order-1", "-d", CREATE_BODY]);
    ended({
        curl.arg(format!("{url}{CREATE_PATH}"));
        curl
    })
    .await
}

#[track_caller]
fn assert_said(said: &Ended, end: &str) {
    assert!(said.out.contains("\"responseCode\":\"2002700\"") && said.out.ends_with(end), "{}{}", said.out, said.err);
}

#[tokio::test]
async fn curl_over_every_kind_of_connection() {
    let (sandbox, files) = (Sandbox::start().await, certificates());
    let gateway = secure(&sandbox, files.path()).await;
    let url = format!("https://{}", gateway.listen);
    let path = |name: &str| files.path().join(name).display().to_string();
    let (ca, cert, key) = (path("ca.crt"), path("app.crt"), path("app.key"));
    assert_said(&curl(&url, &["--http1.1", "--cacert", &ca]).await, " HTTP/1.1 200");
    assert_said(&curl(&url, &["--http2", "--cacert", &ca]).await, " HTTP/2 200");
    assert_said(&curl(&url, &["--tlsv1.2", "--tls-max", "1.2", "--cacert", &ca]).await, " HTTP/2 200");
    let named = ["--http2", "--cacert", &ca, "--cert", &cert, "--key", &key];
    assert_said(&curl(&url, &named).await, " HTTP/2 200");
    let (cert, key) = (path("stranger.crt"), path("stranger.key"));
    let stranger = ["--http1.1", "--cacert", &ca, "--cert", &cert, "--key", &key];
    assert_ne!(curl(&url, &stranger).await.code, Some(0));
    assert_ne!(curl(&url, &["--tlsv1.1", "--tls-max", "1.1", "--cacert", &ca]).await.code, Some(0));
    // Without the authority nothing is believed, and without TLS nothing is said.
    assert_ne!(curl(&url, &[]).await.code, Some(0));
    assert_ne!(curl(&format!("http://{}", gateway.listen), &[]).await.code, Some(0));
    let plain = Gateway::before(&sandbox).await;
    assert_said(&curl(&format!("http://{}", plain.listen), &["--http1.1"]).await, " HTTP/1.1 200");
    let again = curl(&format!("http://{}", plain.listen), &["--http2-prior-knowledge"]).await;
    assert_said(&again, " HTTP/2 200");
}

#[tokio::test]
async fn curl_over_a_unix_socket_that_goes_away_at_the_end() {
    let sandbox = Sandbox::start().await;
    let (file, folder) = Gateway::configured(&format!("http://{}", sandbox.address), "", "");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replacen("address: 127.0.0.1:0", "address: 'unix:app.sock'", 1);
    std::fs::write(&file, text).unwrap();
    let socket = folder.path().join("app.sock");
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut gateway = Gateway::of(Running::start(&["run", "--config", &file]), folder).await;
    assert_eq!(gateway.listen, format!("unix:{}", socket.display()));
    let socket_option = socket.display().to_string();
    assert_said(&curl("http://localhost", &["--unix-socket", &socket_option]).await, " HTTP/1.1 200");
    gateway.running.signal("TERM").await;
    assert!(gateway.running.end().await.success());
    assert!(!socket.exists());
}

/// A program with a create to make against an address; how it ended.
async fn script(program: &str, flag: &str, text: &str, (url, ca): (&str, &str)) -> Ended {
    let mut command = Command::new(program);
    command.args([flag, text]).kill_on_drop(true);
    command.env("URL", format!("{url}{CREATE_PATH}")).env("BODY", CREATE_BODY).env("CA", ca);
    command.env("NODE_EXTRA_CA_CERTS", ca).env("NO_PROXY", "*").env("no_proxy", "*");
    ended(command).await
}

/// Prints the statuses of two equal creates over one kept connection or session each.
const PYTHON: &str = r#"
import http.client, json, os, ssl, urllib.parse
import httpx, requests
url, body, ca = os.environ["URL"], os.environ["BODY"], os.environ["CA"]
headers = {"Content-Type": "application/json", "Idempotency-Key": "order-1"}
parts = urllib.parse.urlsplit(url)
if parts.scheme == "https":
    connection = http.client.HTTPSConnection(parts.netloc, context=ssl.create_default_context(cafile=ca))
else:
    connection = http.client.HTTPConnection(parts.netloc)
for turn in range(2):
    connection.request("POST", parts.path, body, headers)
    answer = connection.getresponse()
    print("http.client", answer.status, json.loads(answer.read())["responseCode"])
# A body of unknown length is sent in chunks.
connection.request("POST", parts.path, iter([body[:9].encode(), body[9:].encode()]), headers, encode_chunked=True)
print("chunked", connection.getresponse().status)
with requests.Session() as session:
    session.trust_env = False
    for turn in range(2):
        answer = session.post(url, data=body, headers=headers, verify=ca)
        print("requests", answer.status_code, answer.json()["responseCode"])
with httpx.Client(verify=ssl.create_default_context(cafile=ca), trust_env=False) as client:
    for turn in range(2):
        answer = client.post(url, content=body, headers=headers)
        print("httpx", answer.status_code, answer.json()["responseCode"])
"#;

#[tokio::test]
async fn python_sessions() {
    let (sandbox, files) = (Sandbox::start().await, certificates());
    let (gateway, plain) = (secure(&sandbox, files.path()).await, Gateway::before(&sandbox).await);
    let python = python().await;
    let ca = files.path().join("ca.crt").display().to_string();
    for url in [format!("https://{}", gateway.listen), format!("http://{}", plain.listen)] {
        let said = script(python, "-c", PYTHON, (&url, &ca)).await;
        let expected = "http.client 200 2002700\nhttp.client 200 2002700\nchunked 200\nrequests 200 2002700\n\
                        requests 200 2002700\nhttpx 200 2002700\nhttpx 200 2002700\n";
        assert_eq!(said.out, expected, "{url}: {}", said.err);
    }
}

/// A Python that has both libraries: the first on the PATH, or the system's.
async fn python() -> &'static str {
    for python in ["python3", "/usr/bin/python3"] {
        let mut command = Command::new(python);
        command.args(["-c", "import requests, httpx"]);
        if command.output().await.is_ok_and(|output| output.status.success()) {
            return python;
        }
    }
    panic!("no Python with requests and httpx: apt-get install python3-requests python3-httpx");
}

const NODE: &str = r#"
(async () => {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": "order-1" };
  for (let turn = 0; turn < 2; turn++) {
    const answer = await fetch(process.env.URL, { method: "POST", headers, body: process.env.BODY });
    console.log("fetch", answer.status, (await answer.json()).responseCode);
  }
})();
"#;

#[tokio::test]
async fn node_fetch() {
    let (sandbox, files) = (Sandbox::start().await, certificates());
    let (gateway, plain) = (secure(&sandbox, files.path()).await, Gateway::before(&sandbox).await);
    let has_node = Command::new("node").arg("--version").output().await.is_ok();
    assert!(has_node, "no node: apt-get install nodejs");
    let ca = files.path().join("ca.crt").display().to_string();
    for url in [format!("https://{}", gateway.listen), format!("http://{}", plain.listen)] {
        let said = script("node", "-e", NODE, (&url, &ca)).await;
        assert_eq!(said.out, "fetch 200 2002700\nfetch 200 2002700\n", "{url}: {}", said.err);
    }
}
