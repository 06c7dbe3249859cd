//! What is sent: the request's body, how much may be in it, and which of its optional parameters
//! this server understands.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::domain::failure::Failure;
use crate::domain::packing::{RequestLimits, estimate_tokens};

/// What a request may hold.
pub(super) const LIMITS: RequestLimits = RequestLimits::OPENAI;

/// Tokens of one input. Source: OpenAI's API reference, "Create embeddings", parameter `input`.
const INPUT_TOKENS_MAX: usize = 8_192;

/// The body of a request.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    model: &'a str,
    input: &'a [String],
    /// Left out for floats: they are the default, and a server that does not know `base64` may not
    /// know the parameter either.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

impl<'a> Request<'a> {
    /// Puts a request in the words of `dialect`.
    pub fn new(
        model: &'a str,
        dimensions: Option<u32>,
        input: &'a [String],
        dialect: Dialect,
    ) -> Self {
        Self {
            model,
            input,
            encoding_format: dialect.base64.then_some("base64"),
            dimensions: dimensions.filter(|_| dialect.dimensions),
        }
    }
}

/// A parameter that some servers refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    /// `encoding_format`: base64 is a quarter the size of floats in decimal.
    EncodingFormat,
    /// `dimensions`: a shorter vector than the model's own.
    Dimensions,
}

impl Parameter {
    /// Its name in the request, by which servers refuse it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EncodingFormat => "encoding_format",
            Self::Dimensions => "dimensions",
        }
    }
}

/// Which optional parameters a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Ask for base64.
    pub base64: bool,
    /// Say how long the vectors shall be.
    pub dimensions: bool,
}

impl Dialect {
    /// The parameters that it has.
    pub fn parameters(self) -> impl Iterator<Item = Parameter> {
        let base64 = self.base64.then_some(Parameter::EncodingFormat);
        base64.into_iter().chain(self.dimensions.then_some(Parameter::Dimensions))
    }

    /// The same without `parameter`.
    pub fn without(self, parameter: Parameter) -> Self {
        match parameter {
            Parameter::EncodingFormat => Self { base64: false, ..self },
            Parameter::Dimensions => Self { dimensions: false, ..self },
        }
    }
}

/// The dialect that the server is known to understand, shared by all requests.
pub(super) struct KnownDialect {
    base64: AtomicBool,
    dimensions: AtomicBool,
}

impl KnownDialect {
    /// Everything, until it is refused.
    pub fn new(dimensions: bool) -> Self {
        Self { base64: AtomicBool::new(true), dimensions: AtomicBool::new(dimensions) }
    }

    /// The dialect to speak now.
    pub fn get(&self) -> Dialect {
        Dialect {
            base64: self.base64.load(Ordering::Relaxed),
            dimensions: self.dimensions.load(Ordering::Relaxed),
        }
    }

    /// `dialect` was understood: what it leaves out is not tried again. Its parameters, taken one
    /// by one, only ever get fewer, so that requests under way at once do not undo each other.
    pub fn understood(&self, dialect: Dialect) {
        self.base64.fetch_and(dialect.base64, Ordering::Relaxed);
        self.dimensions.fetch_and(dialect.dimensions, Ordering::Relaxed);
    }
}

/// Tokens of a request as the server estimates them.
///
/// # Errors
/// [`Failure::RequestRefused`] where it is larger than a server takes: it need not be asked.
pub(super) fn measure(inputs: &[String]) -> Result<u64, Failure> {
    let refuse = |message: String| Err(Failure::RequestRefused { message });
    if inputs.len() > LIMITS.inputs_max {
        let (count, most) = (inputs.len(), LIMITS.inputs_max);
        return refuse(format!("{count} inputs; a request takes at most {most}"));
    }
    let longest = inputs.iter().map(|input| estimate_tokens(input.len())).max().unwrap_or(0);
    if longest > INPUT_TOKENS_MAX {
        return refuse(format!(
            "an input of about {longest} tokens; at most {INPUT_TOKENS_MAX} are taken"
        ));
    }
    let tokens = inputs.iter().map(|input| estimate_tokens(input.len())).sum::<usize>();
    if tokens > LIMITS.tokens_max {
        let most = LIMITS.tokens_max;
        return refuse(format!("about {tokens} tokens; a request takes at most {most}"));
    }
    Ok(tokens as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_at_every_limit_is_sent_and_one_above_any_is_refused_here() {
        let at_limit = vec!["x".repeat(INPUT_TOKENS_MAX * 4); 36];
        assert_eq!(measure(&at_limit), Ok(36 * 8_192));
        assert_eq!(measure(&vec![String::new(); 2_048]), Ok(0));

        let too_long = vec!["x".repeat(INPUT_TOKENS_MAX * 4 + 1)];
        let too_large = vec!["x".repeat(INPUT_TOKENS_MAX * 4); 37];
        let too_many = vec![String::new(); 2_049];
        for refused in [too_long, too_large, too_many] {
            assert!(matches!(measure(&refused), Err(Failure::RequestRefused { .. })));
        }
    }

    #[test]
    fn what_one_request_learns_is_not_undone_by_another() {
        let known = KnownDialect::new(true);
        let full = known.get();
        known.understood(full.without(Parameter::EncodingFormat));
        known.understood(full.without(Parameter::Dimensions));
        known.understood(full);
        assert_eq!(known.get(), Dialect { base64: false, dimensions: false });
        assert_eq!(known.get().parameters().count(), 0);
    }
}
