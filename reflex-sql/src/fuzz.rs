//! What must hold for any bytes that a database may send. The targets panic where it does not.

#[cfg(feature = "postgres")]
mod copy;
mod wake_up;

#[cfg(all(test, feature = "postgres"))]
pub(crate) use self::copy::tuple;
#[cfg(feature = "postgres")]
pub use self::copy::{copy_messages, copy_rows};
pub use self::wake_up::wake_up;

#[cfg(test)]
mod tests {
    use fuzz_targets::explore;

    #[cfg(feature = "postgres")]
    #[test]
    fn messages_of_copy() {
        explore("copy_messages", super::copy_messages);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn rows_of_copy() {
        explore("copy_rows", super::copy_rows);
    }

    #[test]
    fn wake_ups() {
        explore("wake_up", super::wake_up);
    }
}
