//! The suite every store backend passes: one list of behaviours, run against each.
//!
//! A behaviour knows a [`Subject`] only, which hands it a store for each step: the same one again, or
//! the same file closed and opened anew. What only one backend has is tested beside that backend.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use tempfile::TempDir;

use super::inbox_suite::{
    a_callback_is_kept_once_and_comes_back_whole, a_payment_that_was_not_true_may_come_true,
    an_event_can_turn_out_to_be_a_payment_no_other_is, doubts_are_kept_until_they_are_over,
    payments_of_one_account_stand_in_line_and_others_go_on, the_backlog_is_counted_by_merchant,
    what_cannot_be_understood_is_kept_aside, what_has_ended_can_be_sent_again_in_its_place,
    what_is_announced_again_goes_to_the_end_of_its_line, what_is_not_believed_is_kept_aside_and_blocks_nothing,
};
use super::memory::MemoryStore;
use super::sqlite::{Options, SqliteStore};
use super::watch_suite::{
    a_payment_found_by_its_sum_is_not_told_again, accounts_are_due_when_they_were_said_to_be,
    payments_are_counted_once_when_they_end, the_largest_sums_read_back, what_ends_soon_leaves_room_for_others,
    what_nobody_could_confirm_is_told_and_not_counted,
    what_was_there_before_is_watched_and_what_it_was_paid_is_unknown,
};
use super::{Begun, End, Intent, SentIds, Store, StoredAnswer};
use crate::clock::Clock;
use crate::dialect::amount::Amount;
use crate::dialect::number::without_blanks;
use crate::dialect::{Attach, Dialect, OperationId};
use crate::document::{Document, Meaning};
use crate::reference::{Account, AccountQuery, Handle};

const MIB: u64 = 1 << 20;

/// What is under test.
pub(super) trait Subject {
    /// The store for the next step.
    fn next(&mut self) -> Arc<dyn Store>;

    /// Whether each step has a process of its own.
    fn reopens(&self) -> bool {
        false
    }
}

struct Memory(Arc<MemoryStore>);

impl Subject for Memory {
    fn next(&mut self) -> Arc<dyn Store> {
        Arc::clone(&self.0) as _
    }
}

/// One file, opened once.
struct Sqlite {
    store: Arc<SqliteStore>,
    _folder: TempDir,
}

impl Subject for Sqlite {
    fn next(&mut self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }
}

/// One file, opened for each step.
struct Reopened {
    store: Option<Arc<SqliteStore>>,
    folder: TempDir,
}

impl Subject for Reopened {
    fn next(&mut self) -> Arc<dyn Store> {
        drop(self.store.take());
        let store = Arc::new(SqliteStore::open(&options(&self.folder)).unwrap());
        self.store = Some(Arc::clone(&store));
        store
    }

    fn reopens(&self) -> bool {
        true
    }
}

/// A clock that stands still until it is set.
#[derive(Debug)]
pub(super) struct Still(pub(super) Mutex<Timestamp>);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A file in a folder, with little memory and the time of the tests.
pub(super) fn options(folder: &TempDir) -> Options {
    Options {
        path: folder.path().join("ayova.db"),
        answers_bytes: MIB,
        accounts_bytes: MIB,
        clock: Arc::new(Still(Mutex::new(at(0)))),
    }
}

macro_rules! every_backend {
    ($($behaviour:ident,)*) => {
        mod in_memory {
            use super::*;
            $(#[tokio::test]
            async fn $behaviour() {
                super::$behaviour(&mut Memory(Arc::new(MemoryStore::new(MIB, MIB)))).await;
            })*
        }

        mod in_a_file {
            use super::*;
            $(#[tokio::test]
            async fn $behaviour() {
                let folder = tempfile::tempdir().unwrap();
                let store = Arc::new(SqliteStore::open(&options(&folder)).unwrap());
                super::$behaviour(&mut Sqlite { store, _folder: folder }).await;
            })*
        }

        mod in_a_file_reopened_at_each_step {
            use super::*;
            $(#[tokio::test]
            async fn $behaviour() {
                super::$behaviour(&mut Reopened { store: None, folder: tempfile::tempdir().unwrap() }).await;
            })*
        }
    };
}

