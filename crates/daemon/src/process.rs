//! The `process_*` metrics that every Prometheus client library offers, read from the kernel when
//! they are asked for.

use std::fs;
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self`. What cannot be read is left out.
#[derive(Debug, Default)]
pub(crate) struct Process {
    /// Seconds since 1970 at which the process started, which never changes.
    started: OnceLock<Option<f64>>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metric = |name, help, metric: &dyn DynMetric| metric.put(&mut encoder, name, help);
        if let Some(stat) = fs::read_to_string("/proc/self/stat")
            .ok()
            .as_deref()
            .and_then(Stat::parse)
        {
            metric(
                "process_cpu_seconds",
                "Processor time spent in user and kernel mode, in seconds",
                &ConstCounter::new(stat.cpu_seconds),
            )?;
            metric(
                "process_resident_memory_bytes",
                "Memory in use",
                &ConstGauge::new(stat.resident_bytes),
            )?;
            metric(
                "process_virtual_memory_bytes",
                "Address space in use",
                &ConstGauge::new(stat.virtual_bytes),
            )?;
            metric("process_threads", "Threads", &ConstGauge::new(stat.threads))?;
            let started = self
                .started
                .get_or_init(|| boot_time().map(|boot| boot + stat.started_after_boot));
            if let Some(started) = started {
                metric(
                    "process_start_time_seconds",
                    "Start of the process, in seconds since 1970",
                    &ConstGauge::new(*started),
                )?;
            }
        }
        if let Some(open) = open_descriptors() {
            metric(
                "process_open_fds",
                "Open file descriptors",
                &ConstGauge::new(open),
            )?;
        }
        if let Some(max) = max_descriptors() {
            metric(
                "process_max_fds",
                "File descriptors that the process may open",
                &ConstGauge::new(max),
            )?;
        }
        Ok(())
    }
}

/// The two kinds of metric above behind one call.
trait DynMetric {
    fn put(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error>;
}

impl<M: EncodeMetric> DynMetric for M {
    fn put(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error> {
        self.encode(encoder.encode_descriptor(name, help, None, self.metric_type())?)
    }
}

/// What `/proc/self/stat` tells.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: i64,
    started_after_boot: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // Numbered as in proc_pid_stat(5), where the field behind the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let page = i64::try_from(rustix::param::page_size()).ok()?;
        Some(Self {
            cpu_seconds: (field(14)? as f64 + field(15)? as f64) / ticks_per_second,
            threads: field(20)?,
            started_after_boot: field(22)? as f64 / ticks_per_second,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)?.checked_mul(page)?,
        })
    }
}

fn boot_time() -> Option<f64> {
    fs::read_to_string("/proc/stat")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

fn open_descriptors() -> Option<i64> {
    // One of them is the directory that is being read.
    let open = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    i64::try_from(open).ok()
}

fn max_descriptors() -> Option<i64> {
    fs::read_to_string("/proc/self/limits")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = "42 (a) b (c) R 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 \
                    1000 8192000 25 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0";
        let stat = Stat::parse(text).unwrap();
        assert!((stat.cpu_seconds - 2.0).abs() < 1e-9, "{stat:?}");
        assert!((stat.started_after_boot - 10.0).abs() < 1e-9, "{stat:?}");
        assert_eq!(stat.threads, 3);
        assert_eq!(stat.virtual_bytes, 8_192_000);
        assert_eq!(stat.resident_bytes, 25 * 4_096);
    }
    #[test]
    fn ticks_are_counted_beyond_32_bits() {
        let ticks = u64::from(u32::MAX) + 1;
        let text = format!(
            "42 (a) R 1 42 42 0 -1 4194304 100 0 0 0 {ticks} 50 0 0 20 0 3 0 1000 8192000 25"
        );
        let stat = Stat::parse(&text).unwrap();
        assert!((stat.cpu_seconds - 42_949_673.46).abs() < 1e-3, "{stat:?}");
    }
}
