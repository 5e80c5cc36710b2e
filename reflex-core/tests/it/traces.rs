//! The span of a consume continues the producer's trace, and a failed run is one ERROR event.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use reflex_core::{Error, MemoryCursors, MemoryEvents, NewEvent, Operation, SpanContext, Spec, consumer_fn, run};
use reflex_testing::{ScriptedConsumer, Step};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

type Fields = BTreeMap<&'static str, String>;

type Span = (Level, &'static str, Fields);

/// Keeps what a subscriber is told.
#[derive(Clone, Default)]
struct Captured {
    spans: Arc<Mutex<Vec<Span>>>,
    events: Arc<Mutex<Vec<(Level, Fields)>>>,
}

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let cause = value.source().map(ToString::to_string).unwrap_or_default();
        self.0.insert(field.name(), format!("{value}: {cause}"));
    }
}

impl<S: Subscriber> Layer<S> for Captured {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _id: &span::Id, _context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Read(&mut fields));
        let metadata = attributes.metadata();
        self.spans.lock().unwrap().push((*metadata.level(), metadata.name(), fields));
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Read(&mut fields));
        self.events.lock().unwrap().push((*event.metadata().level(), fields));
    }
}

fn capture(level: LevelFilter) -> (Captured, tracing::subscriber::DefaultGuard) {
    crate::support::keep_places_on();
    let captured = Captured::default();
    let subscriber = tracing_subscriber::registry().with(captured.clone().with_filter(level));
    (captured, tracing::subscriber::set_default(subscriber))
}

const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_consume_span_carries_consumer_event_and_trace() {
    let (captured, _guard) = capture(LevelFilter::DEBUG);
    let events = MemoryEvents::new();
    events.append(NewEvent::new("order-12", 1).span_context(&HEADER.parse::<SpanContext>().unwrap()));
    events.append(NewEvent::new("order-13", 1));
    let consumer = consumer_fn("billing", |event: reflex_core::Event| async move {
        tokio::task::yield_now().await;
        tracing::info!(foreign_id = event.foreign_id(), span = tracing::Span::current().metadata().map(|m| m.name()));
        Ok(())
    });
    assert!(run(&mut Spec::new(events, MemoryCursors::new(), consumer).to_head()).await.unwrap_err().is_head_reached());

    let spans = captured.spans.lock().unwrap();
    let (level, name, fields) = &spans[0];
    assert_eq!((*level, *name), (Level::DEBUG, "consume"));
    let expected = [
        ("consumer", "billing"),
        ("event_id", "1"),
        ("foreign_id", "order-12"),
        ("parent_span_id", "00f067aa0ba902b7"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ];
    assert_eq!(fields.iter().map(|(name, value)| (*name, &**value)).collect::<Vec<_>>(), expected);
    assert_eq!(spans[1].2.get("trace_id"), None);
    assert_eq!(spans.len(), 2);
    let events = captured.events.lock().unwrap();
    assert_eq!(events[0].1["span"], "consume", "the handler runs inside the span: {events:?}");
}

#[tokio::test]
async fn there_is_no_span_above_debug() {
    let (captured, _guard) = capture(LevelFilter::INFO);
    let mut spec =
        Spec::new(crate::support::filled(2), MemoryCursors::new(), ScriptedConsumer::new("billing")).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert!(captured.spans.lock().unwrap().is_empty());
    assert!(captured.events.lock().unwrap().is_empty(), "a run that ends as intended is no error");
}

#[tokio::test]
async fn a_failed_run_is_one_error_event() {
    let (captured, _guard) = capture(LevelFilter::INFO);
    let consumer = ScriptedConsumer::new("billing").at(1, Step::fail("the card was declined"));
    let mut spec = Spec::new(crate::support::filled(2), MemoryCursors::new(), consumer).to_head();
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&2.into()));

    let events = captured.events.lock().unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    let (level, fields) = &events[0];
    assert_eq!(*level, Level::ERROR);
    assert_eq!(fields["consumer"], "billing");
    assert_eq!(fields["event_id"], "2");
    assert_eq!(fields["foreign_id"], "order-2");
    assert!(fields["error"].contains("the card was declined"), "{fields:?}");
}

#[tokio::test]
async fn no_error_is_swallowed_when_closing_fails_twice() {
    let (captured, _guard) = capture(LevelFilter::INFO);
    let cursors = MemoryCursors::new();
    cursors.fail_next(Operation::Flush, Error::store("flush cursors", "disk full"));
    let consumer = ScriptedConsumer::new("billing").on_stop(Step::fail("cannot close"));
    let error = run(&mut Spec::new(crate::support::filled(1), cursors, consumer).to_head()).await.unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "cannot close");

    let events = captured.events.lock().unwrap();
    let errors: Vec<_> = events.iter().map(|(_, fields)| &*fields["error"]).collect();
    assert_eq!(errors.len(), 2, "{events:?}");
    assert!(errors[0].contains("disk full") && errors[1].contains("cannot close"), "{events:?}");
}
