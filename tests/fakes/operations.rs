//! The two ports of an operator over plain state: what is seen is what the test put there, and each
//! action is written down with who asked.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use chrono::{DateTime, Duration, Utc};
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::domain::trace::Traceparent;
use embedding_recovery::ports::inspector::*;
use embedding_recovery::ports::operator::*;
use uuid::Uuid;

/// A queue that an operator looks at and acts on.
#[derive(Clone, Default)]
pub struct FakeOperations(Arc<Mutex<State>>);

/// What is seen, and what was asked for.
#[derive(Default)]
pub struct State {
    pub overview: Option<Overview>,
    pub dead_letters: DeadLetters,
    pub explanations: Vec<Explanation>,
    pub jobs: Vec<Job>,
    pub runs: Vec<Run>,
    pub history: Vec<Bucket>,
    pub actions: Vec<(Uuid, ActionState)>,
    /// Each call of the inspector fails with this.
    pub failure: Option<Failure>,
    /// The overview is never answered.
    pub hangs: bool,
    /// Each action is refused with this.
    pub refusal: Option<Refusal>,
    /// Each action, as `what argument by whom`.
    pub asked: Vec<String>,
    /// Queries of dead letters.
    pub queries: Vec<DeadLetterQuery>,
    /// How often the overview was looked at.
    pub looks: u32,
}

/// A time that every fake row counts from.
pub fn noon() -> DateTime<Utc> {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

impl FakeOperations {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn look<T>(&self, read: impl FnOnce(&mut State) -> T) -> Result<T, Failure> {
        let mut state = self.state();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(read(&mut state)),
        }
    }

    fn act(&self, what: String) -> Result<Uuid, Refusal> {
        let mut state = self.state();
        match &state.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => {
                state.asked.push(what);
                Ok(Uuid::from_u128(state.asked.len() as u128))
            }
        }
    }
}

/// Nothing but times and zeros.
pub fn quiet() -> Overview {
    Overview {
        at: Utc::now(),
        tasks: Default::default(),
        retry_ready: 0,
        oldest_waiting_secs: None,
        dead_letters_permanent: 0,
        next_recovery_at: None,
        chunks_last_hour: 0,
        completed_last_hour: 0,
        last_completed_at: None,
        drain_per_minute: 0.0,
        empty_in_secs: None,
        first_pass: SuccessRate::default(),
        recovery: SuccessRate::default(),
        workers: Vec::new(),
        in_flight: Vec::new(),
        pauses: Vec::new(),
        schedules: Vec::new(),
    }
}

/// A dead letter that is tried again in an hour.
pub fn dead_letter(recording_id: i64, title: &str) -> DeadLetter {
    DeadLetter {
        user_id: "ada".into(),
        recording_id,
        title: Some(title.into()),
        segment_count: 812,
        last_error: "a statement ran into statement_timeout".into(),
        fingerprint: "statement_timeout: a statement ran into statement_timeout".into(),
        attempts: 4,
        recoveries: 1,
        permanent: false,
        next_attempt_at: Some(Utc::now() + Duration::minutes(42)),
        last_attempt_at: Some(Utc::now() - Duration::minutes(18)),
        chunks_stored: 62,
        chunks: 190,
    }
}

#[async_trait]
impl Inspector for FakeOperations {
    async fn overview(&self) -> Result<Overview, Failure> {
        if self.state().hangs {
            std::future::pending().await
        }
        self.look(|state| {
            state.looks += 1;
            state.overview.clone().unwrap_or_else(quiet)
        })
    }

    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<DeadLetters, Failure> {
        self.look(|state| {
            state.queries.push(query.clone());
            let fits = |row: &&DeadLetter| {
                query.fingerprint.as_ref().is_none_or(|wanted| *wanted == row.fingerprint)
            };
            let DeadLetters { total, groups, rows } = &state.dead_letters;
            let rows = rows.iter().filter(fits).skip(query.offset as usize);
            let rows = rows.take(query.limit as usize).cloned().collect();
            DeadLetters { total: *total, groups: groups.clone(), rows }
        })
    }

