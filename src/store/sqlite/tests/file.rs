//! The file itself: who may open it, what is refused untouched, what the last version wrote.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::dialect::OperationId;
use crate::dialect::amount::Amount;
use crate::store::StoredAnswer;
use crate::store::inbox::{Attempt, Counts, EventKind, Fate, Origin, Received};
use crate::store::inbox_suite::paid;
use crate::store::suite::classic_life;

fn refusal(folder: &TempDir) -> String {
    let StoreError(why) = SqliteStore::open(&options(folder)).unwrap_err();
    assert!(why.contains(folder.path().join("ayova.db").to_str().unwrap()), "names the file: {why}");
    why
}

/// A file that must be refused and be the same afterwards.
fn refused_untouched(content: &[u8], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ayova.db");
    fs::write(&path, content).unwrap();
    let why = refusal(&folder);
    assert!(why.contains(expected), "{why}");
    assert_eq!(fs::read(&path).unwrap(), content);
}

/// The bytes of a database made by these statements.
fn database(statements: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch(statements).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_file_serves_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let why = refusal(&folder);
    assert!(why.contains(&format!("another ayova (process {})", std::process::id())), "{why}");
    // By another name it is the same file.
    let alias = folder.path().join("alias.db");
    std::os::unix::fs::symlink(folder.path().join("ayova.db"), &alias).unwrap();
    assert!(SqliteStore::open(&Options { path: alias, ..options(&folder) }).is_err());
    drop(store);
    drop(open(&folder));
}

#[test]
fn files_and_folders_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/here/ayova.db");
    let store = SqliteStore::open(&Options { path: path.clone(), ..options(&folder) }).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let inner = path.parent().unwrap();
    assert_eq!((mode(inner), mode(inner.parent().unwrap())), (0o700, 0o700));
    let names: Vec<_> = fs::read_dir(inner).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in &names {
        assert_eq!(mode(name), 0o600, "{name:?}");
    }
    drop(store);
}

#[test]
fn what_is_not_ours_is_refused_untouched() {
    refused_untouched(b"version: 1\nlisten:\n  address: 127.0.0.1:8080\n", "not an SQLite database");
    refused_untouched(b"x", "not an SQLite database");
    refused_untouched(&database("CREATE TABLE theirs (n)"), "another program");
    refused_untouched(&database("PRAGMA application_id = 7; PRAGMA user_version = 1"), "another program");
    let newer = database("PRAGMA application_id = 0x41594f56; PRAGMA user_version = 99; CREATE TABLE new (n)");
    refused_untouched(&newer, "format is 99");
    let mut torn = database("CREATE TABLE theirs (n)");
    torn[16..].fill(0xff);
    refused_untouched(&torn, "(");
}

#[test]
fn a_log_without_its_file_is_not_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("ayova.db-wal");
    fs::write(&log, b"records").unwrap();
    assert!(refusal(&folder).contains("restore both"));
    assert_eq!(fs::read(&log).unwrap(), b"records");
}

#[test]
fn a_folder_that_cannot_be_made_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let path = folder.path().join("file/ayova.db");
    let StoreError(why) = SqliteStore::open(&Options { path, ..options(&folder) }).unwrap_err();
    assert!(why.contains("file/ayova.db cannot be opened"), "{why}");
    let StoreError(why) = SqliteStore::open(&Options { path: folder.path().into(), ..options(&folder) }).unwrap_err();
    assert!(why.contains("not a file"), "{why}");
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_not_an_absence() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    for n in 0..200 {
        store.begin(&create(&format!("E{n}"), &format!("T{n}")), at(0)).await.unwrap();
    }
    drop(store);
    let path = folder.path().join("ayova.db");
    let mut content = fs::read(&path).unwrap();
    // Everything but the schema's page.
    content[4096..].fill(0xa5);
    fs::write(&path, &content).unwrap();
    match SqliteStore::open(&options(&folder)) {
        Err(StoreError(why)) => assert!(why.contains("damaged"), "{why}"),
        Ok(store) => {
            let why = store.begin(&create("E1", "T1"), at(0)).await.unwrap_err();
            assert!(why.0.contains("damaged"), "{why}");
            assert!(store.problem().unwrap().contains("damaged"));
        }
    }
}

