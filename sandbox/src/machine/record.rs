//! What a runner's write records: which kinds of effects it says are done.
//!
//! An effect ends in the runner's memory first. It is recorded once the disk says so: a journal by the success of the step that did
//! it, a record of kubeadm's success by being there. Nothing else that a runner writes does: not that an attempt began or failed, not
//! the time that the machine was off, not the last order that was taken.

use super::ledger::EffectKind;
use cupcake_engine::dag::Dag;
use cupcake_engine::event::Event;
use cupcake_engine::plan::Plan;
use cupcake_host::store;
use cupcake_steps::host::kubeadm_upgrade::RECORDS;
use cupcake_steps::host::params;
use serde_json::Value;

/// The kinds of effects that are done by what was just written to `path`, whose content is `file` now; `None` where it was removed.
pub fn recorded(path: &str, file: Option<&[u8]>) -> Vec<EffectKind> {
    let (Some(file), Some((folder, _))) = (file, path.rsplit_once('/')) else { return Vec::new() };
    match folder {
        RECORDS => vec![EffectKind::Kubeadm],
        store::FOLDER => of_journal(file).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// By the last commit of a journal; `None` of one that holds none, or what nobody can read.
fn of_journal(file: &[u8]) -> Option<Vec<EffectKind>> {
    let mut lines = file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (created, last) = (lines.next()?, lines.next_back()?);
    let events: Vec<Event> = serde_json::from_value(json_of(last)?["commit"]["events"].take()).ok()?;
    let succeeded: Vec<_> = events.iter().filter(|event| matches!(event, Event::Succeeded { .. })).collect();
    if succeeded.is_empty() {
        return None;
    }
    let plan: Plan = serde_json::from_value(json_of(created)?["created"]["plan"].take()).ok()?;
    let dag = plan.expand().ok()?;
    Some(succeeded.into_iter().flat_map(|event| effects_of(&dag, event).iter().copied()).collect())
}

/// The JSON of a record, behind its length and checksum.
fn json_of(line: &[u8]) -> Option<Value> {
    let begin = line.iter().position(|byte| *byte == b'{')?;
    serde_json::from_slice(&line[begin..]).ok()
}

fn effects_of(dag: &Dag, event: &Event) -> &'static [EffectKind] {
    let Some(vertex) = event.vertex().and_then(|vertex| dag.get(vertex)) else { return &[] };
    match vertex.kind.as_str() {
        params::INSTALL_PACKAGES => &[EffectKind::Install],
        params::KUBEADM_UPGRADE => &[EffectKind::Kubeadm],
        params::RESTART_KUBELET => &[EffectKind::KubeletRestart],
        params::ETCD_SNAPSHOT => &[EffectKind::Snapshot],
        params::UPGRADE_CONTAINERD => &[EffectKind::Install, EffectKind::ContainerdRestart],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::clock::Timestamp;
    use cupcake_engine::cursor::Cursor;
    use cupcake_engine::decide::Limits;
    use cupcake_engine::event::AfterFailure;
    use cupcake_engine::names::{CommitId, Epoch, Reason, RunName, VertexName};
    use cupcake_engine::store::{Change, NewRun, RunStore as _};
    use cupcake_steps::ports::memory_disk::MemoryDisk;
    use futures::executor::block_on;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn only_the_success_of_its_step_records_an_effect_in_the_journal_that_the_runner_writes() {
        let vertex = |name: &str, kind: &str| json!({"vertex": {"name": name, "kind": kind, "params": {}, "attemptsMax": 3, "deadlineSeconds": 60}});
        let parts = [vertex("prepare/kubeadm", params::KUBEADM_UPGRADE), vertex("prepare/images", params::PULL_IMAGES)];
        let plan: Plan = serde_json::from_value(json!({"format": 1, "compiler": "test", "parts": parts})).unwrap();
        let dag = plan.expand().unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let cursor = Cursor::new(plan.digest(), &dag, at);
        let (disk, name) = (MemoryDisk::new(), RunName::new("order-1").unwrap());
        let run = NewRun { name: name.clone(), plan: Arc::new(plan), cursor, limits: Limits::default() };
        let store = store::FileStore::on(Arc::new(disk.clone()));
        block_on(store.create(&run)).unwrap();
        let path = format!("{}/{name}.log", store::FOLDER);
        let told = || recorded(&path, disk.content(&path).as_deref());
        assert_eq!(told(), []);
        let of = |vertex: &str| VertexName::new(vertex).unwrap();
        let (kubeadm, images) = (of("prepare/kubeadm"), of("prepare/images"));
        let started = |vertex: &VertexName, attempt| Event::Started { vertex: vertex.clone(), attempt, at };
        let done = |vertex: &VertexName, attempt| Event::Succeeded {
            vertex: vertex.clone(),
            attempt,
            output: Value::Null,
            at,
        };
        let reason = Reason::new("DiskFull", "no space left on device");
        let failed = Event::Failed { vertex: kubeadm.clone(), attempt: 1, reason, next: AfterFailure::Retry(at), at };
        let commits = [
            (vec![started(&kubeadm, 1), started(&images, 1)], vec![]),
            (vec![failed], vec![]),
            (vec![done(&images, 1), started(&kubeadm, 2)], vec![]),
            (vec![done(&kubeadm, 2)], vec![EffectKind::Kubeadm]),
        ];
        for (events, kinds) in commits {
            let run = block_on(store.load(&name)).unwrap();
            let mut cursor = run.cursor.clone();
            cursor.fold(&events).unwrap();
            cursor.stamp(CommitId { epoch: Epoch(1), sequence: run.cursor.commit_id().sequence + 1 });
            block_on(store.commit(&name, Epoch(1), &run.version, &Change { events, cursor })).unwrap();
            assert_eq!(told(), kinds);
        }
        assert_eq!(recorded("done/order-1.prepare.kubeadm.json", Some(b"{}")), [EffectKind::Kubeadm]);
        assert_eq!(recorded("done/order-1.prepare.kubeadm.json", None), [], "it was removed");
        assert_eq!(recorded("runner.json", Some(b"{}")), []);
    }
}
