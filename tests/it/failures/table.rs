//! The failure table: what each failure of upstream means to the app, for each operation.
//!
//! Runs every failure twice in a world of its own, striking only the first try and striking until it
//! is gone, and writes down what was seen. docs/failures.md is that, so it cannot say what is not so;
//! `UPDATE_EXPECT=1 cargo test failures::table` writes it anew.

use std::fmt::Write as _;

use ayova::config::sandbox::IdempotencyMode;
use ayova::dialect::{Dialect, OperationId, OperationKind};
use bytes::Bytes;
use expect_test::expect_file;
use http::Response;
use serde_json::{Value, json};

use crate::asks::{
    Ask, CLASSIC, CREATE, INQUIRY, UPDATE, classic_create, classic_get, classic_update, id, snap_create, snap_inquiry,
    snap_update,
};
use crate::harness::{Act, Arrived, Got, Setup, World};

/// Number and id of the account that updates and reads are about.
const SNAP_NUMBER: &str = "12345678900";
const CLASSIC_NUMBER: &str = "12345678";
/// Id and transaction of the request that fails.
const TAG: u32 = 7;

/// How a failure is brought about.
enum Cause {
    /// By the sandbox.
    Sandbox(fn(Dialect) -> Value),
    /// On the way; by try, counted from one.
    Way(fn(Dialect, u32) -> Act),
    /// The answer is lost, and upstream answers a repeated pair with 409.
    Conflict,
}

struct Failure {
    title: &'static str,
    about: &'static str,
    cause: Cause,
}

const fn failure(title: &'static str, about: &'static str, cause: Cause) -> Failure {
    Failure { title, about, cause }
}

/// An error in the generation's own shape.
fn envelope(dialect: Dialect, status: u16) -> Value {
    let body = match dialect {
        Dialect::Snap => json!({"responseCode": format!("{status}0000"), "responseMessage": "Trouble"}),
        Dialect::Classic => json!({
            "responseCode": status, "responseMessage": "service.unavailable",
            "errors": [{"code": "0201", "message": "error.validator.0201", "details": "Internal error"}],
        }),
    };
    json!({"status": status, "body": body.to_string()})
}

/// Classic's way of refusing; in SNAP a 503 is a server error whatever it says.
const REFUSAL: &str = r#"{"responseCode":503,"responseMessage":"service.unavailable","errors":[{"code":"0505","message":"error.validator.0505","details":"virtualAccountName"}]}"#;

