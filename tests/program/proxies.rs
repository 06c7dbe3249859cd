//! Proxies from the environment, as a company's network demands them.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

use crate::fakes::openai::FakeOpenAi;
use crate::harness::program::{Ended, program, run};
use crate::harness::within_deadline;

/// A host that only the proxy knows.
const HOST: &str = "provider.invalid";

/// One embedding over `base_url` with these variables.
async fn embed(base_url: &str, variables: &[(&str, &str)]) -> Ended {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("none");
    let mut doctor = program(&["doctor", "--data-dir", &data_dir.to_string_lossy()]);
    doctor.env("OPENAI_BASE_URL", base_url).envs(variables.iter().copied());
    run(&mut doctor).await
}

/// The fake as a proxy: it answers requests for any host.
fn proxy() -> (FakeOpenAi, String) {
    let fake = FakeOpenAi::start(8);
    let url = fake.base_url().trim_end_matches("/v1").to_owned();
    (fake, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_go_through_http_proxy_unless_no_proxy_names_the_host() {
    let (fake, url) = proxy();
    let base_url = format!("http://{HOST}/v1");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let ended = embed(&base_url, &[(name, &url)]).await;
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
    }
    let asked: Vec<String> = fake.requests().into_iter().map(|seen| seen.uri).collect();
    assert_eq!(asked, vec![format!("http://{HOST}/v1/embeddings"); 3]);
    for name in ["NO_PROXY", "no_proxy"] {
        let around = embed(&base_url, &[("HTTP_PROXY", &url), (name, HOST)]).await;
        assert_eq!(around.code, Some(2), "{around:?}");
        assert!(around.stdout.contains("the host is unknown"), "{around:?}");
    }
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_this_host_is_reached_without_the_proxy() {
    let (fake, _) = proxy();
    let ended = embed(fake.base_url(), &[("HTTP_PROXY", "http://127.0.0.1:1")]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fake.requests()[0].uri, "/v1/embeddings");
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_requests_ask_https_proxy_for_a_tunnel() {
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await.unwrap();
            line
        });
        let ended = embed(&format!("https://{HOST}/v1"), &[(name, &url)]).await;
        assert_eq!(ended.code, Some(2), "the proxy hangs up: {ended:?}");
        let line = within_deadline("the proxy is asked", asked).await.unwrap();
        assert_eq!(line, format!("CONNECT {HOST}:443 HTTP/1.1\r\n"));
    }
}
