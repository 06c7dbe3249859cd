//! A next model beside the current one: begun once, its tasks apart from the others, given up.

use std::collections::HashSet;

use embedding_recovery::postgres::{JobRequest, ModelState, Progress, ReembedError, Selection};
use futures::future::join_all;

use super::schema::{as_role, forget};
use super::*;

pub(super) const NEXT: &str = "next-model";

pub(super) fn next_model() -> Model {
    Model { name: NEXT.into(), dimensions: 3 }
}

/// Recordings embedded with the current model, and tasks of the next one for all of them.
pub(super) async fn re_embedding(recordings: i64) -> TestDatabase {
    let database = database().await;
    for recording in 1..=recordings {
        import_and_embed(&database, recording, &["old a", "old b"]).await;
    }
    database.store.begin_reembedding(&next_model()).await.unwrap();
    assert_eq!(database.store.reconcile(&next_model(), 1_000).await, Ok(recordings as u64));
    database
}

pub(super) async fn claim_next(database: &TestDatabase, tasks_max: u32) -> Vec<Task> {
    let of = ClaimOf::Healthy(tasks_max);
    database.store.claim(Uuid::new_v4(), NEXT, of, LEASE).await.unwrap().tasks
}

/// Embeds the recordings of claimed tasks with the next model.
pub(super) async fn embed_next(database: &TestDatabase, tasks: Vec<Task>, texts: &[&str]) {
    for task in tasks {
        let source = database.store.load(&task.key).await.unwrap();
        let attempt = Attempt::open_for(NEXT, database, task, source, texts).await.unwrap();
        attempt.insert(database, &rows(texts)).await.unwrap();
        assert_eq!(attempt.complete(database).await, Ok(Completion::Completed));
    }
}

pub(super) async fn progress(database: &TestDatabase) -> Progress {
    let now = database.store.now().await.unwrap();
    database.store.reembedding(NEXT, now).await.unwrap().unwrap()
}

/// Open tasks by model, `-` for the current one.
async fn open_tasks(database: &TestDatabase) -> String {
    text(
        database,
        "select coalesce(string_agg(concat_ws(' ', recording_id, coalesce(for_model, '-'), status), ', '
                    order by recording_id, for_model nulls first), '')
         from embedding_queue where status <> 'completed'",
    )
    .await
}

