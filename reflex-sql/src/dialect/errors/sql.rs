use reflex_core::{Cursor, Selection};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::Value;
use crate::{
    names::{Identifier, TableName},
    options::ErrorsNames,
};

/// The words in which the databases differ.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) quote: char,
    /// Parameters are `$1` instead of `?`.
    pub(super) numbered: bool,
    /// An insert may name what to do about a row that is there as `on conflict` instead of `on duplicate key`.
    pub(super) on_conflict: bool,
    /// What to cast to for a text and for an integer.
    pub(super) text: &'static str,
    pub(super) integer: &'static str,
    /// The time, by the clock of the database, at the start of the statement or later.
    pub(super) now: &'static str,
    /// The time so many microseconds later.
    pub(super) later: &'static str,
}

/// The SQL text for one errors table and those beside it.
///
/// Each parameter occurs once, in the order of the text.
#[derive(Debug)]
pub struct ErrorsSql {
    words: Words,
    pub(crate) table: TableName,
    letters: String,
    /// Consumer, increment. Lets one writer of a consumer in at a time.
    pub(crate) lock: SqlStr,
    /// Consumer.
    pub(crate) position: SqlStr,
    /// Consumer.
    pub(crate) count: SqlStr,
    pub(crate) counts: SqlStr,
    /// Consumer, event.
    pub(crate) find: SqlStr,
    /// Consumer, position, event, error, foreign id, type, timestamp, metadata, trace, message, parked.
    pub(crate) insert: SqlStr,
    /// Consumer.
    pub(crate) candidate: SqlStr,
    /// Claim, microseconds, consumer, position.
    pub(crate) take: SqlStr,
    /// Message, consumer, position.
    pub(crate) fail: SqlStr,
    /// Consumer, foreign id, position.
    pub(crate) withdraw: SqlStr,
    /// Consumer, position.
    pub(crate) remove: SqlStr,
    /// Consumer, foreign id, position.
    pub(crate) predecessor: SqlStr,
    /// Consumer, event.
    pub(crate) find_error: SqlStr,
    /// Consumer, event, message, status.
    pub(crate) insert_error: SqlStr,
    /// Message, status, id.
    pub(crate) reopen_error: SqlStr,
    /// The start of the statement; the ids follow.
    resolve_errors: String,
    /// Limit.
    pub(crate) errors: SqlStr,
    /// Consumer, limit.
    pub(crate) errors_of: SqlStr,
    /// Limit.
    pub(crate) list: SqlStr,
    /// Consumer.
    pub(crate) attempts: SqlStr,
    /// The events with an open letter, and their places. Consumer.
    pub(crate) open: SqlStr,
    /// Consumer, event, attempts.
    pub(crate) set_attempts: SqlStr,
    /// Consumer, event.
    pub(crate) forget_attempts: SqlStr,
}

/// Which letters of a consumer a statement is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    Event(&'a str),
    ForeignId(&'a str),
    Position(i64),
    UpTo(i64),
    Claimed(&'a str, i64),
    All,
}

impl Which<'_> {
    fn clause(&self) -> &'static str {
        match self {
            Self::Event(_) => " and event_id = ?",
            Self::ForeignId(_) => " and foreign_id = ?",
            Self::Position(_) => " and position = ?",
            Self::UpTo(_) => " and position <= ?",
            Self::Claimed(..) => " and event_id = ? and claim = ?",
            Self::All => "",
        }
    }
}

