//! kubeadm: its version, its upgrade, and what to make of it when that fails.

use super::RealHost;
use super::failure::{self, Class, Meaning, needs_operator, permanent, transient};
use super::hand_made::PATCHES;
use super::os::write_whole;
use super::program::{Program, ProgramError};
use super::runtime::{COMPONENTS, MANIFESTS, is_manifest_of};
use cupcake_crds::values::{KubeVersion, NodeRole};
use cupcake_steps::ports::host::{HostError, KubeProxy, KubeadmUpgrade};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How long one upgrade may take: kubeadm itself waits up to five minutes for each of four static pods.
const UPGRADE_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long the API server is waited for before kubeadm begins, and how often it is asked.
const API_SERVER_LIMIT: Duration = Duration::from_secs(5 * 60);
const API_SERVER_AGAIN: Duration = Duration::from_secs(3);
/// What it has to answer first: that it is ready, and what kubeadm asks for first.
const QUESTIONS: [&str; 2] = ["/readyz", "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"];
/// Credentials that may ask that: kubeadm's own on a control plane, the kubelet's elsewhere.
pub(super) const KUBECONFIGS: [&str; 2] = ["/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf"];
/// Where kubeadm keeps the manifests that it replaces (cmd/kubeadm/app/constants: `TempDir`, `CreateTimestampDir`).
pub(super) const BACKUPS: &str = "/etc/kubernetes/tmp";
const BACKUP_PREFIX: &str = "kubeadm-backup-manifests";
/// Folders that kubeadm writes to: manifests, kubeconfigs and certificates in one, the kubelet's configuration in the other.
const WRITTEN: [&str; 2] = ["/etc/kubernetes", "/var/lib/kubelet"];

/// How kubeadm is told to leave kube-proxy out.
/// Source: kubernetes.io, "kubeadm upgrade apply" and "kubeadm upgrade node" (v1.32 to v1.34).
const WITHOUT_KUBE_PROXY: &str = "--skip-phases=addon/kube-proxy";

/// What kubeadm says of its test Job when that did not end in time; how often it is run again for that, and after how long: until the
/// Job is gone, which has 20 s to live.
const JOB_FAILED: &str = "[ERROR CreateJob]";
const JOB_ATTEMPTS_MAX: u32 = 4;
const JOB_AGAIN: Duration = Duration::from_secs(25);

/// What `kubeadm upgrade` means by its last lines; the first fitting line counts.
const UPGRADE: [Meaning; 13] = [
    // Just after the API server came back its authorizers know nobody's rights yet, not even kubernetes-admin's; seconds
    // later they do.
    Meaning {
        words: "is forbidden: User \"",
        class: Class::Transient,
        code: "ApiServerNotReady",
        advice: "the API server does not know this user's rights yet, as just after its start",
    },
    Meaning {
        words: JOB_FAILED,
        class: Class::Transient,
        code: "HealthCheckJobFailed",
        advice: "kubeadm's test Job (upgrade-health-check in kube-system) did not run on the node where its pod landed: a node must take \
                 pods and be able to pull the new pause image (kubeadm config images list)",
    },
    Meaning {
        words: "[ERROR ControlPlaneNodesReady]",
        class: Class::Transient,
        code: "ControlPlaneNotReady",
        advice: "a control-plane node is not Ready",
    },
    Meaning {
        words: "[ERROR StaticPodManifest]",
        class: Class::NeedsOperator,
        code: "ManifestMissing",
        advice: "a static pod's manifest is missing: put it back from /etc/kubernetes/tmp, then retry",
    },
    Meaning { words: "[ERROR ImagePull]", class: Class::Transient, code: "PullFailed", advice: "" },
    Meaning {
        words: "[ERROR ",
        class: Class::NeedsOperator,
        code: "KubeadmPreflight",
        advice: "kubeadm's own checks refuse: repair what they name, then retry",
    },
    Meaning {
        words: "is invalid due to these errors",
        class: Class::Permanent,
        code: "KubeadmRefuses",
        advice: "kubeadm does not upgrade to that version from the present one",
    },
    Meaning {
        words: "no space left on device",
        class: Class::NeedsOperator,
        code: "DiskFull",
        advice: "free some space (kubeadm keeps copies of etcd's data in /etc/kubernetes/tmp), then retry",
    },
    Meaning { words: "connection refused", class: Class::Transient, code: "ApiServerAway", advice: "" },
    Meaning { words: "i/o timeout", class: Class::Transient, code: "ApiServerAway", advice: "" },
    Meaning { words: "TLS handshake timeout", class: Class::Transient, code: "ApiServerAway", advice: "" },
    Meaning { words: "context deadline exceeded", class: Class::Transient, code: "ApiServerAway", advice: "" },
    Meaning {
        words: "did not change after",
        class: Class::Transient,
        code: "StaticPodUnchanged",
        advice: "the kubelet did not restart a static pod in time, and kubeadm went back to the old one",
    },
];

