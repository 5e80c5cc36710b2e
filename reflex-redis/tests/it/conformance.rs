//! Every obligation of a source and of a cursor store.

use std::future::ready;

use redis::{Client, IntoConnectionInfo, Pipeline, ProtocolVersion, aio::MultiplexedConnection};
use reflex_core::{HandlerError, NewEvent};
use reflex_redis::{RedisCursors, RedisStream, RedisStreamOptions};
use reflex_testing::conformance::{CursorCapabilities, StreamCapabilities, StreamHarness, cursor_store, stream_func};

use crate::redis_server::{connect, shared, unique};

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn cursors() {
    let factory = |_case| async {
        let prefix = unique();
        Ok(move || ready(RedisCursors::new(&shared(), prefix.as_str()).map_err(HandlerError::from)))
    };
    cursor_store(factory, CursorCapabilities::default()).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn streams() {
    let factory = |_case| async { Ok(Stream::new(shared(), 1_000).await) };
    stream_func(factory, capabilities()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: cargo xtask test"]
async fn cursors_and_streams_on_several_threads() {
    let factory = |_case| async {
        let prefix = unique();
        Ok(move || ready(RedisCursors::new(&shared(), prefix.as_str()).map_err(HandlerError::from)))
    };
    cursor_store(factory, CursorCapabilities::default()).await;
    let factory = |_case| async { Ok(Stream::new(shared(), 1_000).await) };
    stream_func(factory, capabilities()).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn streams_of_small_pages() {
    let factory = |_case| async { Ok(Stream::new(shared(), 3).await) };
    stream_func(factory, StreamCapabilities { backlog: 1_000, ..capabilities() }).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn streams_over_the_third_protocol() {
    let factory = |_case| async { Ok(Stream::new(resp3(), 1_000).await) };
    stream_func(factory, capabilities()).await;
}

fn capabilities() -> StreamCapabilities {
    StreamCapabilities { integer_ids: false, ..StreamCapabilities::default() }
}

fn resp3() -> Client {
    let info = shared().get_connection_info().clone().into_connection_info().unwrap();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings)).unwrap()
}

struct Stream {
    client: Client,
    writer: MultiplexedConnection,
    options: RedisStreamOptions,
    key: String,
}

impl Stream {
    async fn new(client: Client, page_size: u32) -> Self {
        let key = unique();
        let options = RedisStreamOptions::new(&key).page_size(page_size);
        Self { writer: connect(&client).await, client, options, key }
    }
}

impl StreamHarness for Stream {
    type Source = RedisStream;

    async fn source(&self) -> Result<RedisStream, HandlerError> {
        Ok(RedisStream::new(&self.client, self.options.clone())?)
    }

    async fn append(&self, event: NewEvent) -> Result<(), HandlerError> {
        self.append_all(vec![event]).await
    }

    async fn append_all(&self, events: Vec<NewEvent>) -> Result<(), HandlerError> {
        let source = self.source().await?;
        let mut pipeline = Pipeline::new();
        for event in &events {
            pipeline.add_command(source.append_command(event)?);
        }
        Ok(pipeline.exec_async(&mut self.writer.clone()).await?)
    }

    async fn append_placeholder(&self) -> Result<(), HandlerError> {
        let mut command = redis::cmd("XADD");
        command.arg(&self.key).arg("*").arg("type").arg(0).arg("foreign_id").arg("0");
        Ok(command.exec_async(&mut self.writer.clone()).await?)
    }
}
