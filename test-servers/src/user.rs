use std::fs;

use crate::error::{Error, Result};

const USERS: &str = "/etc/passwd";

/// A system account that a server runs under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The account to run a server under when this process is root, because database servers
    /// refuse to run as root: `preferred` if the system has it, else `nobody`.
    ///
    /// None if this process is not root: servers run as the current user then.
    pub(crate) fn for_server(preferred: &str) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string(USERS).map_err(|e| Error::io(format!("read {USERS}"), e))?;
        [preferred, "nobody"]
            .iter()
            .find_map(|name| find(&accounts, name))
            .map(Some)
            .ok_or_else(|| Error::new(format!("find an account to run a server under: {USERS} has neither `{preferred}` nor `nobody`; run as a user other than root")))
    }
}

fn find(accounts: &str, name: &str) -> Option<User> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2);
    let uid = ids.next()?.parse().ok()?;
    let gid = ids.next()?.parse().ok()?;
    Some(User { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::find;

    const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn finds_an_account_by_its_whole_name() {
        let user = find(ACCOUNTS, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert!(find(ACCOUNTS, "post").is_none());
    }
}
