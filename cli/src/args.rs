//! What can be typed.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

#[cfg(feature = "sandbox")]
pub(crate) use crate::sandbox::args::{ClusterArgs, SandboxArgs};
#[cfg(feature = "sandbox")]
pub(crate) use crate::sandbox::simulate::SimulateArgs;

/// Upgrades kubeadm clusters in place: what an upgrade will do, how far it is, and a cluster to try it on.
#[derive(Debug, Parser)]
#[command(name = "kubectl-cupcake", bin_name = "kubectl cupcake", version, arg_required_else_help = true)]
pub struct Args {
    /// Which cluster.
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster to talk to.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Connection {
    /// The kubeconfig file to use.
    #[arg(long, global = true, value_name = "FILE", env = "KUBECONFIG", hide_env_values = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an upgrade on a whole simulated cluster in this process
    #[cfg(feature = "sandbox")]
    #[command(after_help = crate::sandbox::args::EXAMPLES)]
    Sandbox(SandboxArgs),
    /// Upgrade a simulated cluster again and again, each time with other faults, and look at what must hold in all of them
    #[cfg(feature = "sandbox")]
    #[command(after_help = crate::sandbox::simulate::EXAMPLES)]
    Simulate(SimulateArgs),
    /// Show what a DirectUpdate would do, or what a schedule would create now: exits 2 if there is something to do, 0 if not, 3 if it is refused
    #[command(
        after_help = "Examples:\n  kubectl cupcake plan -f update.yaml\n  kubectl cupcake plan -f update.yaml --commands\n  kubectl cupcake plan -f update.yaml -o json\n  kubectl cupcake plan -f update.yaml --snapshot cluster.yaml"
    )]
    Plan(PlanArgs),
    /// Check whether the cluster is fit for an update: exits 0 if nothing stands in the way, 2 if nothing is known of the machines, 3 if something does
    #[command(
        after_help = "Examples:\n  kubectl cupcake preflight --to 1.34.4\n  kubectl cupcake preflight -f update.yaml -o json"
    )]
    Preflight(PreflightArgs),
    /// Write down the cluster as planning sees it: a file for plan --snapshot
    #[command(
        after_help = "Examples:\n  kubectl cupcake snapshot > cluster.yaml\n  kubectl cupcake plan -f update.yaml --snapshot cluster.yaml"
    )]
    Snapshot(SnapshotArgs),
    /// Show how far an upgrade is
    #[command(
        after_help = "Examples:\n  kubectl cupcake status\n  kubectl cupcake status my-update --timeline\n  kubectl cupcake status my-update -o wide\n  kubectl cupcake status my-update -o json"
    )]
    Status(StatusArgs),
    /// Follow an upgrade to its end: a live tree on a terminal, a line an event elsewhere
    #[command(after_help = "Examples:\n  kubectl cupcake watch\n  kubectl cupcake watch my-update -o json")]
    Watch(WatchArgs),
    /// Say why an upgrade does not go on: what holds it, what each step waits for and until when, and the next command to type
    #[command(after_help = "Examples:\n  kubectl cupcake why\n  kubectl cupcake why my-update -o json")]
    Why(WhyArgs),
    /// Try a node or a step again on which an upgrade rests, once its cause is mended
    #[command(
        after_help = "Examples:\n  kubectl cupcake retry my-update worker-3\n  kubectl cupcake retry my-update 1.34.4/verify"
    )]
    Retry(RetryArgs),
    /// Leave a worker out of this one upgrade: what is left to do there is not done, and it is given back
    #[command(after_help = "Examples:\n  kubectl cupcake skip my-update worker-3 --reason \"disk to be replaced\"")]
    Skip(SkipArgs),
    /// Open a gate at which an upgrade waits for somebody (spec.approvals); may be done before it comes there
    #[command(
        after_help = "Examples:\n  kubectl cupcake approve my-update 1.34.4/canary-gate --comment \"looked well for a day\""
    )]
    Approve(ApproveArgs),
    /// Start nothing new until resume; what is under way on a machine comes to its end
    #[command(after_help = "Examples:\n  kubectl cupcake pause my-update --reason CHG-4711")]
    Pause(AskArgs),
    /// Let a paused upgrade go on, or one whose spec.operationTimeout is over
    #[command(after_help = "Examples:\n  kubectl cupcake resume my-update")]
    Resume(AskArgs),
    /// End an upgrade for good: what is under way comes to a safe point, then nodes are given back
    #[command(after_help = "Examples:\n  kubectl cupcake cancel my-update --reason \"not tonight\"")]
    Cancel(AskArgs),
    /// Print the file that lets kubectl complete this command's words
    #[command(
        after_help = "Example, in a folder of your PATH:\n  kubectl cupcake completion > ~/bin/kubectl_complete-cupcake\n  chmod +x ~/bin/kubectl_complete-cupcake"
    )]
    Completion,
    /// What the last of the words typed so far may be, as kubectl asks for it
    #[command(name = "__complete", hide = true)]
    Complete(CompleteArgs),
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON, for programs.
    Json,
    /// The same as YAML.
    Yaml,
}

