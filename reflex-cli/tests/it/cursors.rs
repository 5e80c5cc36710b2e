//! `reflex cursors` and `reflex lag`.

use serde_json::json;

use crate::reflex::{TestDatabase, fail, objects, succeed};

#[test]
fn a_cursor_is_set_moved_and_deleted() {
    let database = TestDatabase::new();
    let cursors = |arguments: &[&str]| succeed(database.reflex(&["cursors"]).args(arguments));
    let refused = |arguments: &[&str]| fail(database.reflex(&["cursors"]).args(arguments), 1);
    assert_eq!(cursors(&["list", "--json"]), "");
    assert!(refused(&["get", "billing"]).contains("consumer `billing` has no cursor"));
    assert_eq!(cursors(&["set", "billing", "7", "--json"]), "{\"consumer\":\"billing\",\"cursor\":\"7\"}\n");
    assert_eq!(cursors(&["get", "billing"]), "7\n");
    cursors(&["set", "billing", "7"]);
    cursors(&["set", "a b", "3"]);

    let message = refused(&["set", "billing", "6"]);
    assert!(message.contains("--force") && message.contains("stored cursor 7"), "{message}");
    let wrong = |arguments: &[&str]| fail(database.reflex(&["cursors", "set", "billing"]).args(arguments), 2);
    let message = wrong(&["1526919030474-55"]);
    assert!(message.contains("cursor `1526919030474-55` is not an integer"), "{message}");
    let message = wrong(&["x", "--force"]);
    assert!(message.contains("cursor `x` is not an integer"), "{message}");
    assert_eq!(cursors(&["get", "billing"]), "7\n");

    cursors(&["set", "billing", "-1", "--force"]);
    let list = objects(&cursors(&["list", "--json"]));
    assert_eq!((&list[0]["consumer"], &list[0]["cursor"]), (&json!("a b"), &json!("3")));
    assert_eq!((&list[1]["consumer"], &list[1]["cursor"]), (&json!("billing"), &json!("-1")));
    assert!(list[0]["updated_at"].as_str().unwrap().ends_with('Z'));
    assert!(cursors(&["list"]).contains("billing"));

    assert_eq!(cursors(&["delete", "billing", "--json"]), "{\"consumer\":\"billing\",\"deleted\":true}\n");
    assert!(refused(&["delete", "billing"]).contains("has no cursor"));
}

#[test]
fn lag_is_counted_in_events_and_seconds() {
    let database = TestDatabase::new();
    let old = ["insert", "--type=1", "--foreign-id=a", "--timestamp=2020-01-01T00:00:00Z"];
    for _ in 0..3 {
        succeed(&mut database.reflex(&old));
    }
    for (consumer, cursor) in [("done", "3"), ("late", "1")] {
        succeed(&mut database.reflex(&["cursors", "set", consumer, cursor]));
    }
    let mut lag = objects(&succeed(&mut database.reflex(&["lag", "--json"])));
    let done = json!({
        "cursor": "3", "head": "3", "events_behind": 0, "seconds_behind": 0.0, "ahead": false, "state": "at_head",
        "blocked_by": [], "problem": null,
    });
    assert_eq!(lag[0].as_object_mut().unwrap().remove("consumer"), Some(json!("done")));
    assert_eq!(lag[0], done);
    assert_eq!((&lag[1]["cursor"], &lag[1]["events_behind"]), (&json!("1"), &json!(2)));
    assert_eq!(lag[1]["state"], "behind");
    assert!(lag[1]["seconds_behind"].as_f64().unwrap() > 1e8);
    let table = succeed(&mut database.reflex(&["lag", "--max-events", "2"]));
    assert!(table.contains("done") && table.contains("late"), "{table}");

    let message = fail(&mut database.reflex(&["lag", "--max-events", "1"]), 3);
    assert!(
        message.contains("consumer `late` is 2 events behind, 1 allowed") && !message.contains("done"),
        "{message}"
    );
    let message = fail(&mut database.reflex(&["lag", "--max-seconds", "0.5", "--json"]), 3);
    assert!(message.contains("consumer `late` is ") && message.contains("0.5 s allowed"), "{message}");
    succeed(&mut database.reflex(&["lag", "done", "--max-events=0", "--max-seconds=0"]));
    let message = fail(&mut database.reflex(&["lag", "nobody"]), 1);
    assert!(message.contains("consumer `nobody` has no cursor"), "{message}");
    fail(&mut database.reflex(&["lag", "--max-seconds", "-1"]), 2);
}

#[test]
fn a_cursor_ahead_of_the_table_is_not_taken_for_one_at_its_head() {
    let database = TestDatabase::new();
    database.insert("a");
    for (consumer, cursor) in [("done", "1"), ("lost", "9")] {
        succeed(&mut database.reflex(&["cursors", "set", consumer, cursor]));
    }
    let lag = objects(&succeed(&mut database.reflex(&["lag", "--json"])));
    assert_eq!((&lag[0]["ahead"], &lag[0]["events_behind"]), (&json!(false), &json!(0)));
    assert_eq!((&lag[1]["ahead"], &lag[1]["events_behind"]), (&json!(true), &json!(null)));
    assert_eq!(lag[1]["state"], "ahead");
    assert!(succeed(&mut database.reflex(&["lag"])).contains("ahead of the table"));
    for limit in ["--max-events=100", "--max-seconds=100"] {
        let message = fail(&mut database.reflex(&["lag", limit]), 3);
        assert!(message.contains("consumer `lost` is ahead of the table") && !message.contains("done"), "{message}");
    }
    let message = fail(&mut database.reflex(&["tail", "--after", "9"]), 1);
    assert!(message.contains("--after 9 is ahead of the table, whose highest id so far is 1"), "{message}");
    assert!(!message.contains("cursors set"), "{message}");
}

#[tokio::test]
async fn a_consumer_at_an_unreadable_event_is_marked_and_the_others_are_measured() {
    let database = TestDatabase::new();
    database.insert("a");
    let pool = sqlx::SqlitePool::connect(&database.url).await.unwrap();
    let sql = "insert into events (foreign_id, type, timestamp) values ('a', 1, 'noon')";
    sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    for (consumer, cursor) in [("done", "2"), ("stuck", "1")] {
        succeed(&mut database.reflex(&["cursors", "set", consumer, cursor]));
    }
    let lag = objects(&succeed(&mut database.reflex(&["lag", "--json"])));
    assert_eq!((&lag[0]["state"], &lag[0]["problem"]), (&json!("at_head"), &json!(null)));
    assert_eq!((&lag[1]["state"], &lag[1]["events_behind"]), (&json!("unreadable"), &json!(null)));
    assert!(lag[1]["problem"].as_str().unwrap().contains("oldest event after 1"), "{}", lag[1]);
    assert!(succeed(&mut database.reflex(&["lag"])).contains("unreadable: the timestamp of the oldest event"));
    let message = fail(&mut database.reflex(&["lag", "--max-events=100"]), 3);
    assert!(
        message.contains("consumer `stuck` is at an event that cannot be read") && !message.contains("done"),
        "{message}"
    );
}
