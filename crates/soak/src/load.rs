//! Steady load: scrapes of every kind, and whether each ended as it had to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pushprox_testkit::wait::idle;
use pushprox_testkit::wire::{Connection, Message, ask, scrape_request};
use tokio::time::{Instant, timeout};

use crate::account::{Book, Ended};
use crate::random::Random;
use crate::world::{Place, World, body, name};

/// Scrapes a client again and again, in as many ways as there are.
pub(crate) async fn scrape_until(
    end: Instant,
    place: Place,
    mut random: Random,
    world: Arc<World>,
    account: Arc<Book>,
) {
    let scraper = random.below(usize::MAX);
    for number in 0_u64.. {
        if Instant::now() > end {
            return;
        }
        // Good ones mostly.
        let how = random.one_of(&[
            "well", "well", "well", "chunked", "chunked", "large", "slow", "error", "silence",
            "half", "absent", "hang-up",
        ]);
        let nonce = format!("{}-{scraper:x}-{number}", name(place));
        let started = Instant::now();
        account.asked();
        let ended = match how {
            "hang-up" => hang_up(place, &nonce, random.millis(0, 50), &world).await,
            _ => scrape(place, &nonce, how, &world).await,
        };
        let told = ended.judge(|| world.was_disturbed(place, started));
        account.ended(told, || {
            format!("{nonce} ({how}) after {:?}: {ended}", started.elapsed())
        });
        idle(random.millis(50, 350)).await;
    }
}

/// How a scrape ended, by itself.
enum Outcome {
    /// With the answer that it had to have.
    Right,
    /// With the error that it had to have.
    RightError,
    /// It was given up on purpose.
    GivenUp,
    /// With an error that says what is wrong, or in a way that nobody takes for an answer.
    Failed(String),
    /// With something that looks like an answer and is none.
    Wrong(Message),
    /// Not at all.
    Stuck,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right | Self::RightError => f.write_str("as it had to"),
            Self::GivenUp => f.write_str("given up"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Wrong(answer) => {
                let (head, length) = (&answer.head, answer.body.len());
                let whole = if answer.whole { "" } else { ", cut off" };
                write!(f, "{head:?} and {length} bytes{whole}")
            }
            Self::Stuck => f.write_str("no end in time"),
        }
    }
}

impl Outcome {
    /// What it counts as, where `is_excused` tells whether a fault had to do with it.
    fn judge(&self, is_excused: impl Fn() -> bool) -> Ended {
        match self {
            Self::Right => Ended::Right,
            Self::RightError => Ended::RightError,
            Self::GivenUp => Ended::GivenUp,
            Self::Failed(_) | Self::Stuck if is_excused() => Ended::Excused,
            Self::Stuck => Ended::Stuck,
            Self::Failed(_) | Self::Wrong(_) => Ended::Wrong,
        }
    }
}

async fn scrape(place: Place, nonce: &str, how: &str, world: &World) -> Outcome {
    let host = match how {
        "absent" => format!("absent.{}", name(place)),
        _ => name(place),
    };
    let time = match how {
        "absent" | "silence" => BRIEF,
        _ => TIME,
    };
    let url = format!("http://{host}/metrics?{nonce}&{how}");
    let request = scrape_request(&url, time.as_secs_f64(), "");
    let asked = timeout(time + LATE, ask(world.address(place.proxy), &request));
    let Ok(answer) = asked.await else {
        return Outcome::Stuck;
    };
    judge(answer, nonce, how)
}

fn judge(answer: io::Result<Message>, nonce: &str, how: &str) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let (status, reason) = (answer.status(), answer.reason());
    match (how, status) {
        ("half", 200) if !answer.whole => Outcome::RightError,
        ("half", 502) if reason.contains("broken answer") => Outcome::RightError,
        ("error", 500) if reason == "out of order" && answer.whole => Outcome::RightError,
        ("silence", 504) if reason.contains("did not answer within") => Outcome::RightError,
        ("absent", 503) if reason.contains("no client registered for") => Outcome::RightError,
        ("half" | "error" | "silence" | "absent", 200) if answer.whole => Outcome::Wrong(answer),
        // Cut off, which nobody takes for an answer.
        (_, 200) if !answer.whole => Outcome::Failed("cut off".to_owned()),
        (_, 200) if answer.text() == body(nonce, how) => Outcome::Right,
        (_, 502..=504)
            if ["client ", "no client ", "proxy "]
                .iter()
                .any(|start| reason.starts_with(start)) =>
        {
            Outcome::Failed(reason.to_owned())
        }
        (_, 502 | 504) if reason.contains("target ") => Outcome::Failed(reason.to_owned()),
        _ => Outcome::Wrong(answer),
    }
}

/// Asks and is gone before the answer, or in the middle of it.
async fn hang_up(place: Place, nonce: &str, after: Duration, world: &World) -> Outcome {
    let asking = async {
        let mut connection = Connection::open(world.address(place.proxy)).await?;
        let url = format!("http://{}/metrics?{nonce}&large", name(place));
        let request = scrape_request(&url, TIME.as_secs_f64(), "");
        connection.send(&request).await?;
        io::Result::Ok(connection)
    };
    match timeout(TIME, asking).await {
        Ok(Ok(connection)) => {
            idle(after).await;
            drop(connection);
            Outcome::GivenUp
        }
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Stuck,
    }
}

/// What most scrapes have. A machine that stands still for a while is no fault.
const TIME: Duration = Duration::from_secs(10);

/// What those have that get nothing in their time.
const BRIEF: Duration = Duration::from_secs(4);

/// What the machine may add to it.
const LATE: Duration = Duration::from_secs(10);
