use std::{env, fs, io, path::Path, thread};

use rand::{SeedableRng, rngs::StdRng};

use crate::mutate::mutate;

const SEED: &str = "REFLEX_FUZZ_SEED";
const RUNS: &str = "REFLEX_FUZZ_RUNS";
const DEFAULT_SEED: u64 = 0;
const DEFAULT_RUNS: u64 = 5_000;

/// Hands a target its stored inputs, those in `fuzz/corpus/<name>`, and then mutations of them.
///
/// There are 5,000 mutations, or as many as `REFLEX_FUZZ_RUNS` says. They follow from a seed, which is printed: 0, so that a
/// change is judged by the inputs of the one before it, or what `REFLEX_FUZZ_SEED` says, for a search elsewhere. The input for
/// which a target panics is printed too.
///
/// # Panics
///
/// If the target panics, the inputs cannot be read, or a variable is no number.
pub fn explore(name: &str, target: impl Fn(&[u8])) {
    let seed = number(SEED).unwrap_or(DEFAULT_SEED);
    tell(&format!("{name}: {SEED}={seed}"));
    let corpus = corpus(name);
    for input in &corpus {
        watch(&target, input);
    }
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..number(RUNS).unwrap_or(DEFAULT_RUNS) {
        watch(&target, &mutate(&mut rng, &corpus));
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

/// In the order of the names, so that a seed means the same everywhere.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let read = || {
        let mut files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        files.sort();
        files.iter().map(fs::read).collect::<io::Result<Vec<_>>>()
    };
    let inputs = read().unwrap_or_else(|error| panic!("read the inputs in {}: {error}", folder.display()));
    assert!(!inputs.is_empty(), "there is no input in {}", folder.display());
    inputs
}

fn watch(target: impl Fn(&[u8]), input: &[u8]) {
    let _told = ToldOnPanic(input);
    target(input);
}

/// Prints an input while a panic goes by.
struct ToldOnPanic<'a>(&'a [u8]);

impl Drop for ToldOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            tell(&format!("the input was b\"{}\"", self.0.escape_ascii()));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows it")]
fn tell(text: &str) {
    eprintln!("{text}");
}
