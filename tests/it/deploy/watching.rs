//! Dashboard and alerts ask for metrics, labels and values that ayova has, and each alert is explained and tried.
//!
//! The families are read from the source of `telemetry::metrics`, because a family that has not moved yet is not scraped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier};
use serde_json::Value;

use super::{json, list, said, text, yaml};

type Labels = BTreeSet<String>;

/// What other exporters have, with the labels that count here.
const FOREIGN: [(&str, &[&str]); 2] =
    [("up", &["instance", "job"]), ("kube_pod_init_container_status_ready", &["container", "pod", "namespace"])];

/// Scraped names with their labels, those of the scrape included.
fn metrics() -> BTreeMap<String, Labels> {
    let source = text("src/telemetry/metrics.rs");
    let sets = label_sets(&source);
    let mut metrics = BTreeMap::new();
    for registration in source.split("registry.register(").skip(1) {
        let (arguments, _) = registration.split_once(");").unwrap();
        let name = arguments.split('"').nth(1).unwrap();
        let field = arguments.trim().trim_end_matches(',').rsplit([' ', '\n']).next().unwrap();
        let field = field.trim_start_matches("self.").trim_end_matches(".clone()").trim_end_matches(".family()");
        let declared = source.lines().find_map(|line| {
            let line = line.trim().trim_start_matches("let ");
            line.strip_prefix(field)?.strip_prefix(": ")?.split([';', '=']).next()
        });
        let declared = declared.unwrap_or_else(|| panic!("{name} is registered from {field}, which is not declared"));
        let declared = declared.trim().trim_end_matches(',');
        let family = declared.strip_prefix("Family<").or_else(|| declared.strip_prefix("Kept<"));
        let (set, kind) = match family {
            Some(arguments) => arguments.trim_end_matches('>').split_once(", ").unwrap(),
            None => ("", declared),
        };
        let mut labels = Labels::from(["instance", "job"].map(str::to_owned));
        labels.extend(sets.get(set).into_iter().flatten().cloned());
        assert!(set.is_empty() || sets.contains_key(set), "{name} has the labels {set}, which are not declared");
        let endings: &[&str] = match kind {
            kind if kind.starts_with("Counter") => &["_total"],
            kind if kind.starts_with("Histogram") => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        for ending in endings {
            let bound = (*ending == "_bucket").then(|| "le".to_owned());
            metrics.insert(format!("ayova_{name}{ending}"), labels.iter().cloned().chain(bound).collect());
        }
    }
    assert!(metrics.len() > 20, "{metrics:?}");
    metrics.extend(
        FOREIGN.map(|(name, labels)| (name.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect())),
    );
    metrics
}

/// The fields of each set of labels.
fn label_sets(source: &str) -> BTreeMap<String, Labels> {
    let declarations = source.split("EncodeLabelSet)]\nstruct ").skip(1);
    let sets = declarations.map(|declaration| {
        let (name, rest) = declaration.split_once(" {").unwrap();
        let fields = rest.split_once("\n}").unwrap().0.lines().filter_map(|line| line.trim().split_once(": "));
        (name.to_owned(), fields.map(|(label, _)| label.trim_start_matches("r#").to_owned()).collect())
    });
    sets.collect()
}

/// Every text the sources mention: what a label's value may be.
fn words() -> String {
    fn read(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    read(&super::path("src"), &mut all);
    all
}

/// Judges expressions.
struct Judge {
    metrics: BTreeMap<String, Labels>,
    words: String,
}

impl Judge {
    fn new() -> Self {
        Self { metrics: metrics(), words: words() }
    }

    /// The labels an expression's result has, all of its parts being in order.
    fn result(&self, promql: &str) -> Labels {
        let expression = parser::parse(promql).unwrap_or_else(|error| panic!("{promql}: {error}"));
        self.labels(&expression).unwrap_or_else(|problem| panic!("{promql}: {problem}"))
    }

    fn labels(&self, expression: &Expr) -> Result<Labels, String> {
        match expression {
            Expr::Aggregate(aggregate) => {
                let inner = self.labels(&aggregate.expr)?;
                match &aggregate.modifier {
                    Some(LabelModifier::Include(by)) => {
                        let unknown = by.labels.iter().find(|label| !inner.contains(*label));
                        unknown.map_or_else(
                            || Ok(by.labels.iter().cloned().collect()),
                            |label| Err(format!("nothing to group by {label}")),
                        )
                    }
                    Some(LabelModifier::Exclude(_)) => Err("`without` hides what is left: say `by`".to_owned()),
                    None => Ok(Labels::new()),
                }
            }
            Expr::Binary(binary) => {
                let (left, right) = (self.labels(&binary.lhs)?, self.labels(&binary.rhs)?);
                let is_number = |side: &Expr| matches!(side, Expr::NumberLiteral(_));
                if is_number(&binary.rhs) || left == right {
                    Ok(left)
                } else {
                    Err("its sides have other labels".into())
                }
            }
            Expr::Paren(inner) => self.labels(&inner.expr),
            Expr::Call(call) => call.args.args.last().map_or_else(|| Ok(Labels::new()), |last| self.labels(last)),
            Expr::VectorSelector(selector) => self.selected(selector.name.as_deref(), &selector.matchers.matchers),
            Expr::MatrixSelector(matrix) => self.selected(matrix.vs.name.as_deref(), &matrix.vs.matchers.matchers),
            Expr::NumberLiteral(_) => Ok(Labels::new()),
            other => Err(format!("not judged here: {other:?}")),
        }
    }

    fn selected(&self, name: Option<&str>, matchers: &[Matcher]) -> Result<Labels, String> {
        let name = name.ok_or("a selector without a name")?;
        let labels = self.metrics.get(name).ok_or_else(|| format!("there is no metric {name}"))?;
        for matcher in matchers {
            if !labels.contains(&matcher.name) {
                return Err(format!("{name} has no label {}", matcher.name));
            }
            let is_ours = name.starts_with("ayova_") && !matcher.value.starts_with('$');
            let values = match &matcher.op {
                MatchOp::Equal | MatchOp::NotEqual => vec![matcher.value.as_str()],
                MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
            };
            if let Some(value) = values.iter().find(|value| is_ours && !self.words.contains(&format!("\"{value}\""))) {
                return Err(format!("no {} of {name} is {value}", matcher.name));
            }
        }
        Ok(labels.clone())
    }
}

/// The names between an opening and a closing text.
fn between<'a>(text: &'a str, opening: &'a str, closing: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(opening).skip(1).map(move |rest| rest.split(closing).next().unwrap().trim())
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let judge = Judge::new();
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/ayova.json")).unwrap();
    let mut titles = BTreeSet::new();
    for panel in list(&dashboard, "/panels").iter().filter(|panel| panel["type"] != "row") {
        assert!(titles.insert(said(panel, "/title")), "two panels {}", panel["title"]);
        for target in list(panel, "/targets") {
            let labels = judge.result(&said(target, "/expr").replace("$__rate_interval", "5m"));
            for label in between(said(target, "/legendFormat"), "{{", "}}") {
                assert!(labels.contains(label), "{}: the legend has {label}, the series {labels:?}", panel["title"]);
            }
        }
    }
    assert!(titles.len() > 20, "{titles:?}");
    for variable in list(&dashboard, "/templating/list").iter().filter(|variable| variable["type"] == "query") {
        let query = between(said(variable, "/definition"), "label_values(", ")").next().unwrap();
        let (name, label) = query.split_once(", ").unwrap();
        assert!(judge.result(name).contains(label), "{query}");
    }
}

/// The alerts as they are written.
fn alerts() -> Vec<Value> {
    let file = yaml("deploy/prometheus/alerts.yaml").remove(0);
    list(&file, "/groups").iter().flat_map(|group| list(group, "/rules").to_vec()).collect()
}

#[test]
fn the_alerts_ask_for_what_there_is_and_lead_to_the_runbook() {
    let judge = Judge::new();
    let runbook = text("docs/operations.md");
    for alert in alerts() {
        let (name, summary) = (said(&alert, "/alert"), said(&alert, "/annotations/summary"));
        let labels = judge.result(said(&alert, "/expr"));
        for label in between(summary, "$labels.", " ") {
            assert!(labels.contains(label), "{name}: the summary has {label}, the series {labels:?}");
        }
        assert!(["page", "ticket"].contains(&said(&alert, "/labels/severity")), "{name}");
        assert_eq!(said(&alert, "/annotations/runbook"), "docs/operations.md#alerts", "{name}");
        let row = runbook.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(row.is_some_and(|row| row.len() > 60), "docs/operations.md does not say what to do about {name}");
    }
    assert!(runbook.contains("\n## Alerts\n"));
    let names: BTreeSet<_> = alerts().iter().map(|alert| said(alert, "/alert").to_owned()).collect();
    for row in runbook.lines().filter_map(|line| line.strip_prefix("| `Ayova")) {
        let name = format!("Ayova{}", row.split('`').next().unwrap());
        assert!(names.contains(&name), "docs/operations.md explains {name}, which is no alert");
    }
}

#[test]
fn every_alert_is_tried() {
    let tried = yaml("deploy/prometheus/alerts.test.yaml").remove(0);
    let cases = list(&tried, "/tests").iter().filter_map(|test| test.get("alert_rule_test")?.as_array()).flatten();
    let fire: BTreeSet<_> =
        cases.filter(|case| case.get("exp_alerts").is_some()).map(|case| said(case, "/alertname")).collect();
    let alerts = alerts();
    assert_eq!(fire, alerts.iter().map(|alert| said(alert, "/alert")).collect());
}

#[test]
fn mistakes_are_seen() {
    let judge = Judge::new();
    for (promql, problem) in [
        ("ayova_request_total", "there is no metric ayova_request_total"),
        ("ayova_events_pending_total", "there is no metric ayova_events_pending_total"),
        ("ayova_request_duration_seconds", "there is no metric ayova_request_duration_seconds"),
        ("ayova_requests_total{result=\"failure\"}", "ayova_requests_total has no label result"),
        ("ayova_sweeps_total{result=\"found\"}", "no result of ayova_sweeps_total is found"),
        ("sum by (dialect) (rate(ayova_requests_total[5m]))", "nothing to group by dialect"),
        ("ayova_events_pending > ayova_clock_skew_seconds", "its sides have other labels"),
    ] {
        assert_eq!(judge.labels(&parser::parse(promql).unwrap()).unwrap_err(), problem);
    }
    assert_eq!(json(&saphyr::Yaml::value_from_str("7")), 7);
}
