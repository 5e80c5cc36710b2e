use std::{fmt, sync::Arc};

use async_stream::try_stream;
use redis::{Client, Cmd};
use reflex_core::{BoxEventStream, Cursor, Error as CoreError, NewEvent, Opened, Start, StreamFunc, StreamOptions};

use crate::{
    entry,
    entry_id::EntryId,
    error::{Problem, Result},
    link::Link,
    options::RedisStreamOptions,
    reader::{Page, Reader, StartAt},
};

/// A Redis Stream as a source of events. Handles are cheap to clone.
///
/// An entry of the stream is an event, and its id is the event's id and cursor. These are its fields, under the names that
/// the columns of an events table have; others are left alone:
///
/// | field | value | if it is missing |
/// |---|---|---|
/// | `type` | an integer of 32 bits | error |
/// | `foreign_id` | UTF-8 text | error |
/// | `timestamp` | RFC 3339, as in `2026-01-31T12:00:00.123456Z` | the time in the entry's id |
/// | `metadata` | any bytes | empty |
/// | `trace` | the encoded trace context | empty |
///
/// Redis hands out ids and makes entries visible in one step, so there are no gaps to wait for. Each open stream has a
/// connection of its own, on which it waits for new entries (`XREAD BLOCK`); it holds one page of entries at a time. Consumer
/// groups are not used: any number of consumers read the same stream, each with its own cursor in any
/// [`CursorStore`](reflex_core::CursorStore). For [`RedisCursors`](crate::RedisCursors) see
/// [`ordered_entry_ids`](crate::RedisCursorsOptions::ordered_entry_ids).
///
/// # Trimming
///
/// Whoever trims a stream (`MAXLEN`, `MINID`) takes entries away that a consumer may not have read. A stream proves with each
/// page that this did not happen, and ends with an error that [`is_trimmed`](crate::Error::is_trimmed) otherwise. The page and
/// the counters for the proof come from one transaction. What is proven:
///
/// - As long as an entry is left that is not after the position, none after it was trimmed, because trimming takes entries
///   from the front.
/// - A stream that is open has counted what was added since it was at its beginning or at its head. If as many entries are
///   there, nothing is gone, even where all that it has read was trimmed.
/// - A cursor whose entry is gone, with all that were before it, proves nothing when it is opened, unless it is the last id
///   of the stream. Entries after it may be gone, so it is an error. Let the stream keep the entries of the last hours or
///   days, always including the last one that the slowest consumer has read.
///
/// A cursor ahead of the last id that the stream ever gave, and a stream that was replaced while it was read, are errors as
/// well. Not noticed are: entries that were deleted one by one (`XDEL`), which are not delivered, as a deleted row of a table
/// would not be; a stream that was deleted and made again, if its ids go beyond the cursor and begin below it; and what
/// Redis 6, which does not count, had trimmed before an upgrade, for a consumer that started from the head of an empty stream.
///
/// Redis 7.0 or newer is needed. A read-only replica can be read, and delivers what has reached it. Clusters are not
/// supported.
///
/// # Examples
///
/// ```no_run
/// use reflex_core::{NewEvent, StreamOptions};
/// use reflex_redis::RedisStream;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let orders = RedisStream::new(&client, "shop:orders")?;
/// let id = orders.append(NewEvent::new("order-12", 1)).await?;
/// println!("appended {id}");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct RedisStream {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// For appending; readers have connections of their own.
    link: Link,
    options: RedisStreamOptions,
}

impl RedisStream {
    /// Makes a source of the stream in a key, from options or from the key alone. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the key is empty, too long, or has control characters in it.
    pub fn new(client: &Client, options: impl Into<RedisStreamOptions>) -> Result<Self> {
        let options = options.into();
        options.validate()?;
        let link = Link::new(client, options.deadline);
        Ok(Self { inner: Arc::new(Inner { client: client.clone(), link, options }) })
    }

    /// Appends an event and returns its id. Nothing is trimmed: that is for whoever owns the stream, with `XTRIM`.
    ///
    /// # Errors
    ///
    /// If the event looks like a placeholder, or Redis cannot be written. If the answer was lost the event may have been
    /// appended.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the event was appended or not.
    pub async fn append(&self, event: NewEvent) -> Result<Cursor> {
        let command = &self.append_command(&event)?;
        let answer = self.inner.link.call(async move |mut connection| command.query_async(&mut connection).await);
        let attempted = || format!("append an event to stream `{}`", self.key());
        let id: String = answer.await.map_err(|failed| failed.on_key(attempted(), "stream"))?;
        Ok(id.into())
    }

    /// The command that appends an event, to put it into a transaction with the change of state that it tells of.
    ///
    /// # Errors
    ///
    /// If the event looks like a placeholder.
    ///
    /// # Examples
    ///
    /// ```
    /// use reflex_core::NewEvent;
    /// use reflex_redis::RedisStream;
    ///
    /// let client = redis::Client::open("redis://127.0.0.1/")?;
    /// let orders = RedisStream::new(&client, "shop:orders")?;
    /// let mut transaction = redis::pipe();
    /// transaction.atomic().set("order-12", "paid");
    /// transaction.add_command(orders.append_command(&NewEvent::new("order-12", 2))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_command(&self, event: &NewEvent) -> Result<Cmd> {
        entry::append_command(self.key(), event)
    }

    async fn open_reader(&self, start: &Start) -> Result<Reader> {
        let start = match start {
            Start::Beginning => StartAt::Beginning,
            Start::Head => StartAt::Head,
            Start::After(cursor) => StartAt::After(self.parse(cursor)?),
        };
        Reader::open(&self.inner.client, &self.inner.options, start).await
    }

    fn parse(&self, cursor: &Cursor) -> Result<EntryId> {
        let cursor = cursor.to_string();
        cursor.parse().map_err(|()| Problem::NotAnEntryId { key: self.key().to_owned(), cursor }.into())
    }

    fn key(&self) -> &str {
        &self.inner.options.key
    }
}

impl StreamFunc for RedisStream {
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> reflex_core::Result<Opened<BoxEventStream>> {
        let failed = |error: crate::Error| error.into_stream_error(self.key());
        let mut reader = self.open_reader(options.start()).await.map_err(failed)?;
        if matches!(options.start(), Start::Head) {
            let position = reader.after().to_string();
            return Ok(Opened::new(follow(reader, Page { is_end: true, ..Page::default() }, options)).at(position));
        }
        // What is read at once cannot be trimmed before the stream is polled.
        let first = reader.page().await.map_err(failed)?;
        Ok(Opened::new(follow(reader, first, options)))
    }
}

fn follow(mut reader: Reader, first: Page, options: StreamOptions) -> BoxEventStream {
    Box::pin(try_stream! {
        let mut page = first;
        let mut is_fresh = false;
        loop {
            if page.entries.is_empty() && is_fresh && options.is_to_head() {
                Err(CoreError::head_reached())?;
            }
            for entry in &page.entries {
                let event = entry.decode(reader.key()).map_err(|error| error.into_stream_error(reader.key()))?;
                options.hold_back(&event).await?;
                if !event.is_noop() {
                    yield event;
                }
            }
            if page.is_end && !options.is_to_head() {
                reader.wait().await.map_err(|error| error.into_stream_error(reader.key()))?;
            }
            page = reader.page().await.map_err(|error| error.into_stream_error(reader.key()))?;
            is_fresh = true;
        }
    })
}

impl fmt::Debug for RedisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStream").field("key", &self.key()).finish_non_exhaustive()
    }
}
