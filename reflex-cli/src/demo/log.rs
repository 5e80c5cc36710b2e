//! What `git log` prints, in the format that [`FORMAT`] asks for, as commits.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};

/// A commit begins with a byte that no line count begins with; then each field ends with a NUL, as `-z` wants it.
pub(crate) const FORMAT: &str = "--format=tformat:%x01%H%x00%P%x00%aN%x00%at%x00%s";

/// The longest subject that is kept, in bytes.
const LONGEST_SUBJECT: usize = 200;
/// RFC 3339 has no later time.
const LATEST: i64 = 253_402_300_799;

/// A commit, with the size of its change against its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) sha: String,
    pub(crate) parents: Vec<String>,
    pub(crate) author: String,
    /// When it was written.
    pub(crate) time: DateTime<Utc>,
    pub(crate) subject: String,
    pub(crate) added: u64,
    pub(crate) deleted: u64,
    pub(crate) files: u64,
}

impl Commit {
    pub(crate) fn is_merge(&self) -> bool {
        self.parents.len() > 1
    }
}

/// Makes commits from the NUL-separated tokens of the output.
#[derive(Debug, Default)]
pub(crate) struct LogParser {
    commit: Option<Commit>,
    next: Next,
}

/// What the next token is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    /// A commit's first field, or the line counts of a file.
    #[default]
    CommitOrFile,
    Parents,
    Author,
    Time,
    Subject,
    /// The name of a renamed file, before and after.
    OldName,
    NewName,
}

impl LogParser {
    /// Takes a token, and returns the commit before it if the token begins another.
    ///
    /// # Errors
    ///
    /// If the token is none that belongs there.
    pub(crate) fn token(&mut self, token: &[u8]) -> Result<Option<Commit>> {
        if let Next::CommitOrFile = self.next {
            return self.commit_or_file(token.strip_prefix(b"\n").unwrap_or(token));
        }
        let commit = self.commit.as_mut().context("a field is only expected inside a commit")?;
        self.next = match self.next {
            Next::Parents => {
                commit.parents = ascii(token)?.split_whitespace().map(str::to_owned).collect();
                Next::Author
            }
            Next::Author => {
                commit.author = readable(token);
                Next::Time
            }
            Next::Time => {
                commit.time = time(token);
                Next::Subject
            }
            Next::Subject => {
                commit.subject = subject(token);
                Next::CommitOrFile
            }
            Next::OldName => Next::NewName,
            Next::NewName | Next::CommitOrFile => Next::CommitOrFile,
        };
        Ok(None)
    }

    /// The last commit, once the output has ended.
    ///
    /// # Errors
    ///
    /// If it ended in the middle of a commit.
    pub(crate) fn finish(self) -> Result<Option<Commit>> {
        match self.next {
            Next::CommitOrFile => Ok(self.commit),
            _ => bail!("the output of `git log` ended in the middle of a commit"),
        }
    }

    fn commit_or_file(&mut self, token: &[u8]) -> Result<Option<Commit>> {
        if let Some(sha) = token.strip_prefix(b"\x01") {
            self.next = Next::Parents;
            return Ok(self.commit.replace(Commit { sha: ascii(sha)?.to_owned(), ..Commit::default() }));
        }
        if token.is_empty() {
            return Ok(None);
        }
        let commit = self.commit.as_mut().context("`git log` printed line counts before the first commit")?;
        let counts = FileCounts::parse(token);
        let counts = counts.with_context(|| format!("`git log` printed {:?}", token.escape_ascii().to_string()))?;
        commit.added = commit.added.saturating_add(counts.added);
        commit.deleted = commit.deleted.saturating_add(counts.deleted);
        commit.files += 1;
        if counts.is_renamed {
            self.next = Next::OldName;
        }
        Ok(None)
    }
}

struct FileCounts {
    added: u64,
    deleted: u64,
    is_renamed: bool,
}

impl FileCounts {
    /// Reads `added TAB deleted TAB name`, where the name is empty for a renamed file.
    fn parse(token: &[u8]) -> Option<Self> {
        let mut parts = token.splitn(3, |&byte| byte == b'\t');
        let (added, deleted, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { added: lines(added)?, deleted: lines(deleted)?, is_renamed: name.is_empty() })
    }
}

