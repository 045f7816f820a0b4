//! Whether the installed kubelet would start with what this machine gives it: asked of itself, before the one that runs is stopped.
//!
//! ```text
//!   flags           of the unit as systemd has it (ExecStart, Environment, EnvironmentFiles), against kubelet --help
//!   feature gates   of the flags and of the configuration: a kubelet whose configuration file is not there names those it refuses
//! ```
//! The help has every flag, deprecated ones too (kubernetes/kubernetes 1.34, cmd/kubelet/app/options/options.go: `AddFlags`), but no gate
//! that is GA or deprecated, which a kubelet takes all the same (k8s.io/component-base/featuregate: `KnownFeatures`): gates cannot be
//! read there. Of its command line it sets the gates before it opens its configuration (cmd/kubelet/app/server.go:
//! `NewKubeletCommand`), so that it can be asked about them and comes no further.
//!
//! A wrong refusal would stop an upgrade that nothing is wrong with: what cannot be read refuses nothing.

use super::RealHost;
use super::failure::needs_operator;
use super::kubelet::{BINARY, UNIT};
use super::program::{Program, ProgramError};
use cupcake_steps::ports::host::HostError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// A file that is on no machine: the kubelet that is asked about gates ends at it.
const NO_CONFIGURATION: &str = "/nonexistent/only-asked-about-feature-gates.yaml";
/// The configuration that kubeadm writes.
const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";
/// How many gates are asked about one after another: a kubelet names one that it does not know, and ends.
const GATES_MAX: usize = 16;
/// Flags that every kubelet has: a help without one of them is not read.
const EVERY_KUBELETS: [&str; 6] =
    ["config", "container-runtime-endpoint", "feature-gates", "help", "kubeconfig", "node-ip"];

/// A word of the kubelet's command line, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) from: String,
}

/// The unit as systemd has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    command: Vec<String>,
    environment: Vec<String>,
    files: Vec<String>,
}

/// What `systemctl show` prints of it; nothing where it is not the kubelet itself that is started, by one command.
fn shown(text: &str) -> Option<Shown> {
    let mut unit = Shown::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "ExecStart" if !unit.command.is_empty() => return None,
            "ExecStart" => {
                let (command, _) = value.split_once("argv[]=")?.1.split_once(" ; ")?;
                unit.command = words(command);
            }
            "Environment" => unit.environment = words(value),
            // `/etc/default/kubelet (ignore_errors=yes)`
            "EnvironmentFiles" => {
                unit.files.push(value.rsplit_once(" (ignore_errors=").map_or(value, |(file, _)| file).to_owned());
            }
            _ => {}
        }
    }
    (unit.command.first().is_some_and(|program| program == BINARY)).then_some(unit)
}

/// Splits at white space outside of quotes, and takes the quotes off.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The variables that a file of systemd's `EnvironmentFile=` sets.
fn assignments(file: &str) -> Vec<(String, String)> {
    let joined = file.replace("\\\n", "");
    let lines = joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let assignment = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        let unquoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        Some((name.trim().to_owned(), unquoted.unwrap_or(value).to_owned()))
    };
    lines.filter_map(assignment).collect()
}

/// The command line behind the program, with the unit's variables in it.
fn expanded(command: &[String], variables: &BTreeMap<String, Word>) -> Vec<Word> {
    let mut line = Vec::new();
    for word in command.iter().skip(1) {
        let name = word.strip_prefix('$');
        let braced = name.and_then(|name| name.strip_prefix('{')?.strip_suffix('}'));
        match (braced, name) {
            (Some(name), _) => line.extend(variables.get(name).cloned()),
            // As a word of its own it is split; one that is not set is no word at all.
            (None, Some(name)) => {
                let value = variables.get(name);
                let split = |value: &Word| {
                    let from = value.from.clone();
                    words(&value.text).into_iter().map(move |text| Word { text, from: from.clone() })
                };
                line.extend(value.map(split).into_iter().flatten());
            }
            (None, None) => line.push(Word { text: word.clone(), from: UNIT.to_owned() }),
        }
    }
    line
}