/// No query looks at every row, whatever the size of the file.
#[tokio::test]
async fn every_query_uses_an_index() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder));
    let path = folder.path().join("ayova.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < 20000)
         INSERT INTO intents SELECT i, 'sample', 'snap.create', 'snap', 'E' || i, 'T' || i, 'answered', '2026', NULL,
            '2026', '2027', '2027', '2027', 1, 200, '[]', '[]', x'7b7d', NULL, NULL, zeroblob(32), 1, 1, NULL FROM k;
         WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < 20000)
         INSERT INTO accounts SELECT '14629' || i, 'sample', 'snap', '14629' || i, i, NULL, NULL, '2026', 'R', 'T',
            '   14629', 'C', NULL, NULL, NULL, '2027', NULL, 0 FROM k;
         WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < 20000)
         INSERT INTO events SELECT i, 'evt_' || i, 'sample', 'snap', '14629' || i, 'P' || i, 'delivered', '2026', NULL,
            '2027', '2026', '2027', 1, 0, '1.00', NULL, NULL, NULL, x'7b7d', 'va.paid', 'callback', 1, NULL, 0
            FROM k;
         WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < 20000)
         INSERT INTO watches SELECT '14629' || i, 'sample', 'snap', '2026', '2028', '2027', NULL, 1, NULL, '0.00', NULL,
            NULL, 0, 0 FROM k;",
    )
    .unwrap();
    let queries = [
        intents::BY_ID,
        intents::BY_TRANSACTION,
        intents::LATEST,
        intents::ANSWER,
        intents::PRUNE,
        intents::DOUBTS,
        intents::KNOWN,
        intents::NEXT,
        accounts::IS_DUE,
        accounts::BY_DIGITS,
        accounts::BY_OWN_DIGITS,
        accounts::BY_ACCOUNT_ID,
        accounts::PREFIX,
        accounts::ALL,
        accounts::PRUNE,
        events::TURN,
        events::LOSE_TURN,
        events::BY_PAYMENT,
        events::BY_ID,
        events::DUE,
        events::BY_STATE,
        events::LATEST,
        events::ENDED_SINCE,
        events::BACKLOG,
        events::PRUNE,
        events::TOLD,
        events::FORGET_ASIDE,
        events::RELEASE,
        watches::ENDING,
        watches::DUE,
        watches::ONE,
        watches::PENDING,
        watches::GO_ON,
        watches::COUNT,
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema)",
    ];
    // As they are planned without statistics, and with those of an operator's ANALYZE.
    for statistics in ["", "ANALYZE"] {
        db.execute_batch(statistics).unwrap();
        for query in queries {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let mut steps = plan.raw_query();
            let mut described = Vec::new();
            while let Some(step) = steps.next().unwrap() {
                described.push(step.get::<_, String>("detail").unwrap());
            }
            for step in &described {
                // Partial indexes of what is unsettled are as long as that, and a subquery has its limit.
                let bounded = [
                    "intents_under_way",
                    "intents_in_doubt",
                    "events_pending",
                    "(subquery",
                    "sqlite_schema",
                    "CONSTANT ROW",
                ];
                let bounded = bounded.iter().any(|known| step.contains(known));
                assert!(!step.starts_with("SCAN") || bounded, "{query}\n{described:#?}");
            }
        }
    }
    drop(db);
    let store = open(&folder);
    assert!(matches!(store.begin(&create("E20001", "T20001"), at(0)).await, Ok(Begun::Fresh)));
    assert_eq!(store.first, 20_001);
}

/// What the fixture holds, by the version that wrote it.
async fn write_fixture(store: &SqliteStore) {
    for (intent, end, learned) in fixture() {
        store.begin(&intent, at(0)).await.unwrap();
        if let Some(end) = end {
            store.finish(&intent, end, learned, at(5)).await.unwrap();
        }
    }
}

