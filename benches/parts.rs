//! How long the parts of a request's way take, one by one and as the whole stack.
//!
//! `cargo bench --bench parts [-- FILTER]` measures; what counts are ratios within one run, since times
//! on a shared machine are not to be trusted (`instructions` counts instead). Sizes are told by
//! `AYOVA_BENCH_REQUESTS`, `_BODY`, `_MERCHANTS` and `_ACCOUNTS`. `cargo test` runs everything once.

#![cfg(test)]

mod world;

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use ayova::call::{About, Call, Reply, Seen, Source};
use ayova::dialect::{Dialect, Form, Given, OperationId, check};
use ayova::document::{Document, Member};
use ayova::flights::{Boarding, Flights};
use ayova::layers::next::Next;
use ayova::layers::rate_limit::{RateLimits, rate_limit};
use ayova::reference::{Account, Handle};
use ayova::signature::{Encoding, HmacKey, SignedRequest, StringToSign, body_hash, minify};
use ayova::store::memory::MemoryStore;
use ayova::store::{Begun, End, Intent, SentIds, Store as _, StoredAnswer};
use ayova::telemetry::metrics::Metrics;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use world::{Asks, Operation, Sizes, World};

criterion_group!(parts, signing, reading, validating, recognising, limiting, counting, whole);
criterion_main!(parts);

/// Small where criterion only tries everything out.
fn sizes() -> Sizes {
    let measures = std::env::args().any(|argument| argument == "--bench");
    Sizes::told(if measures { Sizes::USUAL } else { Sizes::TINY })
}

fn signing(criterion: &mut Criterion) {
    let body = Asks::new(sizes()).create(1);
    let hash = body_hash(body.as_bytes());
    let request = SignedRequest {
        method: "POST",
        path: "/va/api/v2.0/transfer-va/create-va",
        body_hash: &hash,
        timestamp: "2026-01-05T10:00:00+07:00",
    };
    let mut group = criterion.benchmark_group("sign");
    group.throughput(Throughput::Bytes(body.len() as u64));
    let compact = serde_json::from_str::<serde_json::Value>(&body).unwrap().to_string();
    group.bench_function("minify, blanks", |bencher| bencher.iter(|| minify(black_box(body.as_bytes())).len()));
    group.bench_function("minify, none", |bencher| bencher.iter(|| minify(black_box(compact.as_bytes())).len()));
    group.bench_function("minify and SHA-256", |bencher| bencher.iter(|| body_hash(black_box(body.as_bytes()))));
    let key = HmacKey::new(b"sandbox-secret");
    group.bench_function("HMAC-SHA512", |bencher| {
        bencher.iter(|| {
            let text = StringToSign::hmac_sha512(black_box(&request), "341a7c1cdbf54655bb82538ac2224147");
            key.sign(&text, Encoding::Hex)
        });
    });
    let config = world::config(1);
    let key = config.merchants[0].private_key.as_ref().unwrap();
    group.bench_function("RSA", |bencher| {
        bencher.iter(|| key.sign(&StringToSign::rsa_transactional(black_box(&request)), Encoding::Base64).unwrap());
    });
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let asks = Asks::new(sizes());
    let text = Bytes::from(asks.update(1));
    let mut group = criterion.benchmark_group("document");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parse", |bencher| bencher.iter(|| Document::parse(black_box(&text).clone()).unwrap()));
    let document = Document::parse(text.clone()).unwrap();
    group.bench_function("meaning", |bencher| bencher.iter(|| black_box(&document).meaning()));
    let members = [Member { name: "originalReferenceNo", value: "7be2904fd1c36ae00000000000000001".to_owned() }];
    group.bench_function("splice", |bencher| bencher.iter(|| black_box(&document).splice(&members)));
    group.finish();
}

fn validating(criterion: &mut Criterion) {
    let asks = Asks::new(sizes());
    let now = world::START.parse().unwrap();
    let mut group = criterion.benchmark_group("validate");
    let bodies = [
        (Operation::SnapCreate, OperationId::SnapCreate, asks.create(1)),
        (Operation::ClassicCreate, OperationId::ClassicCreate, asks.classic(1)),
    ];
    for (asked, operation, body) in bodies {
        let headers = asks.request(asked, 1).headers().clone();
        let document = Document::parse(Bytes::from(body)).unwrap();
        let given = Given { headers: &headers, query: &[], body: Some(&document) };
        assert_eq!(check(operation.operation(), given, Form::Caller, now), [], "{}", operation.name());
        group.bench_function(operation.name(), |bencher| {
            bencher.iter(|| check(operation.operation(), black_box(given), Form::Caller, now).len());
        });
    }
    group.finish();
}

