//! Properties of updates over several minors, judged by a checker of its own that was written from the text of the policy.

use crate::testing::{NAME, UID, cluster, compiled, node, plan_of, run, spec, v};
use crate::{Code, Compilation, Compiled, Request, WaveOf, compile_wave, own_facts, wave_run};
use cupcake_crds::values::{ClusterSnapshot, KubeVersion, NodeRole};
use cupcake_steps::cluster::params;
use cupcake_steps::ports::cluster::ChildSource;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A cluster in the middle of an update: the version of each API server, and of each kubelet.
#[derive(Debug, Clone)]
struct State {
    servers: BTreeMap<String, KubeVersion>,
    kubelets: BTreeMap<String, KubeVersion>,
}

impl State {
    fn of(snapshot: &ClusterSnapshot) -> Self {
        // Where kubeadm has begun, it has been at the first node.
        let begun = snapshot.kubeadm_config.unwrap_or(snapshot.server);
        let server = |index| if index == 0 { begun.max(snapshot.server) } else { snapshot.server };
        let control_plane = snapshot.with_role(NodeRole::ControlPlane).enumerate();
        let servers = control_plane.map(|(index, node)| (node.node.name.clone(), server(index)));
        let kubelets = snapshot.nodes.values().map(|node| (node.node.name.clone(), node.kubelet));
        Self { servers: servers.collect(), kubelets: kubelets.collect() }
    }

    /// "Version Skew Policy": what is not allowed here, in its words.
    fn wrong(&self) -> Option<String> {
        let minors: BTreeSet<u32> = self.servers.values().map(|server| server.minor()).collect();
        let (oldest, newest) = (*minors.first()?, *minors.last()?);
        if newest - oldest > 1 {
            return Some(format!(
                "the newest and oldest kube-apiserver must be within one minor: 1.{oldest}, 1.{newest}"
            ));
        }
        self.kubelets.iter().find_map(|(name, kubelet)| {
            let behind_max = if kubelet.minor() < 25 { 2 } else { 3 };
            if kubelet.minor() > oldest {
                Some(format!("{name}: kubelet {kubelet} must not be newer than kube-apiserver 1.{oldest}"))
            } else if kubelet.minor() + behind_max < newest {
                Some(format!("{name}: kubelet {kubelet} may be up to {behind_max} minors older than 1.{newest}"))
            } else {
                None
            }
        })
    }

    /// What the fact of these clusters asks for, in words of its own: etcd.io, "Follow Up - Preventing Upgrade Failures from etcd v3.5 to
    /// v3.6", has every member at 3.5.24 or newer before the first one goes to 3.6. kubeadm brings 3.5.24 from 1.33.6 on, and 3.6 with
    /// 1.34.
    fn too_early_for(&self, to: KubeVersion) -> Option<String> {
        let begun = self.servers.values().any(|server| server.minor() >= to.minor());
        let old = self.servers.iter().find(|(_, server)| server.minor() == 33 && server.patch() < 6);
        let (name, server) = old.filter(|_| to.minor() == 34 && !begun)?;
        Some(format!("{name} at {server} has an etcd older than 3.5.24"))
    }

    /// What kubeadm of that version refuses without --force.
    fn refused_by_kubeadm(&self, to: KubeVersion) -> Option<String> {
        let lag_max = if to.minor() <= 28 { 1 } else { 3 };
        let late = self.kubelets.iter().find(|(_, kubelet)| kubelet.minor() + lag_max < to.minor());
        late.map(|(name, kubelet)| format!("kubeadm {to} refuses {name} with kubelet {kubelet}"))
    }

    fn snapshot(&self, before: &ClusterSnapshot) -> ClusterSnapshot {
        let mut snapshot = before.clone();
        snapshot.server = *self.servers.values().min().unwrap();
        snapshot.kubeadm_config = self.servers.values().max().copied();
        for node in snapshot.nodes.values_mut() {
            node.kubelet = self.kubelets[&node.node.name];
        }
        snapshot
    }
}

