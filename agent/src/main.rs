//! `cupcake-agent`: the pod on each node.

use clap::Parser;
use cupcake_agent::process;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = process::Args::parse();
    process::start_logging();
    process::run(args).await
}
