//! A queue that is long and mostly done: whatever is asked again and again reads indexes alone, and
//! what must be estimated says about the truth.

use embedding_recovery::domain::part::Part;
use embedding_recovery::ports::inspector::{DeadLetterQuery, Inspector};
use embedding_recovery::ports::{Occasion, RunResult, Runs, WorkerState};

use embedding_recovery::postgres::PgStore;
use sqlx::{Connection, PgConnection};

use super::*;

/// More than are counted one by one, twice.
const COMPLETED: i64 = 210_000;
/// So many times each statement is carried out: from the sixth on by the plan that serves any values.
const TIMES: usize = 7;

/// A queue in which 2,000 tasks are ready, 500 wait for a retry, and 500 are dead.
async fn long_queue() -> TestDatabase {
    let database = database().await;
    // Not over the pool: its scans are told of when it ends.
    let mut filling = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!(
            "insert into embedding_queue (user_id, recording_id, status, attempts, created_at, completed_at,
                                          next_retry_at, dead_letter_reason, failure_fingerprint)
             select 'ann', n, status, case status when 'pending' then 0 else 1 end, created_at,
                    case when status = 'completed' then created_at end,
                    case when status in ('failed', 'dead_letter') then now() + interval '1 hour' end,
                    case when status = 'dead_letter' then 'it failed' end, 'it failed'
             from (select n, now() - n * interval '10 s' as created_at,
                          case when n <= 2000 then 'pending' when n <= 2500 then 'failed'
                               when n <= 3000 then 'dead_letter' else 'completed' end as status
                   from generate_series(1, 3000 + {COMPLETED}) n) t;
             insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, started_at, ended_at, outcome)
             select id, user_id, recording_id, gen_random_uuid(), 1, created_at, created_at,
                    case status when 'completed' then 'completed' when 'failed' then 'retry' else 'dead_letter' end
             from embedding_queue where status <> 'pending';
             insert into fathom_calls (user_id, recording_id) values ('ann', 5000)"
    )))
    .execute(&mut filling)
    .await
    .unwrap();
    filling.close().await.unwrap();
    // The first history is of all attempts, which no index helps with.
    let store = PgStore::connect(&database.url, 1).await.unwrap();
    store.roll_up_history().await.unwrap();
    store.close().await;
    database.execute("vacuum analyze embedding_queue").await;
    database.execute("vacuum analyze embedding_attempts").await;
    database
}

/// Scans of whole tables that the two large ones have had.
async fn whole_scans(database: &TestDatabase) -> i64 {
    number(
        database,
        "select sum(seq_scan)::bigint from pg_stat_user_tables
         where relname in ('embedding_queue', 'embedding_attempts')",
    )
    .await
}

/// Waits until there are no other sessions but those that a test looks with, and so many: a session
/// tells of its scans when it ends.
async fn sessions_end(database: &TestDatabase, others: i64) {
    crate::harness::eventually("the other sessions have ended", async || {
        let sessions = "select count(*) from pg_stat_activity
            where datname = current_database() and backend_type = 'client backend'";
        number(database, sessions).await <= i64::from(database.pool.size()) + others
    })
    .await;
}

/// Everything that a service, a page and a scrape of metrics ask again and again.
async fn ask_everything(database: &TestDatabase) {
    let (store, worker) = (&database.store, Uuid::new_v4());
    let state = WorkerState {
        id: worker,
        model_name: MODEL.into(),
        slots: 10,
        in_flight: 0,
        provider_trouble: None,
        provider_paused_for: None,
        database_trouble: None,
    };
    store.heartbeat(&state, LEASE).await.unwrap();
    for of in [ClaimOf::Healthy(10), ClaimOf::Suspect] {
        let claimed = store.claim(worker, MODEL, of, LEASE).await.unwrap();
        assert!(claimed.next_due.is_some() && !claimed.suspect_waits);
        let tokens: Vec<Uuid> = claimed.tasks.iter().map(|task| task.lease.token).collect();
        assert_eq!(store.renew(&tokens, LEASE).await.unwrap().len(), tokens.len());
        for task in &claimed.tasks {
            let settlement = Settlement::Release { counted: false };
            assert!(store.settle(&task.lease, &Failure::Panicked, &settlement).await.unwrap());
        }
    }
    assert_eq!(store.expired(100).await.unwrap(), []);
    store.release_unknown(worker, Part::Main, &[]).await.unwrap();
    let due = "update embedding_queue set next_retry_at = now()
        where user_id = 'ann' and recording_id = 3000 and status <> 'completed'";
    database.execute(due).await;
    let run = store.begin_recovery(worker, MODEL, Occasion::Tick).await.unwrap().run.unwrap();
    let recovered = store.claim_recovery(worker, MODEL, &run, 1, LEASE).await.unwrap();
    assert_eq!(recovered.len(), 1);
    store.release_unknown(worker, Part::Recovery, &[]).await.unwrap();
    store.end_run(run.id, &RunResult::default()).await.unwrap();
    store.begin_recovery(worker, MODEL, Occasion::Look).await.unwrap();
    store.roll_up_history().await.unwrap();
    store.forget_completed(Duration::from_secs(86_400), 10).await.unwrap();
    store.overview().await.unwrap();
    store.dead_letters(&DeadLetterQuery { limit: 50, ..Default::default() }).await.unwrap();
    store.history(6).await.unwrap();
    assert!(store.explain(&user_key("ann", 5000)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_again_and_again_never_scans_the_queue_or_its_attempts() {
    let database = long_queue().await;
    sessions_end(&database, database.store.connections().idle.into()).await;
    let before = whole_scans(&database).await;
    for _ in 0..TIMES {
        ask_everything(&database).await;
    }
    let completed = database.store.overview().await.unwrap().tasks.completed as i64;
    assert!(
        (completed - COMPLETED).abs() <= COMPLETED / 20,
        "{completed} are said to be completed"
    );
    database.store.close().await;
    sessions_end(&database, 0).await;
    assert_eq!(whole_scans(&database).await, before);
}

#[tokio::test]
async fn a_claim_that_begins_where_the_last_one_ended_leaves_nothing_behind() {
    let database = database().await;
    let enqueue = |recordings: &str, priority: u32| {
        format!(
            "insert into embedding_queue (user_id, recording_id, priority)
             select 'ann', n, {priority} - n from generate_series({recordings}) n"
        )
    };
    database.execute(&enqueue("1, 6", 50)).await;
    // Every claim takes as long as one that walks far.
    database
        .execute(
            "create function be_slow() returns trigger language plpgsql as
             $$ begin perform pg_sleep(0.02); return new; end $$;
             create trigger be_slow before insert on embedding_attempts
             for each row execute function be_slow()",
        )
        .await;
    let mut claimed = claim(&database, ClaimOf::Healthy(2)).await;
    database.execute(&enqueue("7, 8", 100)).await;
    for rows_max in [2, 3, 1] {
        let tasks = claim(&database, ClaimOf::Healthy(rows_max)).await;
        assert_eq!(tasks.len(), rows_max as usize, "as many as there are");
        claimed.extend(tasks);
    }
    assert!(claim(&database, ClaimOf::Healthy(1)).await.is_empty());
    let mut recordings: Vec<i64> = claimed.iter().map(|task| task.key.recording_id).collect();
    assert_eq!(recordings[..2], [1, 2]);
    recordings.sort_unstable();
    assert_eq!(recordings, (1..=8).collect::<Vec<_>>());
}
