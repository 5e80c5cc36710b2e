//! How streams wait.

use std::time::Duration;

use futures_util::StreamExt;
use reflex_core::{NewEvent, StreamFunc, StreamOptions};
use reflex_redis::{RedisStream, RedisStreamOptions};
use reflex_testing::eventually;

use crate::redis_server::{PATIENCE, client, send, shared, start, unique};

/// The wait in Redis is far longer than the test may take: only an entry can end it.
#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn an_entry_ends_the_wait() {
    let server = start(test_servers::Redis::options()).await;
    let options = RedisStreamOptions::new("orders").block(Duration::from_secs(3_600));
    let stream = RedisStream::new(&client(&server), options).unwrap();
    let mut events = stream.open(StreamOptions::new()).await.unwrap().events;
    let reading = tokio::spawn(async move { events.next().await.unwrap().unwrap() });
    eventually("a blocked reader", PATIENCE, || async { blocked(&server).await == 1 }).await;
    stream.append(NewEvent::new("order-12", 1)).await.unwrap();
    assert_eq!(reading.await.unwrap().foreign_id(), "order-12");
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn the_head_is_after_the_last_id() {
    let stream = RedisStream::new(&shared(), unique()).unwrap();
    let empty = stream.open(StreamOptions::new().from_head()).await.unwrap();
    assert_eq!(empty.position, Some("0-0".into()));
    let mut last = stream.append(NewEvent::new(1, 1)).await.unwrap();
    for number in 2..=4 {
        let mut head = stream.open(StreamOptions::new().from_head()).await.unwrap();
        assert_eq!(head.position, Some(last));
        last = stream.append(NewEvent::new(number, 1)).await.unwrap();
        assert_eq!(head.events.next().await.unwrap().unwrap().foreign_id(), number.to_string());
    }
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_dropped_stream_closes_its_connection() {
    let server = start(test_servers::Redis::options()).await;
    let options = RedisStreamOptions::new("orders").block(Duration::from_secs(3_600));
    let stream = RedisStream::new(&client(&server), options).unwrap();
    let mut events = stream.open(StreamOptions::new()).await.unwrap().events;
    let reading = tokio::spawn(async move { events.next().await.map(drop) });
    eventually("a blocked reader", PATIENCE, || async { blocked(&server).await == 1 }).await;
    reading.abort();
    eventually("no blocked reader", PATIENCE, || async { blocked(&server).await == 0 }).await;
}

async fn blocked(server: &test_servers::Redis) -> u64 {
    let info: String = send(&client(server), "INFO clients").await;
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    line.unwrap().trim().parse().unwrap()
}
