//! Each thing that can be amiss: when it is, how bad that is, and what to do.

use super::{HealthFacts, HealthFinding, HealthState, Thresholds};
use crate::domain::span::told;

/// What is amiss.
pub(super) fn all(facts: &HealthFacts, thresholds: &Thresholds) -> Vec<HealthFinding> {
    let mut findings = Vec::new();
    findings.extend(nobody_works(facts));
    findings.extend(provider(facts));
    findings.extend(database(facts));
    findings.extend(idle(facts, thresholds));
    findings.extend(dead_letters(facts, thresholds));
    findings.extend(wait_for_a_person(facts));
    findings.extend(retry_queue(facts, thresholds));
    findings.extend(pauses(facts));
    findings
}

fn nobody_works(facts: &HealthFacts) -> Option<HealthFinding> {
    (facts.workers == 0 && facts.ready > 0).then(|| HealthFinding {
        state: HealthState::Critical,
        what: format!("no worker is alive and {} wait", tasks(facts.ready)),
        action:
            "start one with `embedding-recovery serve`; where it ends at once, its log says why"
                .into(),
    })
}

/// Where others still work, it is a warning.
fn provider(facts: &HealthFacts) -> Vec<HealthFinding> {
    let all = facts.provider_troubles.len() as u64 >= facts.workers;
    let state = if all { HealthState::Critical } else { HealthState::Warning };
    let finding = |trouble: &super::ProviderTrouble| HealthFinding {
        state,
        what: format!(
            "the worker on {} claims nothing: {}; it asks the provider again in {}",
            trouble.host,
            trouble.message,
            told(trouble.asked_in)
        ),
        action: "`embedding-recovery doctor` tries the key, the model and the address; a quota or \
                 an outage is mended at the provider. No attempt is used meanwhile"
            .into(),
    };
    facts.provider_troubles.iter().map(finding).collect()
}

fn database(facts: &HealthFacts) -> Vec<HealthFinding> {
    let finding = |trouble: &super::DatabaseTrouble| HealthFinding {
        state: HealthState::Critical,
        what: format!("the worker on {} waits: {}", trouble.host, trouble.message),
        action: "grant its role that right, on every table of the schema if in doubt; it goes on \
                 within seconds, and no attempt is used meanwhile"
            .into(),
    };
    facts.database_troubles.iter().map(finding).collect()
}

fn idle(facts: &HealthFacts, thresholds: &Thresholds) -> Option<HealthFinding> {
    let oldest = facts.oldest_unfinished?;
    let idle = facts.since_completion.map_or(oldest, |since| since.min(oldest));
    let state = thresholds.idle.state(&idle);
    (state > HealthState::Healthy).then(|| HealthFinding {
        state,
        what: format!("nothing was completed for {} although there is work", told(idle)),
        action: "read the workers' lines in `embedding-recovery monitor`, then \
                 `embedding-recovery explain ID` of the recording that is longest in flight"
            .into(),
    })
}

fn dead_letters(facts: &HealthFacts, thresholds: &Thresholds) -> Option<HealthFinding> {
    let state = thresholds.dead_letters.state(&facts.dead_letters);
    (state > HealthState::Healthy).then(|| HealthFinding {
        state,
        what: counted(facts.dead_letters, "dead letter", "dead letters"),
        action: "mend the cause of the largest group, then `embedding-recovery recover --matching \
                 FINGERPRINT`"
            .into(),
    })
}

fn wait_for_a_person(facts: &HealthFacts) -> Option<HealthFinding> {
    let waiting = facts.dead_letters_permanent;
    let wait = if waiting == 1 { "waits" } else { "wait" };
    (waiting > 0).then(|| HealthFinding {
        state: HealthState::Warning,
        what: format!("{} {wait} for a person", counted(waiting, "dead letter", "dead letters")),
        action: "`embedding-recovery explain ID` says why; mend it and `recover ID --force`, or \
                 `discard ID`"
            .into(),
    })
}

fn retry_queue(facts: &HealthFacts, thresholds: &Thresholds) -> Option<HealthFinding> {
    let state = thresholds.retry_queue.state(&facts.retry_queue);
    (state > HealthState::Healthy).then(|| HealthFinding {
        state,
        what: format!("{} wait for a retry", tasks(facts.retry_queue)),
        action: "`embedding-recovery explain ID` of one of them has what went wrong; after a \
                 statement time-out, raise `statement_timeout` of the role"
            .into(),
    })
}

fn pauses(facts: &HealthFacts) -> Vec<HealthFinding> {
    let finding = |pause: &super::PausedPart| HealthFinding {
        state: HealthState::Warning,
        what: format!("{} is paused for {} by {}", pause.part, told(pause.paused_for), pause.by),
        action: format!("`embedding-recovery resume {}`", pause.part),
    };
    facts.pauses.iter().map(finding).collect()
}

fn tasks(count: u64) -> String {
    counted(count, "task", "tasks")
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
