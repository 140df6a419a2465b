//! What every backend's inbox does: the behaviours `suite` runs against each.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::inbox::{
    Again, Arrival, Attempt, Counts, Doubt, Event, EventKind, Fate, Identity, Origin, Received, Replayed, State,
};
use super::suite::{Subject, at};
use crate::callback::notice;
use crate::dialect::Dialect;
use crate::document::Document;

/// A payment of an account; what is paid at another time is another payment.
pub(super) fn paid(id: &str, number: &str, time: i64, amount: &str) -> Arc<Arrival> {
    let data = json!({"virtualAccountNo": number, "latestPaidAmount": amount, "latestPaidTime": at(time).to_string(),
        "virtualAccountStatus": "Active"});
    arrived(id, &json!({"virtualAccountData": data}).to_string(), time)
}

fn arrived(id: &str, body: &str, time: i64) -> Arc<Arrival> {
    let body = Bytes::from(body.to_owned());
    let document = Document::parse(body.clone());
    let notice = document.map_err(|_| "it is not JSON").and_then(|document| notice::read(Dialect::Snap, &document));
    Arc::new(Arrival {
        id: id.to_owned(),
        merchant: "sample".into(),
        dialect: Dialect::Snap,
        kind: EventKind::Paid,
        origin: Origin::Callback,
        received: at(time),
        until: at(time + 1_000),
        body,
        notice,
        doubt: None,
        confirmed: false,
    })
}

fn ended(id: &str, time: i64, fate: Fate) -> Attempt {
    Attempt {
        id: id.to_owned(),
        at: at(time),
        attempts: 2,
        fate,
        said: "so".to_owned(),
        confirmed: true,
        counts: if fate == Fate::Quarantined { Counts::Nothing } else { Counts::InFull },
        doubt: None,
    }
}

async fn due(subject: &mut dyn Subject, time: i64) -> Vec<String> {
    let due = subject.next().inbox().due("sample", at(time), 100).await.unwrap();
    due.into_iter().map(|event| event.id).collect()
}

async fn event(subject: &mut dyn Subject, id: &str) -> Event {
    subject.next().inbox().event(id).await.unwrap().unwrap()
}

const ONE: &str = "   1462912345678901";
const OTHER: &str = "   1462912345678902";

pub(super) async fn a_callback_is_kept_once_and_comes_back_whole(subject: &mut impl Subject) {
    let arrival = paid("e1", ONE, 0, "5000.00");
    assert_eq!(subject.next().inbox().receive(Arc::clone(&arrival)).await.unwrap(), Received::Queued);
    let again = Arc::new(Arrival { id: "e2".to_owned(), received: at(9), ..(*arrival).clone() });
    assert_eq!(subject.next().inbox().receive(again).await.unwrap(), Received::Duplicate);
    assert_eq!(subject.next().inbox().event("e2").await.unwrap(), None);
    let notice = arrival.notice.as_ref().unwrap();
    let expected = Event {
        id: "e1".to_owned(),
        merchant: "sample".into(),
        dialect: Dialect::Snap,
        kind: EventKind::Paid,
        origin: Origin::Callback,
        digits: "1462912345678901".to_owned(),
        state: State::Pending,
        received: at(0),
        due: Some(at(0)),
        until: at(1_000),
        ended: None,
        attempts: 0,
        confirmed: false,
        counted: false,
        doubt: None,
        amount: Some(notice.amount),
        paid_at: notice.paid_at.clone(),
        status: Some("Active".to_owned()),
        said: None,
        body: arrival.body.clone(),
    };
    assert_eq!(event(subject, "e1").await, expected);
    assert_eq!(subject.next().inbox().due("sample", at(0), 10).await.unwrap(), vec![expected.clone()]);
    assert_eq!(subject.next().inbox().due("other", at(0), 10).await.unwrap(), vec![]);
    assert_eq!(subject.next().inbox().latest("sample", Dialect::Snap, &expected.digits).await.unwrap(), Some(expected));
    assert_eq!(subject.next().inbox().latest("other", Dialect::Snap, "1462912345678901").await.unwrap(), None);
}

