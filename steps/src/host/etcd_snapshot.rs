//! `etcd-snapshot/v1`: a verified snapshot of the local etcd member lies on the machine under its name.
//!
//! In an order that goes on to kubeadm it is left out where the member is down and kubeadm has begun on this machine in an earlier
//! attempt of the run: what kubeadm left half done (a manifest of etcd that is away) may be what keeps the member down, and kubeadm's
//! repetition is what mends it. That attempt had its snapshot. A member that answers and is not well (corrupt, without a leader, a
//! full disk) is nothing that kubeadm mends: without its snapshot nothing moves.

use super::{kubeadm_copies, outcome_of, params};
use crate::ports::host::{Machine, SNAPSHOT_NAME_CHARS_MAX, SnapshotInfo};
use async_trait::async_trait;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// What is said of a member that is down, which kubeadm's repetition may mend.
const DOWN: [&str; 3] = ["EtcdAway", "EtcdSlow", "NoLocalEtcd"];

/// Takes the snapshot.
pub struct EtcdSnapshot;

#[async_trait]
impl Step<Machine> for EtcdSnapshot {
    const KIND: &'static str = params::ETCD_SNAPSHOT;
    type Params = params::EtcdSnapshot;
    type Output = SnapshotInfo;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<Probe<SnapshotInfo>, StepError> {
        check_name(&params.name)?;
        let found = ctx.ports().host.etcd_snapshot(&params.name).await?;
        Ok(found.map_or(Probe::Unsatisfied, Probe::Satisfied))
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<StepOutcome<SnapshotInfo>, StepError> {
        if let Err(error) = ctx.ports().host.take_etcd_snapshot(&params.name).await {
            let error = StepError::from(error);
            if is_down(&error) && kubeadm_copies::is_to_be_repeated(ctx).await? {
                let message =
                    format!("kubeadm has begun here and is repeated without another snapshot: {}", error.reason());
                return Ok(StepOutcome::Skipped(Reason::new("KubeadmHasBegun", message)));
            }
            return Err(error);
        }
        outcome_of(ctx, self.probe(ctx, params).await?, "a verified snapshot lying on the machine")
    }
}

/// Whether it says that the member on this machine is down.
pub(super) fn is_down(error: &StepError) -> bool {
    DOWN.contains(&error.reason().code.as_str())
}

/// The name becomes a file name on the machine: nothing in it may lead elsewhere.
fn check_name(name: &str) -> Result<(), StepError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let plain = name.chars().all(legal) && name.chars().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if plain && name.len() <= SNAPSHOT_NAME_CHARS_MAX {
        return Ok(());
    }
    let message = format!("snapshot name {name:?} needs 1 to {SNAPSHOT_NAME_CHARS_MAX} letters, digits, '.' and '-'");
    Err(StepError::Permanent(Reason::new("BadParameters", message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_name_that_leads_out_of_its_folder_is_refused() {
        for bad in ["", "../up", "a/b", ".hidden", "-rf", "a b"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name("du-12345678-1.34.4").is_ok());
    }
}
