/// Why migrating failed; see the predicates for the causes a program may want to tell apart.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{action}")]
    Database { action: String, source: sqlx::Error },
    #[error("{action}: another session holds the lock; try again when it is done, or end it if it hangs")]
    Busy { action: String, source: Option<sqlx::Error> },
    #[error(
        "create the reflex tables: {tables} already there, and not made by reflex-migrations; \
         keep what is there and create tables with other names by the SQL from `reflex schema`"
    )]
    TableExists { tables: String },
    #[error(
        "check reflex migration {version} ({name}): it was applied with other SQL than this \
         program carries (checksum {applied} in the database, {carried} here); run the program \
         that applied it, or one whose migrations continue from there"
    )]
    Changed { version: i64, name: &'static str, applied: String, carried: String },
    #[error(
        "check reflex migration {version} ({name}): the database has it, but this program knows \
         none after {latest}; a newer program was here, so use its version of reflex-migrations"
    )]
    Newer { version: i64, name: String, latest: i64 },
}

impl Error {
    /// Whether a lock was not to be had within a minute: another process is migrating, or a
    /// transaction holds the tables. Trying again later may work.
    pub fn is_busy(&self) -> bool {
        matches!(*self.0, Kind::Busy { .. })
    }

    /// Whether a table that was to be created is there already, made by somebody else.
    pub fn is_table_exists(&self) -> bool {
        matches!(*self.0, Kind::TableExists { .. })
    }

    /// Whether an applied migration differs from the one this program carries.
    pub fn is_changed(&self) -> bool {
        matches!(*self.0, Kind::Changed { .. })
    }

    /// Whether the database has migrations that this program does not know.
    pub fn is_newer(&self) -> bool {
        matches!(*self.0, Kind::Newer { .. })
    }

    pub(crate) fn database(action: String, source: sqlx::Error) -> Self {
        Self(Box::new(Kind::Database { action, source }))
    }

    pub(crate) fn busy(action: String, source: Option<sqlx::Error>) -> Self {
        Self(Box::new(Kind::Busy { action, source }))
    }

    pub(crate) fn table_exists(names: &[&str]) -> Self {
        let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let noun = if names.len() == 1 { "table" } else { "tables" };
        let verb = if names.len() == 1 { "is" } else { "are" };
        let tables = format!("{noun} {} {verb}", quoted.join(" and "));
        Self(Box::new(Kind::TableExists { tables }))
    }

    pub(crate) fn changed(known: &crate::Migration, applied: &str) -> Self {
        Self(Box::new(Kind::Changed {
            version: known.version,
            name: known.name,
            applied: applied.to_owned(),
            carried: known.checksum(),
        }))
    }

    pub(crate) fn newer(version: i64, name: &str, latest: i64) -> Self {
        let name = name.to_owned();
        Self(Box::new(Kind::Newer { version, name, latest }))
    }
}
