//! What the figures were measured on.

use std::{
    fmt, fs,
    fs::File,
    io::{self, Write},
    path::Path,
    thread,
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::measure::median;

const FLUSHES: usize = 200;
/// As large as a page of a write-ahead log.
const BLOCK: [u8; 8192] = [1; 8192];

/// The machine, its disk, and the servers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_gb: f64,
    kernel: String,
    /// The median of what it takes to write and flush 8 KiB.
    flush_ms: f64,
    pub(crate) servers: Vec<String>,
    /// Of one minute, before the first row and after the last: on a quiet machine the first is near 0.
    load: [String; 2],
}

impl Machine {
    /// Looks at the machine and at the disk that holds `folder`.
    pub(crate) fn inspect(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: thread::available_parallelism()?.get(),
            memory_gb: bytes("/proc/meminfo", "MemTotal").unwrap_or_default() as f64 / 1e9,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            flush_ms: flush_ms(folder)?,
            servers: Vec::new(),
            load: [load(), String::new()],
        })
    }

    pub(crate) fn note_load(&mut self) {
        self.load[1] = load();
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory_gb, kernel, flush_ms, servers, load: [before, after] } = self;
        writeln!(f, "{cores} cores of {processor}, {memory_gb:.0} GB, Linux {kernel}; {}.", servers.join("; "))?;
        writeln!(f, "Writing and flushing 8 KiB takes {flush_ms:.2} ms. Load before: {before}, after: {after}.")
    }
}

/// The most memory that this process ever occupied, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    bytes("/proc/self/status", "VmHWM")
}

fn flush_ms(folder: &Path) -> io::Result<f64> {
    let mut file = File::create(folder.join("flush"))?;
    let mut times = Vec::new();
    for _ in 0..FLUSHES {
        let began = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times).unwrap_or_default())
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn bytes(path: &str, name: &str) -> Option<u64> {
    from_kib(&field(path, name)?)
}

/// The kernel writes kB where it means KiB.
fn from_kib(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The value of the first line `name: value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(from_kib("97660 kB"), Some(100_003_840));
        assert_eq!(from_kib("97660"), None);
    }
}