/// How to print what people look at for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WideFormat {
    /// JSON, for programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// The tree, and a line for each node that the status names.
    Wide,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct CompleteArgs {
    /// The words after `kubectl cupcake`, the last of them as far as it is typed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct PlanArgs {
    /// A file with the DirectUpdate, ScheduledUpdate or UpdateSchedule, in YAML or JSON; - for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Plan for the cluster that this file describes instead of the one of the kubeconfig (docs/cluster-file.md; kubectl cupcake snapshot writes one).
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Facts about minors of Kubernetes, over those that are known (docs/facts.md), in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) facts: Option<PathBuf>,
    /// Tell what would be done on each node, too, in order; nodes that are treated alike stand together.
    #[arg(long)]
    pub(crate) commands: bool,
    /// Plan for a simulated cluster instead of the one of the kubeconfig.
    #[cfg(feature = "sandbox")]
    #[arg(long, conflicts_with = "snapshot")]
    pub(crate) sandbox: bool,
    /// The simulated cluster.
    #[cfg(feature = "sandbox")]
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Print the plan for programs.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct PreflightArgs {
    /// A file with the DirectUpdate, ScheduledUpdate or UpdateSchedule, in YAML or JSON; - for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The version to arrive at, in place of a file.
    #[arg(long, value_name = "VERSION", conflicts_with = "file")]
    pub(crate) to: Option<String>,
    /// Check the cluster that this file describes instead of the one of the kubeconfig.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Facts about minors of Kubernetes, over those that are known (docs/facts.md), in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) facts: Option<PathBuf>,
    /// Print the checklist for programs.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SnapshotArgs {
    /// How to print it: YAML unless told.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct StatusArgs {
    /// A DirectUpdate or an UpgradeRun; the newest upgrade if none is named.
    pub(crate) run: Option<String>,
    /// Draw where the time went: each step from its beginning to its end, in the order of beginning, as wide as the terminal.
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Draw with ASCII characters only.
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Print the DirectUpdate and its UpgradeRuns as a List for programs, or the tree with its nodes.
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "timeline")]
    pub(crate) output: Option<WideFormat>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct WhyArgs {
    /// A DirectUpdate or an UpgradeRun; the newest upgrade that is not over if none is named.
    pub(crate) update: Option<String>,
    /// Print the answer for programs.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RetryArgs {
    /// The DirectUpdate.
    pub(crate) update: String,
    /// The node, all of whose steps are done again as far as they are not in place; or a step, as kubectl cupcake status names it.
    #[arg(value_name = "NODE|STEP")]
    pub(crate) what: String,
    /// The UpgradeRun that has the step; whichever has it failed if that is left out.
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Why, for whoever reads it later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SkipArgs {
    /// The DirectUpdate.
    pub(crate) update: String,
    /// The worker.
    pub(crate) node: String,
    /// Why, for whoever reads it later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ApproveArgs {
    /// The DirectUpdate.
    pub(crate) update: String,
    /// The gate, as the message of the upgrade names it.
    pub(crate) gate: String,
    /// Who approves, where the API server cannot say who asks (before Kubernetes 1.28).
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Why, for whoever reads it later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct AskArgs {
    /// The DirectUpdate.
    pub(crate) update: String,
    /// Why, for whoever reads it later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct WatchArgs {
    /// A DirectUpdate or an UpgradeRun; the newest upgrade if none is named.
    pub(crate) run: Option<String>,
    /// Draw with ASCII characters only.
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Print each changed UpgradeRun for programs: as JSON one a line, as YAML a document each.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}
