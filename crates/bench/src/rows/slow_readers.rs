//! Memory of the proxy while large answers pass through it to readers that are slower than their
//! clients.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Bench, all};
use crate::http::{Answers, Part, Status};
use crate::messages;
use crate::relay::Relay;
use crate::report::Row;

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Row> {
    let mut relay = Relay::proxy(&bench.proxy)?;
    let address = relay.address;
    let clients = all(ANSWERS);
    let polls: Vec<TcpStream> = clients
        .iter()
        .map(|client| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(STUCK_AFTER))?;
            stream.set_write_timeout(Some(STUCK_AFTER))?;
            let mut request = Vec::new();
            messages::poll(*client, &mut request);
            stream.write_all(&request)?;
            Ok(stream)
        })
        .collect::<anyhow::Result<_>>()?;
    relay.process.wait_until_quiet()?;
    let account = &mut relay.process.account;
    let rest = account.memory()?;
    account.reset_peak()?;
    let start = Instant::now();
    let cpu = account.cpu()?;
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (client, poll) in clients.iter().zip(polls) {
            threads.push(scope.spawn(move || push(poll)));
            threads.push(scope.spawn(move || read_slowly(address, *client)));
        }
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => anyhow::bail!("a thread panicked"),
            })
    })?;
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = account.cpu()?.saturating_sub(cpu).as_secs_f64();
    let peak = account.peak()?.saturating_sub(rest) as f64 / 1e6;
    let bytes = (ANSWERS * SIZE) as f64 / 1e6;
    Ok(Row::new(
        "slow",
        "memory above rest while 16 answers of 100 MB pass slowly",
        peak,
        10.0,
        "MB",
    )
    .detail(format!(
        "the peak of the resident memory, over {:.1} MB at rest; {bytes:.0} MB in {elapsed:.1} s, {:.2} s of CPU for each GB",
        rest as f64 / 1e6,
        cpu / (bytes / 1e3),
    )))
}

/// Takes the instruction off a poll and pushes a large answer on the same connection.
fn push(mut stream: TcpStream) -> anyhow::Result<()> {
    let (mut instruction, mut buffer) = (Vec::new(), vec![0; 4096]);
    read_answer(&mut stream, &mut buffer, |bytes| {
        instruction.extend_from_slice(bytes);
        Ok(())
    })
    .context("a poll failed")?;
    let text = String::from_utf8_lossy(&instruction).to_ascii_lowercase();
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .context("an instruction has no id")?;
    let inner = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nId: {id}\r\n\r\n");
    let outer = format!(
        "POST /push HTTP/1.1\r\nHost: proxy\r\nContent-Length: {}\r\n\r\n",
        inner.len() + SIZE
    );
    stream.write_all(outer.as_bytes())?;
    stream.write_all(inner.as_bytes())?;
    let block = block();
    for _ in 0..SIZE / BLOCK {
        stream.write_all(&block).context("a push broke off")?;
    }
    read_answer(&mut stream, &mut buffer, |_| Ok(())).context("a push failed")
}

/// Scrapes a client and reads the answer at [`PACE`].
fn read_slowly(address: SocketAddr, client: u32) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // What the kernel holds for a slow reader is not the proxy's to save.
    socket.set_recv_buffer_size(256 * 1024)?;
    socket.connect(&address.into())?;
    SockRef::from(&socket).set_read_timeout(Some(STUCK_AFTER))?;
    let mut stream = Paced {
        stream: socket.into(),
        start: Instant::now(),
        taken: 0,
    };
    let mut request = Vec::new();
    messages::scrape(client, &mut request);
    // A scrape of this size takes longer than most.
    let request = String::from_utf8(request)?.replace("Seconds: 10", "Seconds: 60");
    stream.stream.write_all(request.as_bytes())?;
    let (block, mut length) = (block(), 0);
    let mut buffer = vec![0; 64 * 1024];
    read_answer(&mut stream, &mut buffer, |bytes| {
        let from = length % BLOCK;
        let (head, tail) = bytes.split_at(bytes.len().min(BLOCK - from));
        ensure!(
            block.get(from..from + head.len()) == Some(head) && block.starts_with(tail),
            "the answer of client {client} is broken behind {length} bytes"
        );
        length += bytes.len();
        Ok(())
    })
    .with_context(|| format!("the scrape of client {client} failed"))?;
    ensure!(
        length == SIZE,
        "the answer of client {client} has {length} bytes"
    );
    Ok(())
}

/// A stream that is read no faster than [`PACE`].
struct Paced {
    stream: TcpStream,
    start: Instant,
    taken: usize,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let due = self.start + Duration::from_secs_f64(self.taken as f64 / PACE);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let length = self.stream.read(buffer)?;
        self.taken += length;
        Ok(length)
    }
}

/// Reads one answer with status 200.
fn read_answer(
    stream: &mut impl Read,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut answers = Answers::default();
    let mut is_whole = false;
    while !is_whole {
        let length = stream.read(buffer)?;
        ensure!(length > 0, "the connection ended");
        answers.read(buffer.get(..length).unwrap_or_default(), |part| {
            match part {
                Part::Head(Status { code, reason, .. }) => {
                    ensure!(code == 200, "answered {code} {reason}")
                }
                Part::Data(bytes) => each(bytes)?,
                Part::End => is_whole = true,
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The answers are this, over and over.
fn block() -> Vec<u8> {
    (0..=250).cycle().take(BLOCK).collect()
}

const ANSWERS: usize = 16;
const SIZE: usize = 100_000_000;
const BLOCK: usize = 1_000_000;
/// Bytes a second.
const PACE: f64 = 25e6;
const STUCK_AFTER: Duration = Duration::from_secs(20);
