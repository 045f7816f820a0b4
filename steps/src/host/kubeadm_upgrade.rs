//! `kubeadm-upgrade/v1`: `kubeadm upgrade apply` or `kubeadm upgrade node` ended well on this machine for this order.
//!
//! The only proof that kubeadm came to its end is its own exit status: it writes kubelet configuration, tokens and addons
//! after the last manifest, and on a worker there is no manifest at all. So a success is recorded on the disk, under the
//! order's run and the step, before the step says Done: a recorded success is never repeated, an interrupted kubeadm is. A disk
//! that does not take the record is waited for, since running kubeadm again would copy etcd's data onto it once more. The next
//! attempt of a node is another order: it takes over the record of the one before where its parameters name that, and what the
//! manifests say still agrees.
//! Before it, the machine's configuration is archived.
//! On a control plane the manifests and the running static pods must agree besides; then the copies that kubeadm made are removed
//! (see [`kubeadm_copies`]).
//!
//! kubeadm tells a control plane by the presence of kube-apiserver.yaml, and while it exchanges a manifest that file is
//! away for a moment. A crash just then would let `upgrade node` take the machine for a worker and report success. The
//! machine's adapter puts such a manifest back before it runs kubeadm again; and no success is recorded here before every
//! manifest of a control plane says the version. Source: kubernetes/kubernetes, cmd/kubeadm/app/cmd/upgrade/node.go and
//! phases/upgrade/staticpods.go (1.31 to 1.34).

use super::{UNKNOWN_AGAIN_SECONDS, kubeadm_copies, moment, outcome_of, params};
use crate::ports::disk::DiskError;
use crate::ports::host::{KubeadmUpgrade as How, Machine, StaticPods};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_crds::values::KubeVersion;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::{Reason, RunName, VertexName};
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome, Wait};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The folder of recorded successes, on the runner's disk.
pub const RECORDS: &str = "done";
/// The largest record, in bytes.
const RECORD_BYTES_MAX: usize = 4_096;
/// The static pods that every control plane of kubeadm has and that carry the Kubernetes version.
const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Runs kubeadm to its end, once.
#[derive(Default)]
pub struct KubeadmUpgrade {
    /// Attempts whose kubeadm ended well and whose success could not be recorded yet: they record it, and do not run kubeadm
    /// again. Lost with the process.
    ended: Mutex<BTreeSet<(RunName, VertexName, u32)>>,
}

impl KubeadmUpgrade {
    fn ended(&self) -> MutexGuard<'_, BTreeSet<(RunName, VertexName, u32)>> {
        // Single insertions and removals: a panic of another holder leaves the set whole.
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Step<Machine> for KubeadmUpgrade {
    const KIND: &'static str = params::KUBEADM_UPGRADE;
    type Params = params::UpgradeByKubeadm;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        match verified(ctx, params).await? {
            Probe::Satisfied(()) if kubeadm_copies::are_left(ctx).await? => Ok(Probe::Unsatisfied),
            probe => Ok(probe),
        }
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let attempt = (ctx.run().clone(), ctx.vertex().clone(), ctx.attempt());
        if is_recorded(ctx, params).await? {
            return verified_and_tidy(ctx, params).await;
        }
        if !self.ended().contains(&attempt) {
            if !has_success_before(ctx, params).await? {
                upgrade(ctx, params).await?;
            }
            self.ended().insert(attempt.clone());
        }
        if let Err(error) = record(ctx, params).await {
            let message = format!("kubeadm ended well, which cannot be recorded: {error}; free some space");
            let again = ctx.now() + TimeDelta::seconds(UNKNOWN_AGAIN_SECONDS);
            return Ok(StepOutcome::Wait(Wait::quiet(again, Reason::new("RecordUnwritten", message))));
        }
        self.ended().remove(&attempt);
        verified_and_tidy(ctx, params).await
    }
}

/// Whether kubeadm came to its end and the machine is what it says.
async fn verified(ctx: &StepContext<'_, Machine>, params: &params::UpgradeByKubeadm) -> Result<Probe<()>, StepError> {
    let pods = ctx.ports().host.static_pods().await?;
    let role = role_of(&pods, params.how)?;
    if !is_recorded(ctx, params).await? {
        return Ok(Probe::Unsatisfied);
    }
    match role {
        Role::Worker => Ok(Probe::Satisfied(())),
        Role::ControlPlane => {
            if let Some(difference) = difference(&pods, &params.version) {
                let message = format!("kubeadm's success is recorded, yet {difference}: order the upgrade again");
                return Err(StepError::NeedsOperator(Reason::new("ManifestsChanged", message)));
            }
            Ok(running(ctx, &pods))
        }
    }
}