fn recognising(criterion: &mut Criterion) {
    let sizes = sizes();
    let document = Document::parse(Bytes::from(Asks::new(sizes).create(1))).unwrap();
    let now: Timestamp = world::START.parse().unwrap();
    let made = Cell::new(0);
    let next = || {
        made.set(made.get() + 1);
        intent(&document, made.get())
    };
    let mut group = criterion.benchmark_group("idempotency");
    let flights = Flights::default();
    group.bench_function("flight", |bencher| {
        bencher.iter_batched_ref(
            next,
            |intent| {
                let Boarding::Lead(seat) = flights.board(intent) else { panic!("two had one id") };
                seat.fly();
                seat.land(&Ok(reply()));
            },
            BatchSize::SmallInput,
        );
    });
    let store = MemoryStore::new(1 << 28, 1 << 27);
    let answer = StoredAnswer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: document.text().clone(),
        attached: vec![],
    };
    let answer = Arc::new(answer);
    group.bench_function("begin and finish", |bencher| {
        bencher.iter_batched_ref(
            || (next(), End::Answered(Arc::clone(&answer)), Some(Arc::new(account(made.get(), now)))),
            |(intent, end, learned)| {
                let begun = store.begin(intent, now).now_or_never().unwrap().unwrap();
                assert!(matches!(begun, Begun::Fresh));
                store.finish(intent, end.clone(), learned.take(), now).now_or_never().unwrap().unwrap();
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn limiting(criterion: &mut Criterion) {
    let config = world::config(sizes().merchants);
    let limits = Arc::new(RateLimits::new(&config.merchants, Arc::new(Metrics::new(&mut Registry::default()))));
    let world = World::new(Sizes { accounts: 1, ..sizes() });
    let (route, merchant) = (Arc::clone(&world.gateway().routes()[0]), Arc::clone(&world.gateway().merchants()[0]));
    let below: Next<_, Result<Reply, _>> = Next::last((), |(), _| std::future::ready(Ok(reply())));
    // Whatever a request has come through before; its deadline is never looked at here.
    let call = || Call {
        route: Arc::clone(&route),
        merchant: Arc::clone(&merchant),
        deadline: tokio::time::Instant::now(),
        headers: HeaderMap::new(),
        query: String::new(),
        admission: Arc::default(),
        body: Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    criterion.bench_function("limiter/admit and release", |bencher| {
        bencher.iter_batched(
            call,
            |call| {
                let admitted = rate_limit(Arc::clone(&limits), call, below.clone()).now_or_never().unwrap();
                assert!(admitted.is_ok(), "the limit was reached");
            },
            BatchSize::SmallInput,
        );
    });
}

fn counting(criterion: &mut Criterion) {
    let metrics = Metrics::new(&mut Registry::default());
    let world = World::new(Sizes { accounts: 1, ..sizes() });
    let about = About {
        dialect: Dialect::Snap,
        operation: Some(OperationId::SnapCreate.operation()),
        merchant: Some(Arc::clone(&world.gateway().merchants()[0])),
    };
    let seen = Seen { about, source: Source::Upstream, reason: None };
    criterion.bench_function("metrics/answered", |bencher| {
        bencher.iter(|| metrics.answered(black_box(&seen), 200, 0.0123));
    });
}

fn whole(criterion: &mut Criterion) {
    let sizes = sizes();
    let mut group = criterion.benchmark_group("stack");
    group.throughput(Throughput::Elements(1));
    for operation in Operation::ALL {
        let mut world = World::new(sizes);
        world.rehearse(operation, sizes.accounts);
        group.bench_function(operation.name(), |bencher| {
            bencher.iter_custom(|wanted| {
                let (mut left, mut taken) = (usize::try_from(wanted).unwrap(), Duration::ZERO);
                while left > 0 {
                    let count = left.min(sizes.requests);
                    let requests = world.prepare(operation, count);
                    let began = tokio::time::Instant::now();
                    assert_eq!(world.serve(requests), count);
                    taken += began.elapsed();
                    left -= count;
                }
                taken
            });
        });
    }
    group.finish();
}

fn intent(document: &Document, number: usize) -> Intent {
    let (id, transaction): (Arc<str>, Arc<str>) = (format!("{number:032}").into(), format!("t{number:031}").into());
    Intent {
        merchant: "merchant0".into(),
        operation: OperationId::SnapCreate,
        meaning: document.meaning(),
        request: document.text().clone(),
        sent: SentIds { header: Some(id.clone()), transaction: Some(transaction.clone()) },
        id,
        transaction: Some(transaction),
        retention: Duration::from_secs(48 * 3_600),
        transaction_retention: Duration::from_secs(35 * 86_400),
    }
}

fn account(number: usize, now: Timestamp) -> Account {
    Account {
        merchant: "merchant0".into(),
        number: format!("   14629{number:011}"),
        own_digits: format!("{number:011}"),
        bank_code: Some("014".to_owned()),
        amount: None,
        closed: true,
        created: now,
        expires: None,
        handle: Handle::Snap {
            partner_service_id: "   14629".to_owned(),
            customer_no: format!("CUST{number:012}"),
            trx_id: format!("t{number:031}"),
            reference_no: format!("{number:032}"),
        },
    }
}

fn reply() -> Reply {
    let content_type = (HeaderName::from_static("content-type"), HeaderValue::from_static("application/json"));
    Reply {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([content_type]),
        body: Bytes::from_static(b"{}"),
        source: Source::Upstream,
        reason: None,
        attached: vec![],
        learned: None,
        doubt_remains: false,
        about: About::default(),
    }
}
