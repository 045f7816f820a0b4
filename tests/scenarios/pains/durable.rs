//! Pains 7 to 11 and 13: what dies or is away in the middle of an update, and what goes on.

use super::story::Story;
use crate::cluster::{Cluster, UPDATE, in_cluster, in_world};
use chrono::TimeDelta;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_engine::clock::Timestamp;
use cupcake_operator::lease::LEASE_NAME;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_sandbox::simulate::{self, Schedule, Settings};
use cupcake_sandbox::world::WorldConfig;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;
use std::collections::BTreeSet;

pub(super) fn stories() -> Vec<Story> {
    vec![lock(), other_nodes(), own_node(), runner(), resume(), single_control_plane()]
}

fn start() -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
}

fn config(control_planes: u32, workers: u32, operators: u32) -> WorldConfig {
    let from = KubeVersion::new(1, 33, 4);
    WorldConfig { control_planes, workers, operators, budget: false, ..WorldConfig::new(from, start()) }
}

async fn ends_succeeded(cluster: &Cluster, story: &mut Story) {
    rests_succeeded(cluster, story).await;
    cluster.nothing_was_done_twice("in this story");
}

async fn rests_succeeded(cluster: &Cluster, story: &mut Story) {
    let (phase, message) = cluster.at_rest(UPDATE).await;
    assert_eq!(phase, Phase::Succeeded, "{message}\nafter\n{}", story.text());
    story.status(cluster);
}

/// Shows who holds the one lock there is, since when, and how often it changed hands; answers with the holder.
fn lease(cluster: &Cluster, story: &mut Story) -> String {
    let (holder, since, changes) = held(cluster);
    let template = "{.spec.holderIdentity} since {.spec.acquireTime}, transitions: {.spec.leaseTransitions}";
    story.seen(&format!("$ kubectl --namespace kube-system get lease {LEASE_NAME} --output jsonpath='{template}'"));
    story.seen(&format!("{holder} since {since}, transitions: {changes}"));
    holder
}

fn held(cluster: &Cluster) -> (String, String, i32) {
    let leases = cluster.all::<Lease>("coordination.k8s.io", "leases").into_iter();
    let ours = leases.filter(|lease| lease.metadata.name.as_deref() == Some(LEASE_NAME)).find_map(|lease| lease.spec);
    let spec = ours.unwrap();
    let since = json!(spec.acquire_time).as_str().unwrap_or_default().to_owned();
    (spec.holder_identity.unwrap_or_default(), since, spec.lease_transitions.unwrap_or_default())
}

fn lock() -> Story {
    let mut story = Story::new(7, "stale-lock", "A stale lock blocks everything");
    let faults = vec![Fault::at_write(Component::Operator, 12, Wrong::Stopped)];
    in_world(WorldConfig { faults, ..config(1, 2, 2) }, async |cluster| {
        let clock = || cluster.world.now().format("%H:%M:%S").to_string();
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("one is stopped", async || !cluster.world.faults_happened().is_empty()).await;
        story.happens(&format!("Two replicas of the operator, both on cp-1. The update has begun when the one that leads is stopped for 40 seconds, at {}: it answers nobody, and its lock is not renewed.", clock()));
        let stopped = lease(cluster, &mut story);
        let is_held_by_the_other = async || !["", stopped.as_str()].contains(&held(cluster).0.as_str());
        cluster.eventually("the other one leads", is_held_by_the_other).await;
        story.happens("15 seconds without a renewal are over: the lock is lost by silence, the other replica takes it and goes on with the update.");
        let next = lease(cluster, &mut story);
        cluster.pass(40).await;
        story.happens(&format!("{}: the stopped one is awake again. It finds that the lock is another's and does not lead; whatever it still sends carries an older epoch. (The other one gave the lock back meanwhile, before kubeadm began on their node, and took it again, as nobody else was awake.)", clock()));
        assert_eq!(lease(cluster, &mut story), next, "who wakes up takes nothing back");
        ends_succeeded(cluster, &mut story).await;
    });
    story
}

/// The batches as they are stored: their names, and the nodes that each has vertices of.
fn batches(cluster: &Cluster) -> Vec<String> {
    let runs: Vec<cupcake_crds::UpgradeRun> = cluster.all(cupcake_crds::GROUP, "upgraderuns");
    let mut names: Vec<String> =
        runs.into_iter().filter_map(|run| run.metadata.name).filter(|name| name.contains("-workers-")).collect();
    names.sort();
    names
}

