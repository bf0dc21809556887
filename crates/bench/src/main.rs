//! The benchmark: real proxies and clients under the loads of a fleet, beside the least relay.
//!
//! `bench` measures the goals and prints a table, `bench scale` measures how cost grows with the
//! fleet, and `bench plot` draws that.
//!
//! | module | owns |
//! |---|---|
//! | `rows` | the goals, and how each is measured |
//! | `scale`, `plot` | how cost grows |
//! | `relay`, `account`, `kernel` | processes under test, and the kernel's account of them |
//! | `placement` | which CPUs they run on |
//! | `least_relay` | the least that any relay can do, to divide by |
//! | `fleet` | fake clients and scrapers around a relay, and the loads that they are |
//! | `around` | a fake target and a fake proxy around the client |
//! | `messages`, `payload`, `http` | what is sent, and what must come back |
//! | `poller` | epoll |
//! | `report` | the table |

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a program that prints what it measures by the real clock, in figures of three digits"
)]

mod account;
mod around;
mod cli;
mod fleet;
mod http;
mod kernel;
mod least_relay;
mod messages;
mod payload;
mod placement;
mod plot;
mod poller;
mod relay;
mod report;
mod rows;
mod scale;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Parser as _, ValueEnum as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use cli::{BenchArgs, Cli, Command, RunArgs};
use kernel::Machine;
use report::Verdict;
use rows::{Bench, RowName};
use scale::{Point, Scale};

fn main() -> ExitCode {
    start(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => return run(&cli.run),
        Some(Command::LeastRelay { listen }) => {
            raise_file_limit()?;
            least_relay::run(listen)?;
        }
        Some(Command::Scale { counts, bench }) => scale(&counts, &bench)?,
        Some(Command::Plot { scale, svg }) => plot(&scale, &svg)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let bench = bench(&args.bench, args.bench.clients)?;
    let wanted = match args.only.is_empty() {
        true => RowName::value_variants().to_vec(),
        false => args.only.clone(),
    };
    println!("{}", report::heads());
    let report = bench.run(&wanted, |row| println!("{}", row.text()));
    if args.markdown {
        println!("\n{}", report.markdown());
    }
    write_json(&args.bench, "bench.json", &report)?;
    println!("{}", report.summary());
    let is_failure =
        report.count(Verdict::Failed) > 0 || args.strict && report.count(Verdict::Missed) > 0;
    Ok(match is_failure {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn scale(counts: &[usize], args: &BenchArgs) -> anyhow::Result<()> {
    let most = counts.iter().copied().max().unwrap_or(args.clients);
    let bench = bench(args, most)?;
    println!("{}", Point::heads());
    let scale = scale::measure(&bench, counts, |point| println!("{}", point.text()))?;
    println!("{}", scale.words());
    write_json(args, "scale.json", &scale)?;
    println!("in {:.0} s", scale.seconds);
    Ok(())
}

fn plot(scale: &Path, svg: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(scale).with_context(|| format!("cannot read {}", scale.display()))?;
    let scale: Scale = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what `scale` writes", scale.display()))?;
    ensure!(!scale.points.is_empty(), "nothing was measured");
    std::fs::write(svg, plot::svg(&scale))
        .with_context(|| format!("cannot write {}", svg.display()))
}

/// What is measured, with fleets of `clients` at the most.
fn bench(args: &BenchArgs, clients: usize) -> anyhow::Result<Bench> {
    let beside = std::env::current_exe().context("cannot find this program")?;
    let mut machine = Machine::this();
    machine.placement = args.placement.take()?;
    let bench = Bench {
        machine,
        proxy: args
            .proxy
            .clone()
            .unwrap_or_else(|| beside.with_file_name("proxy")),
        client: args
            .client
            .clone()
            .unwrap_or_else(|| beside.with_file_name("client")),
        clients,
        rounds: args.rounds.max(1),
        rate: args.rate,
        polls: args.polls,
        inner: args.inner,
    };
    ensure!(
        bench.proxy.exists(),
        "there is no {}: build it, or name one with --proxy",
        bench.proxy.display()
    );
    let files = raise_file_limit()?;
    ensure!(
        clients >= 1000 && clients + SPARE_FILES <= files,
        "a whole fleet must have from 1000 to {} clients: a process may open {files} files here",
        files.saturating_sub(SPARE_FILES)
    );
    Ok(bench)
}

fn write_json(args: &BenchArgs, name: &str, what: &impl serde::Serialize) -> anyhow::Result<()> {
    let here = std::env::current_exe().context("cannot find this program")?;
    let target = here.parent().and_then(Path::parent);
    let json = args.json.clone();
    let json = json.unwrap_or_else(|| target.map_or_else(PathBuf::new, Path::to_owned).join(name));
    std::fs::write(&json, serde_json::to_vec_pretty(what)?)
        .with_context(|| format!("cannot write {}", json.display()))?;
    println!("written to {}", json.display());
    Ok(())
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
