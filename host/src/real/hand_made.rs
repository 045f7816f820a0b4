//! Changes that somebody made by hand to what kubeadm wrote, and that its next upgrade would undo.
//!
//! ```text
//!   kube-apiserver, kube-controller-manager, kube-scheduler   kubeadm upgrade diff <the version that runs>, which only reads
//!   etcd                                                      its flags, against those that kubeadm gives and etcd.local.extraArgs
//!   kubelet                                                   config.yaml, against ConfigMap kube-system/kubelet-config
//! ```
//! What a patch in /etc/kubernetes/patches says is kept by kubeadm, which is given that folder.
//! Source: kubernetes/kubernetes 1.33 and 1.34, cmd/kubeadm/app: cmd/upgrade/diff.go (knows neither etcd nor patches),
//! phases/etcd/local.go (`getEtcdCommand`), phases/kubelet/config.go (`WriteConfigToDisk`), util/patches/patches.go.

use super::RealHost;
use super::failure;
use super::kubeadm::KUBECONFIGS;
use super::program::Program;
use cupcake_crds::limits::{HAND_MADE_CHARS_MAX, HAND_MADE_MAX, cut};
use cupcake_crds::values::{KubeVersion, NodeRole};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// Where kubeadm's patches lie; the folder of kubeadm's own documentation.
pub(super) const PATCHES: &str = "/etc/kubernetes/patches";
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// The largest patch that is read, in bytes.
const PATCH_BYTES_MAX: u64 = 64 * 1024;

/// Lines that kubeadm writes in one version and not in another, and that say nothing.
const SAYS_NOTHING: [&str; 2] = ["creationTimestamp: null", "status: {}"];
/// Fields that kubeadm itself sets on each node.
const PER_NODE: [&str; 2] = ["containerRuntimeEndpoint", "resolvConf"];

/// Flags that kubeadm gives etcd, with their values where these are the same on every node.
const ETCD_FLAGS: [(&str, &[&str]); 24] = [
    ("advertise-client-urls", &[]),
    ("cert-file", &[]),
    ("client-cert-auth", &["true"]),
    ("data-dir", &[]),
    ("experimental-initial-corrupt-check", &["true"]),
    ("experimental-watch-progress-notify-interval", &["5s"]),
    ("feature-gates", &["InitialCorruptCheck=true"]),
    ("initial-advertise-peer-urls", &[]),
    ("initial-cluster", &[]),
    ("initial-cluster-state", &[]),
    ("key-file", &[]),
    ("listen-client-urls", &[]),
    ("listen-metrics-urls", &["http://127.0.0.1:2381", "http://[::1]:2381"]),
    ("listen-peer-urls", &[]),
    ("name", &[]),
    ("peer-cert-file", &[]),
    ("peer-client-cert-auth", &["true"]),
    ("peer-key-file", &[]),
    ("peer-trusted-ca-file", &[]),
    ("snapshot-count", &["10000"]),
    ("trusted-ca-file", &[]),
    ("watch-progress-notify-interval", &["5s"]),
    // Of 1.24 to 1.26.
    ("cipher-suites", &[]),
    ("strict-reconfig-check", &["true"]),
];

/// What the patches of one target say.
#[derive(Debug, Default)]
pub(super) struct Patches {
    text: String,
}

impl Patches {
    fn are_there(&self) -> bool {
        !self.text.is_empty()
    }

    /// Whether they say that line, or its field and its value each, as a JSON patch does.
    pub(super) fn say(&self, line: &str) -> bool {
        let token = line.trim_start_matches("- ").trim_end_matches(':');
        let both = |(field, value): (&str, &str)| self.text.contains(field) && self.text.contains(value);
        self.text.contains(token) || token.split_once(": ").is_some_and(both)
    }
}