#[tokio::test]
async fn nothing_begins_where_nothing_is_stored_or_the_model_is_the_same() {
    let database = TestDatabase::new().await;
    let refused = database.store.begin_reembedding(&next_model()).await.unwrap_err();
    assert!(matches!(refused, ReembedError::NothingStored), "{refused}");
    database.store.use_model(&model()).await.unwrap();
    let before =
        text(&database, "select jsonb_agg(to_jsonb(m))::text from embedding_models m").await;
    for refused in [
        database.store.begin_reembedding(&model()).await.unwrap_err(),
        database.store.estimate_reembedding(&model()).await.unwrap_err(),
    ] {
        assert!(matches!(refused, ReembedError::Same(_)), "{refused}");
        assert!(
            refused.to_string().starts_with("search is on test-model with 3 dimensions already")
        );
    }
    let after =
        text(&database, "select jsonb_agg(to_jsonb(m))::text from embedding_models m").await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_role_that_could_not_build_the_index_is_told_before_anything_is_embedded() {
    let database = database().await;
    let role = format!("worker_{}", Uuid::new_v4().simple());
    database
        .execute(&format!(
            "create role {role}; grant usage on schema public to {role};
             grant select, insert, update, delete on all tables in schema public to {role}"
        ))
        .await;
    let store = as_role(&database, &role).await;
    let refused = store.begin_reembedding(&next_model()).await.unwrap_err();
    assert!(matches!(refused, ReembedError::NotOwner), "{refused}");
    forget(&database, store, &role).await;
    assert_eq!(number(&database, "select count(*) from embedding_models").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_re_embeddings_that_begin_at_once_with_different_models_one_wins_and_the_rest_join_it() {
    let database = database().await;
    let beginning = (0..8).map(|process| {
        let store = database.store.clone();
        let model = Model { name: ["one", "two"][process % 2].into(), dimensions: 3 };
        tokio::spawn(async move { (store.begin_reembedding(&model).await, model.name) })
    });
    let (mut begun, mut refused) = (HashSet::new(), HashSet::new());
    for process in join_all(beginning).await {
        match process.unwrap() {
            (Ok(next), asked) => {
                assert_eq!(next.model.name, asked);
                begun.insert(asked);
            }
            (Err(ReembedError::OtherRunning(running)), asked) => {
                assert_ne!(running.model.name, asked);
                refused.insert(asked);
            }
            (Err(error), _) => panic!("{error}"),
        }
    }
    assert_eq!((begun.len(), refused.len()), (1, 1));
    let next = "select string_agg(name, ' ') from embedding_models where state = 'next'";
    assert!(begun.contains(&text(&database, next).await));

    // In the order in which nothing but the lock helps.
    let database = self::database().await;
    let mut first = database.pool.begin().await.unwrap();
    let insert =
        "insert into embedding_models (name, dimensions, state) values ('first', 3, 'next')";
    sqlx::query(insert).execute(&mut *first).await.unwrap();
    let store = database.store.clone();
    let second = tokio::spawn(async move { store.begin_reembedding(&next_model()).await });
    wait_for_blocked(&database, 1).await;
    first.commit().await.unwrap();
    let refused = second.await.unwrap().unwrap_err();
    assert!(matches!(refused, ReembedError::OtherRunning(_)), "{refused}");
}

#[tokio::test]
async fn a_model_in_another_length_has_a_stored_name_of_its_own() {
    let database = database().await;
    let longer = Model { name: MODEL.into(), dimensions: 4 };
    let next = database.store.begin_reembedding(&longer).await.unwrap();
    assert_eq!((next.model.name.as_str(), next.provider_name.as_str()), ("test-model@4", MODEL));
    assert_eq!(database.store.begin_reembedding(&longer).await.unwrap(), next, "it is joined");
    let used = database.store.use_model(&longer).await.unwrap();
    assert!(used.next && used.model == next.model);
    let current = database.store.use_model(&model()).await.unwrap();
    assert!(!current.next && current.model == model());
}

#[tokio::test]
async fn a_worker_gets_the_tasks_of_its_own_model_only() {
    let database = re_embedding(2).await;
    database.import(&[call(3, &["words"])]).await;
    assert_eq!(
        open_tasks(&database).await,
        "1 next-model pending, 2 next-model pending, 3 - pending, 3 next-model pending"
    );
    assert_eq!(claim_one(&database).await.key, key(3));
    assert_eq!(claim_next(&database, 10).await.len(), 3);
    assert_eq!(claim(&database, ClaimOf::Healthy(10)).await, []);
    let of = |tasks: embedding_recovery::ports::TaskCounts| (tasks.processing, tasks.completed);
    assert_eq!(of(database.store.task_counts_of(MODEL).await.unwrap()), (1, 2));
    assert_eq!(of(database.store.task_counts_of(NEXT).await.unwrap()), (3, 0));
    let claimed = database.store.claim(Uuid::new_v4(), "unknown", ClaimOf::Healthy(9), LEASE).await;
    assert_eq!(claimed.unwrap().tasks, []);
}

#[tokio::test]
async fn a_job_counts_its_recordings_once_while_a_next_model_is_built() {
    let database = re_embedding(3).await;
    let everything = JobRequest { selection: Selection::All, user_id: None, priority: 5 };
    let job = database.store.enqueue(&everything).await.unwrap();
    assert_eq!(job.tasks, 3);
    assert_eq!(number(&database, "select max(tasks) from embedding_job_progress").await, 3);
    let joined = "select count(*) from embedding_queue where for_model is not null and priority = 5 and job_id is null";
    assert_eq!(number(&database, joined).await, 3, "the tasks of the next model move ahead too");
    let missing = JobRequest { selection: Selection::Missing, user_id: None, priority: 0 };
    assert_eq!(database.store.enqueue(&missing).await.unwrap().tasks, 0);
}

#[tokio::test]
async fn the_estimate_counts_what_is_missing_and_nothing_that_is_there() {
    let database = database().await;
    import_and_embed(&database, 1, &["12345678", "1234"]).await;
    import_and_embed(&database, 2, &["1234"]).await;
    database.import(&[call(3, &["a transcript without chunks"])]).await;
    let estimate = database.store.estimate_reembedding(&next_model()).await.unwrap();
    assert!(!estimate.running);
    assert_eq!((estimate.recordings, estimate.recordings_to_do), (3, 3));
    assert_eq!((estimate.chunks, estimate.tokens), (4, (16 + 27_u64).div_ceil(4)));
    assert_eq!(
        number(&database, "select count(*) from embedding_models").await,
        1,
        "it only looks"
    );

    database.store.begin_reembedding(&next_model()).await.unwrap();
    database.store.reconcile(&next_model(), 10).await.unwrap();
    let tasks = claim_next(&database, 3).await;
    let first = tasks.iter().filter(|task| task.key == key(1)).cloned().collect();
    embed_next(&database, first, &["12345678", "1234"]).await;
    let second = tasks.into_iter().find(|task| task.key == key(2)).unwrap();
    let source = database.store.load(&second.key).await.unwrap();
    let attempt = Attempt::open_for(NEXT, &database, second, source, &["1234"]).await.unwrap();
    attempt.insert(&database, &rows(&["1234"])).await.unwrap();
    let estimate = database.store.estimate_reembedding(&next_model()).await.unwrap();
    assert!(estimate.running);
    assert_eq!((estimate.recordings, estimate.recordings_to_do), (3, 2));
    assert_eq!((estimate.chunks, estimate.tokens), (1, 27_u64.div_ceil(4)));
}

#[tokio::test]
async fn a_cancelled_re_embedding_leaves_nothing_behind_and_search_as_it_was() {
    let database = re_embedding(3).await;
    let mut tasks = claim_next(&database, 3).await;
    let held = tasks.pop().unwrap();
    embed_next(&database, tasks, &["new a", "new b", "new c"]).await;
    let source = database.store.load(&held.key).await.unwrap();
    let building = Attempt::open_for(NEXT, &database, held, source, &["new"]).await.unwrap();
    building.insert(&database, &rows(&["new"])).await.unwrap();
    assert!(database.store.build_index(&next_model()).await.unwrap());
    assert_eq!(database.store.cancel_reembedding().await.unwrap().unwrap().model, next_model());
    assert_eq!(database.store.cancel_reembedding().await.unwrap(), None);
    assert_eq!(claim_next(&database, 3).await, []);
    database.store.drop_retired_indexes().await.unwrap();
    // In bounded batches: a set each, and at most a chunk.
    while database.store.delete_dead_chunks(1).await.unwrap() > 0 {
        assert_eq!(searchable(&database, 1).await, ["old a", "old b"]);
    }
    assert_eq!(building.insert(&database, &rows(&["new"])).await, Err(Failure::LeaseLost));
    assert_eq!(building.complete(&database).await, Err(Failure::LeaseLost));
    let left = "select (select count(*) from transcript_chunks where embedding_model = 'next-model')
        + (select count(*) from chunk_sets where model = 'next-model')
        + (select count(*) from embedding_queue where for_model = 'next-model' and status <> 'completed')
        + (select count(*) from pg_indexes where indexdef like '%next-model%')";
    assert_eq!(number(&database, left).await, 0);
    for recording in 1..=3 {
        assert_eq!(searchable(&database, recording).await, ["old a", "old b"]);
    }
    assert_sound(&database).await;
    assert!(!database.store.swap_models(NEXT, true).await.unwrap());
    assert_eq!(progress(&database).await.state, ModelState::Retired { replaced: false });
    // It may begin anew, and a service that asks for it meanwhile is refused.
    let refused = database.store.use_model(&next_model()).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("this database holds vectors of test-model"),
        "{refused}"
    );
    database.store.begin_reembedding(&next_model()).await.unwrap();
    assert_sound(&database).await;
    assert_eq!(database.store.reconcile(&next_model(), 10).await, Ok(3));
}
