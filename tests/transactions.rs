//! No transaction is held across an API call: a provider that takes its time must not pin rows,
//! locks and connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use embedding_recovery::actors::TreeSettings;
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::packing::RequestLimits;
use embedding_recovery::ports::{Embedded, Embedder};
use sqlx::PgPool;

use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::service::settings;

/// Short transactions of others (a claim, a renewal) are over long before.
const PATIENCE: Duration = Duration::from_secs(5);

/// Another session of this database has a transaction open.
const SOMEBODY_IN_TRANSACTION: &str = "select exists (select from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
      and backend_type = 'client backend' and xact_start is not null)";

async fn somebody_in_transaction(pool: &PgPool) -> bool {
    sqlx::query_scalar(SOMEBODY_IN_TRANSACTION).fetch_one(pool).await.unwrap()
}

/// A provider that answers only once no transaction is open.
struct Watching {
    pool: PgPool,
    requests: AtomicUsize,
    held: AtomicBool,
}

#[async_trait]
impl Embedder for Watching {
    fn limits(&self) -> RequestLimits {
        RequestLimits { inputs_max: 3, ..RequestLimits::OPENAI }
    }

    fn learn_inputs_max(&self, _inputs_max: usize) {}

    fn share(&self, _replicas: u32) {}

    fn paused_until(&self) -> Option<Instant> {
        None
    }

    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        while somebody_in_transaction(&self.pool).await {
            if asked.elapsed() > PATIENCE {
                self.held.store(true, Ordering::Relaxed);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Embedded { vectors: vec![vec![1.0; 8]; inputs.len()], tokens: 1 })
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        Ok(Embedded { vectors: vec![vec![1.0; 8]], tokens: 1 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_is_open_while_the_provider_is_asked() {
    let database = TestDatabase::new().await;
    let open = database.pool.begin().await.unwrap();
    assert!(somebody_in_transaction(&database.pool).await, "the look sees no transaction");
    open.rollback().await.unwrap();

    database.import(&[call(1, 12), call(2, 5)]).await;
    let watching = Arc::new(Watching {
        pool: database.pool.clone(),
        requests: AtomicUsize::new(0),
        held: AtomicBool::new(false),
    });
    // One thing at a time, so that what is open while a request waits belongs to that request.
    let tree = database
        .serve(TreeSettings {
            recordings_max: 1,
            requests_in_flight: 1,
            ..settings(Arc::new(database.store.clone()), watching.clone(), 8)
        })
        .await;
    let counts = database.wait_until_settled(&tree).await;
    tree.stop(PATIENCE).await;
    assert_eq!((counts.completed, counts.dead_letter), (2, 0));
    assert!(watching.requests.load(Ordering::Relaxed) > 4, "hardly a request was made");
    assert!(!watching.held.load(Ordering::Relaxed), "a transaction was held across a request");
}
