//! A program in a child process: its log is kept, its memory and descriptors can be looked at, and
//! it ends with its [`Daemon`].

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::wait::{SOON, until};

/// A running program.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    pid: u32,
    log: Arc<Mutex<Vec<String>>>,
    readers: JoinSet<()>,
}

/// How a program ended that ran to its end, and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code, or none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// A command with nothing of this process's environment but `PATH`: no proxy, no token, no colour
/// of the machine.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs a program that ought to end by itself soon.
///
/// # Panics
/// When it cannot be started or does not end.
pub async fn run(mut command: Command) -> Outcome {
    let output = tokio::time::timeout(SOON, command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} did not end by itself"))
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Daemon {
    /// Starts `command`. The `name` stands before its log when a test fails.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started ({command:?}): {error}"));
        let log = Arc::default();
        let mut readers = JoinSet::new();
        readers.spawn(keep(child.stdout.take().unwrap(), Arc::clone(&log)));
        readers.spawn(keep(child.stderr.take().unwrap(), Arc::clone(&log)));
        Self {
            name: name.to_owned(),
            pid: child.id().expect("it has not been waited for yet"),
            child,
            log,
            readers,
        }
    }

    /// The lines that it has written so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// The lines that hold one of `levels`, such as `level=warn`.
    pub fn lines_with(&self, levels: &[&str]) -> Vec<String> {
        let mut lines = self.log();
        lines.retain(|line| levels.iter().any(|level| line.contains(level)));
        lines
    }

    /// Waits for a line that holds all of `parts`.
    ///
    /// # Panics
    /// When there is none in time, or the program ends without it.
    pub async fn line(&mut self, parts: &[&str]) -> String {
        let what = format!("a line with {parts:?} in the log of {}", self.name);
        until(&what, SOON, async || {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                // What it wrote last may still be in the pipe.
                while self.readers.join_next().await.is_some() {}
            }
            let found = self
                .log
                .lock()
                .iter()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .cloned();
            assert!(
                found.is_some() || ended.is_none(),
                "{} ended ({ended:?}) before there was {what}",
                self.name
            );
            found
        })
        .await
    }

    /// Waits for the line with `marker` that says where it listens, and reads the address from its
    /// `address=` field.
    ///
    /// # Panics
    /// When there is no such line in time.
    pub async fn address(&mut self, marker: &str) -> SocketAddr {
        let line = self.line(&[marker, "address="]).await;
        let (_, field) = line.split_once("address=").unwrap();
        let field = field.split_whitespace().next().unwrap();
        field
            .trim_matches('"')
            .parse()
            .unwrap_or_else(|error| panic!("no address in {line:?}: {error}"))
    }

    /// Asks it to end, as a service manager does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Ends it at once; the kernel closes its sockets.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Lets it stand still, sockets open, until it is killed or goes on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Lets it open no more than so many files from now on; those that it has stay open.
    pub fn limit_files(&self, files: u64) {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap());
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(files),
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let status = tokio::time::timeout(limit, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("{} is still there after {limit:?}", self.name))
            .unwrap();
        while self.readers.join_next().await.is_some() {}
        status
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The memory that it has in RAM now, in KiB.
    pub fn memory(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The most memory that it ever had in RAM, in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// The memory in RAM that is its own, in KiB: heap and stacks, without the code, which comes in
    /// page by page as it is first run.
    pub fn own_memory(&self) -> u64 {
        self.status_field("RssAnon:")
    }

    /// From now on it can have no more descriptors open than `count`.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit {
            current: Some(count),
            maximum: Some(count),
        };
        prlimit(Some(self.id()), Resource::Nofile, limit).unwrap();
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid))
            .unwrap()
            .count()
    }

    /// How many connections over IPv4 it holds that came in at `port`.
    pub fn connections(&self, port: u16) -> usize {
        self.peers(port).len()
    }

    /// Whose connections over IPv4 it holds that came in at `port`, each as often as it has one.
    pub fn peers(&self, port: u16) -> Vec<Ipv4Addr> {
        let own: BTreeSet<String> = std::fs::read_dir(format!("/proc/{}/fd", self.pid))
            .unwrap()
            .filter_map(|entry| {
                let link = std::fs::read_link(entry.unwrap().path()).ok()?;
                let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect();
        // The whole network's sockets, among them others that have the same local port: the kernel
        // gives it to outgoing connections too where a bygone connection had it before.
        let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid)).unwrap();
        let local = format!(":{port:04X}");
        let held = sockets.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, peer, state, inode) = (fields[1], fields[2], fields[3], fields[9]);
            let is_held = address.ends_with(&local) && state != LISTEN && own.contains(inode);
            // The kernel writes the four bytes as one number of this machine's.
            let (ip, _) = peer.split_once(':').unwrap();
            let ip = u32::from_str_radix(ip, 16).unwrap();
            is_held.then(|| ip.to_ne_bytes().into())
        });
        held.collect()
    }

    /// The processor time that it has used so far, in ticks of a hundredth of a second.
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // The second field is the name in brackets, which may hold blanks.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        [fields[11], fields[12]]
            .iter()
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum()
    }

    fn signal(&self, signal: Signal) {
        // The process cannot be another's: its id is not given away before this one has waited for
        // it, and `ended` takes `self` by `&mut` and is not followed by signals.
        kill_process(self.id(), signal)
            .unwrap_or_else(|error| panic!("{} takes no signal: {error}", self.name));
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap()
    }

    fn status_field(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap_or_else(|| panic!("{} has ended", self.name));
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    /// A failed test shows what the programs had to say.
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it with the failure"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.lock();
            let skipped = log.len().saturating_sub(SHOWN);
            eprintln!("--- {} ({skipped} lines before)", self.name);
            for line in log.iter().skip(skipped) {
                eprintln!("{line}");
            }
        }
    }
}

async fn keep(output: impl AsyncRead + Unpin, log: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.lock().push(line);
    }
}

/// As the kernel writes the state of a socket that listens.
const LISTEN: &str = "0A";

const SHOWN: usize = 40;
