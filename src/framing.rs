//! Where each HTTP/1.1 request of a connection begins and ends, and whether its head leaves a doubt.
//!
//! Promises to call flawed whatever two readers could frame differently: more than one
//! `Content-Length` or one that is no number, `Transfer-Encoding` that is anything but `chunked` or
//! stands beside a length, lines that end in a bare line feed, folded lines, a fragment. hyper reads the same bytes
//! and decides what a request is; this reader only says when another one must wait and when an answer
//! must be a refusal. Where it loses track it lets everything pass and calls it flawed.

/// One request after another.
#[derive(Debug)]
pub(crate) struct Framing {
    part: Part,
    head: Head,
}

#[derive(Debug)]
enum Part {
    Head,
    /// Bytes of a body that are left.
    Length(u64),
    Chunks(Chunk),
    Over,
    /// No request begins after this one.
    Lost,
}

impl Default for Framing {
    fn default() -> Self {
        Self { part: Part::Head, head: Head::default() }
    }
}

impl Framing {
    /// Reads on, up to the end of the present request; says how many bytes belong to it.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += match &mut self.part {
                Part::Head => {
                    let (count, body) = self.head.read(rest);
                    if let Some(body) = body {
                        self.part = body;
                    }
                    count
                }
                Part::Length(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= count as u64;
                    if *left == 0 {
                        self.part = Part::Over;
                    }
                    count
                }
                Part::Chunks(chunk) => {
                    let (count, next) = chunk.read(rest);
                    if let Some(next) = next {
                        self.part = next;
                    }
                    count
                }
                Part::Over => break,
                Part::Lost => rest.len(),
            };
        }
        taken
    }

    /// Whether the present request has been read whole.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.part, Part::Over)
    }

    /// Whether its head leaves a doubt.
    pub(crate) const fn is_flawed(&self) -> bool {
        self.head.is_flawed
    }

    /// Whether its head has begun, if only with blank lines, and has not been read whole.
    pub(crate) const fn is_in_head(&self) -> bool {
        matches!(self.part, Part::Head) && self.head.has_bytes
    }
}

/// A head, line by line.
#[derive(Debug, Default)]
struct Head {
    /// The beginning of the present line, as far as it matters.
    line: Vec<u8>,
    /// The byte before the present one.
    before: u8,
    has_bytes: bool,
    /// Whether the request line was read; blank lines before it do not count.
    is_begun: bool,
    is_flawed: bool,
    length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    /// How many bytes were read, and the body that follows once the head is over.
    fn read(&mut self, bytes: &[u8]) -> (usize, Option<Part>) {
        self.has_bytes = true;
        let mut taken = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            taken += piece.len();
            let is_whole = piece.ends_with(b"\n");
            let text = if is_whole { piece.get(..piece.len() - 1).unwrap_or_default() } else { piece };
            // Not part of what a client may ask for; hyper would cut it off unseen.
            self.is_flawed |= !self.is_begun && text.contains(&b'#');
            let room = LINE_KEPT.saturating_sub(self.line.len()).min(text.len());
            self.line.extend_from_slice(text.get(..room).unwrap_or_default());
            self.before = text.last().copied().unwrap_or(self.before);
            if is_whole && let Some(body) = self.end_line() {
                return (taken, Some(body));
            }
        }
        (taken, None)
    }

    fn end_line(&mut self) -> Option<Part> {
        self.is_flawed |= self.before != b'\r';
        self.before = b'\n';
        let mut line = std::mem::take(&mut self.line);
        let is_cut = line.len() == LINE_KEPT;
        if line.ends_with(b"\r") {
            line.pop();
        }
        if line.is_empty() {
            return self.is_begun.then(|| self.body());
        }
        if self.is_begun {
            self.header(&line, is_cut);
        }
        self.is_begun = true;
        line.clear();
        // Its room serves the next line.
        self.line = line;
        None
    }

    fn header(&mut self, line: &[u8], is_cut: bool) {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            self.is_flawed = true;
        } else if let Some(value) = value_of(line, LENGTH) {
            let length = if is_cut { None } else { number(value) };
            self.is_flawed |= length.is_none() || self.length.is_some();
            self.length = self.length.or(length);
        } else if let Some(value) = value_of(line, ENCODING) {
            self.is_flawed |= is_cut || self.is_chunked || !value.eq_ignore_ascii_case(b"chunked");
            self.is_chunked = true;
        }
    }

    fn body(&mut self) -> Part {
        self.line = Vec::new();
        self.is_flawed |= self.is_chunked && self.length.is_some();
        match (self.is_flawed, self.is_chunked, self.length) {
            (true, _, _) => Part::Lost,
            (false, true, _) => Part::Chunks(Chunk::Size(0, 0)),
            (false, false, Some(length)) if length > 0 => Part::Length(length),
            (false, false, _) => Part::Over,
        }
    }
}

/// Where in a chunked body the reader is.
#[derive(Debug)]
enum Chunk {
    /// The number so far, and its digits.
    Size(u64, u8),
    /// What follows the number, to the end of the line.
    Extension(u64),
    /// Bytes left, its line end included.
    Data(u64),
    /// Bytes of the present line of the trailer, without its line end.
    Trailer(u8),
}

