//! Streams whose owner takes entries away.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::StreamExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redis::Client;
use reflex_core::{BoxEventStream, Error, StreamFunc, StreamOptions};
use reflex_redis::{RedisStream, RedisStreamOptions};
use reflex_testing::collect;

use crate::redis_server::{assert_tells, chain, connect, ours, send, shared, unique};

/// A stream with entries of the ids `1-0` on, that reads two at once.
struct Numbered {
    key: String,
    client: Client,
    source: RedisStream,
    last: u64,
}

impl Numbered {
    async fn new(last: u64) -> Self {
        let (key, client) = (unique(), shared());
        let source = RedisStream::new(&client, RedisStreamOptions::new(&key).page_size(2)).unwrap();
        let mut stream = Self { key, client, source, last: 0 };
        stream.append(last).await;
        stream
    }

    async fn append(&mut self, count: u64) {
        for id in self.last + 1..=self.last + count {
            let _: String = send(&self.client, &format!("XADD {} {id}-0 type 1 foreign_id {id}", self.key)).await;
        }
        self.last += count;
    }

    async fn trim(&self, below: u64) {
        let _: i64 = send(&self.client, &format!("XTRIM {} MINID = {below}-0", self.key)).await;
    }

    async fn delete(&self, id: u64) {
        assert_eq!(send::<i64>(&self.client, &format!("XDEL {} {id}-0", self.key)).await, 1);
    }

    async fn open(&self, options: StreamOptions) -> BoxEventStream {
        self.source.open(options).await.unwrap().events
    }

    /// The ids after a cursor, or the error.
    async fn after(&self, cursor: &str) -> Result<Vec<String>, Error> {
        let events = collect(&self.source, StreamOptions::new().after(cursor)).await?;
        Ok(events.iter().map(|event| event.foreign_id().to_owned()).collect())
    }

    async fn refuses(&self, cursor: &str, parts: &[&str]) {
        let error = self.after(cursor).await.unwrap_err();
        assert!(ours(&error).is_trimmed(), "{}", chain(&error));
        assert!(!error.is_expected() && !error.is_invalid());
        assert_tells(&chain(&error), &[&self.key, cursor, "delete the cursor"]);
        assert_tells(&chain(&error), parts);
    }
}

/// Reads events with these numbers.
async fn take(events: &mut BoxEventStream, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let event = events.next().await.unwrap().unwrap_or_else(|error| panic!("event {number}: {}", chain(&error)));
        assert_eq!(event.foreign_id(), number.to_string());
    }
}

async fn ends_trimmed(events: &mut BoxEventStream, parts: &[&str]) {
    let error = events.next().await.unwrap().unwrap_err();
    assert!(ours(&error).is_trimmed(), "{}", chain(&error));
    assert_tells(&chain(&error), parts);
    assert!(events.next().await.is_none());
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_cursor_whose_entry_is_there_is_safe() {
    let stream = Numbered::new(9).await;
    stream.trim(5).await;
    assert_eq!(stream.after("5-0").await.unwrap(), ["6", "7", "8", "9"]);
    assert_eq!(stream.after("9-0").await.unwrap(), [""; 0]);
    stream.delete(7).await;
    assert_eq!(stream.after("7-0").await.unwrap(), ["8", "9"]);
    assert_eq!(stream.after("5-3").await.unwrap(), ["6", "8", "9"]);
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_cursor_whose_entry_was_trimmed_is_an_error() {
    let stream = Numbered::new(9).await;
    stream.trim(5).await;
    for cursor in ["3-0", "4-0", "1-0", "4-7"] {
        stream.refuses(cursor, &["5-0"]).await;
    }
    stream.trim(10).await;
    stream.refuses("8-0", &["none is left"]).await;
    assert_eq!(stream.after("9-0").await.unwrap(), [""; 0]);
}

/// The position of a head where nothing was, as it is stored.
#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn the_cursor_of_an_empty_stream_counts_all_entries() {
    let mut stream = Numbered::new(0).await;
    assert_eq!(stream.after("0-0").await.unwrap(), [""; 0]);
    stream.append(3).await;
    assert_eq!(stream.after("0-0").await.unwrap(), ["1", "2", "3"]);
    stream.trim(2).await;
    stream.refuses("0-0", &["gone: 1", "2-0"]).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn trimming_under_a_slow_reader_is_an_error() {
    let stream = Numbered::new(9).await;
    let mut events = stream.open(StreamOptions::new()).await;
    take(&mut events, 1..=1).await;
    stream.trim(4).await;
    take(&mut events, 2..=2).await;
    ends_trimmed(&mut events, &[&stream.key, "2-0", "gone: 1", "4-0"]).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn trimming_before_the_first_poll_is_an_error() {
    let stream = Numbered::new(9).await;
    let mut beginning = stream.open(StreamOptions::new()).await;
    let mut after = stream.open(StreamOptions::new().after("2-0")).await;
    let mut head = stream.open(StreamOptions::new().from_head()).await;
    stream.trim(10).await;
    take(&mut beginning, 1..=2).await;
    ends_trimmed(&mut beginning, &["2-0", "gone: 7", "none is left"]).await;
    take(&mut after, 3..=4).await;
    ends_trimmed(&mut after, &["4-0", "none is left"]).await;
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), head.next()).await.is_err());
}

