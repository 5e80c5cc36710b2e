use prost::Message;
use reflex_core::{Event, StreamOptions};
use reflex_grpc::reflexpb;

/// An event of a message becomes the same message again; what is no event is refused as invalid.
///
/// # Panics
///
/// If that is not so.
pub fn event_message(data: &[u8]) {
    let Ok(message) = reflexpb::Event::decode(data) else { return };
    let event = match Event::try_from(message.clone()) {
        Ok(event) => event,
        Err(error) => return assert!(error.is_invalid(), "{error:?}"),
    };
    let again = reflexpb::Event::try_from(&event).expect("what was received can be sent");
    assert_eq!(again, message);
    assert_eq!(reflexpb::Event::decode(&*again.encode_to_vec()), Ok(message));
}

/// The options of a request become a request that asks for the same; what cannot be asked for is refused as invalid.
///
/// # Panics
///
/// If that is not so.
pub fn request_message(data: &[u8]) {
    let Ok(message) = reflexpb::StreamRequest::decode(data) else { return };
    let options = match StreamOptions::try_from(message) {
        Ok(options) => options,
        Err(error) => return assert!(error.is_invalid(), "{error:?}"),
    };
    let again = reflexpb::StreamRequest::try_from(&options).expect("what was asked for can be asked for");
    let again = StreamOptions::try_from(again).expect("what was sent can be received");
    assert_eq!(format!("{again:?}"), format!("{options:?}"));
}
