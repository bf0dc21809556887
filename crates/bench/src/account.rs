//! The kernel's account of another process: its CPU time, its memory, its open files.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

#[derive(Debug)]
pub(crate) struct Account {
    folder: PathBuf,
    /// The CPU time of each thread when it was last seen. Threads that have ended keep theirs.
    threads: HashMap<String, u64>,
}

impl Account {
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            folder: format!("/proc/{pid}").into(),
            threads: HashMap::new(),
        }
    }

    /// CPU time of all threads so far, in user and kernel mode.
    ///
    /// A thread's last moments are lost when it ends between two looks. Thread pools end theirs
    /// only after seconds without work, so a look before and after each round sees everything.
    pub(crate) fn cpu(&mut self) -> anyhow::Result<Duration> {
        let tasks = self.folder.join("task");
        for task in fs::read_dir(&tasks).context("the process has ended")? {
            let task = task?;
            // It may have ended since the folder was read.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let nanoseconds = text
                .split_whitespace()
                .next()
                .and_then(|field| field.parse().ok())
                .context("schedstat has no run time")?;
            self.threads
                .insert(task.file_name().to_string_lossy().into_owned(), nanoseconds);
        }
        Ok(Duration::from_nanos(self.threads.values().sum()))
    }

    /// Resident memory in bytes, exactly: the figure in `status` lags behind.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        self.kilobytes("smaps_rollup", "Rss:")
    }

    /// Forgets the peak of the resident memory, so that it grows anew from what is resident now.
    pub(crate) fn reset_peak(&self) -> anyhow::Result<()> {
        fs::write(self.folder.join("clear_refs"), "5").context("cannot reset the peak of memory")
    }

    /// The most resident memory since [`Self::reset_peak`], in bytes.
    pub(crate) fn peak(&self) -> anyhow::Result<u64> {
        self.kilobytes("status", "VmHWM:")
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> anyhow::Result<usize> {
        let folder = self.folder.join("fd");
        let told = fs::metadata(&folder)
            .context("the process has ended")?
            .len();
        if told > 0 {
            return Ok(usize::try_from(told)?);
        }
        // Linux before 6.2 does not tell. To count leaves an object in the kernel for each file.
        Ok(fs::read_dir(&folder)?.count())
    }

    fn kilobytes(&self, file: &str, field: &str) -> anyhow::Result<u64> {
        let path = self.folder.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .and_then(|number| number.trim().parse::<u64>().ok())
            .map(|kilobytes| kilobytes * 1024)
            .with_context(|| format!("{} has no {field}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_this_process_grows_with_what_it_does() {
        let mut account = Account::of(std::process::id());
        let before = account.cpu().unwrap();
        let memory = account.memory().unwrap();
        let mut block = vec![0_u8; 32 << 20];
        for round in 0..4_u8 {
            block
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_mul(3) ^ round);
        }
        assert!(account.memory().unwrap() >= memory + (30 << 20));
        assert!(account.cpu().unwrap() > before);
        std::hint::black_box(block);
    }

    #[test]
    fn each_open_file_counts() {
        let account = Account::of(std::process::id());
        let before = account.files().unwrap();
        let files: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let after = account.files().unwrap();
        // Tests beside this one open and close a few of their own.
        assert!(
            after.abs_diff(before + files.len()) < 50,
            "{before} + {} became {after}",
            files.len()
        );
    }
}
