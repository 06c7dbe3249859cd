//! What the fake can answer, and how each answer is made.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde_json::json;

use super::Request;

/// What to do with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A good answer.
    Normal,
    /// A good answer after a time.
    Delay(Duration),
    /// A good answer after a time, and longer where more requests are under way than it works on at
    /// once: then they queue.
    Crowded { at_ease: usize, time: Duration },
    /// Anything.
    Status { code: u16, body: String, headers: Vec<(&'static str, String)> },
    /// 429; `retry-after` in whole seconds, rounded up, and `retry-after-ms`.
    RateLimited { retry_after: Duration },
    /// 429 with `insufficient_quota`.
    QuotaExhausted,
    /// 200, and then the connection breaks in the middle of the body.
    CutConnection,
    /// One vector is missing.
    WrongCount,
    /// A good answer from the last to the first, with the right indexes.
    WrongOrder,
    /// Each vector has one component too many.
    WrongDimension,
    /// The first component of the first vector is NaN.
    NaN,
    /// The first vector is all zero.
    ZeroVector,
    /// A good answer in floats, whatever was asked.
    IgnoreBase64,
    /// 400 where base64 is asked, else a good answer.
    RefuseBase64,
    /// 400 where `dimensions` is given, else a good answer.
    RefuseDimensions,
    /// A good answer after the next [`FakeOpenAi::release`].
    Hang,
    /// A good answer without `usage`.
    NoUsage,
    /// 200 with a body that never ends.
    Endless,
    /// 200 with a body of one space at a time, for ever.
    Trickle(Duration),
    /// 502 with a page of HTML.
    HtmlError,
}

impl Reply {
    /// A status with OpenAI's error body.
    pub fn error(code: u16, error_code: &str, message: &str) -> Self {
        let body = json!({ "error": { "message": message, "type": "fake", "code": error_code } });
        Self::Status { code, body: body.to_string(), headers: Vec::new() }
    }

    /// A good answer to one input, for four tokens, that tells limits of which nine tenths are left.
    pub fn with_limits() -> Self {
        let headers = [
            ("x-ratelimit-limit-requests", "1000"),
            ("x-ratelimit-remaining-requests", "900"),
            ("x-ratelimit-reset-requests", "1ms"),
            ("x-ratelimit-limit-tokens", "1000"),
            ("x-ratelimit-remaining-tokens", "900"),
            ("x-ratelimit-reset-tokens", "1ms"),
        ];
        let embedding = json!({ "index": 0, "embedding": [1, 0, 0, 0, 0, 0, 0, 0] });
        let usage = json!({ "prompt_tokens": 4, "total_tokens": 4 });
        let body = json!({ "data": [embedding], "usage": usage }).to_string();
        let headers = headers.map(|(name, value)| (name, value.to_owned())).into();
        Self::Status { code: 200, body, headers }
    }
}

/// FNV-1a, 64 bits: names a text in the logs.
pub fn hash_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The vector that the fake gives to a text: of length one, and different for each text.
pub fn vector_of(text: &str, dimensions: usize) -> Vec<f32> {
    let mut state = hash_of(text);
    let mut vector: Vec<f32> = (0..dimensions)
        .map(|_| {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

/// Carries `reply` out. `buys` is told that the inputs are answered.
pub(super) fn respond(
    reply: &Reply,
    request: &Request,
    dimensions: usize,
    buys: impl FnOnce(),
) -> Response {
    if let Some(too_much) = over_the_limits(&request.input) {
        return refuse(400, "max_tokens_per_request", too_much);
    }
    let base64 = request.encoding_format.as_deref() == Some("base64");
    match reply {
        Reply::Status { code, body, headers } => {
            let code = StatusCode::from_u16(*code).expect("a status");
            let mut response = (code, body.clone()).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().expect("a header"));
            }
            response
        }
        Reply::RateLimited { retry_after } => {
            let mut response = refuse(429, "rate_limit_exceeded", "Rate limit reached.");
            let headers = response.headers_mut();
            let secs = retry_after.as_millis().div_ceil(1_000).to_string();
            headers.insert("retry-after", secs.parse().expect("a header"));
            let millis = retry_after.as_millis().to_string();
            headers.insert("retry-after-ms", millis.parse().expect("a header"));
            response
        }
        Reply::QuotaExhausted => {
            refuse(429, "insufficient_quota", "You exceeded your current quota.")
        }
        Reply::RefuseBase64 if base64 => {
            refuse(400, "invalid_value", "encoding_format: base64 is not supported")
        }
        Reply::RefuseDimensions if request.dimensions.is_some() => {
            refuse(400, "invalid_value", "This model does not support specifying dimensions.")
        }
        Reply::HtmlError => {
            let page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
            (StatusCode::BAD_GATEWAY, [("content-type", "text/html")], page).into_response()
        }
        Reply::CutConnection => {
            let cut = std::io::Error::other("cut by the script");
            let start = Ok(Bytes::from_static(b"{\"data\":[{\"index\":0,\"embedding\":\""));
            Body::from_stream(futures::stream::iter([start, Err(cut)])).into_response()
        }
        Reply::Endless => {
            let spaces = Bytes::from_static(&[b' '; 1 << 16]);
            let endless = futures::stream::repeat_with(move || Ok::<_, Infallible>(spaces.clone()));
            Body::from_stream(endless).into_response()
        }
        Reply::Trickle(interval) => {
            let interval = *interval;
            let trickle = futures::stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(interval).await;
                Ok::<_, Infallible>(Bytes::from_static(b" "))
            });
            Body::from_stream(trickle).into_response()
        }
        answered => {
            buys();
            answer(request, answered, dimensions, base64)
        }
    }
}

