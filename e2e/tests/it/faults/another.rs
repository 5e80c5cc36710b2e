use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::StreamExt;
use reflex_core::StreamOptions;
use reflex_e2e::{Backend, insert_statement};
use reflex_sql::{EventsTable, EventsTableOptions};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, lookup_host},
    sync::{Mutex, watch},
    task::JoinSet,
    time::timeout,
};

use super::server::{Server, begin};
use crate::support::{Namespace, PATIENCE, metrics, run};

/// An address leads to another server, with events of its own, while the reader at the head is still connected to the first: what
/// that one has proven says nothing of the other.
pub(super) async fn another_server<D: Backend, S: Server>() {
    let (first, other) = (begin::<S>(None).await, begin::<S>(None).await);
    let namespaces =
        [Namespace::<D>::alone(&first.url(), "another").await, Namespace::alone(&other.url(), "another").await];
    for namespace in &namespaces {
        run(&namespace.pool, &insert_statement(1..11)).await;
    }
    let switch = Switch::start(address(&namespaces[0].url).await).await.unwrap();
    let url = namespaces[0].url.replacen(authority(&namespaces[0].url), &switch.addr.to_string(), 1);
    let pool = D::pool(&url).unwrap();
    // It does not look again while the test is on.
    let options = EventsTableOptions::new("events").poll_interval(Duration::from_secs(3_600)).metrics(&metrics());
    let table = EventsTable::open(&pool, options).await.unwrap();
    pool.close().await;
    switch.cut_from(0).await;
    let _at_head = table.open_stream(StreamOptions::new().after(10)).await.unwrap().events;

    switch.lead_to(address(&namespaces[1].url).await);
    switch.cut_from(1).await;
    let mut behind = table.open_stream(StreamOptions::new()).await.unwrap().events;
    let read = timeout(PATIENCE, behind.next()).await.expect("an event or an error").unwrap();
    let error = read.expect_err("events of another server");
    let error = format!("{:#}", anyhow::Error::from(error));
    assert!(error.contains("restarted or replaced by another"), "{error}");
}

fn authority(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap();
    let (authority, _) = rest.split_once('/').unwrap();
    authority.rsplit('@').next().unwrap()
}

async fn address(url: &str) -> SocketAddr {
    lookup_host(authority(url)).await.unwrap().next().unwrap()
}

/// An address that leads to one server or another.
struct Switch {
    addr: SocketAddr,
    target: watch::Sender<SocketAddr>,
    /// In the order in which they were made.
    connections: Arc<Mutex<Vec<JoinSet<io::Result<()>>>>>,
    _accepting: JoinSet<io::Result<()>>,
}

impl Switch {
    async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (target, led) = watch::channel(target);
        let connections = Arc::new(Mutex::new(Vec::new()));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, led, connections.clone()));
        Ok(Self { addr, target, connections, _accepting: accepting })
    }

    /// From here on, connections lead there.
    fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Cuts all connections but the first ones.
    async fn cut_from(&self, first: usize) {
        for mut connection in self.connections.lock().await.drain(first..) {
            connection.shutdown().await;
        }
    }
}

async fn accept(
    listener: TcpListener,
    target: watch::Receiver<SocketAddr>,
    connections: Arc<Mutex<Vec<JoinSet<io::Result<()>>>>>,
) -> io::Result<()> {
    loop {
        let (mut client, _) = listener.accept().await?;
        let target = *target.borrow();
        let mut connection = JoinSet::new();
        connection.spawn(async move {
            let mut server = TcpStream::connect(target).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        });
        connections.lock().await.push(connection);
    }
}