/// What an upgrade to the version that is there already would change, by manifest: lines that go, and flags that come back.
fn of_diff(diff: &str, patches: &dyn Fn(&str) -> Patches) -> Vec<String> {
    let mut files: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    let mut file = None;
    for line in diff.lines() {
        if let Some(path) = line.strip_prefix("--- ") {
            file = path.rsplit('/').next();
        } else if line.starts_with("+++ ") || line.starts_with("@@ ") {
        } else if let Some((file, (sign, line))) = file.zip(line.split_at_checked(1)) {
            let line = line.trim();
            if SAYS_NOTHING.contains(&line) {
                continue;
            }
            let (goes, comes) = files.entry(file).or_default();
            match sign {
                "-" => goes.push(line),
                "+" => comes.push(line),
                _ => {}
            }
        }
    }
    let of_file = |(file, (goes, comes)): (&str, (Vec<&str>, Vec<&str>))| {
        let patches = patches(file.trim_end_matches(".yaml"));
        // A line that only moved stands on both sides.
        let lost: Vec<&str> = goes.iter().copied().filter(|line| !comes.contains(line) && !patches.say(line)).collect();
        // Beside flags, what kubeadm adds depends on its patch release and on folders of the machine.
        let flag = |line: &&str| line.starts_with("- --") && !goes.contains(line) && !has_other_value(&goes, line);
        let back = comes.iter().copied().filter(flag).filter(|_| !(patches.are_there() && lost.is_empty()));
        let lost = lost.iter().map(|line| format!("{file} loses {}", line.trim_start_matches("- ")));
        let back = back.map(|line| format!("{file} gets back {}", line.trim_start_matches("- ")));
        lost.chain(back).collect::<Vec<_>>()
    };
    files.into_iter().flat_map(of_file).collect()
}

/// Whether that flag stands there with another value, which is told as what is lost.
fn has_other_value(lines: &[&str], flag: &str) -> bool {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    lines.iter().any(|line| name(line) == name(flag))
}

/// Flags of etcd's manifest that neither kubeadm nor its configuration gives.
fn of_etcd(command: &[String], configuration: &Value, patches: &Patches) -> Vec<String> {
    let extra = extra_arguments(&configuration["etcd"]["local"]["extraArgs"]);
    let is_kubeadms = |name: &str, value: &str| {
        if extra.contains(&(name.to_owned(), value.to_owned())) {
            return true;
        }
        let known = ETCD_FLAGS.iter().find(|(flag, _)| *flag == name);
        known.is_some_and(|(_, values)| values.is_empty() || values.contains(&value))
    };
    let flags = command.iter().filter_map(|argument| argument.strip_prefix("--"));
    let lost = flags.filter(|flag| {
        let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
        !is_kubeadms(name, value) && !patches.say(flag)
    });
    lost.map(|flag| format!("etcd.yaml loses --{flag}")).collect()
}

/// `extraArgs` of both of kubeadm's forms: a map up to v1beta3, a list of names and values from v1beta4.
fn extra_arguments(extra: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    match extra {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        Value::Array(pairs) => pairs.iter().map(|pair| (text(&pair["name"]), text(&pair["value"]))).collect(),
        _ => BTreeSet::new(),
    }
}

/// Settings of the kubelet that the cluster's configuration does not have.
fn of_kubelet(own: &Value, cluster: &Value, patches: &Patches) -> Vec<String> {
    let mut leaves = Vec::new();
    collect(&mut Vec::new(), own, &mut leaves);
    let lost = leaves.into_iter().filter_map(|(fields, value)| {
        let theirs = fields.iter().try_fold(cluster, |at, field| at.get(field));
        let path = fields.join(".");
        let same = theirs.map_or_else(|| is_empty(value), |theirs| theirs == value);
        let kept = same || PER_NODE.contains(&path.as_str()) || are_in_patches(&fields, value, patches);
        (!kept).then(|| format!("kubelet config.yaml loses {path}: {}", shown(value)))
    });
    lost.collect()
}

fn are_in_patches(fields: &[&str], value: &Value, patches: &Patches) -> bool {
    let field = fields.last().copied().unwrap_or_default();
    let values: Vec<String> = match value {
        Value::Array(items) => items.iter().map(shown).collect(),
        value => vec![shown(value)],
    };
    patches.are_there() && patches.text.contains(field) && values.iter().all(|value| patches.text.contains(value))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The settings of a tree of fields, each with the names of the fields above it (which may hold dots themselves); lists are settings
/// as a whole.
fn collect<'v>(above: &mut Vec<&'v str>, value: &'v Value, leaves: &mut Vec<(Vec<&'v str>, &'v Value)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                above.push(name);
                collect(above, value, leaves);
                above.pop();
            }
        }
        value => leaves.push((above.clone(), value)),
    }
}

