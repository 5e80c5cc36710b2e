use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};
use crate::user::User;

/// Environment variables that programs in a sandbox keep.
const KEPT_VARIABLES: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// Writes down the process id, then becomes the program. The folder is gone if the guardian
/// has cleaned up already, and then the program does not start.
const LAUNCH: &str = r#": > "$0/pids/$$" && exec "$@""#;

/// Makes the folder, tells its path, and waits until its input ends, which happens however the
/// owner dies. Then it ends the process groups that are still written down and removes the
/// folder. It makes the folder itself, so that there is no moment in which nobody watches it.
const GUARD: &str = r#"
trap '' HUP INT PIPE TERM
folder=$(mktemp -d "$0XXXXXX" 2>&1) || { echo "$folder"; exit 1; }
mkdir "$folder/pids"
echo "$folder"
exec > /dev/null
cat
for file in "$folder"/pids/*; do
    [ -e "$file" ] || continue
    group=${file##*/}
    kill -s QUIT -- "-$group" || continue
    tries=0
    while kill -s 0 -- "-$group" && [ $tries -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL -- "-$group"
done
tries=0
until rm -rf -- "$folder"; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || exit 1
    sleep 0.1
done
"#;

/// A temporary folder in which programs run, guarded by a process of its own.
///
/// The guardian outlives this process whatever ends it, SIGKILL included, and then stops what
/// still runs in the folder and removes it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    folder: PathBuf,
    user: Option<User>,
    guardian: Child,
}

impl Sandbox {
    /// A new folder whose programs run as `account` if this process is root.
    pub(crate) fn new(name: &str, account: &str) -> Result<Self> {
        Self::new_in(&env::temp_dir(), name, account)
    }

    /// As [`new`](Self::new), in this folder instead of the one for temporary files.
    pub(crate) fn new_in(parent: &Path, name: &str, account: &str) -> Result<Self> {
        let user = User::for_server(account)?;
        let (guardian, folder) = guard(parent, name)?;
        // From here on dropping it removes the folder.
        let sandbox = Self { folder, user, guardian };
        hand_over(&sandbox.folder, user)
            .map_err(|e| Error::io(format!("prepare the folder {}", sandbox.folder.display()), e))?;
        Ok(sandbox)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file that the sandbox's programs can read.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(|e| Error::io(format!("write {}", path.display()), e))
    }

    /// A program that starts in the folder, in a process group of its own, so that a Ctrl-C in
    /// the terminal does not reach it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(LAUNCH).arg(&self.folder).arg(program);
        command.current_dir(&self.folder).process_group(0).stdin(Stdio::null()).env_clear();
        command.env("HOME", &self.folder).env("TMPDIR", &self.folder).env("LC_ALL", "C.UTF-8");
        command.envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Runs a program of [`command`](Self::command) to its end.
    pub(crate) fn run(&self, mut command: Command, attempt: &str) -> Result<()> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|e| Error::io(attempt, e))?;
        let pid = child.id();
        let output = child.wait_with_output().map_err(|e| Error::io(attempt, e))?;
        self.forget(pid)?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Err(Error::new(format!("{attempt}: {}; it said:\n{}", output.status, said.concat())))
    }

    /// Tells the guardian that a process has ended and its id may be somebody else's.
    pub(crate) fn forget(&self, pid: u32) -> Result<()> {
        let note = self.path("pids").join(pid.to_string());
        match fs::remove_file(&note) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", note.display()), e)),
            _ => Ok(()),
        }
    }
}

impl Drop for Sandbox {
    #[expect(clippy::print_stderr, reason = "a drop has no other way to report")]
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        match self.guardian.wait() {
            Ok(status) if status.success() => {}
            ended => eprintln!("remove {}: the guardian ended with {ended:?}", self.folder.display()),
        }
    }
}

fn hand_over(folder: &Path, user: Option<User>) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    chown(folder.join("pids"), Some(user.uid), Some(user.gid))?;
    chown(folder, Some(user.uid), Some(user.gid))
}

/// Starts a guardian and waits until it has made its folder.
fn guard(parent: &Path, name: &str) -> Result<(Child, PathBuf)> {
    let attempt = || format!("make a folder in {} with a guardian", parent.display());
    let mut guardian = Command::new("sh")
        .args(["-c", GUARD])
        .arg(parent.join(format!("reflex-{name}-")))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Error::io(attempt(), e))?;
    let mut said = String::new();
    let answers = guardian.stdout.take().expect("its output is a pipe");
    BufReader::new(answers).read_line(&mut said).map_err(|e| Error::io(attempt(), e))?;
    let folder = PathBuf::from(said.trim_end());
    if folder.join("pids").is_dir() {
        return Ok((guardian, folder));
    }
    drop(guardian.stdin.take());
    guardian.wait().map_err(|e| Error::io(attempt(), e))?;
    Err(Error::new(format!("{}: {}", attempt(), said.trim_end())))
}
