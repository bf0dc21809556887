//! The rules R1 to R8 of the protocol, and what else a user may rely on.

use std::time::Duration;

use pushprox_protocol::ScrapeId;

use super::super::state::{Arrival, Lost, Parked};
use super::{World, bounds};
use crate::error::Failure;

#[test]
fn r1_a_poll_gets_one_scrape_at_most() {
    let mut world = World::new();
    world.parked("a", 1);
    assert_eq!(world.met(10, "a"), Some(1));
    assert_eq!(world.met(11, "a"), None);
}

#[test]
fn r2_a_poll_that_has_left_is_never_chosen() {
    let mut world = World::new();
    world.parked("a", 1);
    let newest = world.parked("a", 2);
    world.state.unpark(newest, world.now);
    assert_eq!(world.met(10, "a"), Some(1));
}

#[test]
fn r2_a_scrape_that_did_not_reach_its_client_goes_to_the_next_in_its_old_place() {
    let mut world = World::new();
    world.parked("a", 1);
    assert_eq!(world.met(10, "a"), Some(1));
    world.pass(1);
    assert_eq!(world.met(11, "a"), None);
    let back = world.lost(10, 1, Lost::Unsent);
    assert!(matches!(back, Some(Arrival::Waits(_))));
    assert_eq!(world.complete(10), None, "nobody has it in hand");
    assert_eq!(world.handed("a", 2), Some(10));
    assert_eq!(world.handed("a", 3), Some(11));
}

#[test]
fn a_scrape_that_its_client_has_not_seen_goes_to_the_next() {
    let mut world = World::new();
    world.parked("a", 1);
    assert_eq!(world.met(10, "a"), Some(1));
    assert!(matches!(
        world.lost(10, 1, Lost::Unseen),
        Some(Arrival::Waits(_))
    ));
    assert_eq!(world.handed("a", 2), Some(10));
    // What is said of the first time does not count any more.
    assert!(world.lost(10, 1, Lost::Unseen).is_none());
    assert!(world.doubt(10, 1).is_none());
    assert_eq!(world.doubted("a"), [0; 0]);
    assert_eq!(world.complete(10), Some(10));
}

#[test]
fn an_answer_of_a_client_that_had_it_after_all_is_taken_and_nobody_else_is_asked() {
    let mut world = World::new();
    world.parked("a", 1);
    assert_eq!(world.met(10, "a"), Some(1));
    assert!(world.lost(10, 1, Lost::Unseen).is_some());
    assert_eq!(world.complete(10), Some(10));
    assert_eq!(world.handed("a", 2), None);
    assert_eq!(world.state.scrape_count(), 0);
}

#[test]
fn a_scrape_in_doubt_stays_with_its_client_until_another_polls() {
    let mut world = World::new();
    world.parked("a", 1);
    assert_eq!(world.met(10, "a"), Some(1));
    assert!(world.doubt(10, 1).is_none());
    assert_eq!(world.doubted("a"), [10]);
    assert_eq!(world.doubted("b"), [0; 0]);
    // The client shows that it has it.
    world.state.settle(ScrapeId::from(10), 1);
    assert_eq!(world.handed("a", 2), None);
    assert_eq!(world.doubted("a"), [0; 0]);
    // With a poll there already, it goes to that one at once.
    assert!(matches!(world.doubt(10, 1), Some(Arrival::Meets(2, _))));
    assert_eq!(world.complete(10), Some(10));
}

#[test]
fn no_doubt_outlasts_its_scrape() {
    let mut world = World::new();
    for (poll, number) in (1..).zip(10..14) {
        world.parked("a", poll);
        assert_eq!(world.met(number, "a"), Some(poll));
    }
    for number in 10..14 {
        assert!(world.doubt(number, 1).is_none());
    }
    world.state.cancel(ScrapeId::from(10));
    assert_eq!(world.complete(11), Some(11));
    world.pass(10);
    assert!(world.timed_out(12).is_err());
    assert_eq!(world.doubted("a"), [13]);
    world.state.abandon();
    assert_eq!(world.doubted("a"), [0; 0]);
    assert!(world.state.is_sound());
}

#[test]
fn r3_the_newest_poll_is_served_first_and_none_ends_another() {
    let mut world = World::new();
    let first = world.parked("a", 1);
    world.parked("a", 2);
    world.parked("a", 3);
    assert_eq!(world.met(10, "a"), Some(3));
    world.state.unpark(first, world.now);
    assert_eq!(world.met(11, "a"), Some(2));
}

#[test]
fn r4_scrapes_are_served_oldest_first() {
    let mut world = World::new();
    for number in 10..13 {
        assert_eq!(world.met(number, "a"), None);
    }
    for number in 10..13 {
        assert_eq!(world.handed("a", number), Some(number));
    }
    assert_eq!(world.handed("a", 1), None);
}

#[test]
fn r5_a_scrape_that_is_over_is_never_handed_out() {
    let mut world = World::new();
    world.met(10, "a");
    world.met(11, "a");
    world.state.cancel(ScrapeId::from(10));
    world.pass(10);
    assert!(world.timed_out(11).is_err());
    assert_eq!(world.handed("a", 1), None);
    assert_eq!(world.state.scrape_count(), 0);
}

#[test]
fn r6_a_push_is_delivered_once_and_only_while_its_scrape_is_in_hand() {
    let mut world = World::new();
    world.parked("a", 1);
    world.met(10, "a");
    world.met(11, "a");
    assert_eq!(world.complete(12), None, "unknown");
    assert_eq!(world.complete(11), None, "not handed out");
    assert_eq!(world.complete(10), Some(10));
    assert_eq!(world.complete(10), None, "answered");
    world.parked("b", 2);
    world.met(13, "b");
    world.pass(10);
    assert!(world.timed_out(13).is_err());
    assert_eq!(world.complete(13), None, "over");
}

