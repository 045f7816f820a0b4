//! What an earlier release stored is read by this one: plans and cursors of every format there was, as they lay in etcd, and the
//! journals of runners.
//!
//! `tests/stored/format-N/runs/<moment>/` has an UpgradePlan and the UpgradeRun that was under way by it, `.../runner/` what a
//! runner had on its disk in the middle of an order (whole moments of everything: `stored_moments`). A new format adds a folder; none is
//! ever changed or removed.
#![expect(clippy::disallowed_methods, reason = "reads what earlier releases stored")]

use cupcake_crds::{UpgradePlan, UpgradeRun};
use cupcake_engine::codec::{self, CURSOR_FORMAT};
use cupcake_engine::cursor::VertexState;
use cupcake_engine::plan::{PLAN_FORMAT, Plan};
use cupcake_engine::store::RunStore;
use cupcake_host::memory::Memory;
use cupcake_host::store::FileStore;
use cupcake_operator::adapters::kube_store::cursor_of;
use cupcake_steps::mailbox::run_name;
use cupcake_steps::ports::disk::SharedDisk;
use cupcake_steps::ports::real_disk::RealDisk;
use cupcake_workflows::render::{View, current_step, progress};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn stored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stored")
}

fn object<T: DeserializeOwned>(moment: &Path, name: &str) -> T {
    let path = moment.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn moments(format: u32) -> Vec<PathBuf> {
    let folder = stored().join(format!("format-{format}/runs"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut moments: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    moments.sort();
    moments
}

#[test]
fn a_run_that_any_format_stored_stands_where_it_stood() {
    for format in 1..=PLAN_FORMAT.max(CURSOR_FORMAT) {
        let moments = moments(format);
        assert!(moments.len() >= 2, "store a run under way, and a batch, in format {format}");
        for moment in moments {
            let told = moment.display();
            let (plan, run): (UpgradePlan, UpgradeRun) =
                (object(&moment, "upgradeplan.json"), object(&moment, "upgraderun.json"));
            let plan: Plan = serde_json::from_value(plan.spec.plan).unwrap();
            assert_eq!(plan.digest(), run.spec.plan.digest, "{told}: its digest binds a cursor to a plan");
            let dag = plan.expand().unwrap();
            let cursor = cursor_of(&run, &dag).unwrap();
            let status = run.status.unwrap();
            let view = View { dag: &dag, cursor: &cursor, now: cursor.clock(), children: &[] };
            assert_eq!(current_step(&view), status.current_step, "{told}");
            assert_eq!(Some(progress(&cursor)), status.progress, "{told}");
            let again = codec::decode(&codec::encode(&cursor, &dag), &run.spec.plan.digest, &dag).unwrap();
            assert_eq!(again, cursor, "{told}: what this release writes it reads");
        }
    }
}

#[tokio::test]
async fn a_runner_finds_its_order_where_any_format_left_it() {
    for format in 1..=PLAN_FORMAT.max(CURSOR_FORMAT) {
        let disk: SharedDisk = Arc::new(RealDisk::below(stored().join(format!("format-{format}/runner"))));
        let memory = Memory::read(disk.as_ref()).await.unwrap().unwrap();
        let store = FileStore::on(disk);
        let run = store.load(&run_name(&memory.key)).await.unwrap();
        let states: Vec<VertexState> =
            run.dag.vertices().iter().filter_map(|vertex| run.cursor.state(&vertex.name)).collect();
        let done = states.iter().filter(|state| matches!(state, VertexState::Succeeded { .. })).count();
        assert_eq!((done, states.len()), (5, 6), "format {format}: {states:?}");
        assert!(matches!(states[5], VertexState::Started { attempt: 1, .. }), "{states:?}");
    }
}