fn other_nodes() -> Story {
    let title = "A restarted controller picks other nodes and takes too many";
    let mut story = Story::new(8, "other-nodes-after-restart", title);
    let faults = (60..100).step_by(4).map(|write| Fault::at_write(Component::Operator, write, Wrong::After)).collect();
    in_world(WorldConfig { faults, ..config(1, 4, 1) }, async |cluster| {
        story.happens(
            "Four workers, two at once. The operator crashes at every fourth of its writes while the workers move.",
        );
        cluster.apply(UPDATE, json!({"concurrency": 2})).await;
        let (mut seen, mut most, mut away) = (Vec::<BTreeSet<String>>::new(), 0, BTreeSet::new());
        let mut stored = Vec::new();
        cluster
            .eventually("it is over", async || {
                let cordoned: BTreeSet<String> =
                    cluster.cordoned().into_iter().filter(|node| node.starts_with("w-")).collect();
                most = most.max(cordoned.len());
                away.extend(cordoned.iter().cloned());
                if !cordoned.is_empty() && seen.last() != Some(&cordoned) {
                    seen.push(cordoned);
                }
                if stored.is_empty() {
                    stored = batches(cluster);
                }
                cluster.phase(UPDATE).0.is_final()
            })
            .await;
        let crashes = cluster.world.faults_happened().len();
        story.happens(&format!("It crashed {crashes} times. The batch was stored before the first node of it was touched, and stayed the same."));
        assert_eq!(batches(cluster), stored);
        story.seen("$ kubectl get upgraderuns --output name | grep -e -workers-");
        for name in &stored {
            story.seen(&format!("upgraderun.{}/{name}", cupcake_crds::GROUP));
        }
        story.happens("The workers that were cordoned at once, one line for each change:");
        for nodes in &seen {
            story.seen(&nodes.iter().cloned().collect::<Vec<_>>().join(" "));
        }
        assert!(most <= 2 && crashes > 3, "{most} at once, {crashes} crashes");
        ends_succeeded(cluster, &mut story).await;
    });
    story
}

fn own_node() -> Story {
    let title = "The controller loses itself in its own upgrade";
    let mut story = Story::new(9, "operator-on-its-own-node", title);
    let settings = Settings {
        control_planes: 3,
        workers: 0,
        from: KubeVersion::new(1, 33, 4),
        to: KubeVersion::new(1, 34, 4),
        start: start(),
        operators: 2,
        concurrency: 1,
        without: BTreeSet::default(),
    };
    let (verdict, lines) = simulate::transcript(&settings, &Schedule { seed: 7, faults: Vec::new() }).unwrap();
    assert!(verdict.outcome.succeeded(), "{}", verdict.outcome.message);
    story.happens("Replica a of the operator runs on cp-1, replica b on cp-2. Before work disturbs the node of the one that leads, it hands over to the other. No command prints what follows: it sums up the transcript of the simulated schedule with seed 7 and without faults, three control-plane nodes and no worker: which replica led when kubeadm and the kubelet's restart began on each node, and how the update ended.");
    let (mut begun, mut told) = (Vec::new(), Vec::new());
    for line in &lines {
        match line.split_whitespace().collect::<Vec<_>>()[1..] {
            [client, "update", path, ..] if client.starts_with("operator.") && path.contains("/upgraderuns/") => {
                let replica = if client.starts_with("operator.b.") { ("b", "cp-2") } else { ("a", "cp-1") };
                for (node, what) in begun.drain(..) {
                    assert_ne!(node, replica.1, "{line}");
                    told.push(format!("{node}: {what} begins, {} leads", replica.0));
                }
            }
            ["effect", node, what @ ("kubeadm" | "kubelet-restart"), .., "begun"] => begun.push((node, what)),
            _ => {}
        }
    }
    for line in &told {
        story.seen(line);
    }
    story.seen(&format!("{}: {}", verdict.outcome.phase, verdict.outcome.message));
    story
}

fn runner() -> Story {
    let title = "A Job's deadline or a replaced pod kills the work on the machine half-way";
    let mut story = Story::new(10, "pod-replaced-under-work", title);
    in_world(config(1, 1, 1), async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let step = || cluster.task("cp-1").status.unwrap_or_default().step.unwrap_or_default();
        cluster.eventually("kubeadm runs on cp-1", async || step() == "kubeadm-upgrade-apply").await;
        story.happens("kubeadm is at work on cp-1 when the pod of the agent there goes, and with it every pod that could be asked. The work is that of a unit of systemd on the machine.");
        story.seen("$ kubectl get nodetask cp-1 --output jsonpath='{.status.step}'");
        story.seen(&step());
        cluster.world.lose_agent("cp-1");
        cluster.pass(400).await;
        let kubeadm = || {
            let effects = cluster.world.effects().into_iter();
            effects
                .filter(|effect| effect.name.node == "cp-1" && effect.name.kind == EffectKind::Kubeadm)
                .collect::<Vec<_>>()
        };
        story.happens("Seven minutes later there is still no agent, and the machine has done its part.");
        story.seen("$ kubectl --namespace kube-system get pod kube-apiserver-cp-1 --output jsonpath='{.spec.containers[0].image}'");
        let pods = cluster.all::<k8s_openapi::api::core::v1::Pod>("", "pods").into_iter();
        let server =
            pods.filter(|pod| pod.metadata.name.as_deref() == Some("kube-apiserver-cp-1")).filter_map(|pod| pod.spec);
        let mut images = server.filter_map(|spec| spec.containers.first()?.image.clone());
        story.seen(&images.next_back().unwrap());
        let runs: Vec<String> = kubeadm()
            .iter()
            .map(|effect| format!("# kubeadm {}: begun {} time", effect.name.what, effect.begun))
            .collect();
        for line in &runs {
            story.seen(line);
        }
        assert_eq!(kubeadm().iter().map(|effect| effect.begun).sum::<u32>(), 1);
        story.status(cluster);
    });
    story
}

