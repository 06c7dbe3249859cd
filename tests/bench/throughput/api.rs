//! The embeddings API of the benchmark, in a process of its own: it answers at once, or after the time
//! that the path names, from vectors that were made before. It costs next to nothing, so that what is
//! measured is the client.
//!
//! It also takes traces over OTLP and throws them away.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::DIMENSIONS;

/// Makes this program the API; the port is printed.
pub const COMMAND: &str = "embeddings-api";
/// Vectors that are made before. Behind the last come the same ones turned by a place, and so on: all that
/// are stored under an index differ, since equal ones share a place in that.
const VECTORS: usize = 8_192;
/// Characters that three numbers take: what a text in base64 can be turned by.
const PLACE: usize = 16;
/// Digits of a number in decimal, as the provider writes them.
const DECIMALS: usize = 9;

struct Answers {
    base64: Vec<String>,
    floats: OnceLock<Vec<String>>,
    next: AtomicU64,
    requests: AtomicU64,
    /// Bytes of traces.
    traced: AtomicU64,
}

#[derive(Deserialize)]
struct Request {
    input: Vec<IgnoredAny>,
    encoding_format: Option<IgnoredAny>,
}

/// Serves until it is killed.
pub fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let base64 = (0..VECTORS).map(|index| STANDARD.encode(bytes(index)));
    let answers = Arc::new(Answers {
        base64: base64.collect(),
        floats: OnceLock::new(),
        next: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        traced: AtomicU64::new(0),
    });
    let app = Router::new()
        .route("/requests", get(count))
        .route("/after/{millis}/v1/embeddings", post(embeddings))
        .route("/v1/traces", get(count_traced).post(take_traces))
        .layer(DefaultBodyLimit::disable())
        .with_state(answers);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        Ok(axum::serve(listener, app).await?)
    })
}

async fn count(State(answers): State<Arc<Answers>>) -> String {
    answers.requests.load(Ordering::Relaxed).to_string()
}

async fn take_traces(State(answers): State<Arc<Answers>>, body: Bytes) -> StatusCode {
    answers.traced.fetch_add(body.len() as u64, Ordering::Relaxed);
    StatusCode::OK
}

async fn count_traced(State(answers): State<Arc<Answers>>) -> String {
    answers.traced.load(Ordering::Relaxed).to_string()
}

async fn embeddings(
    State(answers): State<Arc<Answers>>,
    Path(millis): Path<u64>,
    body: Bytes,
) -> Response {
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    answers.requests.fetch_add(1, Ordering::Relaxed);
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    let body = answers.answer(request.input.len(), request.encoding_format.is_some());
    ([("content-type", "application/json")], body).into_response()
}

impl Answers {
    fn answer(&self, inputs: usize, base64: bool) -> String {
        let first = self.next.fetch_add(inputs as u64, Ordering::Relaxed) as usize;
        let mut body = String::with_capacity(inputs * (self.base64[0].len() + 64) + 128);
        body.push_str("{\"object\":\"list\",\"data\":[");
        for index in 0..inputs {
            let comma = if index == 0 { "" } else { "," };
            let start =
                format!("{comma}{{\"object\":\"embedding\",\"index\":{index},\"embedding\":");
            body.push_str(&start);
            match base64 {
                true => self.push_base64(first + index, &mut body),
                false => body.push_str(self.decimal(first + index)),
            }
            body.push('}');
        }
        let tokens = inputs * 500;
        let usage =
            format!("],\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}}}");
        body.push_str(&usage);
        body
    }

    fn push_base64(&self, index: usize, body: &mut String) {
        let vector = &self.base64[index % VECTORS];
        let (end, beginning) = vector.split_at(index / VECTORS * PLACE % vector.len());
        body.extend(["\"", beginning, end, "\""]);
    }

    /// Equal ones come again: only an algorithm asks for them that is not measured with an index.
    fn decimal(&self, index: usize) -> &str {
        let vectors = self.floats.get_or_init(|| (0..VECTORS).map(decimal).collect());
        &vectors[index % VECTORS]
    }
}

/// A vector of length 1, the same for the same index everywhere.
fn vector(index: usize) -> Vec<f32> {
    // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    let mut state = index as u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let numbers: Vec<f32> = (0..DIMENSIONS).map(|_| next()).collect();
    let norm = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    numbers.into_iter().map(|number| number / norm).collect()
}

fn bytes(index: usize) -> Vec<u8> {
    vector(index).into_iter().flat_map(f32::to_le_bytes).collect()
}

fn decimal(index: usize) -> String {
    let numbers: Vec<String> =
        vector(index).into_iter().map(|number| format!("{number:.DECIMALS$}")).collect();
    format!("[{}]", numbers.join(","))
}

/// The API as a child of the benchmark; killed when dropped.
pub struct Api {
    child: Child,
    address: SocketAddr,
}

impl Api {
    /// Starts it.
    pub fn start() -> anyhow::Result<Self> {
        use std::io::BufRead;
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output")?;
        std::io::BufReader::new(output).read_line(&mut line)?;
        Ok(Self { address: line.trim().parse().context("its address")?, child })
    }

    /// Where the API begins that answers after so many milliseconds.
    pub fn base_url(&self, millis: u64) -> String {
        format!("http://{}/after/{millis}/v1", self.address)
    }

    /// Where traces go.
    pub fn traces_url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// Requests for embeddings so far.
    pub async fn requests(&self) -> anyhow::Result<u64> {
        self.count("requests").await
    }

    /// Bytes of traces so far.
    pub async fn traced(&self) -> anyhow::Result<u64> {
        self.count("v1/traces").await
    }

    async fn count(&self, path: &str) -> anyhow::Result<u64> {
        let url = format!("http://{}/{path}", self.address);
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(client.get(url).send().await?.text().await?.parse()?)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
