//! What only a file can promise: groups, locks, faults, files of other versions, what a crash leaves.
//!
//! What a store does at all is the suite's affair (`store::suite`). Faults are SQLite's own, brought
//! about on the writer's connection or by another program's lock, so that they work as any user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::future::join_all;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::reference::Handle;
use crate::store::suite::{Still, account, answer, at, create, options};

mod file;
mod random;
mod trouble;

fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(&options(folder)).unwrap()
}

fn by_number(digits: &str) -> AccountQuery {
    AccountQuery { digits: digits.to_owned(), ..AccountQuery::default() }
}

impl SqliteStore {
    /// Runs something on the writer's connection, between batches.
    fn meddle(&self, meddle: impl FnOnce(&Connection) + Send + 'static) {
        let (done, ended) = mpsc::channel();
        let meddle = move |db: &Connection| {
            meddle(db);
            done.send(()).unwrap();
        };
        assert!(self.writer.send(Job::Meddle(Box::new(meddle))));
        ended.recv().unwrap();
    }

    /// Holds the writer until the returned sender is dropped, so that what comes meanwhile is one batch.
    fn hold(&self) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (held, holding) = mpsc::channel();
        let wait = move |_: &Connection| {
            held.send(()).unwrap();
            let _ = released.recv();
        };
        assert!(self.writer.send(Job::Meddle(Box::new(wait))));
        holding.recv().unwrap();
        release
    }
}

/// The files as a killed process leaves them: what was written, with nobody to close it.
fn killed(folder: &TempDir) -> TempDir {
    let left = tempfile::tempdir().unwrap();
    for name in ["ayova.db", "ayova.db-wal"] {
        if folder.path().join(name).exists() {
            fs::copy(folder.path().join(name), left.path().join(name)).unwrap();
        }
    }
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_creates_at_once_share_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder));
    let client = |client: usize| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..20 {
                let intent = create(&format!("E{client}-{n}"), &format!("T{client}-{n}"));
                assert!(matches!(store.begin(&intent, at(0)).await, Ok(Begun::Fresh)));
                let learned = account(&format!("   14629{client:05}{n:06}"), "R", at(0));
                store.finish(&intent, End::Answered(answer("one")), Some(learned), at(0)).await.unwrap();
            }
        })
    };
    for ended in join_all((0..64).map(client)).await {
        ended.unwrap();
    }
    let Counters { commits, records } = store.counters();
    assert_eq!(records, 64 * 20 * 2);
    assert!(commits * 10 <= records, "{commits} commits for {records} records");
}