/// What is left to do once the success is recorded. Copies that cannot be removed hold nothing up: the machine is upgraded.
async fn verified_and_tidy(
    ctx: &StepContext<'_, Machine>,
    params: &params::UpgradeByKubeadm,
) -> Result<StepOutcome<()>, StepError> {
    let probe = verified(ctx, params).await?;
    if let Probe::Satisfied(()) = probe
        && let Err(error) = kubeadm_copies::remove(ctx).await
    {
        tracing::warn!(%error, "kubeadm's copies in /etc/kubernetes/tmp stay");
    }
    outcome_of(ctx, probe, "kubeadm having upgraded the machine")
}

/// Runs kubeadm, and on a control plane sees that it did not take it for a worker.
async fn upgrade(ctx: &StepContext<'_, Machine>, params: &params::UpgradeByKubeadm) -> Result<(), StepError> {
    let role = role_of(&ctx.ports().host.static_pods().await?, params.how)?;
    archive(ctx, params).await?;
    // kubeadm makes no copies on a worker.
    if role == Role::ControlPlane {
        kubeadm_copies::remember(ctx).await?;
    }
    let upgraded = ctx.ports().host.kubeadm_upgrade(params.how, &params.version, params.kube_proxy).await;
    if upgraded.is_err()
        && role == Role::ControlPlane
        && let Err(error) = kubeadm_copies::close(ctx).await
    {
        tracing::warn!(%error, "what kubeadm's failed attempt left in /etc/kubernetes/tmp is not told apart");
    }
    upgraded?;
    if role == Role::ControlPlane {
        let pods = ctx.ports().host.static_pods().await?;
        if let Some(difference) = difference(&pods, &params.version) {
            let message = format!(
                "kubeadm reported success, yet {difference}: it took this control plane for a worker; look at \
                 /etc/kubernetes/manifests, then retry"
            );
            return Err(StepError::NeedsOperator(Reason::new("NotUpgraded", message)));
        }
    }
    Ok(())
}

/// Keeps the machine's configuration as it was before the run's first attempt at this version.
async fn archive(ctx: &StepContext<'_, Machine>, params: &params::UpgradeByKubeadm) -> Result<(), StepError> {
    let name = archive_name(&kubeadm_copies::run_of(ctx).await?, &params.version);
    let host = &ctx.ports().host;
    if !host.has_configuration_archive(&name).await? {
        host.archive_configuration(&name).await?;
    }
    Ok(())
}

/// A file name of plain letters, whatever a UID consists of.
fn archive_name(run: &str, version: &KubeVersion) -> String {
    let plain: String = run.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    format!("before-{version}-{plain}")
}

/// Where the success of a step of a run is recorded.
pub fn record_path(run: &RunName, vertex: &str) -> String {
    format!("{RECORDS}/{run}.{}.json", vertex.replace('/', "."))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    how: How,
    version: KubeVersion,
    at: Timestamp,
    /// Image tags in the manifests when kubeadm had ended. Absent where they could not be told: no later attempt takes it over then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifests: Option<BTreeMap<String, String>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Worker,
    ControlPlane,
}

/// A trace of a control plane's component makes a control plane: a worker has none of them, and one that is being
/// exchanged leaves the others.
fn role_of(pods: &StaticPods, how: How) -> Result<Role, StepError> {
    let known = |component: &str| pods.manifests.contains_key(component) || pods.running.contains_key(component);
    if known("etcd") || COMPONENTS.into_iter().any(known) {
        return Ok(Role::ControlPlane);
    }
    match how {
        How::Node => Ok(Role::Worker),
        How::Apply => {
            let message = "kubeadm upgrade apply is for a control plane, but /etc/kubernetes/manifests holds none of its \
                           manifests: put them back from a backup, or order this on the right node";
            Err(StepError::NeedsOperator(Reason::new("NotAControlPlane", message)))
        }
    }
}

/// What keeps the manifests from saying the version, if something does.
fn difference(pods: &StaticPods, version: &KubeVersion) -> Option<String> {
    let wanted = version.with_v();
    COMPONENTS.into_iter().find_map(|component| match pods.manifests.get(component) {
        Some(tag) if *tag == wanted => None,
        Some(tag) => Some(format!("the manifest of {component} says {tag} instead of {wanted}")),
        None => Some(format!("the manifest of {component} is missing")),
    })
}

/// Whether what runs is what the manifests say.
fn running(ctx: &StepContext<'_, Machine>, pods: &StaticPods) -> Probe<()> {
    for (component, tag) in &pods.manifests {
        if pods.running.get(component) != Some(tag) {
            let running = pods.running.get(component).map_or("nothing", String::as_str);
            let message = format!("{component} runs {running}, its manifest says {tag}");
            return Probe::Wait(moment(ctx, "StaticPodsStarting", message));
        }
    }
    Probe::Satisfied(())
}

