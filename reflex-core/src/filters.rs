//! Filters decide which events a consumer handles; the others only move its cursor.
//!
//! A filter is any closure from an [`Event`] to a yes or no that may fail. Hand it to
//! [`filter`](crate::FnConsumer::filter), alone or composed.
//!
//! # Examples
//!
//! ```
//! use reflex_core::{Event, HandlerError, consumer_fn, filters};
//!
//! #[derive(serde::Deserialize)]
//! struct Payment { amount: u32 }
//!
//! let large = filters::by_metadata(
//!     |event: &Event| event.metadata_json::<Payment>(),
//!     |payment| payment.amount > 100,
//! );
//! let orders = |event: &Event| Ok(event.foreign_id().starts_with("order-"));
//! let consumer = consumer_fn("audit", |_event| async { Ok(()) })
//!     .filter(filters::all_of([filters::boxed(large), filters::boxed(orders)]));
//! # let _ = consumer;
//! ```

use crate::{Event, HandlerError};

/// What a filter answers: whether the consumer handles the event.
pub type Decision = Result<bool, HandlerError>;

/// A filter of any kind, so that different ones go into one list.
pub type BoxFilter = Box<dyn Fn(&Event) -> Decision + Send + Sync>;

/// Boxes a filter.
pub fn boxed(filter: impl Fn(&Event) -> Decision + Send + Sync + 'static) -> BoxFilter {
    Box::new(filter)
}

/// True if all filters are; fails with the first that fails. Stops at the first that is not true. True for none.
pub fn all_of<F>(filters: impl IntoIterator<Item = F>) -> impl Fn(&Event) -> Decision + Send + Sync
where
    F: Fn(&Event) -> Decision + Send + Sync,
{
    let filters: Vec<F> = filters.into_iter().collect();
    move |event| {
        for filter in &filters {
            if !filter(event)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// True if any filter is, even if others fail. If none is true, fails with the last error if there was one. False for none.
pub fn any_of<F>(filters: impl IntoIterator<Item = F>) -> impl Fn(&Event) -> Decision + Send + Sync
where
    F: Fn(&Event) -> Decision + Send + Sync,
{
    let filters: Vec<F> = filters.into_iter().collect();
    move |event| {
        let mut decision = Ok(false);
        for filter in &filters {
            match filter(event) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => decision = Err(error),
            }
        }
        decision
    }
}

/// Reads the event's metadata, then tests it; fails if it cannot be read.
pub fn by_metadata<T>(
    read: impl Fn(&Event) -> Result<T, HandlerError> + Send + Sync,
    test: impl Fn(T) -> bool + Send + Sync,
) -> impl Fn(&Event) -> Decision + Send + Sync {
    move |event| Ok(test(read(event)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventParts;

    fn yes(_: &Event) -> Decision {
        Ok(true)
    }

    fn no(_: &Event) -> Decision {
        Ok(false)
    }

    fn fail(_: &Event) -> Decision {
        Err(HandlerError::new("broken"))
    }

    fn fail_otherwise(_: &Event) -> Decision {
        Err(HandlerError::new("broken otherwise"))
    }

    const YES: Plain = yes;
    const NO: Plain = no;
    const FAIL: Plain = fail;

    type Plain = fn(&Event) -> Decision;

    #[track_caller]
    fn check(filter: impl Fn(&Event) -> Decision, expected: Result<bool, &str>) {
        let event = Event::from(EventParts {
            id: 1.into(),
            event_type: 1.into(),
            foreign_id: "",
            timestamp: Default::default(),
            metadata: b"5",
            trace: b"",
        });
        assert_eq!(filter(&event).map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn all_of_stops_at_the_first_that_is_not_true() {
        check(all_of::<Plain>([]), Ok(true));
        check(all_of::<Plain>([YES, YES]), Ok(true));
        check(all_of::<Plain>([NO, FAIL]), Ok(false));
        check(all_of::<Plain>([YES, FAIL, NO]), Err("broken"));
    }

    #[test]
    fn any_of_is_true_despite_errors_and_otherwise_fails_with_the_last() {
        check(any_of::<Plain>([]), Ok(false));
        check(any_of::<Plain>([FAIL, YES]), Ok(true));
        check(any_of::<Plain>([NO, NO]), Ok(false));
        check(any_of::<Plain>([FAIL, fail_otherwise as Plain, NO]), Err("broken otherwise"));
    }

    #[test]
    fn metadata_that_cannot_be_read_fails_the_filter() {
        check(by_metadata(|event| event.metadata_json::<u32>(), |amount| amount > 4), Ok(true));
        check(by_metadata(|event| event.metadata_json::<u32>(), |amount| amount > 5), Ok(false));
        check(by_metadata(|_| Err::<u32, _>(HandlerError::new("unreadable")), |_| true), Err("unreadable"));
    }
}
