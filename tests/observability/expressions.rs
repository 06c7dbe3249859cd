//! Every PromQL expression that ships: that it is PromQL, and asks only for series and labels that are
//! measured.

use std::collections::{BTreeMap, BTreeSet};

use embedding_recovery::telemetry::metrics::names::{self, Kind};
use embedding_recovery::telemetry::metrics::prometheus_name;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

use super::{dashboards, rules};

/// What the collector makes of spans, by `spanmetrics` in observability/collector.yaml, and the labels
/// that these have.
const OF_THE_COLLECTOR: [(&str, &[&str]); 2] = [
    ("traces_span_metrics_calls_total", &["service_name", "span_name", "status_code"]),
    ("traces_span_metrics_duration_seconds_bucket", &["service_name", "span_name", "le"]),
];

/// An expression and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    pub place: String,
    pub text: String,
}

impl Expression {
    /// Parsed, with times in place of Grafana's variables.
    pub fn parsed(&self) -> Expr {
        let text = self.at_scrapes_of("5m");
        parser::parse(&text).unwrap_or_else(|error| panic!("{}: {error}: {text}", self.place))
    }

    /// With this range in place of those that Grafana chooses.
    pub fn at_scrapes_of(&self, range: &str) -> String {
        self.text.replace("$__rate_interval", range).replace("$__range", range)
    }

    /// Whether it asks for what only a collector makes.
    pub fn is_of_the_collector(&self) -> bool {
        let names = OF_THE_COLLECTOR.map(|(name, _)| name);
        selectors(&self.parsed()).iter().any(|selector| names.contains(&name_of(selector)))
    }
}

/// All of them: of the dashboards, the recording rules and the alerts.
pub(super) fn all() -> Vec<Expression> {
    let rules = rules::all().into_iter().map(|rule| rule.expression);
    dashboards::expressions().into_iter().chain(rules).collect()
}

/// The selectors of an expression.
pub(super) fn selectors(expression: &Expr) -> Vec<VectorSelector> {
    let mut found = Selectors::default();
    let Ok(_) = walk_expr(&mut found, expression);
    found.selectors
}

/// The name of the series that a selector asks for.
pub(super) fn name_of(selector: &VectorSelector) -> &str {
    selector.name.as_deref().unwrap_or_else(|| panic!("{selector} names no metric"))
}

/// The labels by which it sums up.
fn grouping(expression: &Expr) -> BTreeSet<String> {
    let mut found = Selectors::default();
    let Ok(_) = walk_expr(&mut found, expression);
    found.grouping
}

#[derive(Default)]
struct Selectors {
    selectors: Vec<VectorSelector>,
    grouping: BTreeSet<String>,
}

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        match expression {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.selectors.push(matrix.vs.clone()),
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
                    self.grouping.extend(labels.labels.iter().cloned());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// The series that there are, with their labels.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    for metric in names::ALL {
        let labels: BTreeSet<String> = metric
            .attributes
            .iter()
            .map(|attribute| attribute.replace('.', "_"))
            .chain(["job", "instance"].map(String::from))
            .collect();
        let name = prometheus_name(metric);
        if matches!(metric.kind, Kind::Histogram(_)) {
            for ending in ["sum", "count"] {
                known.insert(format!("{name}_{ending}"), labels.clone());
            }
            let le = labels.into_iter().chain(["le".to_owned()]).collect();
            known.insert(format!("{name}_bucket"), le);
        } else {
            known.insert(name, labels);
        }
    }
    for rule in rules::all() {
        if let Some(record) = rule.record {
            known.insert(record, grouping(&rule.expression.parsed()));
        }
    }
    let of_the_collector = OF_THE_COLLECTOR.map(|(name, labels)| {
        (name.to_owned(), labels.iter().copied().map(String::from).collect())
    });
    known.extend(of_the_collector);
    known
}

/// What is wrong with an expression.
fn faults(expression: &Expression, known: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let parsed = expression.parsed();
    let mut faults = Vec::new();
    let mut there: BTreeSet<&str> = BTreeSet::new();
    for selector in &selectors(&parsed) {
        let name = name_of(selector);
        let Some(labels) = known.get(name) else {
            faults.push(format!("{}: there is no {name}", expression.place));
            continue;
        };
        there.extend(labels.iter().map(String::as_str));
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) {
                faults.push(format!("{}: {name} has no {}", expression.place, matcher.name));
            }
        }
    }
    for label in grouping(&parsed) {
        if !there.contains(label.as_str()) {
            faults.push(format!("{}: nothing has the label {label}", expression.place));
        }
    }
    faults
}

#[test]
fn every_expression_is_promql_over_what_is_measured() {
    let (all, known) = (all(), known());
    assert!(all.len() > 80, "only {} expressions", all.len());
    let faults: Vec<String> =
        all.iter().flat_map(|expression| faults(expression, &known)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_metric_is_shown_or_watched() {
    let all = all();
    let asked: BTreeSet<String> = all
        .iter()
        .flat_map(|expression| selectors(&expression.parsed()))
        .map(|selector| name_of(&selector).to_owned())
        .collect();
    for metric in names::ALL {
        let name = prometheus_name(metric);
        let endings = ["", "_bucket", "_count", "_sum"].map(|ending| format!("{name}{ending}"));
        assert!(endings.iter().any(|name| asked.contains(name)), "nobody asks for {name}");
    }
}

#[test]
fn a_metric_or_label_that_is_not_measured_is_found() {
    let wrong = |text: &str| {
        let expression = Expression { place: "here".into(), text: text.into() };
        faults(&expression, &known())
    };
    assert_eq!(wrong("sum(rate(embedding_recovery_retries[5m]))").len(), 1);
    assert_eq!(wrong("embedding_recovery_tasks{recording_id=\"7\"}").len(), 1);
    assert_eq!(wrong("sum by (outcome) (embedding_recovery_tasks)").len(), 1);
    assert_eq!(wrong("sum by (state) (embedding_recovery_tasks)"), [] as [&str; 0]);
}
