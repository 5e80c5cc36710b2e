//! Faults of every kind, each against every database that knows it, under one load and one check: see [`drill`](drill::drill).

mod another;
mod clock;
mod cursors;
mod disk;
mod drill;
mod network;
mod processes;
mod runners;
mod server;
mod sessions;
mod transactions;

use reflex_e2e::Backend;
use sqlx::{MySql, Postgres};

use self::{
    another::another_server,
    clock::Clocks,
    cursors::Emptied,
    disk::{disk_full, sqlite_disk_full},
    drill::{Drill, Fault, Runs, drill},
    network::{Cut, Stalled},
    processes::{ConsumersKilled, WritersKilled},
    server::{killed, restarted},
    sessions::SessionsKilled,
    transactions::{Open, prepared},
};
use crate::support::Namespace;

/// Makes a test of each drill. `shared` is where a namespace comes from, for faults that leave the server of other tests alone;
/// the other drills begin servers of their own.
macro_rules! drills {
    (
        $ignored:tt
        shared($namespace:expr) { $($fault_test:ident: $fault:expr,)* }
        own { $($test:ident: $drill:expr,)* }
    ) => {
        $(drills!(@test $ignored $fault_test {
            let namespace = ($namespace)(stringify!($fault_test)).await;
            Box::pin(shared(namespace, $fault)).await;
        });)*
        $(drills!(@test $ignored $test {
            Box::pin($drill).await;
        });)*
    };
    (@test [$($ignored:meta)?] $test:ident $body:block) => {
        #[tokio::test(flavor = "multi_thread")]
        $(#[$ignored])?
        async fn $test() $body
    };
}

/// The drills of a database that is a server.
macro_rules! server_drills {
    ($database:ty, $server:ty, $namespace:expr, $needs:literal) => {
        drills! {
            [ignore = $needs]
            shared($namespace) {
                consumers_killed: ConsumersKilled::default(),
                connections_cut: Cut,
                connections_stalled: Stalled,
                sessions_killed: SessionsKilled::default(),
                writers_killed: WritersKilled::default(),
                clocks_that_jump: Clocks,
                open_transactions: Open,
                cursors_emptied: Emptied,
            }
            own {
                server_killed: killed::<$database, $server>(),
                server_restarted: restarted::<$database, $server>(),
                led_to_another_server: another_server::<$database, $server>(),
                prepared_transactions: prepared::<$database, $server>(),
                full_disk: disk_full::<$database, $server>(),
            }
        }
    };
}

mod postgres {
    use super::*;

    server_drills!(Postgres, test_servers::Postgres, Namespace::postgres, "needs Postgres: cargo xtask test");
}

mod mariadb {
    use super::*;

    server_drills!(MySql, test_servers::MariaDb, Namespace::mariadb, "needs MariaDB: cargo xtask test");
}

mod sqlite {
    use super::*;

    drills! {
        []
        shared(|_name| Namespace::sqlite()) {
            consumers_killed: ConsumersKilled::default(),
            writers_killed: WritersKilled::default(),
            clocks_that_jump: Clocks,
            open_transactions: Open,
            cursors_emptied: Emptied,
        }
        own {
            full_disk: sqlite_disk_full(),
        }
    }
}

/// A drill in a database of a server that other tests use too.
async fn shared<D: Backend, F: Fault<D>>(namespace: Namespace<D>, fault: F) {
    drill(&namespace, fault).await;
    namespace.remove().await;
}
