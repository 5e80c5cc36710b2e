//! The servers and the proxy, started for real.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod leftovers;
mod mariadb;
mod postgres;
mod proxy;
mod redis;

/// Whether a process runs; one that has ended and is not yet waited for has no program.
fn runs(pid: impl std::fmt::Display) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}
