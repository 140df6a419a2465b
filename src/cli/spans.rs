//! Whether spans are exported, as the standard `OTEL_*` variables say.
//!
//! Promises that without an endpoint nothing is exported, and that a setting that cannot be followed is a
//! warning and not the end: payments do not wait for telemetry.

use std::time::Duration;

use super::variable;
use crate::telemetry::trace::SharedTracer;

/// Whether and how, from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    /// Nobody asked for it.
    Off,
    /// It cannot be done, and what to do.
    Impossible(String),
    /// To be exported.
    On { is_named: bool, timeout: Duration },
}

/// The process's tracer; within the runtime that does the sending.
pub(super) fn tracer() -> SharedTracer {
    match wish(&variable) {
        Wish::Off => None,
        Wish::Impossible(problem) => {
            tracing::warn!(problem, "spans are not exported");
            None
        }
        Wish::On { is_named, timeout } => start(is_named, timeout),
    }
}

#[cfg(feature = "otlp")]
fn start(is_named: bool, timeout: Duration) -> SharedTracer {
    use crate::telemetry::otlp::{Otlp, Settings};
    match Otlp::new(Settings { is_named, timeout }) {
        Ok(otlp) => Some(std::sync::Arc::new(otlp)),
        Err(problem) => {
            tracing::warn!(%problem, "spans are not exported");
            None
        }
    }
}

#[cfg(not(feature = "otlp"))]
fn start(_: bool, _: Duration) -> SharedTracer {
    tracing::warn!(problem = "this build has no feature otlp: build with --features otlp", "spans are not exported");
    None
}

/// Reads the variables the SDK does not read itself: a variable that is empty is none.
fn wish(variable: &dyn Fn(&str) -> Option<String>) -> Wish {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    // Those of traces alone win.
    let setting = |name: &str| {
        set(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| set(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let is_disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let exporter = set("OTEL_TRACES_EXPORTER").unwrap_or_else(|| "otlp".to_owned());
    if is_disabled || exporter == "none" || setting("ENDPOINT").is_none() {
        return Wish::Off;
    }
    if exporter != "otlp" {
        return Wish::Impossible("OTEL_TRACES_EXPORTER must be otlp or none".to_owned());
    }
    if setting("PROTOCOL").is_some_and(|protocol| protocol != "http/protobuf") {
        let way_out = "the OTLP protocol must be http/protobuf: set OTEL_EXPORTER_OTLP_PROTOCOL so or leave it out, \
                       and name the collector's HTTP port (4318) in OTEL_EXPORTER_OTLP_ENDPOINT";
        return Wish::Impossible(way_out.to_owned());
    }
    let timeout = setting("TIMEOUT").and_then(|millis| millis.parse().ok()).map_or(TIMEOUT, Duration::from_millis);
    let names_service = |list: String| list.split(',').any(|pair| pair.trim().starts_with("service.name="));
    let is_named = set("OTEL_SERVICE_NAME").is_some() || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(names_service);
    Wish::On { is_named, timeout }
}

/// The specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Wish {
        let find =
            |name: &str| variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
        wish(&find)
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn nothing_is_exported_unless_an_endpoint_says_where() {
        assert_eq!(of(&[]), Wish::Off);
        assert_eq!(of(&[("OTEL_SERVICE_NAME", "pay")]), Wish::Off);
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Wish::Off);
        assert_eq!(of(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), Wish::Off);
        assert_eq!(of(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Wish::Off);
        assert_eq!(of(&[ENDPOINT]), Wish::On { is_named: false, timeout: TIMEOUT });
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces");
        let named = ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=pay");
        let short = ("OTEL_EXPORTER_OTLP_TIMEOUT", "250");
        assert_eq!(of(&[traces, named, short]), Wish::On { is_named: true, timeout: Duration::from_millis(250) });
    }

    #[test]
    fn what_cannot_be_followed_says_what_would_do() {
        for bad in [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "zipkin")] {
            let Wish::Impossible(problem) = of(&[ENDPOINT, bad]) else { panic!("{bad:?}") };
            assert!(problem.contains("must be"), "{problem}");
        }
    }
}