/// The flags of a help, with whether their value may be a word of its own; nothing where it is not evidently a kubelet's.
fn flags(help: &str) -> Option<BTreeMap<&str, bool>> {
    let flags: BTreeMap<&str, bool> = help.lines().filter_map(flag).collect();
    EVERY_KUBELETS.iter().all(|name| flags.contains_key(name)).then_some(flags)
}

/// The flag of a line such as `      --node-ip string   Address of the node.` or `  -v, --v Level   ...`.
fn flag(line: &str) -> Option<(&str, bool)> {
    let short = || {
        let (letter, long) = line.strip_prefix("  -")?.split_once(", --")?;
        (letter.len() == 1).then_some(long)
    };
    let long = line.strip_prefix("      --").or_else(short)?;
    let name = long.split([' ', '[']).next()?;
    let rest = &long[name.len()..];
    // A kind of value stands one space behind the name, the text two or more; `[=true]` stands for a value that may be left out.
    let kind = rest.strip_prefix(' ').and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    Some((name, !kind.is_empty() && !kind.contains("[=")))
}

/// Flags among the words that the kubelet of that help does not know.
fn unknown(help: &str, line: &[Word]) -> Vec<String> {
    let Some(known) = flags(help) else {
        return Vec::new();
    };
    let (mut unknown, mut is_value) = (Vec::new(), false);
    for Word { text, from } in line {
        if std::mem::take(&mut is_value) {
            continue;
        }
        if text == "--" {
            break;
        }
        // Letters behind one dash are left to the kubelet: one is not told from another's value.
        let Some(flag) = text.strip_prefix("--") else { continue };
        let name = flag.split('=').next().unwrap_or(flag);
        // The kubelet takes either (`WordSepNormalizeFunc`).
        match known.get(name.replace('_', "-").as_str()) {
            Some(takes_value) => is_value = *takes_value && !flag.contains('='),
            None => unknown.push(format!("--{name} ({from})")),
        }
    }
    unknown.dedup();
    unknown
}

/// The last value of a flag that takes one.
fn value_of<'l>(line: &'l [Word], flag: &str) -> Option<&'l str> {
    values_of(line, flag).last().map(|(value, _)| *value)
}

/// All its values, each with where it is written.
fn values_of<'l>(line: &'l [Word], flag: &str) -> Vec<(&'l str, &'l str)> {
    let value = |(number, word): (usize, &'l Word)| match word.text.split_once('=') {
        Some((name, value)) => is_flag(name, flag).then_some((value, word.from.as_str())),
        None if is_flag(&word.text, flag) => line.get(number + 1).map(|next| (next.text.as_str(), next.from.as_str())),
        None => None,
    };
    line.iter().enumerate().filter_map(value).collect()
}

/// Whether that is the flag's name, in either of the ways in which a kubelet takes it (`WordSepNormalizeFunc`).
fn is_flag(name: &str, flag: &str) -> bool {
    name.replace('_', "-") == flag
}

/// A truth value as the kubelet reads one in flags (Go's `strconv.ParseBool`).
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A feature gate as it is given, and everywhere that it is written: what a kubelet refuses has to go from each place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) on: bool,
    pub(super) from: Vec<String>,
}

/// The feature gates that the kubelet is given; its flags win over its configuration.
pub(super) fn gates(line: &[Word], configuration: &Value) -> BTreeMap<String, Gate> {
    let configured = configuration["featureGates"].as_object();
    let place = configured_in(value_of(line, "--config").unwrap_or(CONFIGURATION));
    let configured =
        configured.into_iter().flatten().filter_map(|(name, on)| Some((name.as_str(), on.as_bool()?, place.as_str())));
    let given = values_of(line, "--feature-gates").into_iter().flat_map(|(value, from)| {
        value.split(',').filter_map(move |gate| {
            let (name, on) = gate.split_once('=')?;
            Some((name.trim(), truth(on.trim())?, from))
        })
    });
    let mut gates: BTreeMap<String, Gate> = BTreeMap::new();
    for (name, on, from) in configured.chain(given) {
        let gate = gates.entry(name.to_owned()).or_default();
        gate.on = on;
        if !gate.from.iter().any(|known| known == from) {
            gate.from.push(from.to_owned());
        }
    }
    gates
}

