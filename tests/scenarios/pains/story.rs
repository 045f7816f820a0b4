//! A golden text in the making: what happened, and what the user saw.

use crate::cluster::{Cluster, UPDATE};
use crate::stalls::answer;
use cupcake_crds::DirectUpdate;
use cupcake_crds::values::ClusterSnapshot;
use cupcake_workflows::preflight::{Check, Verdict, checklist};
use cupcake_workflows::{Compilation, Refusal, Request, compile};
use k8s_openapi::api::core::v1::{Event, Node};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Where lines of a text are broken, in characters.
const WIDTH: usize = 150;

/// The text of one pain.
pub(super) struct Story {
    file: String,
    text: String,
}

impl Story {
    /// Of that pain; `name` becomes part of the file's name, `title` is the pain as docs/pains.md has it.
    pub(super) fn new(pain: u32, name: &str, title: &str) -> Self {
        Self { file: format!("{pain:02}-{name}.txt"), text: format!("# Pain {pain}. {title}\n") }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What happened, in plain words.
    pub(super) fn happens(&mut self, what: &str) {
        self.text.push('\n');
        self.wrapped("# ", "# ", what);
    }

    /// An answer of the cluster.
    pub(super) fn seen(&mut self, line: &str) {
        self.wrapped("", "    ", line);
    }

    fn wrapped(&mut self, first: &str, further: &str, text: &str) {
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in text.split(' ') {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(self.text, "{line}");
                further.clone_into(&mut line);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        let _ = writeln!(self.text, "{line}");
    }

    /// Phase and message of the update.
    pub(super) fn status(&mut self, cluster: &Cluster) {
        let (phase, message) = cluster.phase(UPDATE);
        let template = "{.status.phase}: {.status.message}";
        self.seen(&format!("$ kubectl get directupdate {UPDATE} --output jsonpath='{template}'"));
        self.seen(&format!("{phase}: {message}"));
    }

    /// What `kubectl cupcake why` answers.
    pub(super) fn why(&mut self, cluster: &Cluster) {
        self.seen(&format!("$ kubectl cupcake why {UPDATE}"));
        for line in &answer(cluster, UPDATE) {
            self.seen(line);
        }
    }

    /// The nodes: version, and whether each takes pods.
    pub(super) fn nodes(&mut self, cluster: &Cluster) {
        self.seen("$ kubectl get nodes");
        for node in cluster.all::<Node>("", "nodes") {
            let name = node.name_any();
            let cordoned = if cluster.is_cordoned(&name) { ",SchedulingDisabled" } else { "" };
            self.seen(&format!("{name:<5} {}{cordoned} v{}", ready(&node), cluster.kubelet(&name)));
        }
    }

    /// The newest event of that reason.
    pub(super) fn event(&mut self, cluster: &Cluster, reason: &str) {
        self.event_with(cluster, reason, "");
    }

    /// The newest event of that reason that says that.
    pub(super) fn event_with(&mut self, cluster: &Cluster, reason: &str, says: &str) {
        let events = cluster.all::<Event>("", "events").into_iter();
        let mut told = events.filter(|event| event.reason.as_deref() == Some(reason)).filter_map(|event| event.message);
        let last = told.rfind(|message| message.contains(says));
        let grep = if says.is_empty() { String::new() } else { format!(" | grep '{says}'") };
        self.seen(&format!("$ kubectl get events --field-selector reason={reason}{grep}"));
        self.seen(&last.unwrap_or_else(|| panic!("no event {reason} that says {says:?}")));
    }

    /// The checklist without the checks that passed, those codes among what it has found.
    pub(super) fn preflight(&mut self, snapshot: &ClusterSnapshot, spec: &Value, codes: &[&str]) {
        let target = spec["targetVersion"].as_str().unwrap();
        self.seen(&format!("$ kubectl cupcake preflight --to {target}"));
        let checks = checks(snapshot, spec);
        for code in codes {
            let mut findings = checks.iter().flat_map(|check| &check.findings);
            assert!(findings.any(|finding| finding.code.to_string() == *code), "nothing of {code}: {checks:?}");
        }
        for check in &checks {
            let mark = match check.verdict {
                Verdict::Passed => continue,
                Verdict::Unknown => "?",
                Verdict::Warned => "!",
                Verdict::Failed => "✘",
            };
            self.seen(&format!("{mark} {:<13} {}", check.name, check.about));
            for finding in &check.findings {
                self.seen(&format!("    {}: {finding}", finding.code));
            }
        }
        let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
        self.seen(&match failed {
            0 => format!("fit for {target}: nothing stands in the way"),
            1 => "1 check stands in the way".to_owned(),
            failed => format!("{failed} checks stand in the way"),
        });
    }

    /// The plan in its lines; the update stands in a file that is named for its minor.
    pub(super) fn plan(&mut self, snapshot: &ClusterSnapshot, spec: &Value) {
        let target = spec["targetVersion"].as_str().unwrap();
        let minor = target.rsplit_once('.').unwrap().0.replace('.', "-");
        self.seen(&format!("$ kubectl cupcake plan -f to-{minor}.yaml"));
        let Compilation::Plan(plan) = compiled(snapshot, spec).unwrap() else { panic!("nothing to do for {target}") };
        plan.summary.lines().iter().for_each(|line| self.seen(line));
        for warning in &plan.report.warnings {
            let word = if warning.code.is_note() { "note" } else { "warning" };
            self.seen(&format!("{word}: {warning}"));
        }
        self.seen(&format!("next: kubectl apply -f to-{minor}.yaml"));
    }
}

fn ready(node: &Node) -> &'static str {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some(_) | None => "NotReady",
    }
}

fn compiled(snapshot: &ClusterSnapshot, spec: &Value) -> Result<Compilation<cupcake_workflows::Compiled>, Refusal> {
    let update = DirectUpdate::new(UPDATE, serde_json::from_value(spec.clone()).unwrap());
    let request = Request { name: UPDATE, uid: "0b1c2d3e-0000-4000-8000-000000000000", spec: &update.spec };
    let run = request.root_run().unwrap();
    compile(&request, &run, snapshot)
}

fn checks(snapshot: &ClusterSnapshot, spec: &Value) -> Vec<Check> {
    checklist(&compiled(snapshot, spec))
}

/// An update to that version.
pub(super) fn to(version: &str) -> Value {
    json!({"targetVersion": version})
}
