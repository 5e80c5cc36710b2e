//! One module per command. Each gets its arguments and says what happened, or why it did not.

mod cursors;
mod errors;
mod import;
mod insert;
mod lag;
mod migrate;
mod schema;
mod tail;

use anyhow::Result;

use crate::{
    args::{Cli, Command},
    demo,
    interrupt::Interrupt,
    output::Output,
};

/// Does what the command line asks for.
///
/// # Errors
///
/// If it does not happen, for whatever reason.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let mut output = Output::new();
    match cli.command {
        Command::Demo(args) => demo::run(args, &interrupt, &mut output).await?,
        Command::Import(args) => import::run(args, &interrupt, &mut output).await?,
        // What these do may be dropped at any point: it is one transaction, or only looks.
        Command::Migrate(args) => interrupt.or(migrate::run(args, &mut output)).await?,
        Command::Schema(args) => interrupt.or(schema::run(&args, &mut output)).await?,
        Command::Insert(args) => interrupt.or(insert::run(args, &mut output)).await?,
        Command::Tail(args) => interrupt.or(tail::run(args, &mut output)).await?,
        Command::Cursors(command) => interrupt.or(cursors::run(command, &mut output)).await?,
        Command::Errors(command) => interrupt.or(errors::run(command, &mut output)).await?,
        Command::Lag(args) => interrupt.or(lag::run(args, &mut output)).await?,
    }
    output.flush().await
}
