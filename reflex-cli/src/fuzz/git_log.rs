use anyhow::Result;

use crate::demo::log::{Commit, LogParser, readable};

/// The longest subject that is kept, in bytes.
const LONGEST_SUBJECT: usize = 200;
/// How many fields a commit has before its files.
const FIELDS: usize = 5;

/// What is read as commits is printed, as git does it, as what is read as the same commits; without its end it is refused. What
/// git does not print is refused by a message that is one line. Different names stay different.
pub(crate) fn git_log(data: &[u8]) {
    for name in data.split(|byte| *byte == 0) {
        assert_eq!(unreadable(&readable(name)), name);
    }
    match parse(data) {
        Ok(commits) => check_commits(&commits),
        Err(error) => {
            let message = format!("{error:#}");
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
}

fn check_commits(commits: &[Commit]) {
    for commit in commits {
        assert!(commit.subject.len() <= LONGEST_SUBJECT, "{commit:?}");
        assert_eq!(commit.time.to_rfc3339().len(), "2000-01-01T00:00:00+00:00".len(), "{commit:?}");
        check_cuts(&print(commit));
    }
    let printed = commits.iter().flat_map(print).collect::<Vec<_>>().concat();
    let again = parse(&printed).unwrap_or_else(|error| panic!("{error:#}: {}", printed.escape_ascii()));
    assert_eq!(again, commits);
}

/// A commit may end before each of its files, of which the last has three tokens.
fn check_cuts(tokens: &[Vec<u8>]) {
    for end in 1..tokens.len() {
        let is_whole = (FIELDS..=tokens.len().saturating_sub(3)).contains(&end);
        assert_eq!(parse(&tokens[..end].concat()).is_ok(), is_whole, "{end} of {tokens:?}");
    }
}

/// Reads tokens like the demo, which leaves out what has no end.
fn parse(output: &[u8]) -> Result<Vec<Commit>> {
    let mut parser = LogParser::default();
    let mut commits = Vec::new();
    for token in output.split_inclusive(|byte| *byte == 0).filter_map(|token| token.strip_suffix(b"\0")) {
        commits.extend(parser.token(token)?);
    }
    commits.extend(parser.finish()?);
    Ok(commits)
}

/// The tokens of a commit. Its last file is a renamed one, and all but that have as many lines.
fn print(commit: &Commit) -> Vec<Vec<u8>> {
    let sha = format!("\x01{}", commit.sha).into_bytes();
    let (parents, time) = (commit.parents.join(" "), commit.time.timestamp().to_string());
    let author = unreadable(&commit.author);
    let mut tokens = vec![sha, parents.into(), author, time.into(), commit.subject.clone().into()];
    for file in 1..=commit.files {
        let start = if file == 1 { "\n" } else { "" };
        let [added, deleted] = [commit.added, commit.deleted].map(|all| lines(all, file, commit.files));
        let name = if file == commit.files { "" } else { "name" };
        tokens.push(format!("{start}{added}\t{deleted}\t{name}").into());
    }
    if commit.files > 0 {
        tokens.extend(["old".into(), "new".into()]);
    }
    for token in &mut tokens {
        token.push(0);
    }
    tokens
}

fn lines(all: u64, file: u64, files: u64) -> u64 {
    let share = all / files;
    if file == files { all - share * (files - 1) } else { share }
}

/// The bytes that were made readable.
fn unreadable(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    if !text.contains("\\x") {
        return rest.to_vec();
    }
    let mut bytes = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => (hexadecimal(*high) << 4 | hexadecimal(*low), after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

fn hexadecimal(digit: u8) -> u8 {
    let digit = char::from(digit).to_digit(16).and_then(|digit| digit.try_into().ok());
    digit.expect("it is a digit")
}
