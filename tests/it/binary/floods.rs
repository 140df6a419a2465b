//! Too many connections, slow ones and idle ones, while somebody else goes on working.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use super::activation::{Stream, Way, over_tls};
use super::{
    Gateway, LOOK_AGAIN, PATIENCE, Running, Sandbox, answer, ask, connect, create, get, is_closed, kept_alive, request,
    run, until,
};

/// The value of the app's listener's counter; absent is zero.
async fn counted(gateway: &Gateway, cause: &str) -> u64 {
    counted_of(gateway, "app", cause).await
}

async fn counted_of(gateway: &Gateway, listener: &str, cause: &str) -> u64 {
    let name = format!("ayova_connections_refused_total{{listener=\"{listener}\",cause=\"{cause}\"}} ");
    let metrics = get(&gateway.admin, "/metrics").await.body;
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

/// As small as a system may make it: five eighths of 256 descriptors are the app's.
#[tokio::test]
async fn more_connections_than_there_may_be_are_closed_at_once() {
    let sandbox = Sandbox::start().await;
    let settings = ", header_timeout: 1h, body_timeout: 1h";
    let (config, folder) = Gateway::configured(&format!("http://{}", sandbox.address), settings, "");
    let mut command = Command::new("bash");
    let run = format!("ulimit -n 256; exec {} run --config {config}", env!("CARGO_BIN_EXE_ayova"));
    command.args(["-c", &run]).kill_on_drop(true);
    let gateway = Gateway::of(Running::spawn(command), folder).await;
    let mut held = Vec::new();
    let create_later = create("order-1").replace("\r\nConnection", "\r\nExpect: 100-continue\r\nConnection");
    let (head, body) = create_later.split_at(create_later.find("\r\n\r\n").unwrap() + 4);
    for _ in 0..160 {
        let mut stream = connect(&gateway.listen).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // Its body is waited for, so it is under way.
        assert_eq!(answer(&mut stream).await.status, 100);
        held.push(stream);
    }
    for _ in 0..100 {
        assert!(is_closed(&mut connect(&gateway.listen).await).await);
    }
    assert_eq!((counted(&gateway, "too_many").await, counted(&gateway, "evicted").await), (100, 0));
    // What is there is served, upstream can be reached, and operators are not shut out.
    held[158].write_all(body.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut held[158]).await.status, 200);
    // Room is room again.
    held.clear();
    until("room for another", || async {
        let mut stream = connect(&gateway.listen).await;
        stream.write_all(create("order-1").as_bytes()).await.is_ok() && !is_closed(&mut stream).await
    })
    .await;
}

/// Few are enough for Ayoconnect and for operators, whatever the descriptors; and who only holds them shuts
/// neither out.
#[tokio::test]
async fn the_other_listeners_hold_fewer() {
    let callbacks = "callbacks: { listen: { address: 127.0.0.1:0 }, secret: 0123456789abcdef0123456789abcdef, \
                     deliver: { url: http://127.0.0.1:9/, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw } }";
    ayova::server::raise_descriptors().unwrap();
    let gateway = Gateway::start_with("http://127.0.0.1:9", ", header_timeout: 1h", callbacks).await;
    let ready: serde_json::Value = serde_json::from_str(&gateway.running.err.line_with("\"ready\"").await).unwrap();
    for (listener, most) in [("callbacks", 1_024), ("admin", 64)] {
        let address = ready[listener].as_str().unwrap();
        let mut held = Vec::new();
        for _ in 0..ayova::server::connections(most, 1) {
            held.push(connect(address).await);
        }
        if listener == "admin" {
            assert_eq!(run(&["healthcheck", "--admin", address]).await.code, Some(0));
            assert_eq!(run(&["healthcheck", "--live", "--admin", address]).await.code, Some(0));
        } else {
            let path = "/callbacks/snap/AYOTST/0123456789abcdef0123456789abcdef";
            assert_eq!(ask(address, &request("POST", path, "", "{}")).await.status, 200);
        }
        // Evicted, or on a slow machine ended after its 5 s of silence: tests/it/listeners.rs tells the two apart.
        assert!(is_closed(&mut held[0]).await, "{listener}: the first one made room");
        assert_eq!(counted_of(&gateway, listener, "too_many").await, 0, "{listener}");
        // The last one has its place.
        let last = held.last_mut().unwrap();
        last.write_all(kept_alive("GET", "/nowhere", "", "").as_bytes()).await.unwrap();
        assert_eq!(answer(last).await.status, 404, "{listener}");
    }
}

