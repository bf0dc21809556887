//! The soak: real proxies and clients under steady load and random faults, and an account of every
//! scrape at the end.
//!
//! | module | owns |
//! |---|---|
//! | `world` | what runs: proxies, clients, the target, and which of them are being disturbed |
//! | `load` | the scrapes, and whether each ended as it had to |
//! | `trouble` | the faults |
//! | [`account`] | what became of it all |
//! | `random` | the choices, all from one seed |

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a step of the soak that fails must end it, with a backtrace"
)]

pub mod account;

mod load;
mod random;
mod trouble;
mod world;

use std::sync::Arc;
use std::time::Duration;

use pushprox_testkit::wait::idle;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use account::Account;
use account::Watched;
use random::Random;
use world::World;

/// What a soak is.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long the load lasts.
    pub duration: Duration,
    /// What all choices follow from. The faults and scrapes of two soaks with the same seed are the
    /// same; what they meet when depends on the machine.
    pub seed: u64,
}

/// Runs a soak.
///
/// # Panics
/// When a program cannot be started, does not come back, or breaks the protocol.
pub async fn run(settings: Settings) -> Account {
    let account = Arc::new(account::Book::default());
    let world = Arc::new(World::start().await);
    let mut random = Random::new(settings.seed);
    let end = Instant::now() + settings.duration;

    let mut loads = JoinSet::new();
    for place in world.places().repeat(SCRAPERS) {
        let (world, account) = (Arc::clone(&world), Arc::clone(&account));
        loads.spawn(load::scrape_until(
            end,
            place,
            random.fork(),
            world,
            account,
        ));
    }
    // Three faults at once, at the most. The last are over while there is still load, so that it is
    // seen to recover.
    let peace = end - settings.duration / 10;
    let mut trouble = || trouble::make_until(peace, random.fork(), &world, &account);
    let troubles = async { tokio::join!(trouble(), trouble(), trouble()) };
    let mut watched = Watched::default();
    let watching = async {
        while Instant::now() < end {
            watched.memory.push(world.steady_memory().await);
            idle(settings.duration / SAMPLES).await;
        }
    };
    tokio::join!(troubles, watching);
    while let Some(done) = loads.join_next().await {
        done.unwrap();
    }
    watched.end(&world).await;
    Account::new(settings, &account, watched)
}

/// How many scrape each client at once.
const SCRAPERS: usize = 2;

/// How often the memory is looked at.
const SAMPLES: u32 = 200;
