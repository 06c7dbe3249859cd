//! Azure, gateways with headers of their own, and what is learnt of a server.

use embedding_recovery::embedders::openai::Learnt;

use super::*;

/// The request that settings lead to, over a base URL with this path and query at the fake.
async fn sent_to(path: &str, change: impl FnOnce(OpenAiSettings) -> OpenAiSettings) -> Sent {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let mut settings = settings(&fake);
    settings.base_url = settings.base_url.join(path).expect("a URL");
    with(change(settings)).embed(&texts(["text"])).await.expect("embedded");
    let seen = fake.requests().remove(0);
    let header = |name: &str| Some(seen.headers.get(name)?.to_str().ok()?.to_owned());
    Sent { uri: seen.uri.clone(), bearer: header("authorization"), api_key: header("api-key") }
}

#[derive(Debug, PartialEq)]
struct Sent {
    uri: String,
    bearer: Option<String>,
    api_key: Option<String>,
}

#[tokio::test]
async fn azure_gets_its_version_in_the_query_and_the_key_in_its_own_header() {
    let version = |settings| OpenAiSettings { api_version: Some("2024-10-21".into()), ..settings };
    let azure = |uri: &str| Sent { uri: uri.into(), bearer: None, api_key: Some(KEY.into()) };
    let deployment = "/openai/deployments/small";
    let asked = format!("{deployment}/embeddings?api-version=2024-10-21");
    assert_eq!(sent_to(deployment, version).await, azure(&asked));
    // In the base URL it does as well, and gives way to the setting.
    let older = format!("{deployment}?api-version=2023-05-15");
    assert_eq!(sent_to(&older, version).await, azure(&asked));
    let as_it_is = format!("{deployment}/embeddings?api-version=2023-05-15");
    assert_eq!(sent_to(&older, |settings| settings).await, azure(&as_it_is));
    let with_others = "/v1?team=a%20b&api-version=1&x=1";
    let kept = "/v1/embeddings?team=a+b&x=1&api-version=2024-10-21";
    assert_eq!(sent_to(with_others, version).await, azure(kept));
}

#[tokio::test]
async fn another_server_keeps_its_query_and_gets_a_bearer_token() {
    let plain = Sent {
        uri: "/v1/embeddings?team=search".into(),
        bearer: Some(format!("Bearer {KEY}")),
        api_key: None,
    };
    assert_eq!(sent_to("/v1?team=search", |settings| settings).await, plain);
}

#[tokio::test]
async fn headers_of_the_users_are_sent_and_may_replace_the_key() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let given = [("Authorization", "Bearer of-entra"), ("X-Team", "search")];
    let headers = given.map(|(name, value)| (name.into(), value.into())).to_vec();
    let without_key = OpenAiSettings { api_key: None, headers, ..settings(&fake) };
    with(without_key.clone()).embed(&texts(["text"])).await.expect("embedded");
    let seen = &fake.requests()[0];
    assert_eq!(seen.authorization.as_deref(), Some("Bearer of-entra"));
    assert_eq!(seen.headers["x-team"], "search");

    let twice = |settings, header: &str| {
        let refused = OpenAiEmbedder::new(settings).expect_err("refused");
        assert!(matches!(&refused, OpenAiSettingsError::HeaderTwice { name } if name == header));
    };
    let mut same = without_key.clone();
    same.headers.push(("x-team".into(), "calls".into()));
    twice(same, "x-team");
    let both = OpenAiSettings { api_key: Some(KEY.into()), ..without_key };
    twice(both.clone(), "Authorization");
    // At Azure the key has another header, and a gateway before it may want this one.
    with(OpenAiSettings { api_version: Some("v1".into()), ..both });
}

#[tokio::test]
async fn a_message_that_quotes_a_header_is_withheld() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let secret = "gateway-token-0123456789";
    let headers = vec![("x-gateway".into(), secret.into())];
    let body = format!(r#"{{"error":{{"message":"{secret} is unknown"}}}}"#);
    fake.script([Reply::Status { code: 401, body, headers: Vec::new() }]);
    let embedder = with(OpenAiSettings { headers, ..settings(&fake) });
    let failure = embedder.probe().await.expect_err("refused").to_string();
    assert!(failure.contains("withheld") && !failure.contains(secret), "{failure}");
}

#[tokio::test]
async fn an_answer_tells_its_encoding_and_the_limits() {
    let (fake, embedder) = start();
    assert_eq!(embedder.learnt(), Learnt::default());
    embedder.probe().await.expect("a probe");
    assert!(embedder.learnt().base64);
    let answer = r#"{"data":[{"index":0,"embedding":[1,0,0,0,0,0,0,0]}]}"#;
    let headers = vec![
        ("x-ratelimit-limit-requests", "3000".into()),
        ("x-ratelimit-limit-tokens", "1000000".into()),
    ];
    fake.script([Reply::Status { code: 200, body: answer.into(), headers }]);
    embedder.probe().await.expect("a probe");
    let floats =
        Learnt { base64: false, requests_limit: Some(3_000), tokens_limit: Some(1_000_000) };
    assert_eq!(embedder.learnt(), floats);
}
