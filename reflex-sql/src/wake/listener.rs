use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream::ReadyChunks};
use reflex_core::{BoxHints, WakeUps};
use tokio::time::{sleep, timeout};

use super::{Bell, Message, Remote, delays};
use crate::{Error, Result, error::Problem};

/// Hints that come within this time wake the reader once, however many processes write.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// Where listening fails it is tried again after at most this long.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// So many messages are taken at once.
const CHUNK: usize = 1_000;

/// Wakes the reader of this table when others ring, for as long as the reader runs.
pub(crate) async fn listen(bell: Arc<Bell>) -> Infallible {
    let Some(remote) = &bell.remote else { return pending().await };
    let mut retries = delays(LONGEST_DELAY);
    let mut warned = false;
    loop {
        let mut hearing = None;
        let Err(error) = session(&bell, remote, &mut hearing).await;
        if hearing.take().is_some() {
            retries = delays(LONGEST_DELAY);
            warned = false;
        }
        remote.complain(
            &error,
            "no wake-ups of other processes arrive, whose events are found by polling",
            &mut warned,
        );
        sleep(retries.next().unwrap_or(LONGEST_DELAY)).await;
    }
}

/// Listens until the connection is lost, or nothing arrives over it.
///
/// What we send to ourselves has to arrive: that shows a connection that is dead without a word, and a pooler that leaves the
/// subscription with a session that is not ours.
async fn session<'a>(bell: &Bell, remote: &'a Remote, hearing: &mut Option<Hearing<'a>>) -> Result<Infallible> {
    let hints = remote.within("listen for wake-ups", remote.wake_ups.listen(&remote.topic)).await?;
    let mut hints = hints.ready_chunks(CHUNK);
    remote.send(Message::Probe(remote.me)).await?;
    let mut probed = true;
    loop {
        let Some(woken) = hear(remote, &mut hints).await? else {
            if probed {
                return Err(remote.silent());
            }
            remote.send(Message::Probe(remote.me)).await?;
            probed = true;
            continue;
        };
        probed = false;
        let first = hearing.is_none();
        hearing.get_or_insert_with(|| Hearing::begin(remote));
        // Listen first, look second: whatever was committed before is found by this look, and what comes later is heard.
        if first || woken {
            bell.local.notify_one();
            sleep(BETWEEN_LOOKS).await;
        }
    }
}

/// Waits for messages, and tells whether there is a hint of others among them; `None` if it was silent for too long.
async fn hear(remote: &Remote, hints: &mut ReadyChunks<BoxHints>) -> Result<Option<bool>> {
    let Ok(messages) = timeout(remote.patience, hints.next()).await else { return Ok(None) };
    let messages = messages.ok_or_else(|| remote.lost())?;
    let messages = messages.into_iter().collect::<reflex_core::Result<Vec<_>>>();
    let attempted = || format!("listen for wake-ups for table `{}`", remote.table);
    let messages = messages.map_err(|source| Problem::WakeUps { attempted: attempted(), source })?;
    let of_others = messages.iter().filter(|message| Message::is_hint_of_another(message, remote.me)).count();
    remote.metrics.wake_ups_received.inc_by(of_others as u64);
    Ok(Some(of_others > 0))
}

impl Remote {
    fn lost(&self) -> Error {
        Problem::WakeUpsLost { table: self.table.clone() }.into()
    }

    fn silent(&self) -> Error {
        Problem::WakeUpsSilent { table: self.table.clone(), waited: self.patience }.into()
    }
}

/// Counts as somebody who hears until it is dropped.
struct Hearing<'a>(&'a Remote);

impl<'a> Hearing<'a> {
    fn begin(remote: &'a Remote) -> Self {
        remote.hearing.fetch_add(1, Ordering::Relaxed);
        remote.metrics.wake_ups_connected.inc();
        tracing::info!(table = %remote.table, "wake-ups of other processes arrive");
        Self(remote)
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        self.0.hearing.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.wake_ups_connected.dec();
    }
}
