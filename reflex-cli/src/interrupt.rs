//! Ctrl-C and SIGTERM.

use std::{future, sync::Arc};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::exit::Interrupted;

/// Tells everybody who holds it that the process was asked to end.
///
/// The first signal asks; the second ends the process at once, in case something hangs.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    asked: watch::Receiver<Option<Interrupted>>,
    _watcher: Arc<Watcher>,
}

/// The task that waits for signals; it ends with its last holder.
#[derive(Debug)]
struct Watcher(tokio::task::JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Interrupt {
    /// Takes over the signals of this process.
    pub(crate) fn watch() -> Result<Self> {
        let sigint = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let sigterm = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let (ask, asked) = watch::channel(None);
        let watcher = Watcher(tokio::spawn(relay(sigint, sigterm, ask)));
        Ok(Self { asked, _watcher: Arc::new(watcher) })
    }

    /// Waits until the process is asked to end.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub(crate) async fn asked(&self) -> Interrupted {
        let mut asked = self.asked.clone();
        match asked.wait_for(Option::is_some).await.map(|interrupted| *interrupted) {
            Ok(Some(interrupted)) => interrupted,
            // The watcher lives as long as we do and never ends by itself.
            _ => future::pending().await,
        }
    }

    /// Runs something that may be dropped at any point, until it is done or the process is asked to end.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            interrupted = self.asked() => Err(interrupted.into()),
            result = work => result,
        }
    }
}

async fn relay(mut sigint: Signal, mut sigterm: Signal, ask: watch::Sender<Option<Interrupted>>) {
    ask.send_replace(Some(next(&mut sigint, &mut sigterm).await));
    let again = next(&mut sigint, &mut sigterm).await;
    std::process::exit(again.code.into());
}

async fn next(sigint: &mut Signal, sigterm: &mut Signal) -> Interrupted {
    tokio::select! {
        _ = sigint.recv() => Interrupted { code: 130 },
        _ = sigterm.recv() => Interrupted { code: 143 },
    }
}
