use sqlx::{
    Connection, Executor, MySql, MySqlConnection, Row, SqlStr, Transaction, mysql::MySqlArguments, query::Query,
};

use super::{
    super::mysql::{CHARS, INTEGERS, TIMES, columns},
    ErrorRow, ErrorsOperations, ErrorsSql, LetterRow, Value, Words, errors_operations, require_own_tables,
};
use crate::{Result, error::Problem, options::ErrorsNames};

const WORDS: Words = Words {
    quote: '`',
    numbered: false,
    on_conflict: false,
    text: "char",
    integer: "signed",
    now: "utc_timestamp(6)",
    later: "date_add(utc_timestamp(6), interval ? microsecond)",
};

impl ErrorsOperations for MySql {
    const MAX_KEY: usize = 255;

    errors_operations!(MySql, MySqlConnection);

    async fn inspect_errors(conn: &mut MySqlConnection, names: &ErrorsNames) -> Result<ErrorsSql> {
        let errors = columns(conn, &names.table, "consumer errors").await?;
        errors.require(names.id.as_str(), INTEGERS)?;
        errors.require(names.consumer.as_str(), CHARS)?;
        errors.require(names.event_id.as_str(), &[CHARS, INTEGERS].concat())?;
        errors.require(names.error.as_str(), CHARS)?;
        for name in [&names.created_at, &names.updated_at] {
            errors.require(name.as_str(), TIMES)?;
        }
        errors.require(names.status.as_str(), INTEGERS)?;
        require_own_tables!(conn, names, columns);
        let message = format!("left(?, {})", longest_message(conn, names).await?);
        Ok(ErrorsSql::build(WORDS, names, &message))
    }

    /// Read committed locks no gaps, in which the first letters of two consumers would wait for each other.
    async fn begin_write<'c>(conn: &'c mut MySqlConnection) -> Result<Transaction<'c, MySql>, sqlx::Error> {
        conn.execute("set transaction isolation level read committed").await?;
        conn.begin().await
    }
}

/// How many characters fit into the column of the message, whatever they are.
async fn longest_message(conn: &mut MySqlConnection, names: &ErrorsNames) -> Result<i64> {
    let statement = "select cast(if(data_type in ('char', 'varchar'), character_maximum_length,
            character_octet_length div 4) as signed) from information_schema.columns
        where table_schema = coalesce(?, database()) and table_name = ? and column_name = ?";
    let length = sqlx::query_scalar(statement)
        .bind(names.table.schema())
        .bind(names.table.table())
        .bind(names.error.as_str())
        .fetch_one(conn);
    length.await.map_err(Problem::database(format!("look up the columns of table `{}`", names.table)))
}

fn bind(sql: SqlStr, values: &[Value<'_>]) -> Query<'static, MySql, MySqlArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Int(number) => query.bind(number),
        Value::Text(text) => query.bind(text.to_owned()),
        Value::Bytes(bytes) => query.bind((!bytes.is_empty()).then(|| bytes.to_vec())),
        Value::Time(time) => query.bind(time.naive_utc()),
        Value::Flag(flag) => query.bind(flag),
    })
}
