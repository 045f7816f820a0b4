//! `kubectl cupcake preflight`: the checklist of an update alone. Read-only, and as often as one likes.

use crate::args::{Connection, PreflightArgs};
use crate::exit::{Exit, Failure};
use crate::template::{self, Template};
use crate::{cluster_file, out, plan};
use cupcake_crds::DirectUpdate;
use cupcake_workflows::preflight::{Check, Verdict, checklist};
use cupcake_workflows::{Code, Refusal, Request, compile};
use kube::ResourceExt as _;
use serde_json::json;

/// How it becomes known what machines are.
const NEXT_TO_KNOW: &str = "next: see that CUPCAKE's agents run (docs/install.md; kubectl -n kube-system rollout status daemonset/cupcake-agent), or write nodes[].inventory into the cluster file; then look again";

/// Checks the cluster of the kubeconfig, or that of a file, for an update.
pub(crate) fn run(connection: &Connection, args: &PreflightArgs) -> Result<Exit, Failure> {
    let template = match (&args.file, &args.to) {
        (Some(file), _) => template::read(file)?,
        (None, Some(to)) => Template::Update(Box::new(update_to(to)?)),
        (None, None) => {
            let next = "kubectl cupcake preflight --to 1.34.4, or -f update.yaml";
            return Err(Failure::new("preflight: neither an update nor a version is named", next));
        }
    };
    let snapshot = match &args.snapshot {
        Some(file) => cluster_file::read(file)?,
        None => plan::live(connection)?,
    };
    let snapshot = plan::with_facts(snapshot, args.facts.as_deref())?;
    let update = match template.update(&snapshot)? {
        Ok(update) => update,
        Err(message) => {
            match args.output {
                Some(format) => out::document(format, &json!({"message": message, "checks": []})),
                None => out::line(message),
            }
            return Ok(Exit::Done);
        }
    };
    let name = update.name_any();
    let request = Request { name: &name, uid: plan::UID_TO_COME, spec: &update.spec };
    let compiled = request.root_run().map_err(Refusal::one).and_then(|run| compile(&request, &run, &snapshot));
    let checks = checklist(&compiled);
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    if let Some(format) = args.output {
        let verdict = checks.iter().map(|check| check.verdict).max();
        out::document(
            format,
            &json!({"targetVersion": update.spec.target_version, "verdict": verdict, "checks": checks}),
        );
    } else {
        checks.iter().flat_map(lines).for_each(out::line);
        let unknown = unknown(&checks);
        out::line(match (failed, &unknown) {
            (0, None) => format!("fit for {}: nothing stands in the way", update.spec.target_version),
            (0, Some(unknown)) => format!("not known whether it is fit for {}: {unknown}", update.spec.target_version),
            (1, _) => "1 check stands in the way".to_owned(),
            (failed, _) => format!("{failed} checks stand in the way"),
        });
        if failed == 0 && unknown.is_some() {
            out::line(NEXT_TO_KNOW);
        }
    }
    Ok(match (failed, unknown(&checks)) {
        (0, None) => Exit::Done,
        (0, Some(_)) => Exit::Unknown,
        _ => Exit::Refused,
    })
}

/// What is not known and why, where no machine has told anything.
fn unknown(checks: &[Check]) -> Option<String> {
    let names = |wanted| checks.iter().filter(move |check| check.verdict == wanted).map(|check| check.name);
    let unknown: Vec<&str> = names(Verdict::Unknown).collect();
    let silent = checks.iter().flat_map(|check| &check.findings).find(|finding| finding.code == Code::NoInventory);
    let machines = silent.map_or(0, |finding| finding.nodes.len());
    (!unknown.is_empty()).then(|| {
        let machines = if machines == 1 { "1 machine".to_owned() } else { format!("{machines} machines") };
        format!(
            "no agent has told of any machine yet ({machines}), so nothing was found out about {}",
            unknown.join(", ")
        )
    })
}

fn lines(check: &Check) -> Vec<String> {
    let mark = match check.verdict {
        Verdict::Passed => "✔",
        Verdict::Unknown => "?",
        Verdict::Warned => "!",
        Verdict::Failed => "✘",
    };
    let first = format!("{mark} {:<13} {}", check.name, check.about);
    let finding = |finding: &cupcake_workflows::Finding| format!("    {}: {finding}", finding.code);
    std::iter::once(first).chain(check.findings.iter().map(finding)).collect()
}

fn update_to(version: &str) -> Result<DirectUpdate, Failure> {
    let object = json!({"metadata": {"name": "preflight"}, "spec": {"targetVersion": version},
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate"});
    let update: DirectUpdate = serde_json::from_value(object)
        .map_err(|error| Failure::from_error("preflight", &error, "kubectl cupcake preflight --to 1.34.4"))?;
    template::validated(update, "preflight --to", "kubectl cupcake preflight --to 1.34.4")
}
