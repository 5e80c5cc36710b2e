//! Events as lines of JSON: how `tail` prints them and `import` reads them.

mod batches;
mod read;
mod write;

pub(crate) use self::{
    batches::{Batch, BatchOptions, Position, read_batches},
    read::{BadLine, object_start, parse_event},
    write::write_event,
};
