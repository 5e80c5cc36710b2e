mod errors;

use std::time::Duration;

use reflex_core::{BoxWakeUps, Metrics, WakeUps};

pub(crate) use self::errors::ErrorsNames;
pub use self::errors::ErrorsTableOptions;

use crate::{
    error::{Error, Result},
    names::{Identifier, TableName},
};

/// How an events table is named and read.
///
/// A plain name converts into options with all defaults.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reflex_sql::EventsTableOptions;
///
/// let options = EventsTableOptions::new("shop.order_events")
///     .event_type_column("kind")
///     .poll_interval(Duration::from_millis(200));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct EventsTableOptions {
    pub(crate) table: String,
    pub(crate) columns: EventsColumns,
    pub(crate) poll_interval: Duration,
    pub(crate) page_size: u32,
    pub(crate) ring_events: usize,
    pub(crate) ring_bytes: usize,
    pub(crate) reader_connections: u32,
    pub(crate) deadline: Duration,
    pub(crate) gap_mode: GapMode,
    pub(crate) cluster_grace: Option<Duration>,
    pub(crate) wake_ups: WakeUpsChoice,
    pub(crate) wake_up_heartbeat: Duration,
    pub(crate) metrics: Option<Metrics>,
}

/// By what the processes that share a table wake each other.
#[derive(Clone, Debug, Default)]
pub(crate) enum WakeUpsChoice {
    /// By what the database has.
    #[default]
    Native,
    Off,
    Given(BoxWakeUps),
}

impl WakeUpsChoice {
    pub(crate) fn choose(&self, native: impl FnOnce() -> Option<BoxWakeUps>) -> Option<BoxWakeUps> {
        match self {
            Self::Native => native(),
            Self::Off => None,
            Self::Given(wake_ups) => Some(wake_ups.clone()),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct EventsColumns {
    pub(crate) id: String,
    pub(crate) foreign_id: String,
    pub(crate) timestamp: String,
    pub(crate) event_type: String,
    /// `None` looks for the default name and does without if there is no such column.
    pub(crate) metadata: Option<String>,
    pub(crate) trace: Option<String>,
}

/// How a reader on MySQL or MariaDB finds out that a missing id is dead.
///
/// Postgres and SQLite need no choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapMode {
    /// Metadata locks if they can be read, otherwise placeholders. The default.
    #[default]
    Auto,
    /// Waits until every session that held a write metadata lock on the table has let go of it. Writes nothing and disturbs
    /// no writer. Opening fails if metadata locks cannot be read.
    MetadataLocks,
    /// luno/reflex's way: inserts a placeholder with the missing id, once a dirty read has not seen the row for 100 ms. A
    /// writer that comes later than that gets a duplicate-key error; nothing is lost.
    Noop,
    /// Waits for ever, and reports. For readers that may neither see locks nor write.
    Wait,
}

impl EventsTableOptions {
    /// An idle table is looked at this often.
    pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(1);
    /// One query for streams that are far behind asks for at most this many rows, fewer if they are large.
    pub const DEFAULT_PAGE_SIZE: u32 = 50_000;
    /// The shared ring keeps at most this many of the newest events.
    pub const DEFAULT_RING_EVENTS: usize = 10_000;
    /// The shared ring keeps at most this many bytes.
    pub const DEFAULT_RING_BYTES: usize = 64 << 20;
    /// So many connections read the table at once, beside the pool of the caller.
    pub const DEFAULT_READER_CONNECTIONS: u32 = 4;
    /// A query that was not answered for so long has failed.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
    /// After so long without a wake-up it is tested whether any would arrive.
    pub const DEFAULT_WAKE_UP_HEARTBEAT: Duration = Duration::from_secs(10);

    /// Options for a table, optionally with its schema: `"events"`, `"shop.events"`. The name is checked when the table is
    /// opened; it is used exactly as it is written.
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            columns: EventsColumns::default(),
            poll_interval: Self::DEFAULT_POLL_INTERVAL,
            page_size: Self::DEFAULT_PAGE_SIZE,
            ring_events: Self::DEFAULT_RING_EVENTS,
            ring_bytes: Self::DEFAULT_RING_BYTES,
            reader_connections: Self::DEFAULT_READER_CONNECTIONS,
            deadline: Self::DEFAULT_DEADLINE,
            gap_mode: GapMode::default(),
            cluster_grace: None,
            wake_ups: WakeUpsChoice::default(),
            wake_up_heartbeat: Self::DEFAULT_WAKE_UP_HEARTBEAT,
            metrics: None,
        }
    }

