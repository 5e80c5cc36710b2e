//! Attacks on the proof of Postgres: who holds ids of the table, and in what order they were drawn.

use futures_util::StreamExt;
use reflex_core::StreamOptions;
use reflex_sql::EventsTable;
use reflex_testing::eventually;
use sqlx::Postgres;
use tokio::task::JoinSet;

use crate::{
    bench::{Bench, PATIENCE, Reader, Session, cause, insert, options, with_causes},
    database::{Backend, Result, unique},
};

/// A table as other tools make it: its ids come from a sequence, or from the client.
const SERIAL: &str = "create table events (id bigserial primary key, foreign_id text not null,
    timestamp timestamptz not null default now(), type int not null, metadata bytea, trace bytea)";

async fn bench() -> Result<Bench<Postgres>> {
    Bench::new().await
}

async fn made_by(statements: &str) -> Result<Bench<Postgres>> {
    Bench::made_by(statements).await
}

/// Lets inserts of `sleeper` stand still after they drew their id, until the returned session unlocks the key.
async fn put_to_sleep(bench: &Bench<Postgres>) -> Result<(Session<Postgres>, i64)> {
    let mut lock = bench.session().await?;
    let key = lock.number("select ('x' || substr(md5(current_schema()), 1, 15))::bit(60)::bigint").await?;
    lock.run(&format!("select pg_advisory_lock({key})")).await?;
    bench
        .execute(&format!(
            "create function fall_asleep() returns trigger language plpgsql as $$ begin
                if new.foreign_id = 'sleeper' then perform pg_advisory_xact_lock({key}); end if;
                return new;
            end $$;
            create trigger sleep before insert on events for each row execute function fall_asleep()"
        ))
        .await?;
    Ok((lock, key))
}

