//! OpenTelemetry's own variables, as its specification names them. The SDK ignores a value that it
//! does not understand; here the program says so and does not start.

use http::Uri;
use url::Url;

use super::drops::Signal;

/// What applies to all signals begins so; what applies to one has its name in between.
const EXPORTER: &str = "OTEL_EXPORTER_OTLP_";

/// What an endpoint is.
const ADDRESS: &str = "takes an address that begins with http:// or https://, its password encoded";

/// A variable with a value that it cannot have. The value itself is told only where it is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}")]
pub struct EnvironmentError {
    name: String,
    problem: String,
}

/// How a signal travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf.
    Http,
}

/// Where a signal goes. The exporter reads address, headers and time-out by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// How it travels.
    pub protocol: Protocol,
    /// Where to, without credentials: for people.
    pub endpoint: String,
}

/// What the environment asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// By [`Signal`]; `None` for one that is not exported.
    destinations: [Option<Destination>; 3],
}

impl Environment {
    /// Reads and checks every variable that is honoured, through `get`. Nothing is exported unless an
    /// endpoint, or an exporter of the signal, is named.
    ///
    /// # Errors
    /// A value is wrong.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        // The specification: empty is unset.
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        check_the_rest(&get)?;
        let disabled = word(&get, "OTEL_SDK_DISABLED", &["true", "false"])?;
        let mut destinations = [None, None, None];
        for signal in Signal::ALL {
            destinations[signal as usize] = destination(&get, signal)?;
        }
        if disabled.as_deref() == Some("true") {
            destinations = [None, None, None];
        }
        Ok(Self { destinations })
    }

    /// Where a signal goes, if anywhere.
    pub fn destination(&self, signal: Signal) -> Option<&Destination> {
        self.destinations[signal as usize].as_ref()
    }
}

fn destination(
    get: &impl Fn(&str) -> Option<String>,
    signal: Signal,
) -> Result<Option<Destination>, EnvironmentError> {
    let name = signal.as_str().to_ascii_uppercase();
    let exporter = word(get, &format!("OTEL_{name}_EXPORTER"), &["otlp", "none"])?;
    // Both are looked at: a wrong one is told even where the other is taken.
    let both = |suffix: &str| [format!("{EXPORTER}{name}_{suffix}"), format!("{EXPORTER}{suffix}")];
    let mut protocol = None;
    for name in both("PROTOCOL") {
        protocol = protocol.or(word(get, &name, &["grpc", "http/protobuf"])?);
    }
    let mut endpoint = None;
    for name in both("ENDPOINT") {
        endpoint = endpoint.or(url(get, &name)?);
    }
    for name in both("HEADERS") {
        pairs(get, &name)?;
    }
    for name in both("TIMEOUT") {
        number(get, &name, 1)?;
    }
    for name in both("COMPRESSION") {
        word(get, &name, &["gzip", "none"])?;
    }
    let protocol = match protocol.as_deref() {
        Some("http/protobuf") => Protocol::Http,
        _ => Protocol::Grpc,
    };
    let wanted = match exporter.as_deref() {
        Some(exporter) => exporter == "otlp",
        None => endpoint.is_some(),
    };
    let endpoint = endpoint.map_or_else(|| default_endpoint(protocol).into(), without_credentials);
    Ok(wanted.then_some(Destination { protocol, endpoint }))
}

/// Of the specification.
fn default_endpoint(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::Http => "http://localhost:4318",
    }
}

/// What the SDK reads by itself.
fn check_the_rest(get: &impl Fn(&str) -> Option<String>) -> Result<(), EnvironmentError> {
    let samplers = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];
    // Neither is trimmed, nor in capitals: the SDK would sample everything.
    if let Some(sampler) = get("OTEL_TRACES_SAMPLER")
        && !samplers.contains(&sampler.as_str())
    {
        return Err(wrong("OTEL_TRACES_SAMPLER", &sampler, &samplers.join(", ")));
    }
    if let Some(ratio) = get("OTEL_TRACES_SAMPLER_ARG")
        && !ratio.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio))
    {
        return Err(wrong("OTEL_TRACES_SAMPLER_ARG", &ratio, "a ratio from 0 to 1"));
    }
    let temporalities = ["cumulative", "delta", "lowmemory"];
    word(get, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", &temporalities)?;
    pairs(get, "OTEL_RESOURCE_ATTRIBUTES")?;
    for processor in ["OTEL_BSP", "OTEL_BLRP"] {
        let queue = number(get, &format!("{processor}_MAX_QUEUE_SIZE"), 1)?;
        let name = format!("{processor}_MAX_EXPORT_BATCH_SIZE");
        let batch = number(get, &name, 1)?;
        // Of the specification, for both processors.
        let queue = queue.unwrap_or(2_048);
        if let Some(batch) = batch.filter(|batch| *batch > queue) {
            let takes = format!("at most the queue's size, {queue}");
            return Err(wrong(&name, &batch.to_string(), &takes));
        }
        for suffix in ["SCHEDULE_DELAY", "EXPORT_TIMEOUT"] {
            number(get, &format!("{processor}_{suffix}"), 1)?;
        }
    }
    for name in [
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_METRIC_EXPORT_TIMEOUT",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_EVENT_COUNT_LIMIT",
        "OTEL_SPAN_LINK_COUNT_LIMIT",
    ] {
        number(get, name, 1)?;
    }
    Ok(())
}

