//! Requests that two readers could take for different ones, and paths that only look like ours: what the
//! app gets, and what Ayoconnect (the simulator's own list of requests) got: nothing, or exactly one
//! well-formed request.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{CREATE_BODY, CREATE_PATH, Gateway, Sandbox, answer, connect, get, kept_alive, patiently};

/// What is sent on one connection, in one piece.
struct Case {
    name: &'static str,
    sent: String,
    /// The statuses of the answers, in their order.
    answers: &'static [u16],
    /// Creates that Ayoconnect may have got.
    creates: usize,
}

const fn case(name: &'static str, sent: String, answers: &'static [u16], creates: usize) -> Case {
    Case { name, sent, answers, creates }
}

/// A create whose head has these lines and no others that frame it; `CASE` becomes the case's own.
fn post(lines: &str, body: &str) -> String {
    format!("POST {CREATE_PATH} HTTP/1.1\r\nHost: test\r\nIdempotency-Key: CASE\r\n{lines}\r\n{body}")
}

fn length() -> String {
    format!("Content-Length: {}\r\n", CREATE_BODY.len())
}

/// A create that is as it should be.
fn good() -> String {
    post(&length(), CREATE_BODY)
}

fn chunks() -> String {
    format!("{:x}\r\n{CREATE_BODY}\r\n0\r\n\r\n", CREATE_BODY.len())
}

