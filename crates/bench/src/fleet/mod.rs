//! A fleet of fake clients and scrapers at one relay, on raw sockets and in one thread.
//!
//! Clients do what real ones do: at an instruction they poll again at once on their other
//! connection, then push on the one that the instruction came on. Every answer is checked.

mod connection;
mod load;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::messages::{self, Inner};
use crate::payload::Payload;
use crate::poller::{Interest, Poller, Ready};
use connection::{Connection, Progress, Role};
pub(crate) use load::Outcome;

/// How clients use their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PerClient {
    /// One: the next poll follows the push
    One,
    /// Two, as real clients: the next poll goes out before the push, on the other connection
    Two,
}

pub(crate) struct Fleet {
    relay: SocketAddr,
    pub(crate) per_client: PerClient,
    pub(crate) inner: Inner,
    pub(crate) payload: Rc<Payload>,
    poller: Poller,
    slots: Vec<Slot>,
    free: Vec<u32>,
    clients: Vec<Client>,
    idle_scrapers: Vec<u32>,
    /// Scrapes and pushes that wait for their answers.
    scrapes: usize,
    pushes: usize,
    /// Requests that are not out yet.
    sending: usize,
    /// Where the next scrape goes, in the order of the clients that are scraped.
    cursor: usize,
    /// Scrapes that were answered since the last look: when each was due.
    answered: Vec<Instant>,
    /// Clients that poll again after a pause.
    retries: VecDeque<(Instant, u32)>,
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

/// A place for a connection. The generation tells an event of the one before from its own.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

#[derive(Debug, Default)]
struct Client {
    /// Its connection that nothing is asked on.
    idle: Option<u32>,
    /// Open connections.
    open: u8,
    /// It polls as soon as it has a connection for that.
    owes_poll: bool,
}

impl Fleet {
    pub(crate) fn new(
        relay: SocketAddr,
        per_client: PerClient,
        inner: Inner,
        payload: Rc<Payload>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            relay,
            per_client,
            inner,
            payload,
            poller: Poller::new()?,
            slots: Vec::new(),
            free: Vec::new(),
            clients: Vec::new(),
            idle_scrapers: Vec::new(),
            scrapes: 0,
            pushes: 0,
            sending: 0,
            cursor: 0,
            answered: Vec::new(),
            retries: VecDeque::new(),
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
        for index in 0..self.slots.len() {
            if let Some(connection) = self
                .slots
                .get(index)
                .and_then(|slot| slot.connection.as_ref())
            {
                connection.reset();
                self.drop_connection(index);
            }
        }
        self.idle_scrapers.clear();
        self.retries.clear();
        self.clients
            .iter_mut()
            .for_each(|client| *client = Client::default());
        (self.scrapes, self.pushes, self.sending) = (0, 0, 0);
    }

    /// Whether anything is under way besides parked polls.
    pub(crate) fn is_busy(&self) -> bool {
        self.scrapes + self.pushes + self.sending + self.retries.len() > 0
    }

    /// Waits for events and acts on them.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> anyhow::Result<()> {
        self.retry();
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(timeout, &mut ready)?;
        for event in &ready {
            self.act(*event)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn act(&mut self, event: Ready) -> anyhow::Result<()> {
        let (index, generation) = ((event.token & 0xffff_ffff) as usize, event.token >> 32);
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        if u64::from(slot.generation) != generation {
            return Ok(());
        }
        let Some(connection) = &mut slot.connection else {
            return Ok(());
        };
        if event.writable && connection.is_sending {
            self.send(index)?;
        }
        if !event.readable {
            return Ok(());
        }
        let Some(connection) = self
            .slots
            .get_mut(index)
            .and_then(|slot| slot.connection.as_mut())
        else {
            return Ok(());
        };
        match connection.receive(&mut self.buffer, &self.payload)? {
            Progress::Nothing => Ok(()),
            Progress::Closed(error) => self.lost(index, &error),
            Progress::Answered { status, body } => self.answered(index, status, &body),
        }
    }

    fn answered(&mut self, index: usize, status: u16, body: &[u8]) -> anyhow::Result<()> {
        let Some(connection) = self.connection(index) else {
            return Ok(());
        };
        match connection.role {
            Role::Poll { client } if status == 200 => {
                connection.role = Role::ClientIdle { client };
                self.carry_out(index, client, body)
            }
            // The poll's time is up.
            Role::Poll { client } if matches!(status, 204 | 408) => self.poll(index, client),
            Role::Poll { client } => {
                bail!("the poll of client {client} was answered {status}")
            }
            Role::Push { client } => {
                connection.role = Role::ClientIdle { client };
                self.pushes -= 1;
                if !(200..300).contains(&status) {
                    bail!("the push of client {client} was answered {status}");
                }
                let Some(state) = self.clients.get_mut(client as usize) else {
                    return Ok(());
                };
                if std::mem::take(&mut state.owes_poll) {
                    return self.poll(index, client);
                }
                state.idle = u32::try_from(index).ok();
                Ok(())
            }
            Role::Scrape { due, .. } => {
                connection.role = Role::ScraperIdle;
                self.idle_scrapers.push(u32::try_from(index)?);
                self.scrapes -= 1;
                self.answered.push(due);
                Ok(())
            }
            Role::ClientIdle { .. } | Role::ScraperIdle => bail!("an answer that nobody asked for"),
        }
    }

    /// Polls again and pushes, as an instruction says.
    fn carry_out(&mut self, index: usize, client: u32, instruction: &[u8]) -> anyhow::Result<()> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        request
            .parse(instruction)
            .context("an instruction is no request")?;
        let id = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("id"))
            .context("an instruction has no id")?;
        let id = std::str::from_utf8(id.value)?;
        if let Some(state) = self.clients.get_mut(client as usize) {
            match (self.per_client, state.idle.take()) {
                (PerClient::Two, Some(other)) => self.poll(other as usize, client)?,
                (PerClient::Two, None) if state.open < 2 => self.poll_anew(client),
                _ => state.owes_poll = true,
            }
        }
        let (payload, inner) = (Rc::clone(&self.payload), self.inner);
        if let Some(connection) = self.connection(index) {
            connection.role = Role::Push { client };
            connection.head.clear();
            messages::push_head(id, client, &payload, inner, &mut connection.head);
            connection.tail = Some(messages::push_tail(inner));
        }
        self.pushes += 1;
        self.begin(index)
    }

