//! Where a dry run ends: what would happen, and what would be done on each node, in bounds. Pure.

use super::stand::Stand;
use cupcake_crds::direct_update::NodeCommands;
use cupcake_crds::limits::{COMMANDED_NODES_MAX, NODE_COMMANDS_MAX};
use cupcake_workflows::Compiled;

/// The end of a dry run: Succeeded, with the plan as its graph and what would be done on each node as its commands. The checks are the
/// caller's.
pub(super) fn stand(name: &str, compiled: &Compiled) -> Stand {
    let (nodes, target) = (compiled.summary.nodes(), compiled.summary.target);
    let would = match nodes {
        1 => format!("1 node would move to {target}"),
        nodes => format!("{nodes} nodes would move to {target}"),
    };
    let all = format!("kubectl get directupdate {name} --output yaml | kubectl cupcake plan --commands --filename -");
    let message = format!(
        "dry run: {would}; nothing was changed; what would be done on them: status.commands, and in whole: {all}"
    );
    let mut stand = Stand::done("DryRun", message);
    stand.graph = compiled.summary.lines();
    stand.commands = commands(compiled);
    stand
}

fn commands(compiled: &Compiled) -> Vec<NodeCommands> {
    let told = compiled.commands.iter().take(NODE_COMMANDS_MAX).map(|alike| NodeCommands {
        commands: alike.commands.clone(),
        count: u32::try_from(alike.nodes.len()).unwrap_or(u32::MAX),
        nodes: alike.nodes.iter().take(COMMANDED_NODES_MAX).cloned().collect(),
        version: alike.version.to_string(),
    });
    told.collect()
}
