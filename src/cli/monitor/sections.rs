//! The monitor's page: a verdict with what to do, then a section for each thing that there is to see.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Utc};

use super::Look;
use crate::cli::plain::on_one_line;
use crate::domain::health::HealthState;
use crate::domain::span::{from_secs, told};
use crate::ports::inspector::SuccessRate;

const BOLD: Style = Style::new().bold();

/// Everything, with colours.
pub(super) fn page(look: &Look) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = health(&mut page, look)
        .and_then(|()| queue(&mut page, look))
        .and_then(|()| lately(&mut page, look))
        .and_then(|()| dead_letters(&mut page, look))
        .and_then(|()| in_flight(&mut page, look))
        .and_then(|()| workers(&mut page, look))
        .and_then(|()| jobs(&mut page, look))
        .and_then(|()| schedules(&mut page, look));
    page
}

fn health(page: &mut String, look: &Look) -> std::fmt::Result {
    let style = colour(look.health.state);
    writeln!(page, "{BOLD}Health{BOLD:#}  {style}{}{style:#}", look.health.state.as_str())?;
    for finding in &look.health.findings {
        let style = colour(finding.state);
        writeln!(
            page,
            "  {style}{:8}{style:#}  {}",
            finding.state.as_str(),
            on_one_line(&finding.what)
        )?;
        writeln!(page, "  {:8}  -> {}", "", finding.action)?;
    }
    Ok(())
}

