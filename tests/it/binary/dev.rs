//! `ayova dev`: what a newcomer sees first works exactly as it is printed.

use serde_json::Value;
use tokio::process::Command;

use super::{Running, ask, ended, get, request, run};

const FREE_PORTS: [&str; 11] = [
    "dev",
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--sandbox",
    "127.0.0.1:0",
    "--callbacks",
    "127.0.0.1:0",
    "--app",
    "127.0.0.1:0",
];

fn address<'l>(lines: &'l [String], name: &str) -> &'l str {
    let line = lines.iter().find(|line| line.trim_start().starts_with(name)).unwrap();
    line.split("http://").nth(1).unwrap().split(' ').next().unwrap()
}

#[tokio::test]
async fn every_printed_line_works_as_pasted() {
    let mut dev = Running::start(&FREE_PORTS);
    // The last line that is printed.
    dev.out.line_with("-X PATCH").await;
    let lines = dev.out.all();
    let curls: Vec<_> = lines.iter().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(curls.len(), 8, "{lines:#?}");
    for line in &curls {
        let mut shell = Command::new("bash");
        shell.args(["-c", line]).env("no_proxy", "*");
        let pasted = ended(shell).await;
        assert_eq!((pasted.code, pasted.err.as_str()), (Some(0), ""), "{line}");
        let body: Value = serde_json::from_str(&pasted.out).unwrap_or_else(|_| panic!("{line}: {}", pasted.out));
        let is_good = match &body["responseCode"] {
            Value::String(snap) => snap.starts_with("200"),
            Value::Number(classic) => [200, 201].map(Value::from).contains(&Value::Number(classic.clone())),
            _ => body["paid"] == true,
        };
        assert!(is_good, "{line}: {body}");
    }
    let sandbox = address(&lines, "sandbox");
    let accounts = get(sandbox, "/_sandbox/accounts").await.json();
    assert_eq!(accounts["total"], 2);
    for account in accounts["accounts"].as_array().unwrap() {
        assert_eq!(account["payments"], 1, "{account}");
    }
    let stats = get(sandbox, "/_sandbox/stats").await.json();
    assert_eq!((&stats["creates"], &stats["duplicate_creates"]), (&2.into(), &0.into()));
    for page in ["/status", "/metrics", "/routes", "/config"] {
        assert_eq!(get(address(&lines, "admin"), page).await.status, 200, "{page}");
    }
    dev.signal("INT").await;
    assert_eq!(dev.end().await.code(), Some(0));
}

#[tokio::test]
async fn pasting_a_create_twice_creates_once() {
    let dev = Running::start(&FREE_PORTS);
    dev.out.line_with("-X PATCH").await;
    let lines = dev.out.all();
    let create = lines.iter().find(|line| line.contains("create-va")).unwrap().replace("curl ", "curl -i ");
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut shell = Command::new("bash");
        shell.args(["-c", &create]).env("no_proxy", "*");
        answers.push(ended(shell).await.out);
    }
    assert!(answers[0].contains("ayova-source: upstream") && answers[1].contains("ayova-source: replay"));
    let body = |answer: &str| answer.split("\r\n\r\n").nth(1).unwrap().to_owned();
    assert_eq!(body(&answers[0]), body(&answers[1]));
    assert_eq!(get(address(&lines, "sandbox"), "/_sandbox/stats").await.json()["creates"], 1);
}

#[tokio::test]
async fn a_payment_of_either_generation_is_printed_by_the_receiving_app() {
    let dev = Running::start(&FREE_PORTS);
    dev.out.line_with("-X PATCH").await;
    let lines = dev.out.all();
    for (create, pay, printed) in [
        ("create-va", "\"virtualAccountNo\":", "paid    ****8901  150000.00 IDR  snap     evt_"),
        ("billDetails", "\"virtualAccountNumber\":", "paid    ****5678  150000.00 IDR  classic  evt_"),
    ] {
        let is_pay = |line: &str| line.contains("/_sandbox/pay") && line.contains(pay);
        for wanted in [&(|line: &str| line.contains(create)) as &dyn Fn(&str) -> bool, &is_pay] {
            let line = lines.iter().find(|line| line.starts_with("curl ") && wanted(line)).unwrap();
            let mut shell = Command::new("bash");
            shell.args(["-c", line]).env("no_proxy", "*");
            assert_eq!(ended(shell).await.code, Some(0), "{line}");
        }
        let line = dev.out.line_with(printed).await;
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[6], "confirmed", "{line}");
        let event = get(address(&lines, "admin"), &format!("/callbacks/{}", words[5])).await.json();
        assert_eq!(event["type"], "va.paid", "{event}");
    }
    // Whoever else posts there is not believed, and nothing is printed.
    let receiver = address(&lines, "receiver");
    let forged = r#"{"type":"va.paid","data":{"virtualAccountNo":"1462900000000000"}}"#;
    assert_eq!(ask(receiver, &request("POST", "/payments", "", forged)).await.status, 401);
    assert!(!dev.out.all().iter().any(|line| line.contains("****0000")));
}

#[tokio::test]
async fn a_listener_for_everybody_is_refused() {
    let exposed = run(&["dev", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(exposed.code, Some(78), "{}", exposed.err);
    assert!(exposed.err.contains("listen.address"), "{}", exposed.err);
}
