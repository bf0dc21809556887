//! The connections of a fleet by their index, and the epoll instance that watches them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::connection::{Connection, Role};
use crate::payload::Payload;
use crate::poller::{Interest, Poller, Ready};

pub(super) struct Slots {
    relay: SocketAddr,
    poller: Poller,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Requests that are not out yet.
    pub(super) sending: usize,
}

/// A place for a connection. The generation tells an event of the one before from its own.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl Slots {
    /// Room for connections to `relay`.
    pub(super) fn new(relay: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            relay,
            poller: Poller::new()?,
            slots: Vec::new(),
            free: Vec::new(),
            sending: 0,
        })
    }

    /// Waits for events, and replaces `ready` with them.
    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        self.poller.wait(timeout, ready)
    }

    /// The index of the connection that an event is about, unless that is gone.
    pub(super) fn of_event(&self, event: Ready) -> Option<usize> {
        let (index, generation) = (event.token & 0xffff_ffff, event.token >> 32);
        let index = usize::try_from(index).ok()?;
        let slot = self.slots.get(index)?;
        (slot.connection.is_some() && u64::from(slot.generation) == generation).then_some(index)
    }

    pub(super) fn get(&mut self, index: usize) -> Option<&mut Connection> {
        self.slots.get_mut(index)?.connection.as_mut()
    }

    /// Begins to connect, and does not wait for that.
    pub(super) fn open(&mut self, role: Role) -> io::Result<usize> {
        let connection = Connection::open(self.relay, role)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.generation += 1;
            let token = token(index, slot.generation);
            self.poller.add(&connection.stream, token, Interest::Read)?;
            slot.connection = Some(connection);
        }
        Ok(index)
    }

    /// Begins to send a request: the connection's `head`, and a payload too where it has a `tail`.
    pub(super) fn begin(&mut self, index: usize, payload: &Payload) -> io::Result<()> {
        if let Some(connection) = self.get(index) {
            connection.begin();
            self.sending += 1;
        }
        self.send(index, payload)
    }

    /// Sends what fits of a request. The rest follows when the socket can be written, or has a
    /// connection at last.
    pub(super) fn send(&mut self, index: usize, payload: &Payload) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        let Some(connection) = &mut slot.connection else {
            return Ok(());
        };
        let is_out = connection.send(payload)?;
        if is_out {
            self.sending -= 1;
        }
        if is_out == connection.waits_for_write {
            connection.waits_for_write = !is_out;
            let interest = match is_out {
                true => Interest::Read,
                false => Interest::ReadAndWrite,
            };
            let token = token(index, slot.generation);
            self.poller.modify(&connection.stream, token, interest)?;
        }
        Ok(())
    }

    pub(super) fn close(&mut self, index: usize) {
        let slot = self.slots.get_mut(index);
        if let Some(connection) = slot.and_then(|slot| slot.connection.take()) {
            self.sending -= usize::from(connection.is_sending);
            self.free.push(index);
        }
    }

    /// Closes all connections by a reset, which leaves nothing behind in the kernel.
    pub(super) fn reset_all(&mut self) {
        for index in 0..self.slots.len() {
            if let Some(connection) = self.get(index) {
                connection.reset();
                self.close(index);
            }
        }
    }
}

fn token(index: usize, generation: u32) -> u64 {
    (u64::from(generation) << 32) | index as u64
}
