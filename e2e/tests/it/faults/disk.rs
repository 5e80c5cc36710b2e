use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use reflex_e2e::Backend;
use sqlx::Sqlite;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{
    Drill, Fault, Runs, drill,
    server::{Server, begin, on},
};
use crate::support::{Namespace, PATIENCE};

/// Room for a fresh server, and for a file, and for what a drill writes.
const SERVER_MEGABYTES: u32 = 700;
const FILE_MEGABYTES: u32 = 100;
/// Rows that a full disk has no room for, sooner or later.
const ROWS: i64 = 2_000;

/// A drill in which the disk of a server is full.
pub(super) async fn disk_full<D: Backend, S: Server>() {
    let Some(disk) = SmallDisk::mount(SERVER_MEGABYTES) else { return };
    let server = begin::<S>(Some(disk.path())).await;
    let namespace = Namespace::<D>::alone(&server.url(), "full").await;
    Box::pin(drill(&namespace, Full { server: Some(server), disk, spent: false })).await;
}

/// A drill in which the disk of a SQLite file is full.
pub(super) async fn sqlite_disk_full() {
    let Some(disk) = SmallDisk::mount(FILE_MEGABYTES) else { return };
    let namespace = Namespace::<Sqlite>::sqlite_in(disk.path()).await;
    let server = None::<Arc<test_servers::Postgres>>;
    Box::pin(drill(&namespace, Full { server, disk, spent: false })).await;
    namespace.remove().await;
}

/// No room is left for anything, until somebody makes some.
struct Full<S> {
    /// It ends before its disk goes.
    server: Option<Arc<S>>,
    disk: SmallDisk,
    /// What was written meanwhile takes half of the disk: filled by that, it could not be cleared.
    spent: bool,
}

impl<D: Backend, S: Server> Fault<D> for Full<S> {
    const NAME: &'static str = "disk full";
    const RUNS: Runs = Runs::MayFail;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let refused = async { while self.disk.fill().is_ok() && drill.insert(ROWS).await.is_ok() {} };
        timeout(PATIENCE, refused).await.expect("a full disk takes no more rows");
        self.spent = self.disk.free() < self.disk.bytes / 2;
        let recovered = timeout(Duration::from_secs(5), async {
            while drill.insert(1).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        });
        if recovered.await.is_err() {
            let server = self.server.as_ref().expect("SQLite recovers by itself");
            on(server, S::start_again).await;
        }
        1
    }

    fn is_spent(&self) -> bool {
        self.spent
    }
}

/// A file system of its own, small and in memory.
struct SmallDisk {
    folder: TempDir,
    bytes: u64,
}

impl SmallDisk {
    /// None, with a word to the person at the screen, where this may not be mounted.
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=1777"), "tmpfs"]).arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self { folder, bytes: u64::from(megabytes) << 20 }),
            refused => {
                eprintln!("not run: a full disk needs the right to mount a tmpfs: {refused:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all the room that is left.
    fn fill(&self) -> std::io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        for block in [vec![0; 1 << 20], vec![0; 1 << 12]] {
            while ballast.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again, and returns how much that is.
    fn free(&self) -> u64 {
        let bytes = fs::metadata(self.ballast()).unwrap().len();
        fs::remove_file(self.ballast()).unwrap();
        bytes
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: somebody may still have a file open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).output();
        if !unmounted.is_ok_and(|output| output.status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}
