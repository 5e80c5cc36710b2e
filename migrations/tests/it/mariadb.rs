use reflex_migrations::{State, down, up};
use sqlx::{
    MySql, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};

use crate::suite::{self, CROWD, Sql, namespace, server, state};

/// A database of its own for each test.
struct Schema {
    name: String,
    options: MySqlConnectOptions,
}

impl Schema {
    async fn create(test: &str) -> Self {
        let options: MySqlConnectOptions = server("REFLEX_TEST_MARIADB_URL").parse().unwrap();
        let name = namespace(test);
        let admin = MySqlPool::connect_with(options.clone()).await.unwrap();
        MySql::run(&admin, &format!("create database {name}")).await;
        Self { options: options.database(&name), name }
    }

    async fn pool(&self) -> MySqlPool {
        let options = MySqlPoolOptions::new().max_connections(2);
        options.connect_with(self.options.clone()).await.unwrap()
    }

    async fn remove(self) {
        MySql::run(&self.pool().await, &format!("drop database {}", self.name)).await;
    }
}

#[test]
fn carries_every_file() {
    suite::carries_every_file::<MySql>("mysql");
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn up_and_down() {
    let schema = Schema::create("up_and_down").await;
    suite::up_and_down(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn crowd() {
    let schema = Schema::create("crowd").await;
    let mut pools = Vec::new();
    for _ in 0..CROWD {
        pools.push(schema.pool().await);
    }
    suite::crowd(pools).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn changed() {
    let schema = Schema::create("changed").await;
    suite::changed(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn newer() {
    let schema = Schema::create("newer").await;
    suite::newer(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn others_tables() {
    let schema = Schema::create("others_tables").await;
    suite::others_tables(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_table_whose_name_differs_in_case_is_another() {
    let schema = Schema::create("case").await;
    let pool = schema.pool().await;
    MySql::run(&pool, "create table Events (mine int)").await;
    let sensitive = MySql::number(&pool, "select cast(@@lower_case_table_names as signed)").await == 0;
    assert_eq!(up(&pool).await.is_ok(), sensitive);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn an_interrupted_up_is_completed() {
    let schema = Schema::create("interrupted_up").await;
    let pool = schema.pool().await;
    up(&pool).await.unwrap();
    down(&pool, 0).await.unwrap();
    let fault = "create trigger fault before update on reflex_migrations
                 for each row signal sqlstate '45000' set message_text = 'fault'";
    MySql::run(&pool, fault).await;

    // It ends after the tables are there and before they are recorded as complete.
    up(&pool).await.unwrap_err();
    assert_eq!(state(&pool).await, State::Unfinished);
    MySql::run(&pool, "insert into events (foreign_id, type) values ('a', 1)").await;
    // And as if it had ended between the two.
    MySql::run(&pool, "drop table cursors").await;

    MySql::run(&pool, "drop trigger fault").await;
    assert_eq!(up(&pool).await.unwrap().len(), 2);
    assert!(matches!(state(&pool).await, State::Applied(_)));
    assert_eq!(MySql::number(&pool, "select count(*) from events").await, 1);
    assert_eq!(MySql::number(&pool, "select count(*) from cursors").await, 0);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn an_interrupted_down_can_go_either_way() {
    let schema = Schema::create("interrupted_down").await;
    let pool = schema.pool().await;
    for forward in [true, false] {
        up(&pool).await.unwrap();
        MySql::run(&pool, "insert into events (foreign_id, type) values ('a', 1)").await;
        kill_down_at_drop_events(&schema, &pool).await;
        assert_eq!(state(&pool).await, State::Unfinished);
        let mut left = 1;
        if forward {
            left = 2;
            assert_eq!(up(&pool).await.unwrap().len(), left);
            assert_eq!(MySql::number(&pool, "select count(*) from events").await, 1);
            assert_eq!(MySql::number(&pool, "select count(*) from cursors").await, 0);
        }
        assert_eq!(down(&pool, 0).await.unwrap().len(), left);
        assert_eq!(state(&pool).await, State::Pending);
    }
    schema.remove().await;
}

/// A reader's transaction makes the drop wait, and there the session that runs it is killed.
async fn kill_down_at_drop_events(schema: &Schema, pool: &MySqlPool) {
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("select * from events").fetch_all(&mut *reader).await.unwrap();
    let victim = schema.pool().await;
    let reverting = tokio::spawn(async move { down(&victim, 0).await });

    let waiting = "select coalesce(max(id), 0) from information_schema.processlist
                   where db = database() and info like 'drop table%events%'
                     and state like 'Waiting for table metadata lock%'";
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    let session = loop {
        match MySql::number(pool, waiting).await {
            0 => assert!(tokio::time::Instant::now() < until, "down does not wait"),
            session => break session,
        }
    };
    MySql::run(pool, &format!("kill {session}")).await;
    reverting.await.unwrap().unwrap_err();
    // The client of a killed session hears of it before the session wakes up, which would still drop
    // the table if it were granted its lock in between.
    let alive = format!("select count(*) from information_schema.processlist where id = {session}");
    while MySql::number(pool, &alive).await > 0 {
        assert!(tokio::time::Instant::now() < until, "the killed session does not end");
    }
    reader.rollback().await.unwrap();
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn times_are_utc_in_a_session_of_another_zone() {
    let schema = Schema::create("zone").await;
    let options = schema.options.clone().timezone("+05:00".to_owned());
    let pool = MySqlPool::connect_with(options).await.unwrap();
    up(&pool).await.unwrap();
    MySql::run(&pool, "insert into events (foreign_id, type) values ('a', 1)").await;
    MySql::run(&pool, "insert into cursors (id, last_event_id) values ('a', 1)").await;
    for (table, column) in [("events", "timestamp"), ("cursors", "updated_at"), ("reflex_migrations", "applied_at")] {
        let hours = format!("select abs(timestampdiff(hour, `{column}`, utc_timestamp())) from {table}");
        assert_eq!(MySql::number(&pool, &hours).await, 0, "{table}.{column}");
    }
    schema.remove().await;
}