fn colour(state: HealthState) -> Style {
    let colour = match state {
        HealthState::Healthy => AnsiColor::Green,
        HealthState::Warning => AnsiColor::Yellow,
        HealthState::Critical => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}

fn heading(page: &mut String, name: &str) -> std::fmt::Result {
    writeln!(page, "\n{BOLD}{name}{BOLD:#}")
}

fn queue(page: &mut String, look: &Look) -> std::fmt::Result {
    let overview = &look.overview;
    let tasks = &overview.tasks;
    heading(page, "Queue")?;
    let waits =
        overview.oldest_waiting_secs.map(|secs| format!("the oldest waits for {}", span(secs)));
    row(page, "pending", tasks.pending, waits.as_deref())?;
    row(page, "processing", tasks.processing, None)?;
    let due = format!("{} ready for their retry", overview.retry_ready);
    row(page, "failed", tasks.failed, (tasks.failed > 0).then_some(due.as_str()))?;
    row(page, "completed", tasks.completed, None)?;
    let next = match overview.next_recovery_at {
        Some(at) => format!("{}; the next is tried {}", person(look), until(look, at)),
        None => person(look),
    };
    row(page, "dead_letter", tasks.dead_letter, (tasks.dead_letter > 0).then_some(next.as_str()))
}

fn person(look: &Look) -> String {
    let count = look.overview.dead_letters_permanent;
    format!("{count} {} for a person", if count == 1 { "waits" } else { "wait" })
}

fn row(page: &mut String, name: &str, count: u64, note: Option<&str>) -> std::fmt::Result {
    match note {
        Some(note) => writeln!(page, "  {name:11}  {count:>9}  {note}"),
        None => writeln!(page, "  {name:11}  {count:>9}"),
    }
}

fn lately(page: &mut String, look: &Look) -> std::fmt::Result {
    let overview = &look.overview;
    heading(page, "Lately")?;
    let last = match overview.last_completed_at {
        Some(at) => format!("the last {}", ago(look, at)),
        None => "none ever".into(),
    };
    let (chunks, recordings) = (overview.chunks_last_hour, overview.completed_last_hour);
    writeln!(
        page,
        "  last hour    {chunks} embeddings, {recordings} recordings completed; {last}"
    )?;
    let drain = overview.drain_per_minute;
    let empty = match overview.empty_in_secs {
        _ if overview.tasks.open() == 0 => "the queue is empty".into(),
        Some(secs) => format!("empty in {}", span(secs)),
        None => "the queue does not drain".into(),
    };
    writeln!(page, "  drain        {drain:.1} tasks a minute; {empty}")?;
    writeln!(page, "  first try    {}", share(overview.first_pass))?;
    writeln!(page, "  recovery     {}", share(overview.recovery))
}

fn share(rate: SuccessRate) -> String {
    match rate.share() {
        Some(share) => {
            format!("{:.0} % of {} in a day succeeded", 100.0 * share, rate.tried)
        }
        None => "none in a day".into(),
    }
}

fn dead_letters(page: &mut String, look: &Look) -> std::fmt::Result {
    let dead = &look.dead_letters;
    if dead.total == 0 {
        return Ok(());
    }
    heading(page, "Dead letters")?;
    for group in &dead.groups {
        // As a shell takes it after `recover --matching`.
        let fingerprint = on_one_line(&group.fingerprint).replace('\'', r"'\''");
        writeln!(page, "  {:>4} of '{fingerprint}'", group.count)?;
    }
    for letter in &dead.rows {
        let title = on_one_line(letter.title.as_deref().unwrap_or("untitled"));
        writeln!(
            page,
            "  recording {} ({title}, {} segments, {} of {} chunks stored) after {} attempts: {}",
            letter.recording_id,
            letter.segment_count,
            letter.chunks_stored,
            letter.chunks,
            letter.attempts + letter.recoveries,
            on_one_line(&letter.last_error)
        )?;
    }
    let untold = dead.total - dead.rows.len() as u64;
    if untold > 0 { writeln!(page, "  and {untold} more") } else { Ok(()) }
}

fn in_flight(page: &mut String, look: &Look) -> std::fmt::Result {
    if look.overview.in_flight.is_empty() {
        return Ok(());
    }
    heading(page, "In flight")?;
    for recording in &look.overview.in_flight {
        let title = on_one_line(recording.title.as_deref().unwrap_or("untitled"));
        let chunks = match (recording.chunks_stored, recording.chunks) {
            (Some(stored), Some(chunks)) => format!("{stored} of {chunks} chunks stored"),
            _ => "being read".into(),
        };
        writeln!(
            page,
            "  recording {} ({title}): attempt {} by {} for {}, {chunks}",
            recording.recording_id,
            recording.attempt,
            recording.part.as_str(),
            span(recording.running_secs)
        )?;
    }
    Ok(())
}

fn workers(page: &mut String, look: &Look) -> std::fmt::Result {
    heading(page, "Workers")?;
    if look.overview.workers.is_empty() {
        return writeln!(page, "  none is alive");
    }
    for worker in &look.overview.workers {
        write!(
            page,
            "  {} with {}: {} of {} slots in use, up for {}",
            on_one_line(&worker.host),
            on_one_line(&worker.model),
            worker.in_flight,
            worker.slots,
            since(look, worker.started_at)
        )?;
        let trouble = worker.provider_trouble.as_ref().or(worker.database_trouble.as_ref());
        if let Some(trouble) = trouble {
            write!(page, "; claims nothing: {}", on_one_line(trouble))?;
        }
        match worker.provider_paused_until {
            Some(at) => writeln!(page, "; rate limited, goes on {}", until(look, at))?,
            None => writeln!(page)?,
        }
    }
    Ok(())
}

fn jobs(page: &mut String, look: &Look) -> std::fmt::Result {
    if look.jobs.is_empty() {
        return Ok(());
    }
    heading(page, "Jobs")?;
    for job in &look.jobs {
        let by = on_one_line(job.requested_by.as_deref().unwrap_or("unknown"));
        writeln!(
            page,
            "  {} by {by}, {}: {} of {} completed, {} dead",
            job.id,
            ago(look, job.created_at),
            job.completed,
            job.tasks,
            job.dead_letter
        )?;
    }
    Ok(())
}

fn schedules(page: &mut String, look: &Look) -> std::fmt::Result {
    let overview = &look.overview;
    if overview.schedules.is_empty() && overview.pauses.is_empty() {
        return Ok(());
    }
    heading(page, "Schedules")?;
    for pause in &overview.pauses {
        let (by, span) = (on_one_line(&pause.by), since(look, pause.since));
        writeln!(page, "  {} is paused by {by} for {span}", pause.part.as_str())?;
    }
    // A schedule without a cron of its own runs at the ticks of another.
    for schedule in overview.schedules.iter().filter(|schedule| schedule.cron.is_some()) {
        let next = schedule.next_tick.map_or("never".into(), |at| until(look, at));
        let cron = schedule.cron.as_deref().unwrap_or_default();
        writeln!(page, "  {} ({cron}) runs {next}", on_one_line(&schedule.name))?;
    }
    Ok(())
}

fn span(secs: f64) -> String {
    told(from_secs(secs))
}

fn since(look: &Look, at: DateTime<Utc>) -> String {
    told((look.overview.at - at).to_std().unwrap_or_default())
}

fn ago(look: &Look, at: DateTime<Utc>) -> String {
    format!("{} ago", since(look, at))
}

fn until(look: &Look, at: DateTime<Utc>) -> String {
    match (at - look.overview.at).to_std() {
        Ok(left) => format!("in {}", told(left)),
        Err(_) => "at once".into(),
    }
}
