use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt;
use reflex_core::NewEvent;
use reflex_e2e::Backend;

use super::{Drill, Fault, Runs};

const DAY: u64 = 24 * 60 * 60;
const YEAR: u64 = 365 * DAY;

/// The clocks of writers jump: back, years back, and far into the future.
pub(super) struct Clocks;

impl<D: Backend> Fault<D> for Clocks {
    const NAME: &'static str = "clocks that jump";
    const RUNS: Runs = Runs::GoOn;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let times = [now, now - 1, now - DAY, now + 1, now + DAY, now + 100 * YEAR, now - 30 * YEAR, 1];
        let foreign_ids = drill.foreign_ids(times.len() as i64);
        let events: Vec<_> = foreign_ids
            .clone()
            .map(|foreign_id| {
                let time = Duration::from_secs(times[drill.rng.random_range(0..times.len())]);
                NewEvent::new(foreign_id, 1).timestamp((UNIX_EPOCH + time).into())
            })
            .collect();
        let mut tx = drill.pool.begin().await.unwrap();
        let notify = drill.table.insert_all(&mut tx, events).await.unwrap();
        tx.commit().await.unwrap();
        notify.send();
        drill.told.extend(foreign_ids);
        times.len() as u64
    }
}
