//! Which of kubeadm's copies are this run's: remembered before kubeadm begins, removed once the machine is verified.
//!
//! kubeadm copies etcd's whole data and the manifests to /etc/kubernetes/tmp each time it upgrades a control plane, and never
//! removes them (kubernetes/kubernetes#125357). What lay there before is another's. So what lies there is written down before
//! kubeadm begins; what came since is this run's, also that of attempts which failed. Copies of a run that never came to its
//! end stay: somebody may want them.
//!
//! ```text
//!   before kubeadm      {run, before: [what lies there], ours: [of attempts before]}
//!   kubeadm failed      {run, before: null, ours: [+ what came]}
//!   machine verified    ours and what came are removed, then this file
//! ```

use super::params;
use crate::mailbox::{Mailbox, run_name};
use crate::ports::host::Machine;
use cupcake_crds::node_task::Order;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{StepContext, StepError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The file of this memory, on the runner's disk.
pub const FILE: &str = "kubeadm-copies.json";
/// The largest memory, in bytes: a thousand names.
const BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    /// UID of the run that ordered the upgrade.
    run: String,
    /// What lay there when kubeadm began; `None` where it is known to have ended.
    before: Option<BTreeSet<String>>,
    /// What earlier attempts of the run left.
    ours: BTreeSet<String>,
}

impl Memory {
    /// What of `present` this run made. Where a crash hid the end of kubeadm, all that came since its beginning.
    fn made(&self, present: &BTreeSet<String>) -> BTreeSet<String> {
        let is_ours = |name: &&String| {
            self.ours.contains(*name) || self.before.as_ref().is_some_and(|before| !before.contains(*name))
        };
        present.iter().filter(is_ours).cloned().collect()
    }
}

/// To be called before kubeadm begins.
pub(super) async fn remember(ctx: &StepContext<'_, Machine>) -> Result<(), StepError> {
    let run = run_of(ctx).await?;
    let present = present(ctx).await?;
    let ours = read(ctx, &run).await?.map(|memory| memory.made(&present)).unwrap_or_default();
    write(ctx, &Memory { run, before: Some(present), ours }).await
}

/// To be called when kubeadm failed: what comes from now on is another's again. Unwritten, all that comes until the next
/// attempt counts as this run's.
pub(super) async fn close(ctx: &StepContext<'_, Machine>) -> Result<(), StepError> {
    let run = run_of(ctx).await?;
    let Some(memory) = read(ctx, &run).await? else {
        return Ok(());
    };
    let ours = memory.made(&present(ctx).await?);
    write(ctx, &Memory { run, before: None, ours }).await
}

/// Whether the copies of this run are still to be removed.
pub(super) async fn are_left(ctx: &StepContext<'_, Machine>) -> Result<bool, StepError> {
    let run = run_of(ctx).await?;
    Ok(read(ctx, &run).await?.is_some())
}

/// Whether kubeadm has begun on this control plane in this run, has not come to its end, and the order under way runs it again.
pub(super) async fn is_to_be_repeated(ctx: &StepContext<'_, Machine>) -> Result<bool, StepError> {
    let mail = order_of(ctx).await?;
    let runs_kubeadm = mail.is_some_and(|order| order.prepare.iter().any(|step| step.kind == params::KUBEADM_UPGRADE));
    Ok(runs_kubeadm && are_left(ctx).await?)
}

/// Removes what this run made, and then the memory of it.
pub(super) async fn remove(ctx: &StepContext<'_, Machine>) -> Result<(), StepError> {
    let run = run_of(ctx).await?;
    let Some(memory) = read(ctx, &run).await? else {
        return Ok(());
    };
    let made = memory.made(&present(ctx).await?);
    if !made.is_empty() {
        ctx.ports().host.remove_kubeadm_copies(&made).await?;
    }
    ctx.ports().disk.remove(FILE).await.map_err(|error| unwritten(&error))
}

async fn present(ctx: &StepContext<'_, Machine>) -> Result<BTreeSet<String>, StepError> {
    Ok(ctx.ports().host.kubeadm_copies().await?)
}

/// The run behind the order: attempts and hops of one run share it. An order that is in the mailbox no more stands for itself.
pub(super) async fn run_of(ctx: &StepContext<'_, Machine>) -> Result<String, StepError> {
    let own = order_of(ctx).await?;
    Ok(own.map_or_else(|| ctx.run().to_string(), |order| order.key.run_uid))
}

/// The order under way, if it is still in the mailbox.
async fn order_of(ctx: &StepContext<'_, Machine>) -> Result<Option<Order>, StepError> {
    let unreadable = |error| StepError::Transient(Reason::new("MailboxUnreadable", format!("{error}")));
    let mail = Mailbox::on(&*ctx.ports().disk).order().await.map_err(unreadable)?;
    Ok(mail.map(|mail| mail.order).filter(|order| run_name(&order.key) == *ctx.run()))
}

/// The memory of that run; another one's is of no use any more, and one that is damaged names nothing that may be removed.
async fn read(ctx: &StepContext<'_, Machine>, run: &str) -> Result<Option<Memory>, StepError> {
    let unreadable = |error| StepError::Transient(Reason::new("RecordUnreadable", format!("{error}")));
    let bytes = ctx.ports().disk.read(FILE, BYTES_MAX).await.map_err(unreadable)?;
    let memory: Option<Memory> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(memory.filter(|memory| memory.run == run))
}

async fn write(ctx: &StepContext<'_, Machine>, memory: &Memory) -> Result<(), StepError> {
    let bytes = serde_json::to_vec(memory).expect("a memory has string keys and plain values only");
    ctx.ports().disk.replace(FILE, &bytes).await.map_err(|error| unwritten(&error))
}

fn unwritten(error: &crate::ports::disk::DiskError) -> StepError {
    let message = format!("kubeadm's copies cannot be kept track of: {error}; free some space, then retry");
    StepError::Transient(Reason::new("RecordUnwritten", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_came_while_kubeadm_was_at_work_is_the_runs() {
        let present = names(&["etcd-old", "etcd-failed", "etcd-by-hand", "etcd-new"]);
        let cut = Memory { run: "a".into(), before: Some(names(&["etcd-old"])), ours: names(&[]) };
        assert_eq!(cut.made(&names(&["etcd-old", "etcd-failed"])), names(&["etcd-failed"]));
        let closed = Memory { before: None, ours: names(&["etcd-failed", "gone"]), ..cut };
        assert_eq!(closed.made(&present), names(&["etcd-failed"]));
        let again = Memory { before: Some(names(&["etcd-old", "etcd-failed", "etcd-by-hand"])), ..closed };
        assert_eq!(again.made(&present), names(&["etcd-failed", "etcd-new"]));
    }
}
