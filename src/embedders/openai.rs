//! Embeds through any server that speaks OpenAI's `POST /v1/embeddings`, and tells its refusals
//! apart: those that pass, those that need a split, a wait, or a person.

mod answer;
mod client;
mod learnt;
mod rate_headers;
mod refusal;
mod request;
mod settings;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use reqwest::{Client, Response};
use tokio::sync::SemaphorePermit;
use url::Url;

use self::answer::{Answer, KnownDimensions, Unreadable};
use self::client::{client, root_cause};
pub use self::learnt::Learnt;
use self::learnt::Lessons;
use self::rate_headers::RateHeaders;
use self::refusal::{Asked, Refusal};
use self::request::{KnownDialect, Request};
pub use self::settings::{OpenAiSettings, OpenAiSettingsError, RETRY_DELAYS};
pub use super::ceiling::Ceiling;
use super::limiter::Limiter;
use crate::domain::failure::Failure;
use crate::domain::packing::RequestLimits;
use crate::domain::retry::RetryPolicy;
use crate::ports::{Embedded, Embedder};
use crate::telemetry::metrics::metrics;
use crate::telemetry::spans::Provider;

/// What a probe embeds: short, and of no interest to anyone.
pub const PROBE_TEXT: &str = "Does the provider answer?";

/// The largest answer taken, in bytes: 2,048 vectors of 1,536 floats in decimal have about 40 MB,
/// of 3,072 in base64 about 34 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Bytes of a refusal that are read: some servers echo the whole request in it.
const REFUSAL_BYTES_MAX: usize = 256 << 10;

/// An [`Embedder`] over HTTP. One for the process: its limiter is shared by all that embed.
pub struct OpenAiEmbedder {
    client: Client,
    url: Url,
    settings: OpenAiSettings,
    retries: RetryPolicy,
    limiter: Limiter,
    dialect: KnownDialect,
    dimensions: KnownDimensions,
    inputs_max: AtomicUsize,
    lessons: Lessons,
    provider: Provider,
}

impl OpenAiEmbedder {
    /// Prepares a client; sends nothing.
    ///
    /// # Errors
    /// [`OpenAiSettingsError`].
    pub fn new(settings: OpenAiSettings) -> Result<Self, OpenAiSettingsError> {
        if settings.requests_in_flight == 0 {
            return Err(OpenAiSettingsError::RequestsInFlight);
        }
        let provider = settings.provider();
        metrics().provider_chosen(&provider);
        Ok(Self {
            client: client(&settings)?,
            url: settings.embeddings_url()?,
            retries: RetryPolicy::new(settings.retry_delays.clone()),
            limiter: Limiter::new(settings.requests_in_flight, settings.ceiling),
            dialect: KnownDialect::new(settings.dimensions.is_some()),
            dimensions: KnownDimensions::new(settings.dimensions),
            inputs_max: AtomicUsize::new(request::LIMITS.inputs_max),
            lessons: Lessons::default(),
            provider,
            settings,
        })
    }

    /// What its answers have told of the server so far.
    pub fn learnt(&self) -> Learnt {
        self.lessons.get()
    }

    /// Sends one request, and gives the permit back when its answer is read.
    async fn send(
        &self,
        _permit: SemaphorePermit<'_>,
        asked: Asked<'_>,
    ) -> Result<Embedded, Refusal> {
        let began = Instant::now();
        let result = self.exchange(asked).await;
        let tokens = result.as_ref().map(|embedded| embedded.tokens).map_err(Refusal::class);
        metrics().requested(&self.provider, began.elapsed(), tokens);
        result
    }

    async fn exchange(&self, asked: Asked<'_>) -> Result<Embedded, Refusal> {
        let settings = &self.settings;
        let request =
            Request::new(&settings.model, settings.dimensions, asked.inputs, asked.dialect);
        let post = self.client.post(self.url.clone()).json(&request);
        let response = post.send().await.map_err(|error| self.unavailable(error))?;
        let rate = RateHeaders::read(|name| response.headers().get(name)?.to_str().ok());
        self.limiter.note(rate.requests, rate.tokens);
        self.lessons.limits(&rate);
        rate.measure();
        self.receive(response, &rate, asked).await
    }

