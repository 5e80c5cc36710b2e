//! The committed code is what the `.proto` file generates.

use std::{env, fs, path::Path};

/// Set it to any value to write the file instead of comparing it.
const WRITE: &str = "REFLEX_WRITE_GENERATED";

#[test]
fn the_committed_code_is_what_the_proto_file_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(["reflex.proto"], [root.join("proto")]).unwrap();
    tonic_prost_build::configure().build_transport(false).out_dir(folder.path()).compile_fds(descriptors).unwrap();
    let generated = fs::read_to_string(folder.path().join("reflexpb.rs")).unwrap();
    let committed = root.join("src/generated.rs");
    if env::var_os(WRITE).is_some() {
        fs::write(committed, generated).unwrap();
        return;
    }
    let committed = fs::read_to_string(committed).unwrap();
    assert!(committed == generated, "set {WRITE}=1 and run the test again to write src/generated.rs");
}
