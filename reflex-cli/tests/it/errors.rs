//! `reflex errors`.

use reflex_core::{DeadLetterStore, HandlerError, MemoryEvents, NewEvent};
use reflex_sql::ErrorsTable;
use serde_json::json;
use sqlx::SqlitePool;

use crate::reflex::{TestDatabase, fail, objects, succeed};

/// Three events are put aside for `billing`: the first and its successor of order-1, and one of order-2.
async fn put_aside(database: &TestDatabase) -> ErrorsTable<sqlx::Sqlite> {
    let pool = SqlitePool::connect(&database.url).await.unwrap();
    let errors = ErrorsTable::open(&pool, "consumer_errors").await.unwrap();
    let events = MemoryEvents::new();
    let event = |order: &str| events.append(NewEvent::new(order, 7).metadata(*b"{\"amount\":3}"));
    let (first, second, other) = (event("order-1"), event("order-1"), event("order-2"));
    errors.put("billing", &first, &HandlerError::new("no such card\u{1b}[31m")).await.unwrap();
    assert_eq!(errors.park_behind("billing", &[second]).await.unwrap(), [true]);
    errors.put("billing", &other, &HandlerError::new("no money")).await.unwrap();
    errors
}

#[tokio::test]
async fn what_is_put_aside_is_listed_and_shown() {
    let database = TestDatabase::new();
    let errors = |arguments: &[&str]| succeed(database.reflex(&["errors"]).args(arguments));
    assert_eq!(errors(&["list", "--json"]), "");
    put_aside(&database).await;

    let list = objects(&errors(&["list", "--json"]));
    let ids: Vec<_> = list.iter().map(|line| (&line["event_id"], &line["foreign_id"], &line["parked"])).collect();
    let (one, two, three) = (json!("1"), json!("2"), json!("3"));
    let (first, second) = (json!("order-1"), json!("order-2"));
    assert_eq!(ids, [(&one, &first, &json!(false)), (&two, &first, &json!(true)), (&three, &second, &json!(false))]);
    assert_eq!(list[2]["error"], "no money");
    assert_eq!(errors(&["list", "shipping", "--json"]), "");
    assert_eq!(objects(&errors(&["list", "billing", "--json", "--limit", "1"])).len(), 1);
    let table = errors(&["list"]);
    assert!(table.contains("waits behind another") && table.contains("no such card\\u{1b}[31m"), "{table}");

    let shown = &objects(&errors(&["show", "billing", "1", "--json"]))[0];
    assert_eq!((&shown["event"]["metadata"], &shown["type"]), (&json!({ "amount": 3 }), &json!(7)));
    let shown = errors(&["show", "billing", "3"]);
    assert!(shown.contains("no money") && shown.contains("{\"amount\":3}"), "{shown}");
    let message = fail(&mut database.reflex(&["errors", "show", "billing", "9"]), 1);
    assert!(message.contains("event 9 is not put aside for consumer `billing`"), "{message}");
}

#[tokio::test]
async fn a_redrive_is_requested_in_order() {
    let database = TestDatabase::new();
    let store = put_aside(&database).await;
    let redrive = |arguments: &[&str]| succeed(database.reflex(&["errors", "redrive", "billing"]).args(arguments));
    let refused =
        |arguments: &[&str], code| fail(database.reflex(&["errors", "redrive", "billing"]).args(arguments), code);

    assert_eq!(objects(&redrive(&["--oldest", "2", "--dry-run", "--json"])).len(), 2);
    assert!(
        redrive(&["--all", "--dry-run"])
            .ends_with("3 events would be redriven by the consumer, with its own code, while it runs\n")
    );
    assert!(store.claim("billing").await.unwrap().is_none());

    let message = refused(&["--event", "2"], 1);
    assert!(message.contains("event 1") && message.contains("order-1"), "{message}");
    assert!(refused(&["--event", "9"], 1).contains("no such event is put aside for consumer `billing`"));
    assert!(refused(&[], 2).contains("--event <ID>"));
    assert!(refused(&["--all", "--event", "1"], 2).contains("cannot be used with"));
    assert!(refused(&["--oldest", "0"], 2).contains("--oldest"));

    assert_eq!(objects(&redrive(&["--foreign-id", "order-1", "--json"])).len(), 2);
    for id in [1, 2] {
        let letter = store.claim("billing").await.unwrap().unwrap();
        assert_eq!(letter.event.id(), &id.into());
        store.settle(&letter, Ok(())).await.unwrap();
    }
    assert!(store.claim("billing").await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_discarded_is_history() {
    let database = TestDatabase::new();
    let store = put_aside(&database).await;
    let discard = |arguments: &[&str]| succeed(database.reflex(&["errors", "discard", "billing"]).args(arguments));

    discard(&["--event", "3", "--dry-run"]);
    assert_eq!(store.list(Some("billing"), 10).await.unwrap().len(), 3);
    assert!(discard(&["--event", "3"]).contains("1 event will be left out for good"));
    assert_eq!(objects(&discard(&["--all", "--json"])).len(), 2);
    assert!(fail(&mut database.reflex(&["errors", "discard", "billing", "--all"]), 1).contains("no such event"));

    let history = objects(&succeed(&mut database.reflex(&["errors", "list", "--history", "--json"])));
    let statuses: Vec<_> = history.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["discarded"; 3]);
    assert!(succeed(&mut database.reflex(&["errors", "list", "--history"])).contains("no money"));
}

#[test]
fn a_missing_table_is_told_with_the_remedy() {
    let database = TestDatabase::new();
    let message = fail(&mut database.reflex(&["errors", "list", "--table", "no_such"]), 1);
    assert!(message.contains("no_such"), "{message}");
}
