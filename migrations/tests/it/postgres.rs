use reflex_migrations::{State, down, up};
use sqlx::{
    PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::suite::{self, CROWD, Sql, namespace, server, state};

/// A schema of its own for each test.
struct Schema {
    name: String,
    options: PgConnectOptions,
}

impl Schema {
    async fn create(test: &str) -> Self {
        let options: PgConnectOptions = server("REFLEX_TEST_POSTGRES_URL").parse().unwrap();
        let name = namespace(test);
        let schema = Self { options: options.options([("search_path", &name)]), name };
        Postgres::run(&schema.pool().await, &format!("create schema {}", schema.name)).await;
        schema
    }

    async fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(2);
        options.connect_with(self.options.clone()).await.unwrap()
    }

    async fn pools(&self) -> Vec<PgPool> {
        let mut pools = Vec::new();
        for _ in 0..CROWD {
            pools.push(self.pool().await);
        }
        pools
    }

    async fn remove(self) {
        Postgres::run(&self.pool().await, &format!("drop schema {} cascade", self.name)).await;
    }
}

#[test]
fn carries_every_file() {
    suite::carries_every_file::<Postgres>("postgres");
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn up_and_down() {
    let schema = Schema::create("up_and_down").await;
    suite::up_and_down(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn crowd() {
    let schema = Schema::create("crowd").await;
    suite::crowd(schema.pools().await).await;
    schema.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn crowd_where_serializable_is_the_default() {
    let mut schema = Schema::create("serializable").await;
    let level = [("default_transaction_isolation", "serializable")];
    schema.options = schema.options.options(level);
    suite::crowd(schema.pools().await).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn changed() {
    let schema = Schema::create("changed").await;
    suite::changed(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn newer() {
    let schema = Schema::create("newer").await;
    suite::newer(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn others_tables() {
    let schema = Schema::create("others_tables").await;
    suite::others_tables(&schema.pool().await).await;
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_failure_leaves_nothing() {
    let schema = Schema::create("failure").await;
    let pool = schema.pool().await;
    Postgres::run(&pool, "create type cursors as enum ('mine')").await;
    let error = up(&pool).await.unwrap_err();
    assert_eq!(error.to_string(), "apply reflex migration 1 (events_and_cursors)");
    let tables = "select count(*) from pg_tables where schemaname = current_schema()";
    assert_eq!(Postgres::number(&pool, tables).await, 0);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_table_in_use_by_a_view_is_not_dropped() {
    let schema = Schema::create("view").await;
    let pool = schema.pool().await;
    up(&pool).await.unwrap();
    Postgres::run(&pool, "create view mine as select id from events").await;
    down(&pool, 0).await.unwrap_err();
    assert!(matches!(state(&pool).await, State::Applied(_)));
    assert_eq!(Postgres::number(&pool, "select count(*) from cursors").await, 0);
    schema.remove().await;
}

/// A schema per tenant, with a common one behind it on the path.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn each_schema_has_its_own_tables() {
    let common = Schema::create("common").await;
    up(&common.pool().await).await.unwrap();

    let mut tenant = Schema::create("tenant").await;
    let path = format!("{},{}", tenant.name, common.name);
    tenant.options = tenant.options.options([("search_path", path)]);
    let pool = tenant.pool().await;
    assert_eq!(state(&pool).await, State::Pending);
    assert_eq!(up(&pool).await.unwrap().len(), 2);
    assert_eq!(down(&pool, 0).await.unwrap().len(), 2);
    assert!(matches!(state(&common.pool().await).await, State::Applied(_)));

    tenant.remove().await;
    common.remove().await;
}
