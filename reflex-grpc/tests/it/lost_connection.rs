//! A server that is killed ends the run with an error; running again goes on.

use std::net::TcpListener as StdListener;

use reflex_core::{Error, MemoryCursors, MemoryEvents, NewEvent, Spec, StreamFunc, StreamOptions, run};
use reflex_grpc::{Server, reflexpb::reflex_client::ReflexClient};
use reflex_testing::{History, ScriptedConsumer, await_cursor};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Channel;

use crate::loopback::{DEADLINE, Loopback, chain, endpoint};

/// A server with a runtime of its own, which is killed with everything that it holds.
struct Process(Option<Runtime>);

impl Process {
    /// The port stays bound between two processes, so nobody else can take it.
    fn start(listener: &StdListener, events: MemoryEvents) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = listener.try_clone().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let _serving = Loopback::on(listener, Server::new().service(events));
            std::future::pending::<()>().await;
        });
        Self(Some(runtime))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

type Running = JoinHandle<(Spec<ReflexClient<Channel>, MemoryCursors, ScriptedConsumer>, Error)>;

fn start(mut spec: Spec<ReflexClient<Channel>, MemoryCursors, ScriptedConsumer>) -> Running {
    tokio::spawn(async move {
        let Err(error) = run(&mut spec).await;
        (spec, error)
    })
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_is_killed_and_started_again() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let channel = endpoint(listener.local_addr().unwrap()).connect_lazy();
    let (events, cursors) = (MemoryEvents::new(), MemoryCursors::new());
    let consumer = ScriptedConsumer::new("bill");
    let calls = consumer.calls();
    let mut spec = Spec::new(ReflexClient::new(channel), cursors.clone(), consumer);
    for round in 1..=5 {
        let process = Process::start(&listener, events.clone());
        let running = start(spec);
        for _ in 0..200 {
            events.append(NewEvent::new("order", 1));
        }
        await_cursor(&cursors, "bill", 200 * round - 100, DEADLINE).await.unwrap();
        drop(process);
        let (ended, error) = timeout(DEADLINE, running).await.unwrap().unwrap();
        assert!(!error.is_expected() && !error.is_head_reached(), "{error:?}");
        spec = ended;
    }
    let _process = Process::start(&listener, events);
    let Err(end) = run(&mut spec.to_head()).await;
    assert!(end.is_head_reached(), "{end:?}");
    let mut history = History::new();
    history.extend(calls.consumed_ids());
    history.check(&(1..=1_000).collect::<Vec<_>>()).unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let address = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = ReflexClient::new(endpoint(address).connect_lazy());
    for _ in 0..2 {
        let error = client.open(StreamOptions::new()).await.unwrap_err();
        assert!(!error.is_expected(), "{error:?}");
        let text = chain(&error);
        assert!(text.starts_with("open a stream of events over gRPC from the beginning: "), "{text}");
        assert!(text.contains("refused"), "{text}");
    }
}

/// The position that the server pinned is stored before the first event, so a break before it loses nothing to the next
/// run, which starts after the cursor.
#[tokio::test]
async fn from_head_survives_a_break_before_the_first_event() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let client = ReflexClient::new(endpoint(listener.local_addr().unwrap()).connect_lazy());
    let (events, cursors) = (MemoryEvents::new(), MemoryCursors::new());
    events.append(NewEvent::new("before", 1));
    let spec = Spec::new(client.clone(), cursors.clone(), ScriptedConsumer::new("bill")).from_head();

    let process = Process::start(&listener, events.clone());
    let running = start(spec);
    await_cursor(&cursors, "bill", 1, DEADLINE).await.unwrap();
    drop(process);
    let (_, error) = timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(!error.is_expected(), "{error:?}");

    events.append(NewEvent::new("between", 1));
    let _process = Process::start(&listener, events);
    let consumer = ScriptedConsumer::new("bill");
    let calls = consumer.calls();
    let Err(end) = run(&mut Spec::new(client, cursors, consumer).to_head()).await;
    assert!(end.is_head_reached(), "{end:?}");
    assert_eq!(calls.consumed_ids(), [2]);
}
