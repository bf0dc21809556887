//! The kernel's account of the whole machine: what its sockets hold, and what went wrong with them.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::placement::Placement;

/// Where something was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    #[serde(default)]
    pub(crate) placement: Placement,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let line = |file: &str, field: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix(field));
            let value = value
                .unwrap_or("unknown")
                .trim_start_matches([' ', '\t', ':']);
            value.to_owned()
        };
        Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("Linux {}", line("/proc/sys/kernel/osrelease", "")),
            placement: Placement::default(),
        }
    }
}

/// How often TCP had to send something again because no answer came in time. A round in which that
/// happened was not like the others.
pub(crate) fn tcp_timeouts() -> anyhow::Result<u64> {
    const FILE: &str = "/proc/net/netstat";
    let text = fs::read_to_string(FILE).context("cannot read the counters of TCP")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = lines.next().zip(lines.next()).context(FILE)?;
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == "TCPTimeouts")
        .and_then(|(_, value)| value.parse().ok())
        .with_context(|| format!("{FILE} has no TCPTimeouts"))
}

/// Bytes in the buffers of all TCP sockets.
pub(crate) fn tcp_buffers() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").context("cannot read the sockets")?;
    let pages: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .and_then(|line| line.rsplit_once(" mem "))
        .and_then(|(_, pages)| pages.trim().parse().ok())
        .context("/proc/net/sockstat does not tell the memory of TCP")?;
    Ok(pages * u64::try_from(rustix::param::page_size())?)
}

/// Bytes in the kernel's objects, by their kind. Only the superuser may know.
pub(crate) fn slabs() -> anyhow::Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string("/proc/slabinfo").context("cannot read the kernel's objects")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let name = fields.next()?;
            let active: u64 = fields.next()?.parse().ok()?;
            let size: u64 = fields.nth(1)?.parse().ok()?;
            Some((name.to_owned(), active * size))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_machine_tells_itself_and_its_counters() {
        let machine = Machine::this();
        assert!(machine.cores > 0);
        assert!(machine.kernel.len() > "Linux ".len());
        tcp_timeouts().unwrap();
    }

    #[test]
    fn what_a_socket_holds_shows_in_the_buffers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sender.set_nonblocking(true).unwrap();
        while (&sender).write(&[0; 65_536]).is_ok() {}
        assert!(tcp_buffers().unwrap() > 100_000);
    }
}
