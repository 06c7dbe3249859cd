//! What the monitor reads: true counts, and statements that stay cheap on a long queue.

use embedding_recovery::ports::inspector::{DeadLetterQuery, DeadLetters, Inspector};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_of_an_empty_database_is_empty() {
    let database = database().await;
    let overview = database.store.overview().await.unwrap();
    assert_eq!(overview.tasks, Default::default());
    assert_eq!((overview.oldest_waiting_secs, overview.empty_in_secs), (None, Some(0.0)));
    assert_eq!(overview.first_pass.share(), None);
    assert!(overview.workers.is_empty() && overview.in_flight.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_seen_in_flight_with_its_chunks_and_then_among_what_was_completed() {
    let database = database().await;
    database.import(&[call(1, &["a", "b", "c"]), call(2, &["d"])]).await;
    let mut tasks = claim(&database, ClaimOf::Healthy(1)).await;
    let attempt = Attempt::begin(&database, tasks.remove(0), &["a", "b", "c"]).await.unwrap();
    attempt.insert(&database, &rows(&["a", "b"])).await.unwrap();
    let overview = database.store.overview().await.unwrap();
    assert_eq!((overview.tasks.pending, overview.tasks.processing), (1, 1));
    assert!(overview.oldest_waiting_secs.is_some());
    let [in_flight] = &overview.in_flight[..] else { panic!("{overview:?}") };
    assert_eq!(
        (in_flight.chunks_stored, in_flight.chunks, in_flight.attempt),
        (Some(2), Some(3), 1)
    );

    attempt.insert(&database, &rows(&["a", "b", "c"])).await.unwrap();
    attempt.complete(&database).await.unwrap();
    let overview = database.store.overview().await.unwrap();
    assert_eq!((overview.tasks.completed, overview.completed_last_hour), (1, 1));
    assert_eq!(overview.chunks_last_hour, 2, "seven chunks, of which five were there");
    assert_eq!((overview.first_pass.tried, overview.first_pass.succeeded), (1, 1));
    assert!(overview.last_completed_at.is_some() && overview.in_flight.is_empty());
    let explained = database.store.explain(&attempt.task.key).await.unwrap().unwrap();
    assert_eq!((explained.chunks_searchable, explained.chunks_reused), (3, 5));
    assert_eq!((explained.tokens, explained.attempts.len()), (1_000, 1));
    assert_eq!(explained.state.as_deref(), Some("completed"));
    assert_eq!((explained.last_error, explained.way_out), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_grouped_by_cause_and_paged_whatever_their_causes_are() {
    let database = database().await;
    plain_calls(&database, "ann", 7).await;
    database
        .execute(
            "insert into embedding_queue (user_id, recording_id, status, attempts, dead_letter_reason,
                 failure_fingerprint, dead_letter_permanent)
             select 'ann', n, 'dead_letter', 4, 'reason ' || n % 2, case n % 2 when 0 then 'even' end, n = 7
             from generate_series(1, 7) n",
        )
        .await;
    let of = async |fingerprint: Option<&str>, limit, offset| {
        let fingerprint = fingerprint.map(str::to_owned);
        let query = DeadLetterQuery { fingerprint, limit, offset, ..DeadLetterQuery::default() };
        database.store.dead_letters(&query).await.unwrap()
    };
    let all = of(None, 3, 0).await;
    let groups: Vec<_> = all
        .groups
        .iter()
        .map(|group| (group.fingerprint.as_str(), group.count, group.permanent))
        .collect();
    assert_eq!(
        (all.total, all.rows.len(), groups),
        (7, 3, vec![("unknown", 4, 1), ("even", 3, 0)])
    );
    let mut seen: Vec<i64> = all.rows.iter().map(|row| row.recording_id).collect();
    for offset in [3, 6] {
        seen.extend(of(None, 3, offset).await.rows.iter().map(|row| row.recording_id));
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7], "pages neither overlap nor leave any out");
    let even = of(Some("even"), 1, 0).await;
    assert_eq!((even.total, even.rows.len(), even.groups.len()), (3, 1, 1));
    let mut ids = even.groups[0].recording_ids.clone();
    ids.sort_unstable();
    assert_eq!(ids, [2, 4, 6]);
    assert_eq!(of(Some("unknown"), 10, 0).await.rows.len(), 4);
    let query = DeadLetterQuery {
        user_id: Some("ann".into()),
        recording_id: Some(4),
        limit: 10,
        ..DeadLetterQuery::default()
    };
    let one = database.store.dead_letters(&query).await.unwrap();
    assert_eq!((one.total, one.groups[0].count, one.rows.len()), (1, 1, 1));
    let nobody = DeadLetterQuery { user_id: Some("bob".into()), ..query };
    assert_eq!(database.store.dead_letters(&nobody).await.unwrap(), DeadLetters::default());
}

/// A hundred thousand completed tasks and more are estimated, and no statement of the overview reads
/// them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_past_is_estimated_and_not_read() {
    let database = database().await;
    database
        .execute(
            "set embedding_recovery.enqueue = off;
             insert into embedding_queue (user_id, recording_id, status, completed_at)
             select 'ann', n, 'completed', now() from generate_series(1, 130000) n;
             insert into embedding_queue (user_id, recording_id) select 'ann', n from generate_series(1, 10) n",
        )
        .await;
    database.execute("vacuum analyze embedding_queue").await;
    let overview = database.store.overview().await.unwrap();
    assert_eq!(overview.tasks.pending, 10);
    let completed = overview.tasks.completed;
    assert!((120_000..140_000).contains(&completed), "{completed}");
    let plan: Vec<String> = sqlx::query_scalar(
        "explain select status, count(*) from embedding_queue where status <> 'completed' group by 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(plan.join("\n").contains("embedding_queue_unfinished_idx"), "{plan:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_tells_its_next_tick_and_a_worker_whose_time_is_over_is_not_alive() {
    let database = database().await;
    database.store.note_cron("reconcile", "0 3 * * *").await.unwrap();
    database.store.note_cron("reconcile", "0 4 * * *").await.unwrap();
    database
        .execute(
            "insert into workers (id, host, version, model, alive_until, slots)
             values (gen_random_uuid(), 'a', '1', 'm', now() + interval '1 h', 3),
                    (gen_random_uuid(), 'b', '1', 'm', now() - interval '1 s', 3)",
        )
        .await;
    let overview = database.store.overview().await.unwrap();
    let [schedule] = &overview.schedules[..] else { panic!("{overview:?}") };
    assert_eq!((schedule.cron.as_deref(), schedule.last_tick), (Some("0 4 * * *"), None));
    let next = schedule.next_tick.unwrap();
    assert!(next > overview.at && next.format("%H:%M").to_string() == "04:00", "{next}");
    assert_eq!(overview.workers.len(), 1);
}
