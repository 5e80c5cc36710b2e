//! On a real Redis.
