//! gRPC.
mod generated;
