//! What stands around a client under test: the target that it pulls, and the proxy that it polls and
//! pushes to. Both are as cheap as can be, and in one thread.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::fleet::{Outcome, STUCK_AFTER, latencies};
use crate::http::{Answers, Part, Requests, Status};
use crate::messages;
use crate::payload::Payload;
use crate::poller::{Interest, Poller, Ready};

pub(crate) struct Around {
    poller: Poller,
    target: TcpListener,
    proxy: TcpListener,
    connections: Vec<Option<Connection>>,
    payload: Rc<Payload>,
    /// The answer of the target, whole.
    answer: Vec<u8>,
    /// The connection of the poll that waits.
    parked: Option<usize>,
    /// The scrape that was handed out and not answered, and when that was.
    handed_out: Option<(u32, Instant)>,
    last_id: u32,
    pushed: Option<Duration>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    requests: Requests,
    request: Asked,
    /// How much of the target's answer has not gone out.
    unsent: usize,
}

/// The request that is being read.
enum Asked {
    Pull,
    Poll,
    Push(Box<Push>),
}

/// The message inside a push.
#[derive(Default)]
struct Push {
    answers: Answers,
    id: Option<u32>,
    length: usize,
    is_whole: bool,
}

impl Around {
    /// A target that answers with `payload`, and a proxy; [`Self::target`] and [`Self::proxy`] tell
    /// where they listen.
    pub(crate) fn new(payload: &Rc<Payload>) -> anyhow::Result<Self> {
        let (poller, target, proxy) = (Poller::new()?, listen()?, listen()?);
        poller.add(&target, TARGET, Interest::Read)?;
        poller.add(&proxy, PROXY, Interest::Read)?;
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\n\
             Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n",
            payload.size()
        )
        .into_bytes();
        answer.extend_from_slice(&Payload::first_line(CLIENT));
        answer.extend_from_slice(payload.rest());
        Ok(Self {
            poller,
            target,
            proxy,
            connections: Vec::new(),
            payload: Rc::clone(payload),
            answer,
            parked: None,
            handed_out: None,
            last_id: 0,
            pushed: None,
            buffer: vec![0; 256 * 1024],
        })
    }

    pub(crate) fn target(&self) -> io::Result<SocketAddr> {
        self.target.local_addr()
    }

    pub(crate) fn proxy(&self) -> io::Result<SocketAddr> {
        self.proxy.local_addr()
    }

    /// Waits until the client's poll is parked.
    pub(crate) fn wait_for_poll(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.parked.is_none() {
            self.turn()?;
            ensure!(start.elapsed() < STUCK_AFTER, "the client does not poll");
        }
        Ok(())
    }

    /// Hands out one scrape after the other, as fast as they are answered, while `goes_on` says so
    /// of the number of those before.
    pub(crate) fn scrape(
        &mut self,
        goes_on: impl Fn(u64, Instant) -> bool,
    ) -> anyhow::Result<Outcome> {
        self.wait_for_poll()?;
        let start = Instant::now();
        let (mut last, mut latency) = (start, latencies()?);
        loop {
            if self.handed_out.is_none() {
                if !goes_on(latency.len(), Instant::now()) {
                    break;
                }
                self.hand_out()?;
            }
            self.turn()?;
            if let Some(took) = self.pushed.take() {
                latency.saturating_record(u64::try_from(took.as_micros())?);
                last = Instant::now();
            }
            ensure!(
                last.elapsed() < STUCK_AFTER,
                "the client has not answered for {} s",
                STUCK_AFTER.as_secs()
            );
        }
        Ok(Outcome {
            scrapes: latency.len(),
            elapsed: start.elapsed(),
            latency,
        })
    }

    fn hand_out(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.parked.take() else {
            return Ok(());
        };
        self.last_id += 1;
        let (mut scrape, mut instruction) = (Vec::new(), Vec::new());
        messages::scrape(CLIENT, &mut scrape);
        messages::instruction(&scrape, self.last_id, &mut instruction)
            .context("a scrape has no end")?;
        self.handed_out = Some((self.last_id, Instant::now()));
        if let Some(Some(connection)) = self.connections.get_mut(index) {
            connection.stream.write_all(&instruction)?;
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let mut ready: Vec<Ready> = Vec::new();
        self.poller.wait(Some(STUCK_AFTER), &mut ready)?;
        for event in ready {
            match event.token {
                TARGET => self.accept(true)?,
                PROXY => self.accept(false)?,
                token => self.act(usize::try_from(token)?, event)?,
            }
        }
        Ok(())
    }

    fn accept(&mut self, is_target: bool) -> anyhow::Result<()> {
        let (stream, _) = match is_target {
            true => self.target.accept()?,
            false => self.proxy.accept()?,
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let token = u64::try_from(self.connections.len())?;
        self.poller.add(&stream, token, Interest::Read)?;
        self.connections.push(Some(Connection {
            stream,
            requests: Requests::default(),
            request: Asked::Pull,
            unsent: 0,
        }));
        Ok(())
    }

    fn act(&mut self, index: usize, event: Ready) -> anyhow::Result<()> {
        let slot = self.connections.get_mut(index);
        let Some(mut connection) = slot.and_then(Option::take) else {
            return Ok(());
        };
        if event.writable {
            self.answer(index, &mut connection)?;
        }
        if event.readable && !self.receive(index, &mut connection)? {
            // The client has closed it.
            self.parked = self.parked.filter(|parked| *parked != index);
            return Ok(());
        }
        if let Some(slot) = self.connections.get_mut(index) {
            *slot = Some(connection);
        }
        Ok(())
    }

    /// Reads once; `false` when the connection has ended.
    fn receive(&mut self, index: usize, connection: &mut Connection) -> anyhow::Result<bool> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let length = match connection.stream.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.buffer = buffer;
                return Ok(true);
            }
            Err(_) => 0,
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let (request, payload) = (&mut connection.request, &self.payload);
        let mut has_come = false;
        connection.requests.read(bytes, |part| {
            match (part, &mut *request) {
                (Part::Head(path), _) => *request = Asked::by(path)?,
                (Part::Data(bytes), Asked::Push(push)) => push.read(bytes, payload)?,
                (Part::Data(_), _) => {}
                (Part::End, _) => {
                    ensure!(!has_come, "two requests came at once");
                    has_come = true;
                }
            }
            Ok(())
        })?;
        self.buffer = buffer;
        if has_come {
            self.carry_out(index, connection)?;
        }
        Ok(length > 0)
    }

    fn carry_out(&mut self, index: usize, connection: &mut Connection) -> anyhow::Result<()> {
        match &connection.request {
            Asked::Pull => {
                connection.unsent = self.answer.len();
                self.answer(index, connection)
            }
            Asked::Poll => {
                self.parked = Some(index);
                Ok(())
            }
            Asked::Push(push) => {
                ensure!(
                    push.is_whole && push.length == self.payload.size(),
                    "a push of {} bytes came instead of {}",
                    push.length,
                    self.payload.size()
                );
                match self.handed_out.take() {
                    Some((id, then)) if push.id == Some(id) => self.pushed = Some(then.elapsed()),
                    _ => bail!("a push came that nobody asked for"),
                }
                Ok(connection
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?)
            }
        }
    }

    /// Sends what fits of the target's answer.
    fn answer(&self, index: usize, connection: &mut Connection) -> anyhow::Result<()> {
        while connection.unsent > 0 {
            let from = self.answer.len() - connection.unsent;
            let rest = self.answer.get(from..).unwrap_or_default();
            match connection.stream.write(rest) {
                Ok(length) => connection.unsent -= length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the client does not take the answer"),
            }
        }
        let interest = match connection.unsent {
            0 => Interest::Read,
            _ => Interest::ReadAndWrite,
        };
        let token = u64::try_from(index)?;
        Ok(self.poller.modify(&connection.stream, token, interest)?)
    }
}