    fn poll(&mut self, index: usize, client: u32) -> anyhow::Result<()> {
        if let Some(connection) = self.connection(index) {
            connection.role = Role::Poll { client };
            connection.head.clear();
            messages::poll(client, &mut connection.head);
        }
        self.begin(index)
    }

    /// Polls on a new connection, now or after a pause.
    fn poll_anew(&mut self, client: u32) {
        let opened = self.open(Role::Poll { client }).and_then(|index| {
            if let Some(state) = self.clients.get_mut(client as usize) {
                state.open += 1;
            }
            self.poll(index, client)
        });
        if let Err(error) = opened {
            self.try_later(
                client,
                &format!("client {client} cannot connect: {error:#}"),
            );
        }
    }

    fn try_later(&mut self, client: u32, why: &str) {
        self.failures.count += 1;
        self.failures.first.get_or_insert_with(|| why.to_owned());
        self.retries
            .push_back((Instant::now() + RETRY_AFTER, client));
    }

    fn retry(&mut self) {
        while let Some((due, client)) = self.retries.front().copied()
            && due <= Instant::now()
        {
            self.retries.pop_front();
            self.poll_anew(client);
        }
    }

    fn scrape(&mut self, client: u32, due: Instant) -> anyhow::Result<()> {
        let index = match self.idle_scrapers.pop() {
            Some(index) => index as usize,
            None => self
                .open(Role::ScraperIdle)
                .context("a scraper cannot connect")?,
        };
        if let Some(connection) = self.connection(index) {
            connection.role = Role::Scrape { client, due };
            connection.head.clear();
            messages::scrape(client, &mut connection.head);
        }
        self.scrapes += 1;
        self.begin(index)
    }

    fn open(&mut self, role: Role) -> anyhow::Result<usize> {
        let connection = Connection::open(self.relay, role)?;
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.generation += 1;
            let token = token(index, slot.generation);
            self.poller.add(&connection.stream, token, Interest::Read)?;
            slot.connection = Some(connection);
        }
        Ok(index)
    }

    fn begin(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(connection) = self.connection(index) {
            connection.begin();
            self.sending += 1;
        }
        self.send(index)
    }

    fn send(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        let Some(connection) = &mut slot.connection else {
            return Ok(());
        };
        let is_out = match connection.send(&self.payload) {
            Ok(is_out) => is_out,
            Err(error) => return self.lost(index, &error),
        };
        if is_out {
            self.sending -= 1;
        }
        // What does not fit, or has no connection yet, goes on when the socket can be written.
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

    /// A connection has ended that the fleet did not end.
    fn lost(&mut self, index: usize, error: &std::io::Error) -> anyhow::Result<()> {
        let Some(connection) = self.connection(index) else {
            return Ok(());
        };
        let role = connection.role;
        if connection.is_sending {
            self.sending -= 1;
        }
        self.drop_connection(index);
        match role {
            Role::ScraperIdle => self.idle_scrapers.retain(|idle| *idle as usize != index),
            Role::Scrape { client, .. } => {
                bail!("the connection of a scrape of client {client} ended: {error}")
            }
            Role::Push { client } => {
                bail!("the connection of a push of client {client} ended: {error}")
            }
            Role::ClientIdle { client } => {
                if let Some(state) = self.clients.get_mut(client as usize) {
                    state.open -= 1;
                    state.idle = None;
                }
            }
            Role::Poll { client } => {
                if let Some(state) = self.clients.get_mut(client as usize) {
                    state.open -= 1;
                }
                self.try_later(
                    client,
                    &format!("the poll of client {client} ended: {error}"),
                );
            }
        }
        Ok(())
    }

    fn drop_connection(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.connection = None;
            // Indices come from 32 bits in the first place.
            self.free.extend(u32::try_from(index));
        }
    }

    fn connection(&mut self, index: usize) -> Option<&mut Connection> {
        self.slots.get_mut(index)?.connection.as_mut()
    }
}

fn token(index: usize, generation: u32) -> u64 {
    (u64::from(generation) << 32) | index as u64
}

const BUFFER: usize = 256 * 1024;
/// Connections that are opened before the events on those before are looked at.
const EVENTS_EVERY: u32 = 64;
const RETRY_AFTER: Duration = Duration::from_secs(1);
