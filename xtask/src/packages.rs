//! What cargo knows of the workspace's packages.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::runner::Runner;

/// A package that is meant for the registry.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// All its features but the default set.
    pub(crate) features: Vec<String>,
}

/// The packages of this workspace that may be published.
pub(crate) fn published(runner: &Runner) -> Result<Vec<Package>> {
    let mut cargo = runner.cargo();
    let output = runner.output(cargo.args(["metadata", "--no-deps", "--format-version=1"]))?;
    parse(&output).context("read the output of `cargo metadata`")
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
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
    Package { name: entry.name, features }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out_unpublished_packages_and_the_default_feature() {
        let packages = parse(
            br#"{"packages": [
                {"name": "a", "publish": null, "features": {"default": ["x"], "x": [], "y": []}},
                {"name": "b", "publish": [], "features": {}},
                {"name": "c", "publish": ["mine"], "features": {}}
            ]}"#,
        )
        .unwrap();
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(packages[0].features, ["x", "y"]);
    }
}
