use std::io;

/// Why a test server could not be started, stopped or found.
///
/// The message of a failed start ends with the end of the server's log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub(crate) fn io(attempt: impl Into<String>, source: io::Error) -> Self {
        Self { message: attempt.into(), source: Some(source) }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
