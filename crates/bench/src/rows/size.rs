//! The size of the release binaries without their symbols.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::Bench;
use crate::report::Row;

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    [("proxy", &bench.proxy), ("client", &bench.client)]
        .into_iter()
        .map(|(name, path)| {
            let megabytes = stripped(path)? as f64 / 1e6;
            let figure = format!("release binary {name}, stripped");
            Ok(Row::new("size", &figure, megabytes, 8.0, "MB"))
        })
        .collect()
}

fn stripped(binary: &Path) -> anyhow::Result<u64> {
    let copy = tempfile::NamedTempFile::new().context("cannot write a copy")?;
    let status = Command::new("strip")
        .arg("-o")
        .args([copy.path(), binary])
        .status()
        .context("cannot run strip (of binutils)")?;
    ensure!(
        status.success(),
        "strip of {} failed: {status}",
        binary.display()
    );
    Ok(copy.path().metadata()?.len())
}
