use std::sync::Arc;

use reflex_e2e::Backend;
use reflex_migrations::up;
use sqlx::{Pool, Postgres};
use test_servers::Postgres as Server;

use super::{Following, ONE, goes_on, message, on, refused, session};
use crate::support::run;

async fn server() -> (Arc<Server>, Pool<Postgres>) {
    let server = Arc::new(tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap());
    let pool = Postgres::pool(&server.url()).unwrap();
    up(&pool).await.unwrap();
    (server, pool)
}

/// A restart gives a prepared transaction another virtual id, and its lock back.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_prepared_transaction_is_waited_for_over_a_restart() {
    let (server, pool) = server().await;
    let mut following = Following::start(&pool).await;
    session(&pool, &["begin", ONE, "prepare transaction 'pending'"]).await;
    run(&pool, ONE).await;
    following.waits().await;

    on(&server, |server| server.restart()).await;
    assert!(!following.fails().await.is_expected());
    following.again().await;
    following.waits().await;
    let mut opened_later = Following::start(&pool).await;
    opened_later.waits().await;

    run(&pool, "commit prepared 'pending'").await;
    goes_on(&mut following, &pool, 2).await;
    goes_on(&mut opened_later, &pool, 2).await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_crash_of_the_server_ends_the_stream_and_loses_nothing() {
    let (server, pool) = server().await;
    let mut following = Following::start(&pool).await;
    run(&pool, ONE).await;
    assert_eq!(following.next().await, 1);
    on(&server, |server| server.kill()).await;
    let error = following.fails().await;
    assert!(!error.is_expected() && message(&error).contains("`events`"), "{}", message(&error));
    on(&server, |server| server.restart()).await;
    following.again().await;
    goes_on(&mut following, &pool, 1).await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_standby_is_refused() {
    let (server, pool) = server().await;
    run(&pool, ONE).await;
    let standby = on(&server, Server::standby).await;
    let pool = Postgres::pool(&standby.url()).unwrap();
    refused(&pool, "events".into(), &["`events`", "standby", "connect to the primary"]).await;
}

/// Another server brings the ids, in the order of its commits.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_table_fed_by_a_subscription_is_refused() {
    let (server, publisher) = server().await;
    run(&publisher, "create publication everything for all tables").await;
    run(&publisher, "create database subscriber").await;
    let subscriber = Postgres::pool(&server.url_for("subscriber")).unwrap();
    up(&subscriber).await.unwrap();
    run(&publisher, "select pg_create_logical_replication_slot('slot', 'pgoutput')").await;
    let subscription = format!(
        "create subscription s connection 'host=127.0.0.1 port={} dbname=postgres user=postgres' publication everything
             with (create_slot = false, slot_name = 'slot', copy_data = false)",
        server.addr().port()
    );
    run(&subscriber, &subscription).await;
    refused(&subscriber, "events".into(), &["`events`", "subscription", "where the events are written"]).await;
    refused(&subscriber, "public.events".into(), &["subscription"]).await;
    Following::start(&publisher).await;
}
