use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result, anyhow, bail};
use reflex_core::NewEvent;
use tokio::sync::mpsc;

use super::read::BadLine;

/// The longest line that is read.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;
const READ_BUFFER: usize = 256 * 1024;
/// A batch of large events is sent before it has its number.
const BATCH_BYTES: usize = 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How much of the last line a batch carries.
const LAST_BYTES: usize = 256;

/// The events of some consecutive lines, for one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<NewEvent>,
    /// Where the input is once these events are done.
    pub(crate) end: Position,
    /// The end of the last line.
    pub(crate) last: Vec<u8>,
}

/// A place between two lines of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

/// What to read, and what goes into a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchOptions {
    /// The most events of a batch.
    pub(crate) events: usize,
    /// Where the input begins, if it is the rest of something.
    pub(crate) start: Position,
    /// Lines to pass over.
    pub(crate) skip_lines: u64,
    /// Whether a last line without an end is left out, because it may still be being written.
    pub(crate) only_ended_lines: bool,
}

impl BatchOptions {
    /// From the beginning to the end.
    pub(crate) fn new(events: usize) -> Self {
        Self { events, start: Position::default(), skip_lines: 0, only_ended_lines: false }
    }
}

/// Reads lines and sends their events, in order, until the input ends or nobody listens any more.
///
/// `parse` gets the number of the line as well. A batch is sent when it is full, and before anything that may have to wait
/// for more input, so that events from a pipe are not held back. This blocks.
///
/// # Errors
///
/// If the input cannot be read or a line is no event. What is in a batch with the bad line is not sent.
pub(crate) fn read_batches(
    input: impl Read,
    options: BatchOptions,
    parse: impl Fn(&[u8], u64) -> Result<NewEvent, BadLine>,
    to: &mpsc::Sender<Batch>,
) -> Result<()> {
    let mut lines = Lines::new(input, options);
    lines.skip(options.skip_lines)?;
    let mut events = Vec::new();
    let mut size = 0;
    while let Some(line) = lines.next()? {
        let (bytes, number) = (line.bytes, line.number);
        if !bytes.trim_ascii().is_empty() {
            size += bytes.len();
            events.push(parse(bytes, number).map_err(|bad| anyhow!("line {number}, {bad}"))?);
        }
        let full = events.len() >= options.events || size >= BATCH_BYTES;
        if full || lines.may_wait() {
            size = 0;
            if send(&mut events, &lines, to).is_err() {
                return Ok(());
            }
        }
    }
    // If nobody listens any more, the listener knows why.
    let _ = send(&mut events, &lines, to);
    Ok(())
}

fn send<R: Read>(
    events: &mut Vec<NewEvent>,
    lines: &Lines<R>,
    to: &mpsc::Sender<Batch>,
) -> Result<(), mpsc::error::SendError<Batch>> {
    if events.is_empty() {
        return Ok(());
    }
    let last = lines.line[lines.line.len().saturating_sub(LAST_BYTES)..].to_vec();
    to.blocking_send(Batch { events: std::mem::take(events), end: lines.position, last })
}

struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    position: Position,
    only_ended: bool,
}

struct Line<'a> {
    bytes: &'a [u8],
    number: u64,
}

impl<R: Read> Lines<R> {
    fn new(input: R, options: BatchOptions) -> Self {
        Self {
            input: BufReader::with_capacity(READ_BUFFER, input),
            line: Vec::new(),
            position: options.start,
            only_ended: options.only_ended_lines,
        }
    }

