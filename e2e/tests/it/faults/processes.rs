use std::{collections::HashMap, time::Duration};

use rand::RngExt;
use reflex_e2e::{Backend, Record, Workload};
use tokio::time::{sleep, timeout};

use super::{Drill, Fault, Runs, runners::Seen};
use crate::{
    process::Process,
    support::{PATIENCE, assert_committed},
};

/// What a consumer says when it has begun with an event that it will never be done with.
const BEGUN: &str = "begun";

/// A consumer in a process of its own is killed with SIGKILL, in the middle of anything and in the middle of an event, and
/// started again.
#[derive(Default)]
pub(super) struct ConsumersKilled {
    record: Record,
}

impl ConsumersKilled {
    /// Starts one that never ends with the event after so many.
    fn start(&mut self, url: &str, events: u64) -> Process {
        self.record.restart();
        Process::start(url, &["consume", "killed", &events.to_string()]).unwrap()
    }

    /// Sees what it says next; false if that is no event.
    async fn see(&mut self, process: &mut Process) -> bool {
        let line = timeout(PATIENCE, process.line()).await.expect("the consumer gets on").unwrap();
        let line = line.expect("a consumer does not end");
        let is_event = line != BEGUN;
        if is_event {
            self.note(&line);
        }
        is_event
    }

    async fn kill(&mut self, process: Process) {
        for line in process.kill().await.unwrap() {
            self.note(&line);
        }
    }

    fn note(&mut self, line: &str) {
        let (id, foreign_id) = line.split_once(' ').expect("a line has two numbers");
        self.record.see_ids(id.parse().unwrap(), foreign_id.parse().unwrap());
    }
}

impl<D: Backend> Fault<D> for ConsumersKilled {
    const NAME: &'static str = "consumers killed";
    const RUNS: Runs = Runs::GoOn;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        let mut process = self.start(drill.url, u64::MAX);
        for _ in 0..drill.rng.random_range(0..400) {
            self.see(&mut process).await;
        }
        sleep(Duration::from_micros(drill.rng.random_range(0..20_000))).await;
        self.kill(process).await;

        let mut process = self.start(drill.url, drill.rng.random_range(0..100));
        while self.see(&mut process).await {}
        self.kill(process).await;
        2
    }

    async fn finish(&mut self, drill: &mut Drill<'_, D>, last: i64) -> Vec<Seen> {
        let mut process = self.start(drill.url, u64::MAX);
        while self.record.last() < last {
            self.see(&mut process).await;
        }
        self.kill(process).await;
        vec![Seen { name: "killed".to_owned(), record: self.record.clone() }]
    }
}

/// Writers in processes of their own are killed with SIGKILL: some in the middle of anything, one in an open transaction. Others
/// are left alone.
#[derive(Default)]
pub(super) struct WritersKilled {
    strikes: u32,
    /// What the writers say that they committed, by foreign id: those that were left alone, and those that were killed.
    left_alone: Vec<i64>,
    killed: Vec<i64>,
}

impl WritersKilled {
    /// After the writers of every drill. Of ten numbers the first three are for writers that are killed, then come those that
    /// are left alone, and the last one is for the transaction that stays open.
    const FIRST: u32 = 1_000;
    const WRITERS: u32 = 3;
    const HOLDER: u32 = 9;
    const ROWS: i64 = 10;
    /// How long those go on that are left alone.
    const SECONDS: u32 = 1;

    fn first(&self) -> u32 {
        Self::FIRST + 10 * self.strikes
    }

    fn start_writers<D: Backend>(drill: &mut Drill<'_, D>, first: u32, seconds: u32) -> Process {
        let numbers = [first, first + Self::WRITERS, seconds, 300].map(u64::from);
        let seed = drill.rng.random_range(0..1 << 60);
        let numbers: Vec<_> = [seed].iter().chain(&numbers).map(u64::to_string).collect();
        let mut args = vec!["write"];
        args.extend(numbers.iter().map(String::as_str));
        Process::start(drill.url, &args).unwrap()
    }

    /// Starts a process with an open transaction; returns an id that it holds.
    async fn start_holder(&self, url: &str) -> (Process, i64) {
        let first = i64::from(self.first() + Self::HOLDER) * Workload::PER_WRITER;
        let mut process = Process::start(url, &["hold", &first.to_string(), &Self::ROWS.to_string()]).unwrap();
        let line = timeout(PATIENCE, process.line()).await.expect("it gets to write").unwrap();
        (process, line.expect("it does not end").parse().unwrap())
    }
}

impl<D: Backend> Fault<D> for WritersKilled {
    const NAME: &'static str = "writers killed in transactions";
    const RUNS: Runs = Runs::GoOn;

    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64 {
        self.strikes += 1;
        let killed = Self::start_writers(drill, self.first(), 3_600);
        let mut left_alone = Self::start_writers(drill, self.first() + Self::WRITERS, Self::SECONDS);
        let (holder, held) = self.start_holder(drill.url).await;
        drill.is_waited_for(held).await;
        sleep(Duration::from_millis(drill.rng.random_range(0..500))).await;
        self.killed.extend(killed.kill().await.unwrap().iter().map(|line| foreign_id(line)));
        holder.kill().await.unwrap();
        while let Some(line) = timeout(PATIENCE, left_alone.line()).await.expect("the writers get on").unwrap() {
            self.left_alone.push(foreign_id(&line));
        }
        assert!(left_alone.child.wait().await.unwrap().success(), "writers that nobody killed");
        2
    }

    async fn finish(&mut self, drill: &mut Drill<'_, D>, _last: i64) -> Vec<Seen> {
        let mut committed = D::events(drill.pool).await.unwrap();
        committed.retain(|(_, foreign_id)| writer(*foreign_id) >= Self::FIRST);
        let place = |foreign_id: i64| writer(foreign_id) % 10;
        let undone = committed.iter().filter(|(_, foreign_id)| place(*foreign_id) == Self::HOLDER).count();
        assert_eq!(undone, 0, "events of killed transactions");
        let (killed, left_alone): (Vec<_>, Vec<_>) =
            committed.into_iter().partition(|(_, foreign_id)| place(*foreign_id) < Self::WRITERS);
        assert_committed(&self.left_alone, &left_alone);
        assert_committed(&self.killed, &told_in_time(&self.killed, killed));
        Vec::new()
    }
}

fn foreign_id(line: &str) -> i64 {
    line.parse().unwrap()
}

fn writer(foreign_id: i64) -> u32 {
    u32::try_from(foreign_id / Workload::PER_WRITER).unwrap()
}

/// Without what a writer committed after the last that it told: that was in doubt when it was killed.
fn told_in_time(told: &[i64], mut committed: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    let mut last = HashMap::new();
    for foreign_id in told {
        let last = last.entry(writer(*foreign_id)).or_insert(*foreign_id);
        *last = (*last).max(*foreign_id);
    }
    committed.retain(|(_, foreign_id)| last.get(&writer(*foreign_id)).is_some_and(|last| foreign_id <= last));
    committed
}
