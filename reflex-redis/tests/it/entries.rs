//! Entries that are no events, and keys that are no streams.

use futures_util::StreamExt;
use reflex_core::{NewEvent, StreamFunc, StreamOptions};
use reflex_redis::RedisStream;
use reflex_testing::collect;

use crate::redis_server::{assert_tells, chain, ours, send, shared, unique};

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn an_entry_that_is_no_event_ends_the_stream_there() {
    let key = unique();
    let stream = RedisStream::new(&shared(), key.as_str()).unwrap();
    stream.append(NewEvent::new("order-12", 1)).await.unwrap();
    let bad: String = send(&shared(), &format!("XADD {key} * type x foreign_id order-13")).await;
    stream.append(NewEvent::new("order-14", 1)).await.unwrap();

    let mut events = stream.open(StreamOptions::new()).await.unwrap().events;
    assert_eq!(events.next().await.unwrap().unwrap().foreign_id(), "order-12");
    let error = events.next().await.unwrap().unwrap_err();
    assert!(ours(&error).is_malformed());
    assert_tells(&chain(&error), &[&key, &bad, "`type`", "\"x\""]);
    assert!(events.next().await.is_none());
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_key_of_another_type_is_told_and_left_alone() {
    let key = unique();
    let _: String = send(&shared(), &format!("SET {key} 1")).await;
    let stream = RedisStream::new(&shared(), key.as_str()).unwrap();
    for options in [StreamOptions::new(), StreamOptions::new().from_head(), StreamOptions::new().after("1-1")] {
        let error = stream.open(options).await.unwrap_err();
        assert!(ours(&error).is_wrong_type(), "{}", chain(&error));
        assert_tells(&chain(&error), &[&key, "no stream"]);
    }
    let error = stream.append(NewEvent::new("order-12", 1)).await.unwrap_err();
    assert!(error.is_wrong_type() && error.to_string().contains(&key), "{error}");
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_cursor_that_is_no_entry_id_is_refused() {
    let key = unique();
    let stream = RedisStream::new(&shared(), key.as_str()).unwrap();
    for cursor in ["7", "-7", "yesterday", "1-0-0", "01-0", "1526919030474", "$", "18446744073709551616-0", ""] {
        let error = stream.open(StreamOptions::new().after(cursor)).await.unwrap_err();
        assert!(error.is_invalid(), "{}", chain(&error));
        assert_tells(&error.to_string(), &[&key, &format!("`{cursor}`")]);
    }
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn appended_events_come_back_under_their_ids() {
    let key = unique();
    let stream = RedisStream::new(&shared(), key.as_str()).unwrap();
    let id = stream.append(NewEvent::new("order-12", 7).metadata(*b"\0\xff").trace(*b"\x01")).await.unwrap();
    let events = collect(&stream, StreamOptions::new()).await.unwrap();
    assert_eq!((events[0].id(), events[0].event_type().0, events[0].foreign_id()), (&id, 7, "order-12"));
    assert_eq!((events[0].metadata(), events[0].trace()), (&b"\0\xff"[..], &b"\x01"[..]));
    let error = stream.append(NewEvent::new(0, 0)).await.unwrap_err();
    assert_tells(&error.to_string(), &[&key, "placeholder"]);
    assert_eq!(send::<i64>(&shared(), &format!("XLEN {key}")).await, 1);
}

#[test]
fn a_key_without_a_name_is_refused() {
    let client = redis::Client::open("redis://127.0.0.1/").unwrap();
    for key in ["", "a\nb"] {
        assert!(RedisStream::new(&client, key).unwrap_err().is_invalid_name());
        assert!(reflex_redis::RedisCursors::new(&client, key).unwrap_err().is_invalid_name());
    }
}
