//! The operator's pages about payment callbacks: what waits, what failed, and sending it again.
//!
//! Shows of a callback what an operator needs to find it, never its body: that holds names and phones.
//! What the app was told is told again under the same id, so that an app that has it can tell.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{View, json_response, not_known, percent_decoded, problem, store_trouble};
use crate::callback::after;
use crate::clock::iso8601;
use crate::dialect::number::masked;
use crate::store::inbox::{Again, Event, Replayed, State};
use crate::telemetry::metrics::Waiting;

impl View {
    /// `GET /callbacks?state=`
    pub(super) async fn callbacks(&self, query: &str) -> Response<Full<Bytes>> {
        let states = match parameter(query, "state") {
            None => State::ALL.to_vec(),
            Some(name) => match State::from_name(&name) {
                Some(state) => vec![state],
                None => {
                    let why = "state must be pending, delivered, dead or quarantined";
                    return problem(StatusCode::BAD_REQUEST, why);
                }
            },
        };
        let mut found = Vec::new();
        for state in states {
            match self.store.inbox().events(state, LISTED_MAX).await {
                Ok(events) => found.extend(events),
                Err(error) => return store_trouble(&error.to_string()),
            }
        }
        found.sort_by_key(|event| std::cmp::Reverse(event.received));
        found.truncate(LISTED_MAX);
        json_response(StatusCode::OK, &json!({"callbacks": found.iter().map(describe).collect::<Vec<_>>()}))
    }

    /// `GET /callbacks/{id}`
    pub(super) async fn callback(&self, id: &str) -> Response<Full<Bytes>> {
        match self.store.inbox().event(&percent_decoded(id)).await {
            Ok(Some(event)) => json_response(StatusCode::OK, &describe(&event)),
            Ok(None) => not_known("callback"),
            Err(error) => store_trouble(&error.to_string()),
        }
    }

    /// `POST /callbacks/{id}/replay` and `POST /callbacks/replay?since=`
    pub(super) async fn replay(&self, path: &str, query: &str) -> Response<Full<Bytes>> {
        if path == "/callbacks/replay" {
            return self.replay_since(query).await;
        }
        let id = path.strip_prefix("/callbacks/").and_then(|rest| rest.strip_suffix("/replay"));
        let Some(id) = id.filter(|id| !id.is_empty() && !id.contains('/')).map(percent_decoded) else {
            return not_known("page");
        };
        let merchant = match self.store.inbox().event(&id).await {
            Ok(event) => event.map(|event| event.merchant),
            Err(error) => return store_trouble(&error.to_string()),
        };
        let replayed = self.store.inbox().replay(&id, self.again(merchant.as_deref())).await;
        self.bell.ring();
        match replayed {
            Ok(Replayed::Queued | Replayed::Pending) => json_response(StatusCode::OK, &json!({"replayed": 1})),
            Ok(Replayed::Unknown) => not_known("callback"),
            Ok(Replayed::Unreadable) => {
                let why = "it was never taken for a payment, so there is nothing to deliver";
                problem(StatusCode::CONFLICT, why)
            }
            Err(error) => store_trouble(&error.to_string()),
        }
    }

    async fn replay_since(&self, query: &str) -> Response<Full<Bytes>> {
        // A plus sign that was not escaped arrives as a blank.
        let since = parameter(query, "since").and_then(|text| text.replace(' ', "+").parse::<Timestamp>().ok());
        let Some(since) = since else {
            return problem(StatusCode::BAD_REQUEST, "since must be a time such as 2026-01-05T10:00:00+07:00");
        };
        let replayed = self.store.inbox().replay_since(since, REPLAYED_MAX, self.again(None)).await;
        self.bell.ring();
        match replayed {
            Ok(count) => json_response(StatusCode::OK, &json!({"replayed": count, "more": count >= REPLAYED_MAX})),
            Err(error) => store_trouble(&error.to_string()),
        }
    }

    /// From now on for as long as that merchant's events are tried, or for the longest of all.
    fn again(&self, merchant: Option<&str>) -> Again {
        let now = self.clock.now();
        let of = |wanted: &str| self.retry_for.iter().find(|(name, _)| **name == *wanted).map(|(_, time)| *time);
        let longest = || self.retry_for.iter().map(|(_, time)| *time).max();
        Again { now, until: after(now, merchant.and_then(of).or_else(longest).unwrap_or_default()) }
    }

    /// Sets the gauges of what waits: of everybody who is configured, and of whoever is no longer but whose
    /// events the app has not got.
    pub(super) async fn count_events(&self) {
        if self.retry_for.is_empty() {
            return;
        }
        let Ok(backlog) = self.store.inbox().backlog().await else { return };
        let now = self.clock.now();
        let idle = self.retry_for.iter().filter(|(name, _)| backlog.iter().all(|waiting| waiting.merchant != *name));
        let idle = idle.map(|(name, _)| Waiting { merchant: Arc::clone(name), pending: 0, age_seconds: 0.0 });
        let busy = backlog.iter().map(|waiting| Waiting {
            merchant: Arc::clone(&waiting.merchant),
            pending: waiting.pending,
            age_seconds: now.duration_since(waiting.oldest).as_secs_f64().max(0.0),
        });
        self.metrics.events_waiting(idle.chain(busy));
    }
}

/// An event without its body, and of the number the last digits.
pub(super) fn describe(event: &Event) -> Value {
    json!({
        "id": event.id,
        "merchant": &*event.merchant,
        "dialect": event.dialect.name(),
        "type": event.kind.name(),
        "origin": event.origin.name(),
        "state": event.state.name(),
        "number": masked(&event.digits),
        "amount": event.amount.map(|amount| amount.to_string()),
        "paidAt": event.paid_at,
        "status": event.status,
        "confirmed": event.confirmed,
        "received": iso8601(event.received),
        "attempts": event.attempts,
        "next": event.due.map(iso8601),
        "until": iso8601(event.until),
        "ended": event.ended.map(iso8601),
        "last": event.said,
    })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Events on one page.
const LISTED_MAX: usize = 100;

/// Events that are sent again at one word.
const REPLAYED_MAX: usize = 10_000;
