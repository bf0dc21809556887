//! One connection of a fleet: what it is in the middle of, and how bytes get in and out of it.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::ensure;
use socket2::{Domain, SockRef, Socket, Type};

use crate::http::{Answers, Part, Status};
use crate::payload::Payload;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) role: Role,
    answers: Answers,
    answer: Answer,
    /// What is being sent: these bytes, then the payload's rest and a tail if it is a push.
    pub(super) head: Vec<u8>,
    pub(super) tail: Option<&'static [u8]>,
    sent: usize,
    pub(super) is_sending: bool,
    pub(super) waits_for_write: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Kept alive for the client's next request.
    ClientIdle {
        client: u32,
    },
    Poll {
        client: u32,
    },
    Push {
        client: u32,
    },
    ScraperIdle,
    /// A scrape of this client, that was due then.
    Scrape {
        client: u32,
        due: Instant,
    },
}

/// The answer that is being read.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    reason: String,
    /// Of a poll's answer: the instruction. Of a failed scrape's: what the relay says.
    body: Vec<u8>,
    /// Bytes of the body so far.
    length: usize,
    is_whole: bool,
}

/// What a read has come to.
#[derive(Debug)]
pub(super) enum Progress {
    Nothing,
    Closed(io::Error),
    /// The answer has come whole. The body is an instruction if the request was a poll.
    Answered {
        status: u16,
        body: Vec<u8>,
    },
}

impl Connection {
    pub(super) fn open(relay: SocketAddr, role: Role) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(relay), Type::STREAM, None)?;
        // From one address, the kernel would search long for a free port once half are taken.
        socket.bind(&SocketAddr::from((source(role), 0)).into())?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Nobody waits for it to be established: writes that come too early wait for that.
        if let Err(error) = socket.connect(&relay.into())
            && error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        {
            return Err(error);
        }
        Ok(Self {
            stream: socket.into(),
            role,
            answers: Answers::default(),
            answer: Answer::default(),
            head: Vec::new(),
            tail: None,
            sent: 0,
            is_sending: false,
            waits_for_write: false,
        })
    }

    /// Begins to send `head`, and a payload too where there is a `tail`.
    pub(super) fn begin(&mut self) {
        self.sent = 0;
        self.is_sending = true;
    }

    /// Sends what fits. `true` when all is out.
    pub(super) fn send(&mut self, payload: &Payload) -> io::Result<bool> {
        let payload = self.tail.map_or(&[][..], |_| payload.rest());
        let tail = self.tail.unwrap_or_default();
        let parts = [self.head.as_slice(), payload, tail];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while self.sent < total {
            let mut skip = self.sent;
            let slices = parts.map(|part| {
                let here = skip.min(part.len());
                skip -= here;
                IoSlice::new(part.get(here..).unwrap_or_default())
            });
            match self.stream.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.sent += length,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.is_sending = false;
        self.tail = None;
        Ok(true)
    }

    /// Reads once.
    ///
    /// # Errors
    ///
    /// When what has come is not what was to come.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        payload: &Payload,
    ) -> anyhow::Result<Progress> {
        let length = match self.stream.read(buffer) {
            Ok(0) => return Ok(Progress::Closed(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Progress::Nothing);
            }
            Err(error) => return Ok(Progress::Closed(error)),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let (role, answer) = (self.role, &mut self.answer);
        self.answers
            .read(bytes, |part| answer.read(role, part, payload))?;
        if !answer.is_whole {
            return Ok(Progress::Nothing);
        }
        let answer = std::mem::take(answer);
        if let Role::Scrape { client, .. } = role {
            ensure!(
                answer.status == 200,
                "the scrape of client {client} was answered {} {}: {}",
                answer.status,
                answer.reason,
                String::from_utf8_lossy(&answer.body).trim()
            );
            ensure!(
                answer.length == payload.size(),
                "the scrape of client {client} was answered with {} bytes instead of {}",
                answer.length,
                payload.size()
            );
        }
        Ok(Progress::Answered {
            status: answer.status,
            body: answer.body,
        })
    }

    /// Makes the coming close a reset, which leaves nothing behind in the kernel.
    pub(super) fn reset(&self) {
        // One that is broken already needs no reset.
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .ok();
    }
}

/// Where a connection comes from: clients and scrapers are spread over some loopback addresses.
fn source(role: Role) -> Ipv4Addr {
    let last = match role {
        Role::ClientIdle { client } | Role::Poll { client } | Role::Push { client } => {
            u8::try_from(client % SOURCES).unwrap_or_default()
        }
        Role::ScraperIdle | Role::Scrape { .. } => 0,
    };
    Ipv4Addr::new(127, 0, 0, 2 + last)
}

impl Answer {
    fn read(
        &mut self,
        role: Role,
        part: Part<'_, Status<'_>>,
        payload: &Payload,
    ) -> anyhow::Result<()> {
        match part {
            Part::Head(Status { code, reason, .. }) => {
                ensure!(
                    !matches!(role, Role::ClientIdle { .. } | Role::ScraperIdle) && !self.is_whole,
                    "an answer {code} came that nobody asked for"
                );
                self.status = code;
                if code != 200 {
                    reason.clone_into(&mut self.reason);
                }
            }
            Part::Data(bytes) => {
                match role {
                    Role::Scrape { client, .. } if self.status == 200 => ensure!(
                        payload.matches(client, self.length, bytes),
                        "the scrape of client {client} was answered with other bytes than were pushed"
                    ),
                    _ => self.body.extend_from_slice(bytes),
                }
                self.length += bytes.len();
            }
            Part::End => self.is_whole = true,
        }
        Ok(())
    }
}

const SOURCES: u32 = 32;
