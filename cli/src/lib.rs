//! `kubectl cupcake`: what an upgrade will do, how far it is, and a whole cluster to try it on.
//!
//! ```text
//!  plan ──► snapshot of the cluster ──► workflows::compile ──► a few lines        status, why, watch ──► Forest ──► Printer
//!  sandbox ──► World (API, machines, operator, agents, runners in this process) ──► Forest ──► Printer ──► Outcome
//! ```
//! Five nouns: [`Args`] are what was typed; a *forest* is an update with its runs and their plans; a *printer* shows it as a
//! live tree, as lines, or as JSON; a *failure* ends with the next command to type; an *exit* is what scripts get.
//! It reads, and it writes nothing but what a user could: never a status.

mod approve;
mod args;
mod cluster_file;
mod completion;
mod connect;
mod control;
mod exit;
mod forest;
mod nodes;
mod out;
mod plan;
mod preflight;
mod printer;
mod retry;
mod status;
mod template;
mod terminal;
mod watch;
mod why;

#[cfg(feature = "sandbox")]
mod sandbox;

pub use args::Args;
pub use exit::usage;

use args::Command;
use exit::{Exit, Failure};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Logs on stderr, filtered by RUST_LOG; errors only by default, since the commands say what matters.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Runs the command; what failed is told on stderr, with the next command to type.
pub fn run(args: Args) -> ExitCode {
    let Args { connection, command } = args;
    let result = match command {
        Command::Plan(args) => plan::run(&connection, &args),
        Command::Preflight(args) => preflight::run(&connection, &args),
        Command::Snapshot(args) => cluster_file::write(&connection, &args),
        Command::Status(args) => on_runtime(status::run(&connection, &args)),
        Command::Watch(args) => on_runtime(watch::run(&connection, &args)),
        Command::Why(args) => on_runtime(why::run(&connection, &args)),
        Command::Approve(args) => on_runtime(approve::run(&connection, &args)),
        Command::Retry(args) => on_runtime(retry::run(&connection, &args)),
        Command::Skip(args) => on_runtime(control::skip(&connection, &args)),
        Command::Pause(args) => on_runtime(control::pause(&connection, &args)),
        Command::Resume(args) => on_runtime(control::resume(&connection, &args)),
        Command::Cancel(args) => on_runtime(control::cancel(&connection, &args)),
        Command::Completion => Ok(completion::script()),
        Command::Complete(args) => Ok(completion::answer(&args.words)),
        #[cfg(feature = "sandbox")]
        Command::Sandbox(args) => sandbox::run(&args),
        #[cfg(feature = "sandbox")]
        Command::Simulate(args) => sandbox::simulate::run(&args),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            out::complain(&failure);
            Exit::Failed.into()
        }
    }
}

fn on_runtime(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    exit::runtime()?.block_on(command)
}
