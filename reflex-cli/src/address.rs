use std::{
    fmt::{self, Display, Formatter},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result};
use sqlx::{mysql::MySqlConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use crate::exit::Usage;

/// What a database URL names.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Postgres(PgConnectOptions),
    MySql(MySqlConnectOptions),
    Sqlite(SqliteConnectOptions),
}

const SCHEMES: &str = "postgres://, mysql://, mariadb:// or sqlite:";

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// If it names no database. The message says what would, and has no password in it.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "postgres" | "postgresql" => postgres(url).map(Self::Postgres),
            "mysql" => mysql(url).map(Self::MySql),
            "mariadb" => mysql(&url.replacen("mariadb", "mysql", 1)).map(Self::MySql),
            "sqlite" => sqlite(url).map(Self::Sqlite),
            "" => Err(usage(format!("--database-url has no scheme: it must begin with {SCHEMES}"))),
            scheme => {
                let problem = format!("--database-url begins with `{scheme}:`, which is unknown");
                Err(usage(format!("{problem}: it must begin with {SCHEMES}")))
            }
        }
    }
}

/// Names the database for a message, without user and password.
impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(options) => {
                let server = server(options.get_socket(), options.get_host(), options.get_port());
                write!(f, "PostgreSQL at {server}{}", database(options.get_database()))
            }
            Self::MySql(options) => {
                let server = server(options.get_socket(), options.get_host(), options.get_port());
                write!(f, "MySQL or MariaDB at {server}{}", database(options.get_database()))
            }
            Self::Sqlite(options) => write!(f, "SQLite file {}", options.get_filename().display()),
        }
    }
}

fn server(socket: Option<&PathBuf>, host: &str, port: u16) -> String {
    socket.map_or_else(|| format!("{host}:{port}"), |socket| socket.display().to_string())
}

fn database(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(", database `{name}`"))
}

fn postgres(url: &str) -> Result<PgConnectOptions> {
    let options = parse::<PgConnectOptions>(url, "postgres://user:password@host:5432/database")?;
    if options.get_host().is_empty() && options.get_socket().is_none() {
        let problem = "--database-url names no host: write it like postgres://user:password@host:5432/database";
        return Err(usage(problem.to_owned()));
    }
    Ok(options)
}

fn mysql(url: &str) -> Result<MySqlConnectOptions> {
    let options = parse::<MySqlConnectOptions>(url, "mysql://user:password@host:3306/database")?;
    if options.get_database().is_none() {
        let problem = "--database-url names no database: write it like mysql://user:password@host:3306/database";
        return Err(usage(problem.to_owned()));
    }
    Ok(options)
}

fn sqlite(url: &str) -> Result<SqliteConnectOptions> {
    let no_file = || usage("--database-url names no file: write it like sqlite:path/to/file.db".to_owned());
    if !names_file(url) {
        return Err(no_file());
    }
    let options = parse::<SqliteConnectOptions>(url, "sqlite:path/to/file.db")?;
    // Escapes are resolved only here.
    if options.get_filename() == Path::new(":memory:") {
        return Err(no_file());
    }
    Ok(options)
}

/// A database in memory would be gone with the command.
fn names_file(url: &str) -> bool {
    let name = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let (path, parameters) = name.split_once('?').unwrap_or((name, ""));
    !path.is_empty() && path != ":memory:" && !parameters.split('&').any(|parameter| parameter == "mode=memory")
}

fn usage(problem: String) -> anyhow::Error {
    Usage(problem).into()
}

fn parse<O: FromStr<Err = sqlx::Error>>(url: &str, example: &str) -> Result<O> {
    O::from_str(url).with_context(|| Usage(format!("--database-url cannot be read: write it like {example}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_name(url: &str, expected: &str) {
        assert_eq!(Address::parse(url).unwrap().to_string(), expected);
    }

    #[test]
    fn a_database_is_named_without_user_and_password() {
        check_name("postgres://u:secret@h:5433/shop", "PostgreSQL at h:5433, database `shop`");
        check_name("postgres://u:secret@h", "PostgreSQL at h:5432");
        check_name("mariadb://u:secret@h/shop", "MySQL or MariaDB at h:3306, database `shop`");
        check_name("mysql://u:secret@h/shop?socket=/run/db.sock", "MySQL or MariaDB at /run/db.sock, database `shop`");
        check_name("sqlite:shop.db?mode=ro", "SQLite file shop.db");
    }
}
