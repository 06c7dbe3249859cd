//! Reads the vectors out of an answer and refuses what must not be stored: a wrong count or
//! dimension, a vector that is not finite, or one that has no direction.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

/// Some servers leave the padding off.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An answer, read and put in order, its vectors not yet checked.
pub(super) struct Answer {
    /// One vector for each input, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that the server says it counted.
    pub tokens: Option<u64>,
    /// The vectors came as base64, not as floats in decimal.
    pub base64: bool,
}

/// Length of every vector: as it was asked for, or else as in the first answer.
pub(super) struct KnownDimensions(OnceLock<usize>);

impl KnownDimensions {
    /// `asked` where the length is settled.
    pub fn new(asked: Option<u32>) -> Self {
        Self(asked.map_or_else(OnceLock::new, |asked| OnceLock::from(asked as usize)))
    }

    /// Checks an answer, and learns from it if it is the first.
    ///
    /// # Errors
    /// What is wrong with which vector.
    pub fn check(&self, answer: &Answer) -> Result<(), String> {
        let known = self.0.get().copied();
        answer.check(known)?;
        match (known, answer.vectors.first()) {
            // Two first answers may come at once: then the second is checked against the first.
            (None, Some(first)) => answer.check(Some(*self.0.get_or_init(|| first.len()))),
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Vec<Item<'a>>,
    /// Any shape: vectors that were paid for are not thrown away over their bill.
    #[serde(default)]
    usage: serde_json::Value,
}

#[derive(Deserialize)]
struct Item<'a> {
    index: usize,
    #[serde(borrow)]
    embedding: Encoded<'a>,
}

/// A vector in either encoding: some servers answer with floats though base64 was asked.
enum Encoded<'a> {
    Base64(Cow<'a, str>),
    Floats(Vec<f32>),
}

/// Why an answer could not be read.
#[derive(Debug, PartialEq)]
pub(super) enum Unreadable {
    /// Not the JSON of an answer. Where it went wrong, without its text: that may quote an input.
    Json(String),
    /// An answer, but not to this request.
    Content(String),
}

impl Answer {
    /// Reads the body of an answer to a request of `count` inputs.
    ///
    /// # Errors
    /// [`Unreadable`], where it is not JSON, or does not have exactly one vector for each input.
    pub fn read(body: &[u8], count: usize) -> Result<Self, Unreadable> {
        let body: Body<'_> = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Unreadable::Json(format!("not an answer from line {line} column {column} on"))
        })?;
        let wrong = |message: String| Err(Unreadable::Content(message));
        if body.data.len() != count {
            return wrong(format!("{} vectors for {count} inputs", body.data.len()));
        }
        let base64 = body.data.iter().all(|item| matches!(item.embedding, Encoded::Base64(_)));
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
        let mut bytes = Vec::new();
        for item in body.data {
            let vector = item.embedding.decode(&mut bytes).map_err(Unreadable::Content)?;
            match vectors.get_mut(item.index) {
                Some(place @ None) => *place = Some(vector),
                Some(Some(_)) => return wrong(format!("two vectors of index {}", item.index)),
                None => return wrong(format!("index {} for {count} inputs", item.index)),
            }
        }
        let tokens = |name: &str| body.usage.get(name)?.as_u64().filter(|tokens| *tokens > 0);
        Ok(Self {
            // As many as there are places, and no place twice: every one is taken.
            vectors: vectors.into_iter().flatten().collect(),
            tokens: tokens("total_tokens").or_else(|| tokens("prompt_tokens")),
            base64,
        })
    }

    /// Checks every vector against `dimensions`, or, where that is not known yet, against the first
    /// vector's.
    ///
    /// # Errors
    /// What is wrong with which vector.
    fn check(&self, dimensions: Option<usize>) -> Result<(), String> {
        let Some(expected) = dimensions.or(self.vectors.first().map(Vec::len)) else {
            return Ok(());
        };
        for (index, vector) in self.vectors.iter().enumerate() {
            if vector.len() != expected {
                let found = vector.len();
                return Err(format!("vector {index} has {found} dimensions instead of {expected}"));
            }
            // pgvector sums the squares in f32, too: where that sum is zero or overflows, the
            // cosine distance is NaN, and the row is never found. It is not normal either where a
            // component is not finite.
            if !norm_squared(vector).is_normal() {
                return Err(match vector.iter().all(|component| component.is_finite()) {
                    true => format!("vector {index} has no usable length"),
                    false => format!("vector {index} is not finite"),
                });
            }
        }
        Ok(())
    }
}

