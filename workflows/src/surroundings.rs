//! What lives around the nodes, against what an update does to it: etcd's members, pods that drains meet, hooks, other programs.

use crate::addons::{absent_addons, left_out_kube_proxy};
use crate::admission::admission;
use crate::checks::INVENTORY_SECONDS_MAX;
use crate::compile::Hop;
use crate::finding::{Code, Finding, Findings, named};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::limits::ETCD_MEMBERS_MAX;
use cupcake_crds::values::{
    ClusterSnapshot, DisruptionBudget, EtcdMember, EtcdTopology, NodeRole, NodeSnapshot, OnExpiry, PodSnapshot,
    Treatment,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// All of it.
pub(crate) fn surroundings(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    hops: &[Hop<'_>],
    findings: &mut Findings,
) {
    if hops.iter().any(|hop| hop.control_plane.changes()) {
        etcd(snapshot, findings);
        left_out_kube_proxy(snapshot, hops, findings);
        absent_addons(snapshot, hops, findings);
        requests(snapshot, hops, findings);
    }
    let moving: BTreeMap<&str, &NodeSnapshot> = hops
        .iter()
        .flat_map(|hop| hop.control_plane.kubelets.iter().chain(&hop.workers.moving))
        .map(|node| (node.node.name.as_str(), *node))
        .collect();
    let drained: BTreeMap<&str, &NodeSnapshot> = hops.iter().flat_map(|hop| hop.drained(spec)).collect();
    if !drained.is_empty() || hops.iter().any(|hop| hop.control_plane.changes()) {
        admission(snapshot, hops, &drained, findings);
    }
    if !drained.is_empty() {
        drains(spec, snapshot, &drained, findings);
    }
    if !moving.is_empty() {
        foreign(&moving, findings);
    }
    for updater in &snapshot.surroundings.other_updaters {
        let message = "it may reboot, remove or upgrade nodes in the middle of the update";
        let remedy = "pause it for as long as the update runs";
        findings.warn(Finding::new(Code::OtherUpdater, updater, "", message, remedy));
    }
    for unread in &snapshot.surroundings.unread {
        let message = "not looked at, so that nothing of the kind is told here";
        findings.warn(Finding::new(
            Code::NotLookedAt,
            unread,
            "",
            message,
            "give the right to read it, or look at it yourself",
        ));
    }
}

/// Source: etcd.io, "How to upgrade etcd from v3.5 to v3.6", and kubernetes.io, "Operating etcd clusters for Kubernetes" (v1.34).
fn etcd(snapshot: &ClusterSnapshot, findings: &mut Findings) {
    let (members, seen_by) = members_of(snapshot);
    // What is no cluster of kubeadm's with etcd beside it is refused for that.
    if snapshot.etcd == EtcdTopology::External || snapshot.with_role(NodeRole::ControlPlane).next().is_none() {
        return;
    }
    if members.is_empty() {
        let remedy = "see: etcdctl endpoint health --cluster";
        let message = "who its members are is not known (no control-plane node told), so they are not looked at";
        findings.warn(Finding::new(Code::EtcdMembers, "etcd", "", message, remedy));
        return;
    }
    let seen_at = seen_by.first().and_then(|name| snapshot.nodes.get(name)?.inventory.as_ref()?.taken_at);
    if let Some(at) = seen_at.filter(|at| (snapshot.taken_at - *at).num_seconds() > INVENTORY_SECONDS_MAX) {
        let message = format!("its members were looked at last on {}", at.format("%Y-%m-%d at %H:%M UTC"));
        let remedy = "see: etcdctl endpoint health --cluster";
        findings.warn(Finding::new(Code::EtcdMembers, "etcd", "", message, remedy));
    }
    let name = |member: &&EtcdMember| {
        if member.name.is_empty() { "one that never started".to_owned() } else { member.name.clone() }
    };
    for member in members.iter().filter(|member| !member.alarms.is_empty()) {
        let message = format!(
            "has raised an alarm ({}), with which etcd takes no writes or may not be whole",
            member.alarms.join(", ")
        );
        let remedy = "NOSPACE: compact and defragment etcd, then etcdctl alarm disarm; CORRUPT: remove that member and join its node again";
        findings.refuse(
            Finding::new(Code::EtcdAlarm, "etcd", name(&member), message, remedy).by_inventories_of(seen_by.clone()),
        );
    }
    let mut refuse = |bad: Vec<&EtcdMember>, message: &str, remedy: &str| {
        if !bad.is_empty() {
            let names = named(bad.iter().map(name));
            let finding = Finding::new(Code::EtcdMembers, "etcd", names, message, remedy);
            findings.refuse(finding.by_inventories_of(seen_by.clone()));
        }
    };
    let learners: Vec<_> = members.iter().filter(|member| member.learner).collect();
    refuse(learners, "members without a vote", "wait until they have caught up, then: etcdctl member promote ID");
    let ill: Vec<_> = members.iter().filter(|member| !member.healthy && !member.name.is_empty()).collect();
    refuse(ill, "members that do not answer", "mend them: kubectl -n kube-system logs etcd-NODE");
    let control_plane: BTreeSet<&str> =
        snapshot.with_role(NodeRole::ControlPlane).map(|node| node.node.name.as_str()).collect();
    let strangers: Vec<_> = members.iter().filter(|member| !control_plane.contains(member.name.as_str())).collect();
    refuse(
        strangers,
        "members that are no control-plane node of this cluster: they count for the quorum",
        "if their machines are gone: etcdctl member remove ID",
    );
    let known: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let missing: Vec<_> = control_plane.difference(&known).collect();
    if !missing.is_empty() {
        // Beyond so many a machine tells none: nothing says that these have no member.
        let (message, remedy) = if control_plane.len() > ETCD_MEMBERS_MAX && members.len() >= ETCD_MEMBERS_MAX {
            (
                format!("more than {ETCD_MEMBERS_MAX} control-plane nodes: of more members etcd is not looked at"),
                "take control-plane nodes out until no more are left: etcd suggests 7 at most",
            )
        } else {
            (
                "control-plane nodes without a member of etcd".to_owned(),
                "join them again with kubeadm join --control-plane, or take the label off those that are none",
            )
        };
        let finding = Finding::new(Code::EtcdMembers, "etcd", named(missing), message, remedy);
        findings.refuse(finding.by_inventories_of(seen_by.clone()));
    }
    if members.len() == 2 {
        let message = "with two members the loss of either stops the cluster, so every step on the control plane does";
        let remedy = "add a third control-plane node, or expect that the API is away for minutes";
        findings.warn(Finding::new(Code::EtcdMembers, "etcd", members.len(), message, remedy));
    }
}

/// The members that are known, and by the inventories of which nodes: the newest one that lists any.
pub(crate) fn members_of(snapshot: &ClusterSnapshot) -> (&[EtcdMember], Vec<String>) {
    if !snapshot.surroundings.etcd_members.is_empty() {
        return (&snapshot.surroundings.etcd_members, Vec::new());
    }
    let told = snapshot.with_role(NodeRole::ControlPlane).filter_map(|node| {
        let inventory = node.inventory.as_ref().filter(|inventory| !inventory.etcd_members.is_empty())?;
        Some((inventory.taken_at, node.node.name.clone(), inventory.etcd_members.as_slice()))
    });
    let told: Vec<_> = told.collect();
    let newest = told.iter().max_by(|one, other| (one.0, &other.1).cmp(&(other.0, &one.1)));
    newest.map_or((&[], Vec::new()), |(_, name, members)| (*members, vec![name.clone()]))
}

/// The eviction of every node's pods, as the Eviction API would judge it; those that rules of the drain leave where they are, or have
/// waited for, are not evicted.
///
/// Source: kubernetes.io, "Specifying a Disruption Budget" and "API-initiated Eviction" (v1.34): none while `currentHealthy` is at
/// most `desiredHealthy`, an error where two budgets cover one pod.
fn drains(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    drained: &BTreeMap<&str, &NodeSnapshot>,
    findings: &mut Findings,
) {
    let budgets: BTreeMap<&str, &DisruptionBudget> =
        snapshot.surroundings.disruption_budgets.iter().map(|budget| (budget.name.as_str(), budget)).collect();
    let rules = spec.drain.as_ref().map_or(&[][..], |drain| &drain.rules);
    let is_evicted = |pod: &PodSnapshot| {
        let namespace = pod.name.split('/').next().unwrap_or_default();
        drained.contains_key(pod.node.as_str()) && Treatment::of(rules, namespace, &pod.labels).evicts()
    };
    let pods: Vec<&PodSnapshot> = snapshot.surroundings.pods.iter().filter(|pod| is_evicted(pod)).collect();
    let covering = |pod: &PodSnapshot| -> Vec<&DisruptionBudget> {
        pod.budgets.iter().filter_map(|name| budgets.get(name.as_str()).copied()).collect()
    };
    let never = |pod: &&&PodSnapshot| pod.budgets.len() > 1 || covering(pod).iter().any(|budget| budget.never_gives());
    let why = |pod: &PodSnapshot| match covering(pod).as_slice() {
        [budget] if pod.budgets.len() == 1 => {
            format!(
                "{} by {} ({} of {} must stay)",
                pod.name, budget.name, budget.desired_healthy, budget.expected_pods
            )
        }
        _ => format!("{} by {} at once, which the Eviction API refuses", pod.name, pod.budgets.join(" and ")),
    };
    let (told, blocked): (Vec<&PodSnapshot>, Vec<&PodSnapshot>) =
        pods.iter().filter(never).copied().partition(|pod| on_expiry(spec, drained, pod).is_some());
    if let Some(policy) = told.first().and_then(|pod| on_expiry(spec, drained, pod)) {
        let message = format!("pods that may never be evicted: {}", named(told.iter().map(|pod| why(pod))));
        let nodes: BTreeSet<&str> = told.iter().map(|pod| pod.node.as_str()).collect();
        findings.warn(Finding::new(Code::DisruptionBudget, "nodes", named(nodes), message, policy));
    }
    let blocked = blocked.into_iter();
    let (twice, blocked): (Vec<&PodSnapshot>, Vec<&PodSnapshot>) = blocked.partition(|pod| pod.budgets.len() > 1);
    let remedy = |node: &str| {
        format!(
            "let each budget spare one pod for the time of the update (or add a replica), or name it in spec.acknowledge: {{check: DisruptionBudget, node: {node}}}, and its drain waits for you"
        )
    };
    by_node(spec, &blocked, Code::DisruptionBudget, "pods that may never be evicted", &why, remedy, findings);
    let remedy = |node: &str| {
        format!(
            "leave each of them under one budget only, by the selector of the other, or name it in spec.acknowledge: {{check: DisruptionBudget, node: {node}}}, and its drain waits for you"
        )
    };
    by_node(spec, &twice, Code::DisruptionBudget, "pods that may never be evicted", &why, remedy, findings);
    let now: Vec<_> = pods
        .iter()
        .filter(|pod| !never(pod))
        .filter(|pod| covering(pod).iter().any(|budget| budget.gives_nothing_now()))
        .map(|pod| pod.name.as_str())
        .collect();
    if !now.is_empty() {
        let message = "their budgets let no pod go as long as others of them are not healthy: the drains wait for that";
        let remedy = "see: kubectl get pdb -A";
        findings.warn(Finding::new(Code::DisruptionBudget, "pods", named(now), message, remedy));
    }
    let drain = spec.drain.clone().unwrap_or_default();
    let whole = |pod: &PodSnapshot| pod.name.clone();
    if !drain.delete_empty_dir_data {
        let local: Vec<&PodSnapshot> = pods.iter().filter(|pod| pod.empty_dir).copied().collect();
        let remedy = |node: &str| {
            format!(
                "set spec.drain.deleteEmptyDirData: true if that may be, or name it in spec.acknowledge: {{check: LocalStorage, node: {node}}}"
            )
        };
        by_node(spec, &local, Code::LocalStorage, "pods whose emptyDir ends with them", &whole, remedy, findings);
    }
    if !drain.delete_unmanaged_pods {
        let unmanaged: Vec<&PodSnapshot> = pods.iter().filter(|pod| pod.unmanaged).copied().collect();
        let remedy = |node: &str| {
            format!(
                "set spec.drain.deleteUnmanagedPods: true if they may be gone, or name it in spec.acknowledge: {{check: UnmanagedPods, node: {node}}}"
            )
        };
        by_node(spec, &unmanaged, Code::UnmanagedPods, "pods that nothing makes anew", &whole, remedy, findings);
    }
}

/// What the spec says becomes of a node whose pods are never evicted; `None` where a person is asked.
fn on_expiry(
    spec: &DirectUpdateSpec,
    drained: &BTreeMap<&str, &NodeSnapshot>,
    pod: &PodSnapshot,
) -> Option<&'static str> {
    let role = drained.get(pod.node.as_str()).map(|node| node.role);
    match (spec.drain.as_ref()?.on_expiry, role?) {
        (OnExpiry::Hold, _) | (OnExpiry::SkipNode, NodeRole::ControlPlane) => None,
        (OnExpiry::SkipNode, NodeRole::Worker) => {
            Some("spec.drain.onExpiry: SkipNode leaves such a node out when the time of its drain is up")
        }
        (OnExpiry::ForceAfter, _) => {
            Some("spec.drain.onExpiry: ForceAfter deletes them when the time of their drain is up")
        }
    }
}

/// Refuses the pods of nodes that nobody has acknowledged, and warns of the others.
fn by_node(
    spec: &DirectUpdateSpec,
    pods: &[&PodSnapshot],
    check: Code,
    message: &str,
    told: &impl Fn(&PodSnapshot) -> String,
    remedy: impl Fn(&str) -> String,
    findings: &mut Findings,
) {
    let acknowledged = |pod: &&PodSnapshot| {
        spec.acknowledge.iter().any(|entry| entry.check == check.to_string() && entry.node == pod.node)
    };
    let (known, open): (Vec<&PodSnapshot>, Vec<&PodSnapshot>) = pods.iter().copied().partition(acknowledged);
    let finding = |pods: &[&PodSnapshot], remedy: String| {
        let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
        let message = format!("{message}: {}", named(pods.iter().map(|pod| told(pod))));
        Finding::new(check, "nodes", named(&nodes), message, remedy).of_nodes(nodes)
    };
    if let Some(first) = open.first() {
        let nodes: BTreeSet<&str> = open.iter().map(|pod| pod.node.as_str()).collect();
        findings.refuse(finding(&open, crate::finding::for_each(remedy(&first.node), nodes.len())));
    }
    if !known.is_empty() {
        findings.warn(finding(&known, "acknowledged in spec.acknowledge".to_owned()));
    }
}

/// Nodes whose machines are not ours to change.
fn foreign(moving: &BTreeMap<&str, &NodeSnapshot>, findings: &mut Findings) {
    let mut refuse = |told: &dyn Fn(&NodeSnapshot) -> Option<String>, message: &str| {
        for (role, remedy) in [
            (
                NodeRole::ControlPlane,
                "no control-plane node can be left out: upgrade this cluster by what makes its machines",
            ),
            (NodeRole::Worker, "leave them out by spec.nodeSelector, and upgrade them the way they were made"),
        ] {
            let of_role = moving.values().filter(|node| node.role == role);
            let (names, shown): (Vec<String>, Vec<String>) =
                of_role.filter_map(|node| Some((node.node.name.clone(), told(node)?))).unzip();
            if !names.is_empty() {
                let finding = Finding::new(Code::ForeignNode, "nodes", named(shown), message, remedy);
                findings.refuse(finding.of_nodes(names));
            }
        }
    };
    let windows = |node: &NodeSnapshot| node.labels.get("kubernetes.io/os").is_some_and(|os| os == "windows");
    refuse(&|node| windows(node).then(|| node.node.name.clone()), "Windows nodes, which CUPCAKE does not upgrade");
    let managed = |node: &NodeSnapshot| Some(format!("{} ({})", node.node.name, node.managed_by.clone()?));
    refuse(&managed, "nodes that something else makes and replaces; it would undo what is changed on them");
}

/// Requests to API versions that a minor on the way no longer serves.
fn requests(snapshot: &ClusterSnapshot, hops: &[Hop<'_>], findings: &mut Findings) {
    let Some(last) = hops.last() else { return };
    for request in &snapshot.surroundings.deprecated_requests {
        let removed = request.removed_in.split_once('.').and_then(|(major, minor)| {
            Some((major.trim_start_matches('v').parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        let (from, to) = (snapshot.server.minor(), last.step.version.minor());
        if removed.is_some_and(|(_, minor)| minor > from && minor <= to) {
            let mut message = format!(
                "somebody asked for it since the API servers started; {} no longer serves it",
                request.removed_in
            );
            if !request.written_by.is_empty() {
                let _ = write!(message, "; by it wrote {}", request.written_by.join(", "));
            }
            let remedy = who_asks(&request.api, !request.written_by.is_empty());
            findings.warn(Finding::new(Code::RemovedApis, "API requests", &request.api, message, remedy));
        }
    }
}

/// How to find out who asks for an API version. Of those that only read no object tells.
///
/// Source: kubernetes.io, "Deprecated API Migration Guide" and "Auditing" (v1.34): the annotation `k8s.io/deprecated` of audit events.
fn who_asks(api: &str, writers_are_known: bool) -> String {
    let readers = "who only reads stands in the API server's audit log alone (the file of its --audit-log-path): grep '\"k8s.io/deprecated\":\"true\"' FILE";
    let object =
        api.split_once(' ').and_then(|(version, resource)| Some((version, version.split_once('/')?.0, resource)));
    match object {
        Some(_) if writers_are_known => format!("let these use a newer version; {readers}"),
        Some((version, group, resource)) => format!(
            "who wrote by it: kubectl get {resource}.{group} --all-namespaces --output jsonpath='{{.items[*].metadata.managedFields[?(@.apiVersion==\"{version}\")].manager}}'; {readers}"
        ),
        None => readers.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, node, spec};
    use crate::{Compilation, Compiled, Refusal};
    use cupcake_crds::node_task::NodeInventory;
    use cupcake_crds::values::{AdmissionHook, AdmissionPolicy, DeprecatedRequest, Surroundings};
    use serde_json::{Value, json};

    fn planned(fields: &Value, change: impl Fn(&mut ClusterSnapshot)) -> Result<Compilation<Compiled>, Refusal> {
        let mut snapshot = cluster(3, 2, "1.33.4");
        change(&mut snapshot);
        compiled(&spec(fields), &snapshot)
    }

    /// What is refused, and what is warned of, but for the minor of etcd.
    fn told(fields: &Value, change: impl Fn(&mut ClusterSnapshot)) -> (Vec<String>, Vec<String>) {
        let lines = |findings: &[Finding]| -> Vec<String> {
            let told = findings.iter().filter(|finding| finding.code != Code::EtcdMinor);
            told.map(|finding| format!("{} {finding}", finding.code)).collect()
        };
        match planned(fields, change) {
            Ok(Compilation::Plan(plan)) => (Vec::new(), lines(&plan.report.warnings)),
            Ok(Compilation::NothingToDo(_)) => panic!("nothing to do"),
            Err(refusal) => (lines(&refusal.findings), lines(&refusal.warnings)),
        }
    }

    fn member(name: &str) -> EtcdMember {
        EtcdMember::voting(name)
    }

    #[test]
    fn etcd_is_every_control_plane_node_and_nobody_else_all_of_them_well_and_with_a_vote() {
        let members = |change: &dyn Fn(&mut Vec<EtcdMember>)| {
            let mut members = vec![member("cp-1"), member("cp-2"), member("cp-3")];
            change(&mut members);
            told(&json!({}), |snapshot| {
                snapshot.surroundings.etcd_members.clear();
                let inventory = NodeInventory { etcd_members: members.clone(), ..NodeInventory::default() };
                snapshot.nodes.get_mut("cp-2").unwrap().inventory = Some(inventory);
            })
            .0
        };
        assert_eq!(members(&|_| ()), Vec::<String>::new());
        let one = |told: Vec<String>, words: &[&str]| {
            assert!(told.len() == 1 && words.iter().all(|word| told[0].contains(word)), "{told:?}");
        };
        one(members(&|members| members[1].learner = true), &["EtcdMembers", "\"cp-2\"", "without a vote", "promote"]);
        one(members(&|members| members[0].healthy = false), &["\"cp-1\"", "do not answer", "logs etcd-"]);
        let full = |members: &mut Vec<EtcdMember>| members[2].alarms = vec!["NOSPACE".to_owned()];
        one(members(&full), &["EtcdAlarm", "\"cp-3\"", "(NOSPACE)", "alarm disarm"]);
        one(members(&|members| members.push(member("cp-9"))), &["\"cp-9\"", "count for the quorum", "member remove"]);
        one(members(&|members| members.push(EtcdMember { healthy: false, ..member("") })), &["one that never started"]);
        one(members(&|members| drop(members.pop())), &["\"cp-3\"", "without a member of etcd"]);
        let (refused, _) = told(&json!({}), |snapshot| {
            let names: Vec<String> = (1..=10).map(|number| format!("cp-{number}")).collect();
            for name in &names {
                snapshot.nodes.insert(name.clone(), node(name, NodeRole::ControlPlane, snapshot.server));
            }
            snapshot.surroundings.etcd_members = names.iter().take(9).map(|name| member(name)).collect();
        });
        one(refused, &["\"cp-10\"", "more than 9 control-plane nodes"]);
        let (refused, warned) = told(&json!({}), |snapshot| {
            snapshot.surroundings.etcd_members.clear();
            let members = ["cp-1", "cp-2", "cp-3"].map(member).to_vec();
            let taken_at = Some(snapshot.taken_at - chrono::TimeDelta::days(90));
            let etcd_store_doubts = Some(Vec::new());
            let inventory =
                NodeInventory { etcd_members: members, etcd_store_doubts, taken_at, ..NodeInventory::default() };
            snapshot.nodes.get_mut("cp-1").unwrap().inventory = Some(inventory);
        });
        let old = warned.iter().any(|line| line.starts_with("EtcdMembers") && line.contains("looked at last on"));
        assert!(refused.is_empty() && old, "{refused:?} {warned:?}");
        let unknown = |snapshot: &mut ClusterSnapshot| {
            snapshot.surroundings.etcd_members.clear();
            snapshot.nodes.get_mut("cp-1").unwrap().inventory = Some(NodeInventory::default());
        };
        assert!(told(&json!({}), unknown).1[0].contains("not looked at"));
        let stale = planned(&json!({}), |snapshot| {
            snapshot.surroundings.etcd_members.clear();
            let inventory = NodeInventory { etcd_members: vec![member("cp-1")], ..NodeInventory::default() };
            snapshot.nodes.get_mut("cp-2").unwrap().inventory = Some(inventory);
        });
        assert_eq!(*stale.unwrap_err().findings[0].nodes, ["cp-2"], "whose inventory is to be asked for anew");
    }

    fn with_pods(pods: &[PodSnapshot], healthy: i32) -> impl Fn(&mut ClusterSnapshot) {
        let budget = |name: &str, desired_healthy| DisruptionBudget {
            name: name.to_owned(),
            expected_pods: 2,
            desired_healthy,
            current_healthy: Some(healthy),
        };
        let (budgets, pods) = (vec![budget("shop/web", 1), budget("shop/db", 2)], pods.to_vec());
        move |snapshot| {
            snapshot.surroundings.disruption_budgets.clone_from(&budgets);
            snapshot.surroundings.pods.clone_from(&pods);
        }
    }

    fn pod(name: &str, node: &str, budgets: &[&str]) -> PodSnapshot {
        PodSnapshot {
            name: name.to_owned(),
            node: node.to_owned(),
            labels: BTreeMap::new(),
            budgets: budgets.iter().map(|name| (*name).to_owned()).collect(),
            empty_dir: false,
            unmanaged: false,
        }
    }

    #[test]
    fn a_drain_that_a_budget_would_never_let_end_is_refused_before_anything_moves() {
        let never = [pod("shop/db-0", "w-01", &["shop/db"])];
        let (refused, _) = told(&json!({}), with_pods(&never, 2));
        assert_eq!(refused.len(), 1);
        for words in ["DisruptionBudget nodes \"w-01\"", "shop/db-0 by shop/db (2 of 2 must stay)", "node: w-01}"] {
            assert!(refused[0].contains(words), "{refused:?}");
        }
        let acknowledged = json!({"acknowledge": [{"check": "DisruptionBudget", "node": "w-01"}]});
        let (refused, warned) = told(&acknowledged, with_pods(&never, 2));
        assert!(refused.is_empty() && warned[0].contains("acknowledged"), "{refused:?} {warned:?}");
        let two = [pod("shop/web-0", "w-02", &["shop/web", "shop/db"])];
        assert!(told(&json!({}), with_pods(&two, 2)).0[0].contains("which the Eviction API refuses"));
        let one = [pod("shop/web-0", "w-02", &["shop/web"])];
        assert_eq!(told(&json!({}), with_pods(&one, 2)), (Vec::new(), Vec::new()), "one of two may go");
        let (refused, warned) = told(&json!({}), with_pods(&one, 1));
        assert!(refused.is_empty() && warned[0].contains("wait for that"), "{warned:?}");
        // Nodes that are not emptied do not count.
        let selected = json!({"nodeSelector": {"pool": "blue"}});
        let blue = |snapshot: &mut ClusterSnapshot| {
            with_pods(&never, 2)(snapshot);
            snapshot.nodes.get_mut("w-02").unwrap().labels.insert("pool".into(), "blue".into());
        };
        assert_eq!(told(&selected, blue).0, Vec::<String>::new());
    }

    #[test]
    fn what_a_budget_never_lets_go_stands_in_the_way_only_where_no_policy_says_what_becomes_of_it() {
        let of = |policy: &str, node: &str| {
            let pods = [pod("shop/db-0", node, &["shop/db"])];
            let (refused, warned) = told(&json!({"drain": {"onExpiry": policy}}), with_pods(&pods, 2));
            let told: Vec<String> = warned.into_iter().filter(|line| line.contains("shop/db-0")).collect();
            assert_eq!(refused.len() + told.len(), 1, "{policy} on {node}: {refused:?} {told:?}");
            refused.is_empty()
        };
        assert_eq!(["Hold", "SkipNode", "ForceAfter"].map(|policy| of(policy, "w-01")), [false, true, true]);
        let control_plane = ["Hold", "SkipNode", "ForceAfter"].map(|policy| of(policy, "cp-1"));
        assert_eq!(control_plane, [false, false, true], "none of them is left out");
        let within = |snapshot: &mut ClusterSnapshot| {
            *snapshot = cluster(1, 2, "1.34.1");
            with_pods(&[pod("shop/db-0", "w-01", &["shop/db"])], 2)(snapshot);
        };
        assert_eq!(told(&json!({}), within).0.len(), 1);
        assert_eq!(told(&json!({"drain": {"onPatch": false}}), within), (Vec::new(), Vec::new()), "nothing is drained");
    }

    #[test]
    fn pods_that_lose_something_by_an_eviction_need_consent() {
        let mut pods = [pod("shop/cache", "w-01", &[]), pod("shop/alone", "w-02", &[])];
        (pods[0].empty_dir, pods[1].unmanaged) = (true, true);
        let (refused, _) = told(&json!({}), with_pods(&pods, 2));
        assert!(refused[0].contains("LocalStorage") && refused[0].contains("deleteEmptyDirData: true"), "{refused:?}");
        assert!(refused[1].contains("UnmanagedPods") && refused[1].contains("shop/alone"), "{refused:?}");
        let consent = json!({"drain": {"deleteEmptyDirData": true, "deleteUnmanagedPods": true}});
        assert_eq!(told(&consent, with_pods(&pods, 2)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn pods_that_rules_do_not_evict_need_neither_consent_nor_a_budget() {
        let mut pods = [pod("shop/db-0", "w-01", &["shop/db"]), pod("ci/build", "w-02", &[])];
        pods[0].labels = [("app".to_owned(), "db".to_owned())].into();
        (pods[0].empty_dir, pods[1].unmanaged) = (true, true);
        let of = |rules: Value| {
            let (refused, warned) = told(&json!({"drain": {"rules": rules}}), with_pods(&pods, 2));
            assert_eq!(warned, Vec::<String>::new());
            refused.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let db = json!({"matchLabels": {"app": "db"}});
        assert_eq!(of(json!([])), ["DisruptionBudget", "LocalStorage", "UnmanagedPods"]);
        assert_eq!(of(json!([{"action": "Skip", "namespaces": ["shop"], "selector": db}])), ["UnmanagedPods"]);
        assert_eq!(
            of(json!([{"action": "WaitCompleted", "namespaces": ["ci"]}])),
            ["DisruptionBudget", "LocalStorage"]
        );
        let last = json!([
            {"action": "Evict", "order": 10, "selector": db}, {"action": "Skip", "namespaces": ["shop", "ci"]},
        ]);
        assert_eq!(of(last), ["DisruptionBudget", "LocalStorage"], "the first rule that selects it counts");
    }

    #[test]
    fn machines_that_are_not_ours_are_refused_by_name() {
        let change = |snapshot: &mut ClusterSnapshot| {
            let windows = snapshot.nodes.get_mut("w-01").unwrap();
            windows.labels.insert("kubernetes.io/os".into(), "windows".into());
            snapshot.nodes.get_mut("w-02").unwrap().managed_by = Some("Machine prod/md-0 of Cluster API".into());
        };
        let (refused, _) = told(&json!({}), change);
        assert!(refused[0].contains("ForeignNode nodes \"w-01\": Windows"), "{refused:?}");
        assert!(refused[1].contains("w-02 (Machine prod/md-0 of Cluster API)"), "{refused:?}");
    }

    #[test]
    fn a_hook_is_told_with_where_its_pods_are_where_an_update_moves_them() {
        let of = |sees: &str, nodes: Option<&[&str]>| {
            let hook = AdmissionHook {
                name: "hook".into(),
                sees: vec![sees.into()],
                all_of: Vec::new(),
                nodes: nodes.map(|nodes| nodes.iter().map(|&node| node.to_owned()).collect()),
            };
            let (refused, warned) =
                told(&json!({}), |snapshot| snapshot.surroundings.admission_hooks = vec![hook.clone()]);
            assert!(refused.is_empty() && warned.len() == 1, "{refused:?} {warned:?}");
            warned[0].clone()
        };
        assert!(of("nodes", None).starts_with("FailClosedHook hook \"nodes\": it refuses requests while"));
        let emptied = of("pods", Some(&["w-01"]));
        assert!(emptied.contains("all pods that answer it are on w-01, which the update empties"), "{emptied}");
        assert!(of("pods", Some(&[])).contains("none of the pods that answer it is ready now"));
        assert_eq!(of("pods", Some(&["w-01", "w-02"])), of("pods", None));
        assert_eq!(of("pods", Some(&["elsewhere"])), of("pods", None), "it stays where it is");
    }

    #[test]
    fn who_is_asked_about_every_kind_is_told_with_the_kinds_that_each_minor_on_the_way_adds() {
        let of = |from: &str, to: &str, groups: &[&str]| -> Vec<String> {
            let all_of: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
            let mut snapshot = cluster(3, 2, from);
            snapshot.surroundings.admission_hooks =
                vec![AdmissionHook { name: "hook".into(), sees: Vec::new(), all_of: all_of.clone(), nodes: None }];
            snapshot.surroundings.admission_policies =
                vec![AdmissionPolicy { name: "policy".into(), sees: Vec::new(), all_of }];
            let Ok(Compilation::Plan(plan)) = compiled(&spec(&json!({"targetVersion": to})), &snapshot) else {
                panic!("refused")
            };
            let codes = [Code::FailClosedHook, Code::AdmissionPolicy];
            let told = plan.report.warnings.iter().filter(|warning| codes.contains(&warning.code));
            told.map(|warning| format!("{} {warning}", warning.code)).collect()
        };
        let told = of("1.32.4", "1.33.13", &["*"]);
        assert_eq!(told.len(), 2, "{told:?}");
        for part in [
            "FailClosedHook hook \"IPAddress, ServiceCIDR (networking.k8s.io)\": from 1.33 on it is also asked about",
            "kube-apiserver of 1.33 writes some by itself, and waits where it is denied",
            "let it leave out networking.k8s.io until every API server is at 1.33",
        ] {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
        assert!(told[1].starts_with("AdmissionPolicy policy \"IPAddress, ServiceCIDR"), "{told:?}");
        let storage = of("1.32.4", "1.34.4", &["apps", "storage.k8s.io"]);
        assert!(storage.len() == 2 && storage[0].contains("\"VolumeAttributesClass (storage.k8s.io)\""), "{storage:?}");
        assert!(!storage[0].contains("by itself"), "nobody writes them unasked: {storage:?}");
        assert_eq!(of("1.33.4", "1.33.13", &["*"]), [""; 0], "a patch adds none");
        assert_eq!(of("1.34.4", "1.36.3", &["*"]), [""; 0], "of policies themselves nobody is asked");
    }

    #[test]
    fn requests_to_a_version_that_goes_away_are_told_with_who_wrote_by_it_or_the_command_that_tells() {
        let of = |written_by: &[&str]| {
            let change = |snapshot: &mut ClusterSnapshot| {
                let (api, removed_in) = ("a.io/v1beta1 as".to_owned(), "1.34".to_owned());
                let written_by = written_by.iter().map(|&writer| writer.to_owned()).collect();
                snapshot.surroundings.deprecated_requests = vec![DeprecatedRequest { api, removed_in, written_by }];
            };
            told(&json!({}), change).1.concat()
        };
        let known = of(&["helm (shop/web; last on 2026-11-20)", "argocd (ci/x)"]);
        for part in [
            "RemovedApis API requests \"a.io/v1beta1 as\": somebody asked for it since the API servers started; 1.34 no longer serves it",
            "; by it wrote helm (shop/web; last on 2026-11-20), argocd (ci/x)",
            "let these use a newer version; who only reads stands in the API server's audit log alone",
        ] {
            assert!(known.contains(part), "{part}: {known}");
        }
        let unknown = of(&[]);
        let command = "kubectl get as.a.io --all-namespaces --output jsonpath='{.items[*].metadata.managedFields[?(@.apiVersion==\"a.io/v1beta1\")].manager}'";
        assert!(
            unknown.contains(command) && unknown.contains("k8s.io/deprecated") && !unknown.contains("by it wrote"),
            "{unknown}"
        );
    }

    #[test]
    fn policies_neighbours_and_old_clients_are_told() {
        let request = |api: &str, removed_in: &str| DeprecatedRequest {
            api: api.into(),
            removed_in: removed_in.into(),
            written_by: Vec::new(),
        };
        let change = |snapshot: &mut ClusterSnapshot| {
            snapshot.surroundings = Surroundings {
                admission_policies: ["policy", "MutatingAdmissionPolicy sidecars"]
                    .map(|name| AdmissionPolicy {
                        name: name.into(),
                        sees: vec!["nodes".into(), "pods".into()],
                        all_of: Vec::new(),
                    })
                    .to_vec(),
                deprecated_requests: vec![
                    request("a/v1beta1 as", "1.34"),
                    request("b/v1 bs", "1.36"),
                    request("c/v1 cs", "?"),
                ],
                other_updaters: vec!["DaemonSet kube-system/kured".into()],
                without_kube_proxy: true,
                unread: vec!["/metrics".into()],
                ..snapshot.surroundings.clone()
            };
        };
        let (refused, warned) = told(&json!({}), change);
        assert_eq!(refused, Vec::<String>::new());
        let codes: Vec<_> = warned.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let policies = ["AdmissionPolicy", "AdmissionPolicy"];
        assert_eq!(
            codes,
            [&["KubeProxyAbsent", "RemovedApis"], &policies[..], &["OtherUpdater", "NotLookedAt"]].concat()
        );
        assert!(
            warned[2].contains("it denies what") && warned[3].contains("refuses that on which it fails"),
            "{warned:?}"
        );
        assert!(warned[2].contains("\"nodes, pods\"") && warned[1].contains("\"a/v1beta1 as\""), "{warned:?}");
    }
}