impl Chunk {
    /// How many bytes were read, and what comes after the body once it is over.
    fn read(&mut self, bytes: &[u8]) -> (usize, Option<Part>) {
        let mut taken = 0;
        while let Some((first, rest)) = bytes.get(taken..).and_then(<[u8]>::split_first) {
            if let Self::Data(left) = self {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len() + 1);
                *left -= count as u64;
                taken += count;
                if *left == 0 {
                    *self = Self::Size(0, 0);
                }
                continue;
            }
            taken += 1;
            if let Some(next) = self.step(*first) {
                return (taken, Some(next));
            }
        }
        (taken, None)
    }

    fn step(&mut self, byte: u8) -> Option<Part> {
        *self = match (&*self, byte) {
            (Self::Size(size, digits), byte) if byte.is_ascii_hexdigit() && *digits < DIGITS => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Self::Size(size << 4 | digit, digits + 1)
            }
            (Self::Size(size, 1..), b'\r' | b';' | b' ' | b'\t') => Self::Extension(*size),
            (Self::Extension(0), b'\n') => Self::Trailer(0),
            (Self::Extension(size), b'\n') => Self::Data(size + LINE_END),
            (Self::Extension(size), _) => Self::Extension(*size),
            (Self::Trailer(0), b'\n') => return Some(Part::Over),
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(count), b'\r') => Self::Trailer(*count),
            (Self::Trailer(_), _) => Self::Trailer(1),
            // hyper refuses it as well.
            (Self::Size(..) | Self::Data(_), _) => return Some(Part::Lost),
        };
        None
    }
}

/// What a header line says if it has this name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let is_it = line.get(..name.len())?.eq_ignore_ascii_case(name);
    line.get(name.len()..).filter(|_| is_it).map(|value| value.trim_ascii())
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok())
}

const LENGTH: &[u8] = b"content-length:";
const ENCODING: &[u8] = b"transfer-encoding:";
/// Bytes of a line that are kept: the longer name and whatever value makes sense.
const LINE_KEPT: usize = 64;
/// Digits of the largest chunk that fits a number with its line end.
const DIGITS: u8 = 15;
/// Bytes of a chunk's line end.
const LINE_END: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes the first request has and whether it is flawed, however it is cut into pieces.
    fn check(text: &str, length: usize, is_flawed: bool) {
        for size in [1, 3, 7, text.len()] {
            let mut framing = Framing::default();
            let mut taken = 0;
            for piece in text.as_bytes().chunks(size) {
                let count = framing.read(piece);
                taken += count;
                if count < piece.len() {
                    break;
                }
            }
            assert_eq!((taken, framing.is_flawed()), (length, is_flawed), "in pieces of {size}: {text}");
            assert!(framing.is_over() || is_flawed || taken == text.len());
        }
    }

    fn whole(request: &str) {
        check(&format!("{request}GET / HTTP/1.1\r\n"), request.len(), false);
    }

    fn flawed(headers: &str) {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        check(&text, text.len(), true);
    }

    #[test]
    fn a_request_ends_where_its_framing_says() {
        whole("GET / HTTP/1.1\r\n\r\n");
        whole("\r\n\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n");
        whole("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345");
        whole("POST / HTTP/1.1\r\nCONTENT-LENGTH:0005 \r\n\r\n12\r\n5");
        whole("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        whole("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
        whole(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nB;a=\"b\"\r\n0\r\n\r\nGET / \r\n00\r\nA: b\r\n\r\n",
        );
        whole("POST / HTTP/1.1\r\nX-Content-Length: 2\r\nContent-Lengths: 3\r\n\r\n");
    }

    #[test]
    fn what_two_readers_could_frame_differently_is_flawed() {
        flawed("Content-Length: 2\r\nTransfer-Encoding: chunked");
        flawed("TRANSFER-ENCODING:chunked\r\nA: b\r\ncontent-length:2");
        flawed("Content-Length: 2\r\nContent-Length: 2");
        flawed("Content-Length: 2, 2");
        flawed("Content-Length: +2");
        flawed("Content-Length: 18446744073709551616");
        flawed("Content-Length:");
        flawed("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
        flawed("Transfer-Encoding: gzip, chunked");
        flawed("Transfer-Encoding: identity");
        flawed("Transfer-Encoding: xchunked");
        flawed(&format!("Transfer-Encoding: {}chunked", " ".repeat(100)));
        flawed("A: b\n c: d");
        flawed("A: b\nContent-Length: 2");
        flawed("A: b\r\n folded: c");
        flawed("A: b\r\n\tfolded");
    }

    #[test]
    fn a_fragment_is_flawed_wherever_it_stands() {
        let line = format!("POST /{}#b HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", "a".repeat(100));
        check(&line, line.len(), true);
        whole("GET / HTTP/1.1\r\nA: #b\r\n\r\n");
    }

    #[test]
    fn a_chunk_size_nobody_means_loses_track() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for size in ["", "x", "-1", "ffffffffffffffff"] {
            let text = format!("{head}{size}\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            check(&text, text.len(), false);
        }
    }
}
