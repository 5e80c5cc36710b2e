use std::future::{Ready, ready};

use futures_util::{FutureExt, stream::Empty};
use reflex_core::{StreamFunc, StreamOptions};
use reflex_grpc::{reflexpb, stream_func};
use tonic::{Code, Request, Response, Status};

const STOPPED: (&str, &str) = ("ERR_09290f5944cb8671", "the event stream has been stopped");
const HEAD_REACHED: (&str, &str) = ("ERR_b4b155d2a91cfcd0", "the event stream has reached the current head");

type Answer = Result<Response<Empty<Result<reflexpb::Event, Status>>>, Status>;

/// A status is one of the regular ends of a stream only if it carries the mark of that end. The first byte is the code, the
/// details follow, and the message if a line end is among them.
///
/// # Panics
///
/// If that is not so.
pub fn status(data: &[u8]) {
    let Some((code, rest)) = data.split_first() else { return };
    let end = rest.iter().rposition(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (details, message) = rest.split_at(end);
    let message = String::from_utf8_lossy(message).into_owned();
    let status = Status::with_details(Code::from(i32::from(*code)), message.clone(), details.to_vec().into());
    let call = stream_func(|_: Request<reflexpb::StreamRequest>| -> Ready<Answer> { ready(Err(status.clone())) });
    let opened = call.open(StreamOptions::new()).now_or_never().expect("the call answers at once");
    let Err(error) = opened else { panic!("a status is an error") };
    check_mark(error.is_stopped(), STOPPED, details, &message);
    check_mark(error.is_head_reached(), HEAD_REACHED, details, &message);
}

fn check_mark(found: bool, (code, words): (&str, &str), details: &[u8], message: &str) {
    let carried = details.windows(code.len()).any(|window| window == code.as_bytes());
    assert!(!found || carried || message.ends_with(words), "nothing says {words:?}");
    assert!(found || !message.ends_with(words) || !details.is_empty(), "{words:?} was not understood");
}
