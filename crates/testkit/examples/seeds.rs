//! Writes the seeds of each fuzz target into a folder of its own: `seeds FOLDER [TARGET…]`.

#![expect(
    clippy::unwrap_used,
    reason = "without its seeds a fuzzer is not to start"
)]

use std::fs;
use std::path::PathBuf;

use pushprox_testkit::seeds;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap());
    let asked: Vec<String> = arguments.collect();
    for target in seeds::TARGETS {
        if !asked.is_empty() && !asked.iter().any(|name| name == target) {
            continue;
        }
        let folder = folder.join(target);
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds::of(target).into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
