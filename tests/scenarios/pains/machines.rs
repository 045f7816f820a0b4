//! Pains 14, 16 to 18, 24 and 25: what machines and the cluster around them tell, and what the checklist makes of it before anything
//! moves.
//!
//! The cluster is a simulated one, whose machines tell what theirs is (a full disk, a mirror that is behind) and act accordingly (a kernel
//! on which a newer kubelet ends by itself). What simulated machines and
//! clusters cannot have (a database of etcd, a webhook) is written into what was gathered of it, as agents and API tell it of a real one.

use super::control_plane::gathered;
use super::story::{Story, to};
use crate::cluster::{Cluster, UPDATE, in_cluster, in_cluster_at, in_world};
use crate::stalls::answer;
use cupcake_crds::node_task::{HoldEffect, NodeInventory, PackageHold};
use cupcake_crds::values::{
    AdmissionHook, AdmissionPolicy, ClusterSnapshot, EtcdDoubt, EtcdDoubtKind, KubeVersion, Phase,
};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::Source;
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_sandbox::world::WorldConfig;
use cupcake_steps::ports::host::Package;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

const GIB: u64 = 1024 * 1024 * 1024;

pub(super) fn stories() -> Vec<Story> {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    let config = WorldConfig { workers: 2, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start) };
    let seen = in_world(config, async |cluster| gathered(cluster).await);
    vec![etcd(&seen), disk(), kubelet(), by_hand(), hooks(&seen), packages()]
}

/// The same cluster, as the machine of that node tells it after a change.
fn where_machine(seen: &ClusterSnapshot, node: &str, change: impl FnOnce(&mut NodeInventory)) -> ClusterSnapshot {
    let mut seen = seen.clone();
    change(seen.nodes.get_mut(node).unwrap().inventory.as_mut().unwrap());
    seen
}

fn etcd(seen: &ClusterSnapshot) -> Story {
    let title = "etcd 3.5 to 3.6: learners, members that should be gone";
    let mut story = Story::new(14, "etcd-3-6", title);
    story.happens("A control-plane node, cp-4, was removed last year. cp-2's database still has its member; etcd 3.5 does not go by that, etcd 3.6 of Kubernetes 1.34 would.");
    let doubt = EtcdDoubt {
        kind: EtcdDoubtKind::MembersDiffer,
        message: "its database still has member 8e9e05c52164694d (cp-4), which was removed and would come back".into(),
    };
    let zombie = where_machine(seen, "cp-2", |inventory| inventory.etcd_store_doubts = Some(vec![doubt]));
    story.preflight(&zombie, &to("1.34.4"), &["EtcdStore"]);
    story.happens("A member of etcd has no vote yet.");
    let mut learner = seen.clone();
    learner.surroundings.etcd_members = ["cp-1", "cp-2", "cp-3"]
        .map(|name| serde_json::from_value(json!({"name": name, "learner": name == "cp-3"})).unwrap())
        .to_vec();
    story.preflight(&learner, &to("1.34.4"), &["EtcdMembers"]);
    member_slow(&mut story);
    zombie_meanwhile(&mut story);
    story
}

fn three_control_planes() -> WorldConfig {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    WorldConfig { workers: 0, budget: false, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start) }
}

fn kubeadms(cluster: &Cluster, node: &str) -> u32 {
    let effects = cluster.world.effects().into_iter();
    let of_node = effects.filter(|effect| effect.name.node == node && effect.name.kind == EffectKind::Kubeadm);
    of_node.map(|effect| effect.begun).sum()
}

/// Right before the second node: a member does not answer in time, first for good, then again.
fn member_slow(story: &mut Story) {
    in_world(three_control_planes(), async |cluster| {
        story.happens("The checklist passed, and cp-1 is upgraded, when the disk of cp-3 becomes so slow that its member of etcd answers too late. kubeadm on cp-2 would take another of the three away: that is looked at on each node right before kubeadm, and waited for.");
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("kubeadm works on cp-1", async || kubeadms(cluster, "cp-1") == 1).await;
        let slow = cluster.world.machine("cp-3").unwrap();
        slow.let_etcd_be_slow(true);
        cluster.eventually("cp-2 waits", async || cluster.phase(UPDATE).1.contains("EtcdMemberAway")).await;
        cluster.pass(40).await;
        story.status(cluster);
        story.why(cluster);
        story.happens(
            "It stays so for five minutes: the update rests, and says what to do. kubeadm was not begun on cp-2.",
        );
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        assert_eq!((kubeadms(cluster, "cp-1"), kubeadms(cluster, "cp-2")), (1, 0), "{message}");
        story.status(cluster);
        story.happens("The disk is replaced; $ kubectl cupcake retry to-1-34 1.34.4/control-plane/cp-2/kubeadm-upgrade. It goes on from there.");
        slow.let_etcd_be_slow(false);
        let retry = json!([{"requestId": "retry-1", "vertex": "1.34.4/control-plane/cp-2/kubeadm-upgrade"}]);
        cluster.patch(UPDATE, json!({"spec": {"control": {"retry": retry}}})).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(kubeadms(cluster, "cp-1"), 1, "what was done stays done");
        story.status(cluster);
    });
}

