//! Bad days: the real program, several replicas, a real Postgres and real recordings, and faults
//! drawn from a seed. `CHAOS_SEED` draws the same faults again, `CHAOS_SECS` makes it longer.

pub mod checker;
mod faults;
mod sabotage;
mod storms;
mod town;
pub mod watcher;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use checker::Evidence;
use faults::Fault;
use town::Town;
use watcher::{Sightings, Watcher};

/// Recordings of a run.
const RECORDINGS: usize = 50;
/// Length of the run that every change must pass.
const STORM: Duration = Duration::from_secs(120);
/// A request that a slow network carried was sent at most this much before it came.
const NETWORK: Duration = Duration::from_secs(3);

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_drawn_faults_loses_nothing_pays_nothing_twice_and_blames_nothing_healthy() {
    let seed = from_environment("CHAOS_SEED").unwrap_or_else(rand::random);
    let storm = from_environment("CHAOS_SECS").map_or(STORM, Duration::from_secs);
    println!("CHAOS_SEED={seed} CHAOS_SECS={}", storm.as_secs());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut town = Town::build(rng.random_range(2..=3)).await;
    let watcher = Watcher::start(town.database_url());
    let calls = town.calls(RECORDINGS);
    let begun = Instant::now();
    let mut arriving = calls.iter();
    while begun.elapsed() < storm {
        // They arrive over the whole storm, so that there is always work that can be hit.
        let due = calls.len() as f64 * begun.elapsed().as_secs_f64() / storm.as_secs_f64();
        while calls.len() - arriving.len() < due.ceil() as usize {
            if let Some(call) = arriving.next() {
                town.import(call).await;
            }
        }
        let fault = Fault::draw(&mut rng, town.replicas());
        println!("{:7.3} {fault:?}", begun.elapsed().as_secs_f64());
        fault.strike(&mut town, &mut rng).await;
        town.raise_the_dead();
    }
    println!("{:7.3} calm", begun.elapsed().as_secs_f64());
    for call in arriving {
        town.import(call).await;
    }
    town.wait_until_settled().await;
    let ended_badly = town.stop().await;
    let sightings = watcher.stop().await;
    check(&town, &sightings, &ended_badly).await;
}

/// Fails with everything that does not hold.
async fn check(town: &Town, sightings: &Sightings, ended_badly: &[Option<i32>]) {
    let evidence = Evidence {
        database_url: town.database_url(),
        sightings,
        purchases: &town.api.purchases(),
        network: NETWORK,
        awakenings: &town.awakenings,
        // Nothing is the recordings' own fault: only workers that died or stood still count.
        own_faults: &["lease_expired", "stalled"],
    };
    println!("{}", evidence.summary().await);
    let mut wrong = evidence.complaints().await;
    for code in ended_badly {
        wrong.push(format!("a replica that was told to stop ended with {code:?}"));
    }
    if !wrong.is_empty() {
        let log = town.log();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!("does not hold:\n- {}\nlog:\n{}", wrong.join("\n- "), tail.join("\n"));
    }
}
