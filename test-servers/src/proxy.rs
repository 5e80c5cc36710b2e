use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

const BUFFER: usize = 16 * 1024;

/// A TCP proxy on a loopback port whose connections can be cut, stalled and delayed.
///
/// Dropping it closes all connections.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use test_servers::Proxy;
/// use tokio::io::AsyncReadExt;
/// use tokio::net::{TcpListener, TcpStream};
///
/// let server = TcpListener::bind("127.0.0.1:0").await?;
/// let proxy = Proxy::start(server.local_addr()?).await?;
///
/// let mut client = TcpStream::connect(proxy.addr()).await?;
/// let (_connection, _) = server.accept().await?;
/// proxy.cut().await;
/// assert_eq!(client.read(&mut [0]).await?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    traffic: watch::Sender<Traffic>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    stalled: bool,
    delay: Duration,
}

/// What the proxy's task is asked to do; it answers when it is done.
#[derive(Debug)]
enum Command {
    Cut(oneshot::Sender<()>),
    Refuse(oneshot::Sender<()>),
    Accept(oneshot::Sender<io::Result<()>>),
    Count(oneshot::Sender<usize>),
}

impl Proxy {
    /// Listens on a free loopback port and forwards each connection to `target`.
    ///
    /// `target` is connected to once a client has connected, so it may be down in between. The
    /// client's connection is closed then. The proxy works as long as the runtime that it is
    /// started on.
    ///
    /// # Errors
    ///
    /// If listening fails.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call leaves nothing behind.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let addr = listener.accepting.local_addr()?;
        let traffic = watch::Sender::new(Traffic::default());
        let (commands, received) = mpsc::channel(1);
        let hub =
            Hub { addr, target, listener: Some(listener), traffic: traffic.subscribe(), connections: JoinSet::new() };
        // It ends when `commands` is dropped, and has no error to report but in its answers.
        tokio::spawn(hub.run(received));
        Ok(Self { addr, traffic, commands })
    }

    /// The address to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections the proxy has accepted that are open.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call changes nothing.
    pub async fn connections(&self) -> usize {
        self.ask(Command::Count).await
    }

    /// Closes all connections, on both sides, and goes on accepting others.
    ///
    /// When this returns they are closed, also those that a client has established and the
    /// proxy has not accepted yet.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may still have its effect.
    pub async fn cut(&self) {
        self.ask(Command::Cut).await;
    }

    /// Forwards nothing from here on, neither data nor the end of a connection, while the
    /// connections stay open: the peer seems to have vanished.
    ///
    /// New connections are accepted and stalled too.
    pub fn stall(&self) {
        self.traffic.send_modify(|traffic| traffic.stalled = true);
    }

    /// Ends a stall; what was held back is forwarded.
    pub fn resume(&self) {
        self.traffic.send_modify(|traffic| traffic.stalled = false);
    }

    /// Forwards each piece of data this much later, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.traffic.send_modify(|traffic| traffic.delay = delay);
    }

    /// Refuses new connections, as if no server were there; the open ones stay.
    ///
    /// They are refused when this returns.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may still have its effect.
    pub async fn refuse(&self) {
        self.ask(Command::Refuse).await;
    }

    /// Accepts connections again after [`refuse`](Self::refuse), on the same address.
    ///
    /// # Errors
    ///
    /// If another program listens on the address by now.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may still have its effect.
    pub async fn accept(&self) -> io::Result<()> {
        self.ask(Command::Accept).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(command(answer)).await;
        sent.expect("the task runs as long as the proxy and its runtime");
        answered.await.expect("the task answers each command")
    }
}

/// The proxy's task: owns the listener and all connections.
#[derive(Debug)]
struct Hub {
    addr: SocketAddr,
    target: SocketAddr,
    /// None while connections are refused.
    listener: Option<Listener>,
    traffic: watch::Receiver<Traffic>,
    connections: JoinSet<()>,
}

impl Hub {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                client = next_client(self.listener.as_ref()) => self.open(client),
                Some(_closed) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        // An answer that nobody waits for any more is not needed.
        let _asker_gone = match command {
            Command::Cut(answer) => {
                self.cut().await;
                answer.send(()).is_err()
            }
            Command::Refuse(answer) => {
                self.listener = None;
                answer.send(()).is_err()
            }
            Command::Accept(answer) => answer.send(self.accept().await).is_err(),
            Command::Count(answer) => answer.send(self.connections.len()).is_err(),
        };
    }

    async fn cut(&mut self) {
        if let Some(listener) = &self.listener {
            listener.drop_waiting();
        }
        self.connections.shutdown().await;
    }

    async fn accept(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            self.listener = Some(Listener::bind(self.addr).await?);
        }
        Ok(())
    }

    fn open(&mut self, client: TcpStream) {
        let relay = relay(client, self.target, self.traffic.clone());
        self.connections.spawn(async {
            // An error of one side closes both, which is how the other side learns of it.
            let _closed = relay.await;
        });
    }
}

#[derive(Debug)]
struct Listener {
    accepting: TcpListener,
    /// The same socket, to take connections from at once and not when the runtime hears of them.
    socket: std::net::TcpListener,
}

impl Listener {
    async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(addr).await?.into_std()?;
        Ok(Self { accepting: TcpListener::from_std(socket.try_clone()?)?, socket })
    }

    /// Closes the connections that wait to be accepted.
    fn drop_waiting(&self) {
        while self.socket.accept().is_ok() {}
    }
}

async fn next_client(listener: Option<&Listener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        // An error concerns the one connection, which its client sees closed.
        if let Ok((client, _)) = listener.accepting.accept().await {
            return client;
        }
    }
}

async fn relay(client: TcpStream, target: SocketAddr, traffic: watch::Receiver<Traffic>) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = forward(from_client, to_server, traffic.clone());
    let down = forward(from_server, to_client, traffic);
    tokio::try_join!(up, down).map(drop)
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut traffic: watch::Receiver<Traffic>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        pass(&mut traffic).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Waits until data that has just been read may go on.
async fn pass(traffic: &mut watch::Receiver<Traffic>) -> io::Result<()> {
    let delay = traffic.borrow().delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let open = traffic.wait_for(|traffic| !traffic.stalled).await;
    open.map(drop).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the proxy was dropped"))
}
