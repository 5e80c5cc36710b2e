use prost::Message;
use reflex_core::SpanContext;

/// The message of luno/reflex, and the field that we add.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(string, tag = "1")]
    trace_id: String,
    #[prost(string, tag = "2")]
    span_id: String,
    #[prost(uint32, tag = "3")]
    flags: u32,
}

/// A span context survives being encoded and printed, what is read as a header is one, and what is read as a message has the
/// ids that a reader of protobuf finds in it.
///
/// # Panics
///
/// If that is not so.
pub fn trace(data: &[u8]) {
    let header = std::str::from_utf8(data).ok().filter(|text| text.parse::<SpanContext>().is_ok());
    let Some(context) = SpanContext::decode(data) else {
        assert_eq!(header, None, "a header that is parsed is a form of trace bytes");
        return;
    };
    assert!(context.trace_id() != 0 && context.span_id() != 0);
    assert_eq!(SpanContext::decode(&context.encode()), Some(context));
    assert_eq!(context.to_string().parse::<SpanContext>().ok(), Some(context));
    match header {
        Some(header) => check_header(header, &context),
        None => check_message(data, &context),
    }
}

fn check_header(header: &str, context: &SpanContext) {
    let digits = |field: &str| field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (version, rest) = header.split_once('-').expect("a header has dashes");
    assert!(version.len() == 2 && digits(version) && version != "ff", "{version:?} is no version");
    let known = context.to_string();
    let known = &known["00-".len()..];
    assert!(rest.starts_with(known), "{rest:?} begins otherwise than {known:?}");
    let more = &rest[known.len()..];
    assert!(more.is_empty() || (version != "00" && more.starts_with('-')), "{more:?} follows");
}

fn check_message(data: &[u8], context: &SpanContext) {
    let Ok(message) = Trace::decode(data) else { return };
    assert_eq!(message.trace_id, format!("{:032x}", context.trace_id()));
    assert_eq!(message.span_id, format!("{:016x}", context.span_id()));
}
