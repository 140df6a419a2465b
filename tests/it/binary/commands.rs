//! Commands that end by themselves: what they print, where, and with which exit code.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Ended, Gateway, Sandbox, ayova, ended, patiently, run};

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn shipped(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn shipped_configurations_pass_the_check() {
    for name in ["example.yaml", "minimal.yaml"] {
        let checked = run(&["check", "--config", &shipped(name)]).await;
        assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{name}");
        assert!(checked.out.ends_with(&format!("{name}: ok\n")), "{}", checked.out);
        let printed = run(&["check", "--config", &shipped(name), "--print"]).await;
        assert_eq!(printed.code, Some(0));
        assert!(printed.out.contains("\"***\"") && !printed.out.contains("sandbox-secret"), "{}", printed.out);
    }
}

#[tokio::test]
async fn every_problem_is_named_at_once_with_its_place() {
    let folder = TempDir::new().unwrap();
    let text = "\
upstrem:
  base_url: http://127.0.0.1:9090
listen:
  address: 0.0.0.0:8080
  body_timeout: 5
merchants:
  - name: sample
    merchant_code: TOOLONG
    client_id: ${AYOVA_TEST_UNDEFINED}
    client_secret: x
";
    let checked = run(&["check", "--config", &file(&folder, "bad.yaml", text)]).await;
    assert_eq!((checked.code, checked.out.as_str()), (Some(78), ""));
    for expected in [
        "bad.yaml:1:1: ",
        "did you mean",
        "bad.yaml:4:12: ",
        "bad.yaml:5:17: ",
        "bad.yaml:8:20: ",
        "bad.yaml:9:16: ",
        "AYOVA_TEST_UNDEFINED",
    ] {
        assert!(checked.err.contains(expected), "no {expected:?} in:\n{}", checked.err);
    }
    // `run` goes the same way and opens nothing.
    let started = run(&["run", "--config", &file(&folder, "bad.yaml", text)]).await;
    assert_eq!((started.code, started.err), (Some(78), checked.err));
}

#[tokio::test]
async fn a_missing_file_says_so() {
    let checked = run(&["check", "--config", "/nowhere/ayova.yaml"]).await;
    assert_eq!(checked.code, Some(78));
    assert!(checked.err.contains("/nowhere/ayova.yaml"), "{}", checked.err);
}

#[tokio::test]
async fn the_schema_is_json_and_names_the_keys() {
    let printed = run(&["schema"]).await;
    let schema: Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(printed.code, Some(0));
    assert!(schema["properties"]["upstream"].is_object() && schema["$schema"].is_string());
}

#[tokio::test]
async fn help_and_version_are_answers_and_mistakes_are_not() {
    let help = run(&["--help"]).await;
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    for command in ["dev", "run", "check", "schema", "sandbox", "sign", "verify", "healthcheck", "completions"] {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}: {}", help.out);
        assert_eq!(run(&[command, "--help"]).await.code, Some(0), "{command}");
    }
    let version = run(&["--version"]).await;
    assert_eq!((version.code, version.out), (Some(0), format!("ayova {}\n", env!("CARGO_PKG_VERSION"))));
    let mistakes: [&[&str]; 6] = [
        &[],
        &["rnu"],
        &["run", "--cofnig", "x"],
        &["completions", "fisch"],
        &["sandbox", "--listen", "nowhere"],
        &["verify"],
    ];
    for mistake in mistakes {
        let Ended { code, out, err } = run(mistake).await;
        assert_eq!((code, out.as_str(), err.is_empty()), (Some(2), "", false), "{mistake:?}: {err}");
    }
}

#[tokio::test]
async fn a_signature_that_was_made_can_be_checked() {
    let folder = TempDir::new().unwrap();
    let secret = file(&folder, "secret", "sandbox-secret\n");
    let body = file(&folder, "body.json", "{ \"trxId\": \"a b\" }");
    let key = shipped("sandbox-key.pem");
    let time = "2026-11-20T19:26:43+07:00";
    let call = ["--method", "POST", "--path", "/va/api/v2.0/x", "--timestamp", time, "--body", &body];
    let schemes: [(&str, Vec<&str>); 3] = [
        ("hmac_sha512", [&["--token", "T", "--secret-file", &secret][..], &call].concat()),
        ("rsa_transactional", [&["--key", &key][..], &call].concat()),
        ("rsa_client_timestamp", vec!["--key", &key, "--client-id", "sandbox-client", "--timestamp", time]),
    ];
    for (scheme, arguments) in &schemes {
        for encoding in ["hex", "base64"] {
            let signing = [&["sign", "--scheme", scheme, "--encoding", encoding][..], arguments].concat();
            let signed = run(&signing).await;
            assert_eq!(signed.code, Some(0), "{scheme}: {}", signed.err);
            let signature = signed.out.trim_end();
            for (given, code) in [(signature.to_owned(), 0), (format!("00{signature}"), 1)] {
                let verifying = [&["verify", "--scheme", scheme, "--signature", &given][..], arguments].concat();
                let verified = run(&verifying).await;
                assert_eq!(verified.code, Some(code), "{scheme} {encoding}: {}{}", verified.out, verified.err);
            }
        }
    }
}

#[tokio::test]
async fn a_body_may_come_from_standard_input() {
    let folder = TempDir::new().unwrap();
    let secret = file(&folder, "secret", "sandbox-secret");
    let body = "{ \"trxId\": \"a b\" }";
    let from_file = file(&folder, "body.json", body);
    let sign = |body: &str| {
        let time = "2026-11-20T19:26:43+07:00";
        let call = ["sign", "--method", "POST", "--path", "/x", "--timestamp", time];
        ayova(&[&call[..], &["--token", "T", "--secret-file", &secret, "--body", body]].concat())
    };
    let mut piped = sign("-");
    let mut child = piped.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(body.as_bytes()).await.unwrap();
    let output = patiently("the signature", child.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), ended(sign(&from_file)).await.out);
}

#[tokio::test]
async fn the_completion_script_is_one() {
    let script = run(&["completions", "bash"]).await;
    assert_eq!(script.code, Some(0));
    assert!(script.out.contains("healthcheck"));
    let mut shell = Command::new("bash");
    shell.args(["-n", "-c", &script.out]);
    let read = ended(shell).await;
    assert_eq!((read.code, read.err.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn health_is_what_the_admin_listener_says() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let ready = run(&["healthcheck", "--admin", &gateway.admin]).await;
    assert_eq!((ready.code, ready.out), (Some(0), format!("ready: {}\n", gateway.admin)));
    let live = run(&["healthcheck", "--live", "--admin", &gateway.admin]).await;
    assert_eq!((live.code, live.out), (Some(0), format!("live: {}\n", gateway.admin)));
    // Held and not listened on, so that nobody answers there.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = held.local_addr().unwrap().to_string();
    for (arguments, said) in [(vec!["healthcheck"], "not ready: "), (vec!["healthcheck", "--live"], "not live: ")] {
        let asked = run(&[arguments, vec!["--admin", &nobody]].concat()).await;
        assert_eq!((asked.code, asked.out.as_str()), (Some(1), ""));
        assert!(asked.err.starts_with(said), "{}", asked.err);
    }
}