impl Asked {
    fn by(path: &str) -> anyhow::Result<Self> {
        match path {
            PULLED => Ok(Self::Pull),
            "/poll" => Ok(Self::Poll),
            "/push" => Ok(Self::Push(Box::default())),
            _ => bail!("the client asked for {path}"),
        }
    }
}

impl Push {
    fn read(&mut self, bytes: &[u8], payload: &Payload) -> anyhow::Result<()> {
        let (id, length, is_whole) = (&mut self.id, &mut self.length, &mut self.is_whole);
        self.answers.read(bytes, |part| {
            match part {
                Part::Head(Status {
                    code,
                    reason,
                    id: told,
                }) => {
                    ensure!(code == 200, "the client pushed {code} {reason}");
                    *id = told.and_then(messages::number_of);
                }
                Part::Data(bytes) => {
                    ensure!(
                        payload.matches(CLIENT, *length, bytes),
                        "the client pushed other bytes than it was given"
                    );
                    *length += bytes.len();
                }
                Part::End => *is_whole = true,
            }
            Ok(())
        })
    }
}

fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The path that the target has.
pub(crate) const PULLED: &str = "/metrics";
/// The client's number, which its name and its answers tell.
pub(crate) const CLIENT: u32 = 0;

/// No indices of connections.
const TARGET: u64 = u64::MAX;
const PROXY: u64 = u64::MAX - 1;
