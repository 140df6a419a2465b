//! HTTP/2 from clients that mean no good: frames written by hand, each flood ended by the gateway, and
//! nothing of it upstream.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{CREATE_BODY, CREATE_PATH, Gateway, Sandbox, connect, patiently};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that no table remembers (RFC 7541 section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&integer(text.len(), 7)[..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// RFC 7541 section 5.1, the bits before the prefix being zero.
fn integer(value: usize, prefix: u32) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A create's head with more headers behind.
fn head(more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", CREATE_PATH)];
    let all = pseudo.iter().chain(&[("content-type", "application/json"), ("idempotency-key", "order-1")]).chain(more);
    all.flat_map(|(name, value)| literal(name, value)).collect()
}

/// A connection that has said hello.
async fn greet(address: &str) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// What came back: kinds of frames with stream and the payload's beginning.
#[derive(Default)]
struct Got(Vec<(u8, u32, Vec<u8>)>);

impl Got {
    /// The error code of the first frame of a kind.
    fn code(&self, wanted: u8) -> Option<u32> {
        let payload = &self.0.iter().find(|(kind, _, _)| *kind == wanted)?.2;
        let at = if wanted == GOAWAY { 4 } else { 0 };
        Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().unwrap()))
    }

    /// Whether the connection is to end for what was done over it.
    fn is_ended(&self) -> bool {
        self.code(GOAWAY).is_some_and(|code| code != 0)
    }

    /// Whether a stream has been answered or ended, or the connection.
    fn is_answered(&self) -> bool {
        self.is_ended() || self.count(HEADERS) + self.count(RST_STREAM) > 0
    }

    /// Whether an answer has status 200, which has an entry of its own in HPACK's table.
    fn is_good(&self) -> bool {
        self.0.iter().any(|(kind, _, payload)| *kind == HEADERS && payload.contains(&0x88))
    }

    fn count(&self, wanted: u8) -> usize {
        self.0.iter().filter(|(kind, _, _)| *kind == wanted).count()
    }
}

/// Writes pieces until the other side has had enough, reading until there is enough of its answers.
async fn flood(
    stream: TcpStream,
    mut piece: impl FnMut(u32) -> Vec<u8>,
    times: u32,
    enough: impl Fn(&Got) -> bool,
) -> Got {
    let (mut reader, mut writer) = stream.into_split();
    let writing = async move {
        for turn in 0..times {
            if writer.write_all(&piece(turn)).await.is_err() {
                break;
            }
        }
        // An end of writing would be one of the connection.
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut got = Got::default();
        let mut head = [0; 9];
        while !enough(&got) && reader.read_exact(&mut head).await.is_ok() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            if reader.read_exact(&mut payload).await.is_err() {
                break;
            }
            got.0.push((head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload));
        }
        got
    };
    patiently("the end of a flood", async {
        tokio::select! {
            () = writing => Got::default(),
            got = reading => got,
        }
    })
    .await
}

/// No create went upstream, and one that is as it should be still does.
async fn assert_nothing_but(gateway: &Gateway, sandbox: &Sandbox, creates: u64) {
    assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], creates);
    assert_eq!(gateway.create("order-1").await.status, 200);
}

#[tokio::test]
async fn floods_end_the_connection_and_reach_nobody() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let open = head(&[]);
    let stream_of = |turn: u32| 2 * turn + 1;
    // Opened and taken back at once, again and again (CVE-2023-44487).
    let reset = |turn: u32| {
        let opening = frame(HEADERS, END_HEADERS, stream_of(turn), &open);
        [opening, frame(RST_STREAM, 0, stream_of(turn), &8_u32.to_be_bytes())].concat()
    };
    let got = flood(greet(&gateway.listen).await, reset, 100_000, Got::is_ended).await;
    assert_eq!(got.code(GOAWAY), Some(11), "ENHANCE_YOUR_CALM");
    // A head that never ends (CVE-2024-27316).
    let endless = |turn: u32| match turn {
        0 => frame(HEADERS, 0, 1, &open),
        _ => frame(CONTINUATION, 0, 1, &literal("a", "b")),
    };
    let got = flood(greet(&gateway.listen).await, endless, 1_000_000, Got::is_ended).await;
    assert!(got.is_ended());
    // The same with nothing in it.
    let empty = |turn: u32| match turn {
        0 => frame(HEADERS, 0, 1, &open),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    let got = flood(greet(&gateway.listen).await, empty, 1_000_000, Got::is_ended).await;
    assert!(got.is_ended());
    // Streams that break a rule each, so that it is the gateway that takes them back.
    let wrong = |turn: u32| {
        let opening = frame(HEADERS, END_HEADERS, stream_of(turn), &open);
        [opening, frame(8, 0, stream_of(turn), &0_u32.to_be_bytes())].concat()
    };
    let got = flood(greet(&gateway.listen).await, wrong, 100_000, Got::is_ended).await;
    assert!(got.is_ended());
    assert_nothing_but(&gateway, &sandbox, 0).await;
}

