//! The suites find what is wrong with implementations that are wrong in one way each.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod broken_cursors;
mod broken_streams;
mod scripted;

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt;

/// Runs a suite that has to fail and checks that it names the case.
async fn check_found(suite: impl Future<Output = ()>, case: &str) {
    let panic = AssertUnwindSafe(suite).catch_unwind().await.expect_err("the suite found nothing");
    let report = text(&*panic);
    assert!(report.contains(&format!("\n  {case}: ")), "the case `{case}` did not fail: {report}");
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map_or("a panic without a text", String::as_str)
}
