//! What came out: a table for people, JSON for programs, and whether each target is met. Targets are
//! ratios within one run, or counts, since absolute times differ from machine to machine.

use serde_json::{Value, json};

use crate::cases::{Case, Measured, Program};
use crate::rows::{Means, Table};

/// Peak of memory on the shared recordings, in MB.
const PEAK_MB_MAX: f64 = 120.0;
/// Peak of memory with ten long recordings in flight, in MB.
const LONG_PEAK_MB_MAX: f64 = 200.0;
/// Of the program's processor time for 1,000 chunks.
const CPU_SECS_PER_1000_MAX: f64 = 0.15;

/// All runs of a case.
pub struct Runs {
    pub case: Case,
    pub runs: Vec<Measured>,
}

impl Runs {
    /// The middle run by its rate.
    fn median(&self) -> Measured {
        let mut runs = self.runs.clone();
        runs.sort_by(|one, other| one.rate().total_cmp(&other.rate()));
        runs[runs.len() / 2]
    }

    fn peak_mb(&self) -> Option<f64> {
        self.runs.iter().filter_map(|run| run.taken?.peak_mb).reduce(f64::max)
    }

    /// The middle one, so that one bad moment decides nothing.
    fn cpu_secs_per_1000(&self) -> Option<f64> {
        let per_1000 =
            |run: &Measured| Some(run.taken?.cpu?.as_secs_f64() * 1_000.0 / run.units as f64);
        let mut all: Vec<f64> = self.runs.iter().filter_map(per_1000).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }
}

/// A target, and whether it is met.
pub struct Target {
    what: String,
    measured: f64,
    bound: f64,
    at_least: bool,
    /// It counts for the exit code: times of a smoke run do not.
    pub judged: bool,
}

impl Target {
    /// Whether it is met.
    pub fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.bound } else { self.measured <= self.bound }
    }
}

/// The targets of what was run. In a smoke run only memory is judged: its few recordings tell nothing
/// of speed.
pub fn targets(all: &[Runs], smoke: bool) -> Vec<Target> {
    let of = |case: Case| all.iter().find(|runs| runs.case == case);
    let rate = |case: Case| of(case).map(|runs| runs.median().rate());
    let raw_into = |table, connections, live_index| {
        rate(Case::Raw { means: Means::Unnest, table, connections, live_index })
    };
    let raw = |connections, live_index| raw_into(Table::Own, connections, live_index);
    let program = |api_millis| rate(Case::Program(Program::NoIndex { api_millis, traced: false }));
    let old = |api_millis| rate(Case::Old { api_millis });
    let ratio = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
    let live = rate(Case::Program(Program::LiveIndex));
    let backlog = rate(Case::Program(Program::Backlog));
    let traced = rate(Case::Program(Program::NoIndex { api_millis: 0, traced: true }));
    let plain = of(Case::Program(Program::NoIndex { api_millis: 0, traced: false }));
    let long = of(Case::Program(Program::Long));
    let mut targets = Vec::new();
    let mut target = |what: &str, measured: Option<f64>, bound: f64, at_least, judged| {
        let what = what.to_owned();
        targets.extend(measured.map(|measured| Target { what, measured, bound, at_least, judged }));
    };
    let timed = !smoke;
    target(
        "no index: of raw inserts on 2 connections",
        ratio(program(0), raw(2, false)),
        0.5,
        true,
        timed,
    );
    // What the words cost is Postgres's, so this is told and not judged.
    target(
        "no index: of raw inserts without words on 2 connections",
        ratio(program(0), raw_into(Table::OwnWithoutWords, 2, false)),
        0.5,
        true,
        false,
    );
    target("no index: times the old algorithm", ratio(program(0), old(0)), 4.0, true, timed);
    target("50 ms API: times the old algorithm", ratio(program(50), old(50)), 10.0, true, timed);
    target(
        "live HNSW: of raw inserts on 2 connections",
        ratio(live, raw(2, true)),
        0.95,
        true,
        timed,
    );
    target(
        "tracing: share of the speed that it costs",
        ratio(traced, program(0)).map(|kept| 1.0 - kept),
        0.05,
        false,
        timed,
    );
    // The advantage grows with the table, which is small here: this asks for more than the target does.
    target(
        "backlog load: times raw inserts into HNSW on 1 connection",
        ratio(backlog, raw(1, true)),
        2.5,
        true,
        timed,
    );
    target(
        "backlog load: times raw inserts into HNSW on 2 connections",
        ratio(backlog, raw(2, true)),
        1.3,
        true,
        timed,
    );
    target(
        "peak MB on the shared recordings",
        plain.and_then(Runs::peak_mb),
        PEAK_MB_MAX,
        false,
        true,
    );
    target(
        "peak MB with ten long recordings",
        long.and_then(Runs::peak_mb),
        LONG_PEAK_MB_MAX,
        false,
        true,
    );
    let cpu = plain.and_then(Runs::cpu_secs_per_1000);
    target("processor seconds per 1,000 chunks", cpu, CPU_SECS_PER_1000_MAX, false, timed);
    targets
}

/// Prints for people.
pub fn print(about: &str, all: &[Runs], targets: &[Target]) {
    println!("{about}\n");
    println!(
        "{:<34} {:>12} {:>14} {:>8} {:>11} {:>13}",
        "", "per second", "CPU s / 1,000", "peak MB", "requests/k", "statements/k"
    );
    for runs in all {
        let median = runs.median();
        let per_1000 = |count: u64| format!("{:.0}", count as f64 * 1_000.0 / median.units as f64);
        let shown = |number: Option<f64>, digits: usize| {
            number.map_or("-".into(), |number| format!("{number:.digits$}"))
        };
        println!(
            "{:<34} {:>12} {:>14} {:>8} {:>11} {:>13}",
            runs.case.name(),
            format!("{:.0} {}", median.rate(), runs.case.unit()),
            shown(runs.cpu_secs_per_1000(), 3),
            shown(runs.peak_mb(), 0),
            per_1000(median.requests),
            per_1000(median.statements),
        );
    }
    println!();
    for target in targets {
        let verdict = match (target.is_met(), target.judged) {
            (true, _) => "met",
            (false, true) => "MISSED",
            (false, false) => "not judged",
        };
        let bound = if target.at_least { "at least" } else { "at most" };
        println!(
            "{:<60} {:>8.3}  {bound} {:<6} {verdict}",
            target.what, target.measured, target.bound
        );
    }
}

/// For programs.
pub fn as_json(about: &str, all: &[Runs], targets: &[Target]) -> Value {
    let cases = all.iter().map(|runs| {
        let median = runs.median();
        json!({
            "case": runs.case.name(),
            "unit": runs.case.unit(),
            "units": median.units,
            "units_per_second": median.rate(),
            "units_per_second_of_all": runs.runs.iter().map(Measured::rate).collect::<Vec<_>>(),
            "cpu_seconds_per_1000": runs.cpu_secs_per_1000(),
            "peak_mb": runs.peak_mb(),
            "requests": median.requests,
            "statements": median.statements,
        })
    });
    let targets = targets.iter().map(|target| {
        json!({
            "target": target.what,
            "measured": target.measured,
            "bound": target.bound,
            "at_least": target.at_least,
            "judged": target.judged,
            "met": target.is_met(),
        })
    });
    json!({ "about": about, "cases": Value::from_iter(cases), "targets": Value::from_iter(targets) })
}