#[tokio::test]
async fn one_record_that_fails_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    store.meddle(|db| {
        db.execute_batch(
            "CREATE TEMP TRIGGER bad BEFORE INSERT ON main.intents WHEN new.id = 'E3'
             BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        )
        .unwrap();
    });
    let intents: Vec<Intent> = (0..6).map(|n| create(&format!("E{n}"), &format!("T{n}"))).collect();
    let before = store.counters();
    let hold = store.hold();
    let all = join_all(intents.iter().map(|intent| store.begin(intent, at(0))));
    let release = async { drop(hold) };
    let (results, ()) = tokio::join!(all, release);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result.is_ok(), n != 3, "{n}: {result:?}");
    }
    assert_eq!(store.counters().commits - before.commits, 1);
    assert_eq!(store.counters().records - before.records, 5);
    assert_eq!(store.problem(), None, "one record says nothing of the file");
    let left = killed(&folder);
    assert_eq!(open(&left).doubts(10).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_commit_that_fails_fails_everybody_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    // A broken promise that SQLite looks at when it commits.
    store.meddle(|db| {
        db.execute_batch(
            "PRAGMA foreign_keys = ON;
             CREATE TABLE parent (n INTEGER PRIMARY KEY);
             CREATE TABLE child (n INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
             CREATE TRIGGER orphan AFTER INSERT ON intents WHEN new.id = 'E3'
             BEGIN INSERT INTO child VALUES (1); END;",
        )
        .unwrap();
    });
    let intents: Vec<Intent> = (0..6).map(|n| create(&format!("E{n}"), &format!("T{n}"))).collect();
    let hold = store.hold();
    let all = join_all(intents.iter().map(|intent| store.begin(intent, at(0))));
    let (results, ()) = tokio::join!(all, async { drop(hold) });
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert!(store.problem().is_some());
    // The next one finds the file well again, and nothing of the lost batch in it.
    assert!(matches!(store.begin(&intents[0], at(0)).await, Ok(Begun::Fresh)));
    assert_eq!(store.problem(), None);
    let left = killed(&folder);
    assert_eq!(open(&left).doubts(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let intent = create("E1", "T1");
    store.begin(&intent, at(0)).await.unwrap();
    let left = killed(&folder);
    let after = open(&left);
    assert!(matches!(after.begin(&intent, at(1)).await, Ok(Begun::InDoubt(_))));
    assert_eq!(after.doubts(10).await.unwrap()[0].since, at(0));

    let learned = account("   1462912345678901", "R1", at(0));
    store.finish(&intent, End::Answered(answer("one")), Some(Arc::clone(&learned)), at(2)).await.unwrap();
    let left = killed(&folder);
    let after = open(&left);
    let Ok(Begun::Answered(found)) = after.begin(&intent, at(3)).await else { panic!() };
    assert_eq!(found, answer("one"));
    let found = after.account("sample", Dialect::Snap, &by_number("1462912345678901")).await.unwrap();
    assert_eq!(found, Some(learned));
    assert!(after.doubts(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn closing_records_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let intents: Vec<Intent> = (0..50).map(|n| create(&format!("E{n}"), &format!("T{n}"))).collect();
    let all = join_all(intents.iter().map(|intent| store.begin(intent, at(0))));
    let (results, ()) = tokio::join!(all, store.close());
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(store.begin(&create("E99", "T99"), at(0)).await.is_err());
    assert!(store.problem().is_some());
    assert!(!folder.path().join("ayova.db-wal").exists(), "the log is emptied into the file");
    assert_eq!(open(&folder).doubts(100).await.unwrap().len(), 50);
}

#[tokio::test]
async fn eviction_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bound = 64 * 1024;
    let store =
        SqliteStore::open(&Options { answers_bytes: bound, accounts_bytes: bound, ..options(&folder) }).unwrap();
    let numbers = 0..500;
    let number = |n: usize| format!("   14629{n:011}");
    for n in numbers.clone() {
        let intent = create(&format!("E{n}"), &format!("T{n}"));
        store.begin(&intent, at(0)).await.unwrap();
        let learned = account(&number(n), &format!("R{n}"), at(0));
        store.finish(&intent, End::Answered(answer("one")), Some(learned), at(0)).await.unwrap();
    }
    for n in numbers {
        let intent = create(&format!("E{n}"), &format!("T{n}"));
        assert!(matches!(store.begin(&intent, at(1)).await, Ok(Begun::Answered(_))));
        for form in [number(n).trim_start().to_owned(), format!("{n:011}")] {
            let found = store.account("sample", Dialect::Snap, &by_number(&form)).await.unwrap().unwrap();
            assert!(matches!(&found.handle, Handle::Snap { reference_no, .. } if *reference_no == format!("R{n}")));
        }
    }
    assert!(store.cache.bytes() <= 2 * bound, "{}", store.cache.bytes());
}

#[test]
fn what_a_reader_found_never_replaces_what_was_written_meanwhile() {
    let cache = Cache::new(1 << 20, 1 << 20);
    let (old, new) = (account("   1462912345678901", "R1", at(1)), account("   1462912345678901", "R2", at(1)));
    let query = by_number("12345678901");
    let epoch = cache.epoch();
    cache.committed(vec![cache::Effect::Account(Arc::clone(&new))]);
    cache.clear();
    cache.found(epoch, &query, &old);
    assert_eq!(cache.account("sample", Dialect::Snap, &query), None);
    cache.found(cache.epoch(), &query, &new);
    assert_eq!(cache.account("sample", Dialect::Snap, &query), Some(new));
    // A second account with these digits makes them say nothing.
    let namesake = account("   1392512345678901", "R3", at(1));
    cache.committed(vec![cache::Effect::Account(namesake)]);
    assert_eq!(cache.account("sample", Dialect::Snap, &query), None);
}

#[tokio::test]
async fn what_is_over_is_deleted_and_doubts_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Still(Mutex::new(at(0))));
    let store = SqliteStore::open(&Options { clock: Arc::clone(&clock) as _, ..options(&folder) }).unwrap();
    for n in 0..1_000 {
        let intent = create(&format!("E{n}"), &format!("T{n}"));
        let end = if n % 100 == 0 { End::InDoubt } else { End::Answered(answer("one")) };
        let learned = Some(account(&format!("   14629{n:011}"), "R", at(0)));
        store.finish(&intent, end, learned, at(0)).await.unwrap();
    }
    let rows = |table: &'static str| {
        store
            .reader
            .ask(move |db| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)))
    };
    let until = async |table, wanted| {
        for _ in 0..100 {
            if rows(table).await.unwrap() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} rows of {table} left, not {wanted}", rows(table).await.unwrap());
    };
    // By id they are over, by transaction they are not.
    *clock.0.lock().unwrap() = at(999);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rows("intents").await.unwrap(), 1_000);
    *clock.0.lock().unwrap() = at(1_000);
    until("intents", 10).await;
    assert_eq!(rows("accounts").await.unwrap(), 1_000);
    assert_eq!(store.doubts(100).await.unwrap().len(), 10);
    *clock.0.lock().unwrap() = crate::store::memory::after(at(1), accounts::RETENTION);
    until("accounts", 0).await;
    let found = store.account("sample", Dialect::Snap, &by_number("1462900000000007")).await.unwrap();
    assert_eq!(found, None, "the cache knows nothing the file has forgotten");
    assert_eq!(rows("intents").await.unwrap(), 10);
}

