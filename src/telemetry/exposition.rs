//! Metrics as text, in whichever of two forms a scraper reads.
//!
//! Promises OpenMetrics to who asks for it, as Prometheus does, and to all others the older text format,
//! which every tool reads. They differ in the family name of counters, in units and in the end mark.

use std::collections::HashSet;
use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// `Content-Type` of the two forms.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text and its content type for a request that accepts this.
///
/// # Errors
/// Where a metric cannot be written.
pub fn render(registry: &Registry, accept: &str) -> Result<(String, &'static str), fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    if accept.contains("application/openmetrics-text") { Ok((text, OPEN_METRICS)) } else { Ok((plain(&text), PLAIN)) }
}

/// In the older format a counter's family is called like its series.
fn plain(text: &str) -> String {
    let about = |line: &str, what: &str| line.strip_prefix(what)?.split_once(' ').map(|(name, _)| name.to_owned());
    let counters: HashSet<String> =
        text.lines().filter(|line| line.ends_with(" counter")).filter_map(|line| about(line, "# TYPE ")).collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let name = about(line, "# HELP ").or_else(|| about(line, "# TYPE "));
        match name.filter(|name| counters.contains(name)) {
            Some(name) => out.push_str(&line.replacen(&name, &format!("{name}_total"), 1)),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    #[test]
    fn a_scraper_gets_the_form_it_reads() {
        let mut registry = Registry::default();
        registry.register("requests", "Requests answered", Counter::<u64>::default());
        registry.register("left", "Something left", Gauge::<i64>::default());
        let (open, kind) = render(&registry, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5").unwrap();
        assert_eq!(kind, OPEN_METRICS);
        assert!(open.contains("# TYPE requests counter\nrequests_total 0\n") && open.ends_with("# EOF\n"), "{open}");
        let (plain, kind) = render(&registry, "*/*").unwrap();
        assert_eq!(kind, PLAIN);
        assert_eq!(
            plain,
            "# HELP requests_total Requests answered.\n# TYPE requests_total counter\nrequests_total 0\n\
             # HELP left Something left.\n# TYPE left gauge\nleft 0\n"
        );
    }
}
