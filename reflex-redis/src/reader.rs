use std::time::Duration;

use redis::{Client, FromRedisValue, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection, cmd};
use tokio::time::timeout;

use crate::{
    entry::Entry,
    entry_id::EntryId,
    error::{Problem, Result, Trimmed},
    link::connect,
    options::RedisStreamOptions,
    position::{Gap, Position, Snapshot},
};

/// The size of a page aims at this many bytes, so that large entries do not fill the memory.
const TARGET_BYTES: usize = 4 << 20;

/// The first page is small, because nothing is known of the size of the entries.
const FIRST_PAGE: u32 = 64;

/// Entries in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Whether there were no more after these.
    pub(crate) is_end: bool,
}

/// Reads one stream over a connection of its own, which a wait may block.
pub(crate) struct Reader {
    connection: MultiplexedConnection,
    options: RedisStreamOptions,
    position: Position,
    limit: u32,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartAt {
    Beginning,
    After(EntryId),
    Head,
}

impl Reader {
    /// Connects, and pins the start.
    pub(crate) async fn open(client: &Client, options: &RedisStreamOptions, start: StartAt) -> Result<Self> {
        let options = options.clone();
        let attempted = || format!("connect to Redis to read stream `{}`", options.key);
        let connection = match timeout(options.deadline, connect(client, options.deadline)).await {
            Ok(connection) => connection.map_err(|error| Problem::redis(attempted(), error))?,
            Err(_) => return Err(Problem::Deadline { attempted: attempted(), deadline: options.deadline }.into()),
        };
        let limit = options.page_size.min(FIRST_PAGE);
        let mut reader = Self { connection, options, position: Position::after(EntryId::ZERO), limit };
        reader.position = match start {
            StartAt::After(id) => Position::after(id),
            StartAt::Beginning => Position::beginning(&reader.snapshot().await?),
            StartAt::Head => Position::head(&reader.snapshot().await?),
        };
        Ok(reader)
    }

    /// The id after which it reads.
    pub(crate) fn after(&self) -> EntryId {
        self.position.after
    }

    pub(crate) fn key(&self) -> &str {
        &self.options.key
    }

    /// Reads the next entries, and proves that none before them was trimmed away unread.
    ///
    /// The entries and what is known of the stream come from one transaction, so nothing happens between the two.
    pub(crate) async fn page(&mut self) -> Result<Page> {
        let mut transaction = Pipeline::new();
        transaction.atomic().ignore_errors();
        transaction.cmd("XINFO").arg("STREAM").arg(self.key());
        transaction.cmd("XRANGE").arg(self.key()).arg(format!("({}", self.after())).arg("+");
        transaction.arg("COUNT").arg(self.limit);
        let mut connection = self.connection.clone();
        let answers: (RedisResult<Value>, RedisResult<Value>) =
            self.within(Duration::ZERO, transaction.query_async(&mut connection)).await?;
        let now = self.parse_snapshot(answers.0)?;
        self.position.check(&now).map_err(|gap| self.explain(gap, &now))?;
        let entries = answers.1.and_then(parse_entries).map_err(|error| self.problem(error))?;
        let is_end = entries.len() < self.limit as usize;
        self.position.advance(&now, entries.len() as u64, entries.last().map(|entry| entry.id), is_end);
        self.limit = next_limit(&entries, self.options.page_size);
        Ok(Page { entries, is_end })
    }

