//! What the fleet's clients do: poll, and at an instruction poll again and push.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Fleet;
use super::connection::Role;
use crate::messages;

/// Which connections polls go out on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Polls {
    /// The next poll on the connection of the last, the push on another, as real clients do: the
    /// connection that was used last is the first that their pools give away again
    Same,
    /// The next poll on another connection, the push on that of the last poll
    Alternate,
    /// The next poll behind the push, on the only connection that a client has
    Behind,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    /// Its connection that nothing is asked on.
    idle: Option<usize>,
}

/// Clients that poll again after a pause.
#[derive(Debug, Default)]
pub(super) struct Retries {
    queue: VecDeque<(Instant, u32)>,
}

impl Retries {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    fn next(&mut self) -> Option<u32> {
        let (due, client) = self.queue.front().copied()?;
        (due <= Instant::now()).then(|| {
            self.queue.pop_front();
            client
        })
    }
}

impl Fleet {
    /// Polls on a new connection, now or after a pause.
    pub(super) fn poll_anew(&mut self, client: u32) {
        let polled = match self.slots.open(Role::Poll { client }) {
            Ok(index) => self.poll(index, client),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = polled {
            self.try_later(
                client,
                &format!("client {client} cannot connect: {error:#}"),
            );
        }
    }

    pub(super) fn try_later(&mut self, client: u32, why: &str) {
        self.failures.count += 1;
        self.failures.first.get_or_insert_with(|| why.to_owned());
        let due = Instant::now() + RETRY_AFTER;
        self.retries.queue.push_back((due, client));
    }

    pub(super) fn retry(&mut self) {
        while let Some(client) = self.retries.next() {
            self.poll_anew(client);
        }
    }

    /// A poll was answered.
    pub(super) fn polled(
        &mut self,
        index: usize,
        client: u32,
        status: u16,
        body: &[u8],
    ) -> anyhow::Result<()> {
        match status {
            200 => self.carry_out(index, client, body),
            // The poll's time is up.
            204 | 408 => self.poll(index, client),
            _ => bail!("the poll of client {client} was answered {status}"),
        }
    }

    /// A push was answered.
    pub(super) fn pushed(&mut self, index: usize, client: u32, status: u16) -> anyhow::Result<()> {
        self.pushes -= 1;
        if !(200..300).contains(&status) {
            bail!("the push of client {client} was answered {status}");
        }
        if self.polls == Polls::Behind {
            return self.poll(index, client);
        }
        let idle = self.clients.get_mut(client as usize);
        match idle.map(|client| &mut client.idle) {
            Some(idle @ None) => *idle = Some(index),
            // Two pushes were under way at once, and took a connection more than is kept.
            _ => self.slots.close(index),
        }
        Ok(())
    }

    /// An idle connection has ended.
    pub(super) fn forget_idle(&mut self, client: u32) {
        if let Some(client) = self.clients.get_mut(client as usize) {
            client.idle = None;
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
        let idle = self
            .clients
            .get_mut(client as usize)
            .and_then(|client| client.idle.take());
        match (self.polls, idle) {
            (Polls::Same, Some(other)) => {
                self.poll(index, client)?;
                self.push(other, client, id)
            }
            (Polls::Same, None) => {
                self.poll(index, client)?;
                let other = self
                    .slots
                    .open(Role::ClientIdle { client })
                    .with_context(|| format!("client {client} cannot connect for its push"))?;
                self.push(other, client, id)
            }
            (Polls::Alternate, Some(other)) => {
                self.poll(other, client)?;
                self.push(index, client, id)
            }
            (Polls::Alternate, None) => {
                self.poll_anew(client);
                self.push(index, client, id)
            }
            (Polls::Behind, _) => self.push(index, client, id),
        }
    }

    fn poll(&mut self, index: usize, client: u32) -> anyhow::Result<()> {
        if let Some(connection) = self.slots.get(index) {
            connection.role = Role::Poll { client };
            connection.head.clear();
            messages::poll(client, &mut connection.head);
        }
        self.begin(index)
    }

    fn push(&mut self, index: usize, client: u32, id: &str) -> anyhow::Result<()> {
        let (payload, inner) = (Rc::clone(&self.payload), self.inner);
        if let Some(connection) = self.slots.get(index) {
            connection.role = Role::Push { client };
            connection.head.clear();
            messages::push_head(id, client, &payload, inner, &mut connection.head);
            connection.tail = Some(messages::push_tail(inner));
        }
        self.pushes += 1;
        self.begin(index)
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);
