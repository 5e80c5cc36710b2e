use std::fmt;

use chrono::{DateTime, Utc};
use reflex_core::{Cursor, DeadLetter, EventType};

use crate::dialect::errors::{ErrorRow, LetterRow};

/// How an error in an errors table stands; also the type of the error events.
///
/// luno/reflex writes [`Recorded`](ErrorStatus::Recorded) only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorStatus {
    /// The event was put aside, or recorded by luno/reflex: 1.
    Recorded,
    /// It was redriven with success: 2.
    Redriven,
    /// It was given up: 3.
    Discarded,
    /// Whatever another program means by it.
    Other(i32),
}

impl ErrorStatus {
    pub(super) fn number(self) -> i64 {
        EventType::from(self).0.into()
    }
}

impl From<i32> for ErrorStatus {
    fn from(status: i32) -> Self {
        match status {
            1 => Self::Recorded,
            2 => Self::Redriven,
            3 => Self::Discarded,
            other => Self::Other(other),
        }
    }
}

impl From<EventType> for ErrorStatus {
    fn from(event_type: EventType) -> Self {
        Self::from(event_type.0)
    }
}

impl From<ErrorStatus> for EventType {
    fn from(status: ErrorStatus) -> Self {
        EventType(match status {
            ErrorStatus::Recorded => 1,
            ErrorStatus::Redriven => 2,
            ErrorStatus::Discarded => 3,
            ErrorStatus::Other(status) => status,
        })
    }
}

/// One word: `recorded`, `redriven`, `discarded`, or the number.
impl fmt::Display for ErrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded => f.write_str("recorded"),
            Self::Redriven => f.write_str("redriven"),
            Self::Discarded => f.write_str("discarded"),
            Self::Other(status) => fmt::Display::fmt(status, f),
        }
    }
}

/// A row of an errors table: what is known of an event that was ever put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredError {
    /// The id of the row, which is the foreign id of the error events.
    pub id: i64,
    /// The consumer that could not handle the event.
    pub consumer: String,
    /// The id of the event.
    pub event_id: Cursor,
    /// Why.
    pub error: String,
    /// How it stands.
    pub status: ErrorStatus,
    /// When it was put aside first.
    pub created_at: DateTime<Utc>,
    /// When its status changed last.
    pub updated_at: DateTime<Utc>,
}

impl From<ErrorRow> for StoredError {
    fn from(row: ErrorRow) -> Self {
        Self {
            id: row.id,
            consumer: row.consumer,
            event_id: row.event_id.into(),
            error: row.error,
            status: i32::try_from(row.status).unwrap_or(i32::MAX).into(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// An open letter as it is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// The id of its row in the errors table, which is the foreign id of the error events.
    pub error_id: i64,
    /// When it was put aside.
    pub created_at: DateTime<Utc>,
    /// Why the last redrive failed.
    pub last_error: Option<String>,
    /// Whether a redrive is requested.
    pub requested: bool,
    /// Whether it is being redriven: somebody has claimed it, and the claim has not run out.
    pub claimed: bool,
}

impl From<&LetterRow> for StoredLetter {
    fn from(row: &LetterRow) -> Self {
        let mut letter = DeadLetter::new(row.consumer.as_str(), row.event(), row.error.as_str());
        letter.parked = row.parked;
        letter.redrives = u32::try_from(row.redrives).unwrap_or(u32::MAX);
        letter.claim = row.claim.unwrap_or(0);
        Self {
            letter,
            error_id: row.error_id,
            created_at: row.created_at,
            last_error: row.last_error.clone(),
            requested: row.requested,
            claimed: row.claimed.unwrap_or(false),
        }
    }
}
