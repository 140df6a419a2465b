//! How the processes begin and end: signals, work in flight, and addresses that are taken.

use tokio::io::AsyncWriteExt as _;

use super::{Gateway, Sandbox, answer, ask, connect, create, get, kept_alive, run, until};

/// An inquiry of an account nobody knows.
const ASKED: &str = r#"{"partnerServiceId":"   14629","customerNo":"CUST000123","virtualAccountNo":"   1462912345678901","trxId":"7f3b1c9e5a2d4f608b1e3c7a9d5f2b41"}"#;

/// A create that is on its way upstream, where it stays.
async fn with_a_hanging_create(sandbox: &Sandbox, gateway: &Gateway) -> tokio::net::TcpStream {
    sandbox.fault("snap.create", r#"{"hang":true}"#).await;
    let mut stream = connect(&gateway.listen).await;
    stream.write_all(create("order-1").as_bytes()).await.unwrap();
    gateway.until_under_way().await;
    stream
}

#[tokio::test]
async fn a_drain_is_seen_by_probes_and_finishes_what_is_in_flight() {
    let sandbox = Sandbox::start().await;
    let mut gateway = Gateway::before(&sandbox).await;
    assert_eq!(get(&gateway.admin, "/readyz").await.status, 200);
    sandbox.fault("snap.create", r#"{"latency":"1500ms"}"#).await;
    let mut stream = connect(&gateway.listen).await;
    stream.write_all(create("order-1").as_bytes()).await.unwrap();
    gateway.until_under_way().await;
    gateway.running.signal("TERM").await;
    let admin = &gateway.admin;
    until("not ready", || async { get(admin, "/readyz").await.status == 503 }).await;
    assert_eq!(get(admin, "/readyz").await.json()["components"]["listener"]["reason"], "shutting down");
    assert_eq!(get(admin, "/livez").await.status, 200);
    // Its app is served while it still asks, and told to come back over another connection.
    let late = ask(&gateway.listen, &kept_alive("POST", "/va/api/v2.0/transfer-va/inquiry-va", "", ASKED)).await;
    assert_eq!((late.header("ayova-source"), late.header("connection")), (Some("upstream"), Some("close")), "{late:?}");
    let created = answer(&mut stream).await;
    assert_eq!((created.status, created.header("ayova-source")), (200, Some("upstream")), "{created:?}");
    assert_eq!(gateway.running.end().await.code(), Some(0));
}

#[tokio::test]
async fn what_is_read_after_the_drain_began_is_refused_and_not_sent() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let mut gateway = Gateway::start_with(&upstream, "", "shutdown: { grace: 3s }").await;
    // As long as there is something under way the gateway stays, for half of the grace.
    sandbox.fault("snap.inquiry", r#"{"latency":"2500ms"}"#).await;
    let mut slow = connect(&gateway.listen).await;
    slow.write_all(kept_alive("POST", "/va/api/v2.0/transfer-va/inquiry-va", "", ASKED).as_bytes()).await.unwrap();
    // The head has begun, so the connection is not an idle one.
    let mut stream = connect(&gateway.listen).await;
    let request = create("order-1").replace("Connection: close\r\n", "");
    let (half, rest) = request.split_at(40);
    stream.write_all(half.as_bytes()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    gateway.running.signal("TERM").await;
    let listen = &gateway.listen;
    until("no listener", || async { tokio::net::TcpStream::connect(listen).await.is_err() }).await;
    // Longer than who has just connected is waited for.
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let refused = answer(&mut stream).await;
    refused.assert_refusal(503, "SHUTTING_DOWN");
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(gateway.running.end().await.code(), Some(0));
    assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], 0);
}

#[tokio::test]
async fn a_create_goes_on_without_its_caller_and_the_end_waits_for_it() {
    let sandbox = Sandbox::start().await;
    let mut gateway = Gateway::before(&sandbox).await;
    sandbox.fault("snap.create", r#"{"latency":"500ms"}"#).await;
    let mut stream = connect(&gateway.listen).await;
    stream.write_all(create("order-1").as_bytes()).await.unwrap();
    gateway.until_under_way().await;
    drop(stream);
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], 1);
}

#[tokio::test]
async fn what_is_longer_than_the_grace_is_told_by_the_exit_code() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let mut gateway = Gateway::start_with(&upstream, "", "shutdown: { grace: 200ms }").await;
    let _stream = with_a_hanging_create(&sandbox, &gateway).await;
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(1));
    let said = gateway.running.err.whole().await.pop().unwrap();
    assert_eq!(said, "shutdown.grace is over with work under way (1 creates and updates)");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    // Longer than any wait of these tests.
    let mut gateway = Gateway::start_with(&upstream, "", "shutdown: { grace: 1h }").await;
    let _stream = with_a_hanging_create(&sandbox, &gateway).await;
    gateway.running.signal("INT").await;
    gateway.running.err.line_with("shutting down").await;
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(1));
    let said = gateway.running.err.whole().await.pop().unwrap();
    assert_eq!(said, "ended at once by a second signal");
}

#[tokio::test]
async fn an_idle_sandbox_ends_when_told_to() {
    let mut sandbox = Sandbox::start().await;
    sandbox.running.signal("TERM").await;
    assert_eq!(sandbox.running.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_taken_address_is_named_with_a_way_out() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let options = ["--listen", "--admin", "--sandbox", "--callbacks", "--app"];
    let dev = |taken: &str| {
        let value = |option| if option == taken { address.clone() } else { "127.0.0.1:0".to_owned() };
        let options = options.into_iter().flat_map(|option| [option.to_owned(), value(option)]);
        std::iter::once("dev".to_owned()).chain(options).collect::<Vec<_>>()
    };
    let mut lines: Vec<_> = options.into_iter().map(|option| (dev(option), format!("({option})"))).collect();
    lines.push((["sandbox", "--listen", &address].map(str::to_owned).to_vec(), String::new()));
    for (line, option) in lines {
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let ended = run(&line).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{line:?}");
        let expected = format!("cannot listen on {address}: ");
        assert!(ended.err.starts_with(&expected), "{}", ended.err);
        let way_out = format!("end it, or give another address {option}");
        assert!(ended.err.contains(way_out.trim_end()), "{}", ended.err);
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let settings = ", header_timeout: 1h";
    let mut gateway = Gateway::start_with(&upstream, settings, "shutdown: { grace: 1h }").await;
    let silent = connect(&gateway.listen).await;
    let mut kept = connect(&gateway.listen).await;
    kept.write_all(super::kept_alive("GET", "/nowhere", "", "").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut kept).await.status, 404);
    gateway.running.signal("TERM").await;
    assert_eq!(gateway.running.end().await.code(), Some(0));
    drop(silent);
}
