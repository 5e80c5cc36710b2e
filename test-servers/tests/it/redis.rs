use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use test_servers::Redis;

use crate::runs;

#[test]
#[ignore = "needs Redis: cargo xtask test"]
fn starts_with_settings_for_tests_and_those_given() {
    let server = Redis::options().setting("appendfsync", "always").setting("maxclients", "17").start().unwrap();
    for (setting, expected) in [("appendonly", "yes"), ("appendfsync", "always"), ("save", ""), ("maxclients", "17")] {
        let said = ask(&server, &format!("CONFIG GET {setting}"));
        assert_eq!(said.split("\r\n").nth(4), Some(expected), "{setting}: {said}");
    }
}

#[test]
#[ignore = "needs Redis: cargo xtask test"]
fn keeps_port_and_data_over_stop_kill_and_restart() {
    let server = Redis::start().unwrap();
    let url = server.url();
    assert_eq!(ask(&server, "INCR n"), ":1\r\n");
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
    assert!(TcpStream::connect(server.addr()).is_err());
    server.restart().unwrap();
    assert_eq!(ask(&server, "INCR n"), ":2\r\n");

    let pid = server.pid().unwrap();
    server.kill().unwrap();
    assert!(!runs(pid));
    server.restart().unwrap();
    server.restart().unwrap();
    assert_eq!((ask(&server, "INCR n").as_str(), server.url()), (":3\r\n", url));
}

#[test]
#[ignore = "needs Redis: cargo xtask test"]
fn drop_removes_process_and_folder() {
    let server = Redis::start().unwrap();
    let (pid, data) = (server.pid().unwrap(), server.data_dir());
    assert!(data.exists());
    drop(server);
    assert!(!runs(pid));
    assert!(!data.exists());
}

#[test]
#[ignore = "needs Redis: cargo xtask test"]
fn a_failed_start_tells_the_log() {
    let error = Redis::options().setting("no-such-directive", "1").start().unwrap_err().to_string();
    assert!(error.contains("no-such-directive"), "{error}");
}

#[test]
fn a_missing_program_fails_with_instructions() {
    let start = Command::new(env!("CARGO_BIN_EXE_test-server"))
        .arg("redis")
        .env("REFLEX_REDIS_BIN_DIR", "/nowhere")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(start.stderr).unwrap();
    assert!(!start.status.success());
    for part in ["/nowhere", "redis-server", "cargo xtask test", "apt-get install redis-server"] {
        assert!(said.contains(part), "{said}");
    }
}

/// Sends one inline command and reads the whole answer.
fn ask(server: &Redis, command: &str) -> String {
    let mut connection = TcpStream::connect(server.addr()).unwrap();
    connection.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut said = String::new();
    connection.read_to_string(&mut said).unwrap();
    said.strip_suffix("+OK\r\n").unwrap().to_owned()
}
