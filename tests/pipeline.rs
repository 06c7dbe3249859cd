//! The whole tree over a real database.

use std::sync::Arc;
use std::time::Duration;

use embedding_recovery::embedders::openai::{OpenAiEmbedder, OpenAiSettings};

use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::service::{MODEL, settings};

fn embedder(fake: &FakeOpenAi) -> Arc<OpenAiEmbedder> {
    let base_url = fake.base_url().parse().unwrap();
    let settings = OpenAiSettings {
        retry_delays: vec![Duration::from_millis(5); 2],
        ..OpenAiSettings::new(base_url, None, MODEL.into())
    };
    Arc::new(OpenAiEmbedder::new(settings).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_calls_are_embedded_once_and_searchable() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3), call(2, 40)]).await;
    let tree = database.serve(settings(Arc::new(database.store.clone()), embedder(&fake), 8)).await;
    let counts = database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (2, 0));
    tree.stop(Duration::from_secs(5)).await;
    database.assert_sound().await;
}
