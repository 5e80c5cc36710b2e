//! The web service: orders become events, and consumers react, fail, heal and stop.

use std::{net::TcpListener, path::Path, process::Command};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    http::{Answer, eventually, request},
    program::Program,
};

fn order(address: &str, product: &str, id: &str) {
    assert_eq!(request(address, "POST", &format!("/orders/{product}")), Answer { status: 200, body: id.to_owned() });
}

/// The status, and of `invoice` its state and last error; `greet` is always well.
fn health(answer: &Answer) -> (u16, Value) {
    let report: Value = serde_json::from_str(&answer.body).unwrap();
    let [invoice, greet] = [0, 1].map(|consumer| &report["consumers"][consumer]);
    assert_eq!(
        (&invoice["name"], &greet["name"], &greet["last_error"]),
        (&json!("invoice"), &json!("greet"), &Value::Null)
    );
    (answer.status, json!([invoice["state"], invoice["last_error"]["message"], invoice["last_error"]["event_id"]]))
}

#[test]
fn orders_are_invoiced_once_they_have_a_price() {
    let folder = tempfile::tempdir().unwrap();
    let (program, address) = Program::outbox(&folder.path().join("shop.sqlite"));
    eventually(&address, "/health", |answer| health(answer) == (200, json!(["waiting_for_events", null, null])));

    order(&address, "tea", "1");
    assert_eq!(program.line(), "thank you for order 1");
    let message = "consumer `invoice`: the handler failed at event 1 (foreign id `1`): `tea` has no price";
    eventually(&address, "/health", |answer| health(answer) == (503, json!(["failing", message, "1"])));
    order(&address, "tea", "2");
    assert_eq!(program.line(), "thank you for order 2");

    assert_eq!(request(&address, "PUT", "/prices/tea/250").status, 200);
    eventually(&address, "/invoices", |answer| answer.body == "[[1,250],[2,250]]");
    eventually(&address, "/health", |answer| health(answer) == (200, json!(["waiting_for_events", message, "1"])));
    eventually(&address, "/metrics", |answer| {
        let wanted = [
            "reflex_consumer_error_count{consumer_name=\"invoice\"}",
            "reflex_consumer_healthy{consumer_name=\"invoice\"} 1",
        ];
        wanted.iter().all(|series| answer.body.contains(series))
    });

    let (status, lines) = program.stop(Signal::TERM);
    assert!(status.success(), "{status}");
    assert_eq!(lines, ["stopped"]);
}

#[test]
fn a_restart_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("shop.sqlite");
    let (program, address) = Program::outbox(&database);
    order(&address, "tea", "1");
    assert_eq!(program.line(), "thank you for order 1");
    assert_eq!(program.stop(Signal::INT).1, ["stopped"]);

    let (program, address) = Program::outbox(&database);
    order(&address, "tea", "2");
    assert_eq!(program.line(), "thank you for order 2");
    assert_eq!(request(&address, "PUT", "/prices/tea/250").status, 200);
    eventually(&address, "/invoices", |answer| answer.body == "[[1,250],[2,250]]");
    assert_eq!(program.stop(Signal::INT).1, ["stopped"]);
}

/// It does not start with these settings, and names what is wrong.
#[track_caller]
fn check_refused(port: u16, database: &Path, named: &str) {
    let mut outbox = Command::new(env!("CARGO_BIN_EXE_outbox"));
    let output = outbox.env("PORT", port.to_string()).env("DATABASE", database).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains(named), "{named}: {message}");
}

#[test]
fn a_setting_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    check_refused(address.port(), &folder.path().join("shop.sqlite"), &address.to_string());
    check_refused(0, folder.path(), folder.path().to_str().unwrap());
}
