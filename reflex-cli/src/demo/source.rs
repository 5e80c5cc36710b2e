//! Where the events come from.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    data::{Data, Kind},
    git::Repository,
    import, lines,
};
use crate::{args::DemoArgs, progress};

/// A git history or a file of JSON lines.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Git(Repository),
    Lines(PathBuf),
}

impl Source {
    /// Finds what the command line asks for.
    ///
    /// # Errors
    ///
    /// If there is no such repository or file.
    pub(crate) async fn find(args: &DemoArgs) -> Result<Self> {
        let Some(file) = &args.file else {
            let repository = Repository::find(args.repo.as_deref()).await?;
            // Asked for a running demo, the first commit is worth waiting for.
            if args.serve.is_none() && repository.head().await?.is_none() {
                bail!(
                    "the git repository of {} has no commits yet: make one, or name another with --repo DIR",
                    repository.place()
                );
            }
            return Ok(Self::Git(repository));
        };
        let metadata = tokio::fs::metadata(file).await.with_context(|| format!("read {}", file.display()))?;
        if !metadata.is_file() {
            bail!("read {}: --file needs an ordinary file", file.display());
        }
        Ok(Self::Lines(file.clone()))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Git(_) => Kind::Git,
            Self::Lines(_) => Kind::Lines,
        }
    }

    /// The data file: the one asked for, or one beside the source.
    pub(crate) fn data_file(&self, asked: Option<PathBuf>) -> PathBuf {
        asked.unwrap_or_else(|| match self {
            Self::Git(repository) => repository.git_dir().join("reflex-demo.sqlite"),
            Self::Lines(file) => beside(file),
        })
    }

    /// Where the events come from, in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Git(repository) => repository.git_dir().display().to_string(),
            Self::Lines(file) => file.display().to_string(),
        }
    }

    /// Imports what is new, with a progress bar, and returns how many events it is.
    ///
    /// # Errors
    ///
    /// If the source cannot be read or the data file cannot be written. What was imported before stays.
    ///
    /// # Cancel safety
    ///
    /// What was imported before the future was dropped stays.
    pub(crate) async fn import(&self, data: &Data) -> Result<u64> {
        let bar = match self {
            Self::Git(_) => progress::bar("importing"),
            Self::Lines(_) => progress::bytes("importing"),
        };
        let imported = match self {
            Self::Git(repository) => import::import(repository, data, &bar).await,
            Self::Lines(file) => lines::import(file, data, &bar, false).await,
        };
        bar.finish_and_clear();
        imported
    }

    /// Imports what is new since the last time, while the source is being written.
    ///
    /// # Errors
    ///
    /// As [`import`](Source::import).
    ///
    /// # Cancel safety
    ///
    /// As [`import`](Source::import).
    pub(crate) async fn import_live(&self, data: &Data) -> Result<u64> {
        let bar = indicatif::ProgressBar::hidden();
        match self {
            Self::Git(repository) => import::import(repository, data, &bar).await,
            Self::Lines(file) => lines::import(file, data, &bar, true).await,
        }
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".reflex.sqlite");
    name.into()
}
