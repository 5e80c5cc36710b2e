use std::time::Duration;

use reflex_core::Metrics;

use crate::error::{Problem, Result};

/// Every command has to be answered by then, connecting included.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How cursors are kept in Redis.
///
/// A plain prefix converts into options with all other defaults.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reflex_redis::RedisCursorsOptions;
///
/// let options = RedisCursorsOptions::new("shop:cursors:").ordered_entry_ids().deadline(Duration::from_secs(2));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisCursorsOptions {
    pub(crate) prefix: String,
    pub(crate) ordered_entry_ids: bool,
    pub(crate) deadline: Duration,
    pub(crate) metrics: Option<Metrics>,
}

impl RedisCursorsOptions {
    /// What the keys begin with.
    pub const DEFAULT_PREFIX: &str = "reflex:cursors:";
    /// A command that was not answered for so long has failed.
    pub const DEFAULT_DEADLINE: Duration = DEFAULT_DEADLINE;

    /// Options for the keys with this prefix: the cursor of the consumer `billing` is in the key `<prefix>billing`.
    ///
    /// The prefix is 1 to 256 bytes without control characters, which is checked when the store is made. No other store and
    /// nothing else may use keys that begin with it.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ordered_entry_ids: false, deadline: Self::DEFAULT_DEADLINE, metrics: None }
    }

    /// Refuses to move cursors that are entry ids of Redis Streams backwards, as integers are always refused. By default they
    /// are text, which has no order by the contract of [`CursorStore`](reflex_core::CursorStore).
    ///
    /// For stores of consumers of [`RedisStream`](crate::RedisStream)s: a second runner of a consumer is noticed, and a write
    /// that was given up and arrives late cannot undo a later one.
    pub fn ordered_entry_ids(mut self) -> Self {
        self.ordered_entry_ids = true;
        self
    }

    /// How long one command may take, connecting included. Default: 10 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Counts the writes here, with the prefix as the name of the table. Default: [`Metrics::global`].
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_name(&self.prefix, "prefix of cursors", 256)
    }
}

impl Default for RedisCursorsOptions {
    fn default() -> Self {
        Self::new(Self::DEFAULT_PREFIX)
    }
}

impl<S: Into<String>> From<S> for RedisCursorsOptions {
    fn from(prefix: S) -> Self {
        Self::new(prefix)
    }
}

/// How a Redis Stream is read.
///
/// A plain key converts into options with all defaults.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reflex_redis::RedisStreamOptions;
///
/// let options = RedisStreamOptions::new("shop:orders").page_size(100).deadline(Duration::from_secs(2));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisStreamOptions {
    pub(crate) key: String,
    pub(crate) page_size: u32,
    pub(crate) block: Duration,
    pub(crate) deadline: Duration,
}

impl RedisStreamOptions {
    /// A page has at most this many entries, fewer if they are large.
    pub const DEFAULT_PAGE_SIZE: u32 = 1_000;
    /// An idle stream waits in Redis for so long before it looks again by itself.
    pub const DEFAULT_BLOCK: Duration = Duration::from_secs(5);
    /// A command that was not answered for so long has failed.
    pub const DEFAULT_DEADLINE: Duration = DEFAULT_DEADLINE;

    /// Options for the stream in this key, which is 1 to 512 bytes without control characters.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            page_size: Self::DEFAULT_PAGE_SIZE,
            block: Self::DEFAULT_BLOCK,
            deadline: Self::DEFAULT_DEADLINE,
        }
    }

    /// The most entries of one page, at least 1, at most 10,000. Default: 1,000.
    ///
    /// Pages of large entries have fewer, so that they come to about 4 MiB.
    pub fn page_size(mut self, entries: u32) -> Self {
        self.page_size = entries.clamp(1, 10_000);
        self
    }

    /// How long an idle stream waits in Redis (`XREAD BLOCK`) before it looks again by itself, at least 1 ms. New entries end
    /// the wait at once, whatever this is; it is for finding out that the stream or the connection is gone. Default: 5
    /// seconds.
    pub fn block(mut self, block: Duration) -> Self {
        self.block = block.max(Duration::from_millis(1));
        self
    }

    /// How long one command may take, connecting included, beyond what it waits on purpose. Default: 10 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_name(&self.key, "key of a stream", 512)
    }
}

impl<S: Into<String>> From<S> for RedisStreamOptions {
    fn from(key: S) -> Self {
        Self::new(key)
    }
}

/// How wake-ups go through Redis.
///
/// A plain prefix converts into options with all defaults.
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisWakeUpsOptions {
    pub(crate) prefix: String,
    pub(crate) deadline: Duration,
}

impl RedisWakeUpsOptions {
    /// What the channels begin with.
    pub const DEFAULT_PREFIX: &str = "reflex:wake-ups:";
    /// A command that was not answered for so long has failed.
    pub const DEFAULT_DEADLINE: Duration = DEFAULT_DEADLINE;

    /// Options for the channels with this prefix, 1 to 256 bytes without control characters, which is checked when the
    /// wake-ups are made.
    ///
    /// A channel is the prefix and the name of a table with its database. Database servers whose databases are called the same
    /// need a prefix each, or their tables wake each other's readers for nothing.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), deadline: Self::DEFAULT_DEADLINE }
    }

    /// How long one command may take, connecting included. Default: 10 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_name(&self.prefix, "prefix of wake-ups", 256)
    }
}

impl Default for RedisWakeUpsOptions {
    fn default() -> Self {
        Self::new(Self::DEFAULT_PREFIX)
    }
}

impl<S: Into<String>> From<S> for RedisWakeUpsOptions {
    fn from(prefix: S) -> Self {
        Self::new(prefix)
    }
}

fn check_name(name: &str, what: &'static str, max: usize) -> Result<()> {
    if (1..=max).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Problem::InvalidName { name: name.escape_debug().take(80).collect(), what, max }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, valid: bool) {
        assert_eq!(RedisCursorsOptions::new(name).validate().is_ok(), valid, "{name:?}");
    }

    #[test]
    fn a_prefix_is_some_text_without_control_characters() {
        check(RedisCursorsOptions::DEFAULT_PREFIX, true);
        check("shop{1}:*[", true);
        check("größe ", true);
        check("", false);
        check("a\nb", false);
        check("a\0", false);
        check(&"x".repeat(256), true);
        check(&"x".repeat(257), false);
    }
}
