use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where to look for the programs of one database, and what to tell if they are not there.
#[derive(Debug)]
pub(crate) struct Programs {
    /// An environment variable with the folders to search instead of the usual ones.
    pub(crate) variable: &'static str,
    /// The Debian package.
    pub(crate) package: &'static str,
    /// Folders outside PATH in which distributions put them.
    pub(crate) usual: fn() -> Vec<PathBuf>,
}

impl Programs {
    /// The path of the first of `names` found.
    pub(crate) fn find(&self, names: &[&str]) -> Result<PathBuf> {
        find_in(&self.folders(), names).ok_or_else(|| self.missing(names))
    }

    fn folders(&self) -> Vec<PathBuf> {
        if let Some(folders) = env::var_os(self.variable) {
            return env::split_paths(&folders).collect();
        }
        let path = env::var_os("PATH").unwrap_or_default();
        (self.usual)().into_iter().chain(env::split_paths(&path)).collect()
    }

    fn missing(&self, names: &[&str]) -> Error {
        let Self { variable, package, .. } = self;
        Error::new(format!(
            "find the program `{}`: it is in none of {:?}; run `cargo xtask test` as root to install it, \
             or install the package `{package}` (apt-get install {package}), or set {variable} to its folder",
            names.join("` or `"),
            self.folders(),
        ))
    }
}

/// The Debian folders of PostgreSQL's programs, newest version first.
pub(crate) fn debian_postgres_folders() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut versions: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

/// System folders that are often not in an ordinary user's PATH.
pub(crate) fn system_folders() -> Vec<PathBuf> {
    ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from).to_vec()
}

fn find_in(folders: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).find(|path| Path::is_file(path))
}
