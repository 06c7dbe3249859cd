//! Nothing that was said, no key and no password leaves the process by any signal: every byte that is
//! exported or printed is searched, while recordings succeed and fail and the provider quotes them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use embedding_recovery::ports::ImportedRecording;

use super::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::run;
use crate::pipeline::scene::is_call;

const MARKER: &str = "xylophonequartz";
const KEY: &str = "sk-marker-0123456789abcdef";

/// A call that says the marker in each turn.
fn marked(recording_id: i64) -> ImportedRecording {
    let mut call = call(recording_id, 2);
    for segment in &mut call.segments {
        segment.text = segment.text.replacen(' ', &format!(" {MARKER} said the customer "), 1);
    }
    call
}

/// A provider's words that quote what was sent, and the key.
fn quoting(recording_id: i64, turn: usize) -> String {
    format!("cannot embed: call{recording_id}turn{turn} {MARKER} said the customer (key {KEY})")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signal_holds_a_word_of_a_transcript_nor_the_key_nor_the_password() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let collector = received.clone();
    let receive = move |uri: Uri, body: Bytes| async move {
        collector.lock().unwrap().push((uri.path().to_owned(), body));
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(receive).layer(DefaultBodyLimit::disable());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[marked(1), marked(2), marked(3), marked(4), marked(5)]).await;
    // One succeeds, one is refused with a quotation, one is too long for the server, one gets an answer
    // that is none, one a vector that is none.
    fake.on(is_call(2), Reply::error(400, "invalid_input", &quoting(2, 0)));
    fake.on(
        is_call(3),
        Reply::error(500, "server", &format!("too large to process: {}", quoting(3, 1))),
    );
    let body = format!("{{\"data\": \"{}\"}}", quoting(4, 0));
    fake.on(is_call(4), Reply::Status { code: 200, body, headers: Vec::new() });
    fake.on(is_call(5), Reply::NaN);

    let mut command = serve(&database, &fake, &endpoint, &["--exit-when-idle"]);
    command
        .env("OPENAI_API_KEY", KEY)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        // Everything that can be logged is.
        .env("EMBEDDING_RECOVERY_LOG", "info,embedding_recovery=trace");
    let served = run(&mut command).await;
    assert!(served.stdout.contains("1 completed, 4 dead letters"), "{served:?}");
    serving.abort();

    let exported = received.lock().unwrap().clone();
    let holds = |bytes: &[u8], word: &str| {
        bytes.windows(word.len()).any(|window| window == word.as_bytes())
    };
    for path in ["/v1/traces", "/v1/metrics", "/v1/logs"] {
        let sent = exported.iter().any(|(sent_to, body)| sent_to == path && !body.is_empty());
        assert!(sent, "nothing was sent to {path}");
    }
    assert!(exported.iter().any(|(_, body)| holds(body, "chunk_refused")), "no failure is told");
    let url: url::Url = database.url.parse().unwrap();
    // A server of the tests' own has one; one that is given may have none.
    let password = url.password().unwrap_or(KEY);
    for word in [MARKER, "said the customer", KEY, password, "call2turn"] {
        for (path, body) in &exported {
            assert!(!holds(body, word), "{word} is exported to {path}");
        }
        assert!(!served.stderr.contains(word), "{word} is printed: {}", served.stderr);
        assert!(!served.stdout.contains(word), "{word} is printed: {}", served.stdout);
    }
}
