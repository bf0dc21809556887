//! The benchmark: real proxies and clients under the loads of a fleet, beside the least relay.
//!
//! | module | owns |
//! |---|---|
//! | `rows` | the goals, and how each is measured |
//! | `relay`, `account` | processes under test, and the kernel's account of them |
//! | `least_relay` | the least that any relay can do, to divide by |
//! | `fleet` | fake clients and scrapers, and the loads that they are |
//! | `messages`, `payload`, `http` | what is sent, and what must come back |
//! | `poller` | epoll |
//! | `report` | the table |

#![expect(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a program that prints what it measures by the real clock, in figures of three digits"
)]

mod account;
mod cli;
mod fleet;
mod http;
mod least_relay;
mod messages;
mod payload;
mod poller;
mod relay;
mod report;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Parser as _, ValueEnum as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use cli::{Cli, Command, RunArgs};
use report::Verdict;
use rows::{Bench, RowName};

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let files = raise_file_limit()?;
    match cli.command {
        Some(Command::LeastRelay { listen }) => {
            least_relay::run(listen)?;
            Ok(ExitCode::SUCCESS)
        }
        None => run(&cli.run, files),
    }
}

fn run(args: &RunArgs, files: usize) -> anyhow::Result<ExitCode> {
    let here = std::env::current_exe().context("cannot find this program")?;
    let beside = |name: &str| here.with_file_name(name);
    let bench = Bench {
        proxy: args.proxy.clone().unwrap_or_else(|| beside("proxy")),
        client: args.client.clone().unwrap_or_else(|| beside("client")),
        clients: args.clients,
        rounds: args.rounds.max(1),
        per_client: args.connections,
        inner: args.inner,
    };
    ensure!(
        bench.proxy.exists(),
        "there is no {}",
        bench.proxy.display()
    );
    ensure!(
        bench.clients >= 1000 && bench.clients + SPARE_FILES <= files,
        "--clients must be from 1000 to {}: a process may open {files} files here",
        files.saturating_sub(SPARE_FILES)
    );
    let wanted = match args.only.is_empty() {
        true => RowName::value_variants().to_vec(),
        false => args.only.clone(),
    };
    println!("{}", report::heads());
    let report = bench.run(&wanted, |row| println!("{}", row.text()));
    let json = args.json.clone().unwrap_or_else(|| {
        let target = here.parent().and_then(std::path::Path::parent);
        target.map_or_else(
            || PathBuf::from("bench.json"),
            |target| target.join("bench.json"),
        )
    });
    std::fs::write(&json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", json.display()))?;
    println!("written to {}", json.display());
    let all_met = report.rows.iter().all(|row| row.verdict == Verdict::Met);
    Ok(match args.strict && !all_met {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// Raises the limit of open files as far as it goes, for this process and its children.
fn raise_file_limit() -> anyhow::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .context("cannot raise the limit of open files")?;
    Ok(limit.maximum.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    }))
}

/// Descriptors for the second connections of those that are scraped, for scrapers, and for a small
/// fleet beside the whole one.
const SPARE_FILES: usize = 1500;