/// The same create asking for another path.
fn at(path: &str) -> String {
    good().replacen(CREATE_PATH, path, 1)
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
/// What a smuggler hides behind a request.
const HIDDEN: &str = "GET /va/api/v2.0/hidden HTTP/1.1\r\nHost: test\r\n\r\n";

/// Heads that say twice, or not clearly, where the body ends.
fn framings() -> Vec<Case> {
    let (length, chunks) = (length(), chunks());
    let framed = |lines: &str| post(lines, &chunks);
    let chunked = |body: &str| post(CHUNKED, body);
    let size = CREATE_BODY.len();
    vec![
        case("length, then encoding", framed(&format!("{length}{CHUNKED}")), &[400], 0),
        case("encoding, then length", framed(&format!("{CHUNKED}{length}")), &[400], 0),
        case(
            "a length that hides a request",
            post(&format!("{CHUNKED}Content-Length: 5\r\n"), &format!("0\r\n\r\n{HIDDEN}")),
            &[400],
            0,
        ),
        case("equal lengths", post(&length.repeat(2), CREATE_BODY), &[400], 0),
        case("two lengths", post(&format!("{length}Content-Length: 2\r\n"), CREATE_BODY), &[400], 0),
        case("lengths in a list", post(&format!("Content-Length: {size}, {size}\r\n"), CREATE_BODY), &[400], 0),
        case("a length with a sign", post(&format!("Content-Length: +{size}\r\n"), CREATE_BODY), &[400], 0),
        case("a negative length", post("Content-Length: -1\r\n", CREATE_BODY), &[400], 0),
        case("a length in hexadecimal", post(&format!("Content-Length: 0x{size:x}\r\n"), CREATE_BODY), &[400], 0),
        case("no length's value", post("Content-Length:\r\n", CREATE_BODY), &[400], 0),
        case("a length nobody has", post("Content-Length: 99999999999999999999\r\n", ""), &[400], 0),
        case("an encoding twice", framed(&CHUNKED.repeat(2)), &[400], 0),
        case("an encoding before", framed("Transfer-Encoding: gzip, chunked\r\n"), &[400], 0),
        case("an encoding behind", framed("Transfer-Encoding: chunked, gzip\r\n"), &[400], 0),
        case("another encoding", framed("Transfer-Encoding: identity\r\n"), &[400], 0),
        case("almost the encoding", framed("Transfer-Encoding: xchunked\r\n"), &[400], 0),
        case("a quoted encoding", framed("Transfer-Encoding: \"chunked\"\r\n"), &[400], 0),
        case("a folded encoding", framed("Transfer-Encoding:\r\n chunked\r\n"), &[400], 0),
        case("a space before the colon", framed("Transfer-Encoding : chunked\r\n"), &[400], 0),
        case("a vertical tab", framed("Transfer-Encoding: \x0bchunked\r\n"), &[400], 0),
        case("HTTP/1.0 with an encoding", framed(CHUNKED).replacen("HTTP/1.1", "HTTP/1.0", 1), &[400], 0),
        case("no number of a chunk", chunked("zz\r\n{}\r\n0\r\n\r\n"), &[400], 0),
        case("a negative chunk", chunked("-2\r\n{}\r\n0\r\n\r\n"), &[400], 0),
        case("a prefixed chunk", chunked(&chunks.replacen(&format!("{size:x}"), &format!("0x{size:x}"), 1)), &[400], 0),
        case("a chunk nobody has", chunked("ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"), &[400], 0),
        case("a chunk longer than its number", chunked(&chunks.replacen(&format!("{size:x}"), "5", 1)), &[400], 0),
        case("a chunk that ends in a line feed", chunked(&chunks.replacen("\r\n", "\n", 1)), &[400], 0),
        case("an extension with a line feed", chunked(&chunks.replacen("\r\n", ";a\nb\r\n", 1)), &[400], 0),
        case("a body that breaks off", post(&length, "{"), &[400], 0),
        case("chunks that break off", chunked("2\r\n{}\r\n"), &[400], 0),
    ]
}

/// Heads whose lines are not what they should be.
fn lines() -> Vec<Case> {
    let length = length();
    let with = |line: &str| post(&format!("{length}{line}"), CREATE_BODY);
    vec![
        case("bare line feeds", good().replace("\r\n", "\n"), &[400], 0),
        case("one bare line feed", with("A: b\nC: d\r\n"), &[400], 0),
        case("a bare carriage return", with("A: b\rC: d\r\n"), &[400], 0),
        case("a line that is folded", with("A: b\r\n c: d\r\n"), &[400], 0),
        case("a line folded by a tab", with("A: b\r\n\tc: d\r\n"), &[400], 0),
        case("a zero byte", with("A: b\0c\r\n"), &[400], 0),
        case("a name that is none", with("A b: c\r\n"), &[400], 0),
        case("no name", with(": c\r\n"), &[400], 0),
        case("no host", good().replace("Host: test\r\n", ""), &[400], 0),
        case("two hosts", with("Host: other\r\n"), &[400], 0),
        case("too many lines", with(&"A: b\r\n".repeat(1_000)), &[431], 0),
        case("too long a line", with(&format!("A: {}\r\n", "a".repeat(200_000))), &[431], 0),
        case("another protocol", good().replacen("HTTP/1.1", "HTTP/2.0", 1), &[400], 0),
        case("a protocol with a space", good().replacen("HTTP/1.1", "HTTP/1.1 x", 1), &[400], 0),
    ]
}

/// Paths that a proxy before or an upstream behind might take for another.
fn paths() -> Vec<Case> {
    let folder = "/va/api/v2.0/transfer-va";
    let not_found = |name, path: &str| case(name, at(path), &[404], 0);
    vec![
        not_found("a dotted path", &format!("{folder}/../transfer-va/create-va")),
        not_found("a path with a dot", &format!("{folder}/./create-va")),
        not_found("an encoded dotted path", &format!("{folder}/%2e%2e/transfer-va/create-va")),
        not_found("an encoded slash", &CREATE_PATH.replacen("/create-va", "%2fcreate-va", 1)),
        not_found("an encoded letter", &CREATE_PATH.replacen("create", "%63reate", 1)),
        not_found("two slashes", &format!("/{CREATE_PATH}")),
        not_found("a slash behind", &format!("{CREATE_PATH}/")),
        not_found("a parameter", &format!("{CREATE_PATH};a=b")),
        not_found("another case", &CREATE_PATH.to_uppercase()),
        not_found("an encoded question mark", &format!("{CREATE_PATH}%3fa=b")),
        not_found("a zero byte, encoded", &format!("{CREATE_PATH}%00")),
        not_found("a backslash", &CREATE_PATH.replacen("/create", "\\create", 1)),
        case("a fragment", at(&format!("{CREATE_PATH}#a")), &[400], 0),
        case("a space", at(&format!("{CREATE_PATH} a")), &[400], 0),
        case("no path", at("va/api"), &[400], 0),
        case("the whole server", good().replacen(&format!("POST {CREATE_PATH}"), "OPTIONS *", 1), &[404], 0),
        case("a tunnel", good().replacen(&format!("POST {CREATE_PATH}"), "CONNECT test:443", 1), &[404], 0),
        case("an echo", good().replacen("POST", "TRACE", 1), &[405], 0),
        case("another method", good().replacen("POST", "POST_", 1), &[405], 0),
        case("absolute, another's path", at("http://127.0.0.1:9/elsewhere"), &[404], 0),
        case("absolute form", at(&format!("http://elsewhere.example{CREATE_PATH}")), &[200], 1),
    ]
}

/// What is unusual and right, and what comes one behind the other.
fn right() -> Vec<Case> {
    let (length, chunks) = (length(), chunks());
    let with = |line: &str| post(&format!("{length}{line}"), CREATE_BODY);
    let chunked = |body: &str| post(CHUNKED, body);
    let doubtful = post(&format!("{length}{CHUNKED}"), &chunks);
    let second =
        |sent: String| sent.replace("CASE", "CASE-second").replace(ID, OTHER_ID).replace(ACCOUNT, OTHER_ACCOUNT);
    vec![
        case("as it should be", good(), &[200], 1),
        case("blank lines first", format!("\r\n\r\n{}", good()), &[200], 1),
        case(
            "names in capitals",
            good()
                .to_uppercase()
                .replace(&CREATE_PATH.to_uppercase(), CREATE_PATH)
                .replace(&CREATE_BODY.to_uppercase(), CREATE_BODY),
            &[200],
            1,
        ),
        case("chunks with extensions", chunked(&chunks.replacen("\r\n", ";a=\"b\";c\r\n", 1)), &[200], 1),
        case("a trailer", chunked(&chunks.replacen("0\r\n", "0\r\nContent-Length: 5\r\nHost: b\r\n", 1)), &[200], 1),
        case("an announced trailer", post(&format!("{CHUNKED}Trailer: A\r\nTE: trailers\r\n"), &chunks), &[200], 1),
        case("asking first", with("Expect: 100-continue\r\n"), &[100, 200], 1),
        case(
            "another protocol offered",
            with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
            &[200],
            1,
        ),
        case(
            "a websocket",
            with("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"),
            &[200],
            1,
        ),
        case("a header to be dropped", with("Connection: close, X-EXTERNAL-ID\r\n"), &[200], 1),
        case("HTTP/1.0", good().replacen("HTTP/1.1", "HTTP/1.0", 1), &[200], 1),
        case("two at once", format!("{}{}", good(), second(good())), &[200, 200], 2),
        case("a doubtful one behind", format!("{}{}", good(), second(doubtful.clone())), &[200, 400], 1),
        case(
            "a doubtful one behind chunks",
            format!("{}{}", chunked(&chunks), second(doubtful.clone())),
            &[200, 400],
            1,
        ),
        case("a doubtful one before", format!("{doubtful}{}", second(good())), &[400], 0),
        case(
            "one that is hidden in a body",
            format!("{}{HIDDEN}", post(&length.replacen("Length: ", "Length: 0", 1), CREATE_BODY)),
            &[200, 404],
            1,
        ),
    ]
}

/// The id of the create that all others are made from.
const ID: &str = "7f3b1c9e5a2d4f608b1e3c7a9d5f2b41";
/// Its account's number.
const ACCOUNT: &str = "12345678901";
const OTHER_ACCOUNT: &str = "22345678901";
const OTHER_ID: &str = "7f3b1c9e5a2d4f608b1e3c7a9d5fffff";

#[tokio::test]
async fn ayoconnect_gets_nothing_or_one_request_that_is_well_formed() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    all_cases(&sandbox, &gateway, "").await;
}

