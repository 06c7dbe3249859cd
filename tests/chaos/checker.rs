//! What must hold after any storm: of the database, of what was seen meanwhile, and of what the API
//! was asked and paid for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use embedding_recovery::domain::chunking::chunk;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::ports::Store;
use embedding_recovery::postgres::PgStore;
use sqlx::{FromRow, PgPool};

use super::town::Town;
use super::watcher::Sightings;

/// A request that a slow network carried was sent at most this much before it came.
const NETWORK: Duration = Duration::from_secs(3);

/// Fails with everything that does not hold.
pub async fn check(town: &Town, sightings: &Sightings, ended_badly: &[Option<i32>]) {
    let pool = PgPool::connect(town.database_url()).await.unwrap();
    let store = PgStore::connect(town.database_url(), 4).await.unwrap();
    let mut wrong: Vec<String> = Vec::new();
    let report = store.verify().await.unwrap();
    wrong.extend(report.violations.iter().map(|violation| format!("{violation:?}")));
    wrong.extend(sightings.partial.iter().map(|seen| format!("search saw {seen}")));
    wrong.extend(settled(&pool).await);
    wrong.extend(attempts(&pool).await);
    wrong.extend(contents(&pool, &store).await);
    wrong.extend(jobs(&pool).await);
    wrong.extend(bought_twice(town, sightings));
    for code in ended_badly {
        wrong.push(format!("a replica that was told to stop ended with {code:?}"));
    }
    summary(town, sightings, &pool).await;
    store.close().await;
    pool.close().await;
    if !wrong.is_empty() {
        let log = town.log();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!("does not hold:\n- {}\nlog:\n{}", wrong.join("\n- "), tail.join("\n"));
    }
}

async fn strings(pool: &PgPool, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

/// Every task is completed, or dead with a reason, in bounded attempts.
async fn settled(pool: &PgPool) -> Vec<String> {
    strings(
        pool,
        "select format('recording %s is %s after %s of %s attempts: %s', recording_id, status, attempts, max_attempts, dead_letter_reason)
         from embedding_queue
         where not (status = 'completed' or status = 'dead_letter' and dead_letter_reason <> '')
            or attempts > max_attempts",
    )
    .await
}

/// Only what is the recording's, or kills its worker, uses an attempt: here nothing is the
/// recordings' own fault, so only workers that died or stood still count.
async fn attempts(pool: &PgPool) -> Vec<String> {
    strings(
        pool,
        "select format('recording %s: an attempt is used or a dead letter made for %s: %s', recording_id, failure_class, message)
         from embedding_attempts
         where outcome in ('retry', 'dead_letter')
           and failure_class not in ('lease_expired', 'stalled')",
    )
    .await
}

#[derive(FromRow)]
struct StoredChunk {
    user_id: String,
    recording_id: i64,
    content_hash: Vec<u8>,
}

/// A completed recording has exactly the chunks of its transcript, by content and in order.
async fn contents(pool: &PgPool, store: &PgStore) -> Vec<String> {
    let rows: Vec<StoredChunk> = sqlx::query_as(
        "select v.user_id, v.recording_id, c.content_hash from searchable_chunks v
         join transcript_chunks c on c.id = v.id
         order by v.user_id, v.recording_id, v.chunk_index",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut stored: HashMap<RecordingKey, Vec<Vec<u8>>> = HashMap::new();
    for row in rows {
        let key = RecordingKey { user_id: row.user_id, recording_id: row.recording_id };
        stored.entry(key).or_default().push(row.content_hash);
    }
    let completed: Vec<(String, i64)> = sqlx::query_as(
        "select user_id, recording_id from embedding_queue group by 1, 2 having bool_and(status = 'completed')",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut wrong = Vec::new();
    for (user_id, recording_id) in completed {
        let key = RecordingKey { user_id, recording_id };
        let recording = store.load(&key).await.unwrap().recording;
        let expected: Vec<Vec<u8>> =
            chunk(&recording).iter().map(|c| c.content_hash(&recording).to_vec()).collect();
        if stored.get(&key) != Some(&expected) {
            wrong.push(format!(
                "{key} is completed, and its chunks are not those of its transcript"
            ));
        }
    }
    wrong
}

/// A job's counts are those of its tasks.
async fn jobs(pool: &PgPool) -> Vec<String> {
    strings(
        pool,
        "select format('job %s counts %s tasks, %s completed, %s dead', p.job_id, p.tasks, p.completed, p.dead_letter)
         from embedding_job_progress p
         where (p.tasks, p.completed, p.dead_letter) <> (
             select count(*), count(*) filter (where q.status = 'completed'), count(*) filter (where q.status = 'dead_letter')
             from job_tasks j join embedding_queue q on q.id = j.task_id where j.job_id = p.job_id)",
    )
    .await
}

/// Nothing was asked for while it was stored. A text that a recording has twice may be.
fn bought_twice(town: &Town, sightings: &Sightings) -> Vec<String> {
    let mut sets: HashMap<[u8; 32], HashSet<uuid::Uuid>> = HashMap::new();
    for (set, hash) in sightings.stored.keys() {
        sets.entry(*hash).or_default().insert(*set);
    }
    let mut wrong = Vec::new();
    for purchase in town.api.purchases() {
        let held = sets.get(&purchase.content_hash).into_iter().flatten();
        let stored = held.filter_map(|set| sightings.stored.get(&(*set, purchase.content_hash)));
        let sent_at = purchase.asked_at - NETWORK;
        // What a frozen process was about to send, it sends when it goes on.
        let excused = town
            .awakenings
            .iter()
            .any(|awake| purchase.asked_at >= *awake && purchase.asked_at < *awake + NETWORK);
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

async fn summary(town: &Town, sightings: &Sightings, pool: &PgPool) {
    let outcomes = strings(
        pool,
        "select format('%s %s %s', count(*), outcome, failure_class) from embedding_attempts group by outcome, failure_class order by count(*) desc",
    )
    .await;
    let states = strings(
        pool,
        "select format('%s %s', count(*), status) from embedding_queue group by status",
    )
    .await;
    println!(
        "{}; attempts: {}; {} looks; {} chunks paid for, {} texts",
        states.join(", "),
        outcomes.join(", "),
        sightings.looks,
        town.api.purchases().len(),
        town.api.purchases().iter().map(|p| p.content_hash).collect::<HashSet<_>>().len(),
    );
}
