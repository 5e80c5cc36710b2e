//! A consumer with the tests that its author would write: no database, no sleeps.
//!
//! ```sh
//! cargo run -p reflex-examples --bin testing
//! cargo test -p reflex-examples --bin testing
//! ```
#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use reflex_core::{Consumer, Event, HandlerError, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};

const ORDER_PAID: i32 = 2;

/// Loyalty points by customer. An event may come twice, so each customer's orders are remembered, not their sum.
#[derive(Clone, Default)]
struct Points(Arc<Mutex<BTreeMap<String, BTreeMap<i64, u32>>>>);

#[derive(serde::Deserialize, serde::Serialize)]
struct Payment {
    customer: String,
    cents: u32,
}

impl Points {
    fn of(&self, customer: &str) -> u32 {
        let points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        points.get(customer).map_or(0, |orders| orders.values().sum())
    }

    fn add(&self, event: &Event) -> Result<(), HandlerError> {
        let payment: Payment = event.metadata_json()?;
        let order = event.foreign_id_as_i64()?;
        let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        points.entry(payment.customer).or_default().insert(order, payment.cents / 100);
        Ok(())
    }
}

fn loyalty(points: Points) -> impl Consumer {
    consumer_fn("loyalty", move |event: Event| {
        let points = points.clone();
        async move { points.add(&event) }
    })
    .include_types([ORDER_PAID])
}

fn paid(order: i64, customer: &str, cents: u32) -> Result<NewEvent, HandlerError> {
    NewEvent::new(order, ORDER_PAID).metadata_json(&Payment { customer: customer.to_owned(), cents })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), HandlerError> {
    let (events, points) = (MemoryEvents::new(), Points::default());
    events.append(paid(1, "ada", 1_250)?);
    events.append(paid(2, "ada", 500)?);
    let Err(end) = run(&mut Spec::new(events, MemoryCursors::new(), loyalty(points.clone())).to_head()).await;
    println!("{end}: ada has {} points", points.of("ada"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reflex_core::{CursorStore, Error, Operation, StreamOptions};
    use reflex_testing::{await_cursor, collect};

    use super::*;

    type Outcome = Result<(), HandlerError>;

    #[tokio::test]
    async fn only_payments_count() -> Outcome {
        let (events, points) = (MemoryEvents::new(), Points::default());
        events.append(NewEvent::new(1, 1));
        events.append(paid(1, "ada", 300)?);
        let Err(end) = run(&mut Spec::new(events, MemoryCursors::new(), loyalty(points.clone())).to_head()).await;
        assert!(end.is_head_reached(), "{end}");
        assert_eq!(points.of("ada"), 3);
        Ok(())
    }

    #[tokio::test]
    async fn a_payment_that_cannot_be_read_stops_the_run_in_front_of_it() -> Outcome {
        let (events, cursors, points) = (MemoryEvents::new(), MemoryCursors::new(), Points::default());
        events.append(paid(1, "ada", 300)?);
        events.append(NewEvent::new(2, ORDER_PAID).metadata("nonsense"));
        events.append(paid(3, "ada", 300)?);
        let Err(error) = run(&mut Spec::new(events, cursors.clone(), loyalty(points.clone())).to_head()).await;
        assert_eq!((error.consumer(), error.event_id()), (Some("loyalty"), Some(&2.into())));
        assert_eq!(cursors.get("loyalty").await?, Some(1.into()));
        assert_eq!(points.of("ada"), 3);
        Ok(())
    }

    #[tokio::test]
    async fn a_payment_that_comes_twice_counts_once() -> Outcome {
        let (events, cursors, points) = (MemoryEvents::new(), MemoryCursors::new(), Points::default());
        events.append(paid(1, "ada", 300)?);
        cursors.fail_next(Operation::Set, Error::store("set the cursor", "the disk is full"));
        let mut spec = Spec::new(events, cursors, loyalty(points.clone())).to_head();
        let Err(error) = run(&mut spec).await;
        assert_eq!(error.event_id(), Some(&1.into()));
        let Err(end) = run(&mut spec).await;
        assert!(end.is_head_reached(), "{end}");
        assert_eq!(points.of("ada"), 3);
        Ok(())
    }

    #[tokio::test]
    async fn follows_new_payments() -> Outcome {
        let (events, cursors, points) = (MemoryEvents::new(), MemoryCursors::new(), Points::default());
        let mut spec = Spec::new(events.clone(), cursors.clone(), loyalty(points.clone()));
        let running = tokio::spawn(async move { run(&mut spec).await });
        let last = events.append(paid(1, "ada", 300)?);
        await_cursor(&cursors, "loyalty", last.id().clone(), Duration::from_secs(10)).await?;
        assert_eq!(points.of("ada"), 3);
        events.stop();
        assert!(running.await?.unwrap_err().is_stopped());
        Ok(())
    }

    #[tokio::test]
    async fn a_payment_is_written_as_it_is_read() -> Outcome {
        let events = MemoryEvents::new();
        events.append(paid(7, "ada", 300)?);
        let read = collect(&events, StreamOptions::new()).await?;
        assert_eq!((read.len(), read[0].foreign_id_as_i64()?), (1, 7));
        assert_eq!(read[0].metadata_json::<Payment>()?.cents, 300);
        Ok(())
    }
}
