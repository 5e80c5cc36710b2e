//! `reflex demo` killed at any moment, and started again.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::Signal;

use crate::{
    demo::{check_authors, random_repository},
    reflex::{Running, objects, succeed, text},
};

const ROUNDS: u32 = 20;

#[test]
fn totals_are_exact_however_often_it_is_killed() {
    let repository = random_repository(400, &[]);
    let commits = repository.count(&[]);
    let whole = Instant::now();
    repository.report();
    let whole = whole.elapsed();
    let seed = std::env::var("REFLEX_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("REFLEX_TEST_SEED={seed} for the moments");
    let mut random = StdRng::seed_from_u64(seed);
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let data = repository.folder().join(format!("{round}.sqlite"));
        let demo = || repository.demo(&["--json", "--data", text(&data)]);
        for _ in 0..2 {
            interrupted += u32::from(kill_after(whole.mul_f64(random.random()), &mut demo()));
        }
        let report = objects(&succeed(&mut demo())).remove(0);
        assert_eq!(report["events"], commits);
        check_authors(&report, &repository);
        assert_eq!(report["merges"], repository.count(&["--merges"]));
        assert_eq!(report["days"]["commits"], commits);
    }
    assert!(interrupted > ROUNDS / 2, "only {interrupted} runs were killed before their end");
}

/// Whether it was killed before it had ended.
fn kill_after(delay: Duration, demo: &mut std::process::Command) -> bool {
    let mut demo = Running::start(demo);
    wait(delay);
    let interrupted = demo.child.try_wait().unwrap().is_none();
    demo.signal_if_running(Signal::KILL);
    demo.exit_code();
    interrupted
}

#[expect(clippy::disallowed_methods, reason = "the random moment is what the test is about")]
fn wait(delay: Duration) {
    std::thread::sleep(delay);
}

#[test]
fn ctrl_c_leaves_nothing_half_done() {
    let repository = random_repository(400, &[]);
    let commits = repository.count(&[]);
    let whole = Instant::now();
    repository.report();
    let whole = whole.elapsed();
    for round in 0..6 {
        let data = repository.folder().join(format!("{round}.sqlite"));
        let demo = || repository.demo(&["--json", "--data", text(&data)]);
        let mut running = Running::start(&mut demo());
        wait(whole.mul_f64(f64::from(round) / 6.0));
        running.signal_if_running(Signal::INT);
        let code = running.exit_code();
        // Before the signal is taken over it ends the process.
        assert!(matches!(code, None | Some(0 | 130)), "{code:?}");
        let report = objects(&succeed(&mut demo())).remove(0);
        assert_eq!((&report["events"], &report["days"]["commits"]), (&commits.into(), &commits.into()));
        check_authors(&report, &repository);
    }
}
