//! With OpenTelemetry the consumer's span is a child of the producer's.

use opentelemetry::trace::{SpanId, TraceId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use reflex_core::{MemoryCursors, MemoryEvents, NewEvent, SpanContext, Spec, consumer_fn, run};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::keep_places_on;

#[tokio::test]
async fn a_trace_goes_from_the_producer_through_the_event_to_the_consumer() {
    keep_places_on();
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let events = MemoryEvents::new();
    let produced = tracing::info_span!("produce").in_scope(|| {
        let context = SpanContext::current().unwrap();
        events.append(NewEvent::new("order-12", 1).span_context(&context));
        context
    });
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer_fn("billing", |_event| async { Ok(()) })).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());

    let spans = exporter.get_finished_spans().unwrap();
    let consume = spans.iter().find(|span| span.name == "consume").unwrap();
    assert_eq!(consume.span_context.trace_id(), TraceId::from_bytes(produced.trace_id().to_be_bytes()));
    assert_eq!(consume.parent_span_id, SpanId::from_bytes(produced.span_id().to_be_bytes()));
}

#[test]
fn outside_of_a_trace_there_is_no_context() {
    assert_eq!(SpanContext::current(), None);
}
