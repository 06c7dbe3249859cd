//! What ships in `observability/` and `deploy/compose.yaml`: that it is whole, that it asks for nothing
//! that is not measured, that the tools accept it, and that it works on a live Prometheus.

mod alerting;
mod dashboards;
mod expressions;
mod files;
mod live;
mod rules;
mod servers;
mod tools;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// A path of the repository.
fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).expect(relative)
}

/// A file of YAML, as JSON.
fn yaml(relative: &str) -> Value {
    serde_saphyr::from_str(&text(relative)).expect(relative)
}

/// The names in a folder that have this ending, in order.
fn names(folder: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(path(folder)).expect(folder);
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(ending))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{folder} has no {ending}");
    names
}

/// A list in a document.
fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A string in a document.
fn string<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}
