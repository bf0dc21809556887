//! Hosts on a switch, made of network namespaces, for what cannot be had on loopback: a cable that
//! is cut, so that packets vanish and no socket is closed.
//!
//! The namespaces have no names and hang on processes alone, so that nothing is left of them once
//! the test has ended, however it did. The test itself is run once more inside the first of them,
//! where it is root even if its user is not.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command as StdCommand, Output, Stdio};

use tokio::process::{Child, Command};
use tokio::runtime::Runtime;

use crate::process::command;
use crate::wait::{SOON, until};

/// The network of a test: a switch, with the test's own address on it.
#[derive(Debug)]
pub struct Network {
    hosts: u8,
}

/// A host on the switch.
#[derive(Debug)]
pub struct Host {
    keeper: Child,
    /// Its address.
    pub address: Ipv4Addr,
    /// The end of its cable at the switch.
    port: String,
}

/// What is wrong with a cable that is not cut.
#[derive(Debug, Clone, Copy)]
pub enum Bad {
    /// It takes its time.
    Late,
    /// It loses some of what it carries.
    Lossy,
}

/// What a test runs on once it is in its network: `#[tokio::test]` would make one outside, too.
///
/// # Panics
/// When the system refuses.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

impl Network {
    /// The address of the test itself, on the switch.
    pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    /// Gives the test `name` (with its module, as `module_path!()` has it) a network of its own:
    /// the test is started once more inside it. Some there; none outside, after the test inside has
    /// passed.
    ///
    /// # Panics
    /// When the test inside fails, or in CI when there cannot be a network.
    pub fn enter(module: &str, name: &str) -> Option<Self> {
        if std::env::var_os(INSIDE).is_some() {
            ip(&["link", "set", "lo", "up"]);
            ip(&["link", "add", "switch", "type", "bridge"]);
            ip(&[
                "address",
                "add",
                &format!("{}/24", Self::OWN),
                "dev",
                "switch",
            ]);
            ip(&["link", "set", "switch", "up"]);
            return Some(Self { hosts: 0 });
        }
        let (_, module) = module.split_once("::").unwrap_or_default();
        let test = format!("{module}::{name}");
        match unshare() {
            Some(mut prefix) => {
                let own = std::env::current_exe().unwrap();
                let inside = prefix
                    .arg(own)
                    .args(["--exact", &test, "--nocapture"])
                    .output()
                    .unwrap();
                assert_passed(&test, &inside);
            }
            None => skip(&test),
        }
        None
    }

    /// Adds a host.
    ///
    /// # Panics
    /// When the system refuses.
    pub async fn host(&mut self) -> Host {
        self.hosts += 1;
        let address = Ipv4Addr::new(10, 77, 0, 1 + self.hosts);
        let port = format!("port{}", self.hosts);
        // It ends with the pipe to it, so even when this process is killed.
        let mut keeper = command("unshare");
        let keeper = keeper
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = keeper.id().unwrap().to_string();
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = namespace("self");
        until("a namespace", SOON, async || {
            let its = namespace(&pid);
            (its.is_some() && its != own).then_some(())
        })
        .await;

        ip(&[
            "link", "add", &port, "type", "veth", "peer", "name", "cable", "netns", &pid,
        ]);
        ip(&["link", "set", &port, "master", "switch", "up"]);
        let host = Host {
            keeper,
            address,
            port,
        };
        for arguments in [
            &["link", "set", "lo", "up"] as &[&str],
            &["address", "add", &format!("{address}/24"), "dev", "cable"],
            &["link", "set", "cable", "up"],
        ] {
            let mut ip = host.command("ip");
            let done = ip.args(arguments).status().await.unwrap();
            assert!(done.success(), "{ip:?}: {done}");
        }
        host
    }
}