fn unauthorized(dialect: Dialect, snap: &'static str) -> Act {
    match dialect {
        Dialect::Snap => Act::Answer(401, snap),
        Dialect::Classic => Act::Answer(401, r#"{"code":"401","message":"Unauthorised error"}"#),
    }
}

fn too_many(retry_after: Option<&str>) -> Act {
    let mut response = Response::builder().status(429).header("Content-Type", "application/json");
    if let Some(seconds) = retry_after {
        response = response.header("Retry-After", seconds);
    }
    Act::AnswerWith(Box::new(response.body(Bytes::from_static(br#"{"responseCode":"4290000"}"#)).unwrap()))
}

fn failures() -> Vec<Failure> {
    use Cause::{Conflict, Sandbox, Way};
    vec![
        failure(
            "No connection: refused, DNS failure, TLS failure",
            "Nothing has left, so every operation may be tried again, creates included.",
            Way(|_, _| Act::NotSent),
        ),
        failure(
            "Connection reset before the request arrived",
            "Nobody here can tell that it did not arrive: it is treated like the next one.",
            Sandbox(|_| json!({"reset_before": true})),
        ),
        failure(
            "Connection reset after the request was carried out",
            "The worst moment. SNAP recognises the repeated pair. A classic create cannot be asked about: to its \
             repetition upstream answers that the correlation id is used (code 0325 of `errors[]`), which says \
             that it arrived and not what its answer was: the create stays in doubt.",
            Sandbox(|_| json!({"reset_after_commit": true})),
        ),
        failure(
            "The same, where upstream answers a repeated pair with 409",
            "A conflict with our own try says that it arrived. What became of it is asked by inquiry; the app gets \
             the answer it would have had, put together from what the account shows.",
            Conflict,
        ),
        failure("No answer ever (hang)", "The request was not carried out.", Sandbox(|_| json!({"hang": true}))),
        failure(
            "The answer is later than `deadline`",
            "The request was carried out at once.",
            Sandbox(|_| json!({"latency": "30s"})),
        ),
        failure(
            "The answer's head comes, its body does not (slow body)",
            "The request was carried out. `attempt_timeout` covers the whole answer.",
            Sandbox(|_| json!({"latency": "9s"})),
        ),
        failure(
            "The connection ends in the middle of the answer (truncated body)",
            "The request was carried out.",
            Way(|_, _| Act::Swallow),
        ),
        failure(
            "200 without a body",
            "The request was carried out. A success that says nothing is none: the reference is in the body.",
            Sandbox(|_| json!({"empty_200": true})),
        ),
        failure(
            "A success whose JSON breaks off",
            "The request was carried out.",
            Sandbox(|_| json!({"malformed_json": true})),
        ),
        failure("500 without a body", "", Sandbox(|_| json!({"status": 500}))),
        failure(
            "500 with an error body",
            "Classic: code 0201, internal error.",
            Sandbox(|dialect| envelope(dialect, 500)),
        ),
        failure(
            "502 with an HTML page",
            "A proxy before Ayoconnect.",
            Way(|_, _| Act::Answer(502, "<html>Bad Gateway</html>")),
        ),
        failure("503 without a body", "", Sandbox(|_| json!({"status": 503}))),
        failure(
            "503 with an error body of unknown outcome",
            "Classic: code 0201, internal error.",
            Sandbox(|dialect| envelope(dialect, 503)),
        ),
        failure(
            "503 with `errors[]` of another code",
            "Classic's way to refuse: it comes back as it is and is not kept. SNAP has no such refusal.",
            Sandbox(|_| json!({"status": 503, "body": REFUSAL})),
        ),
        failure("504 without a body", "", Sandbox(|_| json!({"status": 504}))),
        failure("504 with an error body", "", Sandbox(|dialect| envelope(dialect, 504))),
        failure(
            "The token ends before the request arrives",
            "Upstream says so with 401; a new token is fetched and the request repeated once, newly signed.",
            Sandbox(|_| json!({"expire_token": true})),
        ),
        failure(
            "401 that blames the token",
            "SNAP cases 01 and 03, any classic 401: one new token and one repetition, then upstream's word stands.",
            Way(|dialect, _| unauthorized(dialect, r#"{"responseCode":"4010001"}"#)),
        ),
        failure(
            "401 that blames something else",
            "SNAP case 00: signature, client or key. Trying again would not help. Classic does not tell the two apart.",
            Way(|dialect, _| unauthorized(dialect, r#"{"responseCode":"4010000"}"#)),
        ),
        failure(
            "409 to the first try",
            "Not a conflict with a try of ours, so it is upstream's answer.",
            Way(|_, _| Act::Answer(409, r#"{"responseCode":"4090000","responseMessage":"Conflict"}"#)),
        ),
        failure("429 with Retry-After", "The app decides when to come back.", Way(|_, _| too_many(Some("7")))),
        failure("429 without Retry-After", "", Way(|_, _| too_many(None))),
    ]
}

/// Paths and methods, to tell the operation's own tries from logins and inquiries.
fn is_of(operation: OperationId, arrived: &Arrived) -> bool {
    let (method, path) = match operation {
        OperationId::SnapCreate => ("POST", CREATE),
        OperationId::SnapUpdate => ("PUT", UPDATE),
        OperationId::SnapInquiry => ("POST", INQUIRY),
        OperationId::ClassicCreate => ("POST", CLASSIC),
        OperationId::ClassicUpdate => ("PATCH", CLASSIC),
        OperationId::ClassicGet => ("GET", CLASSIC),
    };
    arrived.method == method && arrived.path == path
}

fn ask(operation: OperationId) -> Ask {
    match operation {
        OperationId::SnapCreate => snap_create(TAG, "12345678901"),
        OperationId::SnapUpdate => snap_update(TAG, SNAP_NUMBER),
        OperationId::SnapInquiry => snap_inquiry(SNAP_NUMBER),
        OperationId::ClassicCreate => classic_create(TAG, "12345679"),
        OperationId::ClassicUpdate => classic_update(CLASSIC_NUMBER).set("/transactionId", id(TAG)),
        OperationId::ClassicGet => classic_get(CLASSIC_NUMBER),
    }
}

/// What was seen of one request.
struct Row {
    got: String,
    tries: String,
    kept: String,
    retry: String,
    made: String,
}

fn word(got: &Got) -> String {
    let mut word = format!("{} {}", got.status, got.source());
    if !got.reason().is_empty() {
        write!(word, " {}", got.reason()).unwrap();
    }
    if got.source() == "upstream" && !got.header("retry-after").is_empty() {
        write!(word, ", Retry-After {}", got.header("retry-after")).unwrap();
    }
    word
}

/// A world with an account of each generation, so that there is something to update and read, and the
/// prefix of the merchant's numbers is known.
async fn world(cause: &Cause) -> World {
    let mut setup = Setup::new(1);
    if matches!(cause, Cause::Conflict) {
        setup.sandbox.snap.idempotency_mode = IdempotencyMode::Conflict;
    }
    let world = setup.build();
    world.send(snap_create(900, SNAP_NUMBER)).await.expect(200);
    world.send(classic_create(901, CLASSIC_NUMBER)).await.expect(201);
    world.wire.clear();
    world
}

/// Lets the failure strike the first try only, or every try.
async fn strike(world: &World, cause: &Cause, operation: OperationId, always: bool) {
    let dialect = operation.operation().dialect;
    let strikes = move |tried: u32| always || tried == 1;
    match *cause {
        Cause::Sandbox(fault) => {
            let mut filter = json!({"operation": operation.name()});
            if !always {
                filter["nth"] = json!(1);
            }
            let list = json!([{"match": filter, "fault": fault(dialect)}]);
            world.control("PUT", "/_sandbox/faults", list).await;
        }
        Cause::Way(act) => {
            let mut tries = 0;
            world.wire.script(move |arrived| {
                tries += u32::from(is_of(operation, arrived));
                if is_of(operation, arrived) && strikes(tries) { act(dialect, tries) } else { Act::Deliver }
            });
        }
        Cause::Conflict => {
            let mut tries = 0;
            world.wire.script(move |arrived| {
                tries += u32::from(is_of(operation, arrived));
                if is_of(operation, arrived) && strikes(tries) { Act::Swallow } else { Act::Deliver }
            });
        }
    }
}

async fn heal(world: &World) {
    world.control("PUT", "/_sandbox/faults", json!([])).await;
    world.wire.script(|_| Act::Deliver);
}

/// What `/idempotency/{key}` knows.
async fn kept(world: &World, operation: OperationId) -> String {
    if operation.operation().kind == OperationKind::Read {
        return "–".to_owned();
    }
    let page = world.admin(&format!("/idempotency/{}", id(TAG))).await;
    match page.status {
        404 => "nothing".to_owned(),
        _ => page.json()["known"][0]["state"].as_str().unwrap().replace('_', " "),
    }
}

async fn run(failure: &Failure, operation: OperationId, always: bool) -> Row {
    let world = world(&failure.cause).await;
    let before = world.stat("creates").await;
    strike(&world, &failure.cause, operation, always).await;
    let got = world.send(ask(operation)).await;
    let calls = world.wire.calls();
    let (own, other): (Vec<_>, Vec<_>) = calls.iter().partition(|arrived| is_of(operation, arrived));
    let asked = if other.is_empty() { "" } else { " + inquiry" };
    let kept = kept(&world, operation).await;
    heal(&world).await;
    // A refused token is not replaced twice within a second.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let again = world.send(ask(operation)).await;
    let made = world.stat("creates").await - before;
    let context = format!("{} {}", failure.title, operation.name());
    assert_eq!(world.stat("duplicate_creates").await, 0, "{context}");
    assert!(made <= 1, "{context}: {made} accounts");
    prove(&world, operation, (&got, &again), &context).await;
    let creates = operation.operation().kind == OperationKind::Create;
    Row {
        got: word(&got),
        tries: format!("{}{asked}", own.len()),
        kept,
        retry: word(&again),
        made: if creates { made.to_string() } else { "–".to_owned() },
    }
}

/// What holds whatever failed: an answer that stands never changes, a create that was answered can be
/// updated, nothing is left under way.
async fn prove(world: &World, operation: OperationId, (got, again): (&Got, &Got), context: &str) {
    let kind = operation.operation().kind;
    assert_eq!(world.gateway.tasks().len(), 0, "{context}: something is under way");
    if kind == OperationKind::Read {
        return;
    }
    let last = world.send(ask(operation)).await;
    let stands = |got: &Got| matches!(got.status, 200..=299 | 400 | 403 | 404 | 409);
    for earlier in [got, again].into_iter().filter(|earlier| stands(earlier)) {
        assert_eq!((earlier.status, &earlier.body), (last.status, &last.body), "{context}: another answer");
        assert_eq!(last.source(), "replay", "{context}");
    }
    let doubts = world.metric(&format!("ayova_unknown_outcomes{{operation=\"{}\"}}", operation.name())).await;
    let listed = world.admin("/outcomes").await.json()["outcomes"].as_array().unwrap().len();
    #[expect(clippy::cast_precision_loss, reason = "one or none")]
    let listed = listed as f64;
    assert_eq!(doubts, listed, "{context}: the gauge");
    if kind == OperationKind::Create && last.status < 300 {
        let update = match operation.operation().dialect {
            Dialect::Snap => snap_update(TAG + 1, "12345678901"),
            Dialect::Classic => classic_update("12345679"),
        };
        assert_eq!(world.send(update).await.source(), "upstream", "{context}: it cannot be updated");
        let sent = world.wire.last();
        if operation.operation().dialect == Dialect::Snap {
            assert_eq!(sent.json()["originalReferenceNo"], id(TAG), "{context}");
        }
    }
}

const INTRODUCTION: &str = "\
<!-- Written by tests/it/failures/table.rs from what it saw; UPDATE_EXPECT=1 cargo test failures::table -->

# When upstream fails

Each table shows what was seen when one thing went wrong between the gateway and Ayoconnect, with the
default configuration (`retry.attempts: 3`, `upstream.attempt_timeout: 8s`, `upstream.deadline: 20s`)
and the gateway's own simulator behind it. The test that writes this page fails when any of it changes.

- **Once**: the failure strikes the first try only. What the app gets, and how many tries reached upstream.
- **Lasting**: it strikes every try. What the app gets, how many tries there were, and what the gateway
  keeps: `answered` (repetitions get the same bytes), `in doubt` (nobody knows; a repetition is sent
  under the same ids), or `nothing`.
- **Retry**: what the app gets when it repeats the request, same ids and same body, once the failure is gone.
- **Made**: accounts upstream really made for the create's key in the lasting case, the retry included.
  It is never more than one; the test also holds it against the simulator's ledger.

An answer reads as its status, its `Ayova-Source` and its `Ayova-Reason`. What to do as an app is the
same everywhere: on `OUTCOME_UNKNOWN` repeat the request with the same ids until there is an answer, and
never make a new one with new ids. The gateway keeps asking by itself (after 5 s, 30 s, 2 min and 15 min,
then hourly for a day) where the account can be named: SNAP creates with a chosen number at a bank whose
prefix an earlier answer has shown, and all updates. Classic creates cannot be looked up; they stay in
`ayova outcomes list` until a repetition is answered or an operator says how they ended.

After the first try of a request may have arrived, nothing but an answer that stands ends the doubt: a
repetition that is not let through, refused for the moment (401, 429) or never leaves does not.
";

#[tokio::test(start_paused = true)]
async fn every_failure_of_every_operation() {
    let mut page = String::from(INTRODUCTION);
    for failure in failures() {
        writeln!(page, "\n## {}\n", failure.title).unwrap();
        if !failure.about.is_empty() {
            writeln!(page, "{}\n", failure.about).unwrap();
        }
        page.push_str("| Operation | Once | Tries | Lasting | Tries | Kept | Retry | Made |\n");
        page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for operation in OperationId::ALL {
            let snap = operation.operation().dialect == Dialect::Snap;
            if matches!(failure.cause, Cause::Conflict) && !snap {
                continue;
            }
            let once = run(&failure, operation, false).await;
            let lasting = run(&failure, operation, true).await;
            writeln!(
                page,
                "| `{}` | {} | {} | {} | {} | {} | {} | {} |",
                operation.name(),
                once.got,
                once.tries,
                lasting.got,
                lasting.tries,
                lasting.kept,
                lasting.retry,
                lasting.made
            )
            .unwrap();
        }
    }
    expect_file!["../../../docs/failures.md"].assert_eq(&page);
}
