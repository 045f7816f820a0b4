//! Clusters and plans of the sizes that are measured.

use chrono::DateTime;
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{
    ClusterSnapshot, Cordon, EtcdTopology, KubeVersion, NodeRef, NodeRole, NodeSnapshot, Surroundings,
};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::RunName;
use cupcake_engine::plan::{Item, Part, Plan};
use cupcake_workflows::{
    Compilation, Compiled, CompiledWave, Refusal, Request, WaveOf, compile, compile_wave, wave_run,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Name of the DirectUpdate.
pub const NAME: &str = "to-1-34";
/// UID of the DirectUpdate.
pub const UID: &str = "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77";
/// Where the cluster is.
pub const FROM: KubeVersion = KubeVersion::new(1, 33, 4);
/// Where it goes.
pub const TARGET: KubeVersion = KubeVersion::new(1, 34, 4);

/// The moment at which everything begins.
pub fn start() -> Timestamp {
    DateTime::from_timestamp(1_790_000_000, 0).expect("it is a second of the year 2026")
}

/// The root run.
pub fn root() -> RunName {
    RunName::new("to-1-34-6f0d7f0e").expect("it is a legal name")
}

/// A request with that concurrency and batch size.
pub fn spec(concurrency: u32, batch_size: u32) -> DirectUpdateSpec {
    let fields = json!({"targetVersion": TARGET, "concurrency": concurrency, "batchSize": batch_size});
    serde_json::from_value(fields).expect("it is a legal spec")
}

/// A cluster of that many nodes, the control plane at `control_plane_at`, the workers behind it.
pub fn cluster(control_planes: usize, workers: usize, control_plane_at: KubeVersion) -> ClusterSnapshot {
    let node = |name: String, role, kubelet| NodeSnapshot {
        node: NodeRef { uid: uid_of(&name), name },
        role,
        kubelet,
        ready: true,
        cordon: Cordon::Schedulable,
        labels: BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]),
        taints: Vec::new(),
        managed_by: None,
        inventory: None,
    };
    let control_plane =
        (1..=control_planes).map(|n| node(format!("control-plane-{n}"), NodeRole::ControlPlane, control_plane_at));
    let workers = (1..=workers).map(|n| node(format!("worker-{n:05}.example.com"), NodeRole::Worker, FROM));
    ClusterSnapshot {
        taken_at: start(),
        server: control_plane_at,
        kubeadm_config: Some(control_plane_at),
        kubeadm_config_api: None,
        image_repository: None,
        etcd: EtcdTopology::Stacked,
        nodes: control_plane.chain(workers).map(|node| (node.node.name.clone(), node)).collect(),
        unreadable: Vec::new(),
        known_versions: BTreeSet::new(),
        facts: std::collections::BTreeMap::new(),
        surroundings: Surroundings::default(),
    }
}

/// A UID of the usual length.
fn uid_of(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(14_695_981_039_346_656_037_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211));
    format!("{:08x}-0c3e-4a53-9b1a-{:012x}", hash >> 32, hash & 0xffff_ffff_ffff)
}

/// The root of an update of that cluster.
pub fn compiled(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot) -> Compiled {
    match compile(&Request { name: NAME, uid: UID, spec }, &root(), snapshot) {
        Ok(Compilation::Plan(compiled)) => compiled,
        Ok(Compilation::NothingToDo(_)) | Err(Refusal { .. }) => unreachable!("the cluster is behind, and sound"),
    }
}

/// The wave of an update of that cluster.
pub fn compiled_wave(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot) -> CompiledWave {
    let wave = wave_run(&root(), TARGET).expect("the name is short");
    match compile_wave(&Request { name: NAME, uid: UID, spec }, &wave, &WaveOf::last(TARGET), snapshot) {
        Ok(Compilation::Plan(wave)) => wave,
        Ok(Compilation::NothingToDo(_)) | Err(Refusal { .. }) => unreachable!("the workers are behind, and sound"),
    }
}

/// How many workers make a batch of 5,000 vertices.
pub const NODES_OF_5_000_VERTICES: usize = 1_000;

/// One batch of that many workers; above 250 it fits no object, but it is what `decide` is measured on.
pub fn batch(workers: usize) -> Plan {
    let mut plan = compiled_wave(&spec(25, 50), &cluster(1, 1, TARGET)).batches.remove(0).plan;
    for part in &mut plan.parts {
        match part {
            Part::Vertex(_) => {}
            Part::Each(group) => {
                let name = |n: usize| format!("worker-{n:05}.example.com");
                group.items = (1..=workers)
                    .map(|n| Item { values: BTreeMap::from([("uid".to_owned(), uid_of(&name(n)))]), name: name(n) })
                    .collect();
            }
        }
    }
    plan
}
