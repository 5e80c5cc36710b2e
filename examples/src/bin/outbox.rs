//! A shop that writes its events in the transactions that change its state, with two consumers that react to them.
//!
//! ```sh
//! cargo run -p reflex-examples --bin outbox          # PORT and DATABASE, a file, choose others
//! curl -X POST http://127.0.0.1:3000/orders/tea      # the order and its event, in one transaction
//! curl http://127.0.0.1:3000/health                  # `invoice` waits for a price, `greet` has gone on
//! curl -X PUT http://127.0.0.1:3000/prices/tea/250   # `invoice` tries again within a second
//! curl http://127.0.0.1:3000/invoices                # and /metrics
//! ```
#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::{env, path::PathBuf, pin::pin, time::Duration};

use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use axum::{Json, Router, http::StatusCode};
use futures_util::future::{BoxFuture, FutureExt, Shared, TryFutureExt, select, try_join_all};
use reflex_core::{BoxSpec, Event, HandlerError, Health, HealthReport, NewEvent, Spec, consumer_fn, run_until};
use reflex_sql::{CursorsTable, EventsTable};
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use tokio::signal::unix::{SignalKind, signal};
use tokio::{net::TcpListener, time::sleep};

const ORDER_PLACED: i32 = 1;
const RETRY_AFTER: Duration = Duration::from_secs(1);
const TABLES: &str = "create table if not exists orders (id integer primary key, product text not null);
    create table if not exists prices (product text primary key, cents integer not null);
    create table if not exists invoices (order_id integer primary key, cents integer not null)";

#[derive(Clone)]
struct Shop {
    pool: SqlitePool,
    events: EventsTable<Sqlite>,
    health: Health,
}

type Answer<T> = Result<T, (StatusCode, String)>;
type Stop = Shared<BoxFuture<'static, ()>>;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let port: u16 = env::var("PORT").map_or(Ok(3000), |port| port.parse()).context("read PORT")?;
    let file = env::var_os("DATABASE").map_or_else(|| env::temp_dir().join("reflex-outbox.sqlite"), PathBuf::from);
    let options = SqliteConnectOptions::new().filename(&file).journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_with(options.create_if_missing(true)).await;
    let pool = pool.with_context(|| format!("open the file of DATABASE, {}", file.display()))?;
    reflex_migrations::up(&pool).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    let shop = Shop { events: EventsTable::open(&pool, "events").await?, pool, health: Health::new() };
    shop.health.register(prometheus::default_registry())?;

    let stop = stop_signal()?;
    let consumers = specs(&shop).await?.map(|spec| tokio::spawn(keep_running(spec, stop.clone())));
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener.with_context(|| format!("listen at 127.0.0.1:{port}, of which PORT is the port"))?;
    println!("listening on http://{}", listener.local_addr()?);
    let server = axum::serve(listener, routes(shop)).with_graceful_shutdown(stop).into_future();
    tokio::try_join!(server.err_into::<anyhow::Error>(), try_join_all(consumers).err_into())?;
    println!("stopped");
    Ok(())
}

async fn specs(shop: &Shop) -> Result<[BoxSpec; 2]> {
    let cursors = CursorsTable::open(&shop.pool, "cursors").await?;
    let pool = shop.pool.clone();
    let invoice = consumer_fn("invoice", move |event| invoice(pool.clone(), event)).include_types([ORDER_PLACED]);
    let greet = consumer_fn("greet", |event: Event| async move {
        println!("thank you for order {}", event.foreign_id());
        Ok(())
    });
    let (events, shared) = (shop.events.clone(), cursors.clone());
    let invoice = Spec::new(events.clone(), cursors, invoice).health(&shop.health);
    Ok([invoice.boxed(), Spec::new(events, shared, greet).health(&shop.health).boxed()])
}

/// An event may come again, after a crash for example. A second invoice for an order therefore changes nothing.
async fn invoice(pool: SqlitePool, event: Event) -> Result<(), HandlerError> {
    let product = std::str::from_utf8(event.metadata())?;
    let price = sqlx::query_scalar("select cents from prices where product = ?").bind(product);
    let cents: Option<i64> = price.fetch_optional(&pool).await?;
    let cents = cents.ok_or_else(|| HandlerError::new(format!("`{product}` has no price")))?;
    let insert = sqlx::query("insert into invoices (order_id, cents) values (?, ?) on conflict do nothing");
    insert.bind(event.foreign_id_as_i64()?).bind(cents).execute(&pool).await?;
    Ok(())
}

/// Runs a consumer again, a while after it failed: it goes on with the event that it failed on.
async fn keep_running(mut spec: BoxSpec, stop: Stop) {
    while stop.peek().is_none() {
        // Why it ended is in the log and in its health.
        let Err(_) = run_until(&mut spec, stop.clone()).await;
        tokio::select! { () = stop.clone() => {}, () = sleep(RETRY_AFTER) => {} }
    }
}

fn routes(shop: Shop) -> Router {
    let router = Router::new().route("/orders/{product}", post(place_order)).route("/invoices", get(invoices));
    let router = router.route("/prices/{product}/{cents}", put(set_price)).route("/health", get(health));
    router.route("/metrics", get(metrics)).with_state(shop)
}

async fn place_order(State(shop): State<Shop>, Path(product): Path<String>) -> Answer<Json<i64>> {
    let mut tx = shop.pool.begin().await.map_err(failed)?;
    let order = sqlx::query_scalar("insert into orders (product) values (?) returning id").bind(&product);
    let order: i64 = order.fetch_one(&mut *tx).await.map_err(failed)?;
    let placed = NewEvent::new(order, ORDER_PLACED).metadata(product);
    let notify = shop.events.insert(&mut tx, placed).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    notify.send();
    Ok(Json(order))
}

async fn set_price(State(shop): State<Shop>, Path((product, cents)): Path<(String, i64)>) -> Answer<()> {
    let set = sqlx::query("insert or replace into prices (product, cents) values (?, ?)").bind(product).bind(cents);
    set.execute(&shop.pool).await.map(drop).map_err(failed)
}

async fn invoices(State(shop): State<Shop>) -> Answer<Json<Vec<(i64, i64)>>> {
    let invoices = sqlx::query_as("select order_id, cents from invoices order by order_id").fetch_all(&shop.pool);
    invoices.await.map(Json).map_err(failed)
}

async fn health(State(shop): State<Shop>) -> (StatusCode, Json<HealthReport>) {
    let report = shop.health.report();
    (if report.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(report))
}

async fn metrics() -> Answer<String> {
    prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Done at Ctrl-C or SIGTERM.
fn stop_signal() -> Result<Stop> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let signals = async move { _ = select(pin!(interrupt.recv()), pin!(terminate.recv())).await };
    Ok(signals.boxed().shared())
}
