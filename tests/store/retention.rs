//! What is forgotten of completed tasks, and what of everything else stays.

use embedding_recovery::ports::inspector::Inspector;
use embedding_recovery::postgres::{JobRequest, Selection};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Moves everything of a recording so many days back.
async fn age(database: &TestDatabase, recording_id: i64, days: u32) {
    database
        .execute(&format!(
            "update embedding_queue set created_at = created_at - interval '{days} d',
                    completed_at = completed_at - interval '{days} d' where recording_id = {recording_id};
             update embedding_attempts set started_at = started_at - interval '{days} d',
                    ended_at = ended_at - interval '{days} d' where recording_id = {recording_id}"
        ))
        .await;
}

#[tokio::test]
async fn completed_tasks_that_are_old_go_with_their_attempts_and_nothing_else_does() {
    let database = database().await;
    for (recording_id, days) in [(1, 91), (2, 91), (3, 89)] {
        import_and_embed(&database, recording_id, &["a", "b"]).await;
        age(&database, recording_id, days).await;
    }
    database.import(&[call(4, &["c"])]).await;
    bury(&database, &claim_one(&database).await).await;
    age(&database, 4, 400).await;

    assert_eq!(database.store.forget_completed(90 * DAY, 1).await, Ok(1));
    assert_eq!(database.store.forget_completed(90 * DAY, 10).await, Ok(1));
    assert_eq!(database.store.forget_completed(90 * DAY, 10).await, Ok(0));
    let left = "select string_agg(recording_id::text, ' ' order by recording_id) from ";
    assert_eq!(text(&database, &format!("{left} embedding_queue")).await, "3 4");
    assert_eq!(text(&database, &format!("{left} embedding_attempts")).await, "3 4");
    assert_eq!(searchable(&database, 1).await, ["a", "b"], "search finds it as before");
    let told = database.store.explain(&key(1)).await.unwrap().unwrap();
    assert_eq!((told.state, told.chunks_searchable), (None, 2));
    assert_eq!(database.store.reconcile(&model(), 10).await, Ok(0), "it is not done again");
    assert_sound(&database).await;
}

#[tokio::test]
async fn a_job_goes_with_the_last_of_its_tasks() {
    let database = database().await;
    for recording_id in [1, 2] {
        database.import(&[call(recording_id, &["a"])]).await;
    }
    let everything = JobRequest { selection: Selection::All, user_id: None, priority: 0 };
    database.store.enqueue(&everything).await.unwrap();
    for task in claim(&database, ClaimOf::Healthy(2)).await {
        let attempt = Attempt::begin(&database, task, &["a"]).await.unwrap();
        attempt.insert(&database, &rows(&["a"])).await.unwrap();
        assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    }
    let job = |minutes: u32| {
        format!("insert into embedding_jobs (created_at) values (now() - interval '{minutes} min')")
    };
    database.execute("update embedding_jobs set created_at = created_at - interval '10 d'").await;
    // One whose tasks are about to come.
    database.execute(&job(1)).await;
    age(&database, 1, 10).await;
    assert_eq!(database.store.forget_completed(9 * DAY, 10).await, Ok(1));
    // The new one, all, and that of the second import.
    let jobs = database.store.jobs(10).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.tasks).collect::<Vec<_>>(), [0, 1, 1]);
    assert_sound(&database).await;

    age(&database, 2, 10).await;
    assert_eq!(database.store.forget_completed(9 * DAY, 10).await, Ok(1));
    assert_eq!(database.store.jobs(10).await.unwrap().len(), 1, "the new one");
    assert_sound(&database).await;
}

#[tokio::test]
async fn what_the_next_model_cost_is_kept_until_the_change_is_over() {
    let database = database().await;
    import_and_embed(&database, 1, &["a"]).await;
    database
        .execute(
            "insert into embedding_models (name, dimensions, state) values ('next', 3, 'next');
             update embedding_queue set for_model = 'next'",
        )
        .await;
    age(&database, 1, 10).await;
    assert_eq!(database.store.forget_completed(9 * DAY, 10).await, Ok(0));
    database.execute("update embedding_models set state = 'retired' where name = 'next'").await;
    assert_eq!(database.store.forget_completed(9 * DAY, 10).await, Ok(1));
}

#[tokio::test]
async fn runs_that_are_over_go_and_what_an_administrator_asked_for_stays() {
    let database = database().await;
    for (ended_days_ago, outcome) in [("10", "'done'"), ("8", "'done'"), ("null", "null")] {
        let run = format!(
            "with asked as (
                 insert into admin_actions (requested_by, action, requested_at, outcome, ended_at)
                 values ('ann', 'run', now() - interval '11 d', {outcome},
                         case when {outcome} is not null then now() end) returning id
             )
             insert into runs (part, cause, action_id, started_at, ended_at)
             select 'main', 'run', id, now() - interval '11 d', now() - {ended_days_ago} * interval '1 d' from asked"
        );
        database.execute(&run).await;
    }
    assert_eq!(database.store.forget_completed(9 * DAY, 10).await, Ok(0));
    assert_eq!(
        number(&database, "select count(*) from runs").await,
        2,
        "one is too young, one is under way"
    );
    assert_eq!(number(&database, "select count(*) from admin_actions").await, 3);
}
