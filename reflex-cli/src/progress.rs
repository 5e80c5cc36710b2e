//! Progress bars, on stderr and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// A bar for a number of things that is set later.
pub(crate) fn bar(what: &'static str) -> ProgressBar {
    styled(what, "{msg:>10} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
}

/// A bar for bytes of a file, whose length is set later.
pub(crate) fn bytes(what: &'static str) -> ProgressBar {
    styled(what, "{msg:>10} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A count without an end.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    let bar = styled(what, "{msg:>10} {spinner} {human_pos} {per_sec}");
    bar.unset_length();
    bar
}

fn styled(what: &'static str, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style).with_message(what);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}