impl RealHost {
    pub(super) async fn kubeadm_version(&self) -> Result<KubeVersion, HostError> {
        let asked = Program::asking("kubeadm", ["version", "-o", "short"]).run().await;
        let finished = asked.map_err(|error| failure::program(&error, &[], "KubeadmFailed"))?;
        let text = finished.stdout.trim();
        text.parse().map_err(|error| transient("KubeadmFailed", format!("kubeadm version: {error}")))
    }

    pub(super) async fn upgrade_by_kubeadm(
        &self,
        how: KubeadmUpgrade,
        version: &KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError> {
        let kubeadm = self.kubeadm_version().await?;
        if kubeadm != *version {
            return Err(permanent(
                "KubeadmVersionDiffers",
                format!("kubeadm {kubeadm} is not the one to upgrade to {version}: install kubeadm {version} first"),
            ));
        }
        self.restore_manifests()?;
        self.check_room_for_etcds_copy()?;
        self.await_api_server(API_SERVER_AGAIN).await?;
        let with_v = version.with_v();
        let mut arguments = match how {
            KubeadmUpgrade::Apply => vec!["upgrade", "apply", with_v.as_str(), "--yes"],
            KubeadmUpgrade::Node => vec!["upgrade", "node"],
        };
        // Without it kubeadm writes manifests and the kubelet's configuration as if there were no patches.
        if self.has_patches() {
            arguments.extend(["--patches", PATCHES]);
        }
        match kube_proxy {
            KubeProxy::Upgrade => {
                self.run_kubeadm(&arguments, JOB_AGAIN).await?;
                self.bring_addons(version, kube_proxy).await;
            }
            KubeProxy::LeaveOut => {
                // A flag, and not `skipPhases` of an UpgradeConfiguration: `upgrade node` of 1.32.0 and 1.31 ignores that
                // (kubernetes/kubeadm#3142).
                arguments.push(WITHOUT_KUBE_PROXY);
                self.run_kubeadm(&arguments, JOB_AGAIN).await?;
                self.bring_addons(version, kube_proxy).await;
            }
        }
        self.make_durable().await
    }

    /// Runs kubeadm, and again where only its test Job did not end in time: nothing was changed yet then.
    ///
    /// The Job (upgrade-health-check) has 15 s, and its pod lands on any node that takes pods, mostly a worker. Where that node has to
    /// pull kubeadm's new pause image first, the Job comes too late once; the next one finds the image there. Pulling it on the control
    /// plane before would not help, and kubeadm cannot be told where to put it (cmd/kubeadm/app/phases/upgrade/health.go).
    async fn run_kubeadm(&self, arguments: &[&str], again: Duration) -> Result<(), HostError> {
        for attempt in 1.. {
            // Proxies are not among kubeadm's variables: it would write them into the manifests of the static pods.
            let upgrade = Program::doing("kubeadm", UPGRADE_LIMIT, arguments.iter().copied());
            let Err(error) = upgrade.run().await else { break };
            let only_the_job =
                error.last_lines().contains(JOB_FAILED) && error.last_lines().matches("[ERROR ").count() == 1;
            if !only_the_job || attempt == JOB_ATTEMPTS_MAX {
                return Err(failure::program(&error, &UPGRADE, "KubeadmFailed"));
            }
            tracing::warn!(attempt, "kubeadm's test Job did not end in time; kubeadm is run again");
            tokio::time::sleep(again).await;
        }
        Ok(())
    }

    /// Brings what kubeadm wrote to the disk: it does not fsync its files (os.WriteFile), and a success that is recorded before
    /// they are there would survive a power cut that leaves them empty. File system by file system, and not all of them at once
    /// as sync(2) does: a network file system that is away would hold that for ever.
    async fn make_durable(&self) -> Result<(), HostError> {
        for folder in WRITTEN {
            let path = self.files.path(folder);
            if !path.is_dir() {
                continue;
            }
            let shown = path.clone();
            let synced = tokio::task::spawn_blocking(move || {
                rustix::fs::syncfs(fs::File::open(&path)?).map_err(std::io::Error::from)
            });
            let synced = synced.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            synced.map_err(|error| failure::file("syncing the file system of", &shown, &error))?;
        }
        Ok(())
    }

    /// Waits until the API server is ready and gives kubeadm its configuration, as this machine reaches it.
    ///
    /// After a boot, or when the manifest of a static pod was just put back, a single control plane needs up to two minutes, and
    /// its authorizers a moment more until they know anybody's rights. kubeadm itself gives up after ten seconds, and each time
    /// costs an order.
    async fn await_api_server(&self, again: Duration) -> Result<(), HostError> {
        let Some(kubeconfig) = KUBECONFIGS.into_iter().find(|kubeconfig| self.files.has(kubeconfig)) else {
            return Ok(());
        };
        let since = tokio::time::Instant::now();
        for question in QUESTIONS {
            loop {
                let arguments = ["--kubeconfig", kubeconfig, "--request-timeout=5s", "get", "--raw", question];
                let error = match Program::asking("kubectl", arguments).run().await {
                    // Without kubectl the question cannot be asked; kubeadm will see.
                    Ok(_) | Err(ProgramError::Missing { .. }) => break,
                    // An answer, too: kubeadm says better than we what is wrong with the cluster.
                    Err(error) if error.last_lines().contains("(NotFound)") => break,
                    Err(error) => error,
                };
                if since.elapsed() >= API_SERVER_LIMIT {
                    return Err(transient(
                        "ApiServerAway",
                        format!(
                            "the API server was not ready within {} s: {}",
                            API_SERVER_LIMIT.as_secs(),
                            failure::chain(&error)
                        ),
                    ));
                }
                tracing::info!("waits for the API server: {}", failure::chain(&error));
                tokio::time::sleep(again).await;
            }
        }
        Ok(())
    }

    /// Puts back manifests that an interrupted upgrade left absent or empty.
    ///
    /// kubeadm moves the old manifest away before it moves the new one in (cmd/kubeadm/app/phases/upgrade/staticpods.go,
    /// `upgradeComponent`). Killed between the two, the component stays stopped, the next `apply` refuses, and `upgrade node`
    /// without kube-apiserver.yaml takes the machine for a worker and reports success. It does not fsync the new one either: a
    /// power cut may leave it in its place without content. The old manifest is always a right one there: the new component
    /// never ran, or its turn is repeated.
    pub(super) fn restore_manifests(&self) -> Result<(), HostError> {
        if self.files.role() == NodeRole::Worker {
            return Ok(());
        }
        for component in COMPONENTS {
            let name = format!("{component}.yaml");
            let manifest = self.files.path(&format!("{MANIFESTS}/{name}"));
            if fs::read_to_string(&manifest).is_ok_and(|text| is_manifest_of(component, &text)) {
                continue;
            }
            match self.newest_backup(component) {
                Some((backup, text)) => {
                    write_whole(&manifest, text.as_bytes(), 0o600)?;
                    tracing::warn!(manifest = %manifest.display(), backup = %backup.display(), "a missing manifest was put back");
                }
                // Without a manifest and a copy of its own, etcd runs elsewhere.
                None if component == "etcd" && !manifest.exists() => {}
                None => {
                    return Err(needs_operator(
                        "ManifestMissing",
                        format!(
                            "{} is missing or damaged and {BACKUPS} holds no whole copy of it: put it back, then retry",
                            manifest.display()
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The newest whole copy of a component's manifest that kubeadm put aside, and where it lies.
    fn newest_backup(&self, component: &str) -> Option<(PathBuf, String)> {
        let folders = self.files.entries(BACKUPS).into_iter().filter(|folder| {
            folder.file_name().is_some_and(|folder| folder.to_string_lossy().starts_with(BACKUP_PREFIX))
        });
        let copies = folders.filter_map(|folder| {
            let copy = folder.join(format!("{component}.yaml"));
            let text = fs::read_to_string(&copy).ok().filter(|text| is_manifest_of(component, text))?;
            Some((folder.metadata().ok()?.modified().ok()?, copy, text))
        });
        let newest = copies.max_by_key(|(modified, _, _): &(SystemTime, PathBuf, String)| *modified);
        newest.map(|(_, copy, text)| (copy, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use cupcake_steps::ports::host::HostOps;

    const BACKUP: &str = "/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-11-22-17-29-23";

    fn failed(last_lines: &str) -> HostError {
        let error = ProgramError::Failed {
            command: "kubeadm upgrade node".to_owned(),
            status: "exit status: 1".to_owned(),
            code: Some(1),
            last_lines: last_lines.to_owned(),
            stdout: String::new(),
        };
        failure::program(&error, &UPGRADE, "KubeadmFailed")
    }

    #[test]
    fn failures_of_kubeadm_are_told_apart_by_their_last_lines() {
        let cold = "error execution phase preflight: could not get config: configmaps \"kubeadm-config\" is forbidden: User \
                    \"system:node:w1\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"kube-system\": no \
                    relationship found between node 'w1' and this object";
        let admin = "error: [upgrade] FATAL: failed to get config map: configmaps \"kubeadm-config\" is forbidden: User \"kubernetes-admin\" \
                     cannot get resource \"configmaps\" in API group \"\" in the namespace \"kube-system\" | To see the stack trace of \
                     this error execute with --v=5 or higher";
        let cases = [
            (cold, Class::Transient, "ApiServerNotReady"),
            (admin, Class::Transient, "ApiServerNotReady"),
            (
                "[preflight] Some fatal errors occurred: | [ERROR CreateJob]: Job did not complete",
                Class::Transient,
                "HealthCheckJobFailed",
            ),
            (
                "[preflight] Some fatal errors occurred: | [ERROR CoreDNSMigration]: x",
                Class::NeedsOperator,
                "KubeadmPreflight",
            ),
            (
                "[upgrade/version] FATAL: the --version argument is invalid due to these errors: | - Specified version to upgrade \
                 to \"v1.36.0\" is too high",
                Class::Permanent,
                "KubeadmRefuses",
            ),
            ("dial tcp 10.99.0.1:6443: connect: connection refused", Class::Transient, "ApiServerAway"),
            (
                "static Pod hash for component kube-apiserver on Node cp1 did not change after 5m0s: timeout",
                Class::Transient,
                "StaticPodUnchanged",
            ),
            ("something new", Class::Transient, "KubeadmFailed"),
        ];
        for (lines, class, code) in cases {
            let (found, reason) = match failed(lines) {
                HostError::Transient(reason) => (Class::Transient, reason),
                HostError::Permanent(reason) => (Class::Permanent, reason),
                HostError::NeedsOperator(reason) => (Class::NeedsOperator, reason),
            };
            assert_eq!((found, reason.code.as_str()), (class, code), "{lines}");
            assert!(reason.message.contains("kubeadm upgrade node ended with exit status: 1"), "{reason}");
        }
    }

    #[tokio::test]
    async fn kubeadm_is_run_again_where_only_its_test_job_was_too_slow_and_nothing_else_is_repeated() {
        let folder = TestFolder::new("job");
        let kubeadm = "echo x >>$here/asked; set -- $(/bin/cat $here/asked); /bin/cat $here/says
            test $# -ge $(/bin/cat $here/good)";
        folder.be_the_machine(&[("kubeadm", kubeadm)]);
        let host = host_in(&folder);
        let job = "[preflight] Some fatal errors occurred:\n\t[ERROR CreateJob]: Job \"upgrade-health-check-1\" did not complete in 15s\n";
        for (says, good, runs, code) in [
            (job.to_owned(), "3", 3, None),
            (job.to_owned(), "9", 4, Some("HealthCheckJobFailed")),
            (format!("{job}\t[ERROR ControlPlaneNodesReady]: x\n"), "9", 1, Some("HealthCheckJobFailed")),
            ("dial tcp: connection refused\n".to_owned(), "9", 1, Some("ApiServerAway")),
        ] {
            folder.write("says", &says);
            folder.write("good", good);
            let _ = fs::remove_file(folder.path("asked"));
            let ended = host.run_kubeadm(&["upgrade", "node"], Duration::ZERO).await;
            let found = ended.err().map(|error| match error {
                HostError::Transient(reason) | HostError::Permanent(reason) | HostError::NeedsOperator(reason) => {
                    reason.code
                }
            });
            assert_eq!((found.as_deref(), folder.calls().len()), (code, runs), "{says}");
        }
    }

    #[tokio::test]
    async fn kubeadm_gets_the_folder_of_patches_where_there_are_some() {
        let folder = TestFolder::new("patches");
        let says = "case $1 in version) echo v1.34.4;; esac";
        folder.be_the_machine(&[("kubeadm", says)]);
        let version = KubeVersion::new(1, 34, 4);
        let host = host_in(&folder);
        let upgrade = async |how| {
            host.upgrade_by_kubeadm(how, &version, KubeProxy::Upgrade).await.expect("upgraded");
            folder.calls().pop().unwrap_or_default()
        };
        assert_eq!(upgrade(KubeadmUpgrade::Node).await, "kubeadm upgrade node");
        folder.write("/etc/kubernetes/patches/etcd.yaml", "x");
        assert_eq!(upgrade(KubeadmUpgrade::Node).await, "kubeadm upgrade node --patches /etc/kubernetes/patches");
        let apply = "kubeadm upgrade apply v1.34.4 --yes --patches /etc/kubernetes/patches";
        assert_eq!(upgrade(KubeadmUpgrade::Apply).await, apply);
    }

    #[tokio::test]
    async fn kubeadm_is_told_to_leave_kube_proxy_out_and_its_phase_is_not_run_by_itself_either() {
        let folder = TestFolder::new("without-kube-proxy");
        folder.be_the_machine(&[("kubeadm", "case $1 in version) echo v1.34.4;; esac")]);
        for (how, call) in [
            (KubeadmUpgrade::Apply, "kubeadm upgrade apply v1.34.4 --yes --skip-phases=addon/kube-proxy"),
            (KubeadmUpgrade::Node, "kubeadm upgrade node --skip-phases=addon/kube-proxy"),
        ] {
            let (host, version) = (host_in(&folder), KubeVersion::new(1, 34, 4));
            host.upgrade_by_kubeadm(how, &version, KubeProxy::LeaveOut).await.expect("upgraded");
            assert_eq!(folder.calls().pop().as_deref(), Some(call));
        }
    }

    fn control_plane(name: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        folder.write("/etc/kubernetes/admin.conf", "");
        for component in COMPONENTS {
            folder.write(&format!("{MANIFESTS}/{component}.yaml"), manifest(component, "old"));
        }
        folder
    }

    fn manifest(component: &str, tag: &str) -> String {
        format!(
            "kind: Pod\nspec:\n  containers:\n  - name: {component}\n    image: registry.k8s.io/{component}:{tag}\n"
        )
    }

    #[test]
    fn a_manifest_that_an_interrupted_upgrade_took_away_is_put_back() {
        let folder = control_plane("heal");
        let path = format!("{MANIFESTS}/kube-apiserver.yaml");
        fs::remove_file(folder.path(&path)).expect("there");
        folder.write(&format!("{BACKUP}/kube-apiserver.yaml"), manifest("kube-apiserver", "moved-away"));
        host_in(&folder).restore_manifests().expect("put back");
        assert_eq!(folder.read(&path), manifest("kube-apiserver", "moved-away"));
        assert_eq!(folder.read(&format!("{MANIFESTS}/etcd.yaml")), manifest("etcd", "old"), "what is there stays");
    }

    #[test]
    fn a_manifest_that_a_power_cut_left_without_its_content_is_put_back_from_a_whole_copy() {
        for damaged in ["", "\0\0\0\0", "kind: Pod\nspec:\n"] {
            let folder = control_plane("heal-empty");
            let path = format!("{MANIFESTS}/etcd.yaml");
            folder.write(&path, damaged);
            folder.write(&format!("{BACKUP}/etcd.yaml"), manifest("etcd", "moved-away"));
            // A later folder in which the same power cut left nothing.
            folder.write("/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-11-23-17-29-23/etcd.yaml", "");
            host_in(&folder).restore_manifests().expect("put back");
            assert_eq!(folder.read(&path), manifest("etcd", "moved-away"), "{damaged:?}");
        }
        let folder = control_plane("heal-empty-none");
        folder.write(&format!("{MANIFESTS}/etcd.yaml"), "");
        let error = host_in(&folder).restore_manifests().expect_err("there is a member, and no copy of its manifest");
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "ManifestMissing"), "{error}");
    }

    #[tokio::test]
    async fn a_machine_is_healed_of_whatever_is_wrong_even_if_one_part_cannot_be() {
        let folder = control_plane("heal-all");
        folder.write("/usr/bin/apt-get", "");
        fs::remove_file(folder.path(&format!("{MANIFESTS}/kube-scheduler.yaml"))).expect("there");
        folder
            .be_the_machine(&[("dpkg-query", "printf 'install\\tok\\tinstalled\\t1.33.13-1.1\\n'"), ("apt-mark", "")]);
        let error = host_in(&folder).heal().await.expect_err("there is no copy of the manifest");
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "ManifestMissing"), "{error}");
        assert!(folder.calls().contains(&"apt-mark hold kubeadm kubelet kubectl".to_owned()));
        folder.write(&format!("{BACKUP}/kube-scheduler.yaml"), manifest("kube-scheduler", "moved-away"));
        host_in(&folder).heal().await.expect("healed");
        assert!(folder.path(&format!("{MANIFESTS}/kube-scheduler.yaml")).exists());
    }

    #[tokio::test]
    async fn what_kubeadm_wrote_can_be_made_durable_whether_or_not_all_its_folders_are_there() {
        host_in(&control_plane("durable")).make_durable().await.expect("synced");
        host_in(&TestFolder::new("durable-none")).make_durable().await.expect("there is nothing to sync");
    }

    #[test]
    fn a_missing_manifest_without_a_copy_needs_a_person_but_for_etcds() {
        let folder = control_plane("heal-none");
        fs::remove_file(folder.path(&format!("{MANIFESTS}/etcd.yaml"))).expect("there");
        host_in(&folder).restore_manifests().expect("etcd may run elsewhere");
        fs::remove_file(folder.path(&format!("{MANIFESTS}/kube-scheduler.yaml"))).expect("there");
        let error = host_in(&folder).restore_manifests().expect_err("it is missing");
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "ManifestMissing"), "{error}");
    }

    #[tokio::test]
    async fn kubeadm_waits_for_an_api_server_that_is_away_or_does_not_know_anybodys_rights_yet() {
        let folder = TestFolder::new("await-api");
        folder.write("/etc/kubernetes/kubelet.conf", "");
        // The first two questions find nobody; the third one is answered, the fourth is forbidden, the fifth is answered.
        let kubectl = "echo x >>$here/asked; set -- $(/bin/cat $here/asked)
            case $# in
            1|2) echo 'connection refused'; exit 1;;
            4) echo 'Error from server (Forbidden): configmaps \"kubeadm-config\" is forbidden'; exit 1;;
            esac";
        folder.be_the_machine(&[("kubectl", kubectl)]);
        host_in(&folder).await_api_server(Duration::ZERO).await.expect("it came back");
        let asked = folder.calls();
        assert_eq!(asked.len(), 5, "{asked:?}");
        assert!(asked[4].ends_with("/configmaps/kubeadm-config"), "{asked:?}");
    }

    #[test]
    fn a_worker_has_no_manifests_to_put_back() {
        let folder = TestFolder::new("heal-worker");
        folder.write("/etc/kubernetes/tmp/kubeadm-backup-manifests-1/kube-apiserver.yaml", "x");
        host_in(&folder).restore_manifests().expect("nothing to do");
        assert!(!folder.path(MANIFESTS).exists());
    }
}