    fn skip(&mut self, lines: u64) -> Result<()> {
        for skipped in 0..lines {
            if self.next()?.is_none() {
                bail!("skip {lines} lines: there are only {skipped}");
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Line<'_>>> {
        let number = self.position.lines + 1;
        if !self.read_line().with_context(|| format!("read line {number}"))? {
            return Ok(None);
        }
        if self.line.len() as u64 > LONGEST_LINE {
            bail!("line {number}, column {LONGEST_LINE}: longer than {} MiB", LONGEST_LINE >> 20);
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let bytes = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| number == 1).unwrap_or(line);
        Ok(Some(Line { bytes, number }))
    }

    /// Whether there was a line.
    fn read_line(&mut self) -> std::io::Result<bool> {
        let mut line = Vec::with_capacity(self.line.len());
        let read = (&mut self.input).take(LONGEST_LINE + 1).read_until(b'\n', &mut line)?;
        if read == 0 || (self.only_ended && !line.ends_with(b"\n")) {
            return Ok(false);
        }
        self.line = line;
        self.position.lines += 1;
        self.position.bytes += read as u64;
        Ok(true)
    }

    /// Whether the next line is not here as a whole.
    fn may_wait(&self) -> bool {
        !self.input.buffer().contains(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ndjson::parse_event;

    const EVENT: &str = r#"{"type":1,"foreign_id":"a"}"#;

    fn read(input: impl Read, skip_lines: u64, events: usize) -> (Vec<Batch>, Result<()>) {
        let (to, mut from) = mpsc::channel(100);
        let options = BatchOptions { skip_lines, ..BatchOptions::new(events) };
        let result = read_batches(input, options, |line, _| parse_event(line), &to);
        drop(to);
        (std::iter::from_fn(|| from.blocking_recv()).collect(), result)
    }

    fn sizes(batches: &[Batch]) -> Vec<(usize, u64)> {
        batches.iter().map(|batch| (batch.events.len(), batch.end.lines)).collect()
    }

    #[test]
    fn lines_are_counted_and_empty_ones_passed_over() {
        let input = format!("\u{feff}{EVENT}\n\n{EVENT}\r\n  \n{EVENT}");
        let (batches, result) = read(input.as_bytes(), 0, 2);
        result.unwrap();
        assert_eq!(sizes(&batches), [(2, 3), (1, 5)]);
        assert_eq!(batches[1].end.bytes, input.len() as u64);
        let (batches, _) = read(input.as_bytes(), 3, 2);
        assert_eq!(sizes(&batches), [(1, 5)]);
    }

    #[test]
    fn nothing_of_a_batch_with_a_bad_line_is_sent() {
        let input = format!("{EVENT}\n{EVENT}\n{EVENT}\n{{}}\n{EVENT}\n");
        let (batches, result) = read(input.as_bytes(), 0, 2);
        assert_eq!(sizes(&batches), [(2, 2)]);
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with("line 4, column 2: missing field"), "{message}");
    }

    #[test]
    fn what_came_through_a_pipe_is_not_held_back() {
        let [first, second] = [format!("{EVENT}\n{EVENT}\n{{\"type\""), ":1,\"foreign_id\":\"b\"}\n".to_owned()];
        let (batches, result) = read(first.as_bytes().chain(second.as_bytes()), 0, 100);
        result.unwrap();
        assert_eq!(sizes(&batches), [(2, 2), (1, 3)]);
    }

    #[test]
    fn a_line_that_is_being_written_is_left_for_later() {
        let (to, mut from) = mpsc::channel(1);
        let start = Position { lines: 7, bytes: 100 };
        let options = BatchOptions { only_ended_lines: true, start, ..BatchOptions::new(9) };
        read_batches(format!("{EVENT}\n{EVENT}").as_bytes(), options, |line, _| parse_event(line), &to).unwrap();
        let batch = from.blocking_recv().unwrap();
        assert_eq!(batch.end, Position { lines: 8, bytes: 100 + EVENT.len() as u64 + 1 });
        assert_eq!(batch.last, format!("{EVENT}\n").as_bytes());
    }

    #[test]
    fn skipping_more_lines_than_there_are_is_an_error() {
        let (_, result) = read(format!("{EVENT}\n").as_bytes(), 2, 1);
        assert_eq!(result.unwrap_err().to_string(), "skip 2 lines: there are only 1");
        read(format!("{EVENT}\n").as_bytes(), 1, 1).1.unwrap();
    }
}
