//! The trace context of events as OpenTelemetry's, with the feature `opentelemetry`.

use opentelemetry::{
    Context,
    trace::{SpanContext as OtelContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::SpanContext;

impl SpanContext {
    /// The context of the current `tracing` span, for an event that is about to be inserted. `None` outside of a trace.
    ///
    /// Needs the feature `opentelemetry` and a subscriber with the layer of `tracing-opentelemetry`.
    #[must_use]
    pub fn current() -> Option<Self> {
        let context = tracing::Span::current().context();
        let span = context.span();
        let (trace_id, span_id) = (span.span_context().trace_id(), span.span_context().span_id());
        let context = Self::new(u128::from_be_bytes(trace_id.to_bytes()), u64::from_be_bytes(span_id.to_bytes()))?;
        Some(context.with_flags(span.span_context().trace_flags().to_u8()))
    }
}

/// Makes `span` a child of the producer's span.
pub(crate) fn continue_trace(span: &tracing::Span, context: &SpanContext) {
    let parent = OtelContext::new(
        TraceId::from_bytes(context.trace_id().to_be_bytes()),
        SpanId::from_bytes(context.span_id().to_be_bytes()),
        TraceFlags::new(context.flags()),
        true,
        TraceState::default(),
    );
    // It fails where nobody collects traces, and then there is nothing to continue.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}
