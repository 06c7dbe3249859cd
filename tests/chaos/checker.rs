//! What must hold after any storm: of the database, of what was seen meanwhile, and of what the API
//! was asked and paid for.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use embedding_recovery::postgres::PgStore;
use sqlx::PgPool;

use super::watcher::Sightings;
use crate::fakes::openai::Purchase;

/// What is known of a storm that is over: everything has settled, and nobody works any more.
pub struct Evidence<'a> {
    /// Where the database is.
    pub database_url: &'a str,
    /// What was seen of it meanwhile.
    pub sightings: &'a Sightings,
    /// What was paid for.
    pub purchases: &'a [Purchase],
    /// A request that a slow network carried was sent at most this much before it came.
    pub network: Duration,
    /// When a frozen process went on: what it was about to send, it sends then.
    pub awakenings: &'a [Instant],
    /// Classes of failures that may have used an attempt: what happened to the recordings themselves.
    pub own_faults: &'a [&'a str],
}

impl Evidence<'_> {
    /// Everything that does not hold.
    pub async fn complaints(&self) -> Vec<String> {
        let store = PgStore::connect(self.database_url, 4).await.unwrap();
        let pool = PgPool::connect(self.database_url).await.unwrap();
        let report = store.verify().await.unwrap();
        let mut wrong: Vec<String> =
            report.violations.iter().map(|violation| format!("{violation:?}")).collect();
        wrong.extend(self.sightings.partial.iter().map(|seen| format!("search saw {seen}")));
        wrong.extend(unsettled(&pool).await);
        wrong.extend(outdated(&pool).await);
        wrong.extend(self.blamed(&pool).await);
        wrong.extend(self.bought_twice());
        store.close().await;
        pool.close().await;
        wrong
    }

    /// The storm in numbers.
    pub async fn summary(&self) -> String {
        let pool = PgPool::connect(self.database_url).await.unwrap();
        let outcomes = strings(
            &pool,
            "select format('%s %s %s', count(*), outcome, failure_class) from embedding_attempts group by outcome, failure_class order by count(*) desc",
        )
        .await;
        let states = strings(
            &pool,
            "select format('%s %s', count(*), status) from embedding_queue group by status",
        )
        .await;
        pool.close().await;
        format!(
            "{}; attempts: {}; {} looks; {} chunks paid for, {} texts",
            states.join(", "),
            outcomes.join(", "),
            self.sightings.looks,
            self.purchases.len(),
            self.purchases.iter().map(|p| p.content_hash).collect::<HashSet<_>>().len(),
        )
    }

    /// Only what is the recording's own fault, or kills its worker, uses an attempt.
    async fn blamed(&self, pool: &PgPool) -> Vec<String> {
        let own_faults: Vec<String> = self.own_faults.iter().map(ToString::to_string).collect();
        sqlx::query_scalar(
            "select format('recording %s: an attempt is used or a dead letter made for %s: %s', recording_id, failure_class, message)
             from embedding_attempts
             where outcome in ('retry', 'dead_letter') and failure_class <> all($1)",
        )
        .bind(own_faults)
        .fetch_all(pool)
        .await
        .unwrap()
    }

    /// Nothing was asked for while it was stored. A text that a recording has twice may be.
    fn bought_twice(&self) -> Vec<String> {
        let mut sets: HashMap<[u8; 32], HashSet<uuid::Uuid>> = HashMap::new();
        for (set, hash) in self.sightings.stored.keys() {
            sets.entry(*hash).or_default().insert(*set);
        }
        let mut wrong = Vec::new();
        for purchase in self.purchases {
            let held = sets.get(&purchase.content_hash).into_iter().flatten();
            let stored =
                held.filter_map(|set| self.sightings.stored.get(&(*set, purchase.content_hash)));
            let sent_at = purchase.asked_at - self.network;
            let excused = self.awakenings.iter().any(|awake| {
                purchase.asked_at >= *awake && purchase.asked_at < *awake + self.network
            });
            for stored in stored {
                if sent_at > stored.since && purchase.asked_at < stored.until && !excused {
                    let late = purchase.asked_at - stored.since;
                    wrong.push(format!("a chunk was bought {late:?} after it was seen stored"));
                }
            }
        }
        let more = wrong.len().saturating_sub(5);
        wrong.truncate(5);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        wrong
    }
}

async fn strings(pool: &PgPool, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

/// Every task is completed, or dead with a reason.
async fn unsettled(pool: &PgPool) -> Vec<String> {
    strings(
        pool,
        "select format('recording %s is %s after %s of %s attempts: %s', recording_id, status, attempts, max_attempts, dead_letter_reason)
         from embedding_queue
         where not (status = 'completed' or status = 'dead_letter' and dead_letter_reason <> '')",
    )
    .await
}

/// No edit is under way any more: what is completed is of the transcript as it stands. That its chunks
/// are those of this transcript, `verify` finds.
async fn outdated(pool: &PgPool) -> Vec<String> {
    strings(
        pool,
        "select format('recording %s is completed with the chunks of another transcript', q.recording_id)
         from (select user_id, recording_id from embedding_queue
               group by 1, 2 having bool_and(status = 'completed')) q
         where not exists (
             select from chunk_sets s
             where s.user_id = q.user_id and s.recording_id = q.recording_id and s.state = 'current'
               and s.source_digest = recording_digest(s.user_id, s.recording_id))",
    )
    .await
}