impl Host {
    /// The command that runs `program` on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut enter = command("nsenter");
        enter
            .arg(format!("--net=/proc/{}/ns/net", self.keeper.id().unwrap()))
            .arg("--")
            .arg(program);
        enter
    }

    /// The command that runs on this host what `there` would run here.
    pub fn run(&self, there: &Command) -> Command {
        let there = there.as_std();
        let mut here = self.command(there.get_program().to_str().unwrap());
        here.args(there.get_args());
        here
    }

    /// An address on this host.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// Makes the cable a bad one, both ways, from now on.
    ///
    /// The kernel's network emulator does it where there is one. Where there is none, the cable is
    /// made narrow instead: what waits for its turn comes late, and what finds the short queue full
    /// is lost.
    pub async fn worsen(&self, how: Bad) {
        let (emulated, narrow): (&[&str], &[&str]) = match how {
            Bad::Late => (
                &["netem", "delay", "150ms", "50ms"],
                &["tbf", "rate", "400kbit", "burst", "1600", "latency", "5s"],
            ),
            Bad::Lossy => (
                &["netem", "loss", "10%"],
                &["tbf", "rate", "2mbit", "burst", "1600", "limit", "4500"],
            ),
        };
        if !self.shape(emulated).await {
            assert!(
                self.shape(narrow).await,
                "the kernel has neither netem nor tbf"
            );
        }
    }

    /// How many packets the cable has lost since it was made bad.
    pub async fn lost(&self) -> u64 {
        let mut lost = 0;
        for (mut tc, end) in [
            (command("tc"), self.port.as_str()),
            (self.command("tc"), "cable"),
        ] {
            let shown = tc.args(["-s", "qdisc", "show", "dev", end]).output().await;
            let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
            let (_, count) = shown.split_once("(dropped ").expect("tc's account");
            let (count, _) = count.split_once(',').expect("tc's account");
            lost += count.parse::<u64>().unwrap();
        }
        lost
    }

    /// Gives both ends of the cable a queue of this kind. Whether the kernel has it.
    async fn shape(&self, queue: &[&str]) -> bool {
        for (mut tc, end) in [
            (command("tc"), self.port.as_str()),
            (self.command("tc"), "cable"),
        ] {
            tc.args(["qdisc", "replace", "dev", end, "root"])
                .args(queue);
            if !tc.output().await.expect("tc (iproute2)").status.success() {
                return false;
            }
        }
        true
    }

    /// Cuts the cable: what is sent either way vanishes, and no program is told.
    pub fn cut(&self) {
        // The switch's end goes down, not the host's: that would take the host's routes away, which
        // programs notice.
        ip(&["link", "set", &self.port, "down"]);
    }

    /// Mends the cable.
    pub fn mend(&self) {
        ip(&["link", "set", &self.port, "up"]);
    }
}

/// The command that starts a program in a new network namespace, in the way that this user may use.
fn unshare() -> Option<StdCommand> {
    let ways: [&[&str]; 3] = [
        &["unshare", "--net"],
        &["unshare", "--user", "--map-root-user", "--net"],
        &["sudo", "-n", "--preserve-env", "unshare", "--net"],
    ];
    ways.iter().find_map(|way| {
        let mut prefix = StdCommand::new(way[0]);
        prefix.args(&way[1..]).arg("env").arg(format!("{INSIDE}=1"));
        let mut trial = StdCommand::new(way[0]);
        trial
            .args(&way[1..])
            .args(["ip", "link", "set", "lo", "up"]);
        trial
            .output()
            .is_ok_and(|output| output.status.success())
            .then_some(prefix)
    })
}

fn assert_passed(test: &str, inside: &Output) {
    let stdout = String::from_utf8_lossy(&inside.stdout);
    if inside.status.success() && stdout.contains("1 passed") {
        return;
    }
    // Its lines are marked, so that none is taken for the result of this run.
    let mut told = String::new();
    for line in stdout
        .lines()
        .chain(String::from_utf8_lossy(&inside.stderr).lines())
    {
        told += "  | ";
        told += line;
        told.push('\n');
    }
    panic!("{test} failed in its network ({}):\n{told}", inside.status);
}

#[expect(
    clippy::print_stderr,
    reason = "whoever runs the tests must see that one was left out"
)]
fn skip(test: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} needs root, sudo or user namespaces, and in CI it is not left out"
    );
    eprintln!("{test}: skipped: needs root, sudo or user namespaces");
}

fn ip(arguments: &[&str]) {
    let output = StdCommand::new("ip")
        .args(arguments)
        .output()
        .expect("ip (iproute2)");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
}

/// In the environment of a test that is inside its network.
const INSIDE: &str = "PUSHPROX_TEST_NETWORK";
