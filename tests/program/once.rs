//! What is scheduled happens once, whoever does it: three real processes at ticks of a second.

use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::{end_of, run, signal};

const REPLICAS: usize = 3;
/// Ticks of each schedule that the test sees.
const TICKS: &str =
    "select count(*) = 3 from (select from ticks group by name having count(*) >= 5) n";

/// Keeps every tick that somebody took, and every bucket of history that somebody wrote.
const WITNESSES: &str = "
    create table ticks (name text, tick timestamptz);
    create function note_tick() returns trigger language plpgsql as $$
    begin
        if new.last_tick is not null then
            insert into ticks values (new.name, new.last_tick);
        end if;
        return null;
    end $$;
    create trigger ticks after insert or update of last_tick on schedules for each row execute function note_tick();
    create table buckets (begins_at timestamptz);
    create function note_bucket() returns trigger language plpgsql as $$
    begin
        insert into buckets values (new.begins_at);
        return null;
    end $$;
    create trigger buckets after insert or update on history for each row execute function note_bucket()";

/// A database with a backlog for each schedule: 1 and 2 are dead letters, whose provider is well again;
/// 3 to 24 are complete since a while. Nobody is told of what comes now.
async fn backlog() -> (TestDatabase, FakeOpenAi) {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let sick = |inputs: &[String]| inputs.iter().any(|text| text.contains("turn4 "));
    fake.on(sick, Reply::error(500, "server_error", "The server had an error."));
    let dead: Vec<_> = (1..=2).map(|id| call(id, 5)).collect();
    database.import(&dead).await;
    database.execute("update embedding_queue set max_attempts = 1").await;
    database.import(&(3..=24).map(|id| call(id, 2)).collect::<Vec<_>>()).await;
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.stdout, "done: 22 completed, 2 dead letters, 0 open\n", "{served:?}");
    fake.recover();
    // Three buckets of history that are over.
    database
        .execute(
            "update embedding_attempts set started_at = started_at - ago, ended_at = ended_at - ago
             from (select interval '10 minutes' * (1 + recording_id % 3) as ago, id as of from embedding_attempts) a
             where of = id;
             alter table fathom_calls disable trigger user;
             alter table fathom_transcripts disable trigger user",
        )
        .await;
    (database, fake)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_take_each_tick_once_and_do_its_work_once() {
    let (database, fake) = backlog().await;
    database.execute(WITNESSES).await;
    let every_second = ["--schedule", "* * * * * *", "--recovery-schedule", "* * * * * *"];
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(serve(&database, &fake, &every_second).spawn().unwrap());
    }
    database.wait_until("select count(*) = 3 from workers").await;
    let mut unseen = database.store.import(false);
    for id in 25..=36 {
        unseen.store(&call(id, 2)).await.unwrap();
    }
    database
        .wait_until("select count(*) = 36 from embedding_queue where status = 'completed'")
        .await;
    database.wait_until(TICKS).await;
    for replica in replicas {
        signal(&replica, "TERM").await;
        let ended = end_of(replica).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    for (what, wrong) in [
        (
            "a tick was taken twice",
            "select count(*) from (select from ticks group by name, tick having count(*) > 1) t",
        ),
        (
            "a bucket of history was written twice",
            "select count(*) from (select from buckets group by begins_at having count(*) > 1) b",
        ),
        (
            "a dead letter was not recovered once",
            "select abs(count(*) - 2) from embedding_attempts where part = 'recovery'",
        ),
        (
            "a recording was not found once",
            "select abs(coalesce(sum(taken), 0) - 12)::bigint from runs where part = 'main'",
        ),
        ("a run is left open", "select count(*) from runs where ended_at is null"),
        ("a recording has several tasks", "select count(*) - 36 from embedding_queue"),
    ] {
        assert_eq!(database.value::<i64>(wrong).await, 0, "{what}");
    }
    assert!(
        database.value::<i64>("select count(*) from buckets").await >= 2,
        "no history was kept"
    );
    database.assert_sound().await;
}
