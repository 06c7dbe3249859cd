//! Who is let in, and what stands on every answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use embedding_recovery::admin::{self, Admin, Exposition, Tokens};
use embedding_recovery::ports::Vitals;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{ADMIN_TOKEN, Api, READ_TOKEN, send};
use crate::fakes::operations::FakeOperations;
use crate::harness::within_deadline;

#[tokio::test]
async fn a_request_without_a_token_or_with_a_wrong_one_is_401() {
    let api = Api::locked().await;
    for path in ["/v1/queue", "/v1/health", "/v1/dead-letters", "/v1/recordings/1", "/v1/live"] {
        let refused = api.get(path).await;
        assert!(refused.problem(401, "unauthorized").contains("token"), "{path}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
    }
    let wrong = [format!("Bearer {ADMIN_TOKEN}x"), format!("Basic {ADMIN_TOKEN}"), "Bearer".into()];
    for header in wrong {
        let request = api.request(Method::GET, "/v1/queue").header("authorization", &header);
        send(request).await.problem(401, "unauthorized");
    }
    let right = send(api.request(Method::GET, "/v1/queue").bearer_auth(READ_TOKEN)).await;
    assert_eq!(right.status, 200);
}

#[tokio::test]
async fn a_token_that_may_read_may_not_act_and_one_that_may_act_is_named() {
    let api = Api::locked().await;
    let acts = [
        (Method::POST, "/v1/recordings/7/recover"),
        (Method::POST, "/v1/dead-letters/recover"),
        (Method::POST, "/v1/recovery/run"),
        (Method::POST, "/v1/main/run"),
        (Method::POST, "/v1/pause"),
        (Method::POST, "/v1/resume"),
        (Method::DELETE, "/v1/dead-letters/7?reason=old"),
    ];
    for (method, path) in acts {
        let refused = send(api.request(method, path).bearer_auth(READ_TOKEN)).await;
        refused.problem(403, "forbidden");
    }
    assert_eq!(api.asked(), Vec::<String>::new());
    let run = send(api.request(Method::POST, "/v1/main/run").bearer_auth(ADMIN_TOKEN)).await;
    assert_eq!(run.status, 202);
    assert_eq!(api.asked(), ["run main by api:ops"]);
}

#[tokio::test]
async fn without_tokens_a_page_of_another_site_reaches_nothing() {
    let api = Api::open().await;
    let rebound = api.request(Method::GET, "/v1/queue").header("host", "evil.example");
    send(rebound).await.problem(403, "not-local");
    let page = api.request(Method::GET, "/").header("host", "evil.example");
    send(page).await.problem(403, "not-local");
    let crossed = api.request(Method::POST, "/v1/main/run").header("origin", "http://evil.example");
    send(crossed).await.problem(403, "not-local");
    assert_eq!(api.asked(), Vec::<String>::new());
    let own = api.request(Method::POST, "/v1/main/run").header("origin", api.url(""));
    assert_eq!(send(own).await.status, 202);
    assert_eq!(api.asked(), ["run main by api:loopback"]);
}

#[tokio::test]
async fn without_tokens_only_a_loopback_address_is_listened_on() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let operations = Arc::new(FakeOperations::default());
    let admin = Admin {
        operator: operations.clone(),
        inspector: operations,
        tokens: Tokens::default(),
        thresholds: Default::default(),
        look_every: Duration::from_secs(1),
        trace_url_template: None,
    };
    let (_stop, stopped) = watch::channel(false);
    let served = within_deadline("refusal", admin::serve(listener, admin, stopped)).await;
    assert!(served.unwrap_err().to_string().contains("loopback"));
}

#[tokio::test]
async fn the_page_runs_nothing_from_elsewhere_and_sends_nothing_elsewhere() {
    let api = Api::locked().await;
    let page = api.get("/").await;
    assert_eq!(page.status, 200, "the page itself holds no data and needs no token");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    let html = page.json.as_str().unwrap();
    for path in ["/page/page.css", "/page/page.js", "/page/charts.js", "/page/uplot.js"] {
        assert!(html.contains(path), "the page does not use {path}");
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
    assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
}

/// As well as a test says.
struct Told(watch::Receiver<(bool, bool)>);

#[async_trait]
impl Vitals for Told {
    async fn alive(&self) -> Result<(), String> {
        self.0.borrow().0.then_some(()).ok_or("it hangs".into())
    }

    async fn ready(&self) -> Result<(), String> {
        self.0.borrow().1.then_some(()).ok_or("stopping".into())
    }
}

#[tokio::test]
async fn the_probes_need_no_token_and_tell_what_is_amiss() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = watch::channel((true, true));
    let (stop, stopped) = watch::channel(false);
    let exposition =
        Exposition { write: || Ok("up 1\n".into()), content_type: "text/plain; version=0.0.4" };
    let vitals = Arc::new(Told(told));
    let served = tokio::spawn(admin::serve_probes(listener, vitals, exposition, stopped));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |path: &str| {
        let answer = client.get(format!("http://{address}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask("/livez").await, (200, "alive\n".into()));
    assert_eq!(ask("/readyz").await, (200, "ready\n".into()));
    tell.send_replace((true, false));
    assert_eq!(ask("/livez").await.0, 200);
    let (status, problem) = ask("/readyz").await;
    assert_eq!(status, 503);
    assert!(problem.contains("\"detail\":\"stopping\""), "{problem}");
    tell.send_replace((false, false));
    assert_eq!(ask("/livez").await.0, 503);
    let metrics = client.get(format!("http://{address}/metrics")).send().await.unwrap();
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4");
    assert_eq!(metrics.text().await.unwrap(), "up 1\n");
    stop.send_replace(true);
    drop(client);
    within_deadline("the end of the probes", served).await.unwrap().unwrap();
}

/// Probes of a service that is well.
async fn probes() -> (SocketAddr, watch::Sender<bool>, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let exposition = Exposition { write: || Ok(String::new()), content_type: "text/plain" };
    let vitals = Arc::new(Told(watch::channel((true, true)).1));
    let served = tokio::spawn(admin::serve_probes(listener, vitals, exposition, stopped));
    (address, stop, served)
}

#[tokio::test(start_paused = true)]
async fn who_sends_half_a_request_or_none_is_cut_off() {
    let (address, _stop, _served) = probes().await;
    for half in ["", "GET /livez HTTP/1.1\r\nhost: x"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Cut off, with an answer or without.
        let _ = within_deadline("the end of the connection", stream.read_to_end(&mut answer)).await;
    }
}

#[tokio::test]
async fn more_connections_than_the_bound_wait_until_one_ends() {
    let (address, stop, served) = probes().await;
    let mut open = Vec::new();
    for _ in 0..256 {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let early = waiting.read_to_string(&mut answer);
    assert!(tokio::time::timeout(Duration::from_secs(1), early).await.is_err(), "it was served");
    open.pop();
    within_deadline("its turn", waiting.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("alive\n"), "{answer}");
    drop(open);
    stop.send_replace(true);
    within_deadline("the end of the probes", served).await.unwrap().unwrap();
}
