//! What an earlier release stored is read by this one: plans and cursors of every format there was, as they lay in etcd.
//!
//! `tests/stored/format-N/<moment>/` has an UpgradePlan and the UpgradeRun that was under way by it. A new format adds a folder;
//! none is ever changed or removed.
#![expect(clippy::disallowed_methods, reason = "reads what earlier releases stored")]

use cupcake_crds::{UpgradePlan, UpgradeRun};
use cupcake_engine::codec::{self, CURSOR_FORMAT};
use cupcake_engine::plan::{PLAN_FORMAT, Plan};
use cupcake_operator::adapters::kube_store::cursor_of;
use cupcake_workflows::render::{View, current_step, progress};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

fn stored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stored")
}

fn object<T: DeserializeOwned>(moment: &Path, name: &str) -> T {
    let path = moment.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn moments(format: u32) -> Vec<PathBuf> {
    let folder = stored().join(format!("format-{format}"));
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