#[tokio::test]
async fn an_account_that_is_used_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Still(Mutex::new(at(0))));
    let store = SqliteStore::open(&Options { clock: Arc::clone(&clock) as _, ..options(&folder) }).unwrap();
    let forget_at = || {
        let read = |db: &rusqlite::Connection| db.query_row("SELECT forget_at FROM accounts", [], |row| row.get(0));
        store.reader.ask(move |db| read(db) as rusqlite::Result<String>)
    };
    let days = |days: u64| crate::store::memory::after(at(0), Duration::from_secs(days * 24 * 60 * 60));
    let until = |since| super::text::iso(crate::store::memory::after(since, accounts::RETENTION));
    let known = account("   1462912345678901", "R", at(0));
    store.remember(Arc::clone(&known)).await.unwrap();
    assert_eq!(forget_at().await.unwrap(), until(days(0)));
    // An update that changes nothing but the expiry leaves the record as it was.
    *clock.0.lock().unwrap() = days(1);
    store.remember(Arc::clone(&known)).await.unwrap();
    assert_eq!(forget_at().await.unwrap(), until(days(1)));
    // Reads count once a month, and restore nothing that has changed meanwhile.
    let newer = account("   1462912345678901", "R2", at(1));
    store.remember(newer).await.unwrap();
    for (day, counted) in [(30, 1), (32, 32)] {
        *clock.0.lock().unwrap() = days(day);
        store.touch(Arc::clone(&known)).await.unwrap();
        assert_eq!(forget_at().await.unwrap(), until(days(counted)), "day {day}");
    }
    let found = store.account("sample", Dialect::Snap, &by_number("1462912345678901")).await.unwrap().unwrap();
    assert_eq!(found.value(crate::dialect::Attach::Reference), Some("R2"));
}
