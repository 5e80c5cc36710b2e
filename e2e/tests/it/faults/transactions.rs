use std::sync::Arc;

use rand::RngExt;
use reflex_e2e::{Backend, begin_with_rows};
use sqlx::{MySql, Postgres};

use super::{
    Drill, Fault, Runs, drill,
    server::{Server, begin, on},
};
use crate::support::{Namespace, run};

const ROWS: i64 = 5;

/// Transactions that hold their ids for long, while others commit.
pub(super) struct Open;

impl<D: Backend> Fault<D> for Open {
    const NAME: &'static str = "long open transactions";
    const RUNS: Runs = Runs::GoOn;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let count = if D::ONE_WRITER { 1 } else { drill.rng.random_range(1..=3) };
        let mut open = Vec::new();
        for _ in 0..count {
            let foreign_ids = drill.foreign_ids(ROWS);
            let mut conn = D::connect(drill.pool).await.unwrap();
            let held = begin_with_rows::<D>(&mut conn, D::BEGIN, foreign_ids.clone()).await.unwrap();
            open.push((conn, held, foreign_ids));
            drill.is_waited_for(open[0].1).await;
        }
        // The last one first, so that what it held has to wait for the others.
        while let Some((mut conn, _, foreign_ids)) = open.pop() {
            let commits = open.is_empty() || drill.rng.random_bool(0.5);
            let end = if commits { "commit" } else { "rollback" };
            D::run_sql(&mut conn, end.to_owned()).await.unwrap();
            drill.told.extend(commits.then_some(foreign_ids).into_iter().flatten());
        }
        count
    }
}

/// A drill in which transactions are prepared and left, the server is restarted or killed, and somebody else ends them.
pub(super) async fn prepared<D: Prepares, S: Server>() {
    let server = begin::<S>(None).await;
    let namespace = Namespace::<D>::alone(&server.url(), "prepared").await;
    Box::pin(drill(&namespace, Prepared { server, count: 0 })).await;
}

/// A database with two-phase commits.
pub(super) trait Prepares: Backend {
    fn begin(name: &str) -> String;
    fn prepare(name: &str) -> String;
    fn end(name: &str, commits: bool) -> String;
}

impl Prepares for Postgres {
    fn begin(_name: &str) -> String {
        "begin".to_owned()
    }

    fn prepare(name: &str) -> String {
        format!("prepare transaction '{name}'")
    }

    fn end(name: &str, commits: bool) -> String {
        format!("{} prepared '{name}'", if commits { "commit" } else { "rollback" })
    }
}

impl Prepares for MySql {
    fn begin(name: &str) -> String {
        format!("xa start '{name}'")
    }

    fn prepare(name: &str) -> String {
        format!("xa end '{name}'; xa prepare '{name}'")
    }

    fn end(name: &str, commits: bool) -> String {
        format!("xa {} '{name}'", if commits { "commit" } else { "rollback" })
    }
}

struct Prepared<S> {
    server: Arc<S>,
    count: u64,
}

impl<D: Prepares, S: Server> Fault<D> for Prepared<S> {
    const NAME: &'static str = "prepared transactions left, server restarted";
    const RUNS: Runs = Runs::Fail;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        self.count += 1;
        let name = format!("left-{}", self.count);
        let foreign_ids = drill.foreign_ids(ROWS);
        let mut conn = D::connect(drill.pool).await.unwrap();
        let held = begin_with_rows::<D>(&mut conn, &D::begin(&name), foreign_ids.clone()).await.unwrap();
        // Its session is waited for before it has a name of its own.
        drill.is_waited_for(held).await;
        D::run_sql(&mut conn, D::prepare(&name)).await.unwrap();
        drop(conn);
        drill.is_waited_for(held).await;

        let before = drill.runners.failures();
        on(&self.server, if drill.rng.random_bool(0.5) { S::kill } else { S::stop }).await;
        drill.runners.fail_since(&before).await;
        on(&self.server, S::start_again).await;
        drill.is_waited_for(held).await;

        let commits = self.count == 1 || drill.rng.random_bool(0.5);
        run(drill.pool, &D::end(&name, commits)).await;
        drill.told.extend(commits.then_some(foreign_ids).into_iter().flatten());
        1
    }
}
