//! What every backend keeps of watched accounts: the behaviours `suite` runs against each.

use std::sync::Arc;

use super::inbox::{Arrival, Attempt, Counts, EventKind, Fate, Origin, Received, State};
use super::inbox_suite::paid;
use super::suite::{Subject, account, at, classic_life};
use super::watch::{Counted, Look, Looked, Misses, Watch};
use crate::callback::notice::Notice;
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::reference::Account;

const ONE: &str = "1462912345678901";
const PADDED: &str = "   1462912345678901";

async fn begin(subject: &mut dyn Subject) {
    subject.next().watches().take_up(at(0)).await.unwrap();
}

/// Watches go on in a file however often it is opened, if the gateway says so each time.
async fn remember(subject: &mut dyn Subject, account: Account) {
    let store = subject.next();
    store.watches().take_up(at(0)).await.unwrap();
    store.remember(Arc::new(account)).await.unwrap();
}

async fn due(subject: &mut dyn Subject, now: i64, soon: i64) -> Vec<Watch> {
    subject.next().watches().due("sample", at(now), at(soon), 10).await.unwrap()
}

async fn watch(subject: &mut dyn Subject, dialect: Dialect, digits: &str) -> Watch {
    subject.next().watches().watch("sample", dialect, digits).await.unwrap().unwrap()
}

async fn looked(subject: &mut dyn Subject, look: Look) -> Looked {
    subject.next().watches().looked(look).await.unwrap()
}

fn waits(watch: Watch, next: i64) -> Look {
    let expires = watch.expires;
    let misses = watch.misses;
    Look { watch, at: None, expires, next: Some(at(next)), before: None, misses, found: vec![] }
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

pub(super) async fn accounts_are_due_when_they_were_said_to_be(subject: &mut impl Subject) {
    begin(subject).await;
    for (number, expires) in [("12345678901", 50), ("12345678902", 500)] {
        let known = account(&format!("   14629{number}"), "R", at(1));
        remember(subject, Account { expires: Some(at(expires)), ..(*known).clone() }).await;
    }
    let listed = due(subject, 9, 9).await;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|watch| watch.looked.is_none() && watch.counted == Counted::NOTHING));
    for watch in listed {
        assert_eq!(looked(subject, waits(watch, 20)).await, Looked::Recorded(0));
    }
    assert_eq!(due(subject, 19, 19).await, vec![]);
    let both = due(subject, 20, 60).await;
    assert_eq!(both[0].expires, Some(at(50)), "what is about to end comes first");
    assert_eq!(both.len(), 2);
    let missed = Misses { since: Some(at(20)), looks: 3, refused: 1 };
    let waiting = both[0].clone();
    assert_eq!(looked(subject, Look { misses: missed, ..waits(waiting, 20) }).await, Looked::Recorded(0));
    let both = due(subject, 20, 60).await;
    assert_eq!(both[0].misses, missed);
    let end = Look { at: Some(at(21)), next: None, ..waits(both[0].clone(), 0) };
    assert_eq!(looked(subject, end.clone()).await, Looked::Recorded(0));
    assert_eq!(looked(subject, end).await, Looked::Stale, "it was looked at since");
    let left = due(subject, 99, 99).await;
    assert_eq!(left.len(), 1);
    // One that is created or updated again is looked at again.
    let (digits, known) = (both[0].account.digits().to_owned(), both[0].account.as_ref().clone());
    remember(subject, known).await;
    assert_eq!(due(subject, 99, 99).await.len(), 2);
    let again = watch(subject, Dialect::Snap, &digits).await;
    assert_eq!((again.looked, again.expires), (Some(at(21)), None), "and its end is not known any more");
    assert_eq!(again.misses, Misses::default());
}

pub(super) async fn what_was_there_before_is_watched_and_what_it_was_paid_is_unknown(subject: &mut impl Subject) {
    let store = subject.next();
    store.remember(account(PADDED, "R", at(1))).await.unwrap();
    assert_eq!(store.watches().watch("sample", Dialect::Snap, ONE).await.unwrap(), None);
    drop(store);
    begin(subject).await;
    let known = watch(subject, Dialect::Snap, ONE).await;
    assert!(!known.counted.whole);
    let before = Some(Counted { latest: Some(at(3)), ..Counted::NOTHING });
    assert_eq!(looked(subject, Look { before, ..waits(known, 30) }).await, Looked::Recorded(0));
    let known = watch(subject, Dialect::Snap, ONE).await.counted;
    assert_eq!((known.whole, known.latest), (true, Some(at(3))));
    begin(subject).await;
    assert_eq!(watch(subject, Dialect::Snap, ONE).await.counted, known, "and stays so");
}

