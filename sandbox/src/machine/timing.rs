//! How long things take: the figures of a real kubeadm cluster on two cores, spread a little by a seed.
//!
//! Measured on real nodes: `kubeadm upgrade apply` 161 to 164 s (etcd's turn about 75 s of it), `kubeadm upgrade node` on a second
//! control plane about 150 s, a worker with everything 8 to 17 s, an etcd snapshot about 2 s.

use chrono::TimeDelta;

/// Something that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Reading what the machine is.
    Inventory,
    /// `apt-get update` after the source was rewritten.
    RefreshIndex,
    /// Unpacking and configuring one transaction of packages.
    InstallPackages,
    /// Pulling one image.
    PullImage,
    /// kubeadm's checks, with the Job that proves that pods can be made.
    KubeadmPreflight,
    /// kubeadm's turn with etcd: copy of the data, manifest, restart, health.
    TurnEtcd,
    /// kubeadm's turn with the API server: its grace, manifest, restart, health.
    TurnApiServer,
    /// kubeadm's turn with the controller manager or the scheduler.
    TurnOther,
    /// Of a turn: from the new manifest to the old container's end.
    PodStops,
    /// Of a turn with etcd: until the member serves again.
    EtcdStarts,
    /// Of a turn with the API server: until it is ready.
    ApiServerStarts,
    /// Uploading configuration, bootstrap tokens.
    KubeadmUpload,
    /// kubeadm's addons.
    KubeadmAddons,
    /// `kubeadm upgrade node` on a worker.
    KubeadmWorker,
    /// Until `systemctl restart kubelet` returns.
    RestartKubelet,
    /// Until `systemctl restart containerd` returns.
    RestartContainerd,
    /// From the start of a kubelet to its first report.
    KubeletReports,
    /// From the start of a kubelet of a new minor to the restart of its static pods.
    StaticPodsRestart,
    /// An etcd snapshot with its verification.
    Snapshot,
    /// From power to a started kubelet.
    Boot,
    /// A program that was asked to end.
    PodEnds,
    /// From a pod's binding to its readiness.
    PodStarts,
    /// A controller's or the scheduler's reaction.
    Controller,
    /// Between two heartbeats of an unchanged node (the kubelet's `nodeStatusReportFrequency`).
    Heartbeat,
}

impl Act {
    /// Typical length and largest deviation from it, in milliseconds.
    const fn milliseconds(self) -> (i64, i64) {
        match self {
            Self::Inventory => (350, 150),
            Self::RefreshIndex => (1_600, 600),
            Self::InstallPackages => (3_000, 900),
            Self::PullImage => (3_200, 1_800),
            Self::KubeadmPreflight => (14_000, 2_500),
            Self::TurnEtcd => (75_000, 6_000),
            Self::TurnApiServer => (38_000, 4_000),
            Self::TurnOther => (14_000, 2_000),
            Self::PodStops => (2_500, 1_000),
            Self::EtcdStarts => (14_000, 4_000),
            Self::ApiServerStarts => (9_000, 3_000),
            Self::KubeadmUpload => (1_500, 500),
            Self::KubeadmAddons => (2_500, 800),
            Self::KubeadmWorker => (2_200, 700),
            Self::RestartKubelet => (2_900, 700),
            Self::RestartContainerd => (1_200, 400),
            Self::KubeletReports => (1_100, 400),
            Self::StaticPodsRestart => (1_700, 500),
            Self::Snapshot => (2_000, 500),
            Self::Boot => (24_000, 6_000),
            Self::PodEnds => (1_400, 1_000),
            Self::PodStarts => (2_300, 1_200),
            Self::Controller => (60, 40),
            Self::Heartbeat => (300_000, 12_000),
        }
    }
}

/// A stream of seeded durations that nobody else draws from.
#[derive(Debug)]
pub struct Timing(fastrand::Rng);

impl Timing {
    /// The stream of `owner` under `seed`: machines do not disturb each other's draws.
    pub fn new(seed: u64, owner: &str) -> Self {
        Self(fastrand::Rng::with_seed(derive(seed, &["timing", owner])))
    }

    /// How long it takes this time.
    pub fn draw(&mut self, act: Act) -> TimeDelta {
        let (typical, spread) = act.milliseconds();
        TimeDelta::milliseconds(self.0.i64(typical - spread..=typical + spread))
    }

    /// A share of `0.0..1.0` of a span: for phases that differ from machine to machine.
    pub fn share(&mut self, span: TimeDelta) -> TimeDelta {
        TimeDelta::milliseconds(self.0.i64(0..=span.num_milliseconds().max(0)))
    }
}

/// A number that depends on the seed and the words, and on nothing else (FNV-1a with a final mix).
pub fn derive(seed: u64, words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in words {
        for byte in word.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_every_duration_and_another_seed_changes_them() {
        let draw = |seed, owner| {
            let mut timing = Timing::new(seed, owner);
            [timing.draw(Act::InstallPackages), timing.draw(Act::TurnEtcd), timing.draw(Act::PodEnds)]
        };
        assert_eq!(draw(7, "w-1"), draw(7, "w-1"));
        assert_ne!(draw(7, "w-1"), draw(8, "w-1"));
        assert_ne!(draw(7, "w-1"), draw(7, "w-2"));
    }

    #[test]
    fn a_whole_apply_takes_what_it_takes_on_real_nodes() {
        let mut timing = Timing::new(1, "cp-1");
        let acts = [
            Act::KubeadmPreflight,
            Act::TurnEtcd,
            Act::TurnApiServer,
            Act::TurnOther,
            Act::TurnOther,
            Act::KubeadmUpload,
            Act::KubeadmAddons,
        ];
        let total: TimeDelta = acts.into_iter().map(|act| timing.draw(act)).sum();
        assert!((140..=180).contains(&total.num_seconds()), "{total}");
    }
}
