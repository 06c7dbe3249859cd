//! The model: one for a database, refused where it differs, and its index.

use embedding_recovery::domain::index_build::IndexBuild;
use embedding_recovery::postgres::ModelError;
use futures::future::join_all;

use super::*;
use crate::harness::eventually;

fn of(name: &str, dimensions: u32) -> Model {
    Model { name: name.into(), dimensions }
}

#[tokio::test]
async fn another_model_or_dimension_is_refused_before_anything_is_written() {
    let database = TestDatabase::new().await;
    assert_eq!(database.store.stored_model().await.unwrap(), None);
    let first = of("it's a model", 8);
    assert!(database.store.use_model(&first).await.unwrap().indexed);
    assert!(database.store.use_model(&first).await.unwrap().indexed);
    let state = "select (select jsonb_agg(to_jsonb(m)) from embedding_models m)::text
        || (select jsonb_agg(indexdef order by indexname) from pg_indexes where schemaname = 'public')::text";
    let before = text(&database, state).await;
    for other in [of("another", 8), of("it's a model", 9)] {
        let refused = database.store.use_model(&other).await.unwrap_err();
        assert!(matches!(refused, ModelError::Changed { .. }), "{refused}");
        let stored = "this database holds vectors of it's a model with 8 dimensions";
        assert!(refused.to_string().starts_with(stored), "{refused}");
    }
    assert_eq!(text(&database, state).await, before);
    assert_eq!(database.store.stored_model().await.unwrap(), Some(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_processes_that_begin_with_different_models_one_wins() {
    let database = TestDatabase::new().await;
    for _ in 0..10 {
        let starting = (0..8).map(|process| {
            let store = database.store.clone();
            let model = of(["one", "two"][process % 2], 5_000);
            tokio::spawn(async move { (model.name.clone(), store.use_model(&model).await.is_ok()) })
        });
        let mut winners = Vec::new();
        for started in join_all(starting).await {
            let (name, accepted) = started.unwrap();
            winners.extend(accepted.then_some(name));
        }
        assert_eq!(winners.len(), 4);
        winners.dedup();
        assert_eq!(winners.len(), 1);
        assert_eq!(text(&database, "select name from embedding_models").await, winners[0]);
        database.execute("delete from embedding_models").await;
    }
}

const HNSW: &str = "select concat_ws(' ', i.indisvalid, am.amname, o.opcname, c.reloptions,
        pg_get_expr(i.indpred, i.indrelid), pg_get_indexdef(i.indexrelid, 1, true))
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am am on am.oid = c.relam
    join pg_opclass o on o.oid = i.indclass[0]
    where i.indrelid = 'transcript_chunks'::regclass and am.amname = 'hnsw'";

#[tokio::test]
async fn the_index_is_a_partial_hnsw_over_half_precision_for_the_models_chunks() {
    let database = TestDatabase::new().await;
    assert!(database.store.use_model(&of("it's", 8)).await.unwrap().indexed);
    assert_eq!(
        text(&database, HNSW).await,
        "t hnsw halfvec_cosine_ops {m=16,ef_construction=64} (embedding_model = 'it''s'::text) (embedding::halfvec(8))"
    );
    let count = format!("select count(*) from ({HNSW}) i");
    assert_eq!(number(&database, &count).await, 1);
}

#[tokio::test]
async fn a_model_with_too_many_dimensions_has_no_index() {
    let database = TestDatabase::new().await;
    assert!(!database.store.use_model(&of("large", 4_001)).await.unwrap().indexed);
    assert_eq!(number(&database, &format!("select count(*) from ({HNSW}) i")).await, 0);
}

#[tokio::test]
async fn an_invalid_index_left_by_a_failed_build_is_built_anew() {
    let database = TestDatabase::new().await;
    // A legacy chunk of another dimension makes the build fail half way.
    database
        .execute(
            "insert into transcript_chunks (user_id, recording_id, chunk_index, chunk_text, embedding, embedding_model)
             values ('alice', 1, 0, 'legacy', '[1,2,3]', 'model')",
        )
        .await;
    let failed = database.store.use_model(&of("model", 8)).await.unwrap_err();
    assert!(matches!(failed, ModelError::Database(_)), "{failed}");
    let valid = format!("select split_part(({HNSW}), ' ', 1)");
    assert_eq!(text(&database, &valid).await, "f", "the failed build leaves an index behind");
    database.execute("delete from transcript_chunks").await;
    assert!(database.store.use_model(&of("model", 8)).await.unwrap().indexed);
    assert_eq!(text(&database, &valid).await, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_little_shared_memory_for_several_workers_one_builds_the_index() {
    let database = TestDatabase::new().await;
    let model = of("model", 8);
    let mut load = database.store.begin_backlog_load().await.unwrap();
    let used = database.store.use_model(&model).await.unwrap();
    assert!(used.indexed && used.postponed);
    assert_eq!(number(&database, &format!("select count(*) from ({HNSW}) i")).await, 0);
    // More than any machine has, and workers even for an empty table.
    database.execute("alter table transcript_chunks set (parallel_workers = 2)").await;
    let build = IndexBuild { memory_mb: 1_000_000, workers: 2 };
    assert!(load.build_index(&model, build, &mut |_| {}).await.unwrap());
    assert_eq!(text(&database, &format!("select split_part(({HNSW}), ' ', 1)")).await, "t");
    load.end().await.unwrap();
    assert!(!database.store.use_model(&model).await.unwrap().postponed);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_build_the_index_once() {
    let database = TestDatabase::new().await;
    let starting = (0..5).map(|_| {
        let store = database.store.clone();
        tokio::spawn(async move { store.use_model(&of("model", 8)).await.unwrap() })
    });
    for started in join_all(starting).await {
        assert!(started.unwrap().indexed);
    }
    assert_eq!(number(&database, &format!("select count(*) from ({HNSW}) i")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_while_the_index_of_the_next_model_is_built() {
    let database = TestDatabase::new().await;
    let model = of("model", 8);
    let used = database.store.use_model(&model).await.unwrap();
    let mut building = database.pool.acquire().await.unwrap();
    // The session that built the first index may take a moment to end.
    eventually("the lock is free", async || {
        sqlx::query_scalar("select pg_try_advisory_lock(x'656d6272656376'::bigint)")
            .fetch_one(&mut *building)
            .await
            .unwrap()
    })
    .await;
    let again = database.store.use_model(&model);
    let again = crate::harness::within_deadline("the model is used", again).await.unwrap();
    assert_eq!(again, used);
}
