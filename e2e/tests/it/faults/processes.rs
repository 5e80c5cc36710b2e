use std::time::Duration;

use rand::RngExt;
use reflex_e2e::{Backend, Record, Workload};
use tokio::time::{sleep, timeout};

use super::{Drill, Fault, Runs, runners::Seen};
use crate::{process::Process, support::PATIENCE};

/// A consumer in a process of its own is killed with SIGKILL in the middle of anything, and started again.
#[derive(Default)]
pub(super) struct ConsumersKilled {
    record: Record,
}

impl ConsumersKilled {
    fn start(&mut self, url: &str) -> Process {
        self.record.restart();
        Process::start(url, &["consume", "killed"]).unwrap()
    }

    async fn see(&mut self, process: &mut Process) {
        let line = timeout(PATIENCE, process.line()).await.expect("the consumer gets on").unwrap();
        self.note(&line.expect("a consumer does not end"));
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
        let mut process = self.start(drill.url);
        for _ in 0..drill.rng.random_range(0..400) {
            self.see(&mut process).await;
        }
        sleep(Duration::from_micros(drill.rng.random_range(0..20_000))).await;
        self.kill(process).await;
        1
    }

    async fn finish(&mut self, drill: &mut Drill<'_, D>, last: i64) -> Vec<Seen> {
        let mut process = self.start(drill.url);
        while self.record.last() < last {
            self.see(&mut process).await;
        }
        self.kill(process).await;
        vec![Seen { name: "killed".to_owned(), record: self.record.clone() }]
    }
}

/// Writers in processes of their own are killed with SIGKILL: some in the middle of anything, one in an open transaction.
#[derive(Default)]
pub(super) struct WritersKilled {
    strikes: u32,
    /// The foreign ids of transactions that were not committed.
    undone: Vec<i64>,
}

impl WritersKilled {
    /// After the writers of every drill.
    const FIRST: u32 = 1_000;
    const ROWS: i64 = 10;

    fn start_writers<D: Backend>(&self, drill: &mut Drill<'_, D>) -> Process {
        let first = Self::FIRST + 10 * self.strikes;
        let numbers = [drill.rng.random_range(0..1 << 60), u64::from(first), u64::from(first) + 3, 3_600, 300];
        let numbers = numbers.map(|number| number.to_string());
        let mut args = vec!["write"];
        args.extend(numbers.iter().map(String::as_str));
        Process::start(drill.url, &args).unwrap()
    }

    /// Starts a process with an open transaction; returns an id that it holds.
    async fn start_holder(&mut self, url: &str) -> (Process, i64) {
        let first = i64::from(Self::FIRST + 10 * self.strikes + 9) * Workload::PER_WRITER;
        self.undone.extend(first..first + Self::ROWS);
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
        let writers = self.start_writers(drill);
        let (holder, held) = self.start_holder(drill.url).await;
        drill.is_waited_for(held).await;
        sleep(Duration::from_millis(drill.rng.random_range(0..500))).await;
        let told = writers.kill().await.unwrap();
        drill.told.extend(told.iter().map(|line| line.parse::<i64>().unwrap()));
        holder.kill().await.unwrap();
        2
    }

    async fn finish(&mut self, drill: &mut Drill<'_, D>, _last: i64) -> Vec<Seen> {
        let undone: Vec<_> = self.undone.iter().map(|id| format!("'{id}'")).collect();
        let there = format!("select count(*) from events where foreign_id in ({})", undone.join(", "));
        assert_eq!(D::number(drill.pool, &there).await.unwrap(), 0, "events of killed transactions");
        Vec::new()
    }
}
