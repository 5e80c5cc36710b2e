//! What the process says at its end: the message on stderr and the exit code.

use std::process::ExitCode;

use crate::{place, table::printable};

/// Exit code for a command line that is wrong; clap's own is the same.
const WRONG_USAGE: u8 = 2;
/// Exit code of a `lag` that is past its limit.
const PAST_LIMIT: u8 = 3;

/// Whoever read our output has gone. There is nobody left to tell, and nothing is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output has gone")]
pub(crate) struct OutputClosed;

/// Somebody asked the process to end, and it did.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted {
    /// The shell's convention: 128 and the number of the signal.
    pub(crate) code: u8,
}

/// What was asked for cannot be meant, in a way that only shows after the command line is read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// What was asked for is not in the database.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Absent(pub(crate) String);

/// A consumer is further behind than allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PastLimit(pub(crate) String);

/// Prints the error, if there is anything to say, and returns the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    // Whoever pressed Ctrl-C knows, unless a command has something to add.
    if !error.is::<Interrupted>() || error.chain().count() > 1 {
        complain(error);
    }
    ExitCode::from(code(error))
}

#[expect(clippy::print_stderr, reason = "this is where errors go")]
fn complain(error: &anyhow::Error) {
    // It may repeat what is in a database or a file, such as codes that a terminal obeys.
    eprintln!("error: {}", printable(&chain(error.chain())));
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
}

/// What to do about an error whose text does not say it, or not for a command.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let schema = error.chain().filter_map(|error| error.downcast_ref()).any(reflex_sql::Error::is_schema);
    if schema {
        return Some("this command takes columns of the default names only; other names are options of the library");
    }
    place::hint(error)
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return interrupted.code;
    }
    if error.is::<PastLimit>() {
        PAST_LIMIT
    } else if is_usage(error) {
        WRONG_USAGE
    } else {
        1
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>() || error.downcast_ref::<reflex_sql::Error>().is_some_and(reflex_sql::Error::is_invalid_name)
}

/// The causes in one line. Some libraries repeat the cause in their own message: it is said once.
pub(crate) fn chain<'a>(errors: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>) -> String {
    let mut text = String::new();
    for error in errors {
        let message = error.to_string();
        if text.ends_with(&message) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_cause_is_said_once() {
        let cause = anyhow::anyhow!("no route").context("connect: no route").context("open table");
        assert_eq!(chain(cause.chain()), "open table: connect: no route");
    }

    #[test]
    fn codes_tell_what_happened() {
        assert_eq!(code(&anyhow::anyhow!("x")), 1);
        assert_eq!(code(&PastLimit("x".to_owned()).into()), PAST_LIMIT);
        assert_eq!(code(&anyhow::Error::from(Usage("x".to_owned())).context("open")), WRONG_USAGE);
        assert_eq!(code(&anyhow::anyhow!("x").context(Usage("y".to_owned()))), WRONG_USAGE);
        assert_eq!(code(&anyhow::Error::from(Interrupted { code: 143 }).context("import")), 143);
    }
}
