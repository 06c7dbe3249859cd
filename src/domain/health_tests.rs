//! The verdict at each threshold, and what holds for any facts.

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Something to do, somebody who does it, and nothing amiss.
fn well() -> HealthFacts {
    HealthFacts {
        ready: 5,
        since_completion: Some(Duration::from_secs(10)),
        oldest_unfinished: Some(10 * HOUR),
        workers: 1,
        ..HealthFacts::default()
    }
}

fn state(facts: &HealthFacts) -> HealthState {
    let health = judge(facts, &Thresholds::default());
    assert_eq!(health.findings.is_empty(), health.state == HealthState::Healthy, "{health:?}");
    health.state
}

#[test]
fn dead_letters_are_a_warning_from_1_and_critical_above_20() {
    for (dead_letters, expected) in [
        (0, HealthState::Healthy),
        (1, HealthState::Warning),
        (20, HealthState::Warning),
        (21, HealthState::Critical),
    ] {
        assert_eq!(state(&HealthFacts { dead_letters, ..well() }), expected, "{dead_letters}");
    }
}

#[test]
fn a_retry_queue_is_a_warning_from_100_and_critical_above_500() {
    for (retry_queue, expected) in [
        (99, HealthState::Healthy),
        (100, HealthState::Warning),
        (500, HealthState::Warning),
        (501, HealthState::Critical),
    ] {
        assert_eq!(state(&HealthFacts { retry_queue, ..well() }), expected, "{retry_queue}");
    }
}

#[test]
fn an_hour_without_an_embedding_is_a_warning_and_six_are_critical_where_there_is_work() {
    for (hours, expected) in
        [(0, HealthState::Healthy), (1, HealthState::Warning), (6, HealthState::Critical)]
    {
        let facts = HealthFacts { since_completion: Some(hours * HOUR), ..well() };
        assert_eq!(state(&facts), expected, "{hours} h");
        assert_eq!(
            state(&HealthFacts { oldest_unfinished: None, ..facts.clone() }),
            HealthState::Healthy,
            "an empty queue"
        );
        let just_come = Some(Duration::from_secs(60));
        assert_eq!(
            state(&HealthFacts { oldest_unfinished: just_come, ..facts }),
            HealthState::Healthy
        );
    }
    assert_eq!(
        state(&HealthFacts { since_completion: None, ..well() }),
        HealthState::Critical,
        "nothing ever"
    );
}

#[test]
fn work_without_a_worker_is_critical_and_no_work_without_one_is_well() {
    assert_eq!(state(&HealthFacts { workers: 0, ..well() }), HealthState::Critical);
    assert_eq!(state(&HealthFacts::default()), HealthState::Healthy);
}

#[test]
fn a_providers_trouble_is_critical_where_no_other_worker_claims() {
    let trouble = ProviderTrouble {
        host: "a".into(),
        message: "the provider's quota is exhausted: pay".into(),
        asked_in: Duration::from_secs(30),
    };
    let facts =
        |workers| HealthFacts { workers, provider_troubles: vec![trouble.clone()], ..well() };
    assert_eq!(state(&facts(1)), HealthState::Critical);
    assert_eq!(state(&facts(2)), HealthState::Warning);
    let health = judge(&facts(2), &Thresholds::default());
    assert_eq!(
        health.findings[0].what,
        "the worker on a claims nothing: the provider's quota is exhausted: pay; it asks the provider again in 30 s"
    );
}

#[test]
fn a_pause_is_a_warning_that_names_who_and_the_command() {
    let pause = PausedPart { part: "recovery", paused_for: 2 * HOUR, by: "ann".into() };
    let health = judge(&HealthFacts { pauses: vec![pause], ..well() }, &Thresholds::default());
    assert_eq!(health.state, HealthState::Warning);
    assert_eq!(health.findings[0].what, "recovery is paused for 2 h by ann");
    assert_eq!(health.findings[0].action, "`embedding-recovery resume recovery`");
}

#[test]
fn dead_letters_that_nothing_tries_again_are_a_finding_of_their_own_and_the_worst_comes_first() {
    let facts = HealthFacts { dead_letters: 30, dead_letters_permanent: 1, ..well() };
    let health = judge(&facts, &Thresholds::default());
    let told: Vec<_> = health.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(told, ["30 dead letters", "1 dead letter waits for a person"]);
    let lax =
        Thresholds { dead_letters: Limits { warning: 50, critical: 60 }, ..Thresholds::default() };
    assert_eq!(judge(&facts, &lax).state, HealthState::Warning);
}

proptest! {
    /// More of what is bad never makes it better, and each finding says what to do.
    #[test]
    fn health_only_gets_worse_with_more_of_what_is_bad(
        dead in 0u64..1_000, retry in 0u64..1_000, idle in 0u64..100_000, workers in 0u64..3,
        more in 0u64..1_000,
    ) {
        let facts = HealthFacts {
            dead_letters: dead,
            retry_queue: retry,
            since_completion: Some(Duration::from_secs(idle)),
            workers,
            ..well()
        };
        let worse = HealthFacts {
            dead_letters: dead + more,
            dead_letters_permanent: more,
            retry_queue: retry + more,
            since_completion: Some(Duration::from_secs(idle + more)),
            ..facts.clone()
        };
        let (health, worse) = (judge(&facts, &Thresholds::default()), judge(&worse, &Thresholds::default()));
        prop_assert!(worse.state >= health.state);
        prop_assert!(worse.findings.iter().all(|f| !f.what.is_empty() && !f.action.is_empty()));
        prop_assert!(worse.findings.is_sorted_by_key(|f| std::cmp::Reverse(f.state)));
        prop_assert!(worse.findings.iter().all(|f| f.state > HealthState::Healthy));
    }
}
