//! The check bites: a reader that knows nothing of gaps fails it.

use std::time::Duration;

use reflex_e2e::{
    Backend, Goals, Record, Workload, naive,
    readers::{Speed, follow},
    seed,
};
use reflex_sql::EventsTable;
use reflex_testing::Violation;
use sqlx::Pool;

use crate::support::{Namespace, PATIENCE, assert_committed, write};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_naive_reader_is_found_out_on_postgres() {
    let namespace = Namespace::postgres("naive").await;
    loses_events("naive_postgres", &namespace.pool).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_naive_reader_is_found_out_on_mariadb() {
    let namespace = Namespace::mariadb("naive").await;
    loses_events("naive_mariadb", &namespace.pool).await;
    namespace.remove().await;
}

async fn loses_events<D: Backend>(test: &str, pool: &Pool<D>) {
    let workload = Workload {
        seed: seed(test).unwrap(),
        writers: 1..17,
        duration: Duration::from_secs(3),
        rows_per_second: 6_000,
        slow_per_mille: 50,
        duplicates_allowed: false,
        survives: false,
    };
    let table = EventsTable::open(pool, "events").await.unwrap();
    let (goals, goal) = Goals::new();
    let reader = tokio::spawn(follow(naive(pool.clone()), Record::new(), Speed::Full, goal));

    let (_, told) = write(&workload, pool, &table).await;
    let committed = D::events(pool).await.unwrap();
    goals.set(committed.last().unwrap().0, PATIENCE);
    let record = reader.await.unwrap().unwrap();

    assert_committed(&told, &committed);
    let violations = record.history(&committed).unwrap_err();
    eprintln!("{test}: {violations}");
    assert!(violations.count(Violation::Lost) > 0, "{violations}");
    for not_its_fault in [Violation::Phantom, Violation::Duplicate, Violation::Disorder] {
        assert_eq!(violations.count(not_its_fault), 0, "{violations}");
    }
    assert!(record.check(&committed).is_err());
}
