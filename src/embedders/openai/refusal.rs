//! Reads what the provider said instead of an answer: whose fault it is, and how much of its words
//! may be repeated.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::rate_headers::RateHeaders;
use super::request::{Dialect, Parameter};
use crate::domain::failure::Failure;

/// Characters of the provider's message that are kept.
const MESSAGE_CHARS_MAX: usize = 200;

/// A message that has this many bytes in a row from an input, or from a secret, quotes it.
const QUOTE_BYTES: usize = 16;

/// An input shorter than this may stand in any message by chance.
const QUOTE_BYTES_MIN: usize = 4;

/// Codes under which providers say that the account must be paid first.
const QUOTA_CODES: [&str; 4] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
];

/// Codes that blame the configuration, whatever the status: some gateways answer 400 to an unknown
/// model.
const KEY_CODES: [&str; 3] = ["invalid_api_key", "model_not_found", "invalid_organization"];

/// What a request asked for, and what no failure may repeat.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Texts to embed.
    pub inputs: &'a [String],
    /// The key that was sent, and headers of the user's.
    pub secrets: &'a [&'a str],
    /// Parameters that were sent.
    pub dialect: Dialect,
    /// Size of the request, as the server estimates it.
    pub tokens: u64,
}

/// Why a request was not answered, by what to do about it.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// Send it again when the rate limit has room; until then nobody sends.
    RateLimited {
        /// The wait that the server asks for.
        retry_after: Option<Duration>,
    },
    /// Send it again without this parameter.
    Parameter(Parameter),
    /// Send it again: this may pass.
    Passing(Failure),
    /// Sending it again does not help.
    Final(Failure),
}

/// What the body of a refusal says.
#[derive(Default)]
struct Explanation {
    message: Option<String>,
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
}

impl Refusal {
    /// The class of the failure that it is, or would be if nothing could be done about it.
    pub fn class(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::Parameter(_) => "request_refused",
            Self::Passing(failure) | Self::Final(failure) => failure.class(),
        }
    }

    /// Reads a reply that is not a success.
    pub fn read(status: u16, body: &[u8], rate: &RateHeaders, asked: &Asked<'_>) -> Self {
        let said = Explanation::read(body).unwrap_or_default();
        let message = || describe(status, body, asked);
        let is_one_of = |codes: &[&str]| {
            let named = [&said.code, &said.kind];
            named.into_iter().flatten().any(|name| codes.contains(&name.as_str()))
        };
        if is_one_of(&QUOTA_CODES) {
            return Self::Final(Failure::QuotaExhausted { message: message() });
        }
        if is_one_of(&KEY_CODES) {
            return Self::Final(Failure::KeyRefused { message: message() });
        }
        match status {
            400 | 413 | 422 => match said.refused_parameter(asked) {
                Some(parameter) => Self::Parameter(parameter),
                None => Self::Final(Failure::RequestRefused { message: message() }),
            },
            402 => Self::Final(Failure::QuotaExhausted { message: message() }),
            429 => {
                let too_large = rate.tokens_limit.is_some_and(|limit| asked.tokens > limit)
                    || said.message.as_deref().is_some_and(says_too_large);
                if too_large {
                    Self::Final(Failure::RequestRefused { message: message() })
                } else {
                    Self::RateLimited { retry_after: rate.wait(asked.tokens) }
                }
            }
            // llama.cpp says so with a 500, and would say it for ever.
            500.. if said.message.as_deref().is_some_and(says_too_long) => {
                Self::Final(Failure::RequestRefused { message: message() })
            }
            // Request time-out, conflict and too early: the server itself asks to try again. A
            // redirect is not followed: it is a proxy's, or a gateway on its way up or down.
            300..=399 | 408 | 409 | 425 | 500.. => {
                Self::Passing(Failure::ProviderUnavailable { message: message() })
            }
            // 401, 403, 404, and any other that blames the request whatever its inputs are.
            _ => Self::Final(Failure::KeyRefused { message: message() }),
        }
    }
}

