use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

/// One numbered step of the schema, with the SQL that takes it and the SQL that reverts it.
pub struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    /// What `up` creates, and therefore must not find.
    pub(crate) tables: &'static [&'static str],
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

impl Migration {
    /// Its place in the order of migrations, from 1.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// What it is about, as in its file's name: `events_and_cursors`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The SQL that applies it: one or more statements, each ended by a semicolon.
    ///
    /// # Examples
    ///
    /// ```
    /// for migration in reflex_migrations::migrations::<sqlx::Sqlite>() {
    ///     assert!(migration.up_sql().starts_with("create table"));
    /// }
    /// ```
    pub fn up_sql(&self) -> &'static str {
        self.up
    }

    /// The SQL that reverts it, and so destroys the data in what it created.
    pub fn down_sql(&self) -> &'static str {
        self.down
    }

    /// The SHA-256 of [`up_sql`](Self::up_sql) as lowercase hex, which is recorded when it is
    /// applied.
    pub fn checksum(&self) -> String {
        let mut hex = String::new();
        for byte in Sha256::digest(self.up) {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
        }
        hex
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration").field("version", &self.version).field("name", &self.name).finish_non_exhaustive()
    }
}