/// Something is on a disk that was not there when the checklist looked.
fn zombie_meanwhile(story: &mut Story) {
    in_world(three_control_planes(), async |cluster| {
        story.happens("On another cluster somebody restores an old database on cp-2 while the update is under way, in which a removed member is still one. Right before kubeadm brings etcd 3.6 there, the disk is looked at again.");
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("kubeadm works on cp-1", async || kubeadms(cluster, "cp-1") == 1).await;
        let machine = cluster.world.machine("cp-2").unwrap();
        machine.tell(|inventory| {
            let message =
                "its database still has member 8e9e05c52164694d (cp-4), which was removed and would come back";
            let doubt = EtcdDoubt { kind: EtcdDoubtKind::MembersDiffer, message: message.into() };
            inventory.etcd_store_doubts = Some(vec![doubt]);
        });
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        assert_eq!(kubeadms(cluster, "cp-2"), 0, "{message}");
        story.status(cluster);
    });
}

fn disk() -> Story {
    let mut story = Story::new(16, "backups-fill-the-disk", "Backups fill the disk");
    in_cluster(0, false, async |cluster| {
        story.happens("/var/lib of cp-1 has 3 of 40 GiB left, and its etcd 2 GiB of data: a snapshot and kubeadm's copy of it would fill the disk.");
        let machine = cluster.world.machine("cp-1").unwrap();
        machine.tell(|inventory| {
            inventory.disk_free_bytes = Some(3 * GIB);
            inventory.disk_size_bytes = Some(40 * GIB);
            inventory.etcd_data_bytes = Some(2 * GIB);
        });
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is told", async || cluster.phase(UPDATE).1.contains("too little space")).await;
        story.preflight(&gathered(cluster).await, &to("1.34.4"), &["DiskSpace"]);
        story.status(cluster);
        story.happens("Somebody removes old snapshots; the machine is asked again by itself, and the update begins.");
        machine.tell(|_| ());
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        story.status(cluster);
    });
    story
}