/// What kubeadm writes for a field that is not set.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// As many as an inventory holds, each as long as it may be; the last says how many more there are.
fn bounded(mut told: Vec<String>) -> Vec<String> {
    let more = told.len().saturating_sub(HAND_MADE_MAX);
    if more > 0 {
        told.truncate(HAND_MADE_MAX - 1);
        told.push(format!("and {} more", more + 1));
    }
    for text in &mut told {
        cut(text, HAND_MADE_CHARS_MAX);
    }
    told
}

impl RealHost {
    /// The changes, or why they cannot be told.
    pub(super) async fn hand_made(&self) -> Result<Vec<String>, String> {
        let mut told = match self.files.role() {
            NodeRole::Worker => Vec::new(),
            NodeRole::ControlPlane => self.hand_made_manifests().await?,
        };
        let own = self.files.text(KUBELET_CONFIG).ok_or_else(|| format!("{KUBELET_CONFIG} cannot be read"))?;
        let own = yaml(KUBELET_CONFIG, &own)?;
        let cluster = self.config_map("kubelet-config", "kubelet").await?;
        told.extend(of_kubelet(&own, &cluster, &self.patches_of("kubeletconfiguration")));
        Ok(bounded(told))
    }

    async fn hand_made_manifests(&self) -> Result<Vec<String>, String> {
        let tag = self.manifest_tag("kube-apiserver").ok_or("the manifest of kube-apiserver cannot be read")?;
        let version: KubeVersion = tag
            .parse()
            .map_err(|_| format!("the manifest of kube-apiserver has the tag {tag}, which is no version"))?;
        let kubeadm = self.kubeadm_version().await.map_err(|error| error.to_string())?;
        if kubeadm.minor_version() != version.minor_version() {
            return Err(format!("kubeadm {kubeadm} is installed, which does not write manifests of {version}"));
        }
        let asked = Program::asking("kubeadm", ["upgrade", "diff", &version.with_v()]).run().await;
        let finished = asked.map_err(|error| failure::chain(&error))?;
        let mut told = of_diff(&finished.stdout, &|target| self.patches_of(target));
        let command = self.etcd_command();
        if !command.is_empty() {
            let configuration = self.config_map("kubeadm-config", "ClusterConfiguration").await?;
            told.extend(of_etcd(&command, &configuration, &self.patches_of("etcd")));
        }
        Ok(told)
    }

    /// One document in a ConfigMap of kube-system.
    async fn config_map(&self, name: &str, key: &str) -> Result<Value, String> {
        let kubeconfig = KUBECONFIGS.into_iter().find(|kubeconfig| self.files.has(kubeconfig));
        let kubeconfig = kubeconfig.ok_or("there is no kubeconfig of kubeadm's on this machine")?;
        let path = format!("/api/v1/namespaces/kube-system/configmaps/{name}");
        let arguments = ["--kubeconfig", kubeconfig, "--request-timeout=5s", "get", "--raw", &path];
        let asked = Program::asking("kubectl", arguments).run().await;
        let finished = asked.map_err(|error| failure::chain(&error))?;
        let object: Value =
            serde_json::from_str(&finished.stdout).map_err(|error| format!("ConfigMap {name}: {error}"))?;
        let text = object["data"][key].as_str().ok_or_else(|| format!("ConfigMap {name} has no {key}"))?;
        yaml(name, text)
    }

    /// The patches for one target, as kubeadm chooses them by name.
    pub(super) fn patches_of(&self, target: &str) -> Patches {
        let is_for = |path: &PathBuf| {
            let readable = path.extension().is_some_and(|ending| ending == "yaml" || ending == "json");
            let rest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(target));
            readable && rest.is_some_and(|rest| !rest.starts_with(char::is_alphabetic))
        };
        let small = |path: &PathBuf| path.metadata().is_ok_and(|file| file.len() <= PATCH_BYTES_MAX);
        let files = self.files.entries(PATCHES).into_iter().filter(|path| is_for(path) && small(path));
        Patches { text: files.filter_map(|path| fs::read_to_string(path).ok()).collect::<Vec<_>>().join("\n") }
    }

    /// Whether kubeadm is to be given patches.
    pub(super) fn has_patches(&self) -> bool {
        !self.files.entries(PATCHES).is_empty()
    }
}

