use std::{error::Error as StdError, fmt};

use tonic::{Code, Status};

/// What the gRPC call behind a stream ended with. It is the source of the [`reflex_core::Error`] that a run returns.
///
/// `Display` is the status; what is below it, for example a refused connection, is in [`source`](StdError::source).
pub struct Error(Status);

impl Error {
    /// The status code: the server's, or what tonic makes of a failure on this side.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// The message of the status.
    #[must_use]
    pub fn message(&self) -> &str {
        self.0.message()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            "" => write!(f, "gRPC status {:?}", self.code()),
            message => write!(f, "gRPC status {:?}: {message}", self.code()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}
