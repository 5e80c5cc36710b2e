use std::{cmp::Ordering, collections::BTreeSet, fmt, sync::Arc};

use futures_util::future::try_join_all;
use redis::{Client, Script, cmd};
use reflex_core::{Cursor, CursorStore, Metrics, check_forward};

use crate::{
    error::{Error, Problem, Result},
    link::Link,
    options::RedisCursorsOptions,
    value,
};

/// How often a write is tried again when others keep changing a text cursor.
const ATTEMPTS: u32 = 16;

/// How many keys a listing asks for at once.
const KEYS_PER_SCAN: u32 = 500;

/// Cursors in Redis, one key per consumer. Handles are cheap to clone and share one connection.
///
/// The value of a key is the cursor as text, so that `redis-cli get reflex:cursors:billing` shows it. An integer cursor never
/// moves backwards, whatever its size: one script compares and writes. Other text replaces what was there, entry ids of
/// streams too, unless [`ordered_entry_ids`](RedisCursorsOptions::ordered_entry_ids) is set. Nothing is buffered: wrap the
/// store in [`BufferedCursors`](reflex_core::BufferedCursors) unless each cursor is worth a write.
///
/// The connection is made by the first command, and again by the next one after it broke or fell silent. The command that
/// notices fails.
///
/// Redis keeps a cursor as well as it is told to: with `appendfsync everysec` a crash of the machine takes back the last
/// second, and a failover what the replica had not yet received. The consumer then gets those events again. A
/// `maxmemory-policy` that evicts keys without a time to live takes cursors away, and their consumers start from the
/// beginning: use `noeviction` or one of the `volatile` policies.
///
/// # Examples
///
/// ```no_run
/// use reflex_core::CursorStore;
/// use reflex_redis::RedisCursors;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let cursors = RedisCursors::new(&client, "shop:cursors:")?;
/// cursors.set("billing", &7.into()).await?;
/// assert_eq!(cursors.get("billing").await?, Some(7.into()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct RedisCursors {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    set_cursor: Script,
    metrics: Metrics,
    options: RedisCursorsOptions,
}

/// A cursor as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredCursor {
    /// The consumer that it belongs to.
    pub consumer: String,
    /// The position.
    pub cursor: Cursor,
}

impl RedisCursors {
    /// Makes a store of cursors, from options or from a prefix alone. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the prefix is empty, too long, or has control characters in it.
    pub fn new(client: &Client, options: impl Into<RedisCursorsOptions>) -> Result<Self> {
        let options = options.into();
        options.validate()?;
        let inner = Inner {
            link: Link::new(client, options.deadline),
            set_cursor: Script::new(include_str!("set_cursor.lua")),
            metrics: options.metrics.clone().unwrap_or_else(Metrics::global),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// All cursors, by the name of their consumer. Those that are set or deleted meanwhile are in it or not.
    ///
    /// It walks over all keys of the database, in steps that do not block Redis.
    ///
    /// # Errors
    ///
    /// If Redis cannot be read, or a key with the prefix holds no cursor.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn list(&self) -> Result<Vec<StoredCursor>> {
        let mut consumers = BTreeSet::new();
        let mut at = 0;
        loop {
            let (next, keys) = self.scan(at).await?;
            // Names are text, so a key that is none is not ours.
            let keys = keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
            consumers.extend(keys.filter_map(|key| key.strip_prefix(self.prefix()).map(str::to_owned)));
            if next == 0 {
                break;
            }
            at = next;
        }
        let mut cursors = Vec::new();
        let consumers = Vec::from_iter(consumers);
        for consumers in consumers.chunks(KEYS_PER_SCAN as usize) {
            let stored = try_join_all(consumers.iter().map(|consumer| self.stored(consumer))).await?;
            let stored = consumers.iter().zip(stored);
            cursors.extend(
                stored.filter_map(|(consumer, cursor)| {
                    Some(StoredCursor { consumer: consumer.clone(), cursor: cursor? })
                }),
            );
        }
        Ok(cursors)
    }

    /// Deletes the cursor of a consumer, which then starts from the beginning. Returns false if it had none.
    ///
    /// It deletes a value that is no cursor as well, but no key of another type than a string.
    ///
    /// # Errors
    ///
    /// If the key has another type, or Redis cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the cursor is there or not.
    pub async fn delete(&self, consumer: &str) -> Result<bool> {
        let key = self.key(consumer);
        let mut command = cmd("GETDEL");
        command.arg(&key);
        let deleted: Option<Vec<u8>> = self.call(&command, || format!("delete the key `{key}`")).await?;
        Ok(deleted.is_some())
    }

    /// Sets the cursor of a consumer wherever it is, backwards too. For repairs by hand, while the consumer is stopped.
    ///
    /// It replaces a value that is no cursor as well, but no key of another type than a string.
    ///
    /// # Errors
    ///
    /// If the cursor is empty, longer than 1,024 bytes, or has control characters in it or spaces around it; if the key has
    /// another type, or Redis cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the cursor is the old one or the new one.
    pub async fn force_set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        let key = self.key(consumer);
        let text = storable(cursor)?;
        let mut command = cmd("SET");
        // With GET it fails on a key of another type; alone it would replace that.
        command.arg(&key).arg(text).arg("GET");
        let _replaced: Option<Vec<u8>> = self.call(&command, || format!("write the key `{key}`")).await?;
        Ok(())
    }