#[tokio::test]
async fn a_connection_has_so_many_streams_and_a_head_so_many_bytes() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let open = head(&[]);
    // Their bodies never come; what is too many is refused, the others are told that they took too long.
    let streams = |turn| frame(HEADERS, END_HEADERS, 2 * turn + 1, &open);
    let got = flood(greet(&gateway.listen).await, streams, 300, |got| got.count(RST_STREAM) >= 300 - 128).await;
    assert_eq!(got.code(RST_STREAM), Some(7), "REFUSED_STREAM");
    // Twenty kilobytes, and a small head that becomes large: one header remembered, then named often.
    let large = head(&[("a", &"b".repeat(10_000)), ("c", &"d".repeat(10_000))]);
    let remembered = [vec![0x40], literal("a", &"b".repeat(3_000))[1..].to_vec()].concat();
    let bomb = [head(&[]), remembered, vec![0x80 | 62; 2_000]].concat();
    for block in [large, bomb] {
        let cut: Vec<&[u8]> = block.chunks(16_000).collect();
        let last = cut.len() - 1;
        let sent: Vec<u8> = cut
            .iter()
            .enumerate()
            .flat_map(|(index, piece)| {
                let kind = if index == 0 { HEADERS } else { CONTINUATION };
                let flags = if index == 0 { END_STREAM } else { 0 } | if index == last { END_HEADERS } else { 0 };
                frame(kind, flags, 1, piece)
            })
            .collect();
        let got = flood(greet(&gateway.listen).await, |_| sent.clone(), 1, Got::is_answered).await;
        // Whether an answer, the stream's end or the connection's is h2's choice.
        assert!(got.is_answered() && !got.is_good(), "{:?}", got.0);
    }
    assert_nothing_but(&gateway, &sandbox, 0).await;
}

#[tokio::test]
async fn requests_that_contradict_their_frames_reach_nobody() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let length = CREATE_BODY.len();
    let (short, long) = ((length - 1).to_string(), (length + 1).to_string());
    let cases: [(&str, &[(&str, &str)]); 9] = [
        ("a length too short", &[("content-length", &short)]),
        ("a length too long", &[("content-length", &long)]),
        ("an encoding", &[("transfer-encoding", "chunked")]),
        ("a connection header", &[("connection", "close")]),
        ("a name in capitals", &[("A", "b")]),
        ("a line feed in a value", &[("a", "b\r\nc: d")]),
        ("a zero byte in a value", &[("a", "b\0c")]),
        ("a second path", &[(":path", "/elsewhere")]),
        ("two hosts", &[("host", "a"), ("host", "b")]),
    ];
    for (name, more) in cases {
        let sent = [frame(HEADERS, END_HEADERS, 1, &head(more)), frame(DATA, END_STREAM, 1, CREATE_BODY.as_bytes())];
        let got = flood(greet(&gateway.listen).await, |_| sent.concat(), 1, Got::is_answered).await;
        assert!(got.is_answered() && !got.is_good(), "{name}: {:?}", got.0);
        assert_eq!(sandbox.get("/_sandbox/stats").await["creates"], 0, "{name}");
    }
    let sent = [frame(HEADERS, END_HEADERS, 1, &head(&[])), frame(DATA, END_STREAM, 1, CREATE_BODY.as_bytes())];
    let got = flood(greet(&gateway.listen).await, |_| sent.concat(), 1, Got::is_answered).await;
    assert!(got.is_good(), "the frames are right: {:?}", got.0);
    assert_nothing_but(&gateway, &sandbox, 1).await;
}

/// Pings whose answers nobody reads: the gateway stops reading rather than to keep answers.
#[tokio::test]
async fn unread_answers_are_not_heaped_up() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let mut stream = greet(&gateway.listen).await;
    let ping = frame(PING, 0, 0, &[0; 8]).repeat(1_000);
    let stuck = async {
        for _ in 0..100_000 {
            let writing = tokio::time::timeout(std::time::Duration::from_secs(1), stream.write_all(&ping)).await;
            if !matches!(writing, Ok(Ok(()))) {
                return true;
            }
        }
        false
    };
    assert!(patiently("that the gateway stops reading", stuck).await);
    assert_nothing_but(&gateway, &sandbox, 0).await;
}
