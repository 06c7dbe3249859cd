//! What can go wrong, drawn from the seed.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::town::{LEASE, Town};
use crate::fakes::openai::Reply;
use crate::harness::proxy::Weather;

/// One fault. Times are how long it lasts.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A replica is killed.
    Kill { replica: usize },
    /// A replica is told to stop.
    Stop { replica: usize },
    /// A replica stands still, longer than its leases, and goes on.
    Freeze { replica: usize, time: Duration },
    /// The server is stopped by this signal, and started again.
    RestartServer { signal: &'static str, away: Duration },
    /// Each connection to the database is ended with this chance.
    TerminateBackends { percent: u8 },
    /// The network to the database.
    DatabaseNetwork { weather: Weather, time: Duration },
    /// The network to the API.
    ApiNetwork { weather: Weather, time: Duration },
    /// The API answers everything so.
    ApiStorm { reply: Reply, time: Duration },
    /// The role gets a `statement_timeout`, and its connections are ended so that it counts.
    StatementTimeout { millis: u32, time: Duration },
    /// A transcript is edited, and perhaps edited back.
    Edit { back: bool },
    /// Nothing.
    Calm { time: Duration },
}

impl Fault {
    pub fn draw(rng: &mut StdRng, replicas: usize) -> Self {
        let replica = rng.random_range(0..replicas);
        let time = Duration::from_millis(rng.random_range(300..4_000));
        match rng.random_range(0..14) {
            0 => Self::Kill { replica },
            1 => Self::Stop { replica },
            2 => Self::Freeze { replica, time: LEASE + time },
            3 => {
                let signal = ["INT", "QUIT", "KILL"][rng.random_range(0..3)];
                Self::RestartServer { signal, away: time / 2 }
            }
            4 | 5 => Self::TerminateBackends { percent: rng.random_range(10..=100) },
            6 => Self::DatabaseNetwork { weather: weather(rng), time },
            7 => Self::ApiNetwork { weather: weather(rng), time },
            8 | 9 => Self::ApiStorm { reply: reply(rng), time },
            10 => Self::StatementTimeout { millis: rng.random_range(50..500), time },
            11 | 12 => Self::Edit { back: rng.random() },
            _ => Self::Calm { time: time / 2 },
        }
    }

    pub async fn strike(&self, town: &mut Town, rng: &mut impl Rng) {
        match self {
            Self::Kill { replica } => town.signal(*replica, "KILL").await,
            Self::Stop { replica } => town.signal(*replica, "TERM").await,
            Self::Freeze { replica, time } => {
                town.signal(*replica, "STOP").await;
                tokio::time::sleep(*time).await;
                town.awakenings.push(Instant::now());
                town.signal(*replica, "CONT").await;
            }
            Self::RestartServer { signal, away } => town.restart_server(signal, *away).await,
            Self::TerminateBackends { percent } => {
                let statement = format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                     where application_name = 'embedding-recovery' and random() * 100 < {percent}"
                );
                town.execute(&statement).await;
            }
            Self::DatabaseNetwork { weather, time } => {
                town.to_database.set(*weather);
                tokio::time::sleep(*time).await;
                town.to_database.set(Weather::Fine);
            }
            Self::ApiNetwork { weather, time } => {
                town.to_api.set(*weather);
                tokio::time::sleep(*time).await;
                town.to_api.set(Weather::Fine);
            }
            Self::ApiStorm { reply, time } => {
                town.api_replies(reply.clone());
                tokio::time::sleep(*time).await;
                town.api_is_well();
            }
            Self::StatementTimeout { millis, time } => {
                town.execute(&format!(
                    "alter role postgres set statement_timeout = '{millis}ms'; {END_CONNECTIONS}"
                ))
                .await;
                tokio::time::sleep(*time).await;
                while !town
                    .execute(&format!(
                        "alter role postgres reset statement_timeout; {END_CONNECTIONS}"
                    ))
                    .await
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Self::Edit { back } => edit(town, *back, rng).await,
            Self::Calm { time } => tokio::time::sleep(*time).await,
        }
    }
}

const END_CONNECTIONS: &str = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'embedding-recovery'";

/// Changes one segment of a recording, where there is one.
async fn edit(town: &Town, back: bool, rng: &mut impl Rng) {
    let (which, word): (f64, u32) = (rng.random(), rng.random());
    let edited = format!(
        "update fathom_transcripts set edited_text = text || ' {word}' where id = (
             select id from fathom_transcripts order by id offset floor({which} * (select count(*) from fathom_transcripts)) limit 1)"
    );
    town.execute(&edited).await;
    if back {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
        town.execute(
            "update fathom_transcripts set edited_text = null where edited_text is not null",
        )
        .await;
    }
}

fn weather(rng: &mut StdRng) -> Weather {
    match rng.random_range(0..3) {
        0 => Weather::Cut,
        1 => Weather::HalfOpen,
        _ => Weather::Slow(Duration::from_millis(rng.random_range(5..80))),
    }
}

fn reply(rng: &mut StdRng) -> Reply {
    match rng.random_range(0..9) {
        0 => Reply::RateLimited { retry_after: Duration::from_millis(rng.random_range(50..1_500)) },
        1 => Reply::QuotaExhausted,
        2 => Reply::error(500, "server_error", "The server had an error"),
        3 => Reply::Hang,
        4 => Reply::CutConnection,
        5 => Reply::WrongCount,
        6 => Reply::WrongDimension,
        7 => Reply::NaN,
        _ => Reply::HtmlError,
    }
}