    /// The column of the id. Default: `id`.
    pub fn id_column(mut self, name: impl Into<String>) -> Self {
        self.columns.id = name.into();
        self
    }

    /// The column of the foreign id, text or integer. Default: `foreign_id`.
    pub fn foreign_id_column(mut self, name: impl Into<String>) -> Self {
        self.columns.foreign_id = name.into();
        self
    }

    /// The column of the timestamp. Default: `timestamp`.
    pub fn timestamp_column(mut self, name: impl Into<String>) -> Self {
        self.columns.timestamp = name.into();
        self
    }

    /// The column of the event type. Default: `type`.
    pub fn event_type_column(mut self, name: impl Into<String>) -> Self {
        self.columns.event_type = name.into();
        self
    }

    /// The column of the metadata; it must exist. Default: `metadata`, if there is such a column.
    pub fn metadata_column(mut self, name: impl Into<String>) -> Self {
        self.columns.metadata = Some(name.into());
        self
    }

    /// The column of the trace; it must exist. Default: `trace`, if there is such a column.
    pub fn trace_column(mut self, name: impl Into<String>) -> Self {
        self.columns.trace = Some(name.into());
        self
    }

    /// How often an idle table is looked at, with up to a fifth of jitter on top. Events inserted through this process are seen
    /// at once, and those of other processes where there are [wake-ups](crate::EventsTable#wake-ups), whatever the interval.
    /// Default: 1 second.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// The most rows that one query for streams that are far behind asks for, at most 50,000; on SQLite, where it takes a
    /// connection from the caller's pool, at most 10,000. Default: 50,000.
    pub fn page_size(mut self, rows: u32) -> Self {
        self.page_size = rows.clamp(1, 50_000);
        self
    }

    /// How many of the newest events all streams of this process share. Default: 10,000.
    pub fn ring_events(mut self, events: usize) -> Self {
        self.ring_events = events;
        self
    }

    /// How many bytes of the newest events all streams of this process share. Default: 64 MiB.
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// How many connections read the table at once: one that all streams share, the others for streams that are far behind.
    /// At least 2. On SQLite they come from the pool of the caller. Default: 4.
    pub fn reader_connections(mut self, connections: u32) -> Self {
        self.reader_connections = connections.max(2);
        self
    }

    /// How long one query of a reader may take. Default: 30 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How missing ids are resolved on MySQL and MariaDB. Default: [`GapMode::Auto`].
    pub fn gap_mode(mut self, mode: GapMode) -> Self {
        self.gap_mode = mode;
        self
    }

    /// Reads from a member of a Galera cluster or a replication group, which is refused otherwise: writers on other members
    /// hold no lock here. A missing id then counts as dead only after this long on top. It is a bet on the cluster's delay,
    /// not a proof.
    pub fn cluster_grace(mut self, grace: Duration) -> Self {
        self.cluster_grace = Some(grace);
        self
    }

    /// By what processes that share the table wake each other, Redis for example. All of them have to use the same.
    ///
    /// The topic is the name of the table with its schema and database, or file on SQLite. Servers whose databases are called
    /// the same need wake-ups that keep them apart, by a prefix for example, or they wake each other for nothing.
    ///
    /// Default: `LISTEN` and `NOTIFY` on Postgres, none elsewhere. See [wake-ups](crate::EventsTable#wake-ups).
    pub fn wake_ups(mut self, wake_ups: impl WakeUps + 'static) -> Self {
        self.wake_ups = WakeUpsChoice::Given(BoxWakeUps::new(wake_ups));
        self
    }

    /// Neither wakes other processes nor listens to them: for databases where connections are scarce, or where a pooler does
    /// not let anybody listen.
    pub fn without_wake_ups(mut self) -> Self {
        self.wake_ups = WakeUpsChoice::Off;
        self
    }

