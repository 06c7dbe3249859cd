//! What comes back from a service, or from whatever else answers at its address.

use std::error::Error;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::domain::failure::Failure;

/// The largest answer taken, in bytes: 500 dead letters with the longest messages have about 2 MB.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How the kinds of our problems begin.
const KIND_PREFIX: &str = "urn:embedding-recovery:";

/// An error as the service tells it (RFC 9457).
#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    status: u16,
    detail: String,
    /// The users who hold a recording of this number, where several do.
    pub users: Option<Vec<String>>,
}

impl Problem {
    /// Whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.strip_prefix(KIND_PREFIX) == Some(kind)
    }

    /// In the service's words; where the command's flags are the way out, they are named.
    pub fn into_failure(self, url: &Url) -> Failure {
        let message = match self.status {
            401 => format!(
                "the service at {url} needs a token, and this request has none, or a wrong one: \
                 --admin-token-file or --admin-token gives it"
            ),
            403 if self.is("forbidden") => format!(
                "the service at {url} takes this token to look only: --admin-token-file or \
                 --admin-token gives one that may act"
            ),
            404 if self.is("not-found") => format!(
                "the service at {url} does not know this request: it is of another version than \
                 this program ({}), or --admin-url has a path too many",
                env!("CARGO_PKG_VERSION")
            ),
            503 => return Failure::ServiceUnavailable { message: self.detail },
            _ => self.detail,
        };
        Failure::ServiceRefuses { message }
    }
}

/// Reads what a service answered.
///
/// # Errors
/// It broke off, is no service of ours, or of a version that answers differently.
pub(super) async fn read<T: DeserializeOwned>(
    url: &Url,
    response: Response,
) -> Result<Result<T, Problem>, Failure> {
    let status = response.status();
    let kind = header(&response, CONTENT_TYPE.as_str()).unwrap_or("no content type").to_owned();
    if let Some(elsewhere) = header(&response, LOCATION.as_str()) {
        let message = format!(
            "{url} leads to {elsewhere}: give --admin-url the address where the service itself is"
        );
        return Err(Failure::ServiceRefuses { message });
    }
    let body = body(url, response).await?;
    let is_json = kind.contains("json");
    if status.is_success() {
        // 204 has no body.
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        return match serde_json::from_slice(text) {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) if is_json => Err(Failure::ServiceRefuses {
                message: format!(
                    "the service at {url} answers as no version that this program ({}) knows: {error}",
                    env!("CARGO_PKG_VERSION")
                ),
            }),
            Err(_) => Err(foreign(url, status, &kind)),
        };
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if problem.kind.starts_with(KIND_PREFIX) => Ok(Err(problem)),
        _ => Err(foreign(url, status, &kind)),
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

async fn body(url: &Url, mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| unanswered(url, &error))? {
        body.extend_from_slice(&part);
        if body.len() > ANSWER_BYTES_MAX {
            let message = format!("{url} answers with more than {ANSWER_BYTES_MAX} bytes");
            return Err(Failure::ServiceRefuses { message });
        }
    }
    Ok(body)
}

/// Something else answers: a proxy whose service is away, or another program.
fn foreign(url: &Url, status: StatusCode, kind: &str) -> Failure {
    let told = format!("what answers at {url} is not the service ({status}, {kind})");
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            let message = format!("{told}: a proxy before it says that it is away");
            Failure::ServiceUnavailable { message }
        }
        _ => {
            let message = format!(
                "{told}: give --admin-url the address that `embedding-recovery serve` listens on"
            );
            Failure::ServiceRefuses { message }
        }
    }
}

/// Nothing came, or not to its end.
pub(super) fn unanswered(url: &Url, error: &reqwest::Error) -> Failure {
    let message = if error.is_timeout() {
        format!(
            "the service at {url} did not answer in time; try again, or ask the database without --admin-url"
        )
    } else {
        let cause = root_cause(error);
        format!(
            "no service answers at {url}: {cause}; is `embedding-recovery serve` running there? \
             Without --admin-url the database is asked"
        )
    };
    Failure::ServiceUnavailable { message }
}

/// The innermost error: the client's own messages hold the URL, and little else.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
