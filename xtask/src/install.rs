//! Finding the database servers, and installing them where that is possible.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use test_servers::{Error, MariaDb, Postgres, Redis};

use crate::runner::Runner;

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the servers that are needed and missing.
pub(crate) fn ensure(runner: &Runner, postgres: bool, mariadb: bool, redis: bool) -> Result<()> {
    let mut packages = Vec::new();
    if postgres && Postgres::find().is_err() {
        packages.push("postgresql");
    }
    if mariadb && MariaDb::find().is_err() {
        packages.push("mariadb-server");
    }
    if redis && Redis::find().is_err() {
        packages.push("redis-server");
    }
    if packages.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!("{}", instructions(&packages));
    }
    install(runner, &packages)?;
    verify(postgres, mariadb, redis).context("the packages are installed, but a program is missing")
}

/// Installs `promtool`, which checks the alert rules, if it is missing.
pub(crate) fn ensure_promtool(runner: &Runner) -> Result<()> {
    let found = || Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if found() {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "missing: promtool, which checks the alert rules\n\
             On Debian or Ubuntu install it with\n\n    sudo apt-get install --no-install-recommends prometheus\n\n\
             or run this as root. Elsewhere put it into PATH; it is part of Prometheus."
        );
    }
    install(runner, &["prometheus"])?;
    if !found() {
        bail!("the package `prometheus` is installed, but `promtool` does not run");
    }
    Ok(())
}

fn can_install() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists()
}

fn verify(postgres: bool, mariadb: bool, redis: bool) -> Result<(), Error> {
    if postgres {
        Postgres::find()?;
    }
    if mariadb {
        MariaDb::find()?;
    }
    if redis {
        Redis::find()?;
    }
    Ok(())
}

fn instructions(packages: &[&str]) -> String {
    let packages = packages.join(" ");
    format!(
        "missing: {packages}\n\
         On Debian or Ubuntu install them with\n\n    sudo apt-get install {packages}\n\n\
         or run this as root. Elsewhere install PostgreSQL, MariaDB and Redis and, if their programs\n\
         are not in PATH, set REFLEX_POSTGRES_BIN_DIR, REFLEX_MARIADB_BIN_DIR and\n\
         REFLEX_REDIS_BIN_DIR to their folders. To use servers that run already, set\n\
         REFLEX_TEST_POSTGRES_URL, REFLEX_TEST_MARIADB_URL and REFLEX_TEST_REDIS_URL."
    )
}

fn install(runner: &Runner, packages: &[&str]) -> Result<()> {
    eprintln!("installing {}", packages.join(" "));
    let _no_services = NoServices::new()?;
    let environment = [("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")];
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.envs(environment).arg("--quiet=2").stdout(io::stderr());
        apt
    };
    runner.run(apt().arg("update"))?;
    runner.run(apt().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// Keeps packages from starting their services, by the policy file that Debian has for it.
#[derive(Debug)]
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")
                .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("write {POLICY}"))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("remove {POLICY}: {error}");
        }
    }
}