fn answer(request: &Request, reply: &Reply, dimensions: usize, base64: bool) -> Response {
    let floats = !base64 || matches!(reply, Reply::IgnoreBase64);
    let dimensions = request.dimensions.unwrap_or(dimensions)
        + usize::from(matches!(reply, Reply::WrongDimension));
    let mut order: Vec<usize> = (0..request.input.len()).collect();
    match reply {
        Reply::WrongCount => drop(order.pop()),
        Reply::WrongOrder => order.reverse(),
        _ => {}
    }
    let items: Vec<String> = order
        .into_iter()
        .map(|index| {
            let mut vector = vector_of(&request.input[index], dimensions);
            match reply {
                Reply::NaN if index == 0 => vector[0] = f32::NAN,
                Reply::ZeroVector if index == 0 => vector.fill(0.0),
                _ => {}
            }
            let embedding = encode(&vector, floats);
            format!(r#"{{"object":"embedding","index":{index},"embedding":{embedding}}}"#)
        })
        .collect();
    let tokens: usize = request.input.iter().map(|input| input.len() / 4).sum();
    let usage = match reply {
        Reply::NoUsage => String::new(),
        _ => format!(r#","usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#),
    };
    let body = format!(r#"{{"object":"list","data":[{}]{usage}}}"#, items.join(","));
    ([("content-type", "application/json")], body).into_response()
}
fn encode(vector: &[f32], floats: bool) -> String {
    if floats {
        // As many servers do, and as serde_json does: null for NaN.
        serde_json::to_string(vector).expect("floats are JSON")
    } else {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        format!("\"{}\"", STANDARD.encode(bytes))
    }
}

/// OpenAI's limits, which the fake holds whatever the script says.
fn over_the_limits(inputs: &[String]) -> Option<&'static str> {
    let tokens: usize = inputs.iter().map(|input| input.len() / 4).sum();
    if inputs.is_empty() || inputs.len() > 2_048 {
        Some("between 1 and 2048 inputs are allowed")
    } else if inputs.iter().any(|input| input.is_empty() || input.len() / 4 > 8_192) {
        Some("an input is empty or has more than 8192 tokens")
    } else {
        (tokens > 300_000).then_some("more than 300000 tokens per request")
    }
}

/// A refusal with OpenAI's error body.
pub(super) fn refuse(code: u16, error_code: &str, message: &str) -> Response {
    let code = StatusCode::from_u16(code).expect("a status");
    let body = json!({ "error": { "message": message, "type": "fake", "code": error_code } });
    (code, [("content-type", "application/json")], body.to_string()).into_response()
}
