//! Names of its own for each test on the shared server, and servers of its own where it needs to break them.

use std::{
    env,
    error::Error,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{Client, Cmd, FromRedisValue, aio::MultiplexedConnection};
use test_servers::{Redis, RedisOptions};
use tokio::task::spawn_blocking;

/// How long to wait for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the shared server.
pub(crate) fn shared() -> Client {
    let variable = "REFLEX_TEST_REDIS_URL";
    let url =
        env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run the test with `cargo xtask test`"));
    Client::open(url).unwrap()
}

/// A name that no other test of this or another process uses.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_nanos();
    format!("reflex_redis_{}_{}_{nanos}:", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn connect(client: &Client) -> MultiplexedConnection {
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Sends a command whose parts have spaces between them.
pub(crate) async fn send<T: FromRedisValue>(client: &Client, command: &str) -> T {
    let mut cmd = Cmd::new();
    cmd.arg(command.split(' ').collect::<Vec<_>>());
    cmd.query_async(&mut connect(client).await).await.unwrap_or_else(|error| panic!("{command}: {error}"))
}

pub(crate) async fn start(options: RedisOptions) -> Arc<Redis> {
    spawn_blocking(|| Arc::new(options.start().unwrap())).await.unwrap()
}

/// Calls what blocks on a server.
pub(crate) async fn blocking(server: &Arc<Redis>, call: fn(&Redis) -> Result<(), test_servers::Error>) {
    let server = server.clone();
    spawn_blocking(move || call(&server).unwrap()).await.unwrap();
}

pub(crate) fn client(server: &Redis) -> Client {
    Client::open(server.url()).unwrap()
}

/// The message with all causes.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").unwrap();
        source = error.source();
    }
    text
}

/// The error of this crate behind one of the core's.
pub(crate) fn ours(error: &reflex_core::Error) -> &reflex_redis::Error {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.unwrap_or_else(|| panic!("no error of ours: {}", chain(error)))
}

#[track_caller]
pub(crate) fn assert_tells(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