/// Where so many connections have begun to say something, one that was answered is parked at once.
#[tokio::test]
async fn the_same_comes_over_connections_that_were_parked() {
    let sandbox = Sandbox::start().await;
    let upstream = format!("http://{}", sandbox.address);
    let gateway = Gateway::start_with(&upstream, ", header_timeout: 1h", "").await;
    let mut begun = Vec::new();
    for _ in 0..600 {
        let mut stream = connect(&gateway.listen).await;
        stream.write_all(b"G").await.unwrap();
        begun.push(stream);
    }
    all_cases(&sandbox, &gateway, &kept_alive("GET", "/nowhere", "", "")).await;
}

/// Each case on a connection that was asked this before.
async fn all_cases(sandbox: &Sandbox, gateway: &Gateway, before: &str) {
    let mut creates = 0;
    let cases = [framings(), lines(), paths(), right()].concat_all();
    assert!(cases.len() > 70);
    for (number, Case { name, sent, answers, creates: more }) in cases.iter().enumerate() {
        // Each is a create of its own, which no stored answer can stand in for.
        let sent = sent.replace("CASE", &format!("case-{number}"));
        let sent = sent.replace(ID, &format!("{number:032x}")).replace(OTHER_ID, &format!("f{number:031x}"));
        let sent = sent.replace(OTHER_ACCOUNT, &format!("2{number:010}"));
        let sent = sent.replace(ACCOUNT, &format!("1{number:010}"));
        assert_eq!(exchange(&gateway.listen, before, &sent).await, *answers, "{name}");
        creates += more;
        let got = requests(sandbox).await;
        assert_eq!(got.len(), creates, "{name}: {:#?}", got.last());
        for request in got.iter().skip(creates - more) {
            assert_well_formed(request, name);
        }
    }
    let metrics = get(&gateway.admin, "/metrics").await.body;
    let refused = "ayova_connections_refused_total{listener=\"app\",cause=\"malformed\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(refused)).unwrap_or_else(|| panic!("{metrics}"));
    let expected = cases.iter().filter(|case| case.answers.iter().any(|status| [400, 431].contains(status))).count();
    // Bodies that break off were refused by the stack, not by the listener.
    assert!((expected - 10..=expected).contains(&count.parse().unwrap()), "{count} of {expected}");
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Case>;
}

