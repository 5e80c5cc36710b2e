//! Git repositories for tests, and what git itself says about them.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::reflex::{fail, objects, reflex, succeed};

pub(crate) struct Repository {
    folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

/// Commits, lines added and lines deleted per author.
pub(crate) type Totals = BTreeMap<Vec<u8>, [u64; 3]>;

impl Repository {
    /// Without a commit.
    pub(crate) fn empty(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repository");
        let repository = Self { folder, path };
        let mut init = git_command();
        succeed(init.args(["init", "--quiet", "--initial-branch=main"]).args(options).arg(&repository.path));
        repository
    }

    /// With the history that this stream for `git fast-import` describes.
    pub(crate) fn import(stream: &[u8], options: &[&str]) -> Self {
        let repository = Self::empty(options);
        let mut import = repository.git(&["fast-import", "--quiet", "--date-format=raw-permissive"]);
        let mut child = import.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stream).unwrap();
        assert!(child.wait().unwrap().success());
        if !options.contains(&"--bare") {
            // The mailmap counts as it is in the work tree.
            succeed(&mut repository.git(&["reset", "--quiet", "--hard"]));
        }
        repository
    }

    /// A clone of this one.
    pub(crate) fn clone_with(&self, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clone");
        let url = format!("file://{}", self.path.display());
        succeed(git_command().args(["clone", "--quiet"]).args(options).arg(url).arg(&path));
        Self { folder, path }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> Command {
        let mut git = git_command();
        git.arg("-C").arg(&self.path).args(arguments);
        git
    }

    pub(crate) fn commit(&self) {
        succeed(&mut self.git(&["commit", "--quiet", "--allow-empty", "--message=more"]));
    }

    pub(crate) fn demo(&self, arguments: &[&str]) -> Command {
        let mut demo = reflex(&["demo", "--repo"]);
        demo.arg(&self.path).args(arguments);
        demo
    }

    /// Runs the demo to its end and returns what it reports.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        objects(&succeed(&mut self.demo(&["--json"]))).remove(0)
    }

    #[track_caller]
    pub(crate) fn demo_fails(&self) -> String {
        fail(&mut self.demo(&[]), 1)
    }

    /// What `git shortlog -sn` and `git log --numstat` say.
    pub(crate) fn totals(&self) -> Totals {
        let shortlog = self.git(&["shortlog", "-sn", "HEAD"]).output().unwrap().stdout;
        let mut totals = Totals::new();
        for line in lines(&shortlog) {
            let tab = line.iter().position(|&byte| byte == b'\t').unwrap();
            let commits = str::from_utf8(&line[..tab]).unwrap().trim().parse().unwrap();
            totals.insert(line[tab + 1..].to_vec(), [commits, 0, 0]);
        }
        let log = self.git(&["log", "--numstat", "--format=author %aN", "HEAD"]).output().unwrap().stdout;
        let mut author = Vec::new();
        for line in lines(&log) {
            if let Some(name) = line.strip_prefix(b"author ") {
                author = name.to_vec();
            } else if let [added, deleted, _] = line.splitn(3, |&byte| byte == b'\t').collect::<Vec<_>>()[..] {
                let [_, all_added, all_deleted] = totals.get_mut(&author).unwrap();
                *all_added += number(added);
                *all_deleted += number(deleted);
            }
        }
        totals
    }

    pub(crate) fn count(&self, options: &[&str]) -> u64 {
        succeed(self.git(&["rev-list", "--count"]).args(options).arg("HEAD")).trim().parse().unwrap()
    }
}

fn lines(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    output.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

/// Binary files have a dash.
fn number(count: &[u8]) -> u64 {
    str::from_utf8(count).unwrap().parse().unwrap_or(0)
}

fn git_command() -> Command {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "Test").env(format!("GIT_{role}_EMAIL"), "test@example.com");
    }
    git.stdin(Stdio::null());
    git
}