/// Also where everything that was read is trimmed, the last entry included, so that only counting can tell.
#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn trimming_what_was_read_is_none() {
    let mut stream = Numbered::new(9).await;
    let mut events = stream.open(StreamOptions::new()).await;
    let mut head = stream.open(StreamOptions::new().from_head()).await;
    take(&mut events, 1..=2).await;
    stream.trim(3).await;
    take(&mut events, 3..=9).await;
    stream.trim(10).await;
    stream.append(5).await;
    take(&mut events, 10..=12).await;
    take(&mut head, 10..=12).await;
    stream.trim(13).await;
    take(&mut events, 13..=14).await;
    take(&mut head, 13..=14).await;

    stream.append(5).await;
    stream.trim(16).await;
    ends_trimmed(&mut events, &["14-0", "gone: 1", "16-0"]).await;
    ends_trimmed(&mut head, &["14-0", "gone: 1", "16-0"]).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn the_beginning_is_what_is_left() {
    let mut stream = Numbered::new(9).await;
    stream.trim(4).await;
    stream.delete(6).await;
    let mut events = stream.open(StreamOptions::new()).await;
    take(&mut events, 4..=5).await;
    stream.trim(7).await;
    take(&mut events, 7..=9).await;
    stream.append(1).await;
    take(&mut events, 10..=10).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_cursor_ahead_of_the_stream_is_an_error() {
    let stream = Numbered::new(3).await;
    for ahead in ["3-1", "4-0", "18446744073709551615-18446744073709551615"] {
        let error = stream.after(ahead).await.unwrap_err();
        assert!(ours(&error).is_cursor_ahead(), "{}", chain(&error));
        assert_tells(&chain(&error), &[&stream.key, ahead, "3-0"]);
    }
    let gone = Numbered::new(0).await;
    assert!(ours(&gone.after("3-0").await.unwrap_err()).is_cursor_ahead());
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_stream_that_is_deleted_and_made_again_is_an_error() {
    let mut stream = Numbered::new(5).await;
    let mut deleted = stream.open(StreamOptions::new()).await;
    take(&mut deleted, 1..=5).await;
    let mut replaced = stream.open(StreamOptions::new().from_head()).await;
    assert_eq!(send::<i64>(&stream.client, &format!("DEL {}", stream.key)).await, 1);
    let error = deleted.next().await.unwrap().unwrap_err();
    assert!(ours(&error).is_cursor_ahead(), "{}", chain(&error));

    stream.append(2).await;
    let error = replaced.next().await.unwrap().unwrap_err();
    assert!(ours(&error).is_cursor_ahead(), "{}", chain(&error));
    assert_tells(&chain(&error), &[&stream.key, "5-0"]);
    stream.refuses("5-0", &["6-0"]).await;
}

/// Whatever is trimmed when: a reader gets each entry in turn, or the error, and never passes one over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_reader_beside_a_trimmer_never_skips() {
    const LAST: u64 = 200;
    let seed = std::env::var("REFLEX_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("REFLEX_TEST_SEED={seed}");
    let mut trimmed = 0;
    for round in 0..60 {
        let stream = Numbered::new(1).await;
        let mut events = stream.open(StreamOptions::new()).await;
        let read = Arc::new(AtomicU64::new(0));
        let rng = StdRng::seed_from_u64(u64::wrapping_add(seed, round));
        let writing = tokio::spawn(write_and_trim(stream.client.clone(), stream.key.clone(), read.clone(), rng, LAST));
        for expected in 1..=LAST {
            match events.next().await.unwrap() {
                Ok(event) => assert_eq!(event.foreign_id(), expected.to_string()),
                Err(error) => {
                    assert!(ours(&error).is_trimmed(), "{}", chain(&error));
                    trimmed += 1;
                    break;
                }
            }
            read.store(expected, Ordering::SeqCst);
        }
        writing.await.unwrap();
    }
    println!("{trimmed} of 60 streams were trimmed past");
}

/// Appends the entries from `2-0` on, and trims each time to about what was not read yet.
async fn write_and_trim(client: Client, key: String, read: Arc<AtomicU64>, mut rng: StdRng, last: u64) {
    let slack = rng.random_range(1..60);
    let mut connection = connect(&client).await;
    for id in 2..=last {
        let unread = id - read.load(Ordering::SeqCst).min(id);
        let keep = (unread + rng.random_range(0..slack)).saturating_sub(1);
        let mut command = redis::cmd("XADD");
        command.arg(&key).arg("MAXLEN").arg(keep).arg(format!("{id}-0")).arg("type").arg(1).arg("foreign_id").arg(id);
        command.exec_async(&mut connection).await.unwrap();
    }
}
