//! W3C trace context: what the caller sends is checked, and every try tells upstream of its own span.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ayova::telemetry::trace::{Context, Facts, Span, Tracer};

use crate::asks::{Ask, classic_create, snap_create, snap_inquiry};
use crate::harness::{Act, Setup, World};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traced(ask: Ask) -> Ask {
    ask.header("traceparent", PARENT).header("tracestate", "congo=t61rcWkgMzE")
}

/// The span a `traceparent` names, which must be of the caller's trace.
#[track_caller]
fn span(parent: &str) -> String {
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!((parts.len(), parts[0], parts[1], parts[3]), (4, "00", TRACE, "01"), "{parent:?}");
    assert_ne!(parts[2], "b7ad6b7169203331", "the caller's own span is not the try's");
    parts[2].to_owned()
}

#[tokio::test(start_paused = true)]
async fn every_try_is_a_span_of_the_callers_trace() {
    let world = World::new();
    world.wire.acts([Act::NotSent, Act::Deliver]);
    world.send(traced(snap_create(1, "12345678901"))).await.expect(200);
    let calls = world.wire.calls();
    assert_eq!(calls.len(), 2);
    assert_ne!(span(calls[0].header("traceparent")), span(calls[1].header("traceparent")));
    assert!(calls.iter().all(|call| call.header("tracestate") == "congo=t61rcWkgMzE"));
}

#[tokio::test(start_paused = true)]
async fn without_a_trace_or_with_a_bad_one_upstream_hears_of_none() {
    let world = World::new();
    world.send(snap_create(1, "12345678901")).await.expect(200);
    let bad = classic_create(2, "12345678").header("traceparent", "00-zz-01").header("tracestate", "congo=1");
    world.send(bad).await.expect(201);
    let bad_state = snap_inquiry("12345678901").header("traceparent", PARENT).header("tracestate", "=,=");
    world.send(bad_state).await.expect(200);
    let calls = world.wire.calls();
    for call in &calls[..2] {
        assert_eq!((call.header("traceparent"), call.header("tracestate")), ("", ""));
    }
    span(calls[2].header("traceparent"));
    assert_eq!(calls[2].header("tracestate"), "", "a bad state is no reason to lose the trace");
}

/// A tracer that keeps what it is told.
#[derive(Debug, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

#[derive(Debug)]
struct KeptSpan {
    context: Context,
    parent: Option<u64>,
    kept: Arc<Mutex<Vec<String>>>,
}

impl Kept {
    fn begin(&self, parent: Option<&Context>) -> Box<dyn Span> {
        let mut kept = self.0.lock().unwrap();
        kept.push(String::new());
        let span_id = kept.len() as u64;
        let root = Context { trace_id: 7, span_id, flags: 1, state: None };
        let context = parent.map_or(root, |parent| parent.with_span(span_id));
        Box::new(KeptSpan { context, parent: parent.map(|parent| parent.span_id), kept: Arc::clone(&self.0) })
    }
}

impl Tracer for Kept {
    fn request(&self, _: &str, caller: Option<&Context>) -> Box<dyn Span> {
        self.begin(caller)
    }

    fn attempt(&self, request: &Context) -> Box<dyn Span> {
        self.begin(Some(request))
    }

    fn end(&self, _: Duration) {}
}

impl Span for KeptSpan {
    fn context(&self) -> Context {
        self.context.clone()
    }

    fn end(self: Box<Self>, facts: Facts<'_>) {
        let Facts { method, route, status, error, server, more } = facts;
        let server = server.map(|server| server.address.as_str());
        let line = format!("{:?} {method} {route:?} {status:?} {error:?} {server:?} {more:?}", self.parent);
        self.kept.lock().unwrap()[self.context.span_id as usize - 1] = line;
    }
}

#[tokio::test(start_paused = true)]
async fn where_spans_are_exported_every_request_has_one_and_tries_are_its_children() {
    let (kept, mut setup) = (Kept::default(), Setup::new(1));
    let lines = Arc::clone(&kept.0);
    setup.tracer = Some(Arc::new(kept));
    let world = setup.build();
    world.wire.acts([Act::NotSent, Act::Deliver]);
    world.send(snap_create(1, "12345678901")).await.expect(200);
    world.send(Ask::new(http::Method::GET, "/nowhere", serde_json::Value::Null)).await;
    world.send(snap_create(3, "12345678901").merchant("NOBODY")).await.expect_refusal(404, "UNKNOWN_MERCHANT");
    world.wire.acts([Act::Broken]);
    world.send(classic_create(2, "12345678")).await.expect_refusal(504, "OUTCOME_UNKNOWN");
    let create = "Some(\"/va/api/v2.0/transfer-va/create-va\")";
    let classic = "Some(\"/api/v1/virtualAccount\")";
    let expected = [
        format!(
            "None POST {create} Some(200) None None [(\"ayova.source\", \"upstream\"), \
             (\"ayova.operation\", \"snap.create\"), (\"ayova.merchant\", \"sample\")]"
        ),
        format!("Some(1) POST {create} None Some(\"connect\") Some(\"127.0.0.1\") [(\"ayova.outcome\", \"not_sent\")]"),
        format!("Some(1) POST {create} Some(200) None Some(\"127.0.0.1\") [(\"ayova.outcome\", \"answered\")]"),
        "None GET None Some(404) None None [(\"ayova.source\", \"gateway\"), (\"ayova.reason\", \"UNKNOWN_ROUTE\")]"
            .to_owned(),
        format!(
            "None POST {create} Some(404) None None [(\"ayova.source\", \"gateway\"), \
             (\"ayova.reason\", \"UNKNOWN_MERCHANT\"), (\"ayova.operation\", \"snap.create\")]"
        ),
        format!(
            "None POST {classic} Some(504) Some(\"OUTCOME_UNKNOWN\") None [(\"ayova.source\", \"gateway\"), \
             (\"ayova.reason\", \"OUTCOME_UNKNOWN\"), (\"ayova.operation\", \"classic.create\"), \
             (\"ayova.merchant\", \"sample\")]"
        ),
        format!("Some(6) POST {classic} None Some(\"broken\") Some(\"127.0.0.1\") [(\"ayova.outcome\", \"unknown\")]"),
    ];
    assert_eq!(*lines.lock().unwrap(), expected);
    let calls = world.wire.calls();
    assert_eq!(calls[1].header("traceparent"), format!("00-{:032x}-{:016x}-01", 7, 3));
}
