//! The table of metrics, as Markdown for the README, with the names that Prometheus shows.

use super::names::{ALL, Kind, Metric};

/// The name under which `/metrics` shows a metric: dots become underscores, the unit and `_total` are
/// appended. A histogram's series further end in `_bucket`, `_sum` and `_count`.
pub fn prometheus_name(metric: &Metric) -> String {
    let unit = match metric.unit {
        "s" => "_seconds",
        "1" => "_ratio",
        _ => "",
    };
    let total = match metric.kind {
        Kind::Counter | Kind::Amount | Kind::Observed => "_total",
        Kind::Gauge | Kind::Histogram(_) => "",
    };
    format!("{}{unit}{total}", metric.name.replace('.', "_"))
}

/// The word for its kind that Prometheus uses.
pub fn prometheus_type(metric: &Metric) -> &'static str {
    match metric.kind {
        Kind::Counter | Kind::Amount | Kind::Observed => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

/// A row for each metric.
pub fn markdown() -> String {
    let mut text = String::from(
        "| in Prometheus | in OpenTelemetry | kind | unit | attributes | |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for metric in ALL {
        let Metric { name, unit, attributes, help, .. } = metric;
        let (shown, kind) = (prometheus_name(metric), prometheus_type(metric));
        let unit = if unit.is_empty() { "".into() } else { format!("`{unit}`") };
        let attributes: Vec<String> = attributes.iter().map(|key| format!("`{key}`")).collect();
        let attributes = attributes.join(", ");
        text += &format!("| `{shown}` | `{name}` | {kind} | {unit} | {attributes} | {help} |\n");
    }
    text
}
