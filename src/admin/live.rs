//! What the open pages are sent. One poller looks for them all, and only while there are any.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use utoipa::ToSchema;

use super::Shared;
use super::health::{Health, judged};
use super::problem::Problem;
use crate::domain::failure::Failure;
use crate::domain::health::Thresholds;
use crate::ports::inspector::{
    Bucket, DeadLetterQuery, DeadLetters, Inspector, Job, Overview, Run,
};

/// Pages open at once: each holds a connection.
const PAGES_MAX: usize = 64;
/// Rows of each list on the page.
const ROWS: u32 = 50;
/// After a look, at least so many times its own time until the next: an open page is not to cost a busy
/// database more than a tenth of one connection.
const REST: u32 = 9;
/// Hours of history on the page.
const HISTORY_HOURS: u32 = 6;
/// A look that takes longer is given up and told as trouble, or the page would show old numbers as live.
const LOOK_TIME: Duration = Duration::from_secs(10);
/// What changes slowly is looked at once in so many looks.
const LOOKS_A_HISTORY: u32 = 5;

/// Everything on the page.
#[derive(Serialize, ToSchema)]
struct Snapshot<'a> {
    health: Health,
    overview: Overview,
    dead_letters: DeadLetters,
    jobs: Vec<Job>,
    runs: Vec<Run>,
    history: &'a [Bucket],
}

/// What is sent, written out once for all pages.
#[derive(Clone)]
struct Message {
    event: &'static str,
    json: Arc<str>,
}

/// The last look, and who waits for the next.
pub(super) struct Live {
    latest: watch::Sender<Option<Message>>,
    opened: Notify,
    seats: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Live {
    pub fn new(stop: watch::Receiver<bool>) -> Self {
        Self {
            latest: watch::Sender::new(None),
            opened: Notify::new(),
            seats: Arc::new(Semaphore::new(PAGES_MAX)),
            stop,
        }
    }

    /// Looks again and again while pages are open; sleeps while none are.
    pub async fn look(
        &self,
        inspector: &dyn Inspector,
        thresholds: &Thresholds,
        every: Duration,
    ) -> Infallible {
        let mut history = Vec::new();
        let mut looks = 0;
        loop {
            let began = Instant::now();
            if self.latest.receiver_count() == 0 {
                // A page that opens later must not see what is old by then.
                self.latest.send_replace(None);
                looks = 0;
                self.opened.notified().await;
                continue;
            }
            let snapshot = async {
                if looks % LOOKS_A_HISTORY == 0 {
                    history = inspector.history(HISTORY_HOURS).await?;
                }
                snapshot(inspector, thresholds, &history).await
            };
            let (message, rest) = match tokio::time::timeout(LOOK_TIME, snapshot).await {
                Ok(Ok(snapshot)) => {
                    looks += 1;
                    (message("snapshot", &snapshot), began.elapsed() * REST)
                }
                Ok(Err(failure)) => (message("trouble", &Problem::from(failure)), Duration::ZERO),
                Err(_) => (message("trouble", &Problem::unavailable(unanswered())), Duration::ZERO),
            };
            self.latest.send_replace(message);
            tokio::time::sleep(every.max(rest)).await;
        }
    }

    /// A seat for one more page; `None` where all are taken.
    fn open(&self) -> Option<Page> {
        let seat = self.seats.clone().try_acquire_owned().ok()?;
        let mut latest = self.latest.subscribe();
        latest.mark_changed();
        self.opened.notify_one();
        Some(Page { latest, stop: self.stop.clone(), _seat: seat })
    }
}

fn unanswered() -> String {
    format!("the database gave no answer within {} s", LOOK_TIME.as_secs())
}

async fn snapshot<'a>(
    inspector: &dyn Inspector,
    thresholds: &Thresholds,
    history: &'a [Bucket],
) -> Result<Snapshot<'a>, Failure> {
    let query = DeadLetterQuery { limit: ROWS, ..DeadLetterQuery::default() };
    let overview = inspector.overview().await?;
    Ok(Snapshot {
        health: judged(&overview, thresholds),
        overview,
        dead_letters: inspector.dead_letters(&query).await?,
        jobs: inspector.jobs(ROWS).await?,
        runs: inspector.runs(false, ROWS).await?,
        history,
    })
}

fn message(event: &'static str, value: &impl Serialize) -> Option<Message> {
    // Numbers, strings and times always can be written.
    serde_json::to_string(value).ok().map(|json| Message { event, json: json.into() })
}

struct Page {
    latest: watch::Receiver<Option<Message>>,
    stop: watch::Receiver<bool>,
    _seat: OwnedSemaphorePermit,
}

impl Page {
    /// The next look; `None` where the service stops.
    async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return None,
                changed = self.latest.changed() => changed.ok()?,
            }
            let message = self.latest.borrow_and_update().clone();
            if message.is_some() {
                return message;
            }
        }
    }
}

/// Everything, again and again: events `snapshot`, or `trouble` with a problem
#[utoipa::path(get, path = "/v1/live", tag = "look", responses(
    (status = 200, body = Snapshot, content_type = "text/event-stream"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn watch(
    State(shared): State<Shared>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let page = shared.live.open().ok_or_else(|| {
        Problem::unavailable(format!("{PAGES_MAX} pages are open; close one and try again"))
    })?;
    let events = stream::unfold(page, |mut page| async move {
        let message = page.next().await?;
        Some((Ok(Event::default().event(message.event).data(&*message.json)), page))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
