//! The least that any relay can do, to divide by: one thread, one epoll, one read and one write per
//! message.
//!
//! It looks for the few bytes that it must know and takes everything else for granted: its peers
//! are this program's own, which send each head in one piece. It times nothing, logs nothing,
//! counts nothing and checks nothing. A push is passed on as it comes, headers and all.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Context as _;
use hashbrown::HashTable;
use memchr::memmem;

use crate::messages;
use crate::poller::{Interest, Poller, Ready};

struct LeastRelay {
    poller: Poller,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// The connections that wait, found by the name that each holds.
    parked: HashTable<u32>,
    /// Scrapes whose client is just between two polls.
    waiting: HashMap<Box<[u8]>, VecDeque<Scrape>>,
    /// An instruction while it is put together.
    instruction: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    state: State,
    unsent: Option<Box<Unsent>>,
}

#[derive(Debug)]
enum State {
    Idle,
    Parked(Box<[u8]>),
    /// A push, with this many bytes still to come.
    Pushing {
        scrape: u32,
        left: u32,
    },
}

/// A scrape that waits: its connection, and what it says.
type Scrape = (u32, Vec<u8>);

/// What a peer did not take at once.
#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    /// The push that is not read on until this has gone out.
    push: Option<u32>,
}

/// Relays on `address` until it is killed.
pub(crate) fn run(address: SocketAddr) -> anyhow::Result<()> {
    let listener = listen(address).with_context(|| format!("cannot listen on {address}"))?;
    let mut relay = LeastRelay {
        poller: Poller::new()?,
        connections: Vec::new(),
        free: Vec::new(),
        parked: HashTable::new(),
        waiting: HashMap::new(),
        instruction: Vec::with_capacity(4096),
    };
    relay
        .poller
        .add(&listener, LISTENER, Interest::Read)
        .context("cannot wait for connections")?;
    let mut buffer = vec![0; BUFFER];
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        relay.poller.wait(None, &mut ready)?;
        for event in &ready {
            let Ok(index) = u32::try_from(event.token) else {
                relay.accept(&listener)?;
                continue;
            };
            if event.writable {
                relay.send_on(index);
            }
            if event.readable {
                relay.receive(index, &mut buffer);
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

impl LeastRelay {
    fn accept(&mut self, listener: &TcpListener) -> anyhow::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            };
            stream.set_nonblocking(true)?;
            let index = match self.free.pop() {
                Some(index) => index,
                None => {
                    self.connections.push(None);
                    u32::try_from(self.connections.len() - 1)?
                }
            };
            self.poller.add(&stream, index.into(), Interest::Read)?;
            if let Some(slot) = self.connections.get_mut(index as usize) {
                *slot = Some(Connection {
                    stream,
                    state: State::Idle,
                    unsent: None,
                });
            }
        }
    }

    fn receive(&mut self, index: u32, buffer: &mut [u8]) {
        let Some(connection) = self.connection(index) else {
            return;
        };
        let length = match connection.stream.read(buffer) {
            Ok(length @ 1..) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(0) | Err(_) => return self.close(index),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let is_taken = match connection.state {
            State::Pushing { scrape, left } => self.pass_on(index, scrape, left, bytes),
            State::Idle | State::Parked(_) => match bytes.first() {
                Some(b'G') => self.scrape(index, bytes),
                _ if bytes.starts_with(b"POST /poll") => self.poll(index, bytes),
                _ => self.push(index, bytes),
            },
        };
        if is_taken.is_none() {
            self.close(index);
        }
    }

    fn scrape(&mut self, index: u32, bytes: &[u8]) -> Option<()> {
        let behind_scheme = bytes.get(b"GET http://".len()..)?;
        let name = behind_scheme.get(..memchr::memchr2(b':', b'/', behind_scheme)?)?;
        let found = self
            .parked
            .find_entry(hash(name), |parked| holds(&self.connections, *parked, name));
        match found {
            Ok(entry) => {
                let (parked, _) = entry.remove();
                self.hand_out(index, bytes, parked)
            }
            Err(_) => {
                let waiting = self.waiting.entry(name.into()).or_default();
                waiting.push_back((index, bytes.to_vec()));
                Some(())
            }
        }
    }

    fn hand_out(&mut self, scrape: u32, bytes: &[u8], parked: u32) -> Option<()> {
        let mut instruction = std::mem::take(&mut self.instruction);
        instruction.clear();
        messages::instruction(bytes, scrape, &mut instruction)?;
        if let Some(connection) = self.connection(parked) {
            connection.state = State::Idle;
        }
        self.send(parked, &instruction, None);
        self.instruction = instruction;
        Some(())
    }

    fn poll(&mut self, index: u32, bytes: &[u8]) -> Option<()> {
        let end = memmem::find(bytes, b"\r\n\r\n")?;
        let name = bytes.get(end + 4..)?;
        if !self.waiting.is_empty()
            && let Some(scrapes) = self.waiting.get_mut(name)
        {
            let first = scrapes.pop_front();
            if scrapes.is_empty() {
                self.waiting.remove(name);
            }
            if let Some((scrape, bytes)) = first {
                return self.hand_out(scrape, &bytes, index);
            }
        }
        self.connection(index)?.state = State::Parked(name.into());
        let connections = &self.connections;
        self.parked.insert_unique(hash(name), index, |parked| {
            match connections.get(*parked as usize) {
                Some(Some(Connection {
                    state: State::Parked(name),
                    ..
                })) => hash(name),
                _ => 0,
            }
        });
        Some(())
    }

    fn push(&mut self, index: u32, bytes: &[u8]) -> Option<()> {
        let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
        let length = memmem::find(bytes, b"Content-Length: ")?;
        let message = bytes.get(head..)?;
        let length = number(bytes.get(length + 16..)?);
        let id = memmem::find(message, b"\r\nId: ")?;
        let scrape = messages::number_of(message.get(id + 6..)?)?;
        self.pass_on(index, scrape, length, message)
    }

    /// Passes bytes of a push on, of which `left` are to come with these.
    fn pass_on(&mut self, index: u32, scrape: u32, left: u32, bytes: &[u8]) -> Option<()> {
        let left = left.checked_sub(u32::try_from(bytes.len()).ok()?)?;
        self.send(scrape, bytes, (left > 0).then_some(index));
        if left > 0 {
            self.connection(index)?.state = State::Pushing { scrape, left };
        } else {
            self.connection(index)?.state = State::Idle;
            self.send(index, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None);
        }
        Some(())
    }

    /// Sends bytes. What does not fit is sent later, and `push` is not read on before that.
    fn send(&mut self, index: u32, bytes: &[u8], push: Option<u32>) {
        let Some(connection) = self.connection(index) else {
            return;
        };
        if let Some(unsent) = &mut connection.unsent {
            unsent.bytes.extend_from_slice(bytes);
            return;
        }
        let sent = match connection.stream.write(bytes) {
            Ok(sent) if sent == bytes.len() => return,
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // The end of the connection shows when it is read.
            Err(_) => return,
        };
        let rest = bytes.get(sent..).unwrap_or_default().to_vec();
        connection.unsent = Some(Box::new(Unsent { bytes: rest, push }));
        self.watch(index, Interest::ReadAndWrite);
        if let Some(push) = push {
            self.watch(push, Interest::Nothing);
        }
    }

    fn send_on(&mut self, index: u32) {
        let Some(connection) = self.connection(index) else {
            return;
        };
        let Some(unsent) = &mut connection.unsent else {
            return;
        };
        match connection.stream.write(&unsent.bytes) {
            Ok(sent) => {
                unsent.bytes.drain(..sent);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => unsent.bytes.clear(),
        }
        if !unsent.bytes.is_empty() {
            return;
        }
        let push = unsent.push;
        connection.unsent = None;
        self.watch(index, Interest::Read);
        if let Some(push) = push {
            self.watch(push, Interest::Read);
        }
    }

    fn close(&mut self, index: u32) {
        let Some(connection) = self
            .connections
            .get_mut(index as usize)
            .and_then(Option::take)
        else {
            return;
        };
        self.free.push(index);
        if let State::Parked(name) = &connection.state
            && let Ok(entry) = self
                .parked
                .find_entry(hash(name), |parked| *parked == index)
        {
            entry.remove();
        }
        if let Some(unsent) = connection.unsent
            && let Some(push) = unsent.push
        {
            self.close(push);
        }
    }

    fn watch(&self, index: u32, interest: Interest) {
        if let Some(Some(connection)) = self.connections.get(index as usize) {
            // A socket that is registered already can be watched for other things at any time.
            self.poller
                .modify(&connection.stream, index.into(), interest)
                .ok();
        }
    }

    fn connection(&mut self, index: u32) -> Option<&mut Connection> {
        self.connections.get_mut(index as usize)?.as_mut()
    }
}

fn holds(connections: &[Option<Connection>], index: u32, name: &[u8]) -> bool {
    matches!(
        connections.get(index as usize),
        Some(Some(Connection { state: State::Parked(parked), .. })) if **parked == *name
    )
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

/// FNV-1a: the names are short.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// No index of a connection.
const LISTENER: u64 = u64::MAX;

/// A message of 500 kB comes in few reads, and the buffer still stays in the processor's cache.
const BUFFER: usize = 128 * 1024;