/// Where somebody takes out what that file says: kubeadm's own is written anew from its ConfigMap in each upgrade.
fn configured_in(path: &str) -> String {
    if path == CONFIGURATION {
        format!("{path}, and ConfigMap kube-system/kubelet-config from which kubeadm writes it")
    } else {
        path.to_owned()
    }
}

/// Whether a kubelet does not start where there is swap, as it does not by default; a flag wins over the configuration.
fn fails_on_swap(line: &[Word], configuration: &Value) -> bool {
    let given = line.iter().rev().find_map(|word| {
        let (name, value) = word.text.split_once('=').unwrap_or((&word.text, "true"));
        is_flag(name, "--fail-swap-on").then(|| truth(value))?
    });
    given.or(configuration["failSwapOn"].as_bool()).unwrap_or(true)
}

/// Whether anything is listed beyond the header of /proc/swaps, which is how a kubelet looks for it (`IsSwapOn` in pkg/kubelet/util/swap).
fn is_swap_on(swaps: &str) -> bool {
    swaps.trim().lines().count() > 1
}

/// The gate that a kubelet names as the reason why it ends, and what is wrong with it.
fn refused_gate(last_lines: &str) -> Option<(&str, &'static str)> {
    let name = |before| -> Option<&str> {
        let (_, rest) = last_lines.split_once(before)?;
        rest.split(|c: char| !c.is_ascii_alphanumeric()).next().filter(|name| !name.is_empty())
    };
    let unknown = name("unrecognized feature gate: ").map(|name| (name, "which it does not know"));
    let locked = || {
        let locked = last_lines.contains("feature is locked to");
        name("cannot set feature gate ").filter(|_| locked).map(|name| (name, "which cannot be set so any more"))
    };
    unknown.or_else(locked)
}

impl RealHost {
    /// Refuses to go on where the installed kubelet would not start.
    pub(super) async fn kubelet_fits(&self) -> Result<(), HostError> {
        let Some(line) = self.kubelet_line().await else {
            return Ok(());
        };
        let mut unfit = match Program::asking("kubelet", ["--help"]).run().await {
            Ok(help) => unknown(&help.stdout, &line),
            Err(_) => Vec::new(),
        };
        unfit.extend(self.refused_gates(&line).await);
        if unfit.is_empty() {
            return Ok(());
        }
        let version = self.kubelet_version().await.map_or_else(String::new, |version| format!(" {version}"));
        let message = format!(
            "the installed kubelet{version} would not start with {}: take it out, then retry; the one before it was not stopped",
            unfit.join(", ")
        );
        Err(needs_operator("KubeletWouldNotStart", message))
    }

