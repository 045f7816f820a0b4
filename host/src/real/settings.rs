//! Flags of components that stay through an upgrade, so that the next minor is started with them, too.
//!
//! ```text
//!   kubelet                                                   its gates, and flags that somebody gave it beside kubeadm
//!   kube-apiserver, kube-controller-manager, kube-scheduler   what a patch in /etc/kubernetes/patches says of their flags
//! ```
//! What stands in a manifest otherwise is kubeadm's own, comes from extraArgs in its ClusterConfiguration, which the operator reads,
//! or is lost (`hand_made`). Values are told of gates and admission plugins only: others may be nobody's business.

use super::RealHost;
use super::hand_made::PATCHES;
use super::kubelet::UNIT;
use super::kubelet_fits::{Word, gates};
use super::kubelet_flags::FILE as KUBEADM_FLAGS;
use cupcake_crds::limits::{FOLDER_CHARS_MAX, SETTING_CHARS_MAX, SETTINGS_MAX, cut};
use cupcake_crds::values::{ComponentSetting, NodeRole};
use serde_json::Value;

/// The components whose manifests kubeadm writes from flags of the cluster's.
const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// Flags that the unit of kubeadm's packages gives every kubelet.
const OF_UNIT: [&str; 3] = ["--bootstrap-kubeconfig", "--config", "--kubeconfig"];
/// Flags whose value is a list of names that a minor may no longer know.
const LISTS: [&str; 3] = ["--disable-admission-plugins", "--enable-admission-plugins", "--feature-gates"];

/// The flag, one for each name where its value is a list of them; without its value otherwise.
fn arguments(argument: &str) -> Vec<String> {
    let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
    if LISTS.contains(&name) {
        value.split(',').filter(|one| !one.is_empty()).map(|one| format!("{name}={}", one.trim())).collect()
    } else {
        vec![name.to_owned()]
    }
}

/// What somebody gave the kubelet: gates of its flags and its configuration, and flags that neither its unit nor kubeadm gives it.
fn of_kubelet(line: &[Word], configuration: &Value) -> Vec<(String, String)> {
    let gates = gates(line, configuration).into_iter().flat_map(|(name, gate)| {
        let argument = format!("--feature-gates={name}={}", gate.on);
        gate.from.into_iter().map(move |from| (argument.clone(), from))
    });
    let given = line.iter().filter(|word| word.from != UNIT && word.from != KUBEADM_FLAGS);
    let flags = given.filter(|word| word.text.starts_with("--")).filter_map(|word| {
        // The kubelet takes either (`WordSepNormalizeFunc`).
        let name = word.text.split('=').next()?.replace('_', "-");
        (name != "--" && name != "--feature-gates" && !OF_UNIT.contains(&name.as_str()))
            .then(|| (name, word.from.clone()))
    });
    gates.chain(flags).collect()
}

impl RealHost {
    /// The settings, as many as an inventory holds.
    pub(super) async fn settings(&self) -> Vec<ComponentSetting> {
        let mut told = Vec::new();
        let mut tell = |component: &str, mut argument: String, mut from: String| {
            cut(&mut argument, SETTING_CHARS_MAX);
            cut(&mut from, FOLDER_CHARS_MAX);
            told.push(ComponentSetting { component: component.to_owned(), argument, from });
        };
        let components: &[&str] = match self.files.role() {
            NodeRole::ControlPlane => &COMPONENTS,
            NodeRole::Worker => &[],
        };
        for component in components {
            let patches = self.patches_of(component);
            let command = self.command_of(component);
            let kept = command.iter().filter(|argument| argument.starts_with("--") && patches.say(argument));
            for argument in kept.flat_map(|argument| arguments(argument)) {
                tell(component, argument, format!("a patch in {PATCHES}"));
            }
        }
        if let Some(line) = self.kubelet_line().await {
            let configuration = self.kubelet_configuration(&line).unwrap_or(Value::Null);
            for (argument, from) in of_kubelet(&line, &configuration) {
                tell("kubelet", argument, from);
            }
        }
        told.truncate(SETTINGS_MAX);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    const UNIT_SHOWN: &str = "EnvironmentFiles=/var/lib/kubelet/kubeadm-flags.env (ignore_errors=yes)\n\
        EnvironmentFiles=/etc/default/kubelet (ignore_errors=yes)\n\
        Environment=KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\n\
        ExecStart={ path=/usr/bin/kubelet ; argv[]=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS ; ignore_errors=no }\n";

    fn machine(name: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        folder.write("shown", UNIT_SHOWN);
        folder
            .write(KUBEADM_FLAGS, "KUBELET_KUBEADM_ARGS=\"--pod-infra-container-image=registry.k8s.io/pause:3.10\"\n");
        folder.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\"--node_ip=10.0.0.7 --feature-gates=Both=true\"\n");
        folder.write("/var/lib/kubelet/config.yaml", "featureGates:\n  Both: false\n  OfConfig: false\n");
        folder.be_the_machine(&[("systemctl", "/bin/cat $here/shown")]);
        folder
    }

    fn lines(settings: &[ComponentSetting]) -> Vec<String> {
        let line = |one: &ComponentSetting| format!("{} {} ({})", one.component, one.argument, one.from);
        settings.iter().map(line).collect()
    }

    #[tokio::test]
    async fn a_kubelets_gates_and_own_flags_are_told_with_each_place_and_kubeadms_and_other_values_are_not() {
        let folder = machine("settings-worker");
        let config =
            "/var/lib/kubelet/config.yaml, and ConfigMap kube-system/kubelet-config from which kubeadm writes it";
        let wanted = [
            format!("kubelet --feature-gates=Both=true ({config})"),
            "kubelet --feature-gates=Both=true (/etc/default/kubelet)".to_owned(),
            format!("kubelet --feature-gates=OfConfig=false ({config})"),
            "kubelet --node-ip (/etc/default/kubelet)".to_owned(),
        ];
        assert_eq!(lines(&host_in(&folder).settings().await), wanted);
    }

    #[tokio::test]
    async fn of_static_pods_what_a_patch_keeps_is_told_name_by_name() {
        let folder = machine("settings-control-plane");
        folder.be_the_machine(&[("systemctl", "exit 1")]);
        let manifest = "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    image: r/kube-apiserver:v1.33.13\n    command:\n\
            \u{20}   - kube-apiserver\n    - --etcd-servers=https://127.0.0.1:2379\n    - --feature-gates=A=true,B=false\n\
            \u{20}   - --enable-admission-plugins=NodeRestriction,Old\n    - --audit-log-path=/var/log/audit.log\n";
        folder.write("/etc/kubernetes/manifests/kube-apiserver.yaml", manifest);
        let patch = r#"[{"op": "add", "path": "/spec/containers/0/command/-", "value": "--feature-gates=A=true,B=false"},
                        {"op": "add", "path": "/spec/containers/0/command/-", "value": "--enable-admission-plugins=NodeRestriction,Old"},
                        {"op": "add", "path": "/spec/containers/0/command/-", "value": "--audit-log-path=/var/log/audit.log"}]"#;
        assert_eq!(host_in(&folder).settings().await, [], "kubeadm would write the rest anew");
        folder.write(&format!("{PATCHES}/kube-apiserver0+json.json"), patch);
        let wanted = [
            "--feature-gates=A=true",
            "--feature-gates=B=false",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-admission-plugins=Old",
            "--audit-log-path",
        ]
        .map(|argument| format!("kube-apiserver {argument} (a patch in {PATCHES})"));
        assert_eq!(lines(&host_in(&folder).settings().await), wanted);
    }
}
