//! The operator's process: reads its settings, connects, runs.

use clap::Parser;
use cupcake_operator::process;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = process::Args::parse();
    process::start_logging();
    let shutdown = process::shutdown_on_signals()?;
    process::run(args, shutdown).await
}
