//! The committed code is what the `.proto` file generates, and definitions of others can use its messages.

use std::{env, fs, path::Path};

use tonic_prost_build::Builder;

/// Set it to any value to write the file instead of comparing it.
const WRITE: &str = "REFLEX_WRITE_GENERATED";

/// The Rust code of one definition. `protox` stands in for `protoc`.
fn generate(builder: Builder, folder: &Path, package: &str) -> String {
    let descriptors = protox::compile([format!("{package}.proto")], [folder]).unwrap();
    let output = tempfile::tempdir().unwrap();
    builder.build_transport(false).out_dir(output.path()).compile_fds(descriptors).unwrap();
    fs::read_to_string(output.path().join(format!("{package}.rs"))).unwrap()
}

#[test]
fn the_committed_code_is_what_the_proto_file_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("reflexpb.proto"), reflex_grpc::PROTO).unwrap();
    let generated = generate(tonic_prost_build::configure(), folder.path(), "reflexpb");
    let committed = root.join("src/generated.rs");
    if env::var_os(WRITE).is_some() {
        fs::write(committed, generated).unwrap();
        return;
    }
    let committed = fs::read_to_string(committed).unwrap();
    assert!(committed == generated, "set {WRITE}=1 and run the test again to write src/generated.rs");
}

const ORDERS: &str = r#"
    syntax = "proto3";
    package orders;
    import "reflex.proto";
    service Orders {
      rpc StreamOrders(reflexpb.StreamRequest) returns (stream reflexpb.Event);
    }
"#;

#[test]
fn a_service_of_ones_own_uses_the_messages() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("reflex.proto"), reflex_grpc::PROTO).unwrap();
    fs::write(folder.path().join("orders.proto"), ORDERS).unwrap();
    let builder = tonic_prost_build::configure().extern_path(".reflexpb", "::reflex_grpc::reflexpb");
    let generated = generate(builder, folder.path(), "orders");
    for message in ["StreamRequest", "Event"] {
        assert!(generated.contains(&format!("::reflex_grpc::reflexpb::{message}")), "{generated}");
        assert!(!generated.contains(&format!("struct {message}")), "{generated}");
    }
}
