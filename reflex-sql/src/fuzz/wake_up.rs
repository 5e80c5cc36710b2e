use crate::wake::message::Message;

/// A message reaches those whom it is meant for: a hint everybody but who sent it, a probe nobody. Any other text is a hint.
pub fn wake_up(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let number = text.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(data.len() as u64);
    let (hint, probe) = (Message::Hint(number).to_string(), Message::Probe(number).to_string());
    for me in [number, !number] {
        assert_eq!(Message::is_hint_of_another(&hint, me), me != number, "{hint:?}");
        assert!(!Message::is_hint_of_another(&probe, me), "{probe:?}");
        let ours = text == probe || (text == hint && me == number);
        assert_eq!(Message::is_hint_of_another(text, me), !ours, "{text:?} for {me}");
    }
}
