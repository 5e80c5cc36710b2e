use reflex_sql::{CursorsTableOptions, DialectName, ErrorsTableOptions, EventsTableOptions, ddl};

const DIALECTS: [(DialectName, char); 3] =
    [(DialectName::Postgres, '"'), (DialectName::MySql, '`'), (DialectName::Sqlite, '"')];

/// Only plain identifiers become names of tables and columns, and they stand in the statements between quotes.
///
/// # Panics
///
/// If that is not so.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for (dialect, quote) in DIALECTS {
        check_table(text, dialect, quote);
        check_column(text, dialect, quote);
    }
}

fn check_table(text: &str, dialect: DialectName, quote: char) {
    let parts: Vec<_> = text.split('.').collect();
    let valid = parts.len() <= 2 && parts.iter().all(|part| is_plain(part));
    let quoted: Vec<_> = parts.iter().map(|part| format!("{quote}{part}{quote}")).collect();
    let quoted = quoted.join(".");
    let statements =
        [ddl::events(dialect, &EventsTableOptions::new(text)), ddl::cursors(dialect, &CursorsTableOptions::new(text))];
    for statement in statements {
        check(text, valid, &quoted, statement);
    }
}

fn check_column(text: &str, dialect: DialectName, quote: char) {
    let quoted = format!("{quote}{text}{quote}");
    let events = || EventsTableOptions::new("events");
    let statements = [
        ddl::events(dialect, &events().foreign_id_column(text)),
        ddl::events(dialect, &events().metadata_column(text)),
        ddl::cursors(dialect, &CursorsTableOptions::new("cursors").cursor_column(text)),
        ddl::errors(dialect, &ErrorsTableOptions::new("consumer_errors").error_column(text)),
    ];
    for statement in statements {
        check(text, is_plain(text), &quoted, statement);
    }
}

fn check(text: &str, valid: bool, quoted: &str, statement: reflex_sql::Result<String>) {
    match statement {
        Ok(statement) => {
            assert!(valid, "{text:?} was taken for a name");
            assert!(statement.contains(quoted), "no {quoted} in {statement}");
        }
        Err(error) => assert!(!valid && error.is_invalid_name(), "{text:?} was refused: {error}"),
    }
}

fn is_plain(text: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && letter(&bytes[0])
        && bytes.iter().all(|byte| letter(byte) || byte.is_ascii_digit())
}
