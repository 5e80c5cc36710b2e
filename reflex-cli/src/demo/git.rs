//! The repository, through the program `git`.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
};

use super::log::{Commit, FORMAT, LogParser};

/// How much of what git complains about is kept.
const COMPLAINTS: u64 = 4 * 1024;
/// The longest field of a commit that is read as a whole; of a longer one, a subject most likely, only the end is kept.
const LONGEST_TOKEN: u64 = 1024 * 1024;

/// A git repository, bare or not.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    dir: Option<PathBuf>,
    git_dir: PathBuf,
}

impl Repository {
    /// Finds the repository that `dir` belongs to; the current directory's if there is none.
    ///
    /// # Errors
    ///
    /// If it is no repository, or git cannot be run.
    pub(crate) async fn find(dir: Option<&Path>) -> Result<Self> {
        let mut repository = Self { dir: dir.map(Path::to_owned), git_dir: PathBuf::new() };
        let place = repository.place();
        let output = run(repository.git(&["rev-parse", "--path-format=absolute", "--git-common-dir"])).await?;
        if !output.status.success() {
            let complaint = complaint(&output.stderr);
            bail!("read the git history of {place}: {complaint}; name a repository with --repo DIR");
        }
        repository.git_dir = path(output.stdout.trim_ascii_end())?;
        Ok(repository)
    }

    /// Where to look for it, in words.
    pub(crate) fn place(&self) -> String {
        match &self.dir {
            Some(dir) => dir.display().to_string(),
            None => "the current directory".to_owned(),
        }
    }

    /// The directory that git keeps the repository's data in; all work trees of a repository share it.
    pub(crate) fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The hash of the commit that HEAD names; `None` before the first commit.
    ///
    /// # Errors
    ///
    /// If git cannot tell.
    pub(crate) async fn head(&self) -> Result<Option<String>> {
        let output = run(self.git(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])).await?;
        match output.status.code() {
            Some(0) => Ok(Some(String::from_utf8_lossy(output.stdout.trim_ascii_end()).into_owned())),
            Some(1) if output.stderr.is_empty() => Ok(None),
            _ => bail!("read HEAD of {}: {}", self.place(), complaint(&output.stderr)),
        }
    }

    /// Where the history of a shallow clone is cut off; empty for others.
    ///
    /// # Errors
    ///
    /// If the file that says so cannot be read.
    pub(crate) async fn boundary(&self) -> Result<String> {
        let file = self.git_dir.join("shallow");
        match tokio::fs::read_to_string(&file).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            result => result.with_context(|| format!("read {}", file.display())),
        }
    }

    /// How many commits [`log`](Repository::log) would return.
    ///
    /// # Errors
    ///
    /// If git cannot tell.
    pub(crate) async fn count(&self, tip: &str, known: &[String]) -> Result<u64> {
        let mut git = self.git(&["rev-list", "--count", "--ignore-missing", "--stdin"]);
        git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut git)?;
        write_revisions(&mut child, tip, known).await?;
        let output = child.wait_with_output().await.context("wait for git")?;
        if !output.status.success() {
            bail!("count the commits of {}: {}", self.place(), complaint(&output.stderr));
        }
        let count = String::from_utf8_lossy(&output.stdout);
        count.trim().parse().with_context(|| format!("git counted {count:?} commits"))
    }

    /// Reads the commits of `tip` that are not among `known` and their ancestors, parents before children.
    ///
    /// # Errors
    ///
    /// If git cannot be run.
    pub(crate) async fn log(&self, tip: &str, known: &[String]) -> Result<Log> {
        let mut git = self.git(&["log", "-z", "--numstat", "--date-order", "--reverse", "--no-show-signature"]);
        git.args(["--encoding=UTF-8", FORMAT, "--ignore-missing", "--stdin"]);
        git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut git)?;
        write_revisions(&mut child, tip, known).await?;
        let stdout = child.stdout.take().context("the output of git was piped")?;
        let stderr = child.stderr.take().context("the errors of git were piped")?;
        Ok(Log {
            place: self.place(),
            child,
            stdout: BufReader::with_capacity(64 * 1024, stdout),
            stderr: Some(tokio::spawn(read_complaints(stderr))),
            token: Vec::new(),
            parser: Some(LogParser::default()),
        })
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut git = Command::new("git");
        if let Some(dir) = &self.dir {
            git.arg("-C").arg(dir);
            // Inside a hook these name the repository of the hook.
            for variable in ["GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
                git.env_remove(variable);
            }
        }
        // Complaints are read by users and by `head`, in one language; a Ctrl-C is for us to handle.
        git.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        git
    }
}

/// A running `git log`.
#[derive(Debug)]
pub(crate) struct Log {
    place: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    token: Vec<u8>,
    parser: Option<LogParser>,
}

impl Log {
    /// Reads the next commit; `None` after the last.
    ///
    /// # Errors
    ///
    /// If git fails, or prints what is not understood.
    pub(crate) async fn next(&mut self) -> Result<Option<Commit>> {
        while let Some(parser) = &mut self.parser {
            self.token.clear();
            let mut limited = (&mut self.stdout).take(LONGEST_TOKEN);
            let read = limited.read_until(0, &mut self.token).await;
            let read = read.with_context(|| format!("read the git history of {}", self.place))?;
            if read == 0 {
                return self.finish().await;
            }
            let Some(token) = self.token.strip_suffix(b"\0") else {
                continue;
            };
            let commit = parser.token(token);
            if let Some(commit) = commit.with_context(|| format!("read the git history of {}", self.place))? {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    /// The last commit is only complete if git says so.
    async fn finish(&mut self) -> Result<Option<Commit>> {
        let status = self.child.wait().await.context("wait for git")?;
        let complaints = match self.stderr.take() {
            Some(stderr) => stderr.await.context("read what git complains about")?,
            None => Vec::new(),
        };
        if !status.success() {
            bail!("read the git history of {}: {status}: {}", self.place, complaint(&complaints));
        }
        match self.parser.take() {
            Some(parser) => parser.finish(),
            None => Ok(None),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(stderr) = &self.stderr {
            stderr.abort();
        }
    }
}

fn spawn(git: &mut Command) -> Result<Child> {
    git.spawn().context("run git: is it installed?")
}

async fn run(mut git: Command) -> Result<Output> {
    git.output().await.context("run git: is it installed?")
}

async fn write_revisions(child: &mut Child, tip: &str, known: &[String]) -> Result<()> {
    let mut revisions = format!("{tip}\n");
    for sha in known {
        revisions.push_str(&format!("^{sha}\n"));
    }
    let mut stdin = child.stdin.take().context("the input of git was piped")?;
    match stdin.write_all(revisions.as_bytes()).await {
        // Git ended early: what it says about it comes with its exit code.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("tell git which commits to read"),
    }
}

async fn read_complaints(mut stderr: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    // Errors only shorten the message. The rest is read so that git never waits for us.
    let _ = (&mut stderr).take(COMPLAINTS).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    kept
}

/// What git said, in one line.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "git gives no reason".to_owned() } else { lines.join(" ") }
}

fn path(bytes: &[u8]) -> Result<PathBuf> {
    if bytes.is_empty() {
        bail!("git did not say where the repository is");
    }
    Ok(PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes)))
}
