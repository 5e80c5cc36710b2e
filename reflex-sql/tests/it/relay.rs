//! A relay in front of a server that holds back one answer, so that a test decides what happens while it is on its way.

use std::net::SocketAddr;

use sqlx::{MySql, Pool, Postgres, mysql::MySqlSslMode, pool::PoolOptions, postgres::PgSslMode};
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{
    bench::PATIENCE,
    database::{Backend, Result},
};

/// Forwards connections, but for the first answer with some text in it.
///
/// Dropped, it closes them.
pub(crate) struct Relay<D: Backend> {
    /// Connections through the relay.
    pub(crate) pool: Pool<D>,
    answer: watch::Sender<Answer>,
    _forwarding: JoinSet<io::Result<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    Held,
    Released,
}

/// A database behind a port.
pub(crate) trait Server: Backend {
    fn address(pool: &Pool<Self>) -> (String, u16);

    /// The same behind another port, unencrypted.
    fn at(pool: &Pool<Self>, address: SocketAddr) -> Pool<Self>;
}

macro_rules! server {
    ($($database:ty, $plain:expr;)*) => {$(
        impl Server for $database {
            fn address(pool: &Pool<Self>) -> (String, u16) {
                let options = pool.connect_options();
                (options.get_host().to_owned(), options.get_port())
            }

            fn at(pool: &Pool<Self>, address: SocketAddr) -> Pool<Self> {
                let options = (*pool.connect_options()).clone();
                let options = options.host(&address.ip().to_string()).port(address.port()).ssl_mode($plain);
                PoolOptions::new().connect_lazy_with(options)
            }
        }
    )*};
}

server! {
    Postgres, PgSslMode::Disable;
    MySql, MySqlSslMode::Disabled;
}

impl<D: Server> Relay<D> {
    /// In front of the server of this pool. It will hold what comes with the first answer that contains `text`.
    pub(crate) async fn start(pool: &Pool<D>, text: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let answer = watch::Sender::new(Answer::Awaited);
        let relayed = D::at(pool, listener.local_addr()?);
        let mut forwarding = JoinSet::new();
        forwarding.spawn(accept(listener, D::address(pool), text, answer.clone()));
        Ok(Self { pool: relayed, answer, _forwarding: forwarding })
    }

    /// Waits until the answer has come from the server.
    pub(crate) async fn holds(&self) {
        let mut answer = self.answer.subscribe();
        let held = timeout(PATIENCE, answer.wait_for(|answer| *answer == Answer::Held)).await;
        held.expect("the server answers").expect("the relay has a sender");
    }

    /// Lets it go on to the client.
    pub(crate) fn release(&self) {
        self.answer.send_replace(Answer::Released);
    }
}

async fn accept(
    listener: TcpListener,
    server: (String, u16),
    text: &'static str,
    answer: watch::Sender<Answer>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await?;
        let (from_server, mut to_server) = TcpStream::connect(server.clone()).await?.into_split();
        let (mut from_client, to_client) = client.into_split();
        connections.spawn(async move {
            io::copy(&mut from_client, &mut to_server).await?;
            to_server.shutdown().await
        });
        connections.spawn(answers(from_server, to_client, text, answer.clone()));
    }
}

/// Forwards what the server says.
async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    text: &str,
    answer: watch::Sender<Answer>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let said = &buffer[..length];
        if said.windows(text.len()).any(|part| part == text.as_bytes()) {
            hold(&answer).await;
        }
        to.write_all(said).await?;
    }
}

/// Waits for the release, if this is the first answer of its kind.
async fn hold(answer: &watch::Sender<Answer>) {
    let mut released = answer.subscribe();
    let first = answer.send_if_modified(|answer| {
        let first = *answer == Answer::Awaited;
        *answer = if first { Answer::Held } else { *answer };
        first
    });
    if first {
        // Without a sender the relay is gone.
        let _ = released.wait_for(|answer| *answer == Answer::Released).await;
    }
}
