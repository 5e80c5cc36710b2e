use std::time::Duration;

use rand::RngExt;
use reflex_e2e::Backend;
use sqlx::{MySql, Postgres};
use tokio::time::timeout;

use super::{Drill, Fault, Runs};

/// All sessions are killed at most so many times more, a second apart: one that is being made cannot be seen yet.
const STRIKES: u32 = 30;

/// An administrator ends sessions: those of readers, of cursors, of effects, of writers.
#[derive(Default)]
pub(super) struct SessionsKilled {
    struck: bool,
}

/// A database whose sessions can be killed.
pub(super) trait Sessions: Backend {
    /// The ids of all sessions in this database but one's own.
    const OTHERS: &'static str;

    fn kill(session: i64) -> String;
}

impl Sessions for Postgres {
    const OTHERS: &'static str =
        "select pid::bigint from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";

    fn kill(session: i64) -> String {
        format!("select pg_terminate_backend({session})")
    }
}

impl Sessions for MySql {
    const OTHERS: &'static str =
        "select cast(id as signed) from information_schema.processlist where db = database() and id <> connection_id()";

    fn kill(session: i64) -> String {
        format!("kill {session}")
    }
}

impl<D: Sessions> Fault<D> for SessionsKilled {
    const NAME: &'static str = "sessions killed";
    const RUNS: Runs = Runs::Fail;

    /// The first time it kills all, later some.
    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let before = drill.runners.failures();
        let all = !std::mem::replace(&mut self.struck, true) || drill.rng.random_bool(0.2);
        let mut killed = kill(drill, if all { 1.0 } else { 0.3 }).await;
        if !all {
            return killed;
        }
        for _ in 0..STRIKES {
            if timeout(Duration::from_secs(1), drill.runners.fail_since(&before)).await.is_ok() {
                return killed;
            }
            killed += kill(drill, 1.0).await;
        }
        drill.runners.fail_since(&before).await;
        killed
    }
}

/// Kills each session with this probability; returns how many.
async fn kill<D: Sessions>(drill: &mut Drill<'_, D>, probability: f64) -> u64 {
    let mut conn = D::connect(drill.pool).await.unwrap();
    let mut killed = 0;
    for (session, _) in D::rows(&mut conn, D::OTHERS.to_owned()).await.unwrap() {
        if drill.rng.random_bool(probability) {
            // It may have ended by itself.
            killed += u64::from(D::run_sql(&mut conn, D::kill(session)).await.is_ok());
        }
    }
    killed
}