pub(super) async fn payments_of_one_account_stand_in_line_and_others_go_on(subject: &mut impl Subject) {
    for (id, number, time) in [("a1", ONE, 0), ("b1", OTHER, 1), ("a2", ONE, 2), ("a3", ONE, 3)] {
        subject.next().inbox().receive(paid(id, number, time, "5000.00")).await.unwrap();
    }
    assert_eq!(due(subject, 9).await, ["a1", "b1"]);
    subject.next().inbox().attempted(ended("a1", 9, Fate::Postponed(at(20)))).await.unwrap();
    assert_eq!(due(subject, 9).await, ["b1"], "what stands behind does not overtake");
    assert_eq!(due(subject, 20).await, ["b1", "a1"]);
    subject.next().inbox().attempted(ended("a1", 21, Fate::Delivered)).await.unwrap();
    assert_eq!(due(subject, 21).await, ["b1", "a2"]);
    subject.next().inbox().attempted(ended("a2", 22, Fate::Dead)).await.unwrap();
    subject.next().inbox().attempted(ended("b1", 22, Fate::Quarantined)).await.unwrap();
    assert_eq!(due(subject, 22).await, ["a3"]);
    let first = event(subject, "a1").await;
    assert_eq!((first.state, first.attempts, first.ended), (State::Delivered, 2, Some(at(21))));
    assert_eq!((first.said.as_deref(), first.confirmed), (Some("so"), true));
    // What has ended is not ended again by a late word.
    subject.next().inbox().attempted(ended("a1", 30, Fate::Dead)).await.unwrap();
    assert_eq!(event(subject, "a1").await, first);
}

pub(super) async fn what_cannot_be_understood_is_kept_aside(subject: &mut impl Subject) {
    let received = subject.next().inbox().receive(arrived("q1", "no JSON", 0)).await.unwrap();
    assert_eq!(received, Received::Quarantined);
    // An announced payment with another amount is neither a repetition nor to be believed.
    subject.next().inbox().receive(paid("e1", ONE, 0, "5000.00")).await.unwrap();
    let other = paid("q2", ONE, 0, "9000.00");
    let key = paid("", ONE, 0, "5000.00").notice.clone().unwrap().key;
    let notice = other.notice.clone().map(|notice| notice::Notice { key, ..notice });
    let other = Arc::new(Arrival { notice, ..(*other).clone() });
    assert_eq!(subject.next().inbox().receive(other).await.unwrap(), Received::Quarantined);
    assert_eq!(due(subject, 9).await, ["e1"]);
    let listed = subject.next().inbox().events(State::Quarantined, 10).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["q2", "q1"]);
    assert_eq!(listed[1].said.as_deref(), Some("it is not JSON"));
    assert_eq!(listed[1].body, "no JSON");
    for id in ["q1", "q2"] {
        assert_eq!(subject.next().inbox().replay(id, until(5)).await.unwrap(), Replayed::Unreadable);
    }
}

pub(super) async fn what_is_not_believed_is_kept_aside_and_blocks_nothing(subject: &mut impl Subject) {
    let paid = |id: &str| (*paid(id, ONE, 0, "5000.00")).clone();
    let forged = |id: &str| Arc::new(Arrival { doubt: Some("it is not signed"), ..paid(id) });
    for id in ["q1", "q2"] {
        assert_eq!(subject.next().inbox().receive(forged(id)).await.unwrap(), Received::Quarantined);
        let kept = event(subject, id).await;
        assert_eq!((kept.state, kept.said.as_deref()), (State::Quarantined, Some("it is not signed")));
        // What it says is shown, so that a person can find out about it.
        let notice = paid(id).notice.unwrap();
        assert_eq!((kept.digits.as_str(), kept.amount), (notice.digits(), Some(notice.amount)));
        assert_eq!(subject.next().inbox().replay(id, until(5)).await.unwrap(), Replayed::Unreadable);
    }
    assert_eq!(due(subject, 9).await, Vec::<String>::new());
    let genuine = Arc::new(Arrival { confirmed: true, ..paid("e1") });
    assert_eq!(subject.next().inbox().receive(genuine).await.unwrap(), Received::Queued);
    assert_eq!(due(subject, 9).await, ["e1"]);
    assert!(event(subject, "e1").await.confirmed);
    // Once it is known, a forged copy of it is kept aside as well.
    assert_eq!(subject.next().inbox().receive(forged("q3")).await.unwrap(), Received::Quarantined);
    assert_eq!(due(subject, 9).await, ["e1"]);
}