/// Binary files have no lines: their count is a dash.
fn lines(count: &[u8]) -> Option<u64> {
    if count == b"-" { Some(0) } else { str::from_utf8(count).ok()?.parse().ok() }
}

fn ascii(token: &[u8]) -> Result<&str> {
    str::from_utf8(token).context("`git log` printed a hash that is not text")
}

/// Seconds since 1970, as far as they can be written as a date; a commit without a date is of 1970.
fn time(token: &[u8]) -> DateTime<Utc> {
    let seconds: i64 = str::from_utf8(token).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    DateTime::from_timestamp(seconds.clamp(0, LATEST), 0).unwrap_or_default()
}

fn subject(token: &[u8]) -> String {
    let mut subject = String::from_utf8_lossy(token).into_owned();
    subject.truncate(subject.floor_char_boundary(LONGEST_SUBJECT));
    subject
}

/// Any bytes as text, different bytes always as different text.
///
/// Bytes that are not UTF-8 become `\xNN`. So that this is not mistaken for a name that is spelt like that, backslashes are
/// doubled in names that have either.
pub(crate) fn readable(bytes: &[u8]) -> String {
    if let Ok(text) = str::from_utf8(bytes)
        && !text.contains("\\x")
    {
        return text.to_owned();
    }
    let mut readable = String::new();
    for chunk in bytes.utf8_chunks() {
        readable.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            readable.push_str(&format!("\\x{byte:02x}"));
        }
    }
    readable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(output: &[u8]) -> Result<Vec<Commit>> {
        let mut parser = LogParser::default();
        let mut commits = Vec::new();
        let tokens = output.strip_suffix(b"\0").unwrap_or(output).split(|&byte| byte == 0);
        for token in tokens {
            commits.extend(parser.token(token)?);
        }
        commits.extend(parser.finish()?);
        Ok(commits)
    }

    #[test]
    fn commits_of_all_kinds() {
        let output = b"\x01c1\0\0Ann\x00100\0one\0\n6\t0\ta\0-\t-\tbinary\0\
            \x01c2\0c1\0B\xffb\x00200\0rename\0\n0\t1\t\0\x01old\x001\t1\tnew\x002\t3\t\n5\t5\tx\0\
            \x01c3\0c1\0\0\0\0\
            \x01c4\0c2 c3\0Ann\x00400\0merge\0";
        let [first, second, third, fourth] = parse(output).unwrap().try_into().unwrap();
        assert_eq!((first.added, first.deleted, first.files), (6, 0, 2));
        assert_eq!((second.added, second.deleted, second.files), (2, 4, 2));
        assert_eq!(second.author, "B\\xffb");
        assert_eq!(third, Commit { sha: "c3".into(), parents: vec!["c1".into()], ..Commit::default() });
        assert!(fourth.is_merge() && !third.is_merge());
        assert_eq!(fourth.time.timestamp(), 400);
    }

    #[test]
    fn anything_else_is_an_error() {
        assert!(parse(b"3\t4\ta\0").is_err());
        assert!(parse(b"\x01c1\0\0Ann\x00100\0").unwrap_err().to_string().contains("ended in the middle"));
        let error = parse(b"\x01c1\0\0Ann\x00100\0one\0gpg: signature\0").unwrap_err();
        assert!(error.to_string().contains("gpg: signature"), "{error}");
    }

    #[test]
    fn impossible_dates_become_possible() {
        assert_eq!(time(b"").timestamp(), 0);
        assert_eq!(time(b"-5").timestamp(), 0);
        assert_eq!(time(b"9223372036854775807").to_rfc3339(), "9999-12-31T23:59:59+00:00");
    }

    #[test]
    fn different_names_stay_different() {
        let names: [&[u8]; 9] = [b"", b"\\", b"\\\\", b"\xff", b"\\xff", b"\\\\xff", b"\xfe", b"a\xffb\\", b"\xc3\xa4"];
        let readable: Vec<_> = names.map(readable).into();
        let expected = ["", "\\", "\\\\", "\\xff", "\\\\xff", "\\\\\\\\xff", "\\xfe", "a\\xffb\\\\", "ä"];
        assert_eq!(readable, expected);
    }

    #[test]
    fn a_subject_is_cut_between_characters() {
        assert_eq!(subject("ä".repeat(150).as_bytes()), "ä".repeat(100));
    }
}
