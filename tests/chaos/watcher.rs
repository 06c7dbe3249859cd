//! Looks at the database all through the storm, as a reader of the search view and as an auditor.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::within_deadline;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(250);

/// For how long a chunk was surely stored in a set that was alive.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// After the first look that saw it.
    pub since: Instant,
    /// Before the last look that saw it.
    pub until: Instant,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Sightings {
    /// Looks that got an answer.
    pub looks: u32,
    /// Recordings that were visible in part, mixed, or of two models.
    pub partial: Vec<String>,
    /// By set and hash of the embedded text.
    pub stored: HashMap<(Uuid, [u8; 32]), Stored>,
}

pub struct Watcher {
    stop: watch::Sender<bool>,
    looks: watch::Receiver<u32>,
    watching: JoinHandle<Sightings>,
}

impl Watcher {
    pub fn start(url: &str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (looked, looks) = watch::channel(0);
        let watching = tokio::spawn(look_until(url.to_owned(), stopped, looked));
        Self { stop, looks, watching }
    }

    /// Waits for a look that began after this call.
    pub async fn look(&self) {
        let mut looks = self.looks.clone();
        // The next one to end may be under way.
        let enough = *looks.borrow() + 2;
        within_deadline("a look", looks.wait_for(|looks| *looks >= enough)).await.unwrap();
    }

    pub async fn stop(self) -> Sightings {
        self.stop.send_replace(true);
        self.watching.await.unwrap()
    }
}

async fn look_until(
    url: String,
    stopped: watch::Receiver<bool>,
    looked: watch::Sender<u32>,
) -> Sightings {
    let mut sightings = Sightings::default();
    while !*stopped.borrow() {
        // The server goes down in the storm; then nobody sees anything.
        if let Ok(mut connection) = PgConnection::connect(&url).await {
            while !*stopped.borrow() && look(&mut connection, &mut sightings).await.is_ok() {
                looked.send_replace(sightings.looks);
                tokio::time::sleep(PERIOD).await;
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
    sightings
}

async fn look(connection: &mut PgConnection, seen: &mut Sightings) -> sqlx::Result<()> {
    let wrong: Vec<String> = sqlx::query_scalar(
        "select format('recording %s: %s chunks of %s sets, %s expected', recording_id, chunks, sets, expected)
         from (select c.recording_id, count(*) as chunks, count(distinct c.chunk_set_id) as sets,
                      min(s.chunks_expected) as expected, count(distinct c.embedding_model) as models
               from searchable_chunks c join chunk_sets s on s.id = c.chunk_set_id
               group by c.user_id, c.recording_id) r
         where chunks <> expected or sets <> 1 or models <> 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    seen.partial.extend(wrong);
    let before = Instant::now();
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "select c.chunk_set_id, c.content_hash from transcript_chunks c
         join chunk_sets s on s.id = c.chunk_set_id where s.state <> 'dead'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let after = Instant::now();
    for (set, hash) in rows {
        let hash = hash.try_into().expect("32 bytes");
        let stored =
            seen.stored.entry((set, hash)).or_insert(Stored { since: after, until: after });
        stored.until = stored.until.max(before);
    }
    seen.looks += 1;
    Ok(())
}