pub(super) async fn payments_are_counted_once_when_they_end(subject: &mut impl Subject) {
    begin(subject).await;
    remember(subject, (*account(PADDED, "R", at(1))).clone()).await;
    let ended = |id: &str, fate| Attempt {
        id: id.to_owned(),
        at: at(9),
        attempts: 1,
        fate,
        said: String::new(),
        confirmed: true,
        counts: if fate == Fate::Quarantined { Counts::Nothing } else { Counts::InFull },
        doubt: None,
    };
    for (id, time) in [("e1", 5), ("e2", 7)] {
        subject.next().inbox().receive(paid(id, &format!("   {ONE}"), time, "5000.00")).await.unwrap();
    }
    assert_eq!(watch(subject, Dialect::Snap, ONE).await.counted.latest, None);
    subject.next().inbox().attempted(ended("e1", Fate::Delivered)).await.unwrap();
    assert_eq!(watch(subject, Dialect::Snap, ONE).await.counted.latest, Some(at(5)));
    assert!(subject.next().inbox().event("e1").await.unwrap().unwrap().counted);
    // What was not true does not count.
    subject.next().inbox().attempted(ended("e2", Fate::Quarantined)).await.unwrap();
    assert_eq!(watch(subject, Dialect::Snap, ONE).await.counted.latest, Some(at(5)));
    // Nor does what was given up without having been found true.
    subject.next().inbox().receive(paid("e3", PADDED, 8, "5000.00")).await.unwrap();
    let given_up = Attempt { counts: Counts::Nothing, ..ended("e3", Fate::Dead) };
    subject.next().inbox().attempted(given_up).await.unwrap();
    assert_eq!(watch(subject, Dialect::Snap, ONE).await.counted.latest, Some(at(5)));
    // A new life begins with nothing.
    remember(subject, (*account(PADDED, "S", at(8))).clone()).await;
    assert_eq!(watch(subject, Dialect::Snap, ONE).await.counted, Counted::NOTHING);
}

/// A classic payment: the sum it led to and what of it is new.
fn classic(id: &str, key: &str, (amount_paid, total): (&str, Option<&str>), origin: Origin) -> Arc<Arrival> {
    let notice = Notice {
        number: CLASSIC.to_owned(),
        amount: amount(amount_paid),
        currency: "IDR".to_owned(),
        paid_at: None,
        status: None,
        trx_id: None,
        reference_no: None,
        account_id: Some("VA1".to_owned()),
        total: total.map(amount),
        key: format!("VA1/{key}"),
    };
    let arrival = paid(id, CLASSIC, 0, "1.00");
    Arc::new(Arrival {
        dialect: Dialect::Classic,
        kind: EventKind::Paid,
        origin,
        notice: Ok(notice),
        ..(*arrival).clone()
    })
}

const CLASSIC: &str = "1392500012345678";