/// Carries a plan out, vertex by vertex in its order; gives how often each worker moved.
fn carried_out(
    compiled: &Compiled,
    update: &cupcake_crds::DirectUpdateSpec,
    before: &ClusterSnapshot,
) -> Result<(State, BTreeMap<String, u32>), TestCaseError> {
    let mut state = State::of(before);
    let mut moves = BTreeMap::new();
    let legal = |state: &State, what: &str| match state.wrong() {
        None => Ok(()),
        Some(wrong) => Err(TestCaseError::fail(format!("after {what}: {wrong}"))),
    };
    for vertex in compiled.plan.expand().unwrap().vertices() {
        let name = vertex.name.as_str();
        let words: Vec<&str> = name.split('/').collect();
        let version = v(words[0]);
        match &words[1..] {
            ["control-plane", node, "kubeadm-upgrade"] => {
                if let Some(refused) = state.refused_by_kubeadm(version) {
                    return Err(TestCaseError::fail(format!("{name}: {refused}")));
                }
                if let Some(early) = state.too_early_for(version) {
                    return Err(TestCaseError::fail(format!("{name}: {early}")));
                }
                let server = state.servers.get_mut(*node).unwrap();
                prop_assert!(version >= *server && version.minor() - server.minor() <= 1, "{name} from {server}");
                *server = version;
            }
            ["kubelets", node, "kubelet"] => {
                state.kubelets.insert((*node).to_owned(), version);
            }
            ["workers"] => {
                let params: params::ChildRun = serde_json::from_value(vertex.params.clone()).unwrap();
                let ChildSource::Wave { target_version, oldest_kubelet, containerd, kube_proxy } = params.source else {
                    return Err(TestCaseError::fail("the workers are no wave"));
                };
                let wave = wave_run(&run(), version).unwrap();
                let hop = WaveOf { target: target_version, oldest_kubelet, containerd, kube_proxy };
                let request = Request { name: NAME, uid: UID, spec: update };
                match compile_wave(&request, &wave, &hop, &state.snapshot(before)).unwrap() {
                    Compilation::NothingToDo(_) => {
                        let summary = compiled.summary.hops.iter().find(|hop| hop.version == version).unwrap();
                        prop_assert_eq!(summary.workers, 0, "{} moves nobody", name);
                    }
                    Compilation::Plan(wave) => {
                        let summary = compiled.summary.hops.iter().find(|hop| hop.version == version).unwrap();
                        prop_assert_eq!(
                            summary.workers as usize,
                            wave.batches.iter().map(|b| b.nodes.len()).sum::<usize>()
                        );
                        for node in wave.batches.iter().flat_map(|batch| &batch.nodes) {
                            state.kubelets.insert(node.clone(), target_version);
                            *moves.entry(node.clone()).or_insert(0) += 1;
                        }
                    }
                }
            }
            _ => {}
        }
        legal(&state, name)?;
    }
    Ok((state, moves))
}

/// A hop stays within a minor that goes on only where that is asked for, and says why; once for each minor, since the newest patch will do.
fn patches_are_asked_for(compiled: &Compiled, before: &ClusterSnapshot) -> Result<(), TestCaseError> {
    let hops = &compiled.summary.hops;
    let from = std::iter::once(before.server).chain(hops.iter().map(|hop| hop.version));
    for (index, (from, hop)) in from.zip(hops).enumerate() {
        let goes_on = hops.get(index + 1).is_some_and(|next| next.version.minor() > hop.version.minor());
        let within = hop.version.minor() == from.minor() && hop.version > from && goes_on;
        let asked = from.minor() == 33 && from.patch() < 6 && within;
        prop_assert_eq!((within, hop.reason.is_some()), (asked, asked), "{} to {}", from, hop.version);
    }
    Ok(())
}

/// How often one worker has to move at the least: every choice of hops is tried.
fn fewest_moves(server: KubeVersion, hops: &[KubeVersion], kubelet: KubeVersion) -> Option<u32> {
    let Some((hop, rest)) = hops.split_first() else {
        return Some(0);
    };
    let servers = |version: KubeVersion| BTreeMap::from([("cp".to_owned(), version)]);
    let fits = |kubelet: KubeVersion| {
        let kubelets = BTreeMap::from([("w".to_owned(), kubelet)]);
        // While the hop is under way there are servers of both versions.
        let both = servers(server).into_iter().chain([("cp-2".to_owned(), *hop)]).collect();
        let during = State { servers: both, kubelets: kubelets.clone() };
        let refused = *hop > server && State { servers: servers(server), kubelets }.refused_by_kubeadm(*hop).is_some();
        during.wrong().is_none() && !refused
    };
    // A hop that stays where the servers are is there for kubelets that do not fit the next one.
    if *hop > server && !fits(kubelet) {
        return None;
    }
    let moves = fewest_moves(*hop, rest, *hop).map(|moves| moves + u32::from(kubelet < *hop));
    let stays = if rest.is_empty() && kubelet < *hop { None } else { fewest_moves(*hop, rest, kubelet) };
    moves.into_iter().chain(stays).min()
}