every_backend! {
    an_answer_comes_back_under_both_ids,
    another_meaning_is_a_conflict,
    a_doubt_keeps_the_first_ids,
    doubts_are_listed_until_they_end,
    what_was_released_may_be_begun_again,
    retentions_end,
    merchants_never_meet,
    the_newest_create_wins_whatever_the_order,
    what_was_read_never_replaces_a_create,
    own_digits_find_an_account_only_where_one_fits,
    prefixes_are_learnt_by_merchant_and_bank,
    classic_ids_find_the_current_life_only,
    what_has_no_answer_never_expires,
    an_answer_is_not_unsaid,
    an_answer_comes_back_whole,
    a_doubt_comes_back_whole,
    a_later_amount_replaces_an_earlier_one,
    own_digits_may_be_anothers_whole_number,
    a_callback_is_kept_once_and_comes_back_whole,
    payments_of_one_account_stand_in_line_and_others_go_on,
    what_cannot_be_understood_is_kept_aside,
    what_is_not_believed_is_kept_aside_and_blocks_nothing,
    a_payment_that_was_not_true_may_come_true,
    what_is_announced_again_goes_to_the_end_of_its_line,
    doubts_are_kept_until_they_are_over,
    an_event_can_turn_out_to_be_a_payment_no_other_is,
    what_nobody_could_confirm_is_told_and_not_counted,
    the_largest_sums_read_back,
    what_ends_soon_leaves_room_for_others,
    what_has_ended_can_be_sent_again_in_its_place,
    the_backlog_is_counted_by_merchant,
    accounts_are_due_when_they_were_said_to_be,
    what_was_there_before_is_watched_and_what_it_was_paid_is_unknown,
    payments_are_counted_once_when_they_end,
    a_payment_found_by_its_sum_is_not_told_again,
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_582_000 + seconds).unwrap()
}

pub(super) fn meaning(text: &'static str) -> Meaning {
    Document::parse(Bytes::from_static(text.as_bytes())).unwrap().meaning()
}

pub(super) fn create(id: &str, transaction: &str) -> Intent {
    Intent {
        merchant: "sample".into(),
        operation: OperationId::SnapCreate,
        id: id.into(),
        transaction: Some(transaction.into()),
        meaning: meaning("{}"),
        request: Bytes::from_static(b"{}"),
        sent: SentIds { header: Some(id.into()), transaction: Some(transaction.into()) },
        retention: Duration::from_secs(100),
        transaction_retention: Duration::from_secs(1_000),
    }
}

pub(super) fn answer(body: &'static str) -> Arc<StoredAnswer> {
    let body = Bytes::from_static(body.as_bytes());
    Arc::new(StoredAnswer { status: StatusCode::OK, headers: HeaderMap::new(), body, attached: vec![] })
}

pub(super) fn account(number: &str, reference: &str, created: Timestamp) -> Arc<Account> {
    Arc::new(Account {
        merchant: "sample".into(),
        number: number.to_owned(),
        own_digits: number.trim_start()[5..].to_owned(),
        bank_code: Some("014".to_owned()),
        amount: None,
        closed: false,
        created,
        expires: None,
        handle: Handle::Snap {
            partner_service_id: number[..8].to_owned(),
            customer_no: "CUST01".to_owned(),
            trx_id: "T".to_owned(),
            reference_no: reference.to_owned(),
        },
    })
}

async fn reference(subject: &mut impl Subject, merchant: &str, digits: &str) -> Option<String> {
    let query = AccountQuery {
        digits: without_blanks(digits).to_owned(),
        whole: digits.starts_with(' '),
        account_id: String::new(),
    };
    let found = subject.next().account(merchant, Dialect::Snap, &query).await.unwrap();
    found.and_then(|account| account.value(Attach::Reference).map(ToOwned::to_owned))
}

async fn an_answer_comes_back_under_both_ids(subject: &mut impl Subject) {
    let intent = create("E1", "T1");
    assert!(matches!(subject.next().begin(&intent, at(0)).await, Ok(Begun::Fresh)));
    subject.next().finish(&intent, End::Answered(answer("one")), None, at(1)).await.unwrap();
    for again in [create("E1", "T1"), create("E2", "T1")] {
        let Ok(Begun::Answered(found)) = subject.next().begin(&again, at(2)).await else { panic!() };
        assert_eq!(found.body, "one");
    }
    assert!(matches!(subject.next().begin(&create("E2", "T2"), at(2)).await, Ok(Begun::Fresh)));
}

