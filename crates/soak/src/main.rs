//! `soak`: runs a soak and prints its account. The exit code is 1 when the account is not clean.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use pushprox_protocol::duration;
use pushprox_soak::{Settings, run};

/// Random faults under steady load, and an account of every scrape.
#[derive(Debug, Parser)]
struct Args {
    /// How long, as in 10m or 90s
    #[arg(long, default_value = "10m", value_parser = duration::parse)]
    duration: Duration,

    /// What the random choices follow from; another one each time where none is given
    #[arg(long)]
    seed: Option<u64>,
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn main() -> ExitCode {
    let args = Args::parse();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let seed = args.seed.unwrap_or(now.as_secs());
    println!("soak of {:?} with --seed={seed}", args.duration);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let account = runtime.block_on(run(Settings {
        duration: args.duration,
        seed,
    }));
    println!("{account}");
    if account.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
