//! Runs the consumers: once to the head, or for as long as the demo is served.

use std::{
    convert::Infallible,
    future::pending,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use reflex_core::{BoxSpec, run_until};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};

use super::{Demo, consumers, health::Board};
use crate::{interrupt::Interrupt, progress};

const SHOW_PROGRESS: Duration = Duration::from_millis(100);
/// How long a consumer that failed is left alone.
const RESTART_DELAY: Duration = Duration::from_secs(2);
/// How often the source is asked for something new.
const IMPORT_INTERVAL: Duration = Duration::from_secs(2);

/// How the consumers got on.
#[derive(Debug)]
pub(crate) struct Elapsed {
    pub(crate) seconds: f64,
    /// The first failure, once all have ended.
    pub(crate) result: Result<()>,
}

/// Runs all consumers at once to the head, with a progress bar.
pub(crate) async fn to_head(demo: &Demo, interrupt: &Interrupt) -> Elapsed {
    let start = Instant::now();
    let specs = consumers::specs(&demo.data, &demo.metrics, true);
    let result = tokio::select! {
        result = all_to_head(specs, interrupt) => result,
        never = show_progress(demo) => match never {},
    };
    Elapsed { seconds: start.elapsed().as_secs_f64(), result }
}

async fn all_to_head(specs: Vec<BoxSpec>, interrupt: &Interrupt) -> Result<()> {
    let mut runs = JoinSet::new();
    for mut spec in specs {
        let interrupt = interrupt.clone();
        runs.spawn(async move {
            let Err(error) = run_until(&mut spec, stop(&interrupt)).await;
            error
        });
    }
    let mut result = Ok(());
    while let Some(run) = runs.join_next().await {
        let error = run.context("wait for a consumer")?;
        if error.is_stopped() {
            result = result.and(Err(interrupt.asked().await.into()));
        } else if !error.is_head_reached() {
            result = result.and(Err(anyhow!(error)));
        }
    }
    result
}

async fn show_progress(demo: &Demo) -> Infallible {
    // The bar has to go when this future is dropped, which is how it always ends.
    let bar = ClearOnDrop(progress::bar("consuming"));
    if bar.0.is_hidden() {
        return pending().await;
    }
    if let Ok(backlog) = consumers::backlog(&demo.data).await {
        bar.0.set_length(backlog);
    }
    let mut ticks = interval(SHOW_PROGRESS);
    loop {
        ticks.tick().await;
        bar.0.set_position(demo.tally.events());
    }
}

struct ClearOnDrop(indicatif::ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn stop(interrupt: &Interrupt) {
    interrupt.asked().await;
}

/// Follows the stream with all consumers and imports what is new, until the process is asked to end.
///
/// # Errors
///
/// If a task panics. What goes wrong otherwise is told by `/health`, and tried again.
pub(crate) async fn follow(demo: &Demo, board: &Board, interrupt: &Interrupt) -> Result<()> {
    let mut runs = JoinSet::new();
    for spec in consumers::specs(&demo.data, &demo.metrics, false) {
        runs.spawn(keep_running(spec.health(&board.consumers), interrupt.clone()));
    }
    tokio::select! {
        biased;
        _ = interrupt.asked() => {}
        never = keep_importing(demo, board) => match never {},
    }
    while let Some(run) = runs.join_next().await {
        run.context("wait for a consumer")?;
    }
    Ok(())
}

async fn keep_running(mut spec: BoxSpec, interrupt: Interrupt) {
    loop {
        let Err(error) = run_until(&mut spec, stop(&interrupt)).await;
        if error.is_stopped() || pause(&interrupt).await.is_err() {
            return;
        }
    }
}

/// Waits for the restart of a consumer.
async fn pause(interrupt: &Interrupt) -> Result<()> {
    let pause = async {
        sleep(RESTART_DELAY).await;
        Ok(())
    };
    interrupt.or(pause).await
}

async fn keep_importing(demo: &Demo, board: &Board) -> Infallible {
    let mut ticks = interval(IMPORT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        board.imported(demo.source.import_live(&demo.data).await.err());
    }
}