/// The sum of the squares. In eight sums side by side, which the processor adds at once.
fn norm_squared(vector: &[f32]) -> f32 {
    let (eights, rest) = vector.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for eight in eights {
        for (sum, component) in sums.iter_mut().zip(eight) {
            *sum += component * component;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|component| component * component).sum::<f32>()
}

impl Encoded<'_> {
    /// The vector. `bytes` is room that is used again for each of an answer.
    fn decode(self, bytes: &mut Vec<u8>) -> Result<Vec<f32>, String> {
        match self {
            Self::Floats(floats) => Ok(floats),
            Self::Base64(text) => {
                let bytes_max = base64::decoded_len_estimate(text.len());
                bytes.resize(bytes.len().max(bytes_max), 0);
                let decoded = BASE64
                    .decode_slice(text.as_bytes(), bytes)
                    .map_err(|_| "a vector is not base64")?;
                // Little-endian f32, as numpy writes them.
                let (floats, rest) = bytes[..decoded].as_chunks::<4>();
                if !rest.is_empty() {
                    return Err("a vector's bytes are not whole floats".into());
                }
                Ok(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Encoded<'a> {
    /// By hand, because serde's untagged enums keep every float in a value of 32 bytes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EitherEncoding;

        impl<'de> Visitor<'de> for EitherEncoding {
            type Value = Encoded<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("base64 or floats")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Encoded::Base64(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Encoded::Base64(Cow::Owned(text.into())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut floats: A) -> Result<Self::Value, A::Error> {
                let mut vector = Vec::new();
                // JSON has no NaN: many servers write null for it.
                while let Some(float) = floats.next_element::<Option<f32>>()? {
                    vector.push(float.unwrap_or(f32::NAN));
                }
                Ok(Encoded::Floats(vector))
            }
        }

        deserializer.deserialize_any(EitherEncoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, count: usize) -> Result<Answer, Unreadable> {
        Answer::read(json.as_bytes(), count)
    }

    fn vectors(json: &str, count: usize) -> Vec<Vec<f32>> {
        read(json, count).expect("readable").vectors
    }

    #[test]
    fn base64_with_and_without_padding_and_floats_are_the_same_vector() {
        let base64 = r#"{"data":[{"index":0,"embedding":"AACAPwAAAMA="}]}"#;
        assert_eq!(vectors(base64, 1), [[1.0, -2.0]]);
        assert_eq!(vectors(&base64.replace('=', ""), 1), [[1.0, -2.0]]);
        // An escaped slash is allowed in JSON, and then the text cannot be borrowed.
        let escaped = r#"{"data":[{"index":0,"embedding":"\u0041ACAPwAAAMA="}]}"#;
        assert_eq!(vectors(escaped, 1), [[1.0, -2.0]]);
        let floats = r#"{"data":[{"index":0,"embedding":[1.0,-2]}],"usage":"none"}"#;
        assert_eq!(vectors(floats, 1), [[1.0, -2.0]]);
    }

    #[test]
    fn tokens_are_read_under_either_name_and_zero_is_no_count() {
        let tokens = |usage: &str| {
            read(&format!(r#"{{"data":[],"usage":{usage}}}"#), 0).expect("readable").tokens
        };
        assert_eq!(tokens(r#"{"prompt_tokens":3,"total_tokens":4}"#), Some(4));
        assert_eq!(tokens(r#"{"prompt_tokens":3}"#), Some(3));
        assert_eq!(tokens(r#"{"total_tokens":0}"#), None);
        assert_eq!(tokens("null"), None);
    }

    #[test]
    fn an_answer_that_is_not_to_this_request_is_unreadable_and_never_quoted() {
        let item = |index: usize| format!(r#"{{"index":{index},"embedding":[1.0]}}"#);
        let twice = format!(r#"{{"data":[{},{}]}}"#, item(0), item(0));
        let beyond = format!(r#"{{"data":[{},{}]}}"#, item(0), item(2));
        for (json, count) in [
            (twice.as_str(), 2),
            (beyond.as_str(), 2),
            (r#"{"data":[]}"#, 1),
            (r#"{"data":[{"index":0,"embedding":"secret!"}]}"#, 1),
            (r#"{"data":[{"index":0,"embedding":"c2VjcmV0"}]}"#, 1),
            (r#"{"data":[{"index":"secret","embedding":[1.0]}]}"#, 1),
            (r#"{"data":[{"embedding":[1.0]}]}"#, 1),
            (r#"{"data":"secret"}"#, 1),
            ("secret", 1),
        ] {
            let unreadable = read(json, count).err().expect("unreadable");
            assert!(!format!("{unreadable:?}").contains("secret"), "{unreadable:?}");
        }
    }

    #[test]
    fn vectors_without_a_usable_length_or_of_different_dimensions_are_refused() {
        let check = |vectors: &[&[f32]], dimensions: Option<usize>| {
            let vectors = vectors.iter().map(|vector| vector.to_vec()).collect();
            Answer { vectors, tokens: None, base64: true }.check(dimensions)
        };
        assert_eq!(check(&[&[3.0, 4.0], &[0.0, 1.0]], Some(2)), Ok(()));
        assert_eq!(check(&[], Some(2)), Ok(()));
        assert!(check(&[&[3.0, 4.0]], Some(3)).is_err());
        assert!(check(&[&[3.0, 4.0], &[1.0]], None).is_err());
        for bad in [f32::NAN, f32::INFINITY, 0.0, 1e-30, 1e30] {
            assert!(check(&[&[1.0, 1.0], &[bad, 0.0]], None).is_err(), "{bad}");
        }
        assert!(check(&[&[]], None).is_err());
    }
}
