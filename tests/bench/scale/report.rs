//! What came out, for people, and whether it is what was asked for.

use std::time::Duration;

/// What a number must be.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

/// One number.
pub struct Finding {
    what: String,
    measured: f64,
    unit: &'static str,
    bound: Option<Bound>,
    /// Depends on the machine, and so tells nothing in a smoke run.
    is_time: bool,
}

impl Finding {
    /// A number that no target is set for.
    pub fn told(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, unit, bound: None, is_time: true }
    }

    /// A time or a speed.
    pub fn timed(what: impl Into<String>, measured: f64, unit: &'static str, bound: Bound) -> Self {
        Self { bound: Some(bound), ..Self::told(what, measured, unit) }
    }

    /// A count of what must not happen.
    pub fn never(what: impl Into<String>, measured: u64) -> Self {
        let bound = Some(Bound::AtMost(0.0));
        Self { bound, is_time: false, ..Self::told(what, measured as f64, "") }
    }

    fn is_met(&self) -> bool {
        match self.bound {
            Some(Bound::AtLeast(bound)) => self.measured >= bound,
            Some(Bound::AtMost(bound)) => self.measured <= bound,
            None => true,
        }
    }

    /// Whether it counts against this run.
    pub fn is_missed(&self, smoke: bool) -> bool {
        let is_judged = !smoke || !self.is_time;
        is_judged && !self.is_met()
    }
}

/// Prints a case.
pub fn print(case: &str, findings: &[Finding], smoke: bool, took: Duration) {
    println!("\n{case} ({:.0} s)", took.as_secs_f64());
    for finding in findings {
        let bound = match finding.bound {
            Some(Bound::AtLeast(bound)) => format!("at least {bound}"),
            Some(Bound::AtMost(bound)) => format!("at most {bound}"),
            None => String::new(),
        };
        let verdict = match (finding.bound, finding.is_missed(smoke)) {
            (None, _) => "",
            (Some(_), true) => "MISSED",
            (Some(_), false) if finding.is_met() => "met",
            (Some(_), false) => "not judged",
        };
        let measured = format!("{:.2} {}", finding.measured, finding.unit);
        println!("  {:<84} {measured:>16}  {bound:<14} {verdict}", finding.what);
    }
}

/// Milliseconds of the middle one and of the longest.
pub fn median_and_worst_ms(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
    (millis(times.get(times.len() / 2)), millis(times.last()))
}