impl<'a> Which<'a> {
    /// The parameters of a statement about these letters of a consumer.
    pub(crate) fn values(&self, consumer: &'a str) -> Vec<Value<'a>> {
        let mut values = vec![Value::Text(consumer)];
        match *self {
            Self::Event(text) | Self::ForeignId(text) => values.push(Value::Text(text)),
            Self::Position(position) | Self::UpTo(position) => values.push(Value::Int(position)),
            Self::Claimed(event, claim) => values.extend([Value::Text(event), Value::Int(claim)]),
            Self::All => {}
        }
        values
    }
}

impl ErrorsSql {
    pub(super) fn build(words: Words, names: &ErrorsNames, message: &str) -> Self {
        let text = Text { words: &words, names };
        Self {
            letters: text.table(&names.letters),
            lock: text.lock(),
            position: text.sql("select last_position from {positions} where consumer = ?"),
            count: text.sql("select count(*) from {letters} where consumer = ?"),
            counts: text.sql("select consumer, count(*) from {letters} group by consumer"),
            find: text.sql("select position from {letters} where consumer = ? and event_id = ?"),
            insert: text.sql(INSERT),
            candidate: text.sql(CANDIDATE),
            take: text.sql("update {letters} set claim = ?, claimed_until = {later} where consumer = ? and position = ?"),
            fail: text.sql(
                "update {letters} set redrives = redrives + 1, claim = null, claimed_until = null, last_error = ?
                 where consumer = ? and position = ?",
            ),
            withdraw: text.sql(
                "update {letters} set requested = false where consumer = ? and foreign_id = ? and position >= ?",
            ),
            remove: text.sql("delete from {letters} where consumer = ? and position = ?"),
            predecessor: text.sql(
                "select event_id, position from {letters}
                 where consumer = ? and foreign_id = ? and position < ? and requested = false order by position limit 1",
            ),
            find_error: text.sql(
                "select {as_integer(id)}, {as_integer(status)} from {errors}
                 where {consumer} = ? and {event_id} = ? order by {id} limit 1",
            ),
            insert_error: text.sql(&format!(
                "insert into {{errors}} ({{consumer}}, {{event_id}}, {{error}}, {{created_at}}, {{updated_at}}, {{status}})
                 values (?, ?, {message}, {{now}}, {{now}}, ?)"
            )),
            reopen_error: text.sql(&format!(
                "update {{errors}} set {{error}} = {message}, {{updated_at}} = {{now}}, {{status}} = ? where {{id}} = ?"
            )),
            resolve_errors: text.fill("update {errors} set {updated_at} = {now}, {status} = ? where {id} in"),
            errors: text.sql(&format!("{ERRORS} order by {{id}} desc limit ?")),
            errors_of: text.sql(&format!("{ERRORS} where {{consumer}} = ? order by {{id}} desc limit ?")),
            list: text.sql(&format!("{LETTERS}, null, null from {{letters}} order by created_at, consumer, position limit ?")),
            open: text.sql("select event_id, position from {letters} where consumer = ?"),
            attempts: text.sql("select event_id, attempts from {attempts} where consumer = ?"),
            set_attempts: text.set_attempts(),
            forget_attempts: text.sql("delete from {attempts} where consumer = ? and event_id = ?"),
            table: names.table.clone(),
            words,
        }
    }

    /// The oldest letter of each of these foreign ids. Consumer, foreign ids.
    pub(crate) fn first_of(&self, foreign_ids: usize) -> SqlStr {
        self.words.finish(&format!(
            "select foreign_id, min(position) from {} where consumer = ? and foreign_id in {} group by foreign_id",
            self.letters,
            places(foreign_ids)
        ))
    }

    /// Status, ids.
    pub(crate) fn resolve_errors(&self, ids: usize) -> SqlStr {
        self.words.finish(&format!("{} {}", self.resolve_errors, places(ids)))
    }

    /// Letters with or without metadata and trace, oldest first.
    pub(crate) fn select(&self, which: &Which<'_>, whole: bool) -> SqlStr {
        let bytes = if whole { "metadata, trace" } else { "null, null" };
        let columns = LETTERS.replace("{now}", self.words.now);
        let (letters, clause) = (&self.letters, which.clause());
        let text = format!("{columns}, {bytes} from {letters} where consumer = ?{clause} order by position");
        self.words.finish(&text)
    }

    /// The oldest letters without metadata and trace. Consumer, limit.
    pub(crate) fn oldest(&self) -> SqlStr {
        let columns = LETTERS.replace("{now}", self.words.now);
        let text = format!("{columns}, null, null from {} where consumer = ? order by position limit ?", self.letters);
        self.words.finish(&text)
    }

    pub(crate) fn request(&self, which: &Which<'_>) -> SqlStr {
        let text = format!("update {} set requested = true where consumer = ?{}", self.letters, which.clause());
        self.words.finish(&text)
    }

    pub(crate) fn discard(&self, which: &Which<'_>) -> SqlStr {
        self.words.finish(&format!("delete from {} where consumer = ?{}", self.letters, which.clause()))
    }
}

const INSERT: &str = "insert into {letters} (consumer, position, event_id, error_id, foreign_id, event_type,
        event_timestamp, metadata, trace, error, parked, redrives, requested, created_at)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, false, {now})";

/// The oldest that is requested, not claimed, and not parked behind another one.
const CANDIDATE: &str = "select l.position from {letters} l
    where l.consumer = ? and l.requested = true and (l.claimed_until is null or l.claimed_until <= {now})
      and not (l.parked and exists (select 1 from {letters} b
          where b.consumer = l.consumer and b.foreign_id = l.foreign_id and b.position < l.position))
    order by l.position limit 1";

