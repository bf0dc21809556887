//! Hand-outs that were sent, and of which it is not sure that their clients have them.

use tokio::time::Instant;

use super::state::Lost;
use super::{HandOut, Rendezvous, Sent};
use crate::http1::link::Link;

impl Rendezvous {
    /// All signs are that the client has not seen it: it goes to the next poll.
    pub(crate) fn unseen(&self, sent: Sent) {
        self.give_back(sent.id, sent.turn, Lost::Unseen);
    }

    /// The client's system does not acknowledge it on this connection: it goes to another poll, if
    /// there is one or one comes while that is so.
    pub(crate) fn doubt(&self, sent: Sent, link: Link) {
        let arrival = {
            let state = &mut self.shared.meetings.lock().state;
            if let Some(outgoing) = state.in_hand(sent.id) {
                *outgoing.doubtful.lock() = Some(link);
            }
            state.doubt(sent.id, sent.turn, Instant::now())
        };
        self.meet(arrival);
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
            match link.and_then(|link| link.is_acknowledged()) {
                Some(true) => self.settle(Sent { id, turn }),
                Some(false) => {
                    let now = Instant::now();
                    let mut meetings = self.shared.meetings.lock();
                    let again = meetings.state.give_back(id, turn, Lost::Unseen, now);
                    drop(meetings);
                    if self.meet(again) {
                        // The poll has one; the rest is for others.
                        return;
                    }
                }
                // The connection is gone, and whoever watches it decides.
                None => {}
            }
        }
    }
}
