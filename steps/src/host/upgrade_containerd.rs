//! `upgrade-containerd/v1`: the package of containerd is installed whole, of exactly the version, its hold is as it was, what runs
//! is what is installed, and it answers. A newer one of the same minor, to which a machine moved by itself since it was planned, is as
//! good, and told.
//!
//! Planned after the drain and before the newer kubelet, which may need it. Its restart leaves containers running; one that the
//! package's own scripts have made already is not made again.

use super::{moment, outcome_of, params};
use crate::ports::host::{ContainerdState, Machine};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_crds::values::PackageVersion;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome, Wait};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// For how long a containerd that does not answer is waited for after its start, in seconds: it answers within a second or two, and well
/// below the time that a machine has for its second part it is to be told where it says why.
const SILENT_SECONDS_MAX: i64 = 120;
/// From how many starts by systemd alone on its last start says nothing: one that crashes in a loop has been started a moment ago for ever.
const RESTARTS_MIN: u32 = 3;
/// How soon one that does not answer is asked again, in seconds.
const ASK_AGAIN_SECONDS: i64 = 5;

/// What it leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upgraded {
    /// The version that is there, if the machine had gone past the planned one by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer: Option<String>,
}

/// Installs that version, and restarts what runs an older one.
pub struct UpgradeContainerd;

#[async_trait]
impl Step<Machine> for UpgradeContainerd {
    const KIND: &'static str = params::UPGRADE_CONTAINERD;
    type Params = params::UpgradeContainerd;
    type Output = Upgraded;

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<Upgraded>, StepError> {
        let found = ctx.ports().host.containerd().await?;
        let wanted = wanted(&found, params);
        if found.version > *wanted {
            let message = format!(
                "containerd {} is installed, which is newer than {}: an older package is never put over a newer one; cancel this update, and name {0} or newer in spec.componentVersions of the next",
                found.version, params.version
            );
            return Err(StepError::NeedsOperator(Reason::new("WouldDowngrade", message)));
        }
        if !found.is_at(wanted) || !found.runs_installed {
            return Ok(Probe::Unsatisfied);
        }
        Ok(match answering(&found, ctx.started(), ctx.now())? {
            Probe::Satisfied(()) => {
                Probe::Satisfied(Upgraded { newer: (*wanted != params.version).then(|| wanted.to_string()) })
            }
            Probe::Unsatisfied => Probe::Unsatisfied,
            Probe::Unknown(reason) => Probe::Unknown(reason),
            Probe::Wait(wait) => Probe::Wait(wait),
        })
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Upgraded>, StepError> {
        let host = &ctx.ports().host;
        let found = host.containerd().await?;
        let wanted = wanted(&found, params);
        if !found.is_at(wanted) {
            host.install_containerd(wanted).await?;
        }
        let installed = host.containerd().await?;
        let restarts = installed.is_at(wanted) && !installed.runs_installed;
        if restarts {
            host.restart_containerd().await?;
        }
        match self.probe(ctx, params).await? {
            // systemd has the restart; the new process shows in a moment, and if it does not, the next look tells.
            Probe::Unsatisfied if restarts => {
                Ok(StepOutcome::Wait(moment(ctx, "ContainerdStarting", "containerd is being restarted")))
            }
            probe @ (Probe::Satisfied(_) | Probe::Unknown(_) | Probe::Wait(_) | Probe::Unsatisfied) => {
                outcome_of(ctx, probe, "that version of containerd being installed whole")
            }
        }
    }
}

/// The version that the machine is to end with: the planned one, or what it went on to by itself within the same minor.
fn wanted<'v>(found: &'v ContainerdState, params: &'v params::UpgradeContainerd) -> &'v PackageVersion {
    if found.version.is_newer_patch_of(&params.version) { &found.version } else { &params.version }
}

/// Whether the installed containerd answers, for a step that began at `started`.
fn answering(found: &ContainerdState, started: Timestamp, now: Timestamp) -> Result<Probe<()>, StepError> {
    if found.answers {
        return Ok(Probe::Satisfied(()));
    }
    let message = format!(
        "containerd {} was started and does not answer: see journalctl -u containerd on this machine, mend what it names, then retry",
        found.version
    );
    let reason = Reason::new("ContainerdSilent", message);
    // What was done before its start (a slow mirror's download) is none of its time. A start that is still to come is of a clock which was
    // set back since.
    let start = found.since.filter(|since| *since <= now && found.restarts < RESTARTS_MIN);
    let counts_from = start.map_or(started, |since| since.max(started));
    if now - counts_from < TimeDelta::seconds(SILENT_SECONDS_MAX) {
        return Ok(Probe::Wait(Wait::quiet(now + TimeDelta::seconds(ASK_AGAIN_SECONDS), reason)));
    }
    Err(StepError::NeedsOperator(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containerd_that_does_not_answer_is_waited_for_and_then_told_with_where_it_says_why() {
        let at = |seconds: i64| Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let found = |answers| ContainerdState {
            version: "1.7.27-1".parse().unwrap(),
            whole: true,
            unheld: false,
            runs_installed: true,
            answers,
            since: None,
            restarts: 0,
        };
        let look = |answers, now| answering(&found(answers), at(100), at(now));
        assert_eq!(look(true, 100), Ok(Probe::Satisfied(())));
        assert!(matches!(look(false, 219), Ok(Probe::Wait(wait)) if wait.until == at(224) && !wait.shown));
        let error = look(false, 220).unwrap_err();
        assert!(error.reason().to_string().contains("journalctl -u containerd"), "{error:?}");
        assert_eq!(look(true, 900), Ok(Probe::Satisfied(())), "however late it is");
        let started = |since, restarts| ContainerdState { since: Some(at(since)), restarts, ..found(false) };
        let waits = |found: &ContainerdState, now| answering(found, at(100), at(now)).is_ok();
        assert_eq!(
            [299, 300].map(|now| waits(&started(180, 0), now)),
            [true, false],
            "its own time, from its start on"
        );
        assert_eq!([219, 220].map(|now| waits(&started(50, 0), now)), [true, false], "one that nobody had to start");
        assert_eq!([219, 220].map(|now| waits(&started(215, 3), now)), [true, false], "one that crashes in a loop");
        assert_eq!([219, 220].map(|now| waits(&started(999, 0), now)), [true, false], "a clock that was set back");
    }
}