fn kubelet() -> Story {
    let title = "The kubelet does not start: a removed flag, control groups version 1, an old containerd";
    let mut story = Story::new(17, "kubelet-does-not-start", title);
    story.happens("w-2 was booted with control groups version 1, and somebody gave kubeadm's configuration a feature gate that 1.36 does not know.");
    in_cluster(2, false, async |cluster| {
        cluster.world.machine("w-2").unwrap().boot_with_control_groups_1();
        let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
        let found = cluster.ask(async || config_maps.get("kubeadm-config").await).await;
        let before = found.data.unwrap_or_default().remove("ClusterConfiguration").unwrap();
        let gate = "scheduler:\n  extraArgs:\n  - name: feature-gates\n    value: MemoryManager=true\n";
        let after = before.replace("scheduler: {}\n", gate);
        assert_ne!(after, before);
        let patch = Patch::Merge(json!({"data": {"ClusterConfiguration": after}}));
        cluster.ask(async || config_maps.patch("kubeadm-config", &PatchParams::default(), &patch).await).await;
        story.preflight(&gathered(cluster).await, &to("1.36.3"), &["CgroupV1", "RemovedSettings"]);
    });
    story.happens("Somebody answers for such a machine all the same, w-1 of a cluster at 1.34: the kubelet of 1.35 ends by itself there, and no other node is touched.");
    in_cluster_at(KubeVersion::new(1, 34, 4), 2, false, async |cluster| {
        cluster.world.machine("w-1").unwrap().boot_with_control_groups_1();
        let acknowledged = json!([{"check": "CgroupV1", "node": "w-1"}]);
        cluster.apply(UPDATE, json!({"targetVersion": "1.35.4", "acknowledge": acknowledged})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        story.status(cluster);
        assert_eq!((cluster.kubelet("cp-1").as_str(), cluster.kubelet("w-2").as_str()), ("1.35.4", "1.34.4"));
    });
    story.happens("What no checklist can know: the kubelet of w-1 crashes in a loop once it was restarted, and its Node is Ready in between.");
    in_cluster(3, false, async |cluster| {
        cluster.world.machine("w-1").unwrap().let_kubelet_crash();
        cluster.apply(UPDATE, json!({"concurrency": 1})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        story.status(cluster);
        story.nodes(cluster);
    });
    story
}

fn by_hand() -> Story {
    let title = "Customised manifests and kubelet settings are lost";
    let mut story = Story::new(18, "changes-by-hand", title);
    in_cluster(1, false, async |cluster| {
        let machine = cluster.world.machine("cp-1").unwrap();
        machine.change_by_hand("kube-apiserver.yaml loses --audit-log-path=/var/log/audit.log");
        story.happens("Somebody has added a flag to a manifest of cp-1, which kubeadm does not know of.");
        cluster.pass(60).await;
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is told", async || cluster.phase(UPDATE).1.contains("--audit-log-path")).await;
        cluster.pass(40).await;
        story.status(cluster);
        story.why(cluster);
        story.happens("kubeadm is given the same as a patch in /etc/kubernetes/patches: the update begins by itself.");
        machine.give_patches();
        let (phase, message) = {
            cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
            cluster.at_rest(UPDATE).await
        };
        assert_eq!(phase, Phase::Succeeded, "{message}");
        story.status(cluster);
    });
    story
}

fn hooks(seen: &ClusterSnapshot) -> Story {
    let title = "Webhooks that refuse when they fail lock a new API server or a drain";
    let mut story = Story::new(24, "fail-closed-webhooks", title);
    let mut seen = seen.clone();
    seen.surroundings.admission_hooks = vec![AdmissionHook {
        name: "ValidatingWebhookConfiguration kyverno webhook validate.kyverno.svc-fail".into(),
        sees: vec!["nodes".into(), "pods".into()],
        all_of: vec!["*".into()],
        nodes: Some(["w-1".to_owned()].into()),
    }];
    seen.surroundings.admission_policies = vec![AdmissionPolicy {
        name: "ValidatingAdmissionPolicy owners-only".into(),
        sees: vec!["nodes".into()],
        all_of: vec![],
    }];
    story.happens("A webhook refuses when it fails, is asked about every kind, and all pods that answer it are on w-1; a policy denies what it does not like of nodes.");
    story.preflight(&seen, &to("1.34.4"), &["FailClosedHook", "AdmissionPolicy"]);
    story
}

fn packages() -> Story {
    let title = "Packages: a repository that is gone, a lock of dpkg, dnf, zypper or rpm, lost holds";
    let mut story = Story::new(25, "packages", title);
    in_cluster(2, false, async |cluster| {
        story.happens("The mirror of w-2 is behind; unattended-upgrades is at work on cp-1, where the key of the authority is elsewhere.");
        let machine = |name: &str| cluster.world.machine(name).unwrap();
        machine("w-2").tell(|inventory| {
            let offered = json!({"minor": "1.34", "versions": ["1.34.3"]});
            inventory.next_minor = Some(serde_json::from_value(offered).unwrap());
        });
        machine("cp-1").tell(|inventory| {
            inventory.unattended_upgrades = Some(true);
            inventory.external_cas = vec!["ca".into()];
            inventory.certificates_expire = Some("2026-12-24T08:00:00Z".parse().unwrap());
        });
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is told", async || cluster.phase(UPDATE).1.contains("w-2")).await;
        let codes = ["PackagesNotOffered", "ExternalCa", "UnattendedUpgrades"];
        cluster.eventually("w-2 has told", async || cluster.phase(UPDATE).1.contains("1.34.3")).await;
        story.preflight(&gathered(cluster).await, &to("1.34.4"), &codes);
        story.happens("The mirror is mended. On w-1 somebody holds the lock of the package manager meanwhile.");
        machine("w-1").hold_package_lock(true);
        machine("w-2").tell(|_| ());
        cluster.eventually("w-1 finds the lock", async || cluster.phase(UPDATE).1.contains("PackageLockHeld")).await;
        story.status(cluster);
        story.why(cluster);
        story.happens("The lock is given back: the node goes on by itself.");
        machine("w-1").hold_package_lock(false);
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        story.status(cluster);
    });
    holds(&mut story);
    repositories(&mut story);
    interrupted(&mut story);
    story
}

/// What holds packages is told before the start; what no install lifts refuses.
fn holds(story: &mut Story) {
    in_cluster(2, false, async |cluster| {
        story.happens("Another cluster, whose packages are held as kubernetes.io tells people to. On w-1 somebody has locked all of 1.33 by one line of versionlock; on w-2 cri-tools is held, too.");
        let machine = |name: &str| cluster.world.machine(name).unwrap();
        let kept = |package: &str, by: &str, versions: Option<&str>| PackageHold {
            by: by.into(),
            effect: HoldEffect::Keeps,
            package: package.into(),
            versions: versions.map(str::to_owned),
        };
        let line = "versionlock kube*-1.33.*";
        machine("w-1").keep_packages(vec![
            kept("kubeadm", line, Some("1.33.*")),
            kept("kubelet", line, Some("1.33.*")),
            kept("kubectl", line, Some("1.33.*")),
        ]);
        machine("w-2").keep_packages(vec![kept("cri-tools", "apt-mark hold", None)]);
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is refused", async || cluster.phase(UPDATE).1.contains("versionlock")).await;
        assert_eq!(cluster.effects(), 0, "before anything moves");
        let codes = ["PackagesLocked", "NeededHeld", "PackagesHeld"];
        story.preflight(&gathered(cluster).await, &to("1.34.4"), &codes);
        story.happens("The line of w-1 is taken off: the machine is asked again by itself, the update begins, and every package is held afterwards as before.");
        machine("w-1").keep_packages(Vec::new());
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        story.status(cluster);
        assert!(
            cluster
                .world
                .machines()
                .all(|machine| Package::ALL.iter().all(|package| machine.package_is_whole_and_held(*package)))
        );
    });
}

/// A wrong repository: told before the start where a machine can tell, and where the node's turn comes otherwise.
fn repositories(story: &mut Story) {
    in_cluster(2, false, async |cluster| {
        story.happens("Another cluster. w-1's sources name apt.kubernetes.io, which is gone since 2024; the mirror of w-2 has no repository of 1.34.");
        let machine = |name: &str| cluster.world.machine(name).unwrap();
        machine("w-1").name_repository(Source::None);
        machine("w-2").name_repository(Source::NothingNewer);
        cluster.apply(UPDATE, json!({})).await;
        cluster
            .eventually("both are told", async || {
                let (_, message) = cluster.phase(UPDATE);
                message.contains("nothing of 1.34 at all") && message.contains("core:/stable")
            })
            .await;
        story.preflight(&gathered(cluster).await, &to("1.34.4"), &["PackagesNotOffered"]);
        story.happens(
            "Both are set right, and the update begins. Then the mirror of w-2 loses 1.34 again, before its turn.",
        );
        machine("w-1").name_repository(Source::Whole);
        machine("w-2").name_repository(Source::Whole);
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        machine("w-2").name_repository(Source::NothingNewer);
        rests_until_mended(story, cluster, "RepositoryMissing", async || {
            machine("w-2").name_repository(Source::Whole);
        })
        .await;
    });
}

/// What an interrupted install left: finished by the next one where that can be, and told with the command where it cannot.
fn interrupted(story: &mut Story) {
    in_cluster(2, false, async |cluster| {
        story.happens("Another cluster. On w-1 somebody's apt was killed: its kubelet is half-configured and no longer held. On w-2 a package of somebody's cannot be configured, so that dpkg finishes nothing.");
        let machine = |name: &str| cluster.world.machine(name).unwrap();
        machine("w-1").leave_half_configured(Package::Kubelet);
        machine("w-2").break_package(Some("linux-image-6.1.0-41-amd64"));
        cluster.apply(UPDATE, json!({})).await;
        rests_until_mended(story, cluster, "PackagesBroken", async || machine("w-2").break_package(None)).await;
        story.nodes(cluster);
        assert!(machine("w-1").package_is_whole_and_held(Package::Kubelet), "finished, and held again");
    });
}

/// The update rests for w-2 with that code; a person mends it and asks for the node again.
async fn rests_until_mended(story: &mut Story, cluster: &Cluster, code: &str, mend: impl AsyncFnOnce()) {
    let (phase, message) = cluster.at_rest(UPDATE).await;
    assert_eq!(phase, Phase::RequiresAttention, "{message}");
    story.status(cluster);
    story.why(cluster);
    let told = answer(cluster, UPDATE).join("\n");
    assert!(told.contains(code) && told.contains("kubectl cupcake retry"), "{told}");
    story.happens("It is mended, and the node is asked for again: kubectl cupcake retry to-1-34 w-2.");
    mend().await;
    let retry = json!({"spec": {"control": {"retry": [{"requestId": "retry-1", "vertex": "w-2"}]}}});
    cluster.patch(UPDATE, retry).await;
    cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
    let (phase, message) = cluster.at_rest(UPDATE).await;
    assert_eq!(phase, Phase::Succeeded, "{message}");
    story.status(cluster);
}
