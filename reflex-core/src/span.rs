//! The span of each event, at DEBUG.

use tracing::Instrument;

use crate::{Consumer, Event, HandlerError, Progress};

/// Lets the consumer have the event inside a span.
pub(crate) async fn consume_in_span<K: Consumer>(consumer: &mut K, event: Event) -> Result<Progress, HandlerError> {
    let span = consume_span(consumer.name(), &event);
    consumer.consume(event).instrument(span).await
}

/// The span of one event; its parent in the trace is the producer's span.
fn consume_span(consumer: &str, event: &Event) -> tracing::Span {
    let context = event.span_context();
    let span = tracing::debug_span!(
        "consume",
        consumer,
        event_id = %event.id(),
        foreign_id = event.foreign_id(),
        trace_id = context.map(|context| format!("{:032x}", context.trace_id())),
        parent_span_id = context.map(|context| format!("{:016x}", context.span_id())),
    );
    #[cfg(feature = "opentelemetry")]
    if let Some(context) = &context {
        crate::telemetry::continue_trace(&span, context);
    }
    span
}