fn yaml(what: &str, text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("{what} cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use serde_json::json;

    /// What kubeadm 1.33.13 prints, of manifests that it wrote and of the same after four changes by hand.
    const DIFF: &str = include_str!("fixtures/kubeadm-upgrade-diff-1.33.txt");
    const CLEAN: &str = include_str!("fixtures/kubeadm-upgrade-diff-1.33-clean.txt");
    const KUBELET: &str = include_str!("fixtures/kubelet-config-1.33.yaml");
    const AUDIT: &str = "kube-apiserver.yaml loses --audit-log-path=/var/log/kubernetes/audit.log";
    const CPU: &str = "kube-apiserver.yaml loses cpu: 500m";
    const CREDENTIALS: &str = "kube-controller-manager.yaml gets back --use-service-account-credentials=true";

    fn patched(text: &'static str) -> impl Fn(&str) -> Patches {
        move |target| Patches { text: if target == "kube-apiserver" { text } else { "" }.to_owned() }
    }

    #[test]
    fn what_kubeadm_would_undo_is_read_from_its_own_diff() {
        assert_eq!(of_diff(CLEAN, &patched("")), Vec::<String>::new());
        assert_eq!(of_diff(DIFF, &patched("")), [AUDIT, CPU, CREDENTIALS]);
        // As kubeadm prints with lines around: those are no changes, and what only moved is none either.
        let around = "--- /etc/kubernetes/manifests/kube-scheduler.yaml\n+++ new manifest\n@@ -1,3 +1,3 @@\n     - kube-scheduler\n-    - --b=1\n \
                      -  creationTimestamp: null\n     - --a=1\n+    - --b=1\n-    - --v=4\n+    - --v=2\n+      name: certs\n";
        assert_eq!(of_diff(around, &patched("")), ["kube-scheduler.yaml loses --v=4"]);
    }

    #[test]
    fn what_a_patch_says_is_not_lost() {
        let strategic =
            "spec:\n  containers:\n  - name: kube-apiserver\n    resources:\n      requests:\n        cpu: 500m\n";
        assert_eq!(of_diff(DIFF, &patched(strategic)), [AUDIT, CREDENTIALS]);
        let json = r#"[{"op": "add", "path": "/spec/containers/0/command/-", "value": "--audit-log-path=/var/log/kubernetes/audit.log"},
                       {"op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "500m"}]"#;
        assert_eq!(of_diff(DIFF, &patched(json)), [CREDENTIALS]);
    }

    #[test]
    fn etcds_flags_are_kubeadms_its_configurations_or_lost() {
        let folder = TestFolder::new("hand-made-etcd");
        let etcd = include_str!("fixtures/etcd.yaml");
        let changed = etcd
            .replace("--snapshot-count=10000", "--snapshot-count=5000\n    - --quota-backend-bytes=8589934592")
            .replace("http://127.0.0.1:2381", "http://0.0.0.0:2381");
        let lost = |manifest: &str, configuration: &Value| {
            folder.write("/etc/kubernetes/manifests/etcd.yaml", manifest);
            of_etcd(&host_in(&folder).etcd_command(), configuration, &Patches::default())
        };
        assert_eq!(lost(etcd, &json!({})), Vec::<String>::new());
        let all = [
            "etcd.yaml loses --listen-metrics-urls=http://0.0.0.0:2381",
            "etcd.yaml loses --snapshot-count=5000",
            "etcd.yaml loses --quota-backend-bytes=8589934592",
        ];
        assert_eq!(lost(&changed, &json!({})), all);
        let map =
            json!({"etcd": {"local": {"extraArgs": {"quota-backend-bytes": "8589934592", "snapshot-count": "5000"}}}});
        assert_eq!(lost(&changed, &map), all[..1]);
        let pairs = json!({"etcd": {"local": {"extraArgs": [{"name": "listen-metrics-urls", "value": "http://0.0.0.0:2381"}]}}});
        assert_eq!(lost(&changed, &pairs), all[1..]);
    }

    #[test]
    fn settings_of_the_kubelet_are_the_clusters_empty_or_lost() {
        let cluster = yaml("", KUBELET).expect("a real one");
        let none = Patches::default();
        assert_eq!(of_kubelet(&cluster, &cluster, &none), Vec::<String>::new());
        // What an older kubeadm wrote for unset fields, and what kubeadm sets by node.
        let mut same = cluster.clone();
        same["oldField"] = json!("0s");
        same["resolvConf"] = json!("/run/systemd/resolve/resolv.conf");
        same["containerRuntimeEndpoint"] = json!("unix:///run/containerd/containerd.sock");
        assert_eq!(of_kubelet(&same, &cluster, &none), Vec::<String>::new());
        let mut own = cluster.clone();
        own["maxPods"] = json!(200);
        own["authentication"]["anonymous"]["enabled"] = json!(true);
        own["evictionHard"] = json!({"memory.available": "500Mi"});
        own["clusterDNS"] = json!(["169.254.20.10"]);
        let lost = of_kubelet(&own, &cluster, &none);
        let expected = [
            "kubelet config.yaml loses authentication.anonymous.enabled: true",
            "kubelet config.yaml loses clusterDNS: [\"169.254.20.10\"]",
            "kubelet config.yaml loses evictionHard.memory.available: 500Mi",
            "kubelet config.yaml loses maxPods: 200",
        ];
        assert_eq!(lost, expected);
        let patches = Patches { text: "maxPods: 200\nclusterDNS:\n- 169.254.20.10\n".to_owned() };
        assert_eq!(of_kubelet(&own, &cluster, &patches), [expected[0], expected[2]]);
    }

    #[test]
    fn a_setting_whose_name_has_dots_is_found_in_the_clusters_configuration() {
        let own = json!({"evictionHard": {"nodefs.available": "0%", "imagefs.available": "5%"}});
        let cluster = json!({"evictionHard": {"nodefs.available": "0%", "imagefs.available": "15%"}});
        let lost = of_kubelet(&own, &cluster, &Patches::default());
        assert_eq!(lost, ["kubelet config.yaml loses evictionHard.imagefs.available: 5%"]);
    }

    #[test]
    fn more_changes_than_an_inventory_holds_are_counted() {
        let many = bounded((0..HAND_MADE_MAX + 3).map(|number| format!("{number}{}", "x".repeat(500))).collect());
        assert_eq!((many.len(), many.last().map(String::as_str)), (HAND_MADE_MAX, Some("and 4 more")));
        assert!(many.iter().all(|text| text.chars().count() <= HAND_MADE_CHARS_MAX));
    }

    fn machine(name: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        let manifest =
            "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    image: r/kube-apiserver:v1.33.13\n";
        folder.write("/etc/kubernetes/manifests/kube-apiserver.yaml", manifest);
        folder.write("/etc/kubernetes/admin.conf", "");
        folder.write(KUBELET_CONFIG, format!("{KUBELET}maxPods: 200\n"));
        folder.write("diff", DIFF);
        folder.write("config-map", json!({"data": {"kubelet": KUBELET}}).to_string());
        let kubeadm = "case $1 in version) echo v1.33.13;; *) /bin/cat $here/diff;; esac";
        folder.be_the_machine(&[("kubeadm", kubeadm), ("kubectl", "/bin/cat $here/config-map")]);
        folder
    }

    #[tokio::test]
    async fn a_machine_tells_what_kubeadm_would_undo_by_reading_only() {
        let folder = machine("hand-made");
        let told = host_in(&folder).hand_made().await.expect("told");
        assert_eq!(told, [AUDIT, CPU, CREDENTIALS, "kubelet config.yaml loses maxPods: 200"]);
        let calls = folder.calls();
        assert!(calls.contains(&"kubeadm upgrade diff v1.33.13".to_owned()), "{calls:?}");
        folder.write(
            &format!("{PATCHES}/kube-apiserver0+strategic.yaml"),
            "cpu: 500m\n--audit-log-path=/var/log/kubernetes/audit.log",
        );
        folder.write(&format!("{PATCHES}/kubeletconfiguration.yaml"), "maxPods: 200");
        folder.write(&format!("{PATCHES}/kube-controller-manager.txt"), "--use-service-account-credentials");
        assert_eq!(host_in(&folder).hand_made().await.expect("told"), [CREDENTIALS], "kubeadm reads no .txt");
    }

    #[tokio::test]
    async fn a_machine_that_cannot_tell_says_why() {
        let folder = machine("hand-made-unread");
        folder.be_the_machine(&[("kubeadm", "case $1 in version) echo v1.34.4;; *) exit 1;; esac")]);
        let why = host_in(&folder).hand_made().await.expect_err("another minor's kubeadm");
        assert!(why.contains("kubeadm 1.34.4 is installed"), "{why}");
        folder.be_the_machine(&[("kubeadm", "case $1 in version) echo v1.33.13;; *) echo refused; exit 1;; esac")]);
        let why = host_in(&folder).hand_made().await.expect_err("the API is away");
        assert!(why.contains("refused"), "{why}");
    }
}