#[derive(Debug, Clone)]
struct Shape {
    server: u32,
    hops: u32,
    control_plane: Vec<(bool, u32)>,
    workers: Vec<(u32, u32, bool)>,
    begun: bool,
    selects: bool,
    /// The API servers are at the target already: what is left are kubelets, or an upgrade that stopped before its end.
    there: bool,
}

/// Clusters at any minor: kubelets of all ages, some ahead by a patch, a control plane whose kubelets lag, an upgrade that had begun.
fn shapes() -> impl Strategy<Value = Shape> {
    let control_plane = prop::collection::vec((prop::bool::weighted(0.2), 0..=3_u32), 1..=7);
    let workers = prop::collection::vec((0..40_u32, 0..=9_u32, any::<bool>()), 0..12);
    let odds = (prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.15));
    // 1.33 often: its first patches, at which all of these clusters are, have to be left before 1.34.
    let server = prop_oneof![4 => 24..=36_u32, 1 => Just(33_u32)];
    (server, 0..=6_u32, control_plane, workers, odds).prop_map(
        |(server, hops, control_plane, workers, (begun, selects, there))| Shape {
            server,
            hops: if there { 0 } else { hops },
            control_plane,
            workers,
            // With one API server there is none that was left behind.
            begun: begun && !there && hops > 0 && server < 37,
            selects,
            there,
        },
    )
}

impl Shape {
    fn newest_patch(minor: u32) -> KubeVersion {
        crate::facts::newest(&BTreeMap::new(), v(&format!("1.{minor}.0")).minor_version()).unwrap()
    }

    fn target(&self) -> KubeVersion {
        Self::newest_patch((self.server + self.hops).min(37))
    }

    fn snapshot(&self) -> ClusterSnapshot {
        let server = if self.there { self.target().to_string() } else { format!("1.{}.1", self.server) };
        let mut snapshot = cluster(self.control_plane.len(), 0, &server);
        let fact = json!({"minors": {"1.33": {"leaveFrom": {"oldestPatch": 6, "why": "its etcd is too old"}}}});
        snapshot.facts = own_facts(fact).unwrap();
        if self.begun && self.control_plane.len() > 1 {
            snapshot.kubeadm_config = Some(Self::newest_patch(self.server + 1));
        }
        for (node, (lags, patch)) in snapshot.nodes.values_mut().zip(&self.control_plane) {
            let minor = if *lags { self.server - 1 } else { self.server };
            node.kubelet = KubeVersion::new(1, minor, *patch);
        }
        for (index, (behind, patch, blue)) in self.workers.iter().enumerate() {
            // As far behind as the policy allows, and seldom further.
            let newest = self.server + u32::from(snapshot.kubeadm_config != Some(snapshot.server));
            let oldest = if newest - 3 < 25 { (newest - 2).min(25) } else { newest - 3 };
            let minor = if *behind == 39 { oldest - 1 } else { (self.server - behind % 4).max(oldest) };
            let kubelet = KubeVersion::new(1, minor, *patch);
            let mut worker = node(&format!("w-{index}"), NodeRole::Worker, kubelet);
            if *blue {
                worker.labels.insert("pool".into(), "blue".into());
            }
            snapshot.nodes.insert(worker.node.name.clone(), worker);
        }
        snapshot
    }

