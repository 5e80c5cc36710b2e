use std::fs;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};
use crate::wait::wait_until;

const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Sends a signal to a child that has not been waited for, so its id is certainly still its own.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill_process(Pid::from_child(child), signal)
        .map_err(|e| Error::io(format!("send {signal:?} to process {}", child.id()), e.into()))
}

/// Waits for the child's end; false if it does not end within `limit`.
pub(crate) fn ends_within(child: &mut Child, limit: Duration) -> Result<bool> {
    let mut outcome = Ok(None);
    wait_until(limit, || {
        outcome = child.try_wait();
        !matches!(outcome, Ok(None))
    });
    let status = outcome.map_err(|e| Error::io(format!("wait for process {}", child.id()), e))?;
    Ok(status.is_some())
}

/// Kills the child and its own children, as a power cut would, and waits until all are gone.
pub(crate) fn kill_with_children(child: &mut Child) -> Result<()> {
    // Stopped first, because it could otherwise fork between the listing and its death.
    signal(child, Signal::STOP)?;
    let pid = child.id();
    let attempt = || format!("kill process {pid}");
    let children = children_of(pid);
    child.kill().map_err(|e| Error::io(attempt(), e))?;
    child.wait().map_err(|e| Error::io(attempt(), e))?;
    for grandchild in &children {
        // An error means that it has ended by itself after its parent's death.
        let _ended = kill_process(*grandchild, Signal::KILL);
    }
    if wait_until(KILL_LIMIT, || !children.iter().any(|pid| is_alive(*pid))) {
        return Ok(());
    }
    Err(Error::new(format!("{}: its children {children:?} are still there", attempt())))
}

fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process.
fn stat(pid: Pid) -> Option<(char, u32)> {
    let line = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The program's name comes before, in brackets, and may hold anything.
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn kills_grandchildren_too() {
        let script = "sleep 1000 & sleep 1000 & wait";
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        assert!(wait_until(Duration::from_secs(10), || children_of(child.id()).len() == 2));
        let children = children_of(child.id());
        kill_with_children(&mut child).unwrap();
        assert!(children.iter().all(|pid| !is_alive(*pid)));
    }
}
