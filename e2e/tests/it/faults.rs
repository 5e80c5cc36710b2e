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

use self::drill::{Drill, Fault, Runs, drill};
use crate::support::Namespace;

macro_rules! drills {
    ($site:expr, $needs:literal, { $($test:ident: $fault:expr,)* }) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            #[ignore = $needs]
            async fn $test() {
                Box::pin(shared($site(stringify!($test)).await, $fault)).await;
            }
        )*
    };
}

mod postgres {
    use sqlx::Postgres;
    use test_servers::Postgres as Server;

    use super::{
        another::another_server,
        clock::Clocks,
        cursors::Emptied,
        disk::disk_full,
        network::{Cut, Stalled},
        processes::{ConsumersKilled, WritersKilled},
        server::{killed, restarted},
        sessions::SessionsKilled,
        shared,
        transactions::{Open, prepared},
    };
    use crate::support::Namespace;

    drills!(Namespace::postgres, "needs Postgres: cargo xtask test", {
        consumers_killed: ConsumersKilled::default(),
        connections_cut: Cut,
        connections_stalled: Stalled,
        sessions_killed: SessionsKilled::default(),
        writers_killed: WritersKilled::default(),
        clocks_that_jump: Clocks,
        open_transactions: Open,
        cursors_emptied: Emptied,
    });

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs Postgres: cargo xtask test"]
    async fn server_killed() {
        Box::pin(killed::<Postgres, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs Postgres: cargo xtask test"]
    async fn led_to_another_server() {
        Box::pin(another_server::<Postgres, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs Postgres: cargo xtask test"]
    async fn server_restarted() {
        Box::pin(restarted::<Postgres, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs Postgres: cargo xtask test"]
    async fn prepared_transactions() {
        Box::pin(prepared::<Postgres, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs Postgres: cargo xtask test"]
    async fn full_disk() {
        Box::pin(disk_full::<Postgres, Server>()).await;
    }
}

mod mariadb {
    use sqlx::MySql;
    use test_servers::MariaDb as Server;

    use super::{
        another::another_server,
        clock::Clocks,
        cursors::Emptied,
        disk::disk_full,
        network::{Cut, Stalled},
        processes::{ConsumersKilled, WritersKilled},
        server::{killed, restarted},
        sessions::SessionsKilled,
        shared,
        transactions::{Open, prepared},
    };
    use crate::support::Namespace;

    drills!(Namespace::mariadb, "needs MariaDB: cargo xtask test", {
        consumers_killed: ConsumersKilled::default(),
        connections_cut: Cut,
        connections_stalled: Stalled,
        sessions_killed: SessionsKilled::default(),
        writers_killed: WritersKilled::default(),
        clocks_that_jump: Clocks,
        open_transactions: Open,
        cursors_emptied: Emptied,
    });

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs MariaDB: cargo xtask test"]
    async fn server_killed() {
        Box::pin(killed::<MySql, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs MariaDB: cargo xtask test"]
    async fn led_to_another_server() {
        Box::pin(another_server::<MySql, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs MariaDB: cargo xtask test"]
    async fn server_restarted() {
        Box::pin(restarted::<MySql, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs MariaDB: cargo xtask test"]
    async fn prepared_transactions() {
        Box::pin(prepared::<MySql, Server>()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs MariaDB: cargo xtask test"]
    async fn full_disk() {
        Box::pin(disk_full::<MySql, Server>()).await;
    }
}

mod sqlite {
    use super::{
        clock::Clocks,
        cursors::Emptied,
        disk::sqlite_disk_full,
        processes::{ConsumersKilled, WritersKilled},
        shared,
        transactions::Open,
    };
    use crate::support::Namespace;

    #[tokio::test(flavor = "multi_thread")]
    async fn consumers_killed() {
        Box::pin(shared(Namespace::sqlite().await, ConsumersKilled::default())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writers_killed() {
        Box::pin(shared(Namespace::sqlite().await, WritersKilled::default())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clocks_that_jump() {
        Box::pin(shared(Namespace::sqlite().await, Clocks)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn open_transactions() {
        Box::pin(shared(Namespace::sqlite().await, Open)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn cursors_emptied() {
        Box::pin(shared(Namespace::sqlite().await, Emptied)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn full_disk() {
        Box::pin(sqlite_disk_full()).await;
    }
}

/// A drill in a database of a server that other tests use too.
async fn shared<D: reflex_e2e::Backend, F: Fault<D>>(namespace: Namespace<D>, fault: F) {
    drill(&namespace, fault).await;
    namespace.remove().await;
}
