//! The HTTP API over real HTTP, and the page in a real browser; behind both, fakes of the ports.

mod access;
mod actions;
mod explaining;
mod looks;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use embedding_recovery::admin::{self, Admin, Scope, Tokens};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::fakes::operations::FakeOperations;

const ADMIN_TOKEN: &str = "admin-token-of-a-test";
const TRACES: &str = "https://traces.example/{trace_id}";
const READ_TOKEN: &str = "read-token-of-a-test";

/// A running API, gone when dropped.
struct Api {
    address: SocketAddr,
    operations: FakeOperations,
    client: Client,
    stop: watch::Sender<bool>,
}

/// A status and the JSON that came with it.
struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    json: Value,
}

impl Api {
    /// Without tokens.
    async fn open() -> Self {
        Self::with(Tokens::default()).await
    }

    /// With a token of each scope.
    async fn locked() -> Self {
        let mut tokens = Tokens::default();
        tokens.add("ops", Scope::Admin, &ADMIN_TOKEN.into());
        tokens.add("viewer", Scope::Read, &READ_TOKEN.into());
        Self::with(tokens).await
    }

    async fn with(tokens: Tokens) -> Self {
        // Fails only where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let operations = FakeOperations::default();
        let (stop, stopped) = watch::channel(false);
        let admin = Admin {
            operator: Arc::new(operations.clone()),
            inspector: Arc::new(operations.clone()),
            tokens,
            thresholds: Default::default(),
            look_every: Duration::from_millis(50),
            trace_url_template: Some(TRACES.into()),
        };
        tokio::spawn(admin::serve(listener, admin, stopped));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { address, operations, client, stop }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        send(self.request(Method::POST, path).body(body.to_owned())).await
    }

    fn asked(&self) -> Vec<String> {
        self.operations.state().asked.clone()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, json }
}

impl Answer {
    /// The answer is a problem (RFC 9457) of this status and kind; returns its sentence.
    #[track_caller]
    fn problem(&self, status: u16, kind: &str) -> &str {
        assert_eq!(self.status.as_u16(), status, "{}", self.json);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json["type"], format!("urn:embedding-recovery:{kind}"));
        assert_eq!(self.json["status"], status);
        assert!(self.json["title"].as_str().is_some_and(|title| !title.is_empty()));
        self.json["detail"].as_str().unwrap()
    }
}
