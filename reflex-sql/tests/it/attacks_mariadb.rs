//! Attacks on the proof of MariaDB, and on the modes without one.

use futures_util::future::join_all;
use reflex_core::{NewEvent, StreamOptions};
use reflex_sql::{EventsTable, EventsTableOptions, GapMode};
use reflex_testing::eventually;
use sqlx::{MySql, mysql::MySqlPoolOptions};
use tokio::task::JoinSet;

use crate::{
    bench::{Bench, PATIENCE, Reader, Session, options, with_causes},
    database::{Backend, Result, unique},
};

async fn bench() -> Result<Bench<MySql>> {
    Bench::with(options().gap_mode(GapMode::MetadataLocks)).await
}

async fn in_mode(mode: GapMode) -> Result<Bench<MySql>> {
    Bench::with(options().gap_mode(mode)).await
}

/// The server draws the ids of all rows before it runs the trigger of the second, which stands still.
const SLEEPER: &str = "insert into events (foreign_id, type) values ('first', 1), ('sleeper', 1)";

/// Lets [`SLEEPER`] stand still until the returned session unlocks the name.
async fn put_to_sleep(bench: &Bench<MySql>) -> Result<(Session<MySql>, String)> {
    let (mut lock, name) = (bench.session().await?, unique());
    lock.number(&format!("select get_lock('{name}', 0)")).await?;
    bench
        .execute(&format!(
            "create trigger sleep before insert on events for each row begin
                declare woken int;
                if new.foreign_id = 'sleeper' then set woken = get_lock('{name}', 60); end if;
            end"
        ))
        .await?;
    Ok((lock, name))
}

/// Inserts in a session of its own and waits until that stands still.
async fn fall_asleep(bench: &Bench<MySql>, lock: &mut Session<MySql>) -> Result<JoinSet<Result<()>>> {
    let mut session = bench.session().await?;
    let id = session.number("select cast(connection_id() as signed)").await?;
    let mut sleeper = JoinSet::new();
    sleeper.spawn(async move { session.run(SLEEPER).await });
    let asleep = format!("select count(*) from information_schema.processlist where id = {id} and state = 'User lock'");
    while lock.number(&asleep).await? == 0 {
        tokio::task::yield_now().await;
    }
    Ok(sleeper)
}

