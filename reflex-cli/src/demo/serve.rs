//! `--serve`: the demo as a service, with `/metrics` and `/health`.

use std::{io::ErrorKind, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder, TextEncoder};
use tokio::{net::TcpListener, time::sleep};

use super::{Demo, health::Board, report::Report, run, tally::Tally};
use crate::{exit::Usage, interrupt::Interrupt, output::Output};

/// How long requests may take to end when the demo is asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// Takes the address.
///
/// # Errors
///
/// If it is taken, or no address.
pub(crate) async fn listen(address: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    let context = || format!("listen on `{address}`: give --serve a free address, such as 127.0.0.1:9100");
    match listener {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(error).with_context(|| Usage(context())),
        listener => listener.with_context(context),
    }
}

/// Runs the demo until the process is asked to end.
///
/// # Errors
///
/// If the first import or the first run of the consumers fails, or the process is asked to end before they are done.
pub(crate) async fn serve(
    demo: &Demo,
    listener: TcpListener,
    interrupt: &Interrupt,
    output: &mut Output,
) -> Result<()> {
    announce(&listener)?;
    let board = Board::new();
    demo.tally.show(&board.consumers)?;
    let app = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(App { board: board.clone(), tally: demo.tally.clone() });
    tokio::try_join!(answer(listener, app, interrupt), work(demo, &board, interrupt, output))?;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "stdout is for the results")]
fn announce(listener: &TcpListener) -> Result<()> {
    let address = listener.local_addr().context("look up the address")?;
    eprintln!("serving http://{address}/metrics and http://{address}/health");
    Ok(())
}

async fn work(demo: &Demo, board: &Board, interrupt: &Interrupt, output: &mut Output) -> Result<()> {
    let imported = interrupt.or(demo.source.import(&demo.data)).await?;
    let elapsed = run::to_head(demo, interrupt).await;
    elapsed.result?;
    let report = Report::collect(demo, imported, elapsed.seconds).await.context("collect the results")?;
    demo.print(&report, output).await?;
    run::follow(demo, board, interrupt).await
}

async fn answer(listener: TcpListener, app: Router, interrupt: &Interrupt) -> Result<()> {
    let asked = interrupt.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        asked.asked().await;
    });
    let too_long = async {
        interrupt.asked().await;
        sleep(GRACE).await;
    };
    tokio::select! {
        served = server.into_future() => served.context("serve HTTP"),
        () = too_long => Ok(()),
    }
}

#[derive(Clone, Debug)]
struct App {
    board: Board,
    tally: Tally,
}

async fn index() -> &'static str {
    "reflex demo: see /metrics and /health\n"
}

async fn metrics(State(app): State<App>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&app.tally.families(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(State(app): State<App>) -> Response {
    let health = app.board.look();
    let status = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
