//! `restart-kubelet/v1`: the kubelet runs, what runs is the installed binary of the version, and it stays up for a while.
//!
//! Restarts only a kubelet that runs another binary than the installed one: one that crashes in a loop is waited for and
//! watched, then told with where it says why; restarting it again would only hide that.

use super::{moment, outcome_of, params};
use crate::ports::host::{KubeletState, Machine};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How long a kubelet must run before it counts, in seconds: a flag or a setting that it does not know ends it within a second
/// or two, and kubeadm's unit starts it again after 10 (`RestartSec=10`), active each time.
pub const WATCHED_SECONDS_MIN: i64 = 20;
/// From how many starts by systemd alone on a kubelet is taken to crash in a loop: one or two may be a runtime that is late.
const RESTARTS_MIN: u32 = 3;
/// How long one that did must run before it counts, in seconds: some live for longer than they are watched otherwise. systemd
/// keeps its number of starts until somebody restarts the unit, so the number alone says nothing against one that runs.
const CALM_SECONDS_MIN: i64 = 60;
/// For how long one that crashes in a loop is waited for, in seconds, from the beginning of the step or from a later boot of the
/// machine: what it lacks may come by itself, as containerd does when a machine was off meanwhile. Well below the time that a machine
/// has for its second part unless somebody chose a short one (300 s), so that it says why before time is up.
const LOOP_SECONDS_MAX: i64 = 120;
/// How soon one that is watched is looked at again, in seconds: it may be gone long before its time is over.
const WATCH_AGAIN_SECONDS: i64 = 5;

/// Restarts the kubelet and waits until it is active and stays so.
pub struct RestartKubelet;

#[async_trait]
impl Step<Machine> for RestartKubelet {
    const KIND: &'static str = params::RESTART_KUBELET;
    type Params = params::RestartKubelet;
    type Output = params::KubeletRuns;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let kubelet = ctx.ports().host.kubelet().await?;
        match kubelet.installed {
            None => {
                let message = "the version of the kubelet on disk cannot be told".to_owned();
                Ok(Probe::Unknown(Reason::new("KubeletUnknown", message)))
            }
            Some(installed) if installed != params.version => {
                let message =
                    format!("kubelet {installed} is installed, {} is wanted: install it first", params.version);
                Err(StepError::NeedsOperator(Reason::new("OtherKubeletInstalled", message)))
            }
            Some(_) if !kubelet.runs_installed => Ok(Probe::Unsatisfied),
            Some(_) => Ok(match watched(&kubelet, ctx.started(), ctx.now())? {
                Probe::Satisfied(()) => Probe::Satisfied(runs(&kubelet, ctx.now())),
                Probe::Unsatisfied => Probe::Unsatisfied,
                Probe::Unknown(reason) => Probe::Unknown(reason),
                Probe::Wait(wait) => Probe::Wait(wait),
            }),
        }
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        ctx.ports().host.restart_kubelet().await?;
        match self.probe(ctx, params).await? {
            // systemd has the restart; the new process shows in a moment, and if it does not, the next look tells.
            Probe::Unsatisfied => {
                Ok(StepOutcome::Wait(moment(ctx, "KubeletStarting", "the kubelet is being restarted")))
            }
            probe @ (Probe::Satisfied(_) | Probe::Unknown(_) | Probe::Wait(_)) => {
                outcome_of(ctx, probe, "the installed kubelet running")
            }
        }
    }
}

/// Since when it runs, for whoever asks whether its Node has heard of it. A time that is still to come is one of a clock which was set
/// back since: no report would ever be newer.
fn runs(kubelet: &KubeletState, now: Timestamp) -> params::KubeletRuns {
    params::KubeletRuns { started_at: kubelet.since.filter(|since| *since <= now) }
}

