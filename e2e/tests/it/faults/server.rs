use std::{fmt::Display, path::Path, sync::Arc};

use rand::RngExt;
use reflex_e2e::Backend;
use reflex_testing::eventually;
use test_servers::{MariaDb, StopMode};
use tokio::task::spawn_blocking;

use super::{Drill, Fault, Runs, drill};
use crate::support::{Namespace, PATIENCE};

/// A drill in which the server is killed with SIGKILL and started again.
///
/// What it has committed is in the files by then, synced to the disk or not: it is the process that dies, not the machine.
pub(super) async fn killed<D: Backend, S: Server>() {
    let server = begin::<S>(None).await;
    let namespace = Namespace::<D>::alone(&server.url(), "killed").await;
    Box::pin(drill(&namespace, Killed(server))).await;
}

/// A drill in which the server is shut down and started again.
pub(super) async fn restarted<D: Backend, S: Server>() {
    let server = begin::<S>(None).await;
    let namespace = Namespace::<D>::alone(&server.url(), "restarted").await;
    Box::pin(drill(&namespace, Restarted(server))).await;
}

/// A server of a drill's own. All methods block.
pub(super) trait Server: Send + Sync + Sized + 'static {
    fn begin(parent: Option<&Path>) -> Self;
    fn url(&self) -> String;
    fn kill(&self);
    /// Asks it to end when all clients have left, where there is such a thing; true if it does.
    fn ask_to_leave(&self) -> bool;
    fn stop(&self);
    fn start_again(&self);
}

/// Starts one, in a folder inside this one if that is given.
pub(super) async fn begin<S: Server>(parent: Option<&Path>) -> Arc<S> {
    let parent = parent.map(Path::to_owned);
    Arc::new(spawn_blocking(move || S::begin(parent.as_deref())).await.unwrap())
}

/// Does something with a server that takes its time.
pub(super) async fn on<S: Server, T: Send + 'static>(server: &Arc<S>, act: fn(&S) -> T) -> T {
    let server = server.clone();
    spawn_blocking(move || act(&server)).await.unwrap()
}

struct Killed<S>(Arc<S>);

impl<D: Backend, S: Server> Fault<D> for Killed<S> {
    const NAME: &'static str = "server killed";
    const RUNS: Runs = Runs::Fail;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let before = drill.runners.failures();
        on(&self.0, S::kill).await;
        drill.runners.fail_since(&before).await;
        on(&self.0, S::start_again).await;
        1
    }
}

struct Restarted<S>(Arc<S>);

impl<D: Backend, S: Server> Fault<D> for Restarted<S> {
    const NAME: &'static str = "server restarted";
    const RUNS: Runs = Runs::Fail;

    /// For some time it may serve those who are connected, and nobody else.
    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let before = drill.runners.failures();
        if drill.rng.random_bool(0.5) && on(&self.0, S::ask_to_leave).await {
            let refused = || async { D::connect(drill.pool).await.is_err() };
            eventually("the server to refuse connections", PATIENCE, refused).await;
        }
        on(&self.0, S::stop).await;
        drill.runners.fail_since(&before).await;
        on(&self.0, S::start_again).await;
        1
    }
}

impl Server for test_servers::Postgres {
    fn begin(parent: Option<&Path>) -> Self {
        let options = Self::options().setting("max_wal_size", "64MB").setting("min_wal_size", "32MB");
        done(parent.map_or(options.clone(), |parent| options.parent_folder(parent)).start())
    }

    fn url(&self) -> String {
        self.url()
    }

    fn kill(&self) {
        done(self.kill());
    }

    fn ask_to_leave(&self) -> bool {
        done(self.ask_to_stop(StopMode::Smart));
        true
    }

    fn stop(&self) {
        done(self.stop(StopMode::Fast));
    }

    fn start_again(&self) {
        done(self.restart());
    }
}

impl Server for MariaDb {
    fn begin(parent: Option<&Path>) -> Self {
        let options = Self::options();
        done(parent.map_or(options.clone(), |parent| options.parent_folder(parent)).start())
    }

    fn url(&self) -> String {
        self.url()
    }

    fn kill(&self) {
        done(self.kill());
    }

    fn ask_to_leave(&self) -> bool {
        false
    }

    fn stop(&self) {
        done(self.stop());
    }

    fn start_again(&self) {
        done(self.restart());
    }
}

#[track_caller]
fn done<T>(outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}