async fn another_meaning_is_a_conflict(subject: &mut impl Subject) {
    let intent = create("E1", "T1");
    subject.next().begin(&intent, at(0)).await.unwrap();
    let other = Intent { meaning: meaning("[]"), ..create("E1", "T9") };
    assert!(matches!(subject.next().begin(&other, at(1)).await, Ok(Begun::Conflict)));
    subject.next().finish(&intent, End::Answered(answer("one")), None, at(1)).await.unwrap();
    assert!(matches!(subject.next().begin(&other, at(1)).await, Ok(Begun::Conflict)));
    let same_transaction = Intent { id: "E3".into(), ..Intent { meaning: meaning("[]"), ..create("E1", "T1") } };
    assert!(matches!(subject.next().begin(&same_transaction, at(1)).await, Ok(Begun::Conflict)));
    let update = Intent { operation: OperationId::SnapUpdate, transaction: None, ..create("E1", "T1") };
    assert!(matches!(subject.next().begin(&update, at(1)).await, Ok(Begun::Conflict)));
}

async fn a_doubt_keeps_the_first_ids(subject: &mut impl Subject) {
    let intent = create("E1", "T1");
    subject.next().begin(&intent, at(0)).await.unwrap();
    subject.next().finish(&intent, End::InDoubt, None, at(1)).await.unwrap();
    let Ok(Begun::InDoubt(sent)) = subject.next().begin(&create("E2", "T1"), at(2)).await else { panic!() };
    assert_eq!(sent.header.as_deref(), Some("E1"));
}

async fn doubts_are_listed_until_they_end(subject: &mut impl Subject) {
    let (one, two) = (create("E1", "T1"), create("E2", "T2"));
    for (intent, seconds) in [(&two, 5), (&one, 1)] {
        subject.next().begin(intent, at(seconds)).await.unwrap();
    }
    let begun = subject.next().doubts(10).await.unwrap();
    // Under way in this process, or begun by one that has ended.
    assert_eq!(begun.len(), if subject.reopens() { 2 } else { 0 });
    subject.next().finish(&one, End::InDoubt, None, at(10)).await.unwrap();
    subject.next().finish(&two, End::InDoubt, None, at(11)).await.unwrap();
    subject.next().finish(&one, End::InDoubt, None, at(12)).await.unwrap();
    let doubts = subject.next().doubts(10).await.unwrap();
    assert_eq!(doubts.iter().map(|doubt| &*doubt.intent.id).collect::<Vec<_>>(), ["E1", "E2"]);
    assert_eq!(doubts[0].intent.request, "{}");
    assert_eq!(subject.next().doubts(1).await.unwrap().len(), 1);
    subject.next().finish(&one, End::Answered(answer("one")), None, at(13)).await.unwrap();
    subject.next().finish(&two, End::Released, None, at(13)).await.unwrap();
    assert!(subject.next().doubts(10).await.unwrap().is_empty());
}

async fn what_was_released_may_be_begun_again(subject: &mut impl Subject) {
    let intent = create("E1", "T1");
    subject.next().begin(&intent, at(0)).await.unwrap();
    subject.next().finish(&intent, End::Released, None, at(1)).await.unwrap();
    let other = Intent { meaning: meaning("[]"), ..create("E1", "T1") };
    assert!(matches!(subject.next().begin(&other, at(2)).await, Ok(Begun::Fresh)));
}

async fn retentions_end(subject: &mut impl Subject) {
    let intent = create("E1", "T1");
    subject.next().begin(&intent, at(0)).await.unwrap();
    subject.next().finish(&intent, End::Answered(answer("one")), None, at(0)).await.unwrap();
    let by_id_only = Intent { transaction: None, ..create("E1", "T1") };
    assert!(matches!(subject.next().begin(&by_id_only, at(99)).await, Ok(Begun::Answered(_))));
    assert!(matches!(subject.next().begin(&create("E9", "T1"), at(999)).await, Ok(Begun::Answered(_))));
    assert!(matches!(subject.next().begin(&create("E9", "T1"), at(1_000)).await, Ok(Begun::Fresh)));
    assert!(matches!(subject.next().begin(&by_id_only, at(100)).await, Ok(Begun::Fresh)));
}

async fn merchants_never_meet(subject: &mut impl Subject) {
    let intent = create("E1", "T1");
    subject.next().begin(&intent, at(0)).await.unwrap();
    let learned = account("   1462912345678901", "R1", at(0));
    subject.next().finish(&intent, End::Answered(answer("one")), Some(learned), at(0)).await.unwrap();
    let foreign = Intent { merchant: "other".into(), ..create("E1", "T1") };
    assert!(matches!(subject.next().begin(&foreign, at(1)).await, Ok(Begun::Fresh)));
    assert_eq!(reference(subject, "sample", "1462912345678901").await.as_deref(), Some("R1"));
    assert_eq!(reference(subject, "other", "1462912345678901").await, None);
    assert_eq!(subject.next().known("E1", at(1)).await.unwrap().len(), 2);
    assert_eq!(subject.next().accounts("1462912345678901").await.unwrap().len(), 1);
}