/// Whether an attempt before recorded kubeadm's success and nothing says otherwise: only something after it failed. On a control
/// plane every manifest has to be as it was then: one that was put back since, etcd's too, is kubeadm's to mend.
async fn has_success_before(
    ctx: &StepContext<'_, Machine>,
    params: &params::UpgradeByKubeadm,
) -> Result<bool, StepError> {
    for before in params.success_of.iter().filter_map(|name| RunName::new(name.clone()).ok()) {
        let Some(record) = recorded_by(ctx, params, &before).await? else { continue };
        let pods = ctx.ports().host.static_pods().await?;
        return Ok(match role_of(&pods, params.how)? {
            Role::Worker => true,
            Role::ControlPlane => {
                difference(&pods, &params.version).is_none() && record.manifests.as_ref() == Some(&pods.manifests)
            }
        });
    }
    Ok(false)
}

async fn is_recorded(ctx: &StepContext<'_, Machine>, params: &params::UpgradeByKubeadm) -> Result<bool, StepError> {
    Ok(recorded_by(ctx, params, ctx.run()).await?.is_some())
}

/// The success that the order of that name recorded of this very step.
async fn recorded_by(
    ctx: &StepContext<'_, Machine>,
    params: &params::UpgradeByKubeadm,
    run: &RunName,
) -> Result<Option<Record>, StepError> {
    let path = record_path(run, ctx.vertex().as_str());
    let unreadable = |error| StepError::Transient(Reason::new("RecordUnreadable", format!("{error}")));
    let Some(bytes) = ctx.ports().disk.read(&path, RECORD_BYTES_MAX).await.map_err(unreadable)? else {
        return Ok(None);
    };
    match serde_json::from_slice::<Record>(&bytes) {
        Ok(record) => Ok(Some(record).filter(|record| record.how == params.how && record.version == params.version)),
        Err(error) => {
            let message = format!("{path} is damaged ({error}): move it away to let kubeadm run again");
            Err(StepError::NeedsOperator(Reason::new("RecordDamaged", message)))
        }
    }
}

async fn record(ctx: &StepContext<'_, Machine>, params: &params::UpgradeByKubeadm) -> Result<(), DiskError> {
    let manifests = ctx.ports().host.static_pods().await.ok().map(|pods| pods.manifests);
    let record = Record { how: params.how, version: params.version, at: ctx.now(), manifests };
    let bytes = serde_json::to_vec(&record).expect("a record has string keys and plain values only");
    let path = record_path(ctx.run(), ctx.vertex().as_str());
    ctx.ports().disk.replace(&path, &bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(manifests: &[&str], running: &[&str]) -> StaticPods {
        let tags = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "v1.33.4".to_owned())).collect();
        StaticPods { manifests: tags(manifests), running: tags(running) }
    }

    #[test]
    fn a_control_plane_with_manifests_away_is_never_taken_for_a_worker() {
        let all = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        assert_eq!(role_of(&pods(&all, &all), How::Node), Ok(Role::ControlPlane));
        assert_eq!(role_of(&pods(&[], &[]), How::Node), Ok(Role::Worker));
        for away in &all {
            let left: Vec<_> = all.iter().filter(|name| *name != away).copied().collect();
            assert_eq!(role_of(&pods(&left, &left), How::Node), Ok(Role::ControlPlane), "{away} away");
        }
        assert_eq!(role_of(&pods(&[], &all), How::Node), Ok(Role::ControlPlane), "pods without manifests");
        assert_eq!(difference(&pods(&all, &all), &KubeVersion::new(1, 33, 4)), None);
        assert!(difference(&pods(&all[2..], &all), &KubeVersion::new(1, 33, 4)).is_some());
    }

    #[test]
    fn an_archive_is_named_by_version_and_run_in_plain_letters() {
        let version = KubeVersion::new(1, 34, 4);
        assert_eq!(archive_name("6f0d7f0e-0c3e", &version), "before-1.34.4-6f0d7f0e-0c3e");
        assert_eq!(archive_name("../x", &version), "before-1.34.4-x");
    }

    #[test]
    fn apply_is_refused_where_no_control_plane_is() {
        let error = role_of(&pods(&[], &[]), How::Apply).unwrap_err();
        assert!(matches!(&error, StepError::NeedsOperator(reason) if reason.code == "NotAControlPlane"), "{error}");
    }

    #[test]
    fn records_of_two_steps_of_one_order_are_two_files() {
        let run = RunName::new("order-0a").unwrap();
        let paths: BTreeMap<_, _> = ["prepare/a", "finish/a"].map(|v| (record_path(&run, v), v)).into();
        assert_eq!(paths.len(), 2);
    }
}