#[test]
fn r8_a_name_lives_while_it_polls_and_its_time_beyond() {
    let mut world = World::new();
    let key = world.parked("a", 1);
    world.pass(10_000);
    world.state.expire(world.now);
    assert_eq!(world.names(), ["a"]);
    world.state.unpark(key, world.now);
    world.pass(299);
    world.state.expire(world.now);
    assert_eq!(world.names(), ["a"]);
    world.pass(1);
    world.state.expire(world.now);
    assert_eq!(world.names(), [""; 0]);
    assert_eq!(world.state.next_expiry(), None, "no timer stays behind");
}

#[test]
fn the_exact_name_comes_before_the_bare_one() {
    let mut world = World::new();
    world.parked("a", 1);
    world.parked("A:9100", 2);
    assert_eq!(world.met(10, "a:9100"), Some(2));
    // The exact client is registered, and busy: the bare one would pull from another place.
    assert_eq!(world.met(11, "a:9100"), None);
    assert_eq!(world.met(12, "a:9200"), Some(1));
    assert_eq!(world.handed("a", 3), None);
    assert_eq!(world.handed("a:9100", 4), Some(11));
}

#[test]
fn a_portless_target_is_port_80() {
    let mut world = World::new();
    world.parked("a:80", 1);
    world.parked("a:81", 2);
    assert_eq!(world.met(10, "a"), Some(1));
}

#[test]
fn a_scrape_falls_to_the_bare_name_when_the_exact_one_is_gone() {
    let mut world = World::new();
    let key = world.parked("a:9100", 1);
    world.state.unpark(key, world.now);
    world.pass(295);
    world.parked("a", 2);
    assert_eq!(world.met(10, "a:9100"), None);
    world.pass(5);
    let (ended, met) = world.state.expire(world.now);
    assert!(ended.is_empty());
    assert_eq!(met.len(), 1);
    assert_eq!((met[0].0, met[0].1.scrape), (2, 10));
}

#[test]
fn a_name_that_nobody_registered_is_waited_for_five_seconds() {
    let mut world = World::new();
    assert!(
        matches!(world.scrape(10, "a", 10), Arrival::Waits(until) if until == world.now + bounds().unregistered_wait)
    );
    world.pass(5);
    assert_eq!(
        world.timed_out(10),
        Err(Failure::NotRegistered {
            name: "a:80".to_owned()
        })
    );
}

#[test]
fn a_name_that_comes_late_is_waited_for_as_long_as_any() {
    let mut world = World::new();
    world.met(10, "a");
    world.met(11, "a");
    world.pass(4);
    assert_eq!(world.handed("a", 1), Some(10));
    world.pass(1);
    assert_eq!(world.timed_out(11), Ok(Duration::from_secs(10)));
    world.pass(5);
    assert_eq!(
        world.timed_out(11),
        Err(Failure::NotPolled {
            name: "a".to_owned(),
            since: Duration::from_secs(6)
        })
    );
    assert_eq!(
        world.timed_out(10),
        Err(Failure::NotAnswered {
            name: "a".to_owned(),
            after: Duration::from_secs(6)
        })
    );
}

#[test]
fn a_poll_ends_when_its_wait_is_over() {
    let mut world = World::new();
    world.park("a", 1, Some(45));
    world.park("a", 2, Some(30));
    assert_eq!(
        world.state.next_expiry(),
        Some(world.now + Duration::from_secs(30))
    );
    world.pass(30);
    assert_eq!(world.state.expire(world.now).0, [2]);
    assert_eq!(world.met(10, "a"), Some(1));
    world.pass(15);
    assert!(world.state.expire(world.now).0.is_empty());
}

#[test]
fn what_peers_can_pile_up_is_bounded() {
    let mut world = World::new();
    for number in 0..50 {
        assert_eq!(world.met(number, "a"), None);
    }
    assert!(matches!(
        world.scrape(100, "a:9100", 10),
        Arrival::Refused(Failure::TooManyWaitingFor { host }) if host == "a"
    ));
    for number in 50..100 {
        assert_eq!(world.met(number, "b"), None);
    }
    assert!(matches!(
        world.scrape(101, "c", 10),
        Arrival::Refused(Failure::TooManyWaiting)
    ));
    world.parked("d", 1);
    assert_eq!(world.met(102, "d"), Some(1), "it does not have to wait");
    for number in 1..100 {
        world.park(&format!("n{number}"), number, None);
    }
    assert!(matches!(world.park("full", 1, None), Parked::Refused));
    assert_eq!(world.handed("d", 2), None, "a known name is no new one");
}

#[test]
fn a_drain_leaves_only_what_clients_have_in_hand() {
    let mut world = World::new();
    world.parked("a", 1);
    world.met(10, "a");
    world.met(11, "a");
    let parked = world.parked("b", 9);
    let (polls, scrapes) = world.state.drain(world.now);
    assert_eq!((polls, scrapes), (vec![9], vec![11]));
    assert_eq!(world.state.unpark(parked, world.now), None);
    assert_eq!(world.state.scrape_count(), 1);
    assert!(matches!(world.park("a", 2, None), Parked::Refused));
    assert!(matches!(
        world.scrape(12, "a", 10),
        Arrival::Refused(Failure::ShuttingDown)
    ));
    assert_eq!(world.complete(10), Some(10));
    assert!(
        world
            .state
            .give_back(ScrapeId::from(11), 1, Lost::Unsent, world.now)
            .is_none()
    );
}