    /// After how long without a wake-up it is tested whether any would arrive, by one to ourselves, which then has as long to
    /// arrive. Until a dead connection is noticed, events of other processes are found by polling alone. Default: 10 seconds.
    pub fn wake_up_heartbeat(mut self, silence: Duration) -> Self {
        self.wake_up_heartbeat = silence.max(Duration::from_millis(10));
        self
    }

    /// Records metrics here. Default: [`Metrics::global`].
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    pub(crate) fn names(&self) -> Result<EventsNames> {
        let optional = |name: &Option<String>, default: &str| {
            let required = name.is_some();
            let name = Identifier::parse(name.as_deref().unwrap_or(default))?;
            Ok::<_, Error>(OptionalColumn { name, required })
        };
        Ok(EventsNames {
            table: TableName::parse(&self.table)?,
            id: Identifier::parse(&self.columns.id)?,
            foreign_id: Identifier::parse(&self.columns.foreign_id)?,
            timestamp: Identifier::parse(&self.columns.timestamp)?,
            event_type: Identifier::parse(&self.columns.event_type)?,
            metadata: optional(&self.columns.metadata, "metadata")?,
            trace: optional(&self.columns.trace, "trace")?,
        })
    }
}

impl Default for EventsColumns {
    fn default() -> Self {
        Self {
            id: "id".into(),
            foreign_id: "foreign_id".into(),
            timestamp: "timestamp".into(),
            event_type: "type".into(),
            metadata: None,
            trace: None,
        }
    }
}

impl<S: Into<String>> From<S> for EventsTableOptions {
    fn from(table: S) -> Self {
        Self::new(table)
    }
}

/// The checked names of an events table.
#[derive(Clone, Debug)]
pub struct EventsNames {
    pub(crate) table: TableName,
    pub(crate) id: Identifier,
    pub(crate) foreign_id: Identifier,
    pub(crate) timestamp: Identifier,
    pub(crate) event_type: Identifier,
    pub(crate) metadata: OptionalColumn,
    pub(crate) trace: OptionalColumn,
}

#[derive(Clone, Debug)]
pub(crate) struct OptionalColumn {
    pub(crate) name: Identifier,
    /// The user named it, so it must exist.
    pub(crate) required: bool,
}

/// How a cursors table is named.
///
/// A plain name converts into options with all defaults.
#[derive(Clone, Debug)]
#[must_use]
pub struct CursorsTableOptions {
    pub(crate) table: String,
    pub(crate) id: String,
    pub(crate) cursor: String,
    pub(crate) updated_at: String,
    pub(crate) deadline: Duration,
    pub(crate) metrics: Option<Metrics>,
}

impl CursorsTableOptions {
    /// Options for a table, optionally with its schema. The name is checked when the table is opened.
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            id: "id".into(),
            cursor: "last_event_id".into(),
            updated_at: "updated_at".into(),
            deadline: EventsTableOptions::DEFAULT_DEADLINE,
            metrics: None,
        }
    }

    /// The column of the consumer's name. Default: `id`.
    pub fn id_column(mut self, name: impl Into<String>) -> Self {
        self.id = name.into();
        self
    }

    /// The column of the cursor, integer or text. Default: `last_event_id`.
    pub fn cursor_column(mut self, name: impl Into<String>) -> Self {
        self.cursor = name.into();
        self
    }

    /// The column of the time of the last write. Default: `updated_at`.
    pub fn updated_at_column(mut self, name: impl Into<String>) -> Self {
        self.updated_at = name.into();
        self
    }

    /// How long one operation may take. Default: 30 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Records metrics here. Default: [`Metrics::global`].
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    pub(crate) fn names(&self) -> Result<CursorsNames> {
        Ok(CursorsNames {
            table: TableName::parse(&self.table)?,
            id: Identifier::parse(&self.id)?,
            cursor: Identifier::parse(&self.cursor)?,
            updated_at: Identifier::parse(&self.updated_at)?,
        })
    }
}

impl<S: Into<String>> From<S> for CursorsTableOptions {
    fn from(table: S) -> Self {
        Self::new(table)
    }
}

/// The checked names of a cursors table.
#[derive(Clone, Debug)]
pub struct CursorsNames {
    pub(crate) table: TableName,
    pub(crate) id: Identifier,
    pub(crate) cursor: Identifier,
    pub(crate) updated_at: Identifier,
}