    /// What the kubelet is started with behind its name; nothing where that cannot be told.
    pub(super) async fn kubelet_line(&self) -> Option<Vec<Word>> {
        let properties = "ExecStart,Environment,EnvironmentFiles";
        let unit =
            shown(&Program::asking("systemctl", ["show", UNIT, "--property", properties]).run().await.ok()?.stdout)?;
        let mut variables = BTreeMap::new();
        for (name, value) in unit.environment.iter().filter_map(|one| one.split_once('=')) {
            let value = Word { text: value.to_owned(), from: format!("Environment= of {UNIT}") };
            variables.insert(name.to_owned(), value);
        }
        for file in &unit.files {
            // One that is there and cannot be read sets nobody knows what, as does a pattern.
            let text = match std::fs::read_to_string(self.files().path(file)) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound && !file.contains(['*', '?', '[']) => String::new(),
                Err(_) => return None,
            };
            let set = assignments(&text).into_iter().map(|(name, text)| (name, Word { text, from: file.clone() }));
            variables.extend(set);
        }
        Some(expanded(&unit.command, &variables))
    }

    /// The configuration that such a line names; nothing where it cannot be read, or where a folder of others may change it.
    pub(super) fn kubelet_configuration(&self, line: &[Word]) -> Option<Value> {
        if value_of(line, "--config-dir").is_some() {
            return None;
        }
        let text = value_of(line, "--config").and_then(|path| self.files().text(path))?;
        serde_saphyr::from_str(&text).ok()
    }

    /// Whether there is swap with which the kubelet does not start; nothing where that cannot be told.
    pub(super) async fn swap_that_stops_the_kubelet(&self) -> Option<bool> {
        if !is_swap_on(&self.files().text("/proc/swaps")?) {
            return Some(false);
        }
        let line = self.kubelet_line().await?;
        Some(fails_on_swap(&line, &self.kubelet_configuration(&line)?))
    }

    /// Feature gates that the installed kubelet refuses.
    async fn refused_gates(&self, line: &[Word]) -> Vec<String> {
        let mut gates = gates(line, &self.kubelet_configuration(line).unwrap_or(Value::Null));
        let mut refused = Vec::new();
        while !gates.is_empty() && refused.len() < GATES_MAX {
            let given: Vec<String> = gates.iter().map(|(name, gate)| format!("{name}={}", gate.on)).collect();
            let arguments = [format!("--feature-gates={}", given.join(",")), format!("--config={NO_CONFIGURATION}")];
            let Err(ProgramError::Failed { last_lines, .. }) = Program::asking("kubelet", arguments).run().await else {
                break;
            };
            let Some((name, why)) = refused_gate(&last_lines) else { break };
            let Some(gate) = gates.remove(name) else { break };
            refused.push(format!("feature gate {name} ({}), {why}", gate.from.join("; ")));
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use serde_json::json;

    /// Some of the flags that a kubelet of 1.34 has, in the form in which it prints them.
    const HELP: &str = include_str!("fixtures/kubelet-help-1.34.txt");
    /// The unit as kubeadm's packages have it, by `systemctl show` of systemd 252.
    const UNIT_SHOWN: &str = r#"EnvironmentFiles=/var/lib/kubelet/kubeadm-flags.env (ignore_errors=yes)
EnvironmentFiles=/etc/default/kubelet (ignore_errors=yes)
ExecStart={ path=/usr/bin/kubelet ; argv[]=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf" KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml
"#;
    const ENV: &str = "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/containerd/containerd.sock --pod-infra-container-image=registry.k8s.io/pause:3.10\"\n";

    fn line(text: &str) -> Vec<Word> {
        words(text).into_iter().map(|text| Word { text, from: "here".to_owned() }).collect()
    }

    #[test]
    fn flags_that_a_kubelet_knows_are_never_refused_in_whatever_form() {
        for fine in [
            "--node-ip=10.0.0.7 --node-ip 10.0.0.7 --node_ip=10.0.0.7",
            "--pod-infra-container-image=registry.k8s.io/pause:3.10 --application-metrics-count-limit=3",
            "--v=2 -v=2 -v 2 --vmodule=kubelet=4 -h --version --version=raw",
            "--rotate-certificates --anonymous-auth=false --register-node --seccomp-default",
            "--node-labels='a=--b, c=d' --hostname-override --no-such-name",
            "--kube-reserved cpu=200m,memory=1Gi --feature-gates AllAlpha=true,NoSuchGate=true",
            "-- --behind-the-end",
            "",
        ] {
            assert_eq!(unknown(HELP, &line(fine)), [""; 0], "{fine}");
        }
    }

    #[test]
    fn flags_that_a_kubelet_does_not_know_are_named_with_where_they_stand() {
        let found = unknown(HELP, &line("--register-node --no-such-flag --network-plugin=cni --node-ip 10.0.0.7"));
        assert_eq!(found, ["--no-such-flag (here)", "--network-plugin (here)"]);
    }

    #[test]
    fn a_help_that_is_not_evidently_a_kubelets_refuses_nothing() {
        let other =
            "Usage:\n  kubelet [flags]\n\nFlags:\n      --config string   File.\n  -h, --help            help\n";
        for help in ["", "kubelet: not today", other, &HELP.replace("--kubeconfig string", "")] {
            assert_eq!(unknown(help, &line("--no-such-flag")), [""; 0], "{help}");
        }
    }

    #[test]
    fn the_command_line_is_put_together_as_systemd_does() {
        let unit = shown(UNIT_SHOWN).unwrap();
        assert_eq!(unit.files, ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet"]);
        assert_eq!(unit.environment[1], "KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml");
        let word = |text: &str| Word { text: text.to_owned(), from: "x".to_owned() };
        let variables =
            [("A", "--b  --node-labels=\"c d\""), ("E", "f g")].map(|(name, value)| (name.to_owned(), word(value)));
        let command = ["kubelet", "$A", "${E}", "$NONE", "--h"].map(ToOwned::to_owned);
        let texts: Vec<String> = expanded(&command, &variables.into()).into_iter().map(|word| word.text).collect();
        assert_eq!(texts, ["--b", "--node-labels=c d", "f g", "--h"]);
        let wrapped = UNIT_SHOWN.replace("argv[]=/usr/bin/kubelet", "argv[]=/bin/sh -c");
        assert_eq!(shown(&wrapped), None, "what a script starts cannot be told");
        assert_eq!(shown(""), None);
    }

    #[test]
    fn files_of_variables_are_read_as_systemd_reads_them() {
        let file = "# KUBELET_EXTRA_ARGS=--old\n\nKUBELET_EXTRA_ARGS=\"--a=b \\\n --c\"\n; x=y\nE='--f'\nG=--h=\"i j\"\nplain\n";
        let pairs = assignments(file);
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("KUBELET_EXTRA_ARGS", "--a=b  --c"), ("E", "--f"), ("G", "--h=\"i j\"")]);
    }

    #[test]
    fn gates_are_those_of_the_configuration_with_the_flags_over_them() {
        let configuration = json!({"featureGates": {"A": true, "B": false}});
        let found =
            gates(&line("--feature-gates=B=true,C=False --feature-gates D=true --feature-gates=odd"), &configuration);
        let file = configured_in(CONFIGURATION);
        let expected = [
            ("A", true, vec![file.as_str()]),
            ("B", true, vec![file.as_str(), "here"]),
            ("C", false, vec!["here"]),
            ("D", true, vec!["here"]),
        ]
        .map(|(name, on, from)| {
            (name.to_owned(), Gate { on, from: from.into_iter().map(ToOwned::to_owned).collect() })
        });
        assert_eq!(found, expected.into());
        let other = gates(&line("--config=/etc/kubelet.yaml"), &configuration);
        assert_eq!(other["A"].from, ["/etc/kubelet.yaml"], "no ConfigMap stands behind that");
        assert!(gates(&line("--node-ip=x"), &Value::Null).is_empty());
    }

    #[test]
    fn the_gate_that_a_kubelet_names_is_read_and_nothing_else() {
        let of = |reason: &str| {
            let text = format!(
                "E1130 10:00:00.1 4711 run.go:72] \"command failed\" err=\"failed to set feature gates from initial flags-based config: {reason}\""
            );
            refused_gate(&text).map(|(name, _)| name.to_owned())
        };
        assert_eq!(of("unrecognized feature gate: NoSuchGate").as_deref(), Some("NoSuchGate"));
        let locked = "cannot set feature gate Locked to false, feature is locked to true";
        assert_eq!(of(locked).as_deref(), Some("Locked"));
        assert_eq!(of("failed to load kubelet config file, path: /nonexistent/x.yaml"), None);
        assert_eq!(of("invalid value of A=maybe"), None);
    }

    #[test]
    fn swap_is_what_stands_below_the_header() {
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!is_swap_on(header) && !is_swap_on(""));
        assert!(is_swap_on(&format!(
            "{header}/dev/sda5                               partition\t1998844\t\t0\t\t-2\n"
        )));
    }

    #[test]
    fn a_kubelet_fails_on_swap_unless_its_flags_or_its_configuration_say_otherwise() {
        let (silent, allowed) = (json!({}), json!({"failSwapOn": false}));
        assert!(fails_on_swap(&[], &silent));
        assert!(!fails_on_swap(&[], &allowed));
        assert!(!fails_on_swap(&line("--fail-swap-on=false --v=2"), &silent));
        assert!(!fails_on_swap(&line("--fail_swap_on=False"), &silent));
        assert!(fails_on_swap(&line("--fail-swap-on"), &allowed));
        assert!(fails_on_swap(&line("--fail-swap-on=false --fail-swap-on=true"), &allowed));
        for word in ["0", "f", "F", "FALSE", "false", "False"] {
            assert!(!fails_on_swap(&line(&format!("--fail-swap-on={word}")), &silent), "{word}");
        }
        for word in ["1", "t", "T", "TRUE", "true", "True"] {
            assert!(fails_on_swap(&line(&format!("--fail-swap-on={word}")), &allowed), "{word}");
        }
    }

    #[tokio::test]
    async fn what_cannot_all_be_read_tells_nothing_of_swap_and_refuses_no_kubelet() {
        let swapping = |name: &str, extra: &str| {
            let folder = machine(name, extra, "failSwapOn: true\n");
            folder.write("/proc/swaps", "Filename Type Size Used Priority\n/swap file 9 0 -2\n");
            folder
        };
        for flag in ["--config-dir=/etc/kubelet.d", "--config-dir /etc/kubelet.d", "--config_dir=/etc/kubelet.d"] {
            let folder = swapping("swap-folder", &format!("KUBELET_EXTRA_ARGS=\"{flag}\"\n"));
            assert_eq!(host_in(&folder).swap_that_stops_the_kubelet().await, None, "{flag}");
        }
        let folder = swapping("swap-pattern", "KUBELET_EXTRA_ARGS=--no-such-flag\n");
        folder.write("unit", UNIT_SHOWN.replace("/kubeadm-flags.env", "/*.env"));
        assert_eq!(host_in(&folder).swap_that_stops_the_kubelet().await, None, "a pattern");
        assert_eq!(restarted(&folder).await, Ok(true), "a pattern");
        let folder = swapping("swap-unreadable", "");
        std::fs::remove_file(folder.path("/etc/default/kubelet")).expect("removed");
        assert_eq!(
            host_in(&folder).swap_that_stops_the_kubelet().await,
            Some(true),
            "one that is not there sets nothing"
        );
        folder.write("/etc/default/kubelet/x", "");
        assert_eq!(host_in(&folder).swap_that_stops_the_kubelet().await, None, "it is there and cannot be read");
    }

    #[tokio::test]
    async fn swap_is_told_where_the_kubelet_would_not_start_with_it() {
        let header = "Filename Type Size Used Priority\n";
        for (name, swaps, extra, configuration, expected) in [
            ("swap-off", header.to_owned(), "", "", Some(false)),
            ("swap-on", format!("{header}/swap file 9 0 -2\n"), "", "failSwapOn: true\n", Some(true)),
            ("swap-default", format!("{header}/swap file 9 0 -2\n"), "", "kind: KubeletConfiguration\n", Some(true)),
            (
                "swap-flag",
                format!("{header}/swap file 9 0 -2\n"),
                "KUBELET_EXTRA_ARGS=--fail-swap-on=false\n",
                "kind: KubeletConfiguration\n",
                Some(false),
            ),
        ] {
            let folder = machine(name, extra, configuration);
            folder.write("/proc/swaps", swaps);
            assert_eq!(host_in(&folder).swap_that_stops_the_kubelet().await, expected, "{name}");
        }
        let folder = machine("swap-unread", "", "failSwapOn: true\n");
        assert_eq!(host_in(&folder).swap_that_stops_the_kubelet().await, None, "no /proc");
    }

    /// A machine whose kubelet knows every gate but `Gone`.
    fn machine(name: &str, extra: &str, configuration: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        folder.write("/var/lib/kubelet/kubeadm-flags.env", ENV);
        folder.write("/etc/default/kubelet", extra);
        folder.write("/var/lib/kubelet/config.yaml", configuration);
        folder.write("help", HELP);
        folder.write("unit", UNIT_SHOWN);
        let kubelet = "case $1 in
            --help) /bin/cat \"$here/help\" ;;
            --version) echo 'Kubernetes v1.34.4' ;;
            *Gone=*) echo 'err=\"failed to set feature gates: unrecognized feature gate: Gone\"' >&2; exit 1 ;;
            *) echo 'failed to load kubelet config file' >&2; exit 1 ;;
        esac";
        folder.be_the_machine(&[
            ("systemctl", "if [ $1 = show ]; then /bin/cat \"$here/unit\"; fi"),
            ("kubelet", kubelet),
        ]);
        folder
    }

    async fn restarted(folder: &TestFolder) -> Result<bool, HostError> {
        host_in(folder).restart_kubelet_unit().await?;
        Ok(folder.calls().iter().any(|call| call == "systemctl restart kubelet.service"))
    }

    #[tokio::test]
    async fn a_kubelet_that_would_not_start_is_told_and_the_one_that_runs_is_not_stopped() {
        let gates = "featureGates:\n  Gone: true\n  Here: true\n";
        let folder = machine("unfit", "KUBELET_EXTRA_ARGS=--no-such-flag\n", gates);
        let error = restarted(&folder).await.expect_err("it would not start");
        let HostError::NeedsOperator(reason) = &error else { panic!("{error}") };
        assert_eq!(reason.code, "KubeletWouldNotStart");
        for told in [
            "1.34.4",
            "--no-such-flag (/etc/default/kubelet)",
            "feature gate Gone (/var/lib/kubelet/config.yaml, and ConfigMap kube-system/kubelet-config",
            "then retry",
        ] {
            assert!(reason.message.contains(told), "{error}");
        }
        let folder_of_flags = machine("unfit-flag", "KUBELET_EXTRA_ARGS=--feature-gates=Gone=1\n", "");
        let told = restarted(&folder_of_flags).await.expect_err("it would not start").to_string();
        assert!(told.contains("feature gate Gone (/etc/default/kubelet)"), "{told}");
        assert!(!reason.message.contains("Here") && !reason.message.contains("pod-infra"), "{error}");
        let calls = folder.calls();
        assert!(!calls.iter().any(|call| call.contains("restart")), "{calls:?}");
        assert!(calls.iter().any(|call| call == "systemctl daemon-reload"), "{calls:?}");
    }

    #[tokio::test]
    async fn one_that_would_start_is_restarted_and_so_is_one_of_which_nothing_can_be_told() {
        let folder =
            machine("fit", "KUBELET_EXTRA_ARGS=\"--node-ip=10.0.0.7 -v 2\"\n", "featureGates:\n  Here: true\n");
        assert_eq!(restarted(&folder).await, Ok(true));
        let folder = machine("unread", "KUBELET_EXTRA_ARGS=--no-such-flag\n", "");
        folder.be_the_machine(&[("kubelet", "exit 1")]);
        assert_eq!(restarted(&folder).await, Ok(true), "no help");
        folder.write("unit", "ExecStart={ path=/opt/start ; argv[]=/opt/start ; }\n");
        assert_eq!(restarted(&folder).await, Ok(true), "another program");
    }
}