    async fn advance(&self, consumer: &str, cursor: &Cursor) -> reflex_core::Result<()> {
        let failed = |error: Error| error.into_store_error(attempt("set", consumer));
        let key = self.key(consumer);
        let text = storable(cursor).map_err(failed)?;
        let mut seen = None;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.try_set(&key, &text, seen.as_deref()).await.map_err(failed)? else {
                return Ok(());
            };
            let found = parse(&key, &stored).map_err(failed)?;
            check_forward(consumer, &found, cursor)?;
            self.check_entries(consumer, &found, cursor)?;
            seen = Some(stored);
        }
        Err(failed(Problem::Contended { key }.into()))
    }

    /// Writes, unless that has to be judged first: then it returns what is stored.
    async fn try_set(&self, key: &str, text: &str, seen: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let mut call = self.inner.set_cursor.key(key);
        call.arg(text).arg(u8::from(self.inner.options.ordered_entry_ids));
        if let Some(seen) = seen {
            call.arg(seen);
        }
        let call = &call;
        let answer = self.inner.link.call(async move |mut connection| call.invoke_async(&mut connection).await);
        answer.await.map_err(|failed| failed.on_key(format!("write the key `{key}`"), "string").into())
    }

    fn check_entries(&self, consumer: &str, stored: &Cursor, new: &Cursor) -> reflex_core::Result<()> {
        let order = value::order_of_entries(new, stored).filter(|_| self.inner.options.ordered_entry_ids);
        match order {
            Some(Ordering::Less) => Err(reflex_core::Error::cursor_backwards(consumer, stored, new)),
            Some(Ordering::Equal) => Err(reflex_core::Error::cursor_unchanged(consumer, new)),
            Some(Ordering::Greater) | None => Ok(()),
        }
    }

    async fn stored(&self, consumer: &str) -> Result<Option<Cursor>> {
        let key = self.key(consumer);
        let mut command = cmd("GET");
        command.arg(&key);
        let stored: Option<Vec<u8>> = self.call(&command, || format!("read the key `{key}`")).await?;
        stored.map(|stored| parse(&key, &stored)).transpose()
    }

    /// One step of a walk over the keys: where to go on, and the keys found.
    async fn scan(&self, at: u64) -> Result<(u64, Vec<Vec<u8>>)> {
        let mut command = cmd("SCAN");
        command.arg(at).arg("MATCH").arg(pattern(self.prefix())).arg("COUNT").arg(KEYS_PER_SCAN);
        let attempted = || format!("list the keys that begin with `{}`", self.prefix());
        self.call(&command, attempted).await
    }

    async fn call<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
        attempted: impl FnOnce() -> String,
    ) -> Result<T> {
        let answer = self.inner.link.call(async move |mut connection| command.query_async(&mut connection).await);
        answer.await.map_err(|failed| failed.on_key(attempted(), "string").into())
    }

    fn key(&self, consumer: &str) -> String {
        format!("{}{consumer}", self.prefix())
    }

    fn prefix(&self) -> &str {
        &self.inner.options.prefix
    }
}

impl CursorStore for RedisCursors {
    async fn get(&self, consumer: &str) -> reflex_core::Result<Option<Cursor>> {
        self.stored(consumer).await.map_err(|error| error.into_store_error(attempt("get", consumer)))
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> reflex_core::Result<()> {
        self.inner.metrics.cursor_sets(self.prefix()).inc();
        self.advance(consumer, cursor).await
    }
}

impl fmt::Debug for RedisCursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCursors").field("prefix", &self.prefix()).finish_non_exhaustive()
    }
}

fn attempt(what: &str, consumer: &str) -> String {
    format!("{what} the cursor of consumer `{consumer}`")
}

fn parse(key: &str, stored: &[u8]) -> Result<Cursor> {
    let no_cursor = |why| Problem::NotACursor { key: key.to_owned(), value: value::shown(stored), why };
    value::cursor(stored).map_err(|why| no_cursor(why).into())
}

/// The text of a cursor that will be read as a cursor again.
fn storable(cursor: &Cursor) -> Result<String> {
    let text = cursor.to_string();
    match value::cursor(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(why) => Err(Problem::CannotStore { value: value::shown(text.as_bytes()), why }.into()),
    }
}

/// A pattern for all keys that begin with the prefix.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::new();
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "*"
}
