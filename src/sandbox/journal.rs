//! What was asked, what was answered, and which checks said what: the last thousand requests.
//!
//! Promises bounded memory: [`ENTRIES_MAX`] entries, bodies cut at [`BODY_MAX`] bytes. Everything in it
//! is shown, tokens too, since the simulator guards nothing.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::service::Received;
use crate::clock;

/// Requests remembered.
pub(super) const ENTRIES_MAX: usize = 1_000;
/// Bytes of a body that are kept.
pub(super) const BODY_MAX: usize = 8 * 1024;

/// The verdicts of the checks that a request went through, in their order.
#[derive(Debug, Default)]
pub(super) struct Checks(Vec<(&'static str, Option<String>)>);

impl Checks {
    /// Notes a check's verdict and hands its result on.
    ///
    /// # Errors
    /// The check's own.
    pub(super) fn note<T, E: fmt::Display>(&mut self, name: &'static str, result: Result<T, E>) -> Result<T, E> {
        self.0.push((name, result.as_ref().err().map(ToString::to_string)));
        result
    }

    fn show(&self) -> Value {
        self.0
            .iter()
            .map(|(name, refusal)| match refusal {
                None => json!({"check": name, "passed": true}),
                Some(reason) => json!({"check": name, "passed": false, "reason": reason}),
            })
            .collect()
    }
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum End {
    /// With this answer.
    Answered(Answer),
    /// With a closed connection.
    Reset,
    /// Not at all.
    Hanging,
}

/// One request.
#[derive(Debug)]
pub(super) struct Entry {
    /// Real time.
    pub(super) at: Timestamp,
    /// What came.
    pub(super) received: Received,
    /// Which operation, where the route was known.
    pub(super) operation: Option<&'static str>,
    /// The fault it met.
    pub(super) fault: Option<&'static str>,
    /// What the checks said.
    pub(super) checks: Checks,
    /// How it ended.
    pub(super) end: End,
}

impl Entry {
    fn show(&self) -> Value {
        let (answer, ended) = match &self.end {
            End::Answered(answer) => {
                (json!({"status": answer.status.as_u16(), "body": text(&answer.body)}), "answered")
            }
            End::Reset => (Value::Null, "reset"),
            End::Hanging => (Value::Null, "hanging"),
        };
        json!({
            "at": clock::iso8601(self.at),
            "operation": self.operation,
            "method": self.received.method.as_str(),
            "path": self.received.path,
            "query": self.received.query,
            "headers": headers(&self.received.headers),
            "body": text(&self.received.body),
            "fault": self.fault,
            "checks": self.checks.show(),
            "ended": ended,
            "answer": answer,
        })
    }
}

fn headers(map: &HeaderMap) -> Value {
    let mut shown = Map::new();
    for name in map.keys() {
        let values: Vec<_> = map.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        shown.insert(name.as_str().to_owned(), json!(values.join(", ")));
    }
    Value::Object(shown)
}

fn text(body: &Bytes) -> String {
    let kept = body.get(..BODY_MAX).unwrap_or(body);
    String::from_utf8_lossy(kept).into_owned()
}

/// The requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct Journal(VecDeque<Entry>);

impl Journal {
    /// Adds a request, forgetting the oldest where there are too many.
    pub(super) fn add(&mut self, mut entry: Entry) {
        entry.received.body = cut(entry.received.body);
        if let End::Answered(answer) = &mut entry.end {
            answer.body = cut(std::mem::take(&mut answer.body));
        }
        while self.0.len() >= ENTRIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// What `GET /_sandbox/requests` shows, oldest first.
    #[must_use]
    pub(super) fn show(&self) -> Value {
        self.0.iter().map(Entry::show).collect()
    }
}

/// A copy where the body is too long, so that the rest of it can be freed.
fn cut(body: Bytes) -> Bytes {
    match body.get(..BODY_MAX) {
        Some(kept) if body.len() > BODY_MAX => Bytes::copy_from_slice(kept),
        Some(_) | None => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut journal = Journal::default();
        for number in 0..=ENTRIES_MAX {
            let received = Received {
                method: http::Method::POST,
                path: format!("/{number}"),
                query: None,
                headers: HeaderMap::new(),
                body: Bytes::from(vec![b'x'; BODY_MAX + 1]),
            };
            let answer = Answer::bytes(http::StatusCode::OK, vec![b'y'; BODY_MAX + 1]);
            let (at, checks) = (Timestamp::UNIX_EPOCH, Checks::default());
            journal.add(Entry { at, received, operation: None, fault: None, checks, end: End::Answered(answer) });
        }
        let shown = journal.show();
        assert_eq!(shown.as_array().unwrap().len(), ENTRIES_MAX);
        assert_eq!(shown[0]["path"], "/1");
        assert_eq!(shown[0]["body"].as_str().unwrap().len(), BODY_MAX);
        assert_eq!(shown[0]["answer"]["body"].as_str().unwrap().len(), BODY_MAX);
    }
}