    async fn receive(
        &self,
        mut response: Response,
        rate: &RateHeaders,
        asked: Asked<'_>,
    ) -> Result<Embedded, Refusal> {
        let status = response.status();
        if !status.is_success() {
            // The status says enough where the body breaks off.
            let body = read_body(&mut response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
            return Err(Refusal::read(status.as_u16(), &body, rate, &asked));
        }
        self.dialect.understood(asked.dialect);
        let body = read_body(&mut response, ANSWER_BYTES_MAX + 1)
            .await
            .map_err(|error| self.unavailable(error))?;
        // Vectors that came are paid for, and the same question gets the same answer: a bad one is
        // not asked for again.
        let bad = |message: String| Refusal::Final(Failure::BadAnswer { message });
        if body.len() > ANSWER_BYTES_MAX {
            return Err(bad(format!("more than {ANSWER_BYTES_MAX} bytes")));
        }
        let answer =
            Answer::read(&body, asked.inputs.len()).map_err(|unreadable| match unreadable {
                Unreadable::Content(message) => bad(message),
                Unreadable::Json(place) => {
                    bad(format!("{place}; {}", refusal::describe(status.as_u16(), &body, &asked)))
                }
            })?;
        self.dimensions.check(&answer).map_err(bad)?;
        self.lessons.answer(&answer);
        let tokens = answer.tokens.unwrap_or(asked.tokens);
        Ok(Embedded { vectors: answer.vectors, tokens })
    }

    fn unavailable(&self, error: reqwest::Error) -> Refusal {
        let OpenAiSettings { connect_timeout, read_timeout, .. } = self.settings;
        let message = match (error.is_connect(), error.is_timeout()) {
            (true, true) => format!("no connection within {connect_timeout:?}"),
            (true, false) => format!("no connection: {}", root_cause(&error)),
            (false, true) => format!("no answer in time, with a read time-out of {read_timeout:?}"),
            (false, false) => format!("the connection broke: {}", root_cause(&error)),
        };
        Refusal::Passing(Failure::ProviderUnavailable { message })
    }
}

#[async_trait]
impl Embedder for OpenAiEmbedder {
    fn limits(&self) -> RequestLimits {
        let tokens_max = request::LIMITS.tokens_max;
        RequestLimits {
            inputs_max: self.inputs_max.load(Ordering::Relaxed),
            tokens_max: self.limiter.tokens_max().unwrap_or(tokens_max).min(tokens_max),
        }
    }

    fn learn_inputs_max(&self, inputs_max: usize) {
        let before = self.inputs_max.fetch_min(inputs_max.max(1), Ordering::Relaxed);
        if inputs_max < before {
            tracing::info!(inputs_max, "the server takes fewer inputs a request");
        }
    }

    fn share(&self, replicas: u32) {
        self.limiter.share(replicas);
    }

    fn paused_until(&self) -> Option<Instant> {
        self.limiter.paused_until().map(|until| until.into_std())
    }

    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure> {
        if inputs.is_empty() {
            return Ok(Embedded { vectors: Vec::new(), tokens: 0 });
        }
        let tokens = request::measure(inputs)?;
        let mut dialect = self.dialect.get();
        let secrets = self.settings.secrets();
        let (mut tries, mut pauses) = (1, 0);
        loop {
            let permit = self.limiter.admit(tokens).await?;
            let sent =
                self.send(permit, Asked { inputs, secrets: &secrets, dialect, tokens }).await;
            match sent {
                Ok(embedded) => return Ok(embedded),
                Err(Refusal::Parameter(parameter)) => {
                    tracing::info!(parameter = parameter.name(), "the server refuses a parameter");
                    dialect = dialect.without(parameter);
                }
                Err(Refusal::RateLimited { retry_after }) => {
                    let wait = self.limiter.pause(retry_after, pauses);
                    pauses += 1;
                    tracing::warn!(wait_ms = wait.as_millis() as u64, "rate limited");
                }
                Err(Refusal::Passing(failure)) if tries < self.retries.max_attempts() => {
                    tracing::warn!(%failure, tries, "a request failed and is repeated");
                    tokio::time::sleep(self.retries.delay(tries, rand::random())).await;
                    tries += 1;
                }
                Err(Refusal::Passing(failure) | Refusal::Final(failure)) => return Err(failure),
            }
        }
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        let inputs = &[PROBE_TEXT.to_owned()];
        let tokens = request::measure(inputs)?;
        let mut dialect = self.dialect.get();
        let secrets = self.settings.secrets();
        loop {
            let permit = self.limiter.admit_probe(tokens).await?;
            let sent =
                self.send(permit, Asked { inputs, secrets: &secrets, dialect, tokens }).await;
            match sent {
                Ok(embedded) => return Ok(embedded),
                // The server works; it only has to be asked in its own words.
                Err(Refusal::Parameter(parameter)) => dialect = dialect.without(parameter),
                Err(Refusal::RateLimited { retry_after }) => {
                    let retry_after = self.limiter.pause(retry_after, 0);
                    return Err(Failure::RateLimited { retry_after });
                }
                // Nothing is wrong with this text, so it is the model or its settings.
                Err(Refusal::Final(Failure::RequestRefused { message })) => {
                    return Err(Failure::KeyRefused { message });
                }
                Err(Refusal::Passing(failure) | Refusal::Final(failure)) => return Err(failure),
            }
        }
    }
}

impl fmt::Debug for OpenAiEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenAiEmbedder").field(&self.settings).finish()
    }
}

/// Reads a body to its end, or until it has `bytes_max`.
async fn read_body(response: &mut Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    // What the server says is believed only as far as it is allowed.
    let expected = response.content_length().unwrap_or_default();
    let mut body = Vec::with_capacity(
        usize::try_from(expected).map_or(bytes_max, |bytes| bytes.min(bytes_max)),
    );
    while let Some(chunk) = response.chunk().await? {
        let room = bytes_max - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == bytes_max {
            break;
        }
    }
    Ok(body)
}
