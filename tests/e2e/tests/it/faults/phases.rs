//! Each part of a scrape killed and frozen, at each phase of it: how the scrape ends, and that
//! everything is as before afterwards.

use std::time::Duration;

use pushprox_testkit::process::Daemon;
use pushprox_testkit::rest::{Bystander, Rest};
use pushprox_testkit::wait::{SOON, idle, until};

use super::chain::{Chain, Ended, PATIENCE, Part, Phase, TIME};

/// What happens to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGKILL.
    Killed,
    /// SIGSTOP, until its scrape has ended.
    Frozen,
}

/// How a scrape has to end.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// With a good answer.
    Well,
    /// With this status, and a reason that says so.
    Told(u16, &'static str),
    CutOff,
    Refused,
    Silent,
    Dead,
    /// There is no scrape that the part could have.
    NoScrape,
}

use Blow::{Frozen, Killed};
use Expected::{CutOff, Dead, NoScrape, Refused, Silent, Told, Well};
use Phase::{HalfRead, HalfSent, HandedOut, HeadSent, Parked, Pulling};

/// A line for each blow at each phase; the columns are the proxy, the client, the target and the
/// scraper.
const TABLE: [(Blow, Phase, [Expected; 4]); 12] = [
    (Killed, Parked, [Refused, NOT_POLLED, UNREACHABLE, NoScrape]),
    (Killed, HandedOut, [CutOff, NO_PUSH, UNREACHABLE, Dead]),
    (Killed, Pulling, [CutOff, NO_PUSH, NO_ANSWER, Dead]),
    (Killed, HeadSent, [CutOff, CutOff, CutOff, Dead]),
    (Killed, HalfSent, [CutOff, CutOff, CutOff, Dead]),
    (Killed, HalfRead, [CutOff, CutOff, CutOff, Dead]),
    (Frozen, Parked, [Silent, TAKEN, TIMED_OUT, NoScrape]),
    (Frozen, HandedOut, [Silent, TAKEN, TIMED_OUT, Well]),
    (Frozen, Pulling, [Silent, TAKEN, TIMED_OUT, Well]),
    (Frozen, HeadSent, [Silent, CutOff, CutOff, Well]),
    (Frozen, HalfSent, [Silent, CutOff, CutOff, Well]),
    (Frozen, HalfRead, [Silent, CutOff, CutOff, CutOff]),
];

const NOT_POLLED: Expected = Told(504, "client phase.test has not polled for");
/// A client that is gone has taken the scrape, or has not come back for it.
const NO_PUSH: Expected = Told(504, "client phase.test ");
const TAKEN: Expected = Told(504, "client phase.test took the scrape and did not answer");
const UNREACHABLE: Expected = Told(502, "cannot reach target");
/// A connection that was used before is taken for one that the target just closed, and the client
/// asks once more.
const NO_ANSWER: Expected = Told(502, "target http://");
const TIMED_OUT: Expected = Told(504, "did not answer within");

#[tokio::test]
async fn a_proxy_that_is_killed() {
    strike(Part::Proxy, Killed).await;
}

#[tokio::test]
async fn a_proxy_that_stands_still() {
    strike(Part::Proxy, Frozen).await;
}

#[tokio::test]
async fn a_client_that_is_killed() {
    strike(Part::Client, Killed).await;
}

#[tokio::test]
async fn a_client_that_stands_still() {
    strike(Part::Client, Frozen).await;
}

#[tokio::test]
async fn a_target_that_is_killed() {
    strike(Part::Target, Killed).await;
}

#[tokio::test]
async fn a_target_that_stands_still() {
    strike(Part::Target, Frozen).await;
}

#[tokio::test]
async fn a_scraper_that_is_killed() {
    strike(Part::Scraper, Killed).await;
}

#[tokio::test]
async fn a_scraper_that_stands_still() {
    strike(Part::Scraper, Frozen).await;
}

