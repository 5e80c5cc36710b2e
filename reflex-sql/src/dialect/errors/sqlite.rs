use chrono::SecondsFormat;
use sqlx::{Connection, Row, SqlStr, Sqlite, SqliteConnection, Transaction, query::Query, sqlite::SqliteArguments};

use super::{
    super::sqlite::{NOW, columns},
    ErrorRow, ErrorsOperations, ErrorsSql, LetterRow, Value, Words, errors_operations, require_own_tables,
};
use crate::{Result, options::ErrorsNames};

const WORDS: Words = Words {
    quote: '"',
    numbered: false,
    on_conflict: true,
    text: "text",
    integer: "integer",
    now: NOW,
    later: "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (? / 1000000.0) || ' seconds')",
};

impl ErrorsOperations for Sqlite {
    const MAX_KEY: usize = 1_000;

    errors_operations!(Sqlite, SqliteConnection);

    async fn inspect_errors(conn: &mut SqliteConnection, names: &ErrorsNames) -> Result<ErrorsSql> {
        let errors = columns(conn, &names.table, "consumer errors").await?;
        errors.require(names.id.as_str(), &["integer"])?;
        for name in [&names.consumer, &names.event_id, &names.error, &names.created_at, &names.updated_at] {
            errors.require(name.as_str(), &[])?;
        }
        errors.require(names.status.as_str(), &[])?;
        require_own_tables!(conn, names, columns);
        Ok(ErrorsSql::build(WORDS, names, "?"))
    }

    /// A transaction that reads first and writes later fails when somebody else wrote in between.
    async fn begin_write<'c>(conn: &'c mut SqliteConnection) -> Result<Transaction<'c, Sqlite>, sqlx::Error> {
        conn.begin_with("begin immediate").await
    }
}

fn bind(sql: SqlStr, values: &[Value<'_>]) -> Query<'static, Sqlite, SqliteArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Int(number) => query.bind(number),
        Value::Text(text) => query.bind(text.to_owned()),
        Value::Bytes(bytes) => query.bind((!bytes.is_empty()).then(|| bytes.to_vec())),
        Value::Time(time) => query.bind(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        Value::Flag(flag) => query.bind(flag),
    })
}
