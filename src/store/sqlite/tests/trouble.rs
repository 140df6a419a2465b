//! Files that cannot be written for a while: what is refused, what goes on, how it ends.

use tokio::time::Instant;

use super::*;

/// Waits for the store to notice on its own, without a request.
async fn until_well(store: &SqliteStore) {
    for _ in 0..100 {
        if store.problem().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("still in trouble: {:?}", store.problem());
}

/// Some records, then a fault, then its end.
async fn outage(fault: impl FnOnce(&SqliteStore), cause: &str, cure: impl FnOnce(&SqliteStore)) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let (answered, under_way) = (create("E1", "T1"), create("E2", "T2"));
    let known = account("   1462912345678901", "R1", at(0));
    store.begin(&answered, at(0)).await.unwrap();
    store.finish(&answered, End::Answered(answer("one")), Some(Arc::clone(&known)), at(0)).await.unwrap();
    store.begin(&under_way, at(0)).await.unwrap();
    store.cache.clear();

    fault(&store);
    let big = Intent { request: vec![b'x'; 100_000].into(), ..create("E3", "T3") };
    let refused = store.begin(&big, at(1)).await.unwrap_err();
    assert!(refused.0.contains(cause), "{refused}");
    assert!(store.problem().unwrap().contains(cause));
    // What cannot be recorded is not sent again either.
    assert!(store.begin(&under_way, at(1)).await.is_err());
    let learned = account("   1462912345678902", "R2", at(0));
    let end = End::Answered(answer("two"));
    assert!(store.finish(&under_way, end, Some(learned), at(1)).await.is_err());
    assert!(store.remember(account("   1462912345678903", "R3", at(0))).await.is_err());
    // Reading goes on, from the file, and so do stored answers.
    let found = store.account("sample", Dialect::Snap, &by_number("12345678901")).await.unwrap();
    assert_eq!(found, Some(known));
    assert!(matches!(store.begin(&answered, at(1)).await, Ok(Begun::Answered(_))));
    assert!(store.problem().is_some(), "it stays in trouble while the cause stays");

    cure(&store);
    until_well(&store).await;
    // The end that could not be recorded now is.
    let Ok(Begun::Answered(found)) = store.begin(&under_way, at(2)).await else { panic!() };
    assert_eq!(found.body, "two");
    let found = store.account("sample", Dialect::Snap, &by_number("12345678902")).await.unwrap();
    assert!(found.is_some());
    assert!(matches!(store.begin(&big, at(2)).await, Ok(Begun::Fresh)), "the refused one left no trace");
    drop(store);
    let after = open(&folder);
    assert!(matches!(after.begin(&under_way, at(3)).await, Ok(Begun::Answered(_))));
    assert_eq!(after.doubts(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_disk() {
    // Fewer pages than there are: SQLite then allows no new one, as it would at the disk's end.
    let fill = |store: &SqliteStore| store.meddle(|db| set(db, "max_page_count", 1));
    let free = |store: &SqliteStore| store.meddle(|db| set(db, "max_page_count", 1_000_000));
    outage(fill, "full", free).await;
}

#[tokio::test]
async fn a_read_only_file() {
    let seal = |store: &SqliteStore| store.meddle(|db| set(db, "query_only", 1));
    let unseal = |store: &SqliteStore| store.meddle(|db| set(db, "query_only", 0));
    outage(seal, "read-only", unseal).await;
}

fn set(db: &Connection, pragma: &str, value: i64) {
    db.execute_batch(&format!("PRAGMA {pragma} = {value}")).unwrap();
}

#[tokio::test]
async fn another_programs_lock() {
    let other = Mutex::new(None);
    let lock = |store: &SqliteStore| {
        store.meddle(|db| db.busy_timeout(Duration::from_millis(20)).unwrap());
        let (send, receive) = mpsc::channel();
        store.meddle(move |db| send.send(db.path().unwrap().to_owned()).unwrap());
        let shell = Connection::open(receive.recv().unwrap()).unwrap();
        shell.execute_batch("BEGIN IMMEDIATE").unwrap();
        *other.lock().unwrap() = Some(shell);
    };
    let unlock = |_: &SqliteStore| drop(other.lock().unwrap().take());
    outage(lock, "another program", unlock).await;
}

#[tokio::test]
async fn a_file_that_is_moved_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let (path, elsewhere) = (folder.path().join("ayova.db"), folder.path().join("elsewhere.db"));
    fs::rename(&path, &elsewhere).unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let refused = store.begin(&create("E1", "T1"), at(0)).await.unwrap_err();
    assert!(refused.0.contains("gone"), "{refused}");
    fs::rename(&elsewhere, &path).unwrap();
    until_well(&store).await;
    assert!(matches!(store.begin(&create("E1", "T1"), at(0)).await, Ok(Begun::Fresh)));
}

#[tokio::test]
async fn ends_are_kept_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let intents: Vec<Intent> = (0..50).map(|n| create(&format!("E{n}"), &format!("T{n}"))).collect();
    for intent in &intents {
        store.begin(intent, at(0)).await.unwrap();
    }
    store.meddle(|db| set(db, "query_only", 1));
    // One mebibyte each: more than are kept.
    let large = crate::store::StoredAnswer { body: vec![b'x'; 1 << 20].into(), ..(*answer("")).clone() };
    let large = Arc::new(large);
    for intent in &intents {
        assert!(store.finish(intent, End::Answered(Arc::clone(&large)), None, at(1)).await.is_err());
    }
    store.meddle(|db| set(db, "query_only", 0));
    until_well(&store).await;
    let mut answered = 0;
    for intent in &intents {
        match store.begin(intent, at(2)).await.unwrap() {
            Begun::Answered(_) => answered += 1,
            Begun::InDoubt(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((20..40).contains(&answered), "{answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let (answered, under_way, new) = (create("E1", "T1"), create("E2", "T2"), create("E3", "T3"));
    store.begin(&answered, at(0)).await.unwrap();
    store.finish(&answered, End::Answered(answer("one")), None, at(0)).await.unwrap();
    store.begin(&under_way, at(0)).await.unwrap();
    store.cache.clear();

    let hold = store.hold();
    let began = Instant::now();
    let waits =
        tokio::join!(store.begin(&new, at(1)), store.finish(&under_way, End::Answered(answer("two")), None, at(1)));
    assert!(waits.0.is_err() && waits.1.is_err(), "{waits:?}");
    assert!(began.elapsed() < 2 * PATIENCE, "{:?}", began.elapsed());
    let problem = store.problem().expect("it is noticed");
    assert!(problem.contains("the disk has not answered for "), "{problem}");
    // From now on nobody waits, and stored answers go on.
    let known = Instant::now();
    assert!(store.begin(&create("E4", "T4"), at(1)).await.unwrap_err().0.contains("has not answered"));
    assert!(matches!(store.begin(&answered, at(1)).await, Ok(Begun::Answered(_))));
    assert!(store.remember(account("   1462912345678901", "R1", at(0))).await.is_err());
    assert!(known.elapsed() < Duration::from_secs(1), "{:?}", known.elapsed());

    drop(hold);
    until_well(&store).await;
    // The end was queued; of the begin nobody waited for there is no trace, so it can be begun again.
    let Ok(Begun::Answered(found)) = store.begin(&under_way, at(2)).await else { panic!() };
    assert_eq!(found.body, "two");
    assert!(matches!(store.begin(&new, at(2)).await, Ok(Begun::Fresh)));
    assert!(matches!(store.begin(&new, at(2)).await, Ok(Begun::InDoubt(_))));
}