/// Attackers of each kind, over and over, until told to stop.
async fn attack(address: String, kind: usize, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
        let pieces: &[&[u8]] = match kind % 5 {
            // A head byte by byte, a body that does not come, no head at all, and heads that are none.
            0 => &[b"P", b"O", b"S", b"T", b" ", b"/"],
            1 => &[b"POST /va/api/v2.0/transfer-va/create-va HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"{"],
            2 => &[],
            3 => &[b"\x16\x03\x01\x02\x00\r\n\r\n"],
            _ => &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"],
        };
        for piece in pieces {
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // Holds on until it is thrown out.
        while !stop.load(Ordering::Relaxed) && !is_closed_soon(&mut stream).await {}
    }
}

async fn is_closed_soon(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 1024];
    match tokio::time::timeout(Duration::from_millis(100), stream.read(&mut bytes)).await {
        Ok(Ok(count)) => count == 0,
        Ok(Err(_)) => true,
        Err(_) => false,
    }
}

#[tokio::test]
async fn others_go_on_while_attackers_are_thrown_out() {
    let sandbox = Sandbox::start().await;
    let settings = ", header_timeout: 300ms, body_timeout: 300ms";
    let gateway = Gateway::start_with(&format!("http://{}", sandbox.address), settings, "").await;
    let stop = Arc::new(AtomicBool::new(false));
    let attackers: Vec<_> =
        (0..100).map(|kind| tokio::spawn(attack(gateway.listen.clone(), kind, Arc::clone(&stop)))).collect();
    until("that attackers are thrown out", || async {
        counted(&gateway, "too_slow").await > 40 && counted(&gateway, "malformed").await > 20
    })
    .await;
    let began = tokio::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(ask(&gateway.listen, &create("order-1")).await.status, 200);
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.await.unwrap();
    }
    assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], 1);
}

/// Bytes of a process that are in memory.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What was asked for: more than a thousand of each kind, by hand ten thousand (`AYOVA_IDLE=10000`).
const IDLE_MOST: u64 = 20 * 1024;

/// Ways to be idle; of TLS where it says so.
const IDLE: [&str; 5] = ["silent", "kept", "HTTP/2", "silent, TLS", "kept, TLS"];

/// A connection that says this much and no more.
async fn idle(way: &Way, kind: &str) -> Box<dyn Stream> {
    let mut stream = way.connect().await;
    if kind.starts_with("kept") {
        stream.write_all(kept_alive("GET", "/nowhere", "", "").as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await.status, 404);
    } else if kind == "HTTP/2" {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // Its settings, of which the length is enough.
        stream.read_exact(&mut [0; 9]).await.unwrap();
    }
    stream
}

/// Resident memory a connection of a kind, none of which may slow others down.
async fn cost_of_idle(kind: &str, count: u64) -> u64 {
    let sandbox = Sandbox::start().await;
    let (tls, client) = over_tls_if(kind.ends_with("TLS"));
    let upstream = format!("http://{}", sandbox.address);
    let gateway = Gateway::start_with(&upstream, &format!(", header_timeout: 1h{}", tls.listen), "").await;
    let process = gateway.running.child.id().unwrap();
    let way = Way { address: gateway.listen.clone(), client };
    let mut asking = way.connect().await;
    let mut ask = async || {
        let create = create("order-1").replace("Connection: close\r\n", "");
        asking.write_all(create.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut asking).await.status, 200);
    };
    // What is allocated once has been, by the time it is measured.
    for _ in 0..50 {
        ask().await;
    }
    let before = resident(process);
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(idle(&way, kind).await);
    }
    let began = tokio::time::Instant::now();
    for _ in 0..50 {
        ask().await;
    }
    assert!(began.elapsed() < PATIENCE / 3, "{kind}: {:?}", began.elapsed());
    // All of them have been accepted once one that came later is answered.
    let mut last = idle(&way, "kept").await;
    let each = resident(process).saturating_sub(before) / count;
    // Whoever comes back is served.
    if kind.starts_with("kept") {
        for stream in &mut held {
            stream.write_all(kept_alive("GET", "/nowhere", "", "").as_bytes()).await.unwrap();
            assert_eq!(answer(stream).await.status, 404);
        }
    }
    last.shutdown().await.unwrap();
    each
}

/// Nothing of TLS, or what it needs.
struct Tls {
    listen: String,
    _folder: TempDir,
}

fn over_tls_if(wanted: bool) -> (Tls, Option<TlsConnector>) {
    let folder = tempfile::tempdir().unwrap();
    let (listen, client) = over_tls(folder.path());
    let listen = if wanted { listen } else { String::new() };
    (Tls { listen, _folder: folder }, wanted.then_some(client))
}

#[tokio::test]
async fn idle_connections_cost_little_and_hold_up_nobody() {
    let count = std::env::var("AYOVA_IDLE").ok().map_or(1_500, |count| count.parse().unwrap());
    ayova::server::raise_descriptors().unwrap();
    let mut costs = Vec::new();
    for kind in IDLE {
        costs.push((kind, cost_of_idle(kind, count).await));
    }
    println!("{count} each: {costs:?}");
    assert!(costs.iter().all(|(_, each)| *each < IDLE_MOST), "{costs:?}");
}
