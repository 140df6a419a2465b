//! The suite every store backend passes: one list of behaviours, run against each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::memory::MemoryStore;
use super::{Begun, End, Intent, SentIds, Store, StoredAnswer};
use crate::dialect::{Attach, Dialect, OperationId};
use crate::document::{Document, Meaning};
use crate::reference::{Account, AccountQuery, Handle};

const MIB: u64 = 1 << 20;

fn store() -> impl Store {
    MemoryStore::new(MIB, MIB)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_582_000 + seconds).unwrap()
}

fn meaning(text: &'static str) -> Meaning {
    Document::parse(Bytes::from_static(text.as_bytes())).unwrap().meaning()
}

fn create(id: &str, transaction: &str) -> Intent {
    Intent {
        merchant: "sample".into(),
        operation: OperationId::SnapCreate,
        id: id.to_owned(),
        transaction: Some(transaction.to_owned()),
        meaning: meaning("{}"),
        request: Bytes::from_static(b"{}"),
        sent: SentIds { header: Some(id.to_owned()), transaction: Some(transaction.to_owned()) },
        retention: Duration::from_secs(100),
        transaction_retention: Duration::from_secs(1_000),
    }
}

fn answer(body: &'static str) -> Arc<StoredAnswer> {
    let body = Bytes::from_static(body.as_bytes());
    Arc::new(StoredAnswer { status: StatusCode::OK, headers: HeaderMap::new(), body, attached: vec![] })
}

fn account(number: &str, reference: &str, created: Timestamp) -> Arc<Account> {
    Arc::new(Account {
        merchant: "sample".into(),
        number: number.to_owned(),
        own_digits: number.trim_start()[5..].to_owned(),
        bank_code: Some("014".to_owned()),
        amount: None,
        created,
        handle: Handle::Snap {
            partner_service_id: number[..8].to_owned(),
            customer_no: "CUST01".to_owned(),
            trx_id: "T".to_owned(),
            reference_no: reference.to_owned(),
        },
    })
}

async fn reference(store: &impl Store, merchant: &str, digits: &str) -> Option<String> {
    let query = AccountQuery { digits: digits.to_owned(), account_id: String::new() };
    let found = store.account(merchant, Dialect::Snap, &query).await.unwrap();
    found.and_then(|account| account.value(Attach::Reference).map(ToOwned::to_owned))
}

#[tokio::test]
async fn an_answer_comes_back_under_both_ids() {
    let store = store();
    let intent = create("E1", "T1");
    assert!(matches!(store.begin(&intent, at(0)).await, Ok(Begun::Fresh)));
    store.finish(&intent, End::Answered(answer("one")), None, at(1)).await.unwrap();
    for again in [create("E1", "T1"), create("E2", "T1")] {
        let Ok(Begun::Answered(found)) = store.begin(&again, at(2)).await else { panic!() };
        assert_eq!(found.body, "one");
    }
    assert!(matches!(store.begin(&create("E2", "T2"), at(2)).await, Ok(Begun::Fresh)));
}

#[tokio::test]
async fn another_meaning_is_a_conflict() {
    let store = store();
    let intent = create("E1", "T1");
    store.begin(&intent, at(0)).await.unwrap();
    let other = Intent { meaning: meaning("[]"), ..create("E1", "T9") };
    assert!(matches!(store.begin(&other, at(1)).await, Ok(Begun::Conflict)));
    store.finish(&intent, End::Answered(answer("one")), None, at(1)).await.unwrap();
    assert!(matches!(store.begin(&other, at(1)).await, Ok(Begun::Conflict)));
    let same_transaction = Intent { id: "E3".to_owned(), ..Intent { meaning: meaning("[]"), ..create("E1", "T1") } };
    assert!(matches!(store.begin(&same_transaction, at(1)).await, Ok(Begun::Conflict)));
    let update = Intent { operation: OperationId::SnapUpdate, transaction: None, ..create("E1", "T1") };
    assert!(matches!(store.begin(&update, at(1)).await, Ok(Begun::Conflict)));
}

#[tokio::test]
async fn a_doubt_keeps_the_first_ids() {
    let store = store();
    let intent = create("E1", "T1");
    store.begin(&intent, at(0)).await.unwrap();
    store.finish(&intent, End::InDoubt, None, at(1)).await.unwrap();
    let Ok(Begun::InDoubt(sent)) = store.begin(&create("E2", "T1"), at(2)).await else { panic!() };
    assert_eq!(sent.header.as_deref(), Some("E1"));
}

