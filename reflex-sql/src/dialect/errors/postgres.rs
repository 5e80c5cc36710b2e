use sqlx::{Connection, PgConnection, Postgres, Row, SqlStr, Transaction, postgres::PgArguments, query::Query};

use super::{
    super::postgres::{INTEGERS, columns},
    ErrorRow, ErrorsOperations, ErrorsSql, LetterRow, Value, Words, errors_operations, require_own_tables,
};
use crate::{Result, options::ErrorsNames};

const WORDS: Words = Words {
    quote: '"',
    numbered: true,
    on_conflict: true,
    text: "text",
    integer: "bigint",
    now: "clock_timestamp()",
    later: "clock_timestamp() + ?::bigint * interval '1 microsecond'",
};

impl ErrorsOperations for Postgres {
    const MAX_KEY: usize = 1_000;

    errors_operations!(Postgres, PgConnection);

    async fn inspect_errors(conn: &mut PgConnection, names: &ErrorsNames) -> Result<ErrorsSql> {
        let errors = columns(conn, &names.table, "consumer errors").await?;
        errors.require(names.id.as_str(), &["int4", "int8"])?;
        for name in [&names.consumer, &names.event_id, &names.error] {
            errors.require(name.as_str(), &["text", "varchar"])?;
        }
        for name in [&names.created_at, &names.updated_at] {
            errors.require(name.as_str(), &["timestamptz"])?;
        }
        errors.require(names.status.as_str(), INTEGERS)?;
        require_own_tables!(conn, names, columns);
        Ok(ErrorsSql::build(WORDS, names, "?"))
    }

    async fn begin_write<'c>(conn: &'c mut PgConnection) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
        conn.begin_with("begin isolation level read committed").await
    }
}

fn bind(sql: SqlStr, values: &[Value<'_>]) -> Query<'static, Postgres, PgArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Int(number) => query.bind(number),
        Value::Text(text) => query.bind(text.to_owned()),
        Value::Bytes(bytes) => query.bind((!bytes.is_empty()).then(|| bytes.to_vec())),
        Value::Time(time) => query.bind(time),
        Value::Flag(flag) => query.bind(flag),
    })
}
