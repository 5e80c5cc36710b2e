//! `reflex demo`: a history becomes a stream of events, and three consumers follow it.

mod authors;
mod change;
mod consumers;
mod data;
mod git;
mod health;
mod import;
mod lines;
pub(crate) mod log;
mod report;
mod run;
mod serve;
mod source;
mod tally;

use anyhow::{Context, Result};
use prometheus::Registry;
use reflex_core::Metrics;

use self::{data::Data, report::Report, source::Source, tally::Tally};
use crate::{args::DemoArgs, interrupt::Interrupt, output::Output};

/// What all parts of a running demo share.
#[derive(Debug)]
struct Demo {
    source: Source,
    data: Data,
    metrics: Metrics,
    tally: Tally,
    json: bool,
}

/// Imports what is new, runs the consumers to the head, reports, and with `--serve` goes on.
///
/// # Errors
///
/// If the history cannot be read, the data file cannot be used, a consumer fails, or the process is asked to end.
pub(crate) async fn run(args: DemoArgs, interrupt: &Interrupt, output: &mut Output) -> Result<()> {
    // The address first: if it is taken, nothing has happened yet.
    let listener = match &args.serve {
        Some(address) => Some(serve::listen(address).await?),
        None => None,
    };
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).context("register metrics")?;
    let source = Source::find(&args).await?;
    let data = Data::open(source.data_file(args.data), source.kind(), &metrics).await?;
    let demo = Demo { source, data, metrics, tally: Tally::new(registry), json: args.json };
    let result = match listener {
        Some(listener) => serve::serve(&demo, listener, interrupt, output).await,
        None => demo.once(interrupt, output).await,
    };
    demo.data.close().await;
    result
}

impl Demo {
    async fn once(&self, interrupt: &Interrupt, output: &mut Output) -> Result<()> {
        let imported = interrupt.or(self.source.import(&self.data)).await?;
        let elapsed = run::to_head(self, interrupt).await;
        let report = Report::collect(self, imported, elapsed.seconds).await.context("collect the results")?;
        let printed = self.print(&report, output).await;
        elapsed.result?;
        printed
    }

    async fn print(&self, report: &Report, output: &mut Output) -> Result<()> {
        if self.json {
            output.json(report).await?;
        } else {
            output.line(report).await?;
        }
        output.flush().await
    }
}
