//! A program with mounts of its own.

use std::process::Command as StdCommand;

use pushprox_testkit::process::command;
use tokio::process::Command;

/// The command that runs `script`, which may mount, and then `program` with what the script left.
/// None, outside of CI, where there cannot be a mount.
pub fn with_mounts(script: &str, program: &Command) -> Option<Command> {
    let ways: [&[&str]; 3] = [
        &["unshare", "--mount"],
        &["unshare", "--user", "--map-root-user", "--mount"],
        &["sudo", "-n", "--preserve-env", "unshare", "--mount"],
    ];
    let can = |way: &&&[&str]| {
        let mut trial = StdCommand::new(way[0]);
        trial
            .args(&way[1..])
            .args(["mount", "-t", "tmpfs", "none", "/mnt"]);
        trial.output().is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(can) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "there can be no mounts, and in CI this is not left out"
        );
        eprintln!("left out: there can be no mounts");
        return None;
    };
    let program = program.as_std();
    let mut command = command(way[0]);
    command.args(&way[1..]).args(["sh", "-c"]);
    command.arg(format!("set -e; {script}; exec \"$0\" \"$@\""));
    command.arg(program.get_program()).args(program.get_args());
    Some(command)
}