    /// Waits in Redis until there is an entry after the position, or for a while.
    ///
    /// What it answers is only a hint: it is not from one transaction with what proves that nothing was trimmed.
    pub(crate) async fn wait(&self) -> Result<()> {
        let block = u64::try_from(self.options.block.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(block);
        command.arg("STREAMS").arg(self.key()).arg(self.after().to_string());
        let mut connection = self.connection.clone();
        let _hint: Value = self.within(self.options.block, command.query_async(&mut connection)).await?;
        Ok(())
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        let mut command = cmd("XINFO");
        command.arg("STREAM").arg(self.key());
        let mut connection = self.connection.clone();
        let mut transaction = Pipeline::new();
        transaction.ignore_errors().add_command(command);
        let (info,) = self.within(Duration::ZERO, transaction.query_async(&mut connection)).await?;
        self.parse_snapshot(info)
    }

    /// Lets a command fail that is not answered in time, beyond what it blocks.
    async fn within<T>(&self, block: Duration, command: impl Future<Output = RedisResult<T>>) -> Result<T> {
        match timeout(block.saturating_add(self.options.deadline), command).await {
            Ok(answer) => answer.map_err(|error| self.problem(error).into()),
            Err(_) => Err(Problem::Deadline { attempted: self.attempted(), deadline: self.options.deadline }.into()),
        }
    }

    /// A stream that does not exist is one to which nothing was ever added.
    fn parse_snapshot(&self, info: RedisResult<Value>) -> Result<Snapshot> {
        let info = match info {
            Ok(info) => info,
            Err(error) if error.detail().is_some_and(|detail| detail.contains("no such key")) => {
                return Ok(Snapshot::default());
            }
            Err(error) => return Err(self.problem(error).into()),
        };
        let info = Vec::<(String, Value)>::from_redis_value(info).map_err(|error| self.problem(error.into()))?;
        let field = |name: &'static str| {
            let found = info.iter().find(|(field, _)| field == name).map(|(_, value)| value);
            found.ok_or_else(|| Problem::TooOld { key: self.key().to_owned(), field: name })
        };
        let number = |value: &Value| u64::from_redis_value_ref(value).map_err(|error| self.problem(error.into()));
        let id = |value: &Value| parse_id(value).map_err(|error| self.problem(error));
        let length = number(field("length")?)?;
        let first = id(field("recorded-first-entry-id")?)?;
        Ok(Snapshot {
            last: id(field("last-generated-id")?)?,
            added: number(field("entries-added")?)?,
            length,
            first: (length > 0).then_some(first),
        })
    }

    fn explain(&self, gap: Gap, now: &Snapshot) -> Problem {
        let (key, after) = (self.key().to_owned(), self.after().to_string());
        match gap {
            Gap::Ahead => Problem::CursorAhead { key, cursor: after, last: now.last.to_string() },
            Gap::Replaced => Problem::Replaced { key, after },
            Gap::Trimmed(lost) => {
                Problem::Trimmed(Trimmed { key, after, first: now.first.map(|first| first.to_string()), lost })
            }
        }
    }

    fn problem(&self, error: RedisError) -> Problem {
        Problem::on_key(self.attempted(), "stream", error)
    }

    fn attempted(&self) -> String {
        format!("read stream `{}` after {}", self.key(), self.after())
    }
}

fn parse_entries(answer: Value) -> RedisResult<Vec<Entry>> {
    type Fields = Vec<(Vec<u8>, Vec<u8>)>;
    let entries = Vec::<(Value, Fields)>::from_redis_value(answer)?;
    let entry = |(id, fields): (Value, Fields)| Ok(Entry { id: parse_id(&id)?, fields });
    entries.into_iter().map(entry).collect()
}

fn parse_id(value: &Value) -> RedisResult<EntryId> {
    let text = String::from_redis_value_ref(value)?;
    text.parse().map_err(|()| (redis::ErrorKind::Parse, "Redis answered an entry id that is none", text).into())
}

/// How many entries to ask for next, so that a page comes to about [`TARGET_BYTES`].
fn next_limit(entries: &[Entry], max: u32) -> u32 {
    let bytes: usize = entries.iter().map(Entry::bytes).sum();
    let average = bytes.checked_div(entries.len()).unwrap_or(0).max(1);
    u32::try_from(TARGET_BYTES / average).unwrap_or(u32::MAX).clamp(1, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_entries_make_small_pages() {
        let entries = |bytes: usize| {
            let fields = vec![(b"metadata".to_vec(), vec![0; bytes])];
            vec![Entry { id: EntryId::ZERO, fields }]
        };
        assert_eq!(next_limit(&[], 1_000), 1_000);
        assert_eq!(next_limit(&entries(100), 1_000), 1_000);
        assert_eq!(next_limit(&entries(1 << 20), 1_000), 3);
        assert_eq!(next_limit(&entries(8 << 20), 1_000), 1);
    }
}
