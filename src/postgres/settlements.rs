//! Settlements of `embedding_queue`: what becomes of a task after an attempt that did not complete it,
//! each one statement under the lease.

use super::connection::Pool;
use crate::domain::failure::Failure;
use crate::domain::task::{Lease, Settlement, TaskState};

/// A settlement in the words of the statement that writes it.
struct Change {
    state: TaskState,
    outcome: &'static str,
    /// Until the task is tried again; `None` for no time of its own.
    after_secs: Option<f64>,
    /// The attempt is given back.
    uncounted: bool,
    counted_release: bool,
    counted_recovery: bool,
    permanent: bool,
    /// What was known of the task before stays: its reason, its class, whether a person must look.
    keeps_reason: bool,
}

impl Change {
    fn of(settlement: &Settlement) -> Self {
        let dead = Change {
            state: TaskState::DeadLetter,
            outcome: "dead_letter",
            after_secs: None,
            uncounted: false,
            counted_release: false,
            counted_recovery: false,
            permanent: false,
            keeps_reason: false,
        };
        match settlement {
            Settlement::Retry { after } => {
                let after_secs = Some(after.as_secs_f64());
                Change { state: TaskState::Failed, outcome: "retry", after_secs, ..dead }
            }
            Settlement::DeadLetter { permanent: true } => Change { permanent: true, ..dead },
            Settlement::DeadLetter { permanent: false } => Change { after_secs: Some(0.0), ..dead },
            Settlement::RecoverAgain { after } => {
                Change { after_secs: Some(after.as_secs_f64()), counted_recovery: true, ..dead }
            }
            Settlement::Postpone { after, counted } => Change {
                outcome: "released",
                after_secs: Some(after.as_secs_f64()),
                counted_release: *counted,
                keeps_reason: true,
                ..dead
            },
            Settlement::Release { counted } => Change {
                state: TaskState::Pending,
                outcome: "released",
                uncounted: true,
                counted_release: *counted,
                ..dead
            },
        }
    }
}

/// Writes a settlement and closes the attempt. The token is the key: it is gone once settled, so
/// the same settlement sent twice changes nothing. A task asked for anew while its last attempt
/// failed for good begins afresh. A request for a recovery ends with a recovery that was not only
/// interrupted.
pub(super) async fn settle(
    pool: &Pool,
    lease: &Lease,
    failure: &Failure,
    settlement: &Settlement,
) -> Result<bool, Failure> {
    let expired = *failure == Failure::LeaseExpired;
    let change = Change::of(settlement);
    let settled = sqlx::query_scalar!(
        r#"with task as (
               update embedding_queue set
                   status = case when $15 and recovered_from <> 'dead_letter' then recovered_from
                                 when dirty and $4 = 'dead_letter' then 'pending' else $4 end,
                   attempts = case when dirty and $4 = 'dead_letter' then 0
                                   else attempts - case when $6 then 1 else 0 end end,
                   releases = releases + case when $7 then 1 else 0 end,
                   crashes = crashes + case when $8 then 1 else 0 end,
                   crashes_alone = crashes_alone + case when $8 and claimed_alone then 1 else 0 end,
                   recoveries = case when dirty and $4 = 'dead_letter' then 0
                                     else recoveries + case when $14 then 1 else 0 end end,
                   next_retry_at = case when $15 and recovered_from <> 'dead_letter'
                                            then clock_timestamp() + make_interval(secs => $5)
                                        when (dirty and $4 = 'dead_letter') or ($15 and dead_letter_permanent) then null
                                        else clock_timestamp() + make_interval(secs => $5) end,
                   last_error = case when $15 then coalesce(last_error, $9) else $9 end,
                   failure_class = case when $15 then coalesce(failure_class, $10) else $10 end,
                   failure_fingerprint = case when $15 then coalesce(failure_fingerprint, $11) else $11 end,
                   dead_letter_reason = case when $4 = 'dead_letter' and not dirty
                                              and not ($15 and coalesce(recovered_from, $4) <> 'dead_letter')
                                             then case when $15 then coalesce(last_error, $9) else $9 end end,
                   dead_letter_permanent = ($12 or ($15 and dead_letter_permanent)) and not dirty,
                   recovery_requested = case when part = 'main' or $15 then recovery_requested end,
                   recovered_from = null, dirty = false, lease_token = null, lease_expires_at = null,
                   locked_at = null, worker_id = null
               where id = $1 and lease_token = $2 and status = 'processing'
                 and (not $8 or lease_expires_at < clock_timestamp())
               returning id
           ), attempt as (
               update embedding_attempts
               set outcome = $13, ended_at = clock_timestamp(), failure_class = $10, message = $9
               where id = $3 and outcome is null and exists (select from task)
           )
           select count(*) as "settled!" from task"#,
        lease.task_id,
        lease.token,
        lease.attempt_id,
        change.state.as_str(),
        change.after_secs,
        change.uncounted,
        change.counted_release,
        expired,
        failure.to_string(),
        failure.class(),
        failure.fingerprint(),
        change.permanent,
        change.outcome,
        change.counted_recovery,
        change.keeps_reason,
    )
    .fetch_one(pool)
    .await?;
    Ok(settled == 1)
}