    fn update(&self) -> cupcake_crds::DirectUpdateSpec {
        let selector = if self.selects { json!({"pool": "blue"}) } else { json!({}) };
        spec(&json!({"targetVersion": self.target().to_string(), "nodeSelector": selector}))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, ..ProptestConfig::default() })]

    #[test]
    fn every_moment_of_an_update_over_minors_is_legal_and_no_worker_moves_more_often_than_it_must(shape in shapes()) {
        let (snapshot, target, update) = (shape.snapshot(), shape.target(), shape.update());
        let at_first = State::of(&snapshot);
        let moves = |node: &cupcake_crds::values::NodeSnapshot| {
            node.role == NodeRole::ControlPlane || node.matches(&update.node_selector)
        };
        match compiled(&update, &snapshot) {
            Err(refusal) => {
                // Refused is what is against the policy already, what left-out nodes would make illegal, what is newer than the
                // target by a patch, a plan that no object holds, or kubelets that kubeadm refuses where it has begun.
                let illegal = at_first.wrong().is_some();
                let newer = snapshot.nodes.values().any(|node| node.kubelet > target);
                let left_out = snapshot.nodes.values().any(|node| !moves(node));
                let begun = snapshot.kubeadm_config != Some(snapshot.server);
                // No hop comes before the one in which kubeadm runs, and it refuses kubelets as they are.
                let stuck = snapshot.server == target && at_first.refused_by_kubeadm(target).is_some();
                for finding in &refusal.findings {
                    let expected = match finding.code {
                        // kubelets: as they are, as left-out ones become, or as kubeadm finds them where it has begun.
                        Code::VersionSkew => illegal || left_out || begun || newer || stuck,
                        Code::Downgrade => newer || begun,
                        Code::TooLarge => true,
                        Code::NothingSelected => left_out,
                        _ => false,
                    };
                    prop_assert!(expected, "{:?} in {}", finding.code, refusal);
                }
            }
            Ok(Compilation::NothingToDo(_)) => {
                prop_assert!(snapshot.nodes.values().filter(|node| moves(node)).all(|node| node.kubelet == target));
            }
            Ok(Compilation::Plan(plan)) => {
                prop_assert!(at_first.wrong().is_none(), "a start against the policy is refused: {:?}", at_first.wrong());
                patches_are_asked_for(&plan, &snapshot)?;
                let (end, often) = carried_out(&plan, &update, &snapshot)?;
                prop_assert!(end.servers.values().all(|version| *version == target), "{:?}", end);
                let hops: Vec<KubeVersion> = plan.summary.hops.iter().map(|hop| hop.version).collect();
                // No hop but one a minor, and one for whoever is behind within the minor that the cluster is in.
                let minors = target.minor() - snapshot.server.minor();
                prop_assert!(hops.len() <= minors.max(1) as usize + 1, "{:?} from {}", hops, snapshot.server);
                for node in snapshot.nodes.values() {
                    let kubelet = end.kubelets[&node.node.name];
                    prop_assert_eq!(kubelet, if moves(node) { target } else { node.kubelet }, "{}", &node.node.name);
                    if node.role == NodeRole::Worker && moves(node) {
                        let moved = often.get(&node.node.name).copied().unwrap_or(0);
                        let fewest = fewest_moves(snapshot.server, &hops, node.kubelet);
                        prop_assert_eq!(Some(moved), fewest, "{} at {} over {:?}", &node.node.name, node.kubelet, hops);
                    }
                }
            }
        }
    }
}

fn hops_of(snapshot: &ClusterSnapshot, fields: &serde_json::Value) -> String {
    match compiled(&spec(fields), snapshot).unwrap() {
        Compilation::Plan(plan) => plan.summary.lines().join("\n"),
        Compilation::NothingToDo(nothing) => nothing.message,
    }
}

#[test]
fn five_minors_are_five_hops_and_the_workers_move_in_two_of_them() {
    let text = hops_of(&cluster(3, 5, "1.31.14"), &json!({"targetVersion": "1.36.3"}));
    let wanted = "\
1.31.14 to 1.36.3 in 5 hops: 8 nodes, roughly 78 min
hop 1/5, 1.32.13
  1. preflight
  2. etcd-backup: snapshot of etcd on cp-1
  3. control-plane, one after another: cp-1, cp-2, cp-3
       kubeadm brings CoreDNS v1.11.3, etcd 3.5.24-0, pause 3.10
  4. addons: kube-proxy and CoreDNS
  5. kubelets, one after another: cp-1, cp-2, cp-3
  6. verify";
    assert!(text.starts_with(wanted), "{text}");
    let workers: Vec<&str> = text.lines().filter(|line| line.starts_with("hop") || line.contains("workers:")).collect();
    assert_eq!(
        workers,
        [
            "hop 1/5, 1.32.13",
            "hop 2/5, 1.33.13",
            "hop 3/5, 1.34.4",
            "  6. workers: 5 nodes in 1 batch, 1 at once",
            "hop 4/5, 1.35.4",
            "hop 5/5, 1.36.3",
            "  6. workers: 5 nodes in 1 batch, 1 at once",
        ]
    );
}

#[test]
fn kubeadm_up_to_1_28_takes_the_workers_along_in_every_hop() {
    let text = hops_of(&cluster(1, 2, "1.26.15"), &json!({"targetVersion": "1.29.15"}));
    assert_eq!(text.matches("workers: 2 nodes").count(), 2, "{text}");
    assert_eq!(text.matches("hop ").count(), 3, "{text}");
}

