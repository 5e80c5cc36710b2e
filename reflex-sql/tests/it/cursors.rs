//! Cursors that do not fit the table they are for.

use reflex_core::{Cursor, CursorStore, StreamOptions};
use reflex_sql::CursorsTable;

use crate::{
    bench::{Bench, cause, on, with_causes},
    database::{Backend, Result, with_tables},
};

on!(each:
    a_cursor_ahead_of_the_table_is_an_error,
    a_cursor_at_the_last_id_that_was_drawn_is_not_ahead,
    a_table_that_starts_anew_under_a_stream_is_an_error,
    a_cursor_that_is_no_integer_is_named,
    an_integer_column_takes_no_text,
    cursors_are_listed_set_by_force_and_deleted,
);

async fn a_cursor_ahead_of_the_table_is_an_error<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.append(3).await?;
    bench.read(StreamOptions::new().after(3)).await?;
    let Err(error) = bench.table.open_stream(StreamOptions::new().after(4)).await else {
        panic!("it opened at a cursor that is ahead");
    };
    assert!(cause(&error).is_cursor_ahead() && !error.is_expected(), "{error:?}");
    let message = with_causes(&error);
    for word in ["cursor 4", "`events`", "highest id so far is 3", "reflex cursors set --force"] {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
    Ok(())
}

/// The newest events were trimmed away.
async fn a_cursor_at_the_last_id_that_was_drawn_is_not_ahead<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.append(5).await?;
    bench.execute("delete from events where id > 2").await?;
    let mut reader = bench.read(StreamOptions::new().after(5)).await?;
    bench.add("new").await?;
    assert_eq!(reader.ids(1).await, [6]);
    bench.execute("delete from events").await?;
    let mut reader = bench.read(StreamOptions::new().after(6)).await?;
    reader.waits().await;
    bench.add("newer").await?;
    assert_eq!(reader.ids(1).await, [7]);
    Ok(())
}

async fn a_table_that_starts_anew_under_a_stream_is_an_error<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut reader = bench.follow().await?;
    bench.append(5).await?;
    reader.take(5).await;
    bench.execute(D::RESTART).await?;
    let error = reader.fails().await;
    assert!(cause(&error).is_cursor_ahead(), "{error:?}");
    Ok(())
}

async fn a_cursor_that_is_no_integer_is_named<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let Err(error) = bench.table.open_stream(StreamOptions::new().after("1-0")).await else {
        panic!("it opened at a cursor that is no integer");
    };
    assert!(error.is_invalid(), "{error:?}");
    let message = with_causes(&error);
    assert!(message.contains("`1-0`") && message.contains("`events`"), "{message}");
    let error = bench.table.backlog(Some(&Cursor::from("1-0"))).await.expect_err("it is no integer");
    assert!(error.to_string().contains("`1-0`"), "{error}");
    Ok(())
}

async fn an_integer_column_takes_no_text<D: Backend>() -> Result<()> {
    let namespace = with_tables::<D>().await?;
    let cursors = CursorsTable::open(&namespace.pool, "cursors").await?;
    let error = cursors.set("billing", &"1-0".into()).await.expect_err("it is no integer");
    assert!(error.is_invalid(), "{error:?}");
    let message = with_causes(&error);
    assert!(message.contains("`1-0`") && message.contains("`cursors`"), "{message}");
    assert_eq!(cursors.get("billing").await?, None);
    Ok(())
}

async fn cursors_are_listed_set_by_force_and_deleted<D: Backend>() -> Result<()> {
    let namespace = with_tables::<D>().await?;
    let cursors = CursorsTable::open(&namespace.pool, "cursors").await?;
    cursors.set("b", &7.into()).await?;
    cursors.set("a", &9.into()).await?;
    cursors.force_set("a", &3.into()).await?;
    cursors.force_set("c", &1.into()).await?;
    let listed = cursors.list().await?;
    let listed: Vec<_> = listed.iter().map(|row| (row.consumer.as_str(), row.cursor.as_i64())).collect();
    assert_eq!(listed, [("a", Some(3)), ("b", Some(7)), ("c", Some(1))]);
    assert!(cursors.list().await?.iter().all(|row| row.updated_at.is_some()));
    assert!(cursors.delete("a").await? && !cursors.delete("a").await?);
    assert_eq!(cursors.get("a").await?, None);
    Ok(())
}