/// Waits until a session stands still in front of the key.
async fn falls_asleep(lock: &mut Session<Postgres>, key: i64) -> Result<()> {
    let waiting = format!(
        "select count(*) from pg_locks where locktype = 'advisory' and not granted
            and (classid::bigint << 32) | objid::bigint = {key}"
    );
    while lock.number(&waiting).await? == 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_writer_asleep_after_drawing_its_id_is_waited_for() -> Result<()> {
    let bench = bench().await?;
    let (mut lock, key) = put_to_sleep(&bench).await?;
    let mut reader = bench.follow().await?;
    let pool = bench.namespace.pool.clone();
    let mut sleeper = JoinSet::new();
    sleeper.spawn(async move { Postgres::execute(&pool, &insert("sleeper")).await });
    falls_asleep(&mut lock, key).await?;
    bench.append(3).await?;
    reader.waits().await;
    bench.append(3).await?;
    reader.waits().await;
    lock.run(&format!("select pg_advisory_unlock({key})")).await?;
    sleeper.join_next().await.expect("there is a sleeper")??;
    assert_eq!(reader.ids(7).await, [1, 2, 3, 4, 5, 6, 7]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_writer_that_dies_in_its_sleep_is_passed_over() -> Result<()> {
    let bench = bench().await?;
    let (mut lock, key) = put_to_sleep(&bench).await?;
    let mut reader = bench.follow().await?;
    let mut session = bench.session().await?;
    let pid = session.number("select pg_backend_pid()::bigint").await?;
    let mut sleeper = JoinSet::new();
    sleeper.spawn(async move { session.run(&insert("sleeper")).await });
    falls_asleep(&mut lock, key).await?;
    bench.add("awake").await?;
    reader.waits().await;
    lock.run(&format!("select pg_terminate_backend({pid}::int)")).await?;
    assert!(sleeper.join_next().await.expect("there is a sleeper")?.is_err());
    assert_eq!(reader.ids(1).await, [2]);
    Ok(())
}

/// The session that inserted ends, and only the lock remains.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_prepared_transaction_is_waited_for() -> Result<()> {
    let bench = bench().await?;
    let mut reader = bench.follow().await?;
    for end in ["commit", "rollback"] {
        let gid = unique();
        let mut writer = bench.session().await?;
        writer.hold("prepared").await?;
        bench.add("after").await?;
        reader.waits().await;
        writer.run(&format!("prepare transaction '{gid}'")).await?;
        writer.disconnect();
        reader.waits().await;
        bench.execute(&format!("{end} prepared '{gid}'")).await?;
        if end == "commit" {
            assert_eq!(reader.names(1).await, ["prepared"]);
        }
        assert_eq!(reader.names(1).await, ["after"]);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn inserts_straight_into_a_partition_are_waited_for() -> Result<()> {
    let bench = made_by(
        "create sequence ids;
        create table events (id bigint default nextval('ids') not null, foreign_id text not null,
            timestamp timestamptz not null default now(), type int not null, primary key (id)) partition by range (id);
        create table low partition of events for values from (1) to (1000) partition by range (id);
        create table lowest partition of low for values from (1) to (500);
        create table high partition of events for values from (1000) to (1000000)",
    )
    .await?;
    follows_a_writer_to(&bench, "lowest").await
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn inserts_into_an_inheriting_table_are_waited_for() -> Result<()> {
    let bench = made_by(&format!("{SERIAL}; create table child () inherits (events)")).await?;
    follows_a_writer_to(&bench, "child").await
}

/// A partition that is made while the reader runs counts too.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn inserts_into_a_later_partition_are_waited_for() -> Result<()> {
    let bench = made_by(
        "create sequence ids;
        create table events (id bigint default nextval('ids') not null, foreign_id text not null,
            timestamp timestamptz not null default now(), type int not null, primary key (id)) partition by range (id);
        create table low partition of events for values from (1) to (3)",
    )
    .await?;
    let mut reader = bench.follow().await?;
    bench.append(2).await?;
    assert_eq!(reader.ids(2).await, [1, 2]);
    bench.execute("create table high partition of events for values from (3) to (1000)").await?;
    follows_a_writer_to(&bench, "high").await
}

/// A transaction that wrote to this part only holds back what was inserted through the whole.
async fn follows_a_writer_to(bench: &Bench<Postgres>, part: &str) -> Result<()> {
    let mut session = bench.session().await?;
    let before = session.number("select count(*) from events").await?;
    let mut reader = bench.read(StreamOptions::new().after(before)).await?;
    let mut writer = bench.session().await?;
    writer.run("begin").await?;
    writer.run(&format!("insert into {part} (foreign_id, type) values ('direct', 1)")).await?;
    bench.add("through the whole").await?;
    reader.waits().await;
    writer.run("commit").await?;
    assert_eq!(reader.names(2).await, ["direct", "through the whole"]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn an_id_chosen_by_the_client_is_refused_by_our_tables() -> Result<()> {
    let bench = bench().await?;
    let chosen = bench.execute("insert into events (id, foreign_id, type) values (1000, 'chosen', 1)").await;
    let message = with_causes(chosen.expect_err("the id is generated").as_error());
    assert!(message.contains("non-DEFAULT value"), "{message}");
    Ok(())
}

/// The ids between the sequence and the chosen one are not drawn yet, so nothing proves them dead.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn ids_that_the_sequence_has_yet_to_draw_are_waited_for() -> Result<()> {
    let bench = made_by(SERIAL).await?;
    let mut reader = bench.follow().await?;
    bench.add("drawn").await?;
    bench.execute("insert into events (id, foreign_id, type) values (6, 'chosen', 1)").await?;
    assert_eq!(reader.ids(1).await, [1]);
    reader.waits().await;
    for id in 2..=5 {
        bench.add("drawn").await?;
        assert_eq!(reader.ids(1).await, [id]);
    }
    assert_eq!(reader.names(1).await, ["chosen"]);
    Ok(())
}

/// The shared reader starts at the highest id there is, which is the chosen one.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn ids_below_a_chosen_one_reach_streams_that_open_later() -> Result<()> {
    let bench = made_by(SERIAL).await?;
    bench.add("drawn").await?;
    bench.execute("insert into events (id, foreign_id, type) values (5, 'chosen', 1)").await?;
    let mut head = bench.read(StreamOptions::new().from_head()).await?;
    let mut reader = bench.follow().await?;
    assert_eq!(reader.ids(1).await, [1]);
    reader.waits().await;
    let mut writer = bench.session().await?;
    writer.hold("slow").await?;
    bench.add("drawn").await?;
    reader.waits().await;
    writer.run("commit").await?;
    assert_eq!(reader.ids(2).await, [2, 3]);
    assert_eq!(head.ids(2).await, [2, 3]);
    bench.add("drawn").await?;
    assert_eq!(reader.ids(2).await, [4, 5]);
    assert_eq!(head.ids(2).await, [4, 5]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_sequence_that_hands_out_ids_out_of_order_is_refused() -> Result<()> {
    for (setting, remedy) in [
        ("cache 20", "alter sequence events_id_seq cache 1"),
        ("increment by 2", "increment by 1 no cycle"),
        ("increment by -1 minvalue -100", "increment by 1 no cycle"),
        ("cycle", "increment by 1 no cycle"),
    ] {
        let bench = bench().await?;
        bench.execute(&format!("alter sequence events_id_seq {setting}")).await?;
        let error = bench.reopen().await.expect_err(setting);
        assert!(error.is_unsafe() && error.to_string().contains(remedy), "{setting}: {error}");
    }
    Ok(())
}

/// What the message tells to do helps.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn the_remedy_for_a_sequence_works() -> Result<()> {
    let bench = bench().await?;
    bench.execute("alter sequence events_id_seq cache 20 increment by 3 cycle").await?;
    for _ in 0..2 {
        let message = bench.reopen().await.expect_err("the sequence is not fit").to_string();
        let remedy = message.split('`').find(|part| part.starts_with("alter sequence"));
        bench.execute(remedy.expect("the message has a statement")).await?;
    }
    bench.reopen().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_cache_that_is_set_under_a_running_reader_ends_the_stream() -> Result<()> {
    let bench = bench().await?;
    let mut reader = bench.follow().await?;
    bench.add("a").await?;
    assert_eq!(reader.ids(1).await, [1]);
    bench.execute("alter sequence events_id_seq cache 20").await?;
    let (mut hoarder, mut other) = (bench.session().await?, bench.session().await?);
    hoarder.run(&insert("hoarder")).await?;
    other.run(&insert("other")).await?;
    assert_eq!(reader.ids(1).await, [2]);
    let error = reader.fails().await;
    assert!(!error.is_expected());
    assert!(cause(&error).is_unsafe(), "{error:?}");
    assert!(with_causes(&error).contains("alter sequence events_id_seq cache 1"), "{}", with_causes(&error));
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_reader_that_is_killed_in_mid_proof_loses_nothing() -> Result<()> {
    let role = unique();
    let bench = bench().await?;
    let mut slow = bench.session().await?;
    slow.hold("slow").await?;
    bench.append(2).await?;
    let mut reader = of_role(&bench, &role).await?;
    let mut stream = Reader::open(&reader, StreamOptions::new(), bench.metrics.clone()).await?;
    stream.waits().await;
    let killed = slow_number(&bench, &format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '{role}' and application_name = 'reflex'"
    ))
    .await?;
    assert!(killed > 0);
    let error = stream.fails().await;
    assert!(!error.is_expected(), "{error:?}");
    assert!(stream.stream.next().await.is_none());
    stream = Reader::open(&reader, StreamOptions::new(), bench.metrics.clone()).await?;
    stream.waits().await;
    slow.run("commit").await?;
    assert_eq!(stream.ids(3).await, [1, 2, 3]);
    reader = bench.reopen().await?;
    assert_eq!(Reader::open(&reader, StreamOptions::new(), bench.metrics.clone()).await?.ids(3).await, [1, 2, 3]);
    Ok(())
}

async fn slow_number(bench: &Bench<Postgres>, sql: &str) -> Result<i64> {
    bench.session().await?.number(sql).await
}

/// The same table, opened by another user, who can be told apart on the server.
async fn of_role(bench: &Bench<Postgres>, role: &str) -> Result<EventsTable<Postgres>> {
    bench.execute(&format!("create role {role} login superuser")).await?;
    let connect = (*bench.namespace.pool.connect_options()).clone().username(role);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(2).connect_with(connect).await?;
    Ok(EventsTable::open(&pool, bench.options.clone()).await?)
}

/// A user who may read the events and not their sequence cannot know which ids were drawn.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_sequence_that_may_not_be_read_is_refused_where_clients_choose_ids() -> Result<()> {
    for (table, refused) in [(SERIAL, true), (&*ours()?, false)] {
        let role = unique();
        let bench = made_by(table).await?;
        let pool = reader_pool(&bench, &role).await?;
        match EventsTable::open(&pool, options()).await {
            Err(error) => {
                assert!(refused && error.is_unsafe() && error.to_string().contains("grant select"), "{error}")
            }
            Ok(_) => assert!(!refused, "it opened a table whose ids clients may choose"),
        }
    }
    Ok(())
}

fn ours() -> Result<String> {
    Ok(reflex_sql::ddl::events(reflex_sql::DialectName::Postgres, &options())?)
}

/// Connects as a user who may read the table, and nothing else.
async fn reader_pool(bench: &Bench<Postgres>, role: &str) -> Result<sqlx::PgPool> {
    let schema: String = sqlx::query_scalar("select current_schema()::text").fetch_one(&bench.namespace.pool).await?;
    bench
        .execute(&format!(
            "create role {role} login; grant usage on schema {schema} to {role}; grant select on events to {role}"
        ))
        .await?;
    let connect = (*bench.namespace.pool.connect_options()).clone().username(role);
    Ok(sqlx::postgres::PgPoolOptions::new().max_connections(2).connect_with(connect).await?)
}

/// Rows that a policy hides would be lost without a word.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn row_security_is_an_error_instead_of_hidden_rows() -> Result<()> {
    let (bench, role) = (bench().await?, unique());
    let pool = reader_pool(&bench, &role).await?;
    bench
        .execute(&format!(
            "create policy mine on events using (foreign_id = 'mine'); alter table events enable row level security;
             grant usage on sequence events_id_seq to {role}"
        ))
        .await?;
    bench.append(2).await?;
    let table = EventsTable::open(&pool, options()).await?;
    let error = match table.open_stream(StreamOptions::new()).await {
        Err(error) => error,
        Ok(_) => panic!("it opened a table with hidden rows"),
    };
    assert!(with_causes(&error).contains("row-level security"), "{}", with_causes(&error));
    Ok(())
}

/// An unprivileged user sees who holds ids: the proof does not depend on who asks.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_user_without_privileges_waits_as_well() -> Result<()> {
    let (bench, role) = (bench().await?, unique());
    let pool = reader_pool(&bench, &role).await?;
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
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_copy_and_a_stronger_lock_count_as_writers() -> Result<()> {
    let bench = bench().await?;
    let mut reader = bench.follow().await?;
    let mut copier = bench.namespace.pool.begin().await?;
    let mut copy = copier.copy_in_raw("copy events (foreign_id, type) from stdin").await?;
    copy.send(b"copied\t1\n".as_slice()).await?;
    copy.finish().await?;
    bench.add("after").await?;
    reader.waits().await;
    copier.commit().await?;
    assert_eq!(reader.names(2).await, ["copied", "after"]);
    let mut locker = bench.session().await?;
    locker.run("begin; lock table events in share update exclusive mode").await?;
    locker.run(&insert("locked")).await?;
    bench.add("after").await?;
    reader.waits().await;
    locker.run("commit").await?;
    assert_eq!(reader.names(2).await, ["locked", "after"]);
    Ok(())
}

/// Plans are kept, and this one is made while it were best to scan all of the table.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_table_that_grew_is_not_scanned_for_a_page() -> Result<()> {
    let bench = bench().await?;
    bench.execute("alter table events set (autovacuum_enabled = false)").await?;
    let mut reader = bench.follow().await?;
    bench.append(1).await?;
    bench.execute("analyze events").await?;
    bench.append(1).await?;
    assert_eq!(reader.ids(2).await, [1, 2]);
    bench.execute("insert into events (foreign_id, type) select 'more', 1 from generate_series(3, 20000)").await?;
    assert_eq!(reader.ids(19_998).await.last(), Some(&20_000));
    let before = statistic(&bench, "idx_scan").await?;
    // The server tells what a session did once a second; so many looks are the reader's alone.
    eventually("the reader's looks to be counted", PATIENCE, || async {
        statistic(&bench, "idx_scan").await.is_ok_and(|looks| looks > before + 50)
    })
    .await;
    assert_eq!(statistic(&bench, "seq_tup_read").await?, 0);
    Ok(())
}

/// What the server has counted for the table of this test.
async fn statistic(bench: &Bench<Postgres>, name: &str) -> Result<i64> {
    let statement = format!("select {name} from pg_stat_user_tables where relid = 'events'::regclass");
    bench.session().await?.number(&statement).await
}
