//! Metrics as a collector was told them, a line a series.

use std::collections::BTreeMap;
use std::time::Duration;

use fake_opentelemetry_collector::FakeCollectorServer;
use serde_json::Value;

/// A metric is sent before the process ends, and so is there when it has ended.
const SENT_WITHIN: Duration = Duration::from_secs(10);

/// What was told last of each metric, by name. The collector's own types have no public names, but
/// they can be written as JSON.
pub struct Measured(BTreeMap<String, Value>);

impl Measured {
    /// Everything that a process, which has ended, sent to the collector.
    pub async fn receive(collector: &mut FakeCollectorServer) -> Self {
        let mut last = BTreeMap::new();
        for exported in collector.exported_metrics(1, SENT_WITHIN).await {
            let exported = serde_json::to_value(exported).unwrap();
            for metric in exported["metrics"].as_array().unwrap() {
                last.insert(text(metric, "name").to_owned(), metric.clone());
            }
        }
        Self(last)
    }

    /// Name, unit and description of each, by name.
    pub fn descriptions(&self) -> Vec<[&str; 3]> {
        let of = |metric| ["name", "unit", "description"].map(|key| text(metric, key));
        self.0.values().map(of).collect()
    }

    /// The series of counters that are not at 0, in order: `name [unit] key=value …: number`.
    pub fn counters(&self) -> Vec<String> {
        let counters = self.0.values().filter(|metric| !metric["data"]["Sum"].is_null());
        let mut lines: Vec<String> = counters
            .flat_map(|metric| {
                let sum = &metric["data"]["Sum"];
                assert_eq!(sum["is_monotonic"], true, "{metric}");
                assert_eq!(sum["aggregation_temporality"], CUMULATIVE, "{metric}");
                let counted = points(sum).iter().filter(|point| number(point) != 0.0);
                counted.map(|point| {
                    format!("{}: {}", series(metric, point), in_millionths(number(point)))
                })
            })
            .collect();
        lines.sort();
        lines
    }

    /// The level of a gauge for these attributes, `key=value` in the order of their keys.
    pub fn gauge(&self, name: &str, attributes: &str) -> Option<f64> {
        let points = points(&self.0.get(name)?["data"]["Gauge"]);
        points.iter().find(|point| self::attributes(point) == attributes).map(number)
    }

    /// The series of a gauge.
    pub fn levels(&self, name: &str) -> Vec<f64> {
        points(&self.0[name]["data"]["Gauge"]).iter().map(number).collect()
    }

    /// The series of all histograms: `name [unit] key=value …`, with what they hold.
    pub fn histograms(&self) -> BTreeMap<String, Histogram> {
        let mut histograms = BTreeMap::new();
        for metric in self.0.values().filter(|metric| !metric["data"]["Histogram"].is_null()) {
            let histogram = &metric["data"]["Histogram"];
            assert_eq!(histogram["aggregation_temporality"], CUMULATIVE, "{metric}");
            for point in points(histogram) {
                let numbers = |key: &str| -> Vec<f64> {
                    point[key].as_array().unwrap().iter().filter_map(Value::as_f64).collect()
                };
                let in_buckets: f64 = numbers("bucket_counts").iter().sum();
                let histogram = Histogram {
                    name: text(metric, "name").to_owned(),
                    bounds: numbers("explicit_bounds"),
                    count: point["count"].as_u64().unwrap(),
                    sum: point["sum"].as_f64().unwrap(),
                };
                assert_eq!(in_buckets, histogram.count as f64, "{metric}");
                assert_eq!(numbers("bucket_counts").len(), histogram.bounds.len() + 1, "{metric}");
                histograms.insert(series(metric, point), histogram);
            }
        }
        histograms
    }
}

/// `AggregationTemporality` of OTLP: Prometheus's way of counting.
const CUMULATIVE: i32 = 2;

/// A series of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    pub name: String,
    pub bounds: Vec<f64>,
    pub count: u64,
    pub sum: f64,
}

fn text<'a>(metric: &'a Value, key: &str) -> &'a str {
    metric[key].as_str().unwrap()
}

fn points(data: &Value) -> &[Value] {
    data["data_points"].as_array().map_or(&[], Vec::as_slice)
}

fn number(point: &Value) -> f64 {
    let value = &point["value"];
    value["AsInt"].as_f64().or(value["AsDouble"].as_f64()).unwrap()
}

/// Rounded: what is summed up in parts depends on their order in its last digits.
pub fn in_millionths(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// The attributes come as what they look like to who debugs: their text stands between quotes.
fn attributes(point: &Value) -> String {
    let pairs = point["attributes"].as_object().unwrap().iter();
    let pair = |(key, value): (&String, &Value)| {
        let value = value.as_str().unwrap().split('"').nth(1).unwrap_or_default().to_owned();
        format!("{key}={value}")
    };
    pairs.map(pair).collect::<Vec<_>>().join(" ")
}

fn series(metric: &Value, point: &Value) -> String {
    let (name, unit) = (text(metric, "name"), text(metric, "unit"));
    format!("{name} [{unit}] {}", attributes(point)).trim_end().to_owned()
}
