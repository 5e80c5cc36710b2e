//! The examples that end by themselves.

use std::process::Command;

/// What it prints.
#[track_caller]
fn run(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn check(program: &str, expected: &str) {
    assert_eq!(run(program), expected);
}

#[test]
fn testing() {
    check(env!("CARGO_BIN_EXE_testing"), "consumer `loyalty`: reached the head of the stream: ada has 17 points\n");
}

#[test]
fn custom_cursors() {
    let expected = "shipping order-1\n\
        consumer `ship`: reached the head of the stream\n\
        shipping order-2\n\
        consumer `ship`: reached the head of the stream\n\
        shipping order-3\n\
        consumer `ship`: reached the head of the stream\n\
        {\n  \"ship\": \"3\"\n}\n";
    check(env!("CARGO_BIN_EXE_custom_cursors"), expected);
}

#[test]
fn two_services() {
    let output = run(env!("CARGO_BIN_EXE_two_services"));
    let (mut starts, rest): (Vec<_>, Vec<_>) = output.lines().partition(|line| line.contains("health at"));
    starts.sort_unstable();
    let starts: Vec<_> = starts.iter().filter_map(|line| line.strip_suffix("/health")?.rsplit_once(':')).collect();
    let urls = starts.iter().map(|(url, port)| (*url, port.parse::<u16>().is_ok()));
    let expected = [("billing: health at http://127.0.0.1", true), ("orders: health at http://127.0.0.1", true)];
    assert_eq!(urls.collect::<Vec<_>>(), expected, "{output}");
    let expected = "billing: invoice for order 1\n\
        orders: order 1 is paid\n\
        billing: invoice for order 2\n\
        orders: order 2 is paid\n\
        billing: invoice for order 3\n\
        orders: order 3 is paid\n\
        billing: consumer `send-invoices` has done everything up to event 3\n\
        orders: consumer `place-next` has done everything up to event 3\n";
    assert_eq!(rest, expected.lines().collect::<Vec<_>>());
}
