//! kill -9 in the middle of a marathon, and its memory.

use tokio::process::Child;

use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::{end_of, run, signal};

/// Resident memory that the program may take while a recording of any length goes through.
const MEMORY_KIB_MAX: u64 = 200 * 1024;

/// Name of the turn that an embedded text or a stored chunk begins with.
fn turn_of(text: &str) -> Option<&str> {
    let from = text.find("call1turn")?;
    text[from..].split_whitespace().next()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_in_the_middle_of_the_longest_call_nothing_stored_is_bought_again() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(64);
    fake.on(|inputs| inputs.len() > 1, Reply::Delay(std::time::Duration::from_millis(100)));
    database.import(&[call(1, 1_500), call(2, 3)]).await;
    let patient = ["--lease-secs", "2", "--claim-batch", "2"];
    let child = serve(&database, &fake, &patient).spawn().unwrap();
    database
        .wait_until("select count(*) >= 256 from transcript_chunks where recording_id = 1")
        .await;
    signal(&child, "KILL").await;
    assert_eq!(end_of(child).await.code, None, "it was killed");
    // What the server still had from it is through once nothing of it runs.
    database
        .wait_until("select not exists (select from pg_stat_activity where application_name = 'embedding-recovery' and datname = current_database() and state = 'active')")
        .await;
    let stored: Vec<String> =
        sqlx::query_scalar("select chunk_text from transcript_chunks where recording_id = 1")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let bought_before = fake.bought();
    assert!(stored.len() < 1_500, "it was killed too late to show anything");

    let served =
        run(&mut serve(&database, &fake, &["--exit-when-idle", "--lease-secs", "2"])).await;
    assert_eq!(served.code, Some(0), "{}", served.stderr);
    let bought_after = &fake.bought()[bought_before.len()..];
    for chunk in &stored {
        let turn = turn_of(chunk).unwrap();
        let again = bought_after.iter().filter(|input| turn_of(input) == Some(turn)).count();
        assert_eq!(again, 0, "{turn} was stored and is bought again");
    }
    let wasted = fake.bought().iter().filter(|input| turn_of(input).is_some()).count() - 1_500;
    let in_flight_max = 2 * 128 + 1_024;
    assert!(wasted <= in_flight_max, "{wasted} chunks were bought twice");
    let attempts =
        "select status || attempts || crashes from embedding_queue where recording_id = 1";
    assert_eq!(database.value::<String>(attempts).await, "completed21");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_under_200_mb_while_5_000_chunks_go_through() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(1_536);
    database.import(&[call(1, 5_000)]).await;
    let mut child = serve(&database, &fake, &["--exit-when-idle"]).spawn().unwrap();
    // The index would only make it slower; memory is the matter here.
    database
        .wait_until("select exists (select from pg_indexes where indexdef like '%hnsw%')")
        .await;
    database.execute("do $$ begin execute (select format('drop index %I', indexname) from pg_indexes where indexdef like '%hnsw%'); end $$").await;
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_memory_kib(&child).unwrap_or(0));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let ended = end_of(child).await;
    assert_eq!(ended.stdout, "done: 1 completed, 0 dead letters, 0 open\n", "{}", ended.stderr);
    assert_eq!(database.value::<i64>("select count(*) from searchable_chunks").await, 5_000);
    println!("peak resident memory: {} MB", peak / 1024);
    assert!(peak > 0 && peak < MEMORY_KIB_MAX, "{} MB", peak / 1024);
}

/// The kernel's own high-water mark, where there is one.
pub(super) fn peak_memory_kib(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()?)).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