async fn wake_up(lock: &mut Session<MySql>, name: &str) -> Result<()> {
    lock.number(&format!("select release_lock('{name}')")).await.map(drop)
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_writer_asleep_after_drawing_its_id_is_waited_for() -> Result<()> {
    let bench = bench().await?;
    let (mut lock, name) = put_to_sleep(&bench).await?;
    let mut reader = bench.follow().await?;
    let mut sleeper = fall_asleep(&bench, &mut lock).await?;
    bench.append(2).await?;
    reader.waits().await;
    bench.append(2).await?;
    reader.waits().await;
    wake_up(&mut lock, &name).await?;
    sleeper.join_next().await.expect("there is a sleeper")??;
    assert_eq!(reader.ids(6).await, [1, 2, 3, 4, 5, 6]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_reader_that_is_killed_in_mid_proof_loses_nothing() -> Result<()> {
    let bench = bench().await?;
    let (pool, user) = user(&bench, "all privileges").await?;
    let table = EventsTable::open(&pool, bench.options.clone()).await?;
    let mut slow = bench.session().await?;
    slow.hold("slow").await?;
    bench.append(2).await?;
    let mut stream = Reader::open(&table, StreamOptions::new(), bench.metrics.clone()).await?;
    stream.waits().await;
    bench.execute(&format!("kill user {user}@'127.0.0.1'")).await?;
    let error = stream.fails().await;
    assert!(!error.is_expected(), "{error:?}");
    let mut stream = Reader::open(&table, StreamOptions::new(), bench.metrics.clone()).await?;
    stream.waits().await;
    slow.run("commit").await?;
    assert_eq!(stream.ids(3).await, [1, 2, 3]);
    Ok(())
}

/// Another user on the same tables, who can be told apart on the server.
async fn user(bench: &Bench<MySql>, privileges: &str) -> Result<(sqlx::MySqlPool, String)> {
    let database: String = sqlx::query_scalar("select database()").fetch_one(&bench.namespace.pool).await?;
    let user = format!("u{}", &unique()[10..]);
    bench
        .execute(&format!(
            "create user {user}@'127.0.0.1'; grant {privileges} on {database}.events to {user}@'127.0.0.1'"
        ))
        .await?;
    let connect = (*bench.namespace.pool.connect_options()).clone().username(&user).database(&database);
    Ok((MySqlPoolOptions::new().max_connections(2).connect_with(connect).await?, user))
}

/// The plugin shows the locks of all sessions to everybody, so the proof holds for any user.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_user_without_privileges_waits_as_well() -> Result<()> {
    let bench = bench().await?;
    let (pool, _user) = user(&bench, "select").await?;
    let table = EventsTable::open(&pool, bench.options.clone()).await?;
    let mut reader = Reader::open(&table, StreamOptions::new(), bench.metrics.clone()).await?;
    let mut slow = bench.session().await?;
    slow.hold("slow").await?;
    bench.append(2).await?;
    reader.waits().await;
    slow.run("commit").await?;
    assert_eq!(reader.ids(3).await, [1, 2, 3]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn placeholders_fill_dead_ids_and_are_not_delivered() -> Result<()> {
    let bench = in_mode(GapMode::Noop).await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    writer.hold("dead").await?;
    writer.run("rollback").await?;
    bench.add("a").await?;
    assert_eq!(reader.names(1).await, ["a"]);
    assert_eq!(bench.metrics.gaps_filled.get(), 1);
    let placeholders = "select count(*) from events where id = 1 and foreign_id = '0' and type = 0";
    assert_eq!(writer.number(placeholders).await?, 1);
    assert_eq!(bench.follow().await?.names(1).await, ["a"]);
    Ok(())
}

/// Columns that must have a value get one, and JSON stays JSON.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn placeholders_fit_any_table() -> Result<()> {
    for rest in [
        "",
        ", metadata json",
        ", metadata json not null, trace blob not null",
        ", metadata text not null, trace varbinary(99)",
    ] {
        let namespace = MySql::namespace().await?;
        let statement =
            "create table events (id bigint not null auto_increment primary key, foreign_id bigint not null,
            timestamp datetime not null, type int not null";
        MySql::execute(&namespace.pool, &format!("{statement}{rest})")).await?;
        let bench = Bench::open(namespace, options().gap_mode(GapMode::Noop)).await?;
        let mut writer = bench.session().await?;
        let insert = |table: EventsTable<MySql>, pool: sqlx::MySqlPool| async move {
            let event = NewEvent::new(7, 1);
            let event = if rest.is_empty() { event } else { event.metadata(b"{}") };
            <MySql as Backend>::insert(&pool, &table, vec![event]).await
        };
        insert(bench.table.clone(), bench.namespace.pool.clone()).await?;
        writer.run("update events set id = id + 1").await?;
        writer.run("alter table events auto_increment = 3").await?;
        insert(bench.table.clone(), bench.namespace.pool.clone()).await?;
        assert_eq!(bench.follow().await?.ids(2).await, [2, 3], "{rest}");
        assert_eq!(writer.number("select count(*) from events where foreign_id = 0 and type = 0").await?, 1);
    }
    Ok(())
}

/// The dirty read sees rows that are not committed, so that their ids are left to them.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn no_placeholder_takes_the_id_of_an_open_transaction() -> Result<()> {
    let bench = in_mode(GapMode::Noop).await?;
    let mut reader = bench.follow().await?;
    let mut slow = bench.session().await?;
    slow.hold("slow").await?;
    bench.add("quick").await?;
    reader.waits().await;
    slow.run("commit").await?;
    assert_eq!(reader.names(2).await, ["slow", "quick"]);
    assert_eq!(bench.metrics.gaps_filled.get(), 0);
    Ok(())
}

/// A writer that drew its id and has no row yet is taken for dead. It is told, and what it wanted to commit is not.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_late_owner_of_a_filled_id_gets_an_error_and_nothing_is_lost() -> Result<()> {
    let bench = in_mode(GapMode::Noop).await?;
    let (mut lock, name) = put_to_sleep(&bench).await?;
    let mut reader = bench.follow().await?;
    let mut sleeper = fall_asleep(&bench, &mut lock).await?;
    bench.add("quick").await?;
    let filled = || async { bench.metrics.gaps_filled.get() >= 1 };
    eventually("a placeholder", PATIENCE, filled).await;
    wake_up(&mut lock, &name).await?;
    let late = sleeper.join_next().await.expect("there is a sleeper")?;
    let message = with_causes(late.expect_err("its id is taken").as_error());
    assert!(message.contains("Duplicate entry"), "{message}");
    assert_eq!(reader.names(1).await, ["quick"]);
    bench.add("last").await?;
    assert_eq!(reader.names(1).await, ["last"]);
    Ok(())
}

/// Each stream waits at a gap of its own, which the shared reader does not see itself.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn many_gaps_behind_the_shared_reader_are_filled() -> Result<()> {
    let bench = in_mode(GapMode::Noop).await?;
    bench.append(40).await?;
    bench.execute("delete from events where id % 4 = 2").await?;
    let mut streams = Vec::new();
    for before in (0..40).step_by(4) {
        streams.push(bench.read(StreamOptions::new().after(before + 1)).await?);
    }
    let next = join_all(streams.iter_mut().map(|stream| stream.ids(1))).await.concat();
    assert_eq!(next, (3..40).step_by(4).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn placeholders_need_the_right_to_insert() -> Result<()> {
    let bench = in_mode(GapMode::Noop).await?;
    let (pool, _user) = user(&bench, "select").await?;
    let table = EventsTable::open(&pool, bench.options.clone()).await?;
    bench.append(3).await?;
    let mut reader = Reader::open(&table, StreamOptions::new().after(3), bench.metrics.clone()).await?;
    let mut writer = bench.session().await?;
    writer.hold("dead").await?;
    writer.run("rollback").await?;
    bench.add("a").await?;
    let message = with_causes(&reader.fails().await);
    assert!(message.contains("placeholder") && message.contains("rights"), "{message}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn wait_mode_waits_until_somebody_fills_the_gap() -> Result<()> {
    let bench = in_mode(GapMode::Wait).await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    writer.hold("dead").await?;
    writer.run("rollback").await?;
    bench.add("a").await?;
    reader.waits().await;
    assert_eq!(bench.metrics.blocking_gap.get(), 1);
    bench.execute("insert into events (id, foreign_id, type) values (1, '0', 0)").await?;
    assert_eq!(reader.names(1).await, ["a"]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn the_mode_in_use_is_a_metric() -> Result<()> {
    for (mode, label) in [
        (GapMode::Auto, "metadata_locks"),
        (GapMode::MetadataLocks, "metadata_locks"),
        (GapMode::Noop, "noop"),
        (GapMode::Wait, "wait"),
    ] {
        let bench = in_mode(mode).await?;
        assert_eq!(bench.metrics.gap_mode.with_label_values(&["events", label]).get(), 1, "{mode:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn inserts_into_a_named_partition_are_waited_for() -> Result<()> {
    let bench = Bench::<MySql>::made_by(
        "create table events (id bigint not null auto_increment primary key, foreign_id varchar(255) not null,
            timestamp datetime(6) not null default utc_timestamp(6), type int not null) engine=InnoDB
         partition by range (id) (partition low values less than (1000), partition high values less than maxvalue)",
    )
    .await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    writer.run("begin").await?;
    writer.run("insert into events partition (low) (foreign_id, type) values ('direct', 1)").await?;
    bench.add("through the whole").await?;
    reader.waits().await;
    writer.run("commit").await?;
    assert_eq!(reader.names(2).await, ["direct", "through the whole"]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn ids_chosen_by_the_client_leave_a_gap_that_later_ids_do_not_fill() -> Result<()> {
    let bench = bench().await?;
    let mut reader = bench.follow().await?;
    bench.add("drawn").await?;
    bench.execute("insert into events (id, foreign_id, type) values (100, 'chosen', 1)").await?;
    bench.add("drawn").await?;
    assert_eq!(reader.ids(3).await, [1, 100, 101]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn options_can_name_columns_and_a_database() -> Result<()> {
    let bench = bench().await?;
    let database: String = sqlx::query_scalar("select database()").fetch_one(&bench.namespace.pool).await?;
    bench.execute("alter table events rename column type to kind, rename column timestamp to at").await?;
    let options =
        EventsTableOptions::new(format!("{database}.events")).event_type_column("kind").timestamp_column("at");
    let table = EventsTable::open(&bench.namespace.pool, options).await?;
    <MySql as Backend>::insert(&bench.namespace.pool, &table, vec![NewEvent::new("a", 7)]).await?;
    let events = reflex_testing::collect(&table, StreamOptions::new()).await?;
    assert_eq!((events.len(), events[0].event_type().0), (1, 7));
    Ok(())
}