/// Whether a kubelet of the installed binary counts, for a step that began at `started`.
fn watched(kubelet: &KubeletState, started: Timestamp, now: Timestamp) -> Result<Probe<()>, StepError> {
    let looped = kubelet.restarts >= RESTARTS_MIN;
    let seconds_min = if looped { CALM_SECONDS_MIN } else { WATCHED_SECONDS_MIN };
    let soon = now + TimeDelta::seconds(WATCH_AGAIN_SECONDS);
    let watched = TimeDelta::seconds(WATCHED_SECONDS_MIN);
    let (again, young) = match kubelet.since {
        _ if !kubelet.active => (soon, true),
        // No time, or that of a clock which was set back since: there is nothing to go by.
        None => return Ok(Probe::Satisfied(())),
        Some(since) if since > now + watched => return Ok(Probe::Satisfied(())),
        Some(since) => {
            let counts = since + TimeDelta::seconds(seconds_min);
            if now >= counts {
                return Ok(Probe::Satisfied(()));
            }
            (soon.min(counts), now < since + watched)
        }
    };
    if looped {
        let reason = Reason::new(
            "KubeletCrashes",
            format!(
                "systemd started the kubelet {} times again: see journalctl -u kubelet on this machine, mend what it names, then retry",
                kubelet.restarts
            ),
        );
        let began = kubelet.booted.map_or(started, |booted| booted.max(started));
        let patient = now - began < TimeDelta::seconds(LOOP_SECONDS_MAX);
        if young && !patient {
            return Err(StepError::NeedsOperator(reason));
        }
        return Ok(Probe::Wait(Wait::shown(again, reason)));
    }
    let reason = match kubelet.since.filter(|_| kubelet.active) {
        Some(since) => Reason::new(
            "KubeletWatched",
            format!("the kubelet runs since {}: it is watched for {seconds_min} s", since.format("%H:%M:%S")),
        ),
        None => Reason::new("KubeletStarting", "the kubelet was restarted and is not active yet"),
    };
    Ok(Probe::Wait(Wait::quiet(again, reason)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::values::KubeVersion;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn kubelet(active: bool, since: Option<i64>, restarts: u32) -> KubeletState {
        let installed = Some(KubeVersion::new(1, 34, 4));
        KubeletState { installed, active, runs_installed: true, since: since.map(at), restarts, booted: None }
    }

    fn until(probe: Result<Probe<()>, StepError>) -> (i64, bool, String) {
        match probe {
            Ok(Probe::Wait(wait)) => ((wait.until - at(0)).num_seconds(), wait.shown, wait.reason.to_string()),
            other => panic!("{other:?} is no wait"),
        }
    }

    #[test]
    fn a_kubelet_counts_once_it_was_active_for_as_long_as_it_is_watched() {
        let look = |now| watched(&kubelet(true, Some(100), 0), at(90), at(now));
        let (again, shown, reason) = until(look(101));
        assert_eq!((again, shown), (106, false));
        assert!(reason.contains("20 s") && reason.contains("00:01:40"), "{reason}");
        assert_eq!(until(look(117)).0, 120, "not later than it takes");
        assert_eq!(look(120), Ok(Probe::Satisfied(())));
        let unknown = watched(&kubelet(true, None, 0), at(90), at(101));
        assert_eq!(unknown, Ok(Probe::Satisfied(())), "where systemd says no time there is nothing to watch");
        assert!(!until(watched(&kubelet(false, None, 0), at(90), at(500))).1, "not yet active, and no loop");
    }

    #[test]
    fn a_clock_that_was_set_back_holds_no_kubelet_up() {
        assert_eq!(watched(&kubelet(true, Some(700), 0), at(90), at(101)), Ok(Probe::Satisfied(())));
        assert_eq!(until(watched(&kubelet(true, Some(102), 0), at(90), at(101))).0, 106);
        assert_eq!(runs(&kubelet(true, Some(700), 0), at(101)).started_at, None, "no report is newer than that");
        assert_eq!(runs(&kubelet(true, Some(81), 0), at(101)).started_at, Some(at(81)));
    }

    #[test]
    fn a_kubelet_that_starts_again_and_again_is_never_done() {
        // It lives for six seconds, and systemd starts it ten seconds later.
        let mut told = None;
        for now in 100..400 {
            let (round, second) = ((now - 100) / 16, (now - 100) % 16);
            let restarts = u32::try_from(round).unwrap();
            let one = kubelet(second < 6, (second < 6).then_some(100 + round * 16), restarts);
            match watched(&one, at(100), at(now)) {
                Ok(Probe::Wait(wait)) => {
                    assert_eq!(wait.shown, restarts >= 3, "at {now}");
                    assert!(!wait.shown || wait.reason.message.contains("journalctl -u kubelet"), "{}", wait.reason);
                }
                Ok(done) => panic!("at {now}: {done:?}"),
                Err(error) => told = told.or(Some((now, error.reason().to_string()))),
            }
        }
        let (at, reason) = told.expect("somebody is told in the end");
        assert!(at == 220 && reason.contains("KubeletCrashes") && reason.contains("journalctl"), "{at}: {reason}");
    }

    #[test]
    fn a_machine_that_was_off_since_the_step_began_has_its_time_from_its_boot_on() {
        let look = |booted: Option<i64>, now| {
            let kubelet = KubeletState { booted: booted.map(at), ..kubelet(false, None, 3) };
            watched(&kubelet, at(100), at(now))
        };
        assert!(look(None, 700).is_err(), "the step began ten minutes ago");
        assert!(until(look(Some(670), 700)).1, "containerd may be late after a boot");
        assert!(look(Some(670), 790).is_err(), "and that it still crashes two minutes after it is told");
        assert!(look(Some(10), 700).is_err(), "a boot of before the step gives nothing");
    }

    #[test]
    fn one_that_lives_for_half_a_minute_each_time_does_not_pass_and_one_that_was_mended_does() {
        let look = |since, now| watched(&kubelet(true, Some(since), 40), at(100), at(now));
        assert!(until(look(200, 229)).1, "it has lived for longer than one that never crashed would have to");
        assert!(matches!(look(200, 221), Ok(Probe::Wait(_))), "long after the step began it is still given its time");
        assert!(look(210, 225).is_err(), "it has just crashed once more");
        assert_eq!(look(200, 260), Ok(Probe::Satisfied(())), "the number stays, what it counted is over");
    }
}