fn until(time: i64) -> Again {
    Again { now: at(time), until: at(time + 1_000) }
}

pub(super) async fn a_payment_that_was_not_true_may_come_true(subject: &mut impl Subject) {
    subject.next().inbox().receive(paid("e1", ONE, 0, "5000.00")).await.unwrap();
    subject.next().inbox().attempted(ended("e1", 1, Fate::Quarantined)).await.unwrap();
    assert_eq!(due(subject, 9).await, Vec::<String>::new());
    assert_eq!(subject.next().inbox().latest("sample", Dialect::Snap, "1462912345678901").await.unwrap(), None);
    let again = Arc::new(Arrival { received: at(5), ..(*paid("e2", ONE, 0, "5000.00")).clone() });
    assert_eq!(subject.next().inbox().receive(Arc::clone(&again)).await.unwrap(), Received::Queued);
    assert_eq!(due(subject, 9).await, ["e1"], "under the id it had");
    let reopened = event(subject, "e1").await;
    assert_eq!((reopened.attempts, reopened.confirmed, reopened.doubt), (0, false, None));
    assert_eq!((reopened.received, reopened.due), (at(5), Some(at(5))));
    // One that is signed is confirmed at once, also in this place.
    subject.next().inbox().attempted(ended("e1", 6, Fate::Quarantined)).await.unwrap();
    let signed = Arc::new(Arrival { confirmed: true, ..(*again).clone() });
    assert_eq!(subject.next().inbox().receive(signed).await.unwrap(), Received::Queued);
    assert!(event(subject, "e1").await.confirmed);
}

pub(super) async fn what_is_announced_again_goes_to_the_end_of_its_line(subject: &mut impl Subject) {
    for (id, time) in [("a1", 0), ("a2", 1), ("a3", 2)] {
        subject.next().inbox().receive(paid(id, ONE, time, "5000.00")).await.unwrap();
    }
    subject.next().inbox().attempted(ended("a1", 3, Fate::Quarantined)).await.unwrap();
    let again = Arc::new(Arrival { received: at(4), ..(*paid("a9", ONE, 0, "5000.00")).clone() });
    assert_eq!(subject.next().inbox().receive(Arc::clone(&again)).await.unwrap(), Received::Queued);
    assert_eq!(subject.next().inbox().receive(again).await.unwrap(), Received::Duplicate);
    for expected in ["a2", "a3", "a1"] {
        assert_eq!(due(subject, 9).await, [expected]);
        subject.next().inbox().attempted(ended(expected, 9, Fate::Delivered)).await.unwrap();
    }
    assert_eq!(due(subject, 9).await, Vec::<String>::new());
}

pub(super) async fn doubts_are_kept_until_they_are_over(subject: &mut impl Subject) {
    subject.next().inbox().receive(paid("e1", ONE, 0, "5000.00")).await.unwrap();
    let doubt = Some(Doubt { since: at(1), denials: 2 });
    let postponed = Attempt { doubt, ..ended("e1", 3, Fate::Postponed(at(5))) };
    subject.next().inbox().attempted(postponed).await.unwrap();
    assert_eq!(event(subject, "e1").await.doubt, doubt);
    subject.next().inbox().attempted(ended("e1", 5, Fate::Postponed(at(7)))).await.unwrap();
    assert_eq!(event(subject, "e1").await.doubt, None);
}

