//! A Prometheus that scrapes the running service under a mixed load: every expression of every
//! dashboard and rule returns data.

use std::process::Stdio;
use std::time::{Duration, Instant};

use embedding_recovery::ports::Store;
use tokio::process::Child;

use super::expressions::{self, selectors};
use super::rules;
use super::servers::{Prometheus, free_port};
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::call;
use crate::harness::program::{end_of, run, signal};
use crate::harness::{TestDatabase, eventually};

/// From the end of the load until everything shows: two looks of the service at its database.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
/// What rates reach over: the whole test.
const RANGE: &str = "5m";

/// A service that can be scraped.
pub(super) struct Watched {
    child: Child,
    address: String,
}

impl Watched {
    pub fn start(database: &TestDatabase, fake: &FakeOpenAi, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let retries = "50ms,50ms,50ms";
        let child = database
            .program(&["serve", "--retry-delays", retries, "--price-per-million-tokens", "0.02"])
            .args(more)
            .env("EMBEDDING_RECOVERY_PROBE_LISTEN", &address)
            .env("OPENAI_BASE_URL", fake.base_url())
            .env("OPENAI_API_KEY", "sk-test-key")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// Where it is scraped.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Stops it as Kubernetes does.
    pub async fn end(self) {
        signal(&self.child, "TERM").await;
        assert_eq!(end_of(self.child).await.code, Some(0));
    }
}

/// Waits until so many tasks are completed and so many dead.
async fn settled(database: &TestDatabase, completed: u64, dead: u64) {
    eventually(&format!("{completed} completed and {dead} dead"), async || {
        let counts = database.store.task_counts().await.unwrap();
        (counts.completed, counts.dead_letter, counts.open()) == (completed, dead, 0)
    })
    .await;
}

/// Whether Prometheus has seen such a series.
async fn seen(prometheus: &Prometheus, selector: &str) {
    eventually(selector, async || !prometheus.samples(selector).await.is_empty()).await;
}

/// Brings a dead letter back, and says whether that succeeded.
async fn recover(database: &TestDatabase, fake: &FakeOpenAi, recording_id: &str) -> bool {
    let mut command = database.program(&["recover", recording_id, "--force", "--wait"]);
    command.env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "sk-test-key");
    run(&mut command).await.code == Some(0)
}

/// Successes, a 429, what is retried and given up, what is refused, an edit, recoveries that fail and
/// one that does not, and inserts that run into their time-out. What happened once before the first
/// look at a series has no rate: some things happen twice, with a look between.
async fn mixed_load(database: &TestDatabase, fake: &FakeOpenAi, prometheus: &Prometheus) {
    let of = |turn: &'static str| {
        move |inputs: &[String]| inputs.iter().any(|input| input.contains(turn))
    };
    fake.on(of("call3turn2 "), Reply::error(400, "invalid_value", "Invalid input"));
    fake.on(of("call4turn1 "), Reply::error(500, "server_error", "The server had an error."));
    fake.script([Reply::RateLimited { retry_after: Duration::from_millis(100) }]);
    let calls: Vec<_> = (1..=8).map(|id| call(id, 6)).collect();
    database.import(&calls).await;
    settled(database, 6, 2).await;
    seen(prometheus, r#"embedding_recovery_attempts_total{outcome="completed"} >= 6"#).await;

    let edit = "update fathom_transcripts
        set edited_text = replace(text, 'call1turn2 ', 'call1turn2 edited ')
        where recording_id = 1 and text like '%call1turn2 %'";
    database.execute(edit).await;
    let edited = "select exists (select from searchable_chunks where chunk_text like '% edited %')";
    database.wait_until(edited).await;

    assert!(!recover(database, fake, "3").await, "it is still refused");
    seen(prometheus, r#"embedding_recovery_attempt_duration_seconds_count{part="recovery"}"#).await;
    assert!(!recover(database, fake, "3").await, "it is still refused");
    fake.recover();
    assert!(recover(database, fake, "4").await, "the provider is well again");

    // Inserts wait for the lock until they run into the time-out of their role.
    let mut locking = database.pool.begin().await.unwrap();
    let lock = "lock table transcript_chunks in share mode";
    sqlx::raw_sql(lock).execute(&mut *locking).await.unwrap();
    database.import(&[call(9, 6)]).await;
    let count = "embedding_recovery_insert_duration_seconds_count";
    seen(prometheus, &format!(r#"{count}{{error_type="statement_timeout"}}"#)).await;
    locking.rollback().await.unwrap();
    settled(database, 9, 1).await;
}

/// The questions that have no answer now.
async fn unanswered(prometheus: &Prometheus, questions: &[(String, String)]) -> Vec<String> {
    let mut unanswered = Vec::new();
    for (place, expression) in questions {
        if prometheus.samples(expression).await.is_empty() {
            unanswered.push(format!("{place}: {expression}"));
        }
    }
    unanswered
}

/// What must have an answer after the load: the expressions of the dashboards and recording rules as
/// they are, and what each alert looks at, since an alert that is silent has none. Left out is what the
/// collector makes of spans: it cannot be had here.
fn questions() -> Vec<(String, String)> {
    let mut questions = Vec::new();
    for expression in expressions::all() {
        let alert = rules::alerts().iter().any(|rule| rule.expression.place == expression.place);
        if expression.is_of_the_collector() {
            println!("not asked, no collector is here: {}", expression.place);
        } else if alert {
            let selectors = selectors(&expression.parsed());
            questions.extend(
                selectors.iter().map(|selector| (expression.place.clone(), selector.to_string())),
            );
        } else {
            questions.push((expression.place.clone(), expression.at_scrapes_of(RANGE)));
        }
    }
    questions
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_has_data_on_a_prometheus_that_scrapes_the_service_under_load() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(8));
    fake.script([Reply::with_limits()]);
    let url = database.url_of_role("set statement_timeout = '300ms'").await;
    let service = Watched::start(&database, &fake, &["--database-url", &url]);
    let Some(prometheus) = Prometheus::start(&[service.address()], None).await else { return };
    seen(&prometheus, "embedding_recovery_build_info").await;
    mixed_load(&database, &fake, &prometheus).await;

    let questions = questions();
    assert!(questions.len() > 80, "only {} questions", questions.len());
    let begun = Instant::now();
    let mut open = unanswered(&prometheus, &questions).await;
    while !open.is_empty() && begun.elapsed() < SHOWN_WITHIN {
        tokio::time::sleep(Duration::from_millis(500)).await;
        open = unanswered(&prometheus, &questions).await;
    }
    assert!(open.is_empty(), "no data after {SHOWN_WITHIN:?}:\n{}", open.join("\n"));
    assert_eq!(prometheus.sick_rules().await, [] as [String; 0]);

    // What is shown is what is there.
    let completed = "select count(*) from embedding_queue where status = 'completed'";
    let completed = database.value::<i64>(completed).await;
    let shown = r#"embedding_recovery:tasks:max{state="completed"}"#;
    seen(&prometheus, &format!("{shown} == {completed}")).await;
    service.end().await;
    database.assert_sound().await;
}