async fn the_newest_create_wins_whatever_the_order(subject: &mut impl Subject) {
    let number = "   1462912345678901";
    subject.next().remember(account(number, "R2", at(20))).await.unwrap();
    subject.next().remember(account(number, "R1", at(10))).await.unwrap();
    assert_eq!(reference(subject, "sample", "1462912345678901").await.as_deref(), Some("R2"));
    subject.next().remember(account(number, "R3", at(30))).await.unwrap();
    assert_eq!(reference(subject, "sample", "12345678901").await.as_deref(), Some("R3"));
}

async fn what_was_read_never_replaces_a_create(subject: &mut impl Subject) {
    let number = "   1462912345678901";
    for (taught, created, current) in
        [("R1", Account::READ, "R1"), ("R2", Account::READ, "R2"), ("R3", at(1), "R3"), ("R4", Account::READ, "R3")]
    {
        subject.next().remember(account(number, taught, created)).await.unwrap();
        assert_eq!(reference(subject, "sample", "1462912345678901").await.as_deref(), Some(current));
    }
}

async fn own_digits_find_an_account_only_where_one_fits(subject: &mut impl Subject) {
    subject.next().remember(account("   1462912345678901", "R1", at(1))).await.unwrap();
    assert_eq!(reference(subject, "sample", "12345678901").await.as_deref(), Some("R1"));
    subject.next().remember(account("   1392512345678901", "R2", at(1))).await.unwrap();
    assert_eq!(reference(subject, "sample", "12345678901").await, None);
    assert_eq!(reference(subject, "sample", "1392512345678901").await.as_deref(), Some("R2"));
    assert_eq!(subject.next().accounts("12345678901").await.unwrap().len(), 2);
}

async fn prefixes_are_learnt_by_merchant_and_bank(subject: &mut impl Subject) {
    subject.next().remember(account("   1462912345678901", "R1", at(1))).await.unwrap();
    assert_eq!(subject.next().prefix("sample", "014").await.unwrap().as_deref(), Some("   14629"));
    assert_eq!(subject.next().prefix("sample", "002").await.unwrap(), None);
    assert_eq!(subject.next().prefix("other", "014").await.unwrap(), None);
}

/// A classic account under that id.
pub(super) fn classic_life(id: &str, seconds: i64) -> Arc<Account> {
    Arc::new(Account {
        merchant: "sample".into(),
        number: "1392500012345678".to_owned(),
        own_digits: "12345678".to_owned(),
        bank_code: Some("002".to_owned()),
        amount: None,
        closed: false,
        created: at(seconds),
        expires: None,
        handle: Handle::Classic {
            account_id: id.to_owned(),
            customer_id: "AYOTST-1".to_owned(),
            correlation_id: "C".to_owned(),
        },
    })
}

async fn classic_ids_find_the_current_life_only(subject: &mut impl Subject) {
    subject.next().remember(classic_life("A1", 1)).await.unwrap();
    subject.next().remember(classic_life("A2", 2)).await.unwrap();
    let by_id = |id: &str| AccountQuery { account_id: id.to_owned(), ..AccountQuery::default() };
    assert!(subject.next().account("sample", Dialect::Classic, &by_id("A2")).await.unwrap().is_some());
    assert!(subject.next().account("sample", Dialect::Classic, &by_id("A1")).await.unwrap().is_none());
    assert!(subject.next().account("sample", Dialect::Snap, &by_id("A2")).await.unwrap().is_none());
}

async fn what_has_no_answer_never_expires(subject: &mut impl Subject) {
    let (begun, doubted) = (create("E1", "T1"), create("E2", "T2"));
    subject.next().begin(&begun, at(0)).await.unwrap();
    subject.next().begin(&doubted, at(0)).await.unwrap();
    subject.next().finish(&doubted, End::InDoubt, None, at(1)).await.unwrap();
    let late = at(100_000_000);
    for again in [create("E1", "T1"), create("E2", "T2"), create("E3", "T2")] {
        assert!(matches!(subject.next().begin(&again, late).await, Ok(Begun::InDoubt(_))));
    }
    assert_eq!(subject.next().known("E2", late).await.unwrap().len(), 1);
}