/// The start of a select of letters; metadata and trace follow.
const LETTERS: &str =
    "select consumer, position, event_id, error_id, foreign_id, event_type, event_timestamp, error, parked,
    redrives, last_error, requested, claim, claimed_until > {now}, created_at";

const ERRORS: &str =
    "select {as_integer(id)}, {consumer}, {as_text(event_id)}, {error}, {as_integer(status)}, {created_at},
    {updated_at} from {errors}";

/// Fills names and words into templates.
struct Text<'a> {
    words: &'a Words,
    names: &'a ErrorsNames,
}

impl Text<'_> {
    fn sql(&self, template: &str) -> SqlStr {
        self.words.finish(&self.fill(template))
    }

    fn fill(&self, template: &str) -> String {
        let names = self.names;
        let mut text = template.to_owned();
        for (name, table) in [
            ("{errors}", &names.table),
            ("{letters}", &names.letters),
            ("{positions}", &names.positions),
            ("{attempts}", &names.attempts),
        ] {
            text = text.replace(name, &self.table(table));
        }
        let column = |name: &Identifier| name.quoted(self.words.quote);
        for (name, column) in [
            ("{id}", column(&names.id)),
            ("{as_integer(id)}", self.cast(&names.id, self.words.integer)),
            ("{consumer}", column(&names.consumer)),
            ("{event_id}", column(&names.event_id)),
            ("{as_text(event_id)}", self.cast(&names.event_id, self.words.text)),
            ("{error}", column(&names.error)),
            ("{created_at}", column(&names.created_at)),
            ("{updated_at}", column(&names.updated_at)),
            ("{status}", column(&names.status)),
            ("{as_integer(status)}", self.cast(&names.status, self.words.integer)),
            ("{now}", self.words.now.to_owned()),
            ("{later}", self.words.later.to_owned()),
        ] {
            text = text.replace(name, &column);
        }
        text
    }

    /// The write comes first, so that it waits for the writer before it; what is read after it is what that one committed.
    fn lock(&self) -> SqlStr {
        self.sql(if self.words.on_conflict {
            "insert into {positions} as p (consumer, last_position) values (?, ?)
             on conflict (consumer) do update set last_position = p.last_position + excluded.last_position"
        } else {
            "insert into {positions} (consumer, last_position) values (?, ?)
             on duplicate key update last_position = last_position + values(last_position)"
        })
    }

    fn set_attempts(&self) -> SqlStr {
        let insert = "insert into {attempts} (consumer, event_id, attempts, updated_at) values (?, ?, ?, {now})";
        let update = if self.words.on_conflict {
            "on conflict (consumer, event_id) do update
                set attempts = excluded.attempts, updated_at = excluded.updated_at"
        } else {
            "on duplicate key update attempts = values(attempts), updated_at = values(updated_at)"
        };
        self.sql(&format!("{insert} {update}"))
    }

    fn table(&self, table: &TableName) -> String {
        table.quoted(self.words.quote)
    }

    fn cast(&self, column: &Identifier, data_type: &str) -> String {
        format!("cast({} as {data_type})", column.quoted(self.words.quote))
    }
}

impl Words {
    /// Numbers the parameters where the database wants that. No name and no literal contains a question mark.
    fn finish(&self, text: &str) -> SqlStr {
        if !self.numbered {
            return AssertSqlSafe(text.to_owned()).into_sql_str();
        }
        let mut parts = text.split('?');
        let mut numbered = parts.next().unwrap_or_default().to_owned();
        for (number, part) in (1..).zip(parts) {
            numbered.push_str(&format!("${number}{part}"));
        }
        AssertSqlSafe(numbered).into_sql_str()
    }
}

fn places(values: usize) -> String {
    format!("({})", vec!["?"; values].join(", "))
}

/// The letters that a selection means. The oldest ones are up to the position of the last of them.
pub(crate) fn which<'a>(selection: &'a Selection, event: &'a str, last: Option<i64>) -> Which<'a> {
    match selection {
        Selection::Event(_) => Which::Event(event),
        Selection::ForeignId(foreign_id) => Which::ForeignId(foreign_id),
        Selection::Oldest(_) => Which::UpTo(last.unwrap_or(0)),
        _ => Which::All,
    }
}

/// The event that a selection names, as it is stored.
pub(crate) fn event_of(selection: &Selection) -> String {
    match selection {
        Selection::Event(id) => Cursor::to_string(id),
        _ => String::new(),
    }
}
