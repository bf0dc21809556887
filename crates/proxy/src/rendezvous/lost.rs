//! Hand-outs that were sent, and of which it is not sure that their clients have them.

use tokio::time::Instant;

use super::state::Lost;
use super::{HandOut, Rendezvous, Sent, call};
use crate::http1::link::Link;

impl Rendezvous {
    /// All signs are that the client has not seen it: it goes to the next poll.
    pub(crate) fn unseen(&self, sent: Sent) {
        self.give_back(sent.id, sent.turn, Lost::Unseen);
    }

    /// The client's system does not acknowledge it on this connection: it goes to another poll, if
    /// there is one or one comes while that is so.
    pub(crate) fn doubt(&self, sent: Sent, link: Link) {
        let mut meetings = self.shared.meetings.lock();
        if let Some(outgoing) = meetings.state.handed_out(sent.id, sent.turn) {
            *outgoing.doubtful.lock() = Some(link);
        }
        let again = meetings.state.doubt(sent.id, sent.turn, Instant::now());
        let called = meetings.meet(again);
        drop(meetings);
        call(called);
    }

    /// The client has shown that it has it.
    pub(crate) fn settle(&self, sent: Sent) {
        self.shared.meetings.lock().state.settle(sent.id, sent.turn);
    }

    /// A client polls under a name for which there are hand-outs in doubt: it may be one that did
    /// not get them. One that it did get has been acknowledged by now.
    pub(super) fn look_into(&self, doubted: Vec<HandOut>) {
        for hand_out in doubted {
            let HandOut { id, turn, scrape } = hand_out;
            let link = *scrape.doubtful.lock();
            let is_given = match link.and_then(|link| link.is_acknowledged()) {
                Some(true) => {
                    self.settle(Sent { id, turn });
                    false
                }
                Some(false) => self.give_back(id, turn, Lost::Unseen),
                // The connection is gone, and whoever watches it decides.
                None => false,
            };
            if is_given {
                // The poll has one; the rest is for others.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pushprox_protocol::ScrapeId;
    use pushprox_protocol::message::scrape::Scrape;
    use pushprox_testkit::wait::{SOON, until};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::super::{Bounds, PollEnd};
    use super::*;
    use crate::limits::Limits;

    /// Both ends of a connection on which `bytes` have been sent; a peer that does not `read` lets
    /// the rest lie when its buffer is full.
    async fn connection(bytes: usize, reads: bool) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap());
        let (mut peer, accepted) = (peer.await.unwrap(), listener.accept().await.unwrap());
        let (mut end, all) = (accepted.0, vec![0; bytes]);
        if reads {
            end.write_all(&all).await.unwrap();
            peer.read_exact(&mut vec![0; bytes]).await.unwrap();
            let link = Link::of(&end).unwrap();
            until("the acknowledgement", SOON, async || {
                (link.is_acknowledged() == Some(true)).then_some(())
            })
            .await;
        } else {
            let wrote = timeout(Duration::from_millis(200), end.write_all(&all)).await;
            assert!(wrote.is_err());
        }
        (end, peer)
    }

    #[tokio::test]
    async fn what_is_said_of_an_earlier_connection_does_not_count_against_the_last() {
        let rendezvous = Rendezvous::new(Bounds {
            registration_timeout: Duration::from_secs(300),
            unregistered_wait: Duration::from_secs(5),
            limits: Limits::default(),
        });
        let name = "node".parse().unwrap();
        let poll = || rendezvous.park(&name, None, Instant::now()).unwrap();
        let (stuck, _peer) = connection(16 << 20, false).await;
        let (heard, _other_peer) = connection(3, true).await;
        let (stuck, heard) = (Link::of(&stuck).unwrap(), Link::of(&heard).unwrap());

        let mut first = poll();
        let scrape = Scrape::parse(b"GET http://node/ HTTP/1.1\r\n\r\n").unwrap();
        let _pending = rendezvous
            .scrape(
                ScrapeId::random(),
                scrape,
                Duration::from_secs(60),
                Instant::now(),
            )
            .unwrap();
        let sent = async |poll: &mut super::super::ParkedPoll| match poll.end().await {
            PollEnd::HandedOut(handed_out) => handed_out.sent().unwrap(),
            other => panic!("{other:?}"),
        };
        let earlier = sent(&mut first).await;
        rendezvous.doubt(earlier, stuck);
        let mut second = poll();
        let last = sent(&mut second).await;
        rendezvous.doubt(last, heard);
        rendezvous.doubt(earlier, stuck);
        let mut third = poll();
        let end = timeout(Duration::ZERO, third.end()).await;
        assert!(end.is_err(), "pulled twice: {end:?}");
    }
}
