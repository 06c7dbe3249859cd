//! The embedding API: what one real embedding showed, and whether its model is the stored one.

use std::time::Duration;

use super::Finding;
use crate::domain::failure::Failure;

const CHECK: &str = "embedding";

/// A model as vectors are stored under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Its name.
    pub name: String,
    /// Length of its vectors.
    pub dimensions: u32,
}

/// What one embedding showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingFacts {
    /// The host that answered, with its port where it is not the usual one.
    pub host: String,
    /// The model, with the length of the vector that came.
    pub model: ModelFacts,
    /// From sending to the answer's last byte, connecting included.
    pub latency: Duration,
    /// Tokens that were counted.
    pub tokens: u64,
    /// The vector came as base64, not as floats.
    pub base64: bool,
    /// Limits that the headers told.
    pub requests_limit: Option<u64>,
    /// Limits that the headers told.
    pub tokens_limit: Option<u64>,
}

/// Judges an attempt to embed one short text.
pub fn judge_embedding(host: &str, result: &Result<EmbeddingFacts, Failure>) -> Finding {
    match result {
        Ok(facts) => Finding::ok(CHECK, describe(facts)),
        Err(failure) => Finding::failure(CHECK, format!("{host}: {failure}"), way_out(failure)),
    }
}

fn describe(facts: &EmbeddingFacts) -> String {
    let EmbeddingFacts { host, model, latency, tokens, .. } = facts;
    let encoding = if facts.base64 { "base64" } else { "floats (four times as large as base64)" };
    let limit = |limit: Option<u64>, of: &str| limit.map(|limit| format!("{limit} {of}"));
    let limits = [limit(facts.requests_limit, "requests"), limit(facts.tokens_limit, "tokens")];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    let limits = match limits.is_empty() {
        true => "its headers tell no limits".to_owned(),
        false => format!("limits: {}", limits.join(", ")),
    };
    format!(
        "{} at {host}: {} dimensions, {} ms, {tokens} tokens, {encoding}; {limits}",
        model.name,
        model.dimensions,
        latency.as_millis()
    )
}

fn way_out(failure: &Failure) -> String {
    let text = match failure {
        Failure::KeyRefused { message } if message.starts_with("status 404") => {
            "the base URL or the model is unknown there: check OPENAI_BASE_URL (up to and with /v1; \
             on Azure up to and with the deployment) and EMBEDDING_MODEL"
        }
        Failure::KeyRefused { .. } => {
            "check OPENAI_API_KEY (it must be a key of this server), EMBEDDING_MODEL and \
             EMBEDDING_DIMENSIONS; on Azure also OPENAI_API_VERSION"
        }
        Failure::QuotaExhausted { .. } => "pay the provider's account, or raise its budget",
        Failure::RateLimited { .. } => {
            "wait and run this again; if it stays, ask the provider for a larger limit"
        }
        Failure::ProviderUnavailable { message } => unavailable(message),
        Failure::BadAnswer { .. } => {
            "this is no embeddings API, or the model does not fit EMBEDDING_DIMENSIONS: check \
             OPENAI_BASE_URL and EMBEDDING_MODEL"
        }
        Failure::RecordingDeleted
        | Failure::TranscriptMissing
        | Failure::TranscriptTooLarge { .. }
        | Failure::ChunkRefused { .. }
        | Failure::RequestRefused { .. }
        | Failure::ProviderRejectsItem { .. }
        | Failure::Panicked
        | Failure::Incomplete { .. }
        | Failure::StatementTimeout
        | Failure::Collision
        | Failure::DatabaseUnavailable { .. }
        | Failure::DatabaseForbids { .. }
        | Failure::DatabaseRefuses { .. }
        | Failure::ServiceUnavailable { .. }
        | Failure::ServiceRefuses { .. }
        | Failure::LeaseExpired
        | Failure::LeaseLost
        | Failure::Stalled { .. }
        | Failure::Shutdown => "this is not the provider's fault: please report it as a bug",
    };
    text.to_owned()
}

