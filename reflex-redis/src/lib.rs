//! Cursors in Redis, Redis Streams as a source of events, and wake-ups over pub/sub, for reflex.
//!
//! ```no_run
//! use reflex_core::{Event, NewEvent, Spec, consumer_fn, run};
//! use reflex_redis::{RedisCursors, RedisCursorsOptions, RedisStream};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let client = redis::Client::open("redis://127.0.0.1/")?;
//! let orders = RedisStream::new(&client, "shop:orders")?;
//! let cursors = RedisCursors::new(&client, RedisCursorsOptions::default().ordered_entry_ids())?;
//! orders.append(NewEvent::new("order-12", 1)).await?;
//!
//! let consumer = consumer_fn("ship", |event: Event| async move {
//!     println!("shipping {}", event.foreign_id());
//!     Ok(())
//! });
//! let mut spec = Spec::new(orders, cursors, consumer).to_head();
//! assert!(run(&mut spec).await.unwrap_err().is_head_reached());
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Main types
//!
//! [`RedisCursors`] keeps the cursors of any consumers, also of those that read SQL tables. [`RedisStream`] reads a Redis
//! Stream and appends to it. [`RedisWakeUps`] let the processes that share an events table of a database wake each other. None
//! of them connects before it is used, so a service can start while Redis is down.
//!
//! # Guarantees
//!
//! - *Cursors move forward.* Comparing and writing is one step in Redis; integers of 64 bits are compared exactly.
//! - *Nothing is skipped.* A stream that was trimmed past a consumer ends with an error; see [`RedisStream`] for what can be
//!   proven.
//! - *Every wait ends.* A command that is not answered by its deadline fails. The error ends the run; the next run connects
//!   again and goes on at the cursor.
//!
//! What Redis itself loses, in a crash without `appendfsync always` or in a failover, is lost. A cursor that is ahead of its
//! stream afterwards is an error.
//!
//! # Not supported
//!
//! Redis Cluster, Sentinel, and consumer groups. Cursors need Redis 6.2 or newer, streams 7.0. TLS is a feature of the `redis` crate that the service chooses.

mod cursors;
mod entry;
mod entry_id;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod link;
mod options;
mod position;
mod reader;
mod stream;
mod value;
mod wake_ups;

pub use self::{
    cursors::{RedisCursors, StoredCursor},
    error::{Error, Result},
    options::{RedisCursorsOptions, RedisStreamOptions, RedisWakeUpsOptions},
    stream::RedisStream,
    wake_ups::RedisWakeUps,
};
