//! Jobs: which recordings they take, what they join, and what they count.

use embedding_recovery::postgres::{JobRequest, JobSummary, Selection};

use super::*;

async fn enqueue(database: &TestDatabase, selection: Selection, user: Option<&str>) -> JobSummary {
    enqueue_with(database, selection, user, 0).await
}

async fn enqueue_with(
    database: &TestDatabase,
    selection: Selection,
    user: Option<&str>,
    priority: i32,
) -> JobSummary {
    let request = JobRequest { selection, user_id: user.map(str::to_owned), priority };
    database.store.enqueue(&request).await.unwrap()
}

async fn tasks_of(database: &TestDatabase, job: &JobSummary) -> String {
    let query = format!(
        "select coalesce(string_agg(concat(q.user_id, q.recording_id), ' ' order by q.user_id, q.recording_id), '')
         from job_tasks j join embedding_queue q on q.id = j.task_id where j.job_id = '{}'",
        job.job_id
    );
    text(database, &query).await
}

#[tokio::test]
async fn a_job_takes_the_recordings_it_names_and_those_that_exist() {
    let database = database().await;
    plain_calls(&database, "alice", 3).await;
    plain_calls(&database, "bob", 3).await;
    let keys = vec![key(2), user_key("bob", 3), key(2), key(77)];
    let job = enqueue(&database, Selection::Recordings(keys), None).await;
    assert_eq!(job.tasks, 2);
    assert_eq!(tasks_of(&database, &job).await, "alice2 bob3");
}

#[tokio::test]
async fn missing_takes_what_has_a_transcript_and_no_current_set() {
    let database = database().await;
    import_and_embed(&database, 1, &["one"]).await;
    plain_calls(&database, "bob", 2).await;
    database.execute("insert into fathom_calls (user_id, recording_id) values ('bob', 3)").await;
    let job = enqueue(&database, Selection::Missing, None).await;
    assert_eq!(tasks_of(&database, &job).await, "bob1 bob2");
    let all = enqueue(&database, Selection::All, None).await;
    assert_eq!(tasks_of(&database, &all).await, "alice1 bob1 bob2");
    let bobs = enqueue(&database, Selection::All, Some("bob")).await;
    assert_eq!((bobs.tasks, tasks_of(&database, &bobs).await.as_str()), (2, "bob1 bob2"));
    let alices = enqueue(&database, Selection::Missing, Some("alice")).await;
    assert_eq!(alices.tasks, 0);
}

#[tokio::test]
async fn all_goes_beyond_one_page_and_leaves_none_out() {
    let database = database().await;
    plain_calls(&database, "alice", 1_500).await;
    plain_calls(&database, "bob", 1_000).await;
    let job = enqueue(&database, Selection::All, None).await;
    assert_eq!(job.tasks, 2_500);
    let again = enqueue(&database, Selection::Missing, None).await;
    assert_eq!(again.tasks, 2_500, "a second job joins them");
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 2_500);
}

#[tokio::test]
async fn a_job_joins_an_open_task_and_the_greater_priority_wins() {
    let database = database().await;
    plain_calls(&database, "alice", 1).await;
    let one = || Selection::Recordings(vec![key(1)]);
    let first = enqueue_with(&database, one(), None, 5).await;
    let second = enqueue_with(&database, one(), None, 3).await;
    let priority = "select priority::text from embedding_queue";
    assert_eq!(text(&database, priority).await, "5");
    enqueue_with(&database, one(), None, 8).await;
    assert_eq!(text(&database, priority).await, "8");
    let rank = "select (claim_rank + floor(extract(epoch from created_at) / 3600))::text from embedding_queue";
    assert_eq!(text(&database, rank).await, "8", "the claim order follows");
    for job in [first, second] {
        assert_eq!(tasks_of(&database, &job).await, "alice1");
    }
}

#[tokio::test]
async fn asking_by_name_revives_a_dead_letter_and_asking_for_all_does_not() {
    let database = database().await;
    database.import(&[call(1, &["one"])]).await;
    bury(&database, &claim_one(&database).await).await;
    let before = everything(&database).await;
    for selection in [Selection::All, Selection::Missing] {
        let job = enqueue(&database, selection, None).await;
        assert_eq!(job.tasks, 1, "it is counted with the job");
    }
    assert_eq!(everything(&database).await, before);
    enqueue(&database, Selection::Recordings(vec![key(1)]), None).await;
    let columns = "select concat_ws(' ', status, attempts, dead_letter_permanent, dead_letter_reason) from embedding_queue";
    assert_eq!(text(&database, columns).await, "pending 0 f");
}

#[tokio::test]
async fn a_task_waiting_for_its_retry_keeps_waiting_when_a_job_joins_it() {
    let database = database().await;
    database.import(&[call(1, &["one"])]).await;
    let task = claim_one(&database).await;
    let retry = Settlement::Retry { after: Duration::from_secs(3_600) };
    assert!(database.store.settle(&task.lease, &Failure::Panicked, &retry).await.unwrap());
    enqueue(&database, Selection::Recordings(vec![key(1)]), None).await;
    let columns = "select concat_ws(' ', status, attempts, dirty, next_retry_at > now()) from embedding_queue";
    assert_eq!(text(&database, columns).await, "failed 1 f t");
}

#[tokio::test]
async fn a_jobs_progress_counts_its_tasks_by_their_end() {
    let database = database().await;
    database.import(&[call(1, &["one"])]).await;
    bury(&database, &claim_one(&database).await).await;
    import_and_embed(&database, 2, &["one"]).await;
    plain_calls(&database, "bob", 1).await;
    let job = enqueue(&database, Selection::All, None).await;
    let progress = format!(
        "select concat_ws(' ', requested_by, tasks, completed, dead_letter) from embedding_job_progress where job_id = '{}'",
        job.job_id
    );
    assert_eq!(text(&database, &progress).await, "enqueue 3 0 1");
    for task in claim(&database, ClaimOf::Healthy(9)).await {
        let texts: &[&str] = if task.key.user_id == "bob" { &["words"] } else { &["one"] };
        let attempt = Attempt::begin(&database, task, texts).await.unwrap();
        if !attempt.set.current {
            attempt.insert(&database, &rows(texts)).await.unwrap();
        }
        assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    }
    assert_eq!(text(&database, &progress).await, "enqueue 3 2 1");
    let empty = enqueue(&database, Selection::Recordings(vec![key(99)]), None).await;
    let counts =
        format!("select tasks from embedding_job_progress where job_id = '{}'", empty.job_id);
    assert_eq!(number(&database, &counts).await, 0);
}

#[tokio::test]
async fn a_task_names_the_last_job_that_asked_for_it() {
    let database = database().await;
    plain_calls(&database, "alice", 1).await;
    enqueue(&database, Selection::All, None).await;
    let last = enqueue(&database, Selection::Recordings(vec![key(1)]), None).await;
    let named = text(&database, "select job_id::text from embedding_queue").await;
    assert_eq!(named, last.job_id.to_string());
}
