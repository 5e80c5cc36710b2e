//! One of the two services, while the other comes and goes.

use std::{fs, path::Path};

use reflex_core::{MemoryEvents, NewEvent};
use reflex_grpc::Server;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::transport::{Server as Transport, server::TcpIncoming};

use crate::{
    http::{Answer, eventually},
    program::Program,
};

const ORDER_PLACED: i32 = 1;

/// The status, and of the only consumer its name and state.
fn health(answer: &Answer) -> (u16, Value) {
    let report: Value = serde_json::from_str(&answer.body).unwrap();
    let consumer = &report["consumers"][0];
    (answer.status, json!([consumer["name"], consumer["state"]]))
}

/// Serves these events as `orders` does, until the runtime is dropped.
fn serve_orders(events: &MemoryEvents, folder: &Path) -> Runtime {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    fs::write(folder.join("orders"), format!("http://{}", incoming.local_addr().unwrap())).unwrap();
    let service = Server::new().service(events.clone());
    runtime.spawn(Transport::builder().add_service(service).serve_with_incoming(incoming));
    runtime
}

#[test]
fn a_service_tells_its_health() {
    let folder = tempfile::tempdir().unwrap();
    let events = MemoryEvents::new();
    events.append(NewEvent::new(1, ORDER_PLACED));
    let orders = serve_orders(&events, folder.path());
    let program = Program::service("billing", folder.path());
    let line = program.line();
    let address = line.strip_prefix("billing: health at http://").unwrap().strip_suffix("/health").unwrap();
    assert_eq!(program.line(), "billing: invoice for order 1");
    let is = |status, state| move |answer: &Answer| health(answer) == (status, json!(["send-invoices", state]));
    eventually(address, "/health", is(200, "waiting_for_events"));

    drop(orders);
    eventually(address, "/health", is(503, "failing"));

    let _orders = serve_orders(&events, folder.path());
    eventually(address, "/health", is(200, "waiting_for_events"));
    events.append(NewEvent::new(2, ORDER_PLACED));
    assert_eq!(program.line(), "billing: invoice for order 2");
}
