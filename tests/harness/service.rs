//! The supervision tree in this process, over a test's database.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use embedding_recovery::actors::{RecoverySettings, Status, Tree, TreeSettings};
use embedding_recovery::domain::retry::{RecoveryPolicy, RetryPolicy};
use embedding_recovery::ports::{Embedder, Model, Store, TaskCounts};
use uuid::Uuid;

use super::{TestDatabase, eventually};

/// Settings for a test: everything that waits waits a moment only.
pub fn settings(
    store: Arc<dyn Store>,
    embedder: Arc<dyn Embedder>,
    dimensions: u32,
) -> TreeSettings {
    TreeSettings {
        store,
        embedder,
        model: Model { name: MODEL.into(), dimensions },
        worker_id: Uuid::new_v4(),
        recordings_max: 10,
        lease: Duration::from_secs(20),
        retry: RetryPolicy::new(vec![Duration::from_millis(100); 3]),
        insert_rows: 50,
        statement_timeout: None,
        inserts_in_flight: 4,
        requests_in_flight: 2,
        schedule: "*/5 * * * *".parse().unwrap(),
        keep_completed: None,
        stall: Duration::from_secs(60),
        recovery: RecoverySettings {
            // Never, but where a test asks for it.
            schedule: "0 0 29 2 *".parse().unwrap(),
            recordings_max: 1,
            policy: RecoveryPolicy::default(),
            small_batches_above: 200,
        },
    }
}

/// The model that tests embed with.
pub const MODEL: &str = "test-model";

impl TestDatabase {
    /// Registers the model and starts the tree.
    pub async fn serve(&self, settings: TreeSettings) -> Tree {
        self.store.use_model(&settings.model).await.unwrap();
        Tree::start(settings).await.unwrap()
    }

    /// Waits until every task is completed or dead and the tree has nothing in hand. A test may have ended
    /// this session too: what is not answered is asked again.
    pub async fn wait_until_settled(&self, tree: &Tree) -> TaskCounts {
        let status = tree.status();
        let settled = Cell::new(None);
        eventually("every task is completed or dead", async || {
            let counts = self.store.task_counts().await.ok();
            let is_idle = Status::is_idle(&status.borrow().clone());
            settled.set(counts.filter(|counts| is_idle && counts.open() == 0));
            settled.get().is_some()
        })
        .await;
        settled.get().unwrap()
    }

    /// Asserts that every invariant holds.
    pub async fn assert_sound(&self) {
        let report = self.store.verify().await.unwrap();
        assert_eq!(report.violations, [], "invariants are violated");
    }
}
