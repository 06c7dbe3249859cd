//! The state of the service, read for the monitor, the API and the page. No statement here scans
//! completed tasks or dead chunk sets, however many there are.

mod dead_letters;
mod explain;
mod history;
mod in_flight;
mod overview;
mod records;

use async_trait::async_trait;
use uuid::Uuid;

use super::{PgStore, admin_actions};
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::ports::inspector::{
    ActionState, Bucket, DeadLetterQuery, DeadLetters, Explanation, Inspector, Job, Overview, Run,
};
use crate::ports::operator::Part;

pub(super) use dead_letters::UNKNOWN;
pub(super) use history::roll_up;

#[async_trait]
impl Inspector for PgStore {
    async fn overview(&self) -> Result<Overview, Failure> {
        overview::overview(&self.pool).await
    }

    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<DeadLetters, Failure> {
        dead_letters::dead_letters(&self.pool, query).await
    }

    async fn find(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
    ) -> Result<Vec<RecordingKey>, Failure> {
        explain::find(&self.pool, recording_id, user_id).await
    }

    async fn explain(&self, key: &RecordingKey) -> Result<Option<Explanation>, Failure> {
        explain::explain(&self.pool, key).await
    }

    async fn action(&self, action_id: Uuid) -> Result<Option<ActionState>, Failure> {
        admin_actions::state(&self.pool, action_id).await
    }

    async fn jobs(&self, limit: u32) -> Result<Vec<Job>, Failure> {
        records::jobs(&self.pool, limit).await
    }

    async fn runs(&self, failed_only: bool, limit: u32) -> Result<Vec<Run>, Failure> {
        records::runs(&self.pool, failed_only, limit).await
    }

    async fn history(&self, hours: u32) -> Result<Vec<Bucket>, Failure> {
        history::history(&self.pool, hours).await
    }
}

/// The part that a stored word means; a word of a later program counts as the main one.
fn part(stored: &str) -> Part {
    match stored == Part::Recovery.as_str() {
        true => Part::Recovery,
        false => Part::Main,
    }
}
