use std::time::Duration;

use rand::RngExt;
use reflex_e2e::Backend;

use super::{Drill, Fault, Runs};

/// Connections are closed, and for some time no others are to be had.
pub(super) struct Cut;

/// The server seems to have vanished: connections stay open, and nothing comes through them.
pub(super) struct Stalled;

impl<D: Backend> Fault<D> for Cut {
    const NAME: &'static str = "connections cut";
    const RUNS: Runs = Runs::Fail;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let before = drill.runners.failures();
        let proxy = drill.proxy.as_ref().expect("there is a proxy where there is a network");
        let refused = drill.rng.random_bool(0.5);
        if refused {
            proxy.refuse().await;
        }
        let cut = proxy.connections().await;
        proxy.cut().await;
        drill.runners.fail_since(&before).await;
        if refused {
            proxy.accept().await.unwrap();
        }
        cut as u64
    }
}

impl<D: Backend> Fault<D> for Stalled {
    const NAME: &'static str = "connections stalled";
    const RUNS: Runs = Runs::Fail;
    const DEADLINE: Duration = Duration::from_secs(2);

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let before = drill.runners.failures();
        let proxy = drill.proxy.as_ref().expect("there is a proxy where there is a network");
        let stalled = proxy.connections().await;
        proxy.stall();
        drill.runners.fail_since(&before).await;
        assert!(drill.runners.messages().iter().any(|message| message.contains("no answer within")));
        // What was under way gets lost, or is done long after everybody has given it up.
        if drill.rng.random_bool(0.5) {
            proxy.cut().await;
        }
        proxy.resume();
        stalled as u64
    }
}