fn resume() -> Story {
    let mut story = Story::new(11, "run-it-again", "\"Run it again\" is the resume");
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        story.happens(
            "The drain of w-1 stayed blocked until its time was up. The update rests; the node was given back.",
        );
        story.status(cluster);
        story.why(cluster);
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        story.happens("The budget is gone. $ kubectl cupcake retry to-1-34 w-1");
        let installs = |node: &str| -> u32 {
            let effects = cluster.world.effects().into_iter();
            effects
                .filter(|effect| effect.name.node == node && effect.name.kind == EffectKind::Kubeadm)
                .map(|effect| effect.begun)
                .sum()
        };
        let before = installs("cp-1");
        let retry = json!({"spec": {"control": {"retry": [{"requestId": "retry-1", "vertex": "w-1"}]}}});
        cluster.patch(UPDATE, retry).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        // Of w-1 all is done anew: a person asked for it.
        rests_succeeded(cluster, &mut story).await;
        assert_eq!(installs("cp-1"), before, "what was done stays done");
        story.nodes(cluster);
    });
    manifest_away(&mut story);
    story
}

/// The worst moment for running kubeadm again: by the file that is away it tells a control plane from a worker.
fn manifest_away(story: &mut Story) {
    in_world(config(3, 0, 1), async |cluster| {
        let machine = cluster.world.machine("cp-2").unwrap();
        machine.let_manifests_be_away(TimeDelta::seconds(20));
        cluster.apply(UPDATE, json!({})).await;
        let api_server = || machine.manifests().contains("kube-apiserver");
        cluster.eventually("the manifest of the API server is away", async || !api_server()).await;
        story.happens("kubeadm exchanges the manifests of cp-2: the old one of the API server is moved away, the new one is not there yet, and just then the machine loses its power. `kubeadm upgrade node`, run again by hand, would take cp-2 for a worker now, and report success.");
        story.seen("$ ls /etc/kubernetes/manifests");
        for manifest in machine.manifests() {
            story.seen(&format!("{manifest}.yaml"));
        }
        machine.power_cycle();
        story.happens("The machine boots, and its runner goes on with the order: it puts the manifest back from the copy that kubeadm made, waits for the API server, and runs kubeadm again.");
        rests_succeeded(cluster, story).await;
        story.seen("$ ls /etc/kubernetes/manifests");
        for manifest in machine.manifests() {
            story.seen(&format!("{manifest}.yaml"));
        }
        let effects = cluster.world.effects().into_iter();
        let runs: Vec<String> = effects
            .filter(|effect| effect.name.node == "cp-2" && effect.name.kind == EffectKind::Kubeadm)
            .map(|effect| format!("# kubeadm {}: begun {} times", effect.name.what, effect.begun))
            .collect();
        assert_eq!((runs.len(), machine.manifests().len()), (1, 4), "{runs:?}");
        story.seen(&runs[0]);
        story.nodes(cluster);
    });
}

fn single_control_plane() -> Story {
    let title = "A single control plane is judged by an API that is away because of it";
    let mut story = Story::new(13, "single-control-plane", title);
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let (mut away, mut told) = (0, Vec::new());
        cluster
            .eventually("it is over", async || {
                let answers = nodes.list(&ListParams::default()).await.is_ok();
                away += i32::from(!answers);
                let step = cluster.task("cp-1").status.unwrap_or_default().step.unwrap_or_default();
                if !answers && !step.is_empty() && told.last() != Some(&step) {
                    told.push(step);
                }
                cluster.phase(UPDATE).0.is_final()
            })
            .await;
        story.happens(&format!("kubectl get nodes is asked every second. It gets no answer for {away} seconds in all, while these steps are at work on cp-1:"));
        for step in &told {
            story.seen(step);
        }
        assert!(away > 30, "{away}");
        story.happens("No step failed for it: the machine looks at its own pods, and everybody else waits.");
        ends_succeeded(cluster, &mut story).await;
        let failed: Vec<_> = cluster.world.effects().into_iter().filter(|effect| effect.begun > 1).collect();
        assert!(failed.is_empty(), "{failed:?}");
        story.nodes(cluster);
    });
    story
}
