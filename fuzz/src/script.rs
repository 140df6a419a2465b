//! A conversation as a text: what an app asks, and what upstream does with it.
//!
//! ```text
//! > POST /va/api/v2.0/transfer-va/create-va
//! X-EXTERNAL-ID: 0f1e2d3c4b5a69788796a5b4c3d2e1f0
//!
//! {"customerNo":"CUST000123"}
//! < lost
//! < 503 text/html
//! <html>
//! ```
//!
//! A line that begins with `> ` begins a request, one with `< ` says what becomes of the next call
//! upstream that is no login: `lost`, `broken`, `refused` or `hang` as their names say, or an answer that
//! is given instead: status, content type, and the body on the lines below. Calls beyond the last such
//! line reach the simulator.

use bytes::Bytes;
use http::{Method, StatusCode, Uri};

use super::text::{self, Head, line};

/// Requests and acts that are looked at; more tell nothing new.
const MOST: usize = 6;

/// A conversation.
#[derive(Debug, Default)]
pub struct Script {
    /// In order.
    pub asks: Vec<Ask>,
    /// In order.
    pub acts: Vec<Act>,
}

/// What an app asks.
#[derive(Debug)]
pub struct Ask {
    /// Any that HTTP allows.
    pub method: Method,
    /// As it came.
    pub target: Uri,
    /// Headers and body.
    pub head: Head,
}

/// What upstream does.
#[derive(Clone, Debug)]
pub enum Act {
    /// It arrives, and the answer is lost.
    Lost,
    /// It never arrives, which nobody can tell.
    Broken,
    /// No connection.
    Refused,
    /// Nothing comes back.
    Hang,
    /// It never arrives, and this comes back.
    Answer(StatusCode, String, Bytes),
}

/// Reads a conversation; sections that are none are left out.
pub fn read(data: &[u8]) -> Script {
    let mut script = Script::default();
    for section in sections(data) {
        let (first, rest) = line(section);
        let words: Vec<&str> = std::str::from_utf8(&first[2..]).unwrap_or_default().split(' ').collect();
        match (first[0], &words[..]) {
            (b'>', [method, target, ..]) if script.asks.len() < MOST => {
                if let (Ok(method), Ok(target)) = (Method::from_bytes(method.as_bytes()), target.parse()) {
                    script.asks.push(Ask { method, target, head: text::head(rest) });
                }
            }
            (b'<', [what, kind @ ..]) if script.acts.len() < MOST => script.acts.extend(act(what, kind, rest)),
            _ => {}
        }
    }
    script
}

fn act(what: &str, kind: &[&str], body: &[u8]) -> Option<Act> {
    match what {
        "lost" => Some(Act::Lost),
        "broken" => Some(Act::Broken),
        "refused" => Some(Act::Refused),
        "hang" => Some(Act::Hang),
        status => {
            // A final answer, as a client hands it over.
            let status = status.parse().ok().filter(|code| (200..600).contains(code))?;
            let kind = kind.first().copied().unwrap_or("application/json").to_owned();
            let body = body.strip_suffix(b"\n").unwrap_or(body);
            Some(Act::Answer(StatusCode::from_u16(status).ok()?, kind, Bytes::copy_from_slice(body)))
        }
    }
}

/// From each line that begins one to the next.
fn sections(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let begins = |at: &usize| {
        let opens = data[*at..].starts_with(b"> ") || data[*at..].starts_with(b"< ");
        opens && (*at == 0 || data[at - 1] == b'\n')
    };
    let starts: Vec<usize> = (0..data.len()).filter(begins).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([data.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &data[start..end])
}