#[test]
fn a_worker_that_would_not_fit_the_first_hop_moves_before_it() {
    let mut snapshot = cluster(1, 3, "1.33.4");
    snapshot.nodes.get_mut("w-01").unwrap().kubelet = v("1.30.9");
    let text = hops_of(&snapshot, &json!({"targetVersion": "1.34.4"}));
    assert!(text.contains("hop 1/2, 1.33.4\n  1. preflight\n  2. workers: 1 node"), "{text}");
    assert!(text.contains("workers: 1 node in 1 batch, 1 at once\n       batch-1: 1 node, w-01\n"), "{text}");
    assert!(text.contains("hop 2/2, 1.34.4") && text.contains("workers: 3 nodes"), "{text}");
}

#[test]
fn the_way_is_the_newest_offered_patch_what_kubeadm_has_begun_or_what_people_name() {
    let hops = |fields: &serde_json::Value, change: &dyn Fn(&mut ClusterSnapshot)| {
        let mut snapshot = cluster(1, 1, "1.32.1");
        change(&mut snapshot);
        match compiled(&spec(fields), &snapshot).unwrap() {
            Compilation::Plan(plan) => {
                plan.summary.hops.iter().map(|hop| hop.version.to_string()).collect::<Vec<_>>().join(" ")
            }
            Compilation::NothingToDo(nothing) => panic!("{}", nothing.message),
        }
    };
    assert_eq!(hops(&json!({}), &|_| ()), "1.33.13 1.34.4");
    let offered = |snapshot: &mut ClusterSnapshot| snapshot.known_versions = ["1.33.2", "1.33.7"].map(v).into();
    assert_eq!(hops(&json!({}), &offered), "1.33.7 1.34.4");
    let begun = |snapshot: &mut ClusterSnapshot| {
        offered(snapshot);
        snapshot.kubeadm_config = Some(v("1.33.9"));
    };
    assert_eq!(hops(&json!({}), &begun), "1.33.9 1.34.4");
    assert_eq!(hops(&json!({"path": ["1.32.13", "1.33.6", "1.34.4"]}), &offered), "1.32.13 1.33.6 1.34.4");
}

#[test]
fn the_longest_way_fits_the_plan_of_the_largest_control_plane() {
    let mut snapshot = cluster(0, 5, "1.24.17");
    for index in 1..=7 {
        let name = format!("ip-10-0-1-10.eu-central-1.compute.internal-control-plane-{index}");
        snapshot.nodes.insert(name.clone(), node(&name, NodeRole::ControlPlane, v("1.24.17")));
    }
    snapshot.surroundings.etcd_members.clear();
    let plan = plan_of(&spec(&json!({"targetVersion": "1.37.0"})), &snapshot);
    assert_eq!(plan.summary.hops.len(), 13);
    assert!(plan.plan.expand().is_ok());
    assert!(crate::plan_bytes(&plan.plan) < crate::ROOT_PLAN_BYTES_MAX * 9 / 10, "{}", crate::plan_bytes(&plan.plan));
}

#[test]
fn a_way_that_is_none_is_refused_by_the_hop_that_cannot_be() {
    let refusal = |path: &[&str], target: &str| {
        let fields = json!({"targetVersion": target, "path": path});
        compiled(&spec(&fields), &cluster(1, 1, "1.32.1")).unwrap_err().to_string()
    };
    assert!(refusal(&["1.34.4"], "1.34.4").starts_with("spec.path[0] \"1.34.4\": no hop from 1.32.1"));
    assert!(
        refusal(&["1.33.2", "1.33.1", "1.34.4"], "1.34.4").starts_with("spec.path[1] \"1.33.1\": no hop from 1.33.2")
    );
    assert!(refusal(&["1.33.2"], "1.34.4").contains("has to end at spec.targetVersion, 1.34.4"));
    assert!(refusal(&["latest", "1.34.4"], "1.34.4").starts_with("spec.path[0] \"latest\": no Kubernetes version"));
    assert!(refusal(&["1.33.0-rc.1", "1.34.4"], "1.34.4").contains("no finished release"));
    let mut begun = cluster(2, 1, "1.32.1");
    begun.kubeadm_config = Some(v("1.33.9"));
    let below = compiled(&spec(&json!({"path": ["1.33.7", "1.34.4"]})), &begun).unwrap_err().to_string();
    assert!(
        below.contains("begun to move the cluster to 1.33.9, which is newer"),
        "API servers never go back: {below}"
    );
    let unknown = compiled(&spec(&json!({"targetVersion": "1.40.0"})), &cluster(1, 1, "1.37.2")).unwrap_err();
    assert!(unknown.to_string().contains("goes through 1.38, of which no release is known; take a newer CUPCAKE"));
}