    async fn find(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
    ) -> Result<Vec<RecordingKey>, Failure> {
        self.look(|state| {
            let fits = |told: &&Explanation| {
                told.recording_id == recording_id
                    && user_id.is_none_or(|user_id| user_id == told.user_id)
            };
            let key = |told: &Explanation| RecordingKey {
                user_id: told.user_id.clone(),
                recording_id: told.recording_id,
            };
            state.explanations.iter().filter(fits).map(key).collect()
        })
    }

    async fn explain(&self, key: &RecordingKey) -> Result<Option<Explanation>, Failure> {
        self.look(|state| {
            let fits = |told: &&Explanation| {
                (&told.user_id, told.recording_id) == (&key.user_id, key.recording_id)
            };
            state.explanations.iter().find(fits).cloned()
        })
    }

    async fn action(&self, action_id: Uuid) -> Result<Option<ActionState>, Failure> {
        let fits = |(id, _): &&(Uuid, ActionState)| *id == action_id;
        self.look(|state| state.actions.iter().find(fits).map(|(_, action)| action.clone()))
    }

    async fn jobs(&self, limit: u32) -> Result<Vec<Job>, Failure> {
        self.look(|state| state.jobs.iter().take(limit as usize).cloned().collect())
    }

    async fn runs(&self, failed_only: bool, limit: u32) -> Result<Vec<Run>, Failure> {
        self.look(|state| {
            let fits = |run: &&Run| !failed_only || run.failed > 0;
            state.runs.iter().filter(fits).take(limit as usize).cloned().collect()
        })
    }

    async fn history(&self, _hours: u32) -> Result<Vec<Bucket>, Failure> {
        self.look(|state| state.history.clone())
    }
}

#[async_trait]
impl Operator for FakeOperations {
    async fn recover(&self, request: RecoverRecording) -> Result<Recovering, Refusal> {
        let RecoverRecording { recording_id, user_id, force, requested_by, trace } = request;
        let user_id = user_id.unwrap_or_else(|| "-".into());
        let force = if force { " with force" } else { "" };
        let action_id = self.act(format!(
            "recover {recording_id} of {user_id}{force} by {requested_by}{}",
            within(trace)
        ))?;
        Ok(Recovering {
            action_id,
            user_id,
            recording_id,
            found: "dead letter, 4 attempts".into(),
            done: "queued for recovery".into(),
            follow: format!("embedding-recovery explain {recording_id}"),
        })
    }

    async fn recover_many(&self, request: RecoverMany) -> Result<RecoveringMany, Refusal> {
        let RecoverMany { fingerprint, force, requested_by, trace } = request;
        let which = fingerprint.unwrap_or_else(|| "all".into());
        let force = if force { " with force" } else { "" };
        let action_id =
            self.act(format!("recover {which}{force} by {requested_by}{}", within(trace)))?;
        Ok(RecoveringMany { action_id, requested: 3, left_alone: 1 })
    }

    async fn run(&self, part: Part, requested_by: &str) -> Result<Uuid, Refusal> {
        self.act(format!("run {} by {requested_by}", part.as_str()))
    }

    async fn pause(&self, part: Part, requested_by: &str) -> Result<(), Refusal> {
        self.act(format!("pause {} by {requested_by}", part.as_str())).map(drop)
    }

    async fn resume(&self, part: Part, requested_by: &str) -> Result<(), Refusal> {
        self.act(format!("resume {} by {requested_by}", part.as_str())).map(drop)
    }

    async fn discard(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
        reason: &str,
        requested_by: &str,
    ) -> Result<Uuid, Refusal> {
        let user_id = user_id.unwrap_or("-");
        self.act(format!("discard {recording_id} of {user_id} since {reason} by {requested_by}"))
    }
}

fn within(trace: Option<Traceparent>) -> String {
    trace.map(|trace| format!(" within {}", trace.trace_id())).unwrap_or_default()
}
