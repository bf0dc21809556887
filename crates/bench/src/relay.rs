//! Processes under test, and what a load costs them: the client, and the two relays, which are the
//! proxy and the least relay. Each ends with its [`Process`].

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::account::Account;
use crate::fleet::{Fleet, Outcome};
use crate::kernel::tcp_timeouts;
use crate::placement;

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: Receiver<String>,
    pub(crate) account: Account,
}

impl Process {
    /// Starts a program with nothing of this process's environment: no proxy, no token.
    pub(crate) fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = placement::start(&mut command)
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stderr = child
            .stderr
            .take()
            .context("the child has no standard error")?;
        // Reads on to the end, so that the child never waits for its log to be taken.
        let (lines, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Whoever wanted the log may be gone.
                lines.send(line).ok();
            }
        });
        let account = Account::of(child.id());
        Ok(Self {
            child,
            log,
            account,
        })
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        let lines: Vec<String> = self.log.try_iter().collect();
        let skipped = lines.len().saturating_sub(10);
        lines
            .into_iter()
            .skip(skipped)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Puts a load on it and takes the account of that.
    pub(crate) fn under(
        &mut self,
        load: impl FnOnce() -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<Round> {
        let (before, timeouts) = (self.account.cpu()?, tcp_timeouts()?);
        let outcome = load().map_err(|error| self.explain(error))?;
        let cpu = self.account.cpu()?.saturating_sub(before);
        ensure!(outcome.scrapes > 0, "no scrape was answered");
        Ok(Round {
            outcome,
            cpu,
            timeouts: tcp_timeouts()?.saturating_sub(timeouts),
        })
    }

    /// Adds to an error that the program has ended, and its last words, if that is so.
    pub(crate) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self.has_ended() {
            true => error.context(format!("the program ended:\n{}", self.log())),
            false => error,
        }
    }

    /// Waits until it has stopped to work.
    pub(crate) fn wait_until_quiet(&mut self) -> anyhow::Result<()> {
        let (mut cpu, mut changed) = (self.account.cpu()?, Instant::now());
        while changed.elapsed() < QUIET_FOR {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.account.cpu()?;
            if now.saturating_sub(cpu) > QUIET {
                (cpu, changed) = (now, Instant::now());
            }
        }
        Ok(())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// Resident bytes and open files before anybody connected.
    pub(crate) memory_at_rest: u64,
    files_at_rest: usize,
}

/// A load and what it cost the process under test.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) outcome: Outcome,
    pub(crate) cpu: Duration,
    /// Retransmission timeouts meanwhile, of any TCP connection of the machine.
    pub(crate) timeouts: u64,
}

impl Relay {
    /// Starts the proxy with its defaults.
    pub(crate) fn proxy(program: &Path) -> anyhow::Result<Self> {
        Self::proxy_with(program, [])
    }

    /// Starts the proxy with these flags.
    pub(crate) fn proxy_with<const N: usize>(
        program: &Path,
        flags: [OsString; N],
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let listen = ["--web.listen-address".into(), address.to_string().into()];
        Self::start(program, listen.into_iter().chain(flags), address)
    }

    /// Starts the least relay.
    pub(crate) fn least() -> anyhow::Result<Self> {
        let address = free_address()?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let arguments = [
            "least-relay".into(),
            "--listen".into(),
            address.to_string().into(),
        ];
        Self::start(&program, arguments, address)
    }

    fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = OsString>,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut process = Process::start(program, arguments)?;
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if process.has_ended() || start.elapsed() > START_WITHIN {
                bail!("{} does not listen:\n{}", program.display(), process.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut relay = Self {
            process,
            address,
            memory_at_rest: 0,
            files_at_rest: 0,
        };
        relay.process.wait_until_quiet()?;
        relay.memory_at_rest = relay.process.account.memory()?;
        relay.files_at_rest = relay.process.account.files()?;
        Ok(relay)
    }

    /// Connects a fleet's clients all at once and waits until all are taken and parked.
    ///
    /// Returns how long that took, and what CPU it took.
    pub(crate) fn park(
        &mut self,
        fleet: &mut Fleet,
        count: usize,
    ) -> anyhow::Result<(Duration, Duration)> {
        let before = self.process.account.cpu()?;
        let start = Instant::now();
        fleet.connect(count)?;
        let (mut cpu, mut changed) = (before, Instant::now());
        loop {
            fleet.turn(Some(Duration::from_millis(10)))?;
            let now = self.process.account.cpu()?;
            if now.saturating_sub(cpu) > QUIET {
                (cpu, changed) = (now, Instant::now());
            }
            let is_quiet = changed.elapsed() > QUIET_FOR && !fleet.is_busy();
            if is_quiet && self.process.account.files()? >= self.files_at_rest + count {
                return Ok((changed - start, now.saturating_sub(before)));
            }
            ensure!(
                start.elapsed() < PARK_WITHIN,
                "{} of {count} clients are connected after {} s; failures: {}, the first: {:?}",
                self.process
                    .account
                    .files()?
                    .saturating_sub(self.files_at_rest),
                PARK_WITHIN.as_secs(),
                fleet.failures.count,
                fleet.failures.first,
            );
        }
    }
}

impl Round {
    /// Microseconds of CPU for each scrape.
    pub(crate) fn per_scrape(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.outcome.scrapes as f64
    }
}

/// An address to listen on, at a port from which no outgoing connection starts.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let first = 20_000 + u16::try_from(std::process::id() % 100)? * 100;
    (first..32_000)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .context("no port is free")
}

const START_WITHIN: Duration = Duration::from_secs(10);
const PARK_WITHIN: Duration = Duration::from_secs(60);
/// CPU time that a process may take while it is quiet: timers, and being looked at.
const QUIET: Duration = Duration::from_micros(300);
const QUIET_FOR: Duration = Duration::from_millis(150);
