use std::path::Path;

use crate::{address::Address, exit::Usage};

/// What stands for a password in the inputs.
const SECRET: &str = "s3cr3t";

/// A URL that is taken names a database that is still there after the command; another one is wrong usage, and the message
/// does not give the password away.
pub(crate) fn address(data: &[u8]) {
    let Ok(url) = std::str::from_utf8(data) else { return };
    match Address::parse(url) {
        Ok(Address::Postgres(options)) => assert!(!options.get_host().is_empty() || options.get_socket().is_some()),
        Ok(Address::MySql(options)) => assert!(options.get_database().is_some_and(|name| !name.is_empty())),
        Ok(Address::Sqlite(options)) => {
            let file = options.get_filename();
            assert!(file != Path::new("") && file != Path::new(":memory:"), "{url:?} is no file");
        }
        Err(error) => {
            assert!(error.is::<Usage>(), "{error:#}");
            assert!(!has_secret_password(url) || !format!("{error:#}").contains(SECRET), "{error:#}");
        }
    }
}

/// Whether the secret is the password of somebody, and stands nowhere else.
fn has_secret_password(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let of_server = matches!(scheme, "postgres" | "postgresql" | "mysql" | "mariadb");
    of_server && url.matches(SECRET).count() == 1 && authority.contains(&format!(":{SECRET}@"))
}
