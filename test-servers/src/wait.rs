use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls `condition` until it holds; false if it does not within `limit`.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "this crate's server API is blocking and says so")]
fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}
