//! As much of HTTP as the tests need.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(20);

/// An answer: its status and its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends a request without a body.
#[track_caller]
pub(crate) fn request(address: &str, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, body: body.to_owned() }
}

/// Asks again and again until the answer is right.
#[track_caller]
pub(crate) fn eventually(address: &str, path: &str, right: impl Fn(&Answer) -> bool) {
    let due = Instant::now() + DEADLINE;
    loop {
        let answer = request(address, "GET", path);
        if right(&answer) {
            return;
        }
        assert!(Instant::now() < due, "{path} still answers {answer:?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks, outside of any runtime")]
fn pause() {
    std::thread::sleep(INTERVAL);
}
