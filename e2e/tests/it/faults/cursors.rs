use std::time::Duration;

use reflex_e2e::Backend;
use reflex_testing::eventually;

use super::{Drill, Fault, Runs, runners::Seen};
use crate::support::{PATIENCE, run};

/// Somebody empties the table of cursors, and with it the effects, under consumers that run.
///
/// Those that store a cursor now and then store it again. The one whose cursor moves with its effects has to notice that its
/// cursor is gone before it writes another effect; then it begins from the first event.
pub(super) struct Emptied;

impl<D: Backend> Fault<D> for Emptied {
    const NAME: &'static str = "cursors emptied";
    const RUNS: Runs = Runs::Fail;
    const DEADLINE: Duration = Duration::from_secs(120);

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        stored(drill).await;
        let before = drill.runners.failures();
        // The cursor first, as the consumer has it: each waits for the other, and neither for ever.
        run(drill.pool, &format!("{}; delete from cursors; delete from effects; commit", D::BEGIN)).await;
        drill.runners.fail_since_any(&before).await;
        stored(drill).await;
        1
    }

    async fn finish(&mut self, drill: &mut Drill<'_, D>, _last: i64) -> Vec<Seen> {
        let messages = drill.runners.messages();
        assert!(messages.iter().all(|message| message.starts_with("consumer `effects`")), "{messages:?}");
        Vec::new()
    }
}

/// Waits until every consumer has a cursor, but for the one that has it in memory.
async fn stored<D: Backend>(drill: &Drill<'_, D>) {
    let consumers = drill.runners.failures().len() as i64 - 1;
    let all = || async { D::number(drill.pool, "select count(*) from cursors").await.unwrap() == consumers };
    eventually("a cursor of every consumer", PATIENCE, all).await;
}
