//! How the database goes about a search of many chunks: by the index, and to the full limit.

use embedding_recovery::postgres::{SearchMode, SearchRequest};

use super::*;

/// The models' names hold what must be quoted.
const INDEXED: &str = "it's a model";
const DIMENSIONS: usize = 16;

/// 25,000 chunks of 250 recordings and three users. Those of `many` lie around the query's vector,
/// those of `some` (a tenth) and `few` (one recording) on the other side.
async fn large(model: &Model) -> TestDatabase {
    let database = TestDatabase::new().await;
    let name = model.name.replace('\'', "''");
    database
        .execute(&format!(
            "insert into embedding_models (name, dimensions) values ('{name}', {dimensions});
             insert into fathom_calls (user_id, recording_id)
             select case when n = 1 then 'few' when n <= 25 then 'some' else 'many' end, n from generate_series(1, 250) n;
             insert into chunk_sets (user_id, recording_id, model, fingerprint, source_digest, state, chunks_expected, completed_at)
             select user_id, recording_id, '{name}', 'f', 's', 'current', 100, now() from fathom_calls;
             select setseed(0.5);
             insert into transcript_chunks
                 (chunk_set_id, user_id, recording_id, embedding_model, chunk_index, chunk_text, content_hash, speakers, call_date, embedding)
             select s.id, s.user_id, s.recording_id, s.model, n, 'common word' || n, 'x', array['Speaker ' || n % 10],
                    timestamptz '2024-01-01Z' + n * interval '1 day',
                    (select array_agg(case when d = 1 then case s.user_id when 'many' then 1 else -1 end
                                           else random() - 0.5 + 0 * n end
                                      order by d) from generate_series(1, {dimensions}) d)::real[]::vector
             from chunk_sets s cross join generate_series(0, 99) n",
            dimensions = model.dimensions
        ))
        .await;
    // The index behind the rows: that is quicker.
    assert!(database.store.use_model(model).await.unwrap().indexed);
    database.execute("analyze").await;
    database
}

/// The vector that the chunks of `many` lie around.
fn request(dimensions: u32) -> SearchRequest {
    let mut vector = vec![0.0; dimensions as usize];
    vector[0] = 1.0;
    SearchRequest {
        text: "word7".into(),
        embedding: Some(vector),
        user_id: None,
        recording_id: None,
        since: None,
        speaker: None,
        limit: 100,
        mode: SearchMode::Vector,
    }
}

#[tokio::test]
async fn many_chunks_are_searched_by_the_indexes_and_every_filter_gets_its_full_limit() {
    let model = Model { name: INDEXED.into(), dimensions: DIMENSIONS as u32 };
    let database = large(&model).await;
    let all = request(model.dimensions);
    let user = |name: &str| SearchRequest { user_id: Some(name.into()), ..all.clone() };
    for (request, by_index) in [
        (all.clone(), Some(true)),
        (user("many"), Some(true)),
        // A tenth of all: before Postgres 18 the planner has them compared one by one, which is exact.
        (user("some"), None),
        (SearchRequest { speaker: Some("SPEAKER 7".into()), ..all.clone() }, Some(true)),
        (SearchRequest { since: "2024-03-01T00:00:00Z".parse().ok(), ..all.clone() }, Some(true)),
        // Few are quicker compared one by one.
        (user("few"), Some(false)),
        (SearchRequest { recording_id: Some(9), ..all.clone() }, Some(false)),
    ] {
        for mode in [SearchMode::Vector, SearchMode::Hybrid] {
            let request = SearchRequest { mode, ..request.clone() };
            let plan = database.store.explain_search(&request).await.unwrap();
            let index = plan.contains("Index Scan using transcript_chunks_hnsw_");
            assert_eq!(index, by_index.unwrap_or(index), "{request:?}\n{plan}");
            let hits = database.store.search(&request).await.unwrap();
            assert_eq!(hits.len(), 100, "{request:?}\n{plan}");
        }
    }
    words_go_through_their_index(&database).await;
    let waiting = waiting_pages(&database).await;
    assert!(waiting <= WAITING_PAGES_MAX, "words wait in {waiting} pages");
}

/// Pages of 8 KB that the words of the last chunks may wait in for their place in the index (migration
/// 0016), and one that is begun: each search reads them for each of its words.
const WAITING_PAGES_MAX: i64 = 256 / 8 + 1;

async fn waiting_pages(database: &TestDatabase) -> i64 {
    database.execute("create extension pgstattuple").await;
    database
        .value("select pending_pages::bigint from pgstatginindex('transcript_chunks_search_idx')")
        .await
}

#[tokio::test]
async fn a_chunk_is_found_by_its_words_while_they_wait_for_their_place_in_the_index() {
    let database = database().await;
    import_and_embed(&database, 1, &["the oxygen tank", "the budget"]).await;
    let words = SearchRequest {
        text: "tanks".into(),
        embedding: None,
        mode: SearchMode::Text,
        ..request(DIMENSIONS as u32)
    };
    assert_eq!(database.store.search(&words).await.unwrap().len(), 1);
    assert_eq!(waiting_pages(&database).await, 1);
}

/// Words have an index of their own; one that every chunk has says nothing, where another does.
async fn words_go_through_their_index(database: &TestDatabase) {
    let words = |text: &str| {
        let text = text.into();
        SearchRequest { text, mode: SearchMode::Text, ..request(DIMENSIONS as u32) }
    };
    let plan = database.store.explain_search(&words("common word7")).await.unwrap();
    assert!(plan.contains("Bitmap Index Scan on transcript_chunks_search_idx"), "{plan}");
    let hits = database.store.search(&words("common word7")).await.unwrap();
    assert!(hits.iter().all(|hit| hit.chunk_index == 7), "{hits:?}");
    assert_eq!(database.store.search(&words("common")).await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_model_with_too_many_dimensions_for_an_index_is_searched_without() {
    let model = Model { name: "wide".into(), dimensions: 4_001 };
    let database = TestDatabase::new().await;
    assert!(!database.store.use_model(&model).await.unwrap().indexed);
    database
        .execute(
            "insert into fathom_calls (user_id, recording_id) values ('ann', 1);
             insert into chunk_sets (user_id, recording_id, model, fingerprint, source_digest, state, chunks_expected, completed_at)
             values ('ann', 1, 'wide', 'f', 's', 'current', 2, now());
             insert into transcript_chunks
                 (chunk_set_id, user_id, recording_id, embedding_model, chunk_index, chunk_text, content_hash, embedding)
             select id, 'ann', 1, 'wide', n, 'chunk ' || n, 'x', (array_fill(n * 2 - 1, array[1]) || array_fill(0, array[4000]))::real[]::vector
             from chunk_sets, generate_series(0, 1) n",
        )
        .await;
    let hits = database.store.search(&request(4_001)).await.unwrap();
    let found: Vec<i32> = hits.iter().map(|hit| hit.chunk_index).collect();
    assert_eq!(found, [1, 0]);
}