fn wrong(name: &str, value: &str, takes: &str) -> EnvironmentError {
    EnvironmentError { name: name.into(), problem: format!("takes {takes}, not `{value}`") }
}

fn word(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    words: &[&str],
) -> Result<Option<String>, EnvironmentError> {
    let Some(value) = get(name) else { return Ok(None) };
    // Not trimmed: the exporters do not either, and would ignore it.
    let word = value.to_ascii_lowercase();
    match words.contains(&word.as_str()) {
        true => Ok(Some(word)),
        false => Err(wrong(name, &value, &words.join(", "))),
    }
}

fn number(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    least: u64,
) -> Result<Option<u64>, EnvironmentError> {
    let Some(value) = get(name) else { return Ok(None) };
    // Not trimmed: the SDK does not either, and would ignore it.
    match value.parse() {
        Ok(number) if number >= least => Ok(Some(number)),
        _ => Err(wrong(name, &value, &format!("a whole number from {least} on"))),
    }
}

fn url(get: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<Url>, EnvironmentError> {
    let Some(value) = get(name) else { return Ok(None) };
    // The exporters parse it so, which refuses what a `Url` would encode.
    let is_exportable = value.parse::<Uri>().is_ok_and(|uri| uri.host().is_some());
    let url = Url::parse(&value).ok().filter(|_| is_exportable);
    match url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) {
        Some(url) => Ok(Some(url)),
        // It may hold a password.
        None => Err(EnvironmentError { name: name.into(), problem: ADDRESS.into() }),
    }
}

fn without_credentials(mut url: Url) -> String {
    // Refused only where there is no host, and thus nothing to hide.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// `key=value`, separated by commas.
fn pairs(get: &impl Fn(&str) -> Option<String>, name: &str) -> Result<(), EnvironmentError> {
    let Some(value) = get(name) else { return Ok(()) };
    let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty());
    match value.split_terminator(',').all(is_pair) {
        true => Ok(()),
        // Headers hold keys.
        false => Err(EnvironmentError {
            name: name.into(),
            problem: "takes key=value, separated by commas".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Environment::read(get).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_exported_until_an_endpoint_or_an_exporter_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:secret@collector:4317/?key=x");
        let exported = |variables: &[(&str, &str)]| {
            let environment = read(variables).expect("the variables are right");
            Signal::ALL.map(|signal| environment.destination(signal).is_some())
        };
        assert_eq!(exported(&[]), [false; 3]);
        assert_eq!(exported(&[endpoint]), [true; 3]);
        assert_eq!(exported(&[("OTEL_LOGS_EXPORTER", "otlp")]), [false, false, true]);
        assert_eq!(exported(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]), [true, false, true]);
        assert_eq!(exported(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), [false; 3]);
        assert_eq!(exported(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), [false; 3]);
        let environment = read(&[endpoint]).expect("the variables are right");
        let told = environment.destination(Signal::Traces).map(|to| to.endpoint.as_str());
        assert_eq!(told, Some("https://collector:4317"));
    }

    #[test]
    fn a_signal_has_its_own_way() {
        let environment = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://b:2"),
        ])
        .expect("the variables are right");
        let to = |signal| environment.destination(signal).cloned();
        let http = Destination { protocol: Protocol::Http, endpoint: "http://a:1".into() };
        let grpc = Destination { protocol: Protocol::Grpc, endpoint: "http://b:2".into() };
        assert_eq!((to(Signal::Traces), to(Signal::Logs)), (Some(http), Some(grpc)));
    }

    #[test]
    fn a_wrong_value_is_named_with_what_the_variable_takes_and_no_secret_is_repeated() {
        for (name, value, said) in [
            ("OTEL_SDK_DISABLED", "yes", "takes true, false, not `yes`"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "takes otlp, none, not `zipkin`"),
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "http/json",
                "takes grpc, http/protobuf, not `http/json`",
            ),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "me:secret@host", ADDRESS),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:s^cret@host", ADDRESS),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "takes key=value, separated by commas"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "takes a whole number from 1 on, not `10s`"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "takes gzip, none, not `zip`"),
            ("OTEL_TRACES_SAMPLER_ARG", "2", "takes a ratio from 0 to 1, not `2`"),
            ("OTEL_TRACES_SAMPLER_ARG", " 0.1", "takes a ratio from 0 to 1, not ` 0.1`"),
            (
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
                "deltas",
                "takes cumulative, delta, lowmemory, not `deltas`",
            ),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1", "takes a whole number from 1 on, not `-1`"),
            (
                "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
                "4096",
                "takes at most the queue's size, 2048, not `4096`",
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", "a", "takes key=value, separated by commas"),
        ] {
            assert_eq!(read(&[(name, value)]), Err(format!("{name} {said}")));
        }
        for sampler in ["half", "PARENTBASED_TRACEIDRATIO", "traceidratio "] {
            let told = read(&[("OTEL_TRACES_SAMPLER", sampler)]).expect_err("no sampler");
            let end = format!("parentbased_traceidratio, not `{sampler}`");
            assert!(told.ends_with(&end), "{told}");
        }
    }
}
