//! The domain's verdict as it is sent: for the API and the page the same.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::health::{Thresholds, judge};
use crate::ports::inspector::Overview;

/// How well the service is.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `healthy`, `warning` or `critical`: as bad as the worst finding.
    state: &'static str,
    /// The worst first; none where all is well.
    findings: Vec<HealthFinding>,
}

/// Something that is not as it should be.
#[derive(Serialize, ToSchema)]
struct HealthFinding {
    /// `warning` or `critical`.
    state: &'static str,
    /// What, in a sentence.
    what: String,
    /// What to do about it.
    action: String,
}

/// The verdict over what was seen.
pub(super) fn judged(overview: &Overview, thresholds: &Thresholds) -> Health {
    let verdict = judge(&overview.health_facts(), thresholds);
    let findings = verdict.findings.into_iter().map(|finding| HealthFinding {
        state: finding.state.as_str(),
        what: finding.what,
        action: finding.action,
    });
    Health { state: verdict.state.as_str(), findings: findings.collect() }
}