/// By the words of the resolver and of rustls.
fn unavailable(message: &str) -> &'static str {
    let says = |word: &str| message.to_ascii_lowercase().contains(word);
    if says("certificate") || says("unknownissuer") {
        "the server's certificate is not trusted: name your company's authority with OPENAI_CA_FILE"
    } else if says("lookup") || says("resolve") || says("name or service") {
        "the host is unknown: check OPENAI_BASE_URL, and HTTPS_PROXY where only a proxy knows it"
    } else {
        "check OPENAI_BASE_URL, the network to it, and HTTPS_PROXY and NO_PROXY; where the server is \
         down, `serve` waits for it"
    }
}

/// Judges whether the model that would embed is the one that is stored; `way_back` are the settings
/// that choose the stored one.
pub fn judge_model(stored: Option<&ModelFacts>, asked: &ModelFacts, way_back: &str) -> Finding {
    let told = |model: &ModelFacts| format!("{} with {} dimensions", model.name, model.dimensions);
    match stored {
        None => Finding::ok("model", format!("nothing is embedded yet; {} will be", told(asked))),
        Some(stored) if stored == asked => {
            Finding::ok("model", format!("{} is what is stored", told(asked)))
        }
        Some(stored) => Finding::failure(
            "model",
            format!("{} is stored, and {} is configured", told(stored), told(asked)),
            format!("set {way_back}, or use another database"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn model(name: &str, dimensions: u32) -> ModelFacts {
        ModelFacts { name: name.into(), dimensions }
    }

    #[test]
    fn an_embedding_is_told_with_all_that_it_showed() {
        let facts = EmbeddingFacts {
            host: "api.example.com".into(),
            model: model("small", 1_536),
            latency: Duration::from_millis(210),
            tokens: 5,
            base64: true,
            requests_limit: Some(3_000),
            tokens_limit: None,
        };
        let finding = judge_embedding("api.example.com", &Ok(facts));
        let told = "small at api.example.com: 1536 dimensions, 210 ms, 5 tokens, base64; limits: 3000 requests";
        assert_eq!((finding.severity, finding.message.as_str()), (Severity::Ok, told));
    }

    #[test]
    fn each_failure_names_its_way_out() {
        let refused = |message: &str| Failure::KeyRefused { message: message.into() };
        let down = |message: &str| Failure::ProviderUnavailable { message: message.into() };
        for (failure, way_out) in [
            (refused("status 401, code invalid_api_key"), "OPENAI_API_KEY"),
            (refused("status 404"), "up to and with /v1"),
            (down("no connection: failed to lookup address information"), "the host is unknown"),
            (down("no connection: invalid peer certificate: UnknownIssuer"), "OPENAI_CA_FILE"),
            (down("status 503"), "HTTPS_PROXY and NO_PROXY"),
            (Failure::QuotaExhausted { message: String::new() }, "pay"),
            (Failure::RateLimited { retry_after: Duration::from_secs(9) }, "wait"),
            (Failure::BadAnswer { message: String::new() }, "EMBEDDING_DIMENSIONS"),
        ] {
            let finding = judge_embedding("host", &Err(failure));
            assert_eq!(finding.severity, Severity::Failure);
            assert!(
                finding.way_out.as_deref().unwrap_or_default().contains(way_out),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn another_model_than_the_stored_one_is_a_failure() {
        let small = model("small", 8);
        assert_eq!(judge_model(None, &small, "").severity, Severity::Ok);
        assert_eq!(judge_model(Some(&small), &small, "").severity, Severity::Ok);
        for other in [model("large", 8), model("small", 16)] {
            let finding = judge_model(Some(&other), &small, "EMBEDDING_MODEL=x");
            assert_eq!(finding.severity, Severity::Failure);
            assert!(finding.way_out.unwrap_or_default().starts_with("set EMBEDDING_MODEL=x"));
        }
    }
}