pub(super) async fn a_payment_found_by_its_sum_is_not_told_again(subject: &mut impl Subject) {
    begin(subject).await;
    remember(subject, (*classic_life("VA1", 1)).clone()).await;
    let first = classic("e1", "1", ("100.00", Some("100.00")), Origin::Callback);
    assert_eq!(subject.next().inbox().receive(first).await.unwrap(), Received::Queued);
    let known = watch(subject, Dialect::Classic, CLASSIC).await;
    assert_eq!((known.counted.total, known.counted.pending), (Amount::ZERO, amount("100.00")));
    // Upstream shows 400: 300 of it were never announced.
    let found = vec![classic("e2", "total/400.00", ("300.00", Some("400.00")), Origin::Sweep)];
    let look = Look { at: Some(at(5)), found, ..waits(known.clone(), 30) };
    assert_eq!(looked(subject, look.clone()).await, Looked::Recorded(1));
    assert_eq!(looked(subject, look).await, Looked::Stale);
    assert_eq!(watch(subject, Dialect::Classic, CLASSIC).await.counted.pending, amount("400.00"));
    for (id, key, total, expected) in [
        ("e3", "2", Some("300.00"), Received::Duplicate),
        ("e4", "3", Some("400.00"), Received::Duplicate),
        ("e5", "4", Some("500.00"), Received::Queued),
        ("e6", "5", None, Received::Quarantined),
        ("e7", "1", Some("100.00"), Received::Duplicate),
    ] {
        let late = classic(id, key, ("100.00", total), Origin::Callback);
        assert_eq!(subject.next().inbox().receive(late).await.unwrap(), expected, "{id}");
    }
    for id in ["e1", "e2", "e5"] {
        let attempt = Attempt {
            id: id.to_owned(),
            at: at(9),
            attempts: 1,
            fate: Fate::Delivered,
            said: String::new(),
            confirmed: true,
            counts: Counts::InFull,
            doubt: None,
        };
        subject.next().inbox().attempted(attempt).await.unwrap();
    }
    let counted = watch(subject, Dialect::Classic, CLASSIC).await.counted;
    assert_eq!((counted.total, counted.pending), (amount("500.00"), Amount::ZERO));
    assert_eq!(subject.next().inbox().told("sample", "VA1").await.unwrap(), amount("500.00"));
    for (merchant, account_id) in [("other", "VA1"), ("sample", "VA"), ("sample", "VA10")] {
        assert_eq!(subject.next().inbox().told(merchant, account_id).await.unwrap(), Amount::ZERO);
    }
    let again = super::inbox::Again { now: at(10), until: at(99) };
    subject.next().inbox().replay("e1", again).await.unwrap();
    let replayed = watch(subject, Dialect::Classic, CLASSIC).await.counted;
    assert_eq!(replayed, counted, "what is sent again is counted already");
    assert_eq!(subject.next().inbox().event("e2").await.unwrap().unwrap().state, State::Delivered);
}

fn delivered(id: &str, counts: Counts) -> Attempt {
    let (fate, said) = (Fate::Delivered, String::new());
    Attempt { id: id.to_owned(), at: at(9), attempts: 1, fate, said, confirmed: false, counts, doubt: None }
}

pub(super) async fn what_nobody_could_confirm_is_told_and_not_counted(subject: &mut impl Subject) {
    begin(subject).await;
    remember(subject, (*classic_life("VA1", 1)).clone()).await;
    let claim = classic("e1", "1", ("100.00", None), Origin::Callback);
    subject.next().inbox().receive(claim).await.unwrap();
    subject.next().inbox().attempted(delivered("e1", Counts::AsTold)).await.unwrap();
    assert_eq!(watch(subject, Dialect::Classic, CLASSIC).await.counted, Counted::NOTHING);
    assert_eq!(subject.next().inbox().told("sample", "VA1").await.unwrap(), amount("100.00"));
}

pub(super) async fn the_largest_sums_read_back(subject: &mut impl Subject) {
    begin(subject).await;
    remember(subject, (*classic_life("VA1", 1)).clone()).await;
    remember(subject, (*account(PADDED, "R", at(1))).clone()).await;
    let all = "9999999999999999.00";
    for (id, key) in [("e1", "1"), ("e2", "2"), ("e3", "3")] {
        subject.next().inbox().receive(classic(id, key, (all, None), Origin::Callback)).await.unwrap();
        subject.next().inbox().attempted(delivered(id, Counts::InFull)).await.unwrap();
    }
    for (id, time) in [("s1", 5), ("s2", 6)] {
        subject.next().inbox().receive(paid(id, PADDED, time, all)).await.unwrap();
        subject.next().inbox().attempted(delivered(id, Counts::InFull)).await.unwrap();
    }
    assert_eq!(watch(subject, Dialect::Classic, CLASSIC).await.counted.total, Amount::LARGEST);
    assert_eq!(watch(subject, Dialect::Snap, ONE).await.counted.total, Amount::ZERO, "SNAP has no sums");
    assert_eq!(due(subject, 99, 99).await.len(), 2);
}

pub(super) async fn what_ends_soon_leaves_room_for_others(subject: &mut impl Subject) {
    begin(subject).await;
    for n in 1..=8_u8 {
        let known = account(&format!("   146291234567890{n}"), "R", at(1));
        let expires = at(if n <= 6 { 50 } else { 5_000 });
        remember(subject, Account { expires: Some(expires), ..(*known).clone() }).await;
    }
    let due = subject.next().watches().due("sample", at(9), at(60), 4).await.unwrap();
    let ends: Vec<bool> = due.iter().map(|watch| watch.expires == Some(at(50))).collect();
    assert_eq!((ends.len(), &ends[..2]), (4, &[true, true][..]));
}
