//! What a running gateway tells of a request: its line, and its spans where a collector is named.

use serde_json::Value;

use super::{CREATE_BODY, CREATE_PATH, Gateway, Sandbox, ask, request};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A create whose caller is part of a trace.
fn traced_create() -> String {
    let headers = format!("Idempotency-Key: order-1\r\nX-Request-Id: r-1\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\n");
    request("POST", CREATE_PATH, &headers, CREATE_BODY)
}

#[tokio::test]
async fn the_line_of_a_request_says_where_it_went_and_where_its_time_went() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let answer = ask(&gateway.listen, &traced_create()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let line = gateway.running.err.line_with("\"message\":\"request\"").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    for (field, value) in [
        ("request_id", Value::from("r-1")),
        ("trace_id", TRACE.into()),
        ("merchant", "sample".into()),
        ("operation", "snap.create".into()),
        ("number", "****8901".into()),
        ("method", "POST".into()),
        ("status", 200.into()),
        ("source", "upstream".into()),
        ("attempts", 1.into()),
        ("upstream_status", 200.into()),
        ("upstream_code", 2_002_700.into()),
        ("bytes_in", CREATE_BODY.len().into()),
        ("bytes_out", answer.body.len().into()),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    let time = |field: &str| line[field].as_f64().unwrap_or_else(|| panic!("no {field}: {line}"));
    let parts = time("upstream_ms") + time("token_ms") + time("store_ms");
    assert!(parts > 0.0 && parts <= time("duration_ms"), "{line}");
    // What has nothing to say is not there.
    assert!(line.get("reason").is_none() && line.get("cause").is_none(), "{line}");
    ask(&gateway.listen, &request("GET", "/nowhere", "", "")).await;
    let line: Value = serde_json::from_str(&gateway.running.err.line_with("UNKNOWN_ROUTE").await).unwrap();
    assert!(line.get("upstream_ms").is_none() && line.get("number").is_none(), "{line}");
}

#[cfg(feature = "otlp")]
mod exported {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Bytes;
    use axum::routing::post;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message as _;
    use tokio::net::TcpListener;

    use super::super::{Running, ayova};
    use super::*;

    /// A collector in this process.
    struct Collector {
        endpoint: String,
        bodies: Arc<Mutex<Vec<Bytes>>>,
    }

    impl Collector {
        async fn start() -> Self {
            let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
            let kept = Arc::clone(&bodies);
            let take = move |body: Bytes| async move { kept.lock().unwrap().push(body) };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let router = Router::new().route("/v1/traces", post(take));
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { endpoint, bodies }
        }

        fn received(&self) -> Vec<ExportTraceServiceRequest> {
            let bodies = self.bodies.lock().unwrap();
            bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap()).collect()
        }
    }

    fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
        let found = attributes.iter().find(|attribute| attribute.key == name)?;
        match &found.value {
            Some(AnyValue { value: Some(Any::StringValue(text)) }) => Some(text.clone()),
            Some(AnyValue { value: Some(Any::IntValue(number)) }) => Some(number.to_string()),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn spans(received: &[ExportTraceServiceRequest]) -> Vec<Span> {
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    async fn exporting(sandbox: &Sandbox, variables: &[(&str, &str)]) -> Gateway {
        let (file, folder) = Gateway::configured(&format!("http://{}", sandbox.address), "", "");
        let mut command = ayova(&["run", "--config", &file]);
        command.envs(variables.iter().copied());
        Gateway::of(Running::spawn(command), folder).await
    }

    #[tokio::test]
    async fn a_create_is_a_span_of_its_callers_with_one_for_its_try() {
        let (sandbox, collector) = (Sandbox::start().await, Collector::start().await);
        // Longer than the test: what arrives was sent by the end.
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "600000")];
        let mut gateway = exporting(&sandbox, &variables).await;
        assert_eq!(ask(&gateway.listen, &traced_create()).await.status, 200);
        gateway.running.signal("TERM").await;
        assert_eq!(gateway.running.end().await.code(), Some(0));
        let received = collector.received();
        let spans = spans(&received);
        let [attempt, request] = spans.as_slice() else { panic!("{spans:#?}") };
        assert_eq!(hex::encode(&request.trace_id), TRACE);
        assert_eq!(hex::encode(&request.parent_span_id), CALLER);
        assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&request.trace_id, &request.span_id));
        // Server and client of opentelemetry.proto.trace.v1.Span.SpanKind.
        assert_eq!((request.kind, attempt.kind), (2, 3));
        for span in [request, attempt] {
            assert_eq!(span.name, format!("POST {CREATE_PATH}"));
            assert_eq!(text(&span.attributes, "http.request.method").as_deref(), Some("POST"));
            assert_eq!(text(&span.attributes, "http.response.status_code").as_deref(), Some("200"));
            assert_eq!(text(&span.attributes, "error.type"), None);
            assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        }
        assert_eq!(text(&request.attributes, "http.route").as_deref(), Some(CREATE_PATH));
        let (host, port) = sandbox.address.split_once(':').unwrap();
        assert_eq!(text(&attempt.attributes, "server.address").as_deref(), Some(host));
        assert_eq!(text(&attempt.attributes, "server.port").as_deref(), Some(port));
        let resource = received[0].resource_spans[0].resource.as_ref().unwrap();
        assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("ayova"));
        // Upstream was told of the try's span.
        let seen = sandbox.get("/_sandbox/requests").await.to_string();
        assert!(seen.contains(&format!("00-{TRACE}-{}-01", hex::encode(&attempt.span_id))), "{seen}");
        let all = format!("{received:?}");
        for canary in ["Budi", "12345678901", "sandbox-client", "sandbox-secret", "order-1"] {
            assert!(!all.contains(canary), "{canary} in {all}");
        }
    }

    #[tokio::test]
    async fn the_standard_variables_decide() {
        let (sandbox, collector) = (Sandbox::start().await, Collector::start().await);
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint);
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_SAMPLER", "always_off")] {
            let mut gateway = exporting(&sandbox, &[endpoint, off]).await;
            assert_eq!(ask(&gateway.listen, &request("GET", "/nowhere", "", "")).await.status, 404);
            gateway.running.signal("TERM").await;
            assert_eq!(gateway.running.end().await.code(), Some(0));
        }
        assert_eq!(spans(&collector.received()), []);
        let mut gateway = exporting(&sandbox, &[endpoint, ("OTEL_SERVICE_NAME", "payments")]).await;
        assert_eq!(ask(&gateway.listen, &request("GET", "/nowhere", "", "")).await.status, 404);
        gateway.running.signal("TERM").await;
        assert_eq!(gateway.running.end().await.code(), Some(0));
        let received = collector.received();
        let resource = received[0].resource_spans[0].resource.as_ref().unwrap();
        assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("payments"));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_collector_that_is_not_there() {
        let sandbox = Sandbox::start().await;
        // Accepts and never answers; its queue of connections is the system's.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
        ];
        let mut gateway = exporting(&sandbox, &variables).await;
        for n in 0..20 {
            assert_eq!(ask(&gateway.listen, &request("GET", &format!("/nowhere/{n}"), "", "")).await.status, 404);
        }
        gateway.running.err.line_with("spans cannot be exported").await;
        gateway.running.signal("TERM").await;
        assert_eq!(gateway.running.end().await.code(), Some(0));
    }
}