fn fixture() -> Vec<(Intent, Option<End>, Option<Arc<Account>>)> {
    let mut headers = HeaderMap::new();
    headers.append("content-type", HeaderValue::from_static("application/json"));
    headers.append("x-odd", HeaderValue::from_bytes(b"\xe9").unwrap());
    let answer = Arc::new(StoredAnswer {
        status: StatusCode::OK,
        headers,
        body: Bytes::from_static(br#"{"responseCode":"2002700"}"#),
        attached: vec!["originalReferenceNo"],
    });
    let years = |intent: Intent| Intent { retention: YEARS, transaction_retention: YEARS, ..intent };
    let classic = Account {
        merchant: "sample".into(),
        number: "1392500012345678".to_owned(),
        own_digits: "12345678".to_owned(),
        bank_code: Some("002".to_owned()),
        amount: Amount::parse("150000.00"),
        closed: false,
        created: at(1),
        expires: None,
        handle: Handle::Classic {
            account_id: "A1".to_owned(),
            customer_id: "AYOTST-1".to_owned(),
            correlation_id: "C1".to_owned(),
        },
    };
    let update = Intent { operation: OperationId::ClassicUpdate, transaction: None, ..create("E4", "T4") };
    vec![
        (years(create("E1", "T1")), Some(End::Answered(answer)), Some(account("   1462912345678901", "R1", at(0)))),
        (years(create("E2", "T2")), Some(End::InDoubt), None),
        (years(create("E3", "T3")), None, None),
        (years(update), Some(End::InDoubt), Some(Arc::new(classic))),
    ]
}

/// Longer than any version lives.
const YEARS: Duration = Duration::from_secs(1_000 * 366 * 24 * 60 * 60);

/// A folder with a file as an earlier version wrote it.
fn from_fixture(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture_path(name), folder.path().join("ayova.db")).unwrap();
    folder
}

