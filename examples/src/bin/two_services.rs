//! Two services in two processes that react to each other's events over gRPC, each with a database and cursors of its own.
//!
//! Run it with `cargo run -p reflex-examples --bin two_services`. Each service tells at `/health` how its consumer is, on the
//! port of its events; it prints the URL when it starts.
#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, error::Error as StdError, fs, io, pin::pin, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use reflex_core::{
    Consumer, CursorStore, Event, HandlerError, Health, HealthReport, NewEvent, Spec, StreamFunc, consumer_fn,
    run_until,
};
use reflex_grpc::{Server, reflexpb::reflex_client::ReflexClient, stream_func};
use reflex_sql::{CursorsTable, EventsTable};
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use tokio::{sync::Notify, task::JoinSet, time::sleep};
use tonic::transport::{Endpoint, Server as Transport, server::TcpIncoming};
use tonic::{Status, service::Routes};

const ORDER_PLACED: i32 = 1;
const INVOICE_PAID: i32 = 2;
const ORDERS: i64 = 3;

#[tokio::main]
async fn main() -> Result<()> {
    match (env::args().nth(1).as_deref(), env::args().nth(2)) {
        (Some("orders"), Some(folder)) => orders(Path::new(&folder)).await,
        (Some("billing"), Some(folder)) => billing(Path::new(&folder)).await,
        _ => both().await,
    }
}

/// Starts each service as a process, and tells how far each has read the other's events once all orders are paid.
async fn both() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let start = |name| Command::new(env::current_exe()?).args([name, folder.path()]).stdin(Stdio::piped()).spawn();
    let (mut billing, mut orders) = (start(Path::new("billing"))?, start(Path::new("orders"))?);
    // A child whose stdin stays open does not stop; `wait` would close it.
    let _stdin = orders.stdin.take();
    ensure!(orders.wait()?.success() && billing.wait()?.success(), "a service failed");
    for (service, consumer) in [("billing", "send-invoices"), ("orders", "place-next")] {
        let cursors = CursorsTable::open(&database(folder.path(), service).await?, "cursors").await?;
        let cursor = cursors.get(consumer).await?.context("a consumer without a cursor")?;
        println!("{service}: consumer `{consumer}` has done everything up to event {cursor}");
    }
    Ok(())
}

/// Places an order, and the next one when it is paid.
async fn orders(folder: &Path) -> Result<()> {
    let service = Service::start(folder, "orders").await?;
    service.record(1, ORDER_PLACED).await?;
    let orders = service.clone();
    let consumer = consumer_fn("place-next", move |event: Event| {
        let orders = orders.clone();
        async move {
            let order = event.foreign_id_as_i64()?;
            println!("orders: order {order} is paid");
            match order {
                ORDERS => orders.stop.notify_one(),
                _ => orders.record(order + 1, ORDER_PLACED).await.map_err(HandlerError::new)?,
            }
            Ok(())
        }
    });
    service.follow("billing", consumer).await
}

/// Sends an invoice for each order. Here they are paid at once.
async fn billing(folder: &Path) -> Result<()> {
    let service = Service::start(folder, "billing").await?;
    let billing = service.clone();
    let consumer = consumer_fn("send-invoices", move |event: Event| {
        let billing = billing.clone();
        async move {
            println!("billing: invoice for order {}", event.foreign_id());
            billing.record(event.foreign_id_as_i64()?, INVOICE_PAID).await.map_err(HandlerError::new)
        }
    });
    service.follow("orders", consumer).await
}

/// What both services have: a database, a server that streams its events to others and tells its health, and the address of
/// that in a file.
#[derive(Clone)]
struct Service {
    folder: PathBuf,
    pool: SqlitePool,
    events: EventsTable<Sqlite>,
    health: Health,
    stop: Arc<Notify>,
    _serving: Arc<JoinSet<Result<(), tonic::transport::Error>>>,
}

impl Service {
    async fn start(folder: &Path, name: &str) -> Result<Self> {
        let pool = database(folder, name).await?;
        reflex_migrations::up(&pool).await?;
        let events = EventsTable::open(&pool, "events").await?;
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
        let url = format!("http://{}", incoming.local_addr()?);
        println!("{name}: health at {url}/health");
        fs::write(folder.join(name), url)?;
        let own_health = Health::new();
        let routes = Routes::from(Router::new().route("/health", get(health)).with_state(own_health.clone()));
        let routes = routes.add_service(Server::new().service(events.clone()));
        let mut serving = JoinSet::new();
        // Who asks for the health speaks HTTP/1, and gRPC is HTTP/2.
        serving.spawn(Transport::builder().accept_http1(true).add_routes(routes).serve_with_incoming(incoming));
        let stop = Arc::new(Notify::new());
        let parent_gone = stop.clone();
        // A thread, because no runtime waits for it.
        thread::spawn(move || io::copy(&mut io::stdin(), &mut io::sink()).map(|_| parent_gone.notify_one()));
        let (folder, _serving) = (folder.to_owned(), Arc::new(serving));
        Ok(Self { folder, pool, events, health: own_health, stop, _serving })
    }

    /// In a real service the state changes in the same transaction, and an event that comes twice changes nothing.
    async fn record(&self, order: i64, event_type: i32) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        let notify = self.events.insert(&mut tx, NewEvent::new(order, event_type)).await?;
        tx.commit().await?;
        notify.send();
        Ok(())
    }

    /// Consumes the events of the other service. While that is not there, tries again: nothing is missed.
    async fn follow(&self, other: &str, consumer: impl Consumer) -> Result<()> {
        let cursors = CursorsTable::open(&self.pool, "cursors").await?;
        let mut spec = Spec::new(events_of(self.folder.join(other)), cursors, consumer).health(&self.health);
        let mut stop = pin!(self.stop.notified());
        loop {
            let Err(end) = run_until(&mut spec, stop.as_mut()).await;
            match end.source() {
                _ if end.is_stopped() => return Ok(()),
                Some(cause) if cause.is::<reflex_grpc::Error>() => sleep(Duration::from_millis(50)).await,
                _ => return Err(end.into()),
            }
        }
    }
}

async fn health(State(health): State<Health>) -> (StatusCode, Json<HealthReport>) {
    let report = health.report();
    (if report.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(report))
}

/// The events of the service whose address is in this file, looked up whenever a stream is opened.
fn events_of(file: PathBuf) -> impl StreamFunc<Stream: 'static> {
    stream_func(move |request| {
        let address = fs::read_to_string(&file);
        async move {
            let address = address.map_err(|error| Status::unavailable(format!("nobody serves: {error}")))?;
            let endpoint = Endpoint::try_from(address).map_err(|error| Status::unavailable(error.to_string()))?;
            ReflexClient::new(endpoint.connect_lazy()).stream(request).await
        }
    })
}

async fn database(folder: &Path, name: &str) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new().filename(folder.join(name).with_extension("sqlite"));
    Ok(SqlitePool::connect_with(options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal)).await?)
}
