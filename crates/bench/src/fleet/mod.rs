//! A fleet of fake clients and scrapers at one relay, on raw sockets and in one thread.
//!
//! | module | owns |
//! |---|---|
//! | `client` | what clients do, and on which of their connections |
//! | `load` | what scrapers do: so many scrapes at once, or so many a second |
//! | `connection`, `slots` | one connection, and all of them |
//!
//! Every answer is checked, byte for byte.

mod client;
mod connection;
mod load;
mod slots;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::messages::{self, Inner};
use crate::payload::Payload;
use crate::poller::Ready;
pub(crate) use client::Polls;
use client::{Client, Retries};
use connection::{Progress, Role};
pub(crate) use load::{Outcome, STUCK_AFTER, latencies};
use slots::Slots;

pub(crate) struct Fleet {
    pub(crate) polls: Polls,
    pub(crate) inner: Inner,
    pub(crate) payload: Rc<Payload>,
    slots: Slots,
    clients: Vec<Client>,
    idle_scrapers: Vec<usize>,
    /// Scrapes and pushes that wait for their answers.
    scrapes: usize,
    pushes: usize,
    /// Where the next scrape goes, in the order of the clients that are scraped.
    cursor: usize,
    /// Scrapes that were answered since the last look: when each was due.
    answered: Vec<Instant>,
    retries: Retries,
    /// What has gone wrong with clients' connections.
    pub(crate) failures: Failures,
    buffer: Vec<u8>,
    ready: Vec<Ready>,
}

/// What went wrong, and did not end the run.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: usize,
    pub(crate) first: Option<String>,
}

impl Fleet {
    pub(crate) fn new(
        relay: SocketAddr,
        polls: Polls,
        inner: Inner,
        payload: Rc<Payload>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            polls,
            inner,
            payload,
            slots: Slots::new(relay)?,
            clients: Vec::new(),
            idle_scrapers: Vec::new(),
            scrapes: 0,
            pushes: 0,
            cursor: 0,
            answered: Vec::new(),
            retries: Retries::default(),
            failures: Failures::default(),
            buffer: vec![0; BUFFER],
            ready: Vec::new(),
        })
    }

    /// Connects `count` clients, as fast as it goes, and has them poll.
    pub(crate) fn connect(&mut self, count: usize) -> anyhow::Result<()> {
        self.clients.resize_with(count, Client::default);
        for client in 0..u32::try_from(count)? {
            self.poll_anew(client);
            if client % EVENTS_EVERY == 0 {
                self.turn(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    /// Resets all connections at once.
    pub(crate) fn kill(&mut self) {
        self.slots.reset_all();
        self.idle_scrapers.clear();
        self.retries.clear();
        self.clients
            .iter_mut()
            .for_each(|client| *client = Client::default());
        (self.scrapes, self.pushes) = (0, 0);
    }

    /// Whether anything is under way besides parked polls.
    pub(crate) fn is_busy(&self) -> bool {
        self.scrapes + self.pushes + self.slots.sending + self.retries.len() > 0
    }

    /// Waits for events and acts on them.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> anyhow::Result<()> {
        self.retry();
        let mut ready = std::mem::take(&mut self.ready);
        self.slots.wait(timeout, &mut ready)?;
        for event in &ready {
            self.act(*event)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn act(&mut self, event: Ready) -> anyhow::Result<()> {
        let Some(index) = self.slots.of_event(event) else {
            return Ok(());
        };
        let is_sending = |slots: &mut Slots| slots.get(index).is_some_and(|it| it.is_sending);
        if event.writable && is_sending(&mut self.slots) {
            let sent = self.slots.send(index, &self.payload);
            sent.or_else(|error| self.lost(index, &error))?;
        }
        if !event.readable {
            return Ok(());
        }
        let Some(connection) = self.slots.get(index) else {
            return Ok(());
        };
        match connection.receive(&mut self.buffer, &self.payload)? {
            Progress::Nothing => Ok(()),
            Progress::Closed(error) => self.lost(index, &error),
            Progress::Answered { status, body } => self.answered(index, status, &body),
        }
    }

    fn answered(&mut self, index: usize, status: u16, body: &[u8]) -> anyhow::Result<()> {
        let Some(connection) = self.slots.get(index) else {
            return Ok(());
        };
        match connection.role {
            Role::Poll { client } => {
                connection.role = Role::ClientIdle { client };
                self.polled(index, client, status, body)
            }
            Role::Push { client } => {
                connection.role = Role::ClientIdle { client };
                self.pushed(index, client, status)
            }
            Role::Scrape { due, .. } => {
                connection.role = Role::ScraperIdle;
                self.idle_scrapers.push(index);
                self.scrapes -= 1;
                self.answered.push(due);
                Ok(())
            }
            Role::ClientIdle { .. } | Role::ScraperIdle => bail!("an answer that nobody asked for"),
        }
    }

    fn scrape(&mut self, client: u32, due: Instant) -> anyhow::Result<()> {
        let index = match self.idle_scrapers.pop() {
            Some(index) => index,
            None => self
                .slots
                .open(Role::ScraperIdle)
                .context("a scraper cannot connect")?,
        };
        if let Some(connection) = self.slots.get(index) {
            connection.role = Role::Scrape { client, due };
            connection.head.clear();
            messages::scrape(client, &mut connection.head);
        }
        self.scrapes += 1;
        self.begin(index)
    }

    fn begin(&mut self, index: usize) -> anyhow::Result<()> {
        let begun = self.slots.begin(index, &self.payload);
        begun.or_else(|error| self.lost(index, &error))
    }

    /// A connection has ended that the fleet did not end.
    fn lost(&mut self, index: usize, error: &std::io::Error) -> anyhow::Result<()> {
        let Some(connection) = self.slots.get(index) else {
            return Ok(());
        };
        let role = connection.role;
        self.slots.close(index);
        match role {
            Role::ScraperIdle => self.idle_scrapers.retain(|idle| *idle != index),
            Role::Scrape { client, .. } => {
                bail!("the connection of a scrape of client {client} ended: {error}")
            }
            Role::Push { client } => {
                bail!("the connection of a push of client {client} ended: {error}")
            }
            Role::ClientIdle { client } => self.forget_idle(client),
            Role::Poll { client } => {
                let why = format!("the poll of client {client} ended: {error}");
                self.try_later(client, &why);
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Closed one by one, they would wait in the kernel for a minute, 18,000 at a time.
        self.slots.reset_all();
    }
}

const BUFFER: usize = 256 * 1024;
/// Connections that are opened before the events on those before are looked at.
const EVENTS_EVERY: u32 = 64;
