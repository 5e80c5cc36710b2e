//! Servers that answer, and refuse.

use redis::Client;
use reflex_core::{CursorStore, NewEvent, StreamOptions};
use reflex_redis::{RedisCursors, RedisStream};
use reflex_testing::{collect, eventually};
use test_servers::Redis;

use crate::redis_server::{PATIENCE, assert_tells, chain, client, ours, send, start};

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_read_only_replica_is_read_and_not_written() {
    let primary = start(Redis::options()).await;
    let replica = start(Redis::options().setting("replicaof", format!("127.0.0.1 {}", primary.addr().port()))).await;
    let written = RedisCursors::new(&client(&primary), "cursors:").unwrap();
    written.set("billing", &7.into()).await.unwrap();
    RedisStream::new(&client(&primary), "orders").unwrap().append(NewEvent::new("order-12", 1)).await.unwrap();

    let cursors = RedisCursors::new(&client(&replica), "cursors:").unwrap();
    let stream = RedisStream::new(&client(&replica), "orders").unwrap();
    let arrived = || async { collect(&stream, StreamOptions::new()).await.is_ok_and(|events| events.len() == 1) };
    eventually("the event on the replica", PATIENCE, arrived).await;
    assert_eq!(cursors.get("billing").await.unwrap(), Some(7.into()));
    let error = cursors.set("billing", &8.into()).await.unwrap_err();
    assert_tells(&chain(&error), &["billing", "read-only replica", "connect to the primary"]);
    let error = stream.append(NewEvent::new("order-12", 1)).await.unwrap_err();
    assert_tells(&chain(&error), &["orders", "read-only replica"]);
    assert_eq!(error.as_redis().unwrap().code(), Some("READONLY"));
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_server_without_memory_refuses_and_recovers() {
    let server = start(Redis::options()).await;
    let client = client(&server);
    let cursors = RedisCursors::new(&client, "cursors:").unwrap();
    let stream = RedisStream::new(&client, "orders").unwrap();
    cursors.set("billing", &7.into()).await.unwrap();
    let _: String = send(&client, "CONFIG SET maxmemory 1").await;
    let error = cursors.set("billing", &8.into()).await.unwrap_err();
    assert_tells(&chain(&error), &["billing", "out of memory", "maxmemory"]);
    let error = stream.append(NewEvent::new("order-12", 1)).await.unwrap_err();
    assert_tells(&chain(&error), &["orders", "out of memory"]);
    assert_eq!(cursors.get("billing").await.unwrap(), Some(7.into()));
    let _: String = send(&client, "CONFIG SET maxmemory 0").await;
    cursors.set("billing", &8.into()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_wrong_password_and_missing_rights_are_told() {
    let server = start(Redis::options().setting("requirepass", "secret")).await;
    for (user, parts) in [("", ["NOAUTH", "rights"]), (":wrong@", ["billing", "password"])] {
        let client = Client::open(format!("redis://{user}{}/", server.addr())).unwrap();
        let error = RedisCursors::new(&client, "cursors:").unwrap().get("billing").await.unwrap_err();
        assert_tells(&chain(&error), &parts);
        assert!(!chain(&error).contains("wrong@") && !chain(&error).contains("secret"));
    }
    let admin = Client::open(format!("redis://:secret@{}/", server.addr())).unwrap();
    let _: String = send(&admin, "ACL SETUSER reader on >pw ~* +get +xrange +multi +exec").await;
    let reader = Client::open(format!("redis://reader:pw@{}/", server.addr())).unwrap();
    let error = RedisCursors::new(&reader, "cursors:").unwrap().set("billing", &1.into()).await.unwrap_err();
    assert_tells(&chain(&error), &["billing", "rights", "no permissions"]);
    let stream = RedisStream::new(&reader, "orders").unwrap();
    for options in [StreamOptions::new(), StreamOptions::new().after("1-1")] {
        let error = collect(&stream, options).await.unwrap_err();
        assert!(ours(&error).as_redis().is_some());
        assert_tells(&chain(&error), &["orders", "rights", "no permissions"]);
    }
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_node_of_a_cluster_is_told() {
    let server = start(Redis::options().setting("cluster-enabled", "yes")).await;
    let cursors = RedisCursors::new(&client(&server), "cursors:").unwrap();
    let error = cursors.set("billing", &1.into()).await.unwrap_err();
    assert_tells(&chain(&error), &["billing", "Cluster", "not supported"]);
}
