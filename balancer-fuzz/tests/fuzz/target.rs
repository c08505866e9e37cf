//! Runs a target.

use std::path::Path;
use std::{env, fs};

/// The committed inputs of a target.
#[cfg(not(feature = "libfuzzer"))]
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let entries = fs::read_dir(&folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Gives `check` the inputs of the corpus and the seeds, then what chance makes of them, for `BALANCER_FUZZ_SECONDS`, or five.
/// `BALANCER_FUZZ_INPUT` names a file to be given alone. What fails is written to a file.
#[cfg(not(feature = "libfuzzer"))]
pub fn run(name: &str, seeds: fn() -> Vec<Vec<u8>>, check: fn(&[u8])) {
    use crate::support::chance::{Chance, seed};
    use std::panic::{catch_unwind, resume_unwind};
    use std::time::{Duration, Instant};

    let attempt = |input: &[u8]| {
        if let Err(panic) = catch_unwind(|| check(input)) {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.failed"));
            fs::write(&path, input).unwrap();
            println!("again: BALANCER_FUZZ_INPUT={}", path.display());
            resume_unwind(panic);
        }
    };
    if let Some(path) = env::var_os("BALANCER_FUZZ_INPUT") {
        return check(&fs::read(path).unwrap());
    }
    let mut inputs = seeds();
    let made = inputs.len();
    inputs.extend(corpus(name));
    assert!(made > 0 && inputs.len() > made, "inputs are missing");
    for input in &inputs {
        attempt(input);
    }
    let seconds = env::var("BALANCER_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(5, |text| text.parse().unwrap());
    let seed = seed();
    let mut chance = Chance(seed);
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        attempt(&crate::mutate::mutate(&mut chance, &inputs));
        count += 1;
    }
    println!(
        "{name}: {made} seeds, {} inputs of the corpus, {count} by chance, seed {seed} (BALANCER_SEED)",
        inputs.len() - made
    );
}

/// Hands the target to libFuzzer, whose arguments are those of the test program behind `--`. `BALANCER_FUZZ_SEEDS` names a folder
/// that the seeds are written to first.
#[cfg(feature = "libfuzzer")]
pub fn run(name: &str, seeds: fn() -> Vec<Vec<u8>>, check: fn(&[u8])) {
    if let Some(folder) = env::var_os("BALANCER_FUZZ_SEEDS") {
        for (number, seed) in seeds().iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed-{number}")), seed).unwrap();
        }
    }
    crate::libfuzzer::run(name, check);
}
