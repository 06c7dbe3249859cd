//! A running service as the ports have it: what a command asks the database for, asked over HTTP.
//! Answers and refusals are the service's own, so that a command prints the same either way.

mod answer;

use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, redirect};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::{Host, Url};
use uuid::Uuid;

use self::answer::{Problem, unanswered};
use crate::app;
use crate::config::Service;
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::ports::inspector::{
    ActionState, Bucket, DeadLetterQuery, DeadLetters, Explanation, Inspector, Job, Overview, Run,
};
use crate::ports::operator::{
    Operator, Part, RecoverMany, RecoverRecording, Recovering, RecoveringMany, Refusal,
};

/// Time to connect.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Time for a whole request: the service breaks off after 30 s, and says so.
const REQUEST_TIME: Duration = Duration::from_secs(40);

/// A running service.
pub(super) struct Remote {
    client: Client,
    url: Url,
}

/// A query, name by name; what is `None` is left out.
type Pairs<'a> = &'a [(&'a str, Option<String>)];

impl Remote {
    /// Prepares a client; sends nothing.
    ///
    /// # Errors
    /// The client cannot start.
    pub fn new(service: &Service) -> anyhow::Result<Self> {
        let mut builder = Client::builder()
            .user_agent(concat!("embedding-recovery/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the token, or make a look of an act.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIME)
            .timeout(REQUEST_TIME);
        let mut headers = HeaderMap::new();
        if let Some(token) = &service.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .context("the token cannot be sent")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(trace) = app::started_within() {
            headers.insert("traceparent", HeaderValue::from_str(trace.as_str())?);
        }
        builder = builder.default_headers(headers);
        if is_loopback(&service.url) {
            // A service on this host is not reached through the environment's proxy.
            builder = builder.no_proxy();
        }
        let client = builder.build().context("the HTTP client cannot start")?;
        Ok(Self { client, url: service.url.clone() })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        query: Pairs<'_>,
    ) -> Result<RequestBuilder, Failure> {
        let mut url = self.url.join(path).map_err(|error| {
            let message = format!("{path} is no path at {}: {error}", self.url);
            Failure::ServiceRefuses { message }
        })?;
        let pairs: Vec<_> =
            query.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        Ok(self.client.request(method, url))
    }

    /// The answer, or the problem that the service tells instead.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Result<T, Problem>, Failure> {
        let response = request.send().await.map_err(|error| unanswered(&self.url, &error))?;
        answer::read(&self.url, response).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: Pairs<'_>) -> Result<T, Failure> {
        let request = self.request(Method::GET, path, query)?;
        self.ask(request).await?.map_err(|problem| problem.into_failure(&self.url))
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        let request = self.request(Method::POST, path, &[])?.json(body);
        self.ask(request).await?.map_err(|problem| problem.into_failure(&self.url))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn recording(recording_id: i64) -> String {
    format!("v1/recordings/{recording_id}")
}

fn owner(user_id: Option<&str>) -> [(&str, Option<String>); 1] {
    [("user_id", user_id.map(str::to_owned))]
}

/// Who asks is not sent: the service keeps the name of the token, which it knows by itself.
#[async_trait]
impl Operator for Remote {
    async fn recover(&self, request: RecoverRecording) -> Result<Recovering, Refusal> {
        let RecoverRecording { recording_id, user_id, force, .. } = request;
        let path = format!("{}/recover", recording(recording_id));
        Ok(self.post(&path, &json!({ "user_id": user_id, "force": force })).await?)
    }

    async fn recover_many(&self, request: RecoverMany) -> Result<RecoveringMany, Refusal> {
        let RecoverMany { fingerprint, force, .. } = request;
        let body = json!({ "fingerprint": fingerprint, "force": force });
        Ok(self.post("v1/dead-letters/recover", &body).await?)
    }

    async fn run(&self, part: Part, _requested_by: &str) -> Result<Uuid, Refusal> {
        #[derive(Deserialize)]
        struct Started {
            run_id: Uuid,
        }
        let path = format!("v1/{}/run", part.as_str());
        let Started { run_id } = self.post(&path, &json!({})).await?;
        Ok(run_id)
    }

    async fn pause(&self, part: Part, _requested_by: &str) -> Result<(), Refusal> {
        Ok(self.post("v1/pause", &json!({ "part": part })).await?)
    }

    async fn resume(&self, part: Part, _requested_by: &str) -> Result<(), Refusal> {
        Ok(self.post("v1/resume", &json!({ "part": part })).await?)
    }

    async fn discard(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
        reason: &str,
        _requested_by: &str,
    ) -> Result<Uuid, Refusal> {
        #[derive(Deserialize)]
        struct Discarded {
            action_id: Uuid,
        }
        let [owner] = owner(user_id);
        let query = [("reason", Some(reason.to_owned())), owner];
        let path = format!("v1/dead-letters/{recording_id}");
        let request = self.request(Method::DELETE, &path, &query)?;
        let discarded: Result<Discarded, Problem> = self.ask(request).await?;
        let Discarded { action_id } =
            discarded.map_err(|problem| problem.into_failure(&self.url))?;
        Ok(action_id)
    }
}

#[async_trait]
impl Inspector for Remote {
    async fn overview(&self) -> Result<Overview, Failure> {
        self.get("v1/queue", &[]).await
    }

    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<DeadLetters, Failure> {
        let DeadLetterQuery { fingerprint, user_id, recording_id, limit, offset } = query;
        let query = [
            ("fingerprint", fingerprint.clone()),
            ("user_id", user_id.clone()),
            ("recording_id", recording_id.map(|id| id.to_string())),
            ("limit", Some(limit.to_string())),
            ("offset", Some(offset.to_string())),
        ];
        self.get("v1/dead-letters", &query).await
    }

    async fn find(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
    ) -> Result<Vec<RecordingKey>, Failure> {
        let path = recording(recording_id);
        let request = self.request(Method::GET, &path, &owner(user_id))?;
        let key = |user_id| RecordingKey { user_id, recording_id };
        match self.ask::<Explanation>(request).await? {
            Ok(explanation) => Ok(vec![key(explanation.user_id)]),
            Err(problem) if problem.is("unknown-recording") => Ok(Vec::new()),
            Err(Problem { users: Some(users), .. }) => Ok(users.into_iter().map(key).collect()),
            Err(problem) => Err(problem.into_failure(&self.url)),
        }
    }

    async fn explain(&self, key: &RecordingKey) -> Result<Option<Explanation>, Failure> {
        let path = recording(key.recording_id);
        let request = self.request(Method::GET, &path, &owner(Some(&key.user_id)))?;
        self.unless(request, "unknown-recording").await
    }

    async fn action(&self, action_id: Uuid) -> Result<Option<ActionState>, Failure> {
        let request = self.request(Method::GET, &format!("v1/actions/{action_id}"), &[])?;
        self.unless(request, "unknown-action").await
    }

    async fn jobs(&self, limit: u32) -> Result<Vec<Job>, Failure> {
        self.get("v1/jobs", &[("limit", Some(limit.to_string()))]).await
    }

    async fn runs(&self, failed_only: bool, limit: u32) -> Result<Vec<Run>, Failure> {
        let limit = ("limit", Some(limit.to_string()));
        self.get("v1/runs", &[limit, ("failed_only", Some(failed_only.to_string()))]).await
    }

    async fn history(&self, hours: u32) -> Result<Vec<Bucket>, Failure> {
        self.get("v1/history", &[("hours", Some(hours.to_string()))]).await
    }
}

impl Remote {
    /// `None` where the service tells this kind of problem: what is asked for is not there.
    async fn unless<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        kind: &str,
    ) -> Result<Option<T>, Failure> {
        match self.ask(request).await? {
            Ok(found) => Ok(Some(found)),
            Err(problem) if problem.is(kind) => Ok(None),
            Err(problem) => Err(problem.into_failure(&self.url)),
        }
    }
}
