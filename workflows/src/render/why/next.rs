//! The exact next command.

use super::holds::RUN_REFUSED;
use super::holds::WAITS_FOR;
use super::{HeldBy, Hold, RunNow, Standing, Wait};
use cupcake_crds::DirectUpdate;
use cupcake_steps::cluster::NODE_GONE;
use cupcake_steps::cluster::preflight::workers_named;
use cupcake_steps::cluster::stragglers::{self, NODES_FAILED};
use serde_json::Value;

/// What ends what holds it or, where nobody has to do anything, what shows how it goes on.
pub(super) fn next(update: &DirectUpdate, runs: &[RunNow<'_>], holds: &[Hold], waits: &[Wait]) -> String {
    let name = update.metadata.name.as_deref().unwrap_or_default();
    let phase = update.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
    if phase.is_final() {
        return format!("kubectl cupcake status {name}");
    }
    let of_hold = holds.iter().find_map(|hold| match hold.by {
        HeldBy::Nobody => {
            Some("kubectl get pods --all-namespaces --selector app.kubernetes.io/name=cupcake-operator".to_owned())
        }
        HeldBy::Refusal => {
            Some(format!("kubectl get directupdate {name} --output yaml | kubectl cupcake preflight --filename -"))
        }
        HeldBy::AnotherUpdate => other_of(&hold.reason).map(|other| format!("kubectl cupcake why {other}")),
        HeldBy::Pause | HeldBy::TimeOut => Some(format!("kubectl cupcake resume {name}")),
        HeldBy::Approval => {
            gate_of(runs, waits).map(|gate| format!("kubectl cupcake approve {name} {gate} --comment TEXT"))
        }
        HeldBy::Failure if hold.code == NODES_FAILED => Some(match straggler(update, waits) {
            Some(node) => format!("kubectl cupcake retry {name} {node}"),
            // A verification found them, of a plan that tries nobody again.
            None => format!("kubectl cupcake skip {name} NODE"),
        }),
        // Only a new plan holds a control-plane node that came meanwhile.
        HeldBy::Failure if hold.code == "ControlPlaneJoined" => Some(format!("kubectl cupcake cancel {name}")),
        HeldBy::Failure if waits.iter().any(|wait| wait.standing == Standing::Failed && wait.code == NODE_GONE) => {
            Some(format!("kubectl cupcake cancel {name}"))
        }
        HeldBy::Failure => waits.iter().rfind(|wait| wait.standing == Standing::Failed).map(|wait| {
            let what = wait.node.as_deref().unwrap_or(&wait.vertex);
            leave_out(update, wait).unwrap_or_else(|| format!("kubectl cupcake retry {name} {what}"))
        }),
        // Machines are asked what they are before anything is begun.
        HeldBy::Operator if hold.code == "AgentAbsent" => {
            let selector = "--selector app.kubernetes.io/component=agent";
            Some(format!("kubectl get pods --all-namespaces {selector} --output wide"))
        }
        HeldBy::Operator if hold.code == RUN_REFUSED => {
            let what = "update upgraderuns.cupcake.ricardomolendijk.com --subresource status";
            Some(format!("kubectl auth can-i {what} --as system:serviceaccount:NAMESPACE:NAME"))
        }
        HeldBy::Window | HeldBy::Operator => None,
    });
    let waiting = || waits.iter().filter(|wait| wait.standing == Standing::Waits);
    let of_wait = || waiting().find_map(|wait| leave_out(update, wait).or_else(|| look_at(wait)));
    of_hold.or_else(of_wait).unwrap_or_else(|| format!("kubectl cupcake watch {name}"))
}

/// The update that another one waits for, as its message names it.
fn other_of(reason: &str) -> Option<&str> {
    reason.strip_prefix(WAITS_FOR)?.split([':', ' ']).next()
}

/// The gate that waits.
fn gate_of(runs: &[RunNow<'_>], waits: &[Wait]) -> Option<String> {
    waits.iter().find_map(|wait| {
        let view = runs.iter().find(|one| super::name_of(one.run) == wait.run)?.view?;
        let vertex = view.dag.vertices().iter().find(|vertex| vertex.name.as_str() == wait.vertex)?;
        vertex.params.get("approval").and_then(Value::as_str).map(str::to_owned)
    })
}

/// The first worker that a wave lost and that nobody decided about.
fn straggler<'w>(update: &DirectUpdate, waits: &'w [Wait]) -> Option<&'w str> {
    let lost = waits.iter().filter(|wait| wait.code == NODES_FAILED && wait.vertex == "stragglers");
    lost.flat_map(|wait| stragglers::workers_named(&wait.reason)).find(|worker| !update.spec.skips(worker))
}

/// The way on without a worker that is not Ready and holds the start of a hop; none once all that are named are left out.
fn leave_out(update: &DirectUpdate, wait: &Wait) -> Option<String> {
    let name = update.metadata.name.as_deref().unwrap_or_default();
    let worker = workers_named(&wait.reason).into_iter().find(|worker| !update.spec.skips(worker))?;
    Some(format!("kubectl cupcake skip {name} {worker}"))
}

/// Where to look for what keeps a step waiting that a person may have to mend.
fn look_at(wait: &Wait) -> Option<String> {
    let node = wait.node.as_deref();
    match wait.code.as_str() {
        "DrainBlocked" | "PodsCompleting" | "PodsLeaving" | "PodStuck" => {
            let pods = "kubectl get pods --all-namespaces --output wide --field-selector spec.nodeName=";
            node.map(|node| format!("{pods}{node}"))
        }
        "VolumesAttached" => Some("kubectl get volumeattachments".to_owned()),
        "AgentAbsent" => node.map(|node| {
            let selector = "--selector app.kubernetes.io/component=agent";
            format!("kubectl get pods --all-namespaces {selector} --field-selector spec.nodeName={node}")
        }),
        "NodeNotReady" | "NodeUnreachable" | "CanaryNotReady" => Some(match node {
            Some(node) => format!("kubectl describe node {node}"),
            None => "kubectl get nodes".to_owned(),
        }),
        "EtcdMemberAway" | "EtcdLearner" | "EtcdAway" | "EtcdSlow" | "EtcdStore" => {
            Some("kubectl --namespace kube-system get pods --selector component=etcd --output wide".to_owned())
        }
        "NodesUnavailable" => Some("kubectl get nodes".to_owned()),
        "ApiServerAway" | "ApiServerBusy" | "ApiServerError" => Some("kubectl get --raw /readyz?verbose".to_owned()),
        _ => None,
    }
}
