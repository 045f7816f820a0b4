//! What can be typed after `sandbox`.

use crate::args::Format;
use clap::Args as ClapArgs;
use cupcake_crds::values::{Concurrency, KubeVersion};
use cupcake_sandbox::machine::fault::{Fault, InvalidFault};
use cupcake_sandbox::world::{CONTROL_PLANES_MAX, WORKERS_MAX};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Shown below the help.
pub(crate) const EXAMPLES: &str = "Examples:
  kubectl cupcake sandbox
  kubectl cupcake sandbox --workers 500 --concurrency 25 -o json
  kubectl cupcake sandbox --seed 7 --kill operator@12
  kubectl cupcake sandbox --kill-sweep
  kubectl cupcake sandbox --from 1.26.9 --serve 127.0.0.1:8443";

/// The simulated cluster.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ClusterArgs {
    /// Control-plane nodes, with stacked etcd.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONTROL_PLANES_MAX)))]
    pub(crate) control_planes: u32,
    /// Workers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=i64::from(WORKERS_MAX)))]
    pub(crate) workers: u32,
    /// The version that everything runs at first.
    #[arg(long, default_value = "1.33.4", value_name = "VERSION")]
    pub(crate) from: KubeVersion,
    /// Fixes every draw: the same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SandboxArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// The version to upgrade to; the newest of the next minor if not named. With --serve: none unless named.
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<KubeVersion>,
    /// Workers in flight at once, as a number or a percentage.
    #[arg(long, default_value = "2", value_parser = concurrency)]
    pub(crate) concurrency: Concurrency,
    /// Virtual seconds a second; 60 while somebody watches, else as fast as possible.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) speed: Option<u32>,
    /// Crash a component at its N-th write: operator@N, agent@N or runner@N, with :before, :after or :torn for what remains of the write.
    #[arg(long, value_name = "WHO@N", value_parser = crash)]
    pub(crate) kill: Option<Fault>,
    /// Crash each component at each of its writes, one run a crash, and print the table.
    #[arg(long, conflicts_with_all = ["kill", "serve", "speed"])]
    pub(crate) kill_sweep: bool,
    /// Serve the API for a real kubectl on this loopback address until Ctrl-C.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) serve: Option<SocketAddr>,
    /// Write the transcript, one request or effect a line, into this file.
    #[arg(long, value_name = "FILE", conflicts_with = "kill_sweep")]
    pub(crate) transcript: Option<PathBuf>,
    /// Draw with ASCII characters only.
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Print one JSON object with what remains, and nothing before.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

fn crash(text: &str) -> Result<Fault, String> {
    let fault: Fault = text.parse().map_err(|error: InvalidFault| error.to_string())?;
    if fault.wrong.is_crash() {
        Ok(fault)
    } else {
        Err(format!("{text} is no crash: write :before, :after or :torn, or kubectl cupcake simulate --fault {text}"))
    }
}

fn concurrency(text: &str) -> Result<Concurrency, String> {
    let value =
        text.parse::<u32>().map_or_else(|_not_a_number| serde_json::json!(text), |number| serde_json::json!(number));
    serde_json::from_value(value)
        .map_err(|_invalid| "write a number such as 5 or a percentage such as \"10%\"".to_owned())
}
