use std::{fs::Metadata, path::PathBuf};

use crate::{Result, error::Problem, names::TableName};

/// The file of a database, as it was when a table in it was opened.
///
/// What has a file open goes on with it when its name is taken away or given to another one. Nobody else writes to it any more.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode, where the system has them. Where it has not, nobody can take away a file that is open.
type Identity = Option<(u64, u64)>;

impl DatabaseFile {
    /// `None` if there is no such file, which is so where what SQLite takes for files are none.
    pub(crate) async fn find(path: PathBuf) -> Option<Self> {
        let found = tokio::fs::metadata(&path).await.ok()?;
        Some(Self { identity: identity(&found), path })
    }

    /// Fails if the file is not there any more, or another one is.
    pub(crate) async fn check(&self, table: &TableName) -> Result<()> {
        let failed = |source| Problem::FileReplaced { table: table.to_string(), file: self.path.clone(), source };
        match tokio::fs::metadata(&self.path).await {
            Ok(found) if identity(&found) == self.identity => Ok(()),
            Ok(_) => Err(failed(None).into()),
            Err(error) => Err(failed(Some(error)).into()),
        }
    }
}

#[cfg(unix)]
fn identity(found: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;

    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(_found: &Metadata) -> Identity {
    None
}
