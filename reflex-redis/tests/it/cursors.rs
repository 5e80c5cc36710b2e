//! What the cursor store does beyond its contract.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use reflex_core::{Cursor, CursorStore, check_forward};
use reflex_redis::{RedisCursors, RedisCursorsOptions};

use crate::redis_server::{assert_tells, chain, connect, ours, send, shared, unique};

fn store(prefix: &str) -> RedisCursors {
    RedisCursors::new(&shared(), prefix).unwrap()
}

fn ordered(prefix: &str) -> RedisCursors {
    RedisCursors::new(&shared(), RedisCursorsOptions::new(prefix).ordered_entry_ids()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_hundred_writers_at_once_end_at_the_maximum() {
    for ordered_ids in [false, true] {
        let prefix = unique();
        let mut ids: Vec<u64> = (1..=100).collect();
        ids.shuffle(&mut rng("REFLEX_TEST_SEED"));
        let cursor = |id: u64| if ordered_ids { format!("9-{id}").into() } else { Cursor::from(id as i64) };
        let writes = ids.iter().map(|id| {
            let store = if ordered_ids { ordered(&prefix) } else { store(&prefix) };
            let cursor = cursor(*id);
            tokio::spawn(async move { store.set("billing", &cursor).await })
        });
        for (write, id) in join_all(writes).await.into_iter().zip(&ids) {
            match write.unwrap() {
                Ok(()) => {}
                Err(error) if *id < 100 => assert!(error.is_cursor_backwards(), "{}", chain(&error)),
                Err(error) => panic!("the highest cursor was refused: {}", chain(&error)),
            }
        }
        assert_eq!(store(&prefix).get("billing").await.unwrap(), Some(cursor(100)));
    }
}

/// The script in Redis and the rule of the core are two texts of one decision.
#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn redis_decides_as_the_core_does() {
    let prefix = unique();
    let store = store(&prefix);
    let mut rng = rng("REFLEX_TEST_SEED");
    for round in 0..2_000 {
        let (stored, new) = (some_cursor(&mut rng), some_cursor(&mut rng));
        store.force_set("billing", &stored).await.unwrap();
        let expected = check_forward("billing", &stored, &new);
        let found = store.set("billing", &new).await;
        let told = |result: &reflex_core::Result<()>| result.as_ref().map_err(chain_of).copied();
        assert_eq!(told(&found), told(&expected), "round {round}: {new} over {stored}");
        let left = if expected.is_ok() { new } else { stored };
        assert_eq!(store.get("billing").await.unwrap(), Some(left));
    }
}

fn chain_of(error: &reflex_core::Error) -> String {
    chain(error)
}

/// Integers that differ in sign, in length or in the last digit, and text that is nearly one.
fn some_cursor(rng: &mut StdRng) -> Cursor {
    let edges = [0, 1, -1, 9, 10, i64::MAX, i64::MIN, (1 << 53) + 1, -(1 << 53) - 1];
    match rng.random_range(0..10) {
        0..4 => edges[rng.random_range(0..edges.len())].saturating_add(rng.random_range(-2..=2)).into(),
        4..6 => (rng.random::<i64>() >> rng.random_range(0..63)).into(),
        6 => rng.random_range(-20..20).into(),
        7 => "9223372036854775808".into(),
        8 => ["007", "-0", "-9223372036854775809", "+1", "1.5"][rng.random_range(0..5)].into(),
        _ => ["1526919030474-55", "1-1", "logs/2026|7", "日付", "a b"][rng.random_range(0..5)].into(),
    }
}

fn rng(variable: &str) -> StdRng {
    let seed = std::env::var(variable).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("{variable}={seed}");
    StdRng::seed_from_u64(seed)
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn entry_ids_move_forward_only_if_asked_to() {
    let prefix = unique();
    let (plain, ordered) = (store(&prefix), ordered(&prefix));
    ordered.set("billing", &"1526919030474-55".into()).await.unwrap();
    for id in ["1526919030474-6", "999999999999-99", "0-1"] {
        let error = ordered.set("billing", &id.into()).await.unwrap_err();
        assert!(error.is_cursor_backwards(), "{}", chain(&error));
        assert_tells(&error.to_string(), &["billing", id, "1526919030474-55"]);
    }
    let error = ordered.set("billing", &"1526919030474-55".into()).await.unwrap_err();
    assert!(error.is_cursor_unchanged(), "{}", chain(&error));
    for id in ["1526919030474-100", "15269190304740-0", "18446744073709551615-18446744073709551615", "7", "1-1"] {
        ordered.set("billing", &id.into()).await.unwrap();
    }
    plain.set("billing", &"0-9".into()).await.unwrap();
    assert_eq!(plain.get("billing").await.unwrap(), Some("0-9".into()));
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn cursors_are_listed_deleted_and_forced() {
    let prefix = format!("{}a*[b]?\\{{c}}:", unique());
    let (store, neighbour) = (store(&prefix), store(&prefix.replace('*', "x")));
    neighbour.set("other", &1.into()).await.unwrap();
    assert_eq!(store.list().await.unwrap(), []);
    let mut expected = BTreeMap::new();
    for id in 0..1_200 {
        let (name, cursor) = (format!("consumer *{id}"), if id % 2 == 0 { Cursor::from(id) } else { "a-b".into() });
        store.set(&name, &cursor).await.unwrap();
        expected.insert(name, cursor);
    }
    let listed = store.list().await.unwrap().into_iter().map(|stored| (stored.consumer, stored.cursor));
    assert!(listed.eq(expected), "the list is wrong");

    store.force_set("consumer *1198", &3.into()).await.unwrap();
    assert_eq!(store.get("consumer *1198").await.unwrap(), Some(3.into()));
    assert!(store.delete("consumer *1198").await.unwrap());
    assert!(!store.delete("consumer *1198").await.unwrap());
    assert_eq!(store.get("consumer *1198").await.unwrap(), None);
    assert_eq!(store.list().await.unwrap().len(), 1_199);
    assert_eq!(neighbour.list().await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_value_that_is_no_cursor_is_told_and_left_alone() {
    let prefix = unique();
    let store = store(&prefix);
    let key = format!("{prefix}billing");
    let long = "x".repeat(5_000);
    for (value, shown) in [
        (&b"42\n"[..], "\"42\\n\""),
        (b"", "\"\""),
        (b" 42", "\" 42\""),
        (b"\xff\xfe", "\"\\xff\\xfe\""),
        (long.as_bytes(), "... (5000 bytes)"),
    ] {
        let mut connection = connect(&shared()).await;
        redis::cmd("SET").arg(&key).arg(value).exec_async(&mut connection).await.unwrap();
        let get = store.get("billing").await.unwrap_err();
        let integer = store.set("billing", &43.into()).await.unwrap_err();
        let text = store.set("billing", &"a-b".into()).await.unwrap_err();
        for error in [get, integer, text] {
            assert!(ours(&error).is_not_a_cursor(), "{}", chain(&error));
            assert_tells(&chain(&error), &["billing", &key, shown, "force_set", "delete"]);
            assert!(chain(&error).len() < 600, "{}", chain(&error));
        }
        assert!(store.list().await.unwrap_err().is_not_a_cursor());
        let left: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        assert_eq!(left, value);
        store.force_set("billing", &43.into()).await.unwrap();
        assert_eq!(store.get("billing").await.unwrap(), Some(43.into()));
    }
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_key_of_another_type_is_told_and_left_alone() {
    let prefix = unique();
    let store = store(&prefix);
    let key = format!("{prefix}billing");
    let _: i64 = send(&shared(), &format!("HSET {key} field 1")).await;
    let core = [store.get("billing").await.unwrap_err(), store.set("billing", &1.into()).await.unwrap_err()];
    for error in &core {
        assert!(ours(error).is_wrong_type(), "{}", chain(error));
        assert_tells(&chain(error), &["billing", &key, "no string"]);
    }
    let admin = [
        store.force_set("billing", &1.into()).await.unwrap_err(),
        store.delete("billing").await.unwrap_err(),
        store.list().await.unwrap_err(),
    ];
    for error in &admin {
        assert!(error.is_wrong_type(), "{error}");
    }
    assert_eq!(send::<String>(&shared(), &format!("TYPE {key}")).await, "hash");
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn what_could_not_be_read_again_is_not_stored() {
    let store = store(&unique());
    let long = "x".repeat(1_025);
    for text in ["", "a\nb", " 42", "42 ", "a\0", &long] {
        let error = store.set("billing", &text.into()).await.unwrap_err();
        assert!(error.is_invalid(), "{}", chain(&error));
        assert!(store.force_set("billing", &text.into()).await.is_err());
    }
    assert_eq!(store.get("billing").await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_cursor_forgets_a_time_to_live_and_a_store_its_script() {
    let prefix = unique();
    let store = store(&prefix);
    store.set("billing", &1.into()).await.unwrap();
    let _: i64 = send(&shared(), &format!("EXPIRE {prefix}billing 1000")).await;
    let _: String = send(&shared(), "SCRIPT FLUSH").await;
    store.set("billing", &2.into()).await.unwrap();
    assert_eq!(send::<i64>(&shared(), &format!("TTL {prefix}billing")).await, -1);
    assert_eq!(store.get("billing").await.unwrap(), Some(2.into()));
}
