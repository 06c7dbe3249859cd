//! An embedding provider on 127.0.0.1 that does as it is told: answers well, answers badly, refuses,
//! hangs, breaks off. It runs on a thread and a runtime of its own, so that dropping it, or the
//! caller's runtime, cuts every connection at once, as a crash does.

mod replies;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};

pub use self::replies::{Reply, hash_of, vector_of};
use self::replies::{refuse, respond};

/// A test that waits longer for the fake than this has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an input that the logs keep; its hash names the rest.
const START_BYTES: usize = 80;

/// A request as it came, whatever became of it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The first 80 bytes of each input.
    pub inputs: Vec<String>,
    /// Of the body.
    pub model: String,
    /// Of the body.
    pub encoding_format: Option<String>,
    /// Of the body.
    pub dimensions: Option<usize>,
    /// The header.
    pub authorization: Option<String>,
    /// The header.
    pub user_agent: Option<String>,
    /// Where it was sent: path and query, with scheme and host where it came as to a proxy.
    pub uri: String,
    /// All of them.
    pub headers: HeaderMap,
    /// Requests under way when it came, itself included.
    pub in_flight: usize,
}

/// An input that was answered with 200, and so has to be paid for.
#[derive(Debug, Clone)]
struct Bought {
    hash: u64,
    start: String,
    purchase: Purchase,
}

/// A text that was paid for.
#[derive(Debug, Clone, Copy)]
pub struct Purchase {
    /// SHA-256 of the text, as chunks are stored with.
    pub content_hash: [u8; 32],
    /// Length of the text.
    pub bytes: usize,
    /// When its request came.
    pub asked_at: Instant,
}

type Predicate = Box<dyn Fn(&[String]) -> bool + Send + Sync>;

struct Shared {
    dimensions: usize,
    rules: Mutex<Rules>,
    bought: Mutex<Vec<Bought>>,
    seen: Mutex<Vec<Seen>>,
    seen_count: watch::Sender<usize>,
    held: watch::Sender<bool>,
    releases: watch::Sender<u64>,
    /// Each request under way has a copy.
    under_way: Arc<()>,
}

#[derive(Default)]
struct Rules {
    script: VecDeque<Reply>,
    standing: Vec<(Predicate, Reply)>,
}

/// The running fake; gone when dropped.
pub struct FakeOpenAi {
    base_url: String,
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeOpenAi {
    /// Listens on a free port and answers with vectors of `dimensions`, unless a request asks for
    /// others.
    pub fn start(dimensions: usize) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            dimensions,
            rules: Mutex::default(),
            bought: Mutex::default(),
            seen: Mutex::default(),
            seen_count: watch::Sender::new(0),
            held: watch::Sender::new(false),
            releases: watch::Sender::new(0),
            under_way: Arc::new(()),
        });
        let app = Router::new()
            // At any path: providers differ in what they put before `embeddings`.
            .fallback(post(embeddings))
            .layer(DefaultBodyLimit::disable())
            .with_state(shared.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    served = async { axum::serve(listener, app).await } => served.expect("served"),
                    _ = stopped => {}
                }
            });
        });
        let base_url = format!("http://{address}/v1");
        Self { base_url, address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Where the API begins.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Queues replies, one for each of the next requests that are let through.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.shared.rules).script.extend(replies);
    }

    /// Replies so to every request whose inputs fit, once the script is used up; the rule that was
    /// added first wins.
    pub fn on(&self, fits: impl Fn(&[String]) -> bool + Send + Sync + 'static, reply: Reply) {
        lock(&self.shared.rules).standing.push((Box::new(fits), reply));
    }

    /// Forgets script and rules: normal answers from here on.
    pub fn recover(&self) {
        *lock(&self.shared.rules) = Rules::default();
    }

    /// Makes every request wait from here on, before it is decided on.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets held and hanging requests go on.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
        self.shared.releases.send_modify(|releases| *releases += 1);
    }

    /// The first 80 bytes of every input that was answered with 200, in the order of the answers.
    pub fn bought(&self) -> Vec<String> {
        lock(&self.shared.bought).iter().map(|bought| bought.start.clone()).collect()
    }

    /// [`hash_of`] every input that was answered with 200, in the order of the answers.
    pub fn bought_hashes(&self) -> Vec<u64> {
        lock(&self.shared.bought).iter().map(|bought| bought.hash).collect()
    }

    /// Every text that was answered with 200, in the order of the answers.
    pub fn purchases(&self) -> Vec<Purchase> {
        lock(&self.shared.bought).iter().map(|bought| bought.purchase).collect()
    }

    /// Every request that came, held and refused ones included.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Waits until the `count`th request since the start has come.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut seen = self.shared.seen_count.subscribe();
        let came = tokio::time::timeout(DEADLINE, seen.wait_for(|seen| *seen >= count)).await;
        let so_far = lock(&self.shared.seen).len();
        assert!(came.is_ok(), "only {so_far} of {count} requests came within {DEADLINE:?}");
    }
}

impl Drop for FakeOpenAi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Deserialize)]
struct Request {
    model: String,
    input: Vec<String>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

async fn embeddings(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return refuse(400, "invalid_json", "the fake cannot read this request");
    };
    drop(body);
    let _under_way = shared.under_way.clone();
    // The copy that stays is not a request's.
    let in_flight = Arc::strong_count(&shared.under_way) - 1;
    // Before the request is counted: a release after the count must not be missed.
    let mut releases = shared.releases.subscribe();
    let asked_at = Instant::now();
    shared.log(&request, &uri, headers, in_flight);
    let mut held = shared.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    let reply = lock(&shared.rules).choose(&request.input);
    match &reply {
        Reply::Delay(time) => tokio::time::sleep(*time).await,
        Reply::Crowded { at_ease, time } => {
            let load = in_flight.max(*at_ease) as f64 / *at_ease as f64;
            tokio::time::sleep(time.mul_f64(load)).await;
        }
        Reply::Hang => drop(releases.changed().await),
        _ => {}
    }
    respond(&reply, &request, shared.dimensions, || shared.buy(&request, asked_at))
}

impl Rules {
    fn choose(&mut self, inputs: &[String]) -> Reply {
        if let Some(reply) = self.script.pop_front() {
            return reply;
        }
        let rule = self.standing.iter().find(|(fits, _)| fits(inputs));
        rule.map_or(Reply::Normal, |(_, reply)| reply.clone())
    }
}

impl Shared {
    fn buy(&self, request: &Request, asked_at: Instant) {
        let inputs = request.input.iter();
        lock(&self.bought).extend(inputs.map(|input| Bought {
            hash: hash_of(input),
            start: start_of(input),
            purchase: Purchase {
                content_hash: Sha256::digest(input).into(),
                bytes: input.len(),
                asked_at,
            },
        }));
    }

    fn log(&self, request: &Request, uri: &Uri, headers: HeaderMap, in_flight: usize) {
        let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let mut seen = lock(&self.seen);
        seen.push(Seen {
            inputs: request.input.iter().map(|input| start_of(input)).collect(),
            model: request.model.clone(),
            encoding_format: request.encoding_format.clone(),
            dimensions: request.dimensions,
            authorization: header("authorization"),
            user_agent: header("user-agent"),
            uri: uri.to_string(),
            headers,
            in_flight,
        });
        self.seen_count.send_replace(seen.len());
    }
}

fn start_of(input: &str) -> String {
    input[..input.floor_char_boundary(START_BYTES)].to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panicked while it held the lock")
}
