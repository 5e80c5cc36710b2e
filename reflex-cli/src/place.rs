//! Which database an error is about, and what to do about an SQLite file that cannot be used.

use std::{
    fmt::{self, Display, Formatter},
    fs::{self, File},
    io::ErrorKind,
    path::Path,
};

use sqlx::{error::DatabaseError, sqlite::SqliteError};

use crate::{address::Address, exit::Absent};

const SQLITE_READONLY: i32 = 8;
const SQLITE_CANTOPEN: i32 = 14;

/// What a command does with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// Writes, and creates an SQLite file that is missing.
    Create,
}

/// A database and what is done with it: the context of an error that comes from there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) access: Access,
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Place {
    /// Names the database in an error, unless that is about something else, such as the output.
    pub(crate) fn name_in(&self, error: anyhow::Error) -> anyhow::Error {
        let from_database = error.chain().any(|error| {
            error.is::<sqlx::Error>()
                || error.is::<reflex_sql::Error>()
                || error.is::<reflex_migrations::Error>()
                || error.is::<Absent>()
        });
        if from_database { error.context(self.clone()) } else { error }
    }
}

/// What to do about an SQLite file that cannot be opened or written, which its errors do not say.
pub(crate) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let Place { address: Address::Sqlite(options), access } = error.downcast_ref()? else {
        return None;
    };
    let cause = error.chain().find_map(|error| error.downcast_ref::<sqlx::Error>())?.as_database_error()?;
    let code: i32 = cause.try_downcast_ref::<SqliteError>()?.code()?.parse().ok()?;
    // The lower byte tells what it is about, the rest the details.
    if !matches!(code & 0xff, SQLITE_READONLY | SQLITE_CANTOPEN) {
        return None;
    }
    advice(*access, Found::at(options.get_filename()))
}

/// What is found where an SQLite file should be.
#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    Directory,
    File,
    /// A file that this user may not read.
    Unreadable,
    Other,
}

impl Found {
    fn at(path: &Path) -> Self {
        match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Nothing,
            Ok(metadata) if metadata.is_dir() => Self::Directory,
            Ok(metadata) if metadata.is_file() => match File::open(path) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Self::Unreadable,
                _ => Self::File,
            },
            _ => Self::Other,
        }
    }
}

fn advice(access: Access, found: Found) -> Option<&'static str> {
    match (found, access) {
        (Found::Nothing, _) => Some("the file does not exist yet, and its folder must be writable to create it"),
        (Found::Directory, _) => Some("it is a directory: name a file in it"),
        (Found::Unreadable, _) => Some("you may not read the file"),
        // A copy would be written instead of the file.
        (Found::File, Access::Write | Access::Create) => {
            Some("the file and its folder must be writable, and --database-url without mode=ro")
        }
        (Found::File, Access::Read) => {
            Some("SQLite in WAL mode needs a writable folder, also for reading: copy the file elsewhere")
        }
        (Found::Other, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{OutputClosed, chain};

    fn shop(access: Access) -> Place {
        Place { address: Address::parse("postgres://u:secret@h:1/shop").unwrap(), access }
    }

    #[test]
    fn an_error_from_the_database_names_it() {
        let place = shop(Access::Read);
        let error = place.name_in(anyhow::Error::from(sqlx::Error::RowNotFound).context("look up"));
        let text = chain(error.chain());
        assert!(text.starts_with("PostgreSQL at h:1, database `shop`: look up: "), "{text}");
        let absent = place.name_in(Absent("consumer `a` has no cursor".to_owned()).into());
        assert_eq!(chain(absent.chain()), "PostgreSQL at h:1, database `shop`: consumer `a` has no cursor");
        let output = place.name_in(std::io::Error::from(ErrorKind::StorageFull).into());
        assert!(!output.is::<Place>() && !place.name_in(OutputClosed.into()).is::<Place>());
    }

    #[test]
    fn a_copy_is_advised_only_for_reading_a_file() {
        let all = [Found::Nothing, Found::Directory, Found::File, Found::Unreadable, Found::Other];
        for access in [Access::Read, Access::Write, Access::Create] {
            let copy = all.map(|found| advice(access, found).is_some_and(|advice| advice.contains("copy")));
            assert_eq!(copy, [false, false, access == Access::Read, false, false], "{access:?}");
        }
    }

    #[test]
    fn advice_fits_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        assert!(advice(Access::Create, Found::at(&file)).unwrap().contains("folder must be writable"));
        fs::write(&file, "").unwrap();
        assert!(advice(Access::Write, Found::at(&file)).unwrap().contains("file and its folder must be writable"));
        assert!(advice(Access::Write, Found::at(folder.path())).unwrap().contains("is a directory"));
        assert_eq!(advice(Access::Read, Found::at(Path::new("/dev/null"))), None);
    }
}
