//! Spans over OTLP, for the feature `otlp`.
//!
//! Promises that no request ever waits for it: spans go into a bounded queue, a thread of the SDK's sends
//! them in batches, and what does not fit is dropped. Protobuf over HTTP by the program's own client, so
//! that there is one TLS. Sampler, resource, limits and batches are as the standard `OTEL_*` variables
//! say, which the SDK reads itself.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context as Parent, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::trace::{Context, Facts, Span, Tracer};
use crate::upstream::{HttpsClient, https_client};

/// Exports spans.
pub struct Otlp {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Otlp")
    }
}

/// What is not left to the SDK.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether the environment names the service; without a name it is `ayova`.
    pub is_named: bool,
    /// Longest time one export may take.
    pub timeout: Duration,
}

impl Otlp {
    /// Exports to where the environment says; the present runtime does the sending.
    ///
    /// # Errors
    /// Where the endpoint is no address or the platform's certificate store cannot be used.
    pub fn new(settings: Settings) -> std::io::Result<Self> {
        let sending = Sending {
            client: https_client(CONNECT_TIME, None)?,
            runtime: Handle::try_current().map_err(std::io::Error::other)?,
            timeout: settings.timeout,
            fails: Arc::default(),
        };
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_http_client(sending).build().map_err(std::io::Error::other)?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_attribute(version);
        let resource = if settings.is_named { resource } else { resource.with_service_name("ayova") };
        let provider =
            SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        let tracer = provider.tracer("ayova");
        Ok(Self { provider, tracer })
    }

    fn start(&self, builder: SpanBuilder, parent: Option<&Context>, is_remote: bool) -> Box<dyn Span> {
        let state = parent.and_then(|parent| parent.state.clone());
        let parent = parent.map(|parent| Parent::new().with_remote_span_context(context(parent, is_remote)));
        let span = self.tracer.build_with_context(builder, &parent.unwrap_or_default());
        Box::new(Exported { span, state })
    }
}

impl Tracer for Otlp {
    fn request(&self, method: &str, caller: Option<&Context>) -> Box<dyn Span> {
        self.start(SpanBuilder::from_name(method.to_owned()).with_kind(SpanKind::Server), caller, true)
    }

    fn attempt(&self, request: &Context) -> Box<dyn Span> {
        self.start(SpanBuilder::from_name("upstream").with_kind(SpanKind::Client), Some(request), false)
    }

    fn end(&self, patience: Duration) {
        if self.provider.shutdown_with_timeout(patience).is_err() {
            tracing::warn!("the last spans could not be exported");
        }
    }
}

/// A context in the SDK's words.
fn context(context: &Context, is_remote: bool) -> SpanContext {
    let state = context.state.as_ref().and_then(|state| TraceState::from_str(state.to_str().ok()?).ok());
    SpanContext::new(
        TraceId::from(context.trace_id),
        SpanId::from(context.span_id),
        TraceFlags::new(context.flags),
        is_remote,
        state.unwrap_or_default(),
    )
}

/// A span of the SDK's.
#[derive(Debug)]
struct Exported {
    span: SdkSpan,
    state: Option<http::HeaderValue>,
}

impl Span for Exported {
    fn context(&self) -> Context {
        let own = self.span.span_context();
        Context {
            trace_id: u128::from_be_bytes(own.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(own.span_id().to_bytes()),
            flags: own.trace_flags().to_u8(),
            state: self.state.clone(),
        }
    }

    fn end(mut self: Box<Self>, facts: Facts<'_>) {
        let span = &mut self.span;
        if span.is_recording() {
            let name = facts.route.map(|route| Cow::from(format!("{} {route}", facts.method)));
            span.update_name(name.unwrap_or_else(|| Cow::from(facts.method.to_owned())));
            span.set_attributes(attributes(&facts));
            if facts.error.is_some() {
                span.set_status(Status::error(""));
            }
        }
        span.end();
    }
}

fn attributes(facts: &Facts<'_>) -> Vec<KeyValue> {
    let text = |name: &'static str, value: &str| KeyValue::new(name, value.to_owned());
    let mut all = vec![text("http.request.method", facts.method)];
    // Of a try the route is upstream's, which the conventions call a template.
    let route = if facts.server.is_some() { "url.template" } else { "http.route" };
    all.extend(facts.route.map(|value| text(route, value)));
    all.extend(facts.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    all.extend(facts.error.map(|error| text("error.type", error)));
    if let Some(server) = facts.server {
        all.push(text("server.address", &server.address));
        all.push(KeyValue::new("server.port", i64::from(server.port)));
    }
    all.extend(facts.more.iter().map(|(name, value)| text(name, value)));
    all
}

/// The exporter's way out. Its thread is none of the runtime's, so the sending is done there.
#[derive(Clone, Debug)]
struct Sending {
    client: HttpsClient,
    runtime: Handle,
    timeout: Duration,
    /// Said once, until it works again.
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl HttpClient for Sending {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (client, limit) = (self.client.clone(), self.timeout);
        let sending = self.runtime.spawn(async move {
            let answering = async {
                let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
                Ok(http::Response::from_parts(head, body))
            };
            timeout(limit, answering).await.unwrap_or_else(|_| Err::<_, HttpError>("no answer in time".into()))
        });
        let answer = sending.await?;
        let problem = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status().as_u16())),
            Err(error) => Some(error.to_string()),
        };
        self.tell(problem);
        answer
    }
}

impl Sending {
    fn tell(&self, problem: Option<String>) {
        let failed = self.fails.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed => tracing::warn!(problem, "spans cannot be exported and are dropped"),
            None if failed => tracing::info!("spans are exported again"),
            Some(_) | None => {}
        }
    }
}

/// Longest wait for a connection to the collector.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Bytes of a collector's answer that are read at most.
const ANSWER_MAX: usize = 64 * 1024;
