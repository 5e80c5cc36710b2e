//! What cargo knows of the workspace's packages.

use std::{collections::BTreeMap, env, fs, io, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::runner::Runner;

/// A package that is meant for the registry.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    version: String,
    /// All its features but the default set.
    pub(crate) features: Vec<String>,
}

/// The packages of this workspace that may be published.
pub(crate) fn published(runner: &Runner) -> Result<Vec<Package>> {
    let mut cargo = runner.cargo();
    let output = runner.output(cargo.args(["metadata", "--no-deps", "--format-version=1"]))?;
    parse(&output).context("read the output of `cargo metadata`")
}

/// Makes cargo forget what it unpacked of these packages. It does so once for each path and version, and builds that again even
/// if the package has changed.
pub(crate) fn forget_unpacked(packages: &[Package]) -> Result<()> {
    let home = env::var_os("CARGO_HOME").map(Into::into).or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let unpacked = home.context("find the home of cargo: set CARGO_HOME")?.join("registry/src");
    forget_in(&unpacked, packages).with_context(|| format!("clear {}", unpacked.display()))
}

/// Packages of the workspace are in folders that have no name of a registry before the dash.
fn forget_in(unpacked: &Path, packages: &[Package]) -> io::Result<()> {
    let registries = match fs::read_dir(unpacked) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        registries => registries?,
    };
    for registry in registries {
        let registry = registry?;
        if !registry.file_name().to_string_lossy().starts_with('-') {
            continue;
        }
        for Package { name, version, .. } in packages {
            match fs::remove_dir_all(registry.path().join(format!("{name}-{version}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    /// The registries it may go to: any if there is no list, none if the list is empty.
    publish: Option<Vec<String>>,
    features: BTreeMap<String, Vec<String>>,
}

fn parse(metadata: &[u8]) -> serde_json::Result<Vec<Package>> {
    let metadata: Metadata = serde_json::from_slice(metadata)?;
    let published = metadata.packages.into_iter().filter(|entry| entry.publish != Some(Vec::new()));
    Ok(published.map(package).collect())
}

fn package(entry: Entry) -> Package {
    let features = entry.features.into_keys().filter(|name| name != "default").collect();
    Package { name: entry.name, version: entry.version, features }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out_unpublished_packages_and_the_default_feature() {
        let packages = parse(
            br#"{"packages": [
                {"name": "a", "version": "0.1.0", "publish": null, "features": {"default": ["x"], "x": [], "y": []}},
                {"name": "b", "version": "0.1.0", "publish": [], "features": {}},
                {"name": "c", "version": "0.1.0", "publish": ["mine"], "features": {}}
            ]}"#,
        )
        .unwrap();
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(packages[0].features, ["x", "y"]);
    }

    #[test]
    fn only_what_was_unpacked_of_the_workspace_is_forgotten() {
        let unpacked = tempfile::tempdir().unwrap();
        let folders = ["-1ade/a-0.1.0", "-1ade/a-0.2.0", "-22c3/a-0.1.0", "-22c3/b-0.1.0", "registry-19/a-0.1.0"];
        let folders = folders.map(|folder| unpacked.path().join(folder));
        for folder in &folders {
            fs::create_dir_all(folder.join("src")).unwrap();
        }
        let package = Package { name: "a".into(), version: "0.1.0".into(), features: Vec::new() };
        forget_in(unpacked.path(), &[package]).unwrap();
        assert_eq!(folders.map(|folder| folder.exists()), [false, true, false, true, true]);
        forget_in(&unpacked.path().join("none"), &[]).unwrap();
    }
}
