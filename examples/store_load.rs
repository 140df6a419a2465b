//! Fills a store and says what it cost: commits, records a second, time to open, memory, bytes a key.
//!
//! Run by hand, in release: `cargo run --release --example store_load -- FILE [KEYS] [CLIENTS]`.
//! A key is a create with its answer and its account, begun and finished as the gateway does it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ayova::clock::{Clock as _, SystemClock};
use ayova::dialect::{Dialect, OperationId};
use ayova::document::Document;
use ayova::reference::{Account, AccountQuery, Handle};
use ayova::store::sqlite::{Options, SqliteStore};
use ayova::store::{Begun, End, Intent, SentIds, Store as _, StoredAnswer};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("name a file that does not exist yet")?;
    let keys: usize = args.next().map_or(Ok(10_000), |text| text.parse())?;
    let clients: usize = args.next().map_or(Ok(64), |text| text.parse())?;
    let options = Options {
        path: path.clone().into(),
        answers_bytes: 64 << 20,
        accounts_bytes: 32 << 20,
        clock: Arc::new(SystemClock),
    };
    let store = Arc::new(open(&options)?);
    let first = keys_in(&store).await?;
    let began = Instant::now();
    let work = (0..clients).map(|client| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in (client..keys).step_by(clients) {
                create(&store, first + n).await?;
            }
            Ok::<(), Failure>(())
        })
    });
    for client in work.collect::<Vec<_>>() {
        client.await??;
    }
    let taken = began.elapsed().as_secs_f64();
    let counters = store.counters();
    println!("{keys} creates from {clients} clients in {taken:.1} s: {:.0} a second", per(keys, taken));
    println!("{} records in {} commits, {:.1} a commit", counters.records, counters.commits, ratio(&counters));
    println!("resident after writing: {}", resident());
    store.close().await;
    drop(store);
    let bytes = std::fs::metadata(&path)?.len();
    println!("file: {bytes} bytes, {} keys", first + keys);
    let store = open(&options)?;
    look_back(&store, first + keys).await?;
    println!("resident after reading: {}", resident());
    Ok(())
}

fn open(options: &Options) -> Result<SqliteStore, Failure> {
    let began = Instant::now();
    let store = SqliteStore::open(options)?;
    println!("opened in {:?}; resident: {}", began.elapsed(), resident());
    Ok(store)
}

/// How many keys earlier runs left, found by doubling and halving.
async fn keys_in(store: &SqliteStore) -> Result<usize, Failure> {
    let (mut low, mut high) = (0, 1 << 24);
    while low < high {
        let middle = usize::midpoint(low, high);
        let known = store.known(&format!("{middle:032}"), SystemClock.now()).await?;
        if known.is_empty() { high = middle } else { low = middle + 1 }
    }
    Ok(low)
}

async fn create(store: &SqliteStore, n: usize) -> Result<(), Failure> {
    let body = format!(
        r#"{{"customerNo":"CUST{n:08}","virtualAccountNo":"{n:011}","virtualAccountName":"Budi Santoso","trxId":"T{n:031}","totalAmount":{{"value":"150000.00","currency":"IDR"}},"expiredDate":"2026-12-31T10:00:00+07:00","additionalInfo":{{"bankCode":"014","isSingleUse":"N"}}}}"#
    );
    let request = Document::parse(body.clone().into()).map_err(|error| error.to_string())?;
    let intent = Intent {
        merchant: "sample".into(),
        operation: OperationId::SnapCreate,
        id: format!("{n:032}").into(),
        transaction: Some(format!("T{n:031}").into()),
        meaning: request.meaning(),
        request: body.clone().into(),
        sent: SentIds { header: Some(format!("{n:032}").into()), transaction: Some(format!("T{n:031}").into()) },
        retention: Duration::from_secs(48 * 3_600),
        transaction_retention: Duration::from_secs(35 * 86_400),
    };
    let now = SystemClock.now();
    if !matches!(store.begin(&intent, now).await?, Begun::Fresh) {
        return Err("not a new key".into());
    }
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-timestamp", HeaderValue::from_static("2026-11-20T10:00:00+07:00"));
    let body = format!(r#"{{"responseCode":"2002700","responseMessage":"Successful","virtualAccountData":{body}}}"#);
    let answer = StoredAnswer { status: StatusCode::OK, headers, body: body.into(), attached: vec![] };
    let account = Account {
        merchant: "sample".into(),
        number: format!("   14629{n:011}"),
        own_digits: format!("{n:011}"),
        bank_code: Some("014".to_owned()),
        amount: None,
        closed: false,
        created: now,
        expires: None,
        handle: Handle::Snap {
            partner_service_id: "   14629".to_owned(),
            customer_no: format!("CUST{n:08}"),
            trx_id: format!("T{n:031}"),
            reference_no: format!("{n:032}"),
        },
    };
    store.finish(&intent, End::Answered(Arc::new(answer)), Some(Arc::new(account)), now).await?;
    Ok(())
}

/// Every account from a cold cache, which then is as full as it gets.
async fn look_back(store: &SqliteStore, keys: usize) -> Result<(), Failure> {
    let began = Instant::now();
    for n in 0..keys {
        let query = AccountQuery { digits: format!("{n:011}"), ..AccountQuery::default() };
        if store.account("sample", Dialect::Snap, &query).await?.is_none() {
            return Err(format!("account {n} is lost").into());
        }
    }
    println!("read {keys} accounts one after the other: {:.0} a second", per(keys, began.elapsed().as_secs_f64()));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for a person")]
fn per(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "figures for a person")]
fn ratio(counters: &ayova::store::Counters) -> f64 {
    counters.records as f64 / counters.commits.max(1) as f64
}

/// From the kernel, where it says so.
fn resident() -> String {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}
