//! `cupcake-host`: the runner under systemd, and what a person on the machine needs when nothing else answers.

use clap::Parser;
use cupcake_host::process::{self, Args};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    process::start_logging();
    process::run(args).await
}
