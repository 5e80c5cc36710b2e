use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use test_servers::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(300);
/// Long enough for an echo that is not held back to arrive.
const A_WHILE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn forwards_both_ways_and_ends_with_the_client() {
    let (proxy, mut client) = connected().await;
    echo(&mut client, b"hello").await;
    assert_eq!(proxy.connections().await, 1);

    client.shutdown().await.unwrap();
    assert_closed(&mut client).await;
}

#[tokio::test]
async fn cut_closes_open_connections_and_accepts_others() {
    let (proxy, mut client) = connected().await;
    echo(&mut client, b"before").await;
    proxy.cut().await;
    assert_eq!(proxy.connections().await, 0);
    assert_closed(&mut client).await;

    let mut next = TcpStream::connect(proxy.addr()).await.unwrap();
    echo(&mut next, b"after").await;
}

#[tokio::test]
async fn stall_holds_data_back_until_resume() {
    let (proxy, mut client) = connected().await;
    echo(&mut client, b"before").await;
    proxy.stall();
    client.write_all(b"held").await.unwrap();
    let mut answer = [0; 4];
    assert!(timeout(A_WHILE, client.read_exact(&mut answer)).await.is_err());

    proxy.resume();
    within_limit(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"held");
}

#[tokio::test]
async fn stall_hides_the_end_of_a_connection() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut connection, _) = server.accept().await.unwrap();
    proxy.stall();
    drop(client);
    assert!(timeout(A_WHILE, connection.read(&mut [0])).await.is_err());

    proxy.cut().await;
    assert_closed(&mut connection).await;
}

#[tokio::test]
async fn cut_closes_connections_that_wait_to_be_accepted() {
    let (proxy, _client) = connected().await;
    // Blocking, so that the proxy has no chance to accept it before the cut.
    let waiting = std::net::TcpStream::connect(proxy.addr()).unwrap();
    proxy.cut().await;
    waiting.set_nonblocking(true).unwrap();
    assert_closed(&mut TcpStream::from_std(waiting).unwrap()).await;
}

#[tokio::test]
async fn cut_closes_stalled_connections() {
    let (proxy, mut client) = connected().await;
    proxy.stall();
    client.write_all(b"lost").await.unwrap();
    proxy.cut().await;
    assert_closed(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn delay_holds_each_direction_up() {
    let (proxy, mut client) = connected().await;
    proxy.delay(Duration::from_secs(60));
    let start = Instant::now();
    echo(&mut client, b"late").await;
    assert!(start.elapsed() >= Duration::from_secs(120), "{:?}", start.elapsed());
}

#[tokio::test]
async fn refuse_leaves_open_connections_and_accept_ends_it() {
    let (proxy, mut client) = connected().await;
    echo(&mut client, b"before").await;
    proxy.refuse().await;
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    echo(&mut client, b"still there").await;

    proxy.accept().await.unwrap();
    let mut next = TcpStream::connect(proxy.addr()).await.unwrap();
    echo(&mut next, b"after").await;
}

#[tokio::test]
async fn a_target_that_is_down_closes_the_client() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(gone).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_closed(&mut client).await;
}

#[tokio::test]
async fn dropping_the_proxy_closes_everything() {
    let (proxy, mut client) = connected().await;
    echo(&mut client, b"before").await;
    let addr = proxy.addr();
    drop(proxy);
    assert_closed(&mut client).await;
    // The acceptor ends when the runtime gets to it.
    let refused = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within_limit(refused).await;
}

async fn connected() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    (proxy, client)
}

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                // It ends with an error when the proxy is cut.
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn echo(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).await.unwrap();
    let mut answer = vec![0; text.len()];
    within_limit(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, text);
}

async fn assert_closed(connection: &mut TcpStream) {
    let read = within_limit(connection.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

async fn within_limit<F: Future>(future: F) -> F::Output {
    timeout(LIMIT, future).await.expect("it should not take so long")
}