/// Goes through the phases of the table.
async fn strike(part: Part, blow: Blow) {
    let mut chain = Chain::start().await;
    // What the first long answer costs stays with the allocator.
    let mut rehearsal = chain.scrape(HalfRead, PATIENCE);
    chain.reached(HalfRead, &mut rehearsal).await;
    rehearsal.curl.thaw();
    rehearsal.ended().await;
    let rest = chain.rest().await;
    if part == Part::Proxy {
        strike_at_each_phase(&mut chain, part, blow).await;
    } else {
        let bystander = Bystander::at(&chain.proxy).await;
        let striking = strike_at_each_phase(&mut chain, part, blow);
        bystander.meanwhile(striking).await;
        bystander.leave().await;
    }
    chain.client.daemon.kill();
    rest.returns(&chain.proxy.daemon, SOON).await;
}

async fn strike_at_each_phase(chain: &mut Chain, part: Part, blow: Blow) {
    let rest = Rest::of(&chain.client.daemon);
    for (_, phase, expected) in TABLE.into_iter().filter(|(its, _, _)| *its == blow) {
        let [of_proxy, of_client, of_target, of_scraper] = expected;
        let expected = match part {
            Part::Proxy => of_proxy,
            Part::Client => of_client,
            Part::Target => of_target,
            Part::Scraper => of_scraper,
        };
        if !matches!(expected, NoScrape) {
            strike_at(phase, chain, part, blow, expected).await;
        }
    }
    rest.descriptors_return(&chain.client.daemon, POOL_IDLE)
        .await;
}

/// One blow at one phase, and what comes of it.
async fn strike_at(phase: Phase, chain: &mut Chain, part: Part, blow: Blow, expected: Expected) {
    let patience = match expected {
        Silent => TIME,
        _ => PATIENCE,
    };
    let mut scrape = match phase {
        Parked => {
            blow.hit(chain.part(part, None)).await;
            chain.scrape(phase, patience)
        }
        HandedOut => {
            let before = chain.handed_out().await;
            chain.client.daemon.freeze();
            let scrape = chain.scrape(phase, patience);
            until("the instruction on its way", SOON, async || {
                (chain.handed_out().await > before).then_some(())
            })
            .await;
            scrape
        }
        Pulling | HeadSent | HalfSent | HalfRead => {
            let mut scrape = chain.scrape(phase, patience);
            chain.reached(phase, &mut scrape).await;
            scrape
        }
    };
    if phase != Parked {
        blow.hit(chain.part(part, Some(&mut scrape))).await;
    }
    // The others go on.
    if phase == HandedOut && part != Part::Client {
        chain.client.daemon.thaw();
    }
    if phase == HalfRead && part != Part::Scraper {
        scrape.curl.thaw();
    }
    chain.release(&scrape);
    if part == Part::Scraper && blow == Frozen {
        // It gets its answer, or the end of one, while it stands still.
        idle(TIME + Duration::from_millis(500)).await;
        scrape.curl.thaw();
    }
    let ended = scrape.ended().await;
    let is_as_expected = match (&ended, expected) {
        (Ended::Answered(200, _), Well)
        | (Ended::CutOff, CutOff)
        | (Ended::Refused, Refused)
        | (Ended::Silent, Silent)
        | (Ended::Dead, Dead) => true,
        (Ended::Answered(status, reason), Told(code, text)) => {
            *status == code && reason.contains(text)
        }
        _ => false,
    };
    assert!(
        is_as_expected,
        "{part:?} {blow:?}, {phase:?}: {ended:?} instead of {expected:?}"
    );
    match blow {
        Killed => chain.replace(part).await,
        Frozen if part == Part::Scraper => {}
        Frozen => chain.part(part, None).thaw(),
    }
    chain.heals().await;
}

impl Blow {
    async fn hit(self, daemon: &mut Daemon) {
        match self {
            Killed => {
                daemon.kill();
                daemon.ended(SOON).await;
            }
            Frozen => daemon.freeze(),
        }
    }
}

/// The client keeps connections that it may need again for 50 s.
const POOL_IDLE: Duration = Duration::from_secs(120);