fn fixture_path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What version 1 wrote is there in every later one, and callbacks can be kept beside it.
#[tokio::test]
async fn the_file_of_version_1_opens() {
    let folder = from_fixture("store-v1.db");
    let store = open(&folder);
    holds_the_fixture(&store).await;
    store.inbox().receive(paid("e1", "   1462912345678901", 0, "5000.00")).await.unwrap();
    assert_eq!(store.inbox().due("sample", at(0), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_file_of_version_2_opens() {
    let folder = from_fixture("store-v2.db");
    let store = open(&folder);
    holds_the_fixture(&store).await;
    let due = store.inbox().due("sample", at(2), 10).await.unwrap();
    assert_eq!(due.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["e2"]);
    assert_eq!((due[0].kind, due[0].origin, due[0].counted), (EventKind::Paid, Origin::Callback, false));
}

/// A file this version wrote opens in every later one. A new version adds its own fixture and leaves
/// this one alone; written with `WRITE_FIXTURE=1`.
#[tokio::test]
async fn the_file_of_version_3_opens() {
    let number = "   1462912345678901";
    if std::env::var_os("WRITE_FIXTURE").is_some() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        store.watches().take_up(at(0)).await.unwrap();
        write_fixture(&store).await;
        for (id, time) in [("e1", 0), ("e2", 1)] {
            store.inbox().receive(paid(id, number, time, "5000.00")).await.unwrap();
        }
        let fate = Fate::Delivered;
        let delivered = Attempt {
            id: "e1".to_owned(),
            at: at(2),
            attempts: 1,
            fate,
            said: "200".to_owned(),
            confirmed: false,
            counts: Counts::InFull,
            doubt: None,
        };
        store.inbox().attempted(delivered).await.unwrap();
        drop(store);
        fs::copy(folder.path().join("ayova.db"), fixture_path("store-v3.db")).unwrap();
    }
    let folder = from_fixture("store-v3.db");
    let store = open(&folder);
    holds_the_fixture(&store).await;
    let due = store.inbox().due("sample", at(2), 10).await.unwrap();
    assert_eq!(due.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["e2"]);
    let received = store.inbox().receive(paid("e3", number, 1, "5000.00")).await.unwrap();
    assert_eq!(received, Received::Duplicate);
    let watched = store.watches().watch("sample", Dialect::Snap, "1462912345678901").await.unwrap().unwrap();
    assert_eq!(watched.counted.latest, Some(at(0)));
}

async fn holds_the_fixture(store: &SqliteStore) {
    let doubts = store.doubts(10).await.unwrap();
    let since: BTreeMap<&str, _> = doubts.iter().map(|doubt| (&*doubt.intent.id, doubt.since)).collect();
    assert_eq!(since, BTreeMap::from([("E2", at(5)), ("E3", at(0)), ("E4", at(5))]));
    for (intent, end, learned) in fixture() {
        let begun = store.begin(&intent, at(1_000)).await.unwrap();
        match (&end, begun) {
            (Some(End::Answered(expected)), Begun::Answered(found)) => assert_eq!(*expected, found),
            (Some(End::InDoubt) | None, Begun::InDoubt(sent)) => {
                assert_eq!(sent, intent.sent);
                let doubt = doubts.iter().find(|doubt| doubt.intent.id == intent.id).unwrap();
                assert_eq!(format!("{:?}", doubt.intent), format!("{intent:?}"));
            }
            (_, other) => panic!("{}: {other:?}", intent.id),
        }
        if let Some(learned) = learned {
            let query = by_number(learned.digits());
            assert_eq!(store.account("sample", learned.dialect(), &query).await.unwrap(), Some(learned));
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    store.watches().take_up(at(0)).await.unwrap();
    for number in ["   1462912345678901", "   1462912345678902"] {
        store.remember(account(number, "R", at(1))).await.unwrap();
        store.inbox().receive(paid(number, number, 1, "5000.00")).await.unwrap();
    }
    let db = Connection::open(folder.path().join("ayova.db")).unwrap();
    db.execute("UPDATE watches SET paid_total = 'much' WHERE digits = '1462912345678901'", []).unwrap();
    db.execute("UPDATE events SET amount = 'much' WHERE digits = '1462912345678901'", []).unwrap();
    let due = store.watches().due("sample", at(9), at(9), 10).await.unwrap();
    assert_eq!(due.iter().map(|watch| watch.account.digits()).collect::<Vec<_>>(), ["1462912345678902"]);
    let due = store.inbox().due("sample", at(9), 10).await.unwrap();
    assert_eq!(due.iter().map(|event| event.digits.as_str()).collect::<Vec<_>>(), ["1462912345678902"]);
}

#[tokio::test]
async fn a_quarantine_is_bounded_and_forgets_its_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    for n in 0..6 {
        let id = format!("e{n}");
        let paid = paid(&id, "   1462912345678901", n, "5000.00");
        let doubt = (n > 0).then_some("it is not signed");
        store.inbox().receive(Arc::new(crate::store::inbox::Arrival { doubt, ..(*paid).clone() })).await.unwrap();
    }
    let db = Connection::open(folder.path().join("ayova.db")).unwrap();
    let most = |rows, bytes| crate::store::inbox::Aside { rows, bytes };
    assert_eq!(events::forget_aside(&db, "other", most(0, 0)).unwrap(), 0);
    assert_eq!(events::forget_aside(&db, "sample", most(4, 1 << 20)).unwrap(), 1);
    let body: u32 = db.query_row("SELECT length(body) FROM events WHERE n = 6", [], |row| row.get(0)).unwrap();
    assert_eq!(events::forget_aside(&db, "sample", most(9, 2 * usize::try_from(body).unwrap())).unwrap(), 2);
    let left: Vec<String> = db
        .prepare("SELECT id FROM events ORDER BY n")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(left, ["e0", "e4", "e5"], "what is in line stays");
}

#[tokio::test]
async fn a_number_made_again_while_nobody_watched_is_watched_anew() {
    let folder = tempfile::tempdir().unwrap();
    let lives = [
        (account("   1462912345678901", "R", at(1)), account("   1462912345678901", "S", at(5))),
        (classic_life("A1", 1), classic_life("A2", 5)),
    ];
    let store = open(&folder);
    store.watches().take_up(at(0)).await.unwrap();
    for (first, _) in &lives {
        store.remember(Arc::clone(first)).await.unwrap();
    }
    drop(store);
    let store = open(&folder);
    for (_, second) in &lives {
        store.remember(Arc::clone(second)).await.unwrap();
    }
    for _ in 0..2 {
        store.watches().take_up(at(9)).await.unwrap();
        for (_, second) in &lives {
            let watch = store.watches().watch("sample", second.dialect(), second.digits()).await.unwrap().unwrap();
            assert_eq!((&watch.account, watch.counted.whole), (second, false));
        }
    }
    let life =
        |db: &Connection| -> String { db.query_row("SELECT max(life) FROM watches", [], |row| row.get(0)).unwrap() };
    assert!(life(&Connection::open(folder.path().join("ayova.db")).unwrap()).ends_with(" A2"));
}