pub(super) async fn an_event_can_turn_out_to_be_a_payment_no_other_is(subject: &mut impl Subject) {
    let timeless = |id: &str, name: &str| {
        let data = json!({"virtualAccountNo": ONE, "latestPaidAmount": "5000.00", "virtualAccountName": name});
        arrived(id, &json!({"virtualAccountData": data}).to_string(), 0)
    };
    for (id, name) in [("e1", "A"), ("e2", "B")] {
        subject.next().inbox().receive(timeless(id, name)).await.unwrap();
    }
    let payment = paid("", ONE, 5, "5000.00").notice.clone().unwrap().key;
    let identity = |id: &str| Identity { id: id.to_owned(), payment: payment.clone(), paid_at: at(5).to_string() };
    assert!(subject.next().inbox().identify(identity("e1")).await.unwrap());
    assert!(subject.next().inbox().identify(identity("e1")).await.unwrap(), "and again");
    assert!(!subject.next().inbox().identify(identity("e2")).await.unwrap(), "another one is");
    assert_eq!(event(subject, "e1").await.paid_at, Some(at(5).to_string()));
    let late = subject.next().inbox().receive(paid("e3", ONE, 5, "5000.00")).await.unwrap();
    assert_eq!(late, Received::Duplicate);
    // What is in quarantine was not true.
    subject.next().inbox().attempted(ended("e1", 6, Fate::Quarantined)).await.unwrap();
    assert!(subject.next().inbox().identify(identity("e2")).await.unwrap());
    assert!(!subject.next().inbox().identify(identity("e9")).await.unwrap());
}

pub(super) async fn what_has_ended_can_be_sent_again_in_its_place(subject: &mut impl Subject) {
    for (id, time) in [("a1", 0), ("a2", 1), ("a3", 2)] {
        subject.next().inbox().receive(paid(id, ONE, time, "5000.00")).await.unwrap();
    }
    for id in ["a1", "a2"] {
        subject.next().inbox().attempted(ended(id, 5, Fate::Dead)).await.unwrap();
    }
    assert_eq!(due(subject, 9).await, ["a3"]);
    assert_eq!(subject.next().inbox().replay("a2", until(10)).await.unwrap(), Replayed::Queued);
    assert_eq!(due(subject, 10).await, ["a2"]);
    let again = event(subject, "a2").await;
    assert_eq!((again.attempts, again.until, again.ended), (0, at(1_010), None));
    assert_eq!(subject.next().inbox().replay("a2", until(11)).await.unwrap(), Replayed::Pending);
    assert_eq!(subject.next().inbox().replay("a9", until(11)).await.unwrap(), Replayed::Unknown);
    subject.next().inbox().attempted(ended("a2", 12, Fate::Delivered)).await.unwrap();
    subject.next().inbox().attempted(ended("a3", 13, Fate::Delivered)).await.unwrap();
    assert_eq!(subject.next().inbox().replay_since(at(1), 100, until(14)).await.unwrap(), 2);
    assert_eq!(due(subject, 14).await, ["a2"]);
    assert_eq!(event(subject, "a1").await.state, State::Dead);
}

pub(super) async fn the_backlog_is_counted_by_merchant(subject: &mut impl Subject) {
    assert_eq!(subject.next().inbox().backlog().await.unwrap(), vec![]);
    for (id, merchant, time) in [("a1", "sample", 3), ("a2", "sample", 1), ("b1", "other", 2)] {
        let arrival = Arrival { merchant: merchant.into(), ..(*paid(id, ONE, time, "5000.00")).clone() };
        subject.next().inbox().receive(Arc::new(arrival)).await.unwrap();
    }
    let backlog = subject.next().inbox().backlog().await.unwrap();
    let found: Vec<(&str, i64, Timestamp)> =
        backlog.iter().map(|backlog| (&*backlog.merchant, backlog.pending, backlog.oldest)).collect();
    assert_eq!(found, [("other", 1, at(2)), ("sample", 2, at(1))]);
}
