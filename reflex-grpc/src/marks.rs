//! How luno/reflex marks the two errors that are the regular end of a stream.
//!
//! In Go they are known by a code that travels in the details of the status, as messages of luno/jettison: as a `Hop`
//! (older versions) or a `WrappedError`. A server without jettison's interceptors sends the message of the error alone.

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

/// A regular end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Stopped,
    HeadReached,
}

impl Mark {
    const ALL: [Self; 2] = [Self::Stopped, Self::HeadReached];

    /// The status that carries the mark in every way in which it is looked for.
    pub(crate) fn status(self) -> Status {
        let code = match self {
            Self::Stopped => Code::Unavailable,
            Self::HeadReached => Code::OutOfRange,
        };
        Status::with_details(code, self.message(), self.details(code).into())
    }

    /// The mark that a status carries.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        let carried = codes(status.details());
        let by_code = Self::ALL.into_iter().find(|mark| carried.iter().any(|code| code == mark.code()));
        // Go puts its wrappers in front: "recv error: the event stream has been stopped".
        by_code.or_else(|| Self::ALL.into_iter().find(|mark| status.message().ends_with(mark.message())))
    }

    fn message(self) -> &'static str {
        match self {
            Self::Stopped => "the event stream has been stopped",
            Self::HeadReached => "the event stream has reached the current head",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Stopped => "ERR_09290f5944cb8671",
            Self::HeadReached => "ERR_b4b155d2a91cfcd0",
        }
    }

    fn details(self, code: Code) -> Vec<u8> {
        let (text, mark) = (self.message().to_owned(), self.code().to_owned());
        let hop = Hop { errors: vec![HopError { message: text.clone(), code: mark.clone() }] };
        let wrapped = WrappedError { message: text.clone(), code: mark, ..WrappedError::default() };
        let details = vec![any(HOP, &hop), any(WRAPPED_ERROR, &wrapped)];
        RpcStatus { code: code as i32, message: text, details }.encode_to_vec()
    }
}

/// All error codes in the details of a status; none if they cannot be read.
fn codes(details: &[u8]) -> Vec<String> {
    let Ok(status) = RpcStatus::decode(details) else {
        return Vec::new();
    };
    let mut codes = Vec::new();
    for detail in &status.details {
        if detail.type_url.ends_with(HOP) {
            let hop = Hop::decode(&*detail.value).unwrap_or_default();
            codes.extend(hop.errors.into_iter().map(|error| error.code));
        } else if detail.type_url.ends_with(WRAPPED_ERROR) {
            add_codes(WrappedError::decode(&*detail.value).unwrap_or_default(), &mut codes);
        }
    }
    codes
}

/// As deep as the decoder allows messages to be nested.
fn add_codes(error: WrappedError, codes: &mut Vec<String>) {
    codes.push(error.code);
    for inner in error.joined_errors.into_iter().chain(error.wrapped_error.map(|inner| *inner)) {
        add_codes(inner, codes);
    }
}

const HOP: &str = "/jettisonpb.Hop";
const WRAPPED_ERROR: &str = "/jettisonpb.WrappedError";

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com{name}"), value: message.encode_to_vec() }
}

/// `google.rpc.Status`, which the details of a status are in.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `jettisonpb.Hop`, as much of it as matters here.
#[derive(Clone, PartialEq, Message)]
struct Hop {
    #[prost(message, repeated, tag = "2")]
    errors: Vec<HopError>,
}

/// `jettisonpb.Error`.
#[derive(Clone, PartialEq, Message)]
struct HopError {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(string, tag = "4")]
    code: String,
}

/// `jettisonpb.WrappedError`.
#[derive(Clone, PartialEq, Message)]
struct WrappedError {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    joined_errors: Vec<WrappedError>,
    #[prost(message, optional, boxed, tag = "4")]
    wrapped_error: Option<Box<WrappedError>>,
    #[prost(string, tag = "7")]
    code: String,
}