#[tokio::test]
async fn doubts_are_listed_until_they_end() {
    let store = store();
    let (one, two) = (create("E1", "T1"), create("E2", "T2"));
    for (intent, seconds) in [(&two, 5), (&one, 1)] {
        store.begin(intent, at(seconds)).await.unwrap();
    }
    assert!(store.doubts(10).await.unwrap().is_empty(), "what is under way is not in doubt");
    store.finish(&one, End::InDoubt, None, at(10)).await.unwrap();
    store.finish(&two, End::InDoubt, None, at(11)).await.unwrap();
    store.finish(&one, End::InDoubt, None, at(12)).await.unwrap();
    let doubts = store.doubts(10).await.unwrap();
    assert_eq!(doubts.iter().map(|doubt| doubt.intent.id.as_str()).collect::<Vec<_>>(), ["E1", "E2"]);
    assert_eq!(doubts[0].intent.request, "{}");
    assert_eq!(store.doubts(1).await.unwrap().len(), 1);
    store.finish(&one, End::Answered(answer("one")), None, at(13)).await.unwrap();
    store.finish(&two, End::Released, None, at(13)).await.unwrap();
    assert!(store.doubts(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_released_may_be_begun_again() {
    let store = store();
    let intent = create("E1", "T1");
    store.begin(&intent, at(0)).await.unwrap();
    store.finish(&intent, End::Released, None, at(1)).await.unwrap();
    let other = Intent { meaning: meaning("[]"), ..create("E1", "T1") };
    assert!(matches!(store.begin(&other, at(2)).await, Ok(Begun::Fresh)));
}

#[tokio::test]
async fn retentions_end() {
    let store = store();
    let intent = create("E1", "T1");
    store.begin(&intent, at(0)).await.unwrap();
    store.finish(&intent, End::Answered(answer("one")), None, at(0)).await.unwrap();
    let by_id_only = Intent { transaction: None, ..create("E1", "T1") };
    assert!(matches!(store.begin(&by_id_only, at(99)).await, Ok(Begun::Answered(_))));
    assert!(matches!(store.begin(&create("E9", "T1"), at(999)).await, Ok(Begun::Answered(_))));
    assert!(matches!(store.begin(&create("E9", "T1"), at(1_000)).await, Ok(Begun::Fresh)));
    assert!(matches!(store.begin(&by_id_only, at(100)).await, Ok(Begun::Fresh)));
}

#[tokio::test]
async fn merchants_never_meet() {
    let store = store();
    let intent = create("E1", "T1");
    store.begin(&intent, at(0)).await.unwrap();
    let learned = account("   1462912345678901", "R1", at(0));
    store.finish(&intent, End::Answered(answer("one")), Some(learned), at(0)).await.unwrap();
    let foreign = Intent { merchant: "other".into(), ..create("E1", "T1") };
    assert!(matches!(store.begin(&foreign, at(1)).await, Ok(Begun::Fresh)));
    assert_eq!(reference(&store, "sample", "1462912345678901").await.as_deref(), Some("R1"));
    assert_eq!(reference(&store, "other", "1462912345678901").await, None);
    assert_eq!(store.known("E1", at(1)).await.unwrap().len(), 2);
    assert_eq!(store.accounts("1462912345678901").await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_newest_create_wins_whatever_the_order() {
    let store = store();
    let number = "   1462912345678901";
    store.remember(account(number, "R2", at(20))).await.unwrap();
    store.remember(account(number, "R1", at(10))).await.unwrap();
    assert_eq!(reference(&store, "sample", "1462912345678901").await.as_deref(), Some("R2"));
    store.remember(account(number, "R3", at(30))).await.unwrap();
    assert_eq!(reference(&store, "sample", "12345678901").await.as_deref(), Some("R3"));
}

#[tokio::test]
async fn own_digits_find_an_account_only_where_one_fits() {
    let store = store();
    store.remember(account("   1462912345678901", "R1", at(1))).await.unwrap();
    assert_eq!(reference(&store, "sample", "12345678901").await.as_deref(), Some("R1"));
    store.remember(account("   1392512345678901", "R2", at(1))).await.unwrap();
    assert_eq!(reference(&store, "sample", "12345678901").await, None);
    assert_eq!(reference(&store, "sample", "1392512345678901").await.as_deref(), Some("R2"));
    assert_eq!(store.accounts("12345678901").await.unwrap().len(), 2);
}

#[tokio::test]
async fn prefixes_are_learnt_by_merchant_and_bank() {
    let store = store();
    store.remember(account("   1462912345678901", "R1", at(1))).await.unwrap();
    assert_eq!(store.prefix("sample", "014").await.unwrap().as_deref(), Some("   14629"));
    assert_eq!(store.prefix("sample", "002").await.unwrap(), None);
    assert_eq!(store.prefix("other", "014").await.unwrap(), None);
}

#[tokio::test]
async fn classic_ids_find_the_current_life_only() {
    let store = store();
    let life = |id: &str, seconds| {
        Arc::new(Account {
            merchant: "sample".into(),
            number: "1392500012345678".to_owned(),
            own_digits: "12345678".to_owned(),
            bank_code: Some("002".to_owned()),
            amount: None,
            created: at(seconds),
            handle: Handle::Classic {
                account_id: id.to_owned(),
                customer_id: "AYOTST-1".to_owned(),
                correlation_id: "C".to_owned(),
            },
        })
    };
    store.remember(life("A1", 1)).await.unwrap();
    store.remember(life("A2", 2)).await.unwrap();
    let by_id = |id: &str| AccountQuery { digits: String::new(), account_id: id.to_owned() };
    assert!(store.account("sample", Dialect::Classic, &by_id("A2")).await.unwrap().is_some());
    assert!(store.account("sample", Dialect::Classic, &by_id("A1")).await.unwrap().is_none());
    assert!(store.account("sample", Dialect::Snap, &by_id("A2")).await.unwrap().is_none());
}

#[tokio::test]
async fn memory_is_bounded() {
    let store = MemoryStore::new(256 * 1024, 256 * 1024);
    for n in 0..20_000 {
        let intent = create(&format!("E{n}"), &format!("T{n}"));
        store.begin(&intent, at(0)).await.unwrap();
        store.finish(&intent, End::Answered(answer("one")), None, at(0)).await.unwrap();
        store.remember(account(&format!("   14629{n:011}"), "R", at(0))).await.unwrap();
    }
    store.settle();
    assert!(store.bytes() <= 512 * 1024, "{}", store.bytes());
    assert!(store.bytes() > 64 * 1024, "{}", store.bytes());
}
