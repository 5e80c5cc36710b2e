use std::{path::Path, str::FromStr};

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