async fn an_answer_is_not_unsaid(subject: &mut impl Subject) {
    let intent = create("E1", "T1");
    subject.next().begin(&intent, at(0)).await.unwrap();
    subject.next().finish(&intent, End::Answered(answer("one")), None, at(1)).await.unwrap();
    for end in [End::InDoubt, End::Released] {
        subject.next().finish(&intent, end, None, at(2)).await.unwrap();
        assert!(matches!(subject.next().begin(&intent, at(3)).await, Ok(Begun::Answered(_))));
    }
    assert!(subject.next().doubts(10).await.unwrap().is_empty());
}

async fn an_answer_comes_back_whole(subject: &mut impl Subject) {
    let mut headers = HeaderMap::new();
    headers.append("content-type", HeaderValue::from_static("application/json"));
    headers.append("x-twice", HeaderValue::from_static("1"));
    headers.append("x-twice", HeaderValue::from_bytes(b"\xe9 \"2\"").unwrap());
    let whole = Arc::new(StoredAnswer {
        status: StatusCode::CREATED,
        headers,
        body: Bytes::from_static(b"{\"a\": \"\xc3\xa9\"}\r\n\0\xff"),
        attached: vec!["customerNo", "X-EXTERNAL-ID"],
    });
    let intent = create("E1", "T1");
    subject.next().begin(&intent, at(0)).await.unwrap();
    subject.next().finish(&intent, End::Answered(Arc::clone(&whole)), None, at(1)).await.unwrap();
    for again in [create("E1", "T1"), create("E2", "T1")] {
        let Ok(Begun::Answered(found)) = subject.next().begin(&again, at(2)).await else { panic!() };
        assert_eq!(found, whole);
    }
}

async fn a_doubt_comes_back_whole(subject: &mut impl Subject) {
    let intent = Intent {
        request: Bytes::from_static(b"{\"a\": 1}"),
        sent: SentIds { header: Some("H".into()), transaction: None },
        retention: Duration::from_millis(1_500),
        ..create("E1", "T1")
    };
    subject.next().begin(&intent, at(0)).await.unwrap();
    subject.next().finish(&intent, End::InDoubt, None, at(7)).await.unwrap();
    let doubts = subject.next().doubts(10).await.unwrap();
    let [doubt] = doubts.as_slice() else { panic!("{doubts:?}") };
    // A process that ended left it in doubt when it was begun.
    assert_eq!(doubt.since, if subject.reopens() { at(0) } else { at(7) });
    assert_eq!(format!("{:?}", doubt.intent), format!("{intent:?}"));
}

async fn a_later_amount_replaces_an_earlier_one(subject: &mut impl Subject) {
    let of = |amount| {
        let mut account = Account::clone(&account("   1462912345678901", "R1", at(1)));
        account.amount = Amount::parse(amount);
        Arc::new(account)
    };
    let query = AccountQuery { digits: "1462912345678901".to_owned(), ..AccountQuery::default() };
    for amount in ["1.00", "3.00", "2.00"] {
        subject.next().remember(of(amount)).await.unwrap();
        let found = subject.next().account("sample", Dialect::Snap, &query).await.unwrap();
        assert_eq!(found, Some(of(amount)));
    }
}

async fn own_digits_may_be_anothers_whole_number(subject: &mut impl Subject) {
    subject.next().remember(account("   1462912345678901", "R1", at(1))).await.unwrap();
    assert_eq!(reference(subject, "sample", "12345678901").await.as_deref(), Some("R1"));
    let mut whole = Account::clone(&account("   1462912345678901", "R2", at(1)));
    whole.number = "12345678901".to_owned();
    whole.own_digits = "8901".to_owned();
    subject.next().remember(Arc::new(whole)).await.unwrap();
    // Twice, as what was found once may come from a cache.
    for _ in 0..2 {
        assert_eq!(reference(subject, "sample", "12345678901").await, None, "it may mean either");
        assert_eq!(reference(subject, "sample", "   12345678901").await.as_deref(), Some("R2"));
        assert_eq!(reference(subject, "sample", "   1462912345678901").await.as_deref(), Some("R1"));
        assert_eq!(reference(subject, "sample", "1462912345678901").await.as_deref(), Some("R1"));
    }
    assert_eq!(reference(subject, "sample", "8901").await.as_deref(), Some("R2"));
    assert_eq!(subject.next().accounts("12345678901").await.unwrap().len(), 2);
}
