//! The messages of `proto/reflex.proto`, and the service `reflexpb.Reflex`: the same as those of luno/reflex.
//!
//! A service that has the messages in a definition of its own (`import "reflex.proto"`) writes [`PROTO`](crate::PROTO) to a
//! folder in its build script, and generates its code with `extern_path(".reflexpb", "::reflex_grpc::reflexpb")`, so that its
//! methods take and return these types.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "generated code")]

include!("generated.rs");