/// Describes a reply in a line that holds neither a secret nor an input: its status, code and type,
/// and its message where that quotes nothing.
pub(super) fn describe(status: u16, body: &[u8], asked: &Asked<'_>) -> String {
    let mut line = format!("status {status}");
    let Some(said) = Explanation::read(body) else {
        let html = body.trim_ascii_start().starts_with(b"<");
        line += match (body.is_empty(), html) {
            (true, _) => ", with an empty body",
            (_, true) => ", with a page of HTML: a proxy's or a gateway's, not the API's",
            (_, false) => ", with a body that is not JSON",
        };
        return line;
    };
    for (name, value) in [("code", &said.code), ("type", &said.kind)] {
        if let Some(value) = value.as_deref().filter(|value| is_identifier(value)) {
            line += &format!(", {name} {value}");
        }
    }
    match &said.message {
        None => line += ", with no message",
        Some(message) if asked.is_quoted_in(message) => {
            line += ": (its message is withheld: it may quote what was sent)";
        }
        Some(message) => {
            let printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
            line += ": ";
            line.extend(printable.take(MESSAGE_CHARS_MAX));
        }
    }
    line
}

impl Explanation {
    /// Reads the shapes in use: OpenAI's `error` object, an `error` that is a string, the fields at
    /// the top (vLLM), in a list (Google), `detail` (FastAPI). `None` where the body is not JSON.
    fn read(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let value = value.get(0).unwrap_or(&value);
        let error = &value["error"];
        let fields = if error.is_object() { error } else { value };
        let detail = &value["detail"];
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        Some(Self {
            message: text(&fields["message"])
                .or_else(|| text(error))
                .or_else(|| text(detail))
                .or_else(|| text(&detail[0]["msg"])),
            code: text(&fields["code"]),
            kind: text(&fields["type"]),
            param: text(&fields["param"]).or_else(|| {
                // `["body", "dimensions"]`
                detail[0]["loc"].as_array()?.last().and_then(text)
            }),
        })
    }

    /// The optional parameter that is refused. A message is only believed where the word cannot
    /// come from an input.
    fn refused_parameter(&self, asked: &Asked<'_>) -> Option<Parameter> {
        let message = self.message.as_deref().filter(|message| !asked.is_quoted_in(message));
        asked.dialect.parameters().find(|parameter| {
            let name = parameter.name();
            // Some servers name only the value that they do not know.
            let value = if *parameter == Parameter::EncodingFormat { "base64" } else { name };
            self.param.as_deref() == Some(name)
                || message.is_some_and(|message| message.contains(name) || message.contains(value))
        })
    }
}

impl Asked<'_> {
    /// Whether `message` repeats an input or a secret, or part of one.
    fn is_quoted_in(&self, message: &str) -> bool {
        // Escaped a second time, other scripts than Latin would not be recognised.
        if message.contains("\\u") || message.contains("\\x") {
            return true;
        }
        let parts: HashSet<&[u8]> = message.as_bytes().windows(QUOTE_BYTES).collect();
        let is_quoted = |secret: &str| {
            let whole = secret.trim();
            if whole.len() < QUOTE_BYTES {
                whole.len() >= QUOTE_BYTES_MIN && message.contains(whole)
            } else {
                secret.as_bytes().windows(QUOTE_BYTES).any(|part| parts.contains(part))
            }
        };
        self.secrets.iter().any(|secret| is_quoted(secret))
            || self.inputs.iter().any(|input| is_quoted(input))
    }
}

/// Whether a 429 says that the request alone is larger than the limit: `Request too large for …:
/// Limit 30000, Requested 31538`. In the ordinary case, what is requested is below the limit.
fn says_too_large(message: &str) -> bool {
    let number_after = |word: &str| {
        let (_, rest) = message.split_once(word)?;
        let digits = rest.trim_start_matches([' ', ':']);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse::<u64>().ok()
    };
    message.to_ascii_lowercase().contains("request too large")
        || number_after("Limit")
            .zip(number_after("Requested"))
            .is_some_and(|(limit, requested)| requested > limit)
}

/// Whether a message says that an input has more tokens than the server takes. Source: the messages
/// of llama.cpp's server, "input is too large to process. increase the physical batch size", with
/// the number of tokens in between in later versions, and "exceeds the available context size".
fn says_too_long(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["too large to process", "context size", "context length"]
        .iter()
        .any(|phrase| message.contains(phrase))
}

/// A code, not a sentence: nothing that could quote an input.
fn is_identifier(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_plain)
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