impl<const N: usize> ConcatAll for [Vec<Case>; N] {
    fn concat_all(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

/// Sends all of it, then nothing more; the statuses of what comes back until the connection ends.
async fn exchange(address: &str, before: &str, sent: &str) -> Vec<u16> {
    let mut stream = connect(address).await;
    if !before.is_empty() {
        stream.write_all(before.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await.status, 404);
    }
    let mut received = Vec::new();
    let exchanging = async {
        // A refusal may come, and the connection end, before everything is written.
        let _ = stream.write_all(sent.as_bytes()).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut received).await;
    };
    patiently("the connection's end", exchanging).await;
    let text = String::from_utf8(received).unwrap();
    let answers = text.split("HTTP/1.").skip(1);
    answers.map(|answer| answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)).collect()
}

/// What Ayoconnect got besides logins.
async fn requests(sandbox: &Sandbox) -> Vec<Value> {
    let shown = sandbox.get("/_sandbox/requests").await;
    let all = shown["requests"].as_array().unwrap().clone();
    all.into_iter().filter(|request| request["operation"] != "snap.token").collect()
}

#[track_caller]
fn assert_well_formed(request: &Value, name: &str) {
    assert_eq!((request["method"].as_str(), request["path"].as_str()), (Some("POST"), Some(CREATE_PATH)), "{name}");
    let (headers, body) = (&request["headers"], request["body"].as_str().unwrap());
    assert_eq!(headers["content-length"], body.len().to_string(), "{name}");
    for absent in ["transfer-encoding", "upgrade", "expect", "te", "trailer", "connection", "http2-settings"] {
        assert!(headers[absent].is_null(), "{name}: {absent}");
    }
    assert!(headers["host"].as_str().unwrap().starts_with("127.0.0.1:"), "{name}");
    let created: Value = serde_json::from_str(body).unwrap();
    assert_eq!(created["virtualAccountName"], "Budi Santoso", "{name}");
}
