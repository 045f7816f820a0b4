//! `kubectl cupcake plan`: what a DirectUpdate would do, by the same compiler that the operator uses.

use crate::args::{Connection, Format, PlanArgs};
use crate::cluster_file;
use crate::connect;
use crate::exit::{Exit, Failure, runtime};
use crate::out;
use crate::template::{self, Template};
use cupcake_crds::DirectUpdate;
use cupcake_crds::values::ClusterSnapshot;
use cupcake_operator::adapters::snapshot::gather_all;
use cupcake_workflows::{
    Compilation, Finding, HopSummary, NodeCommands, Refusal, Request, Summary, compile, overlay_facts, own_facts,
    plan_bytes,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::Path;

/// In place of the UID of an update that does not exist yet.
pub(crate) const UID_TO_COME: &str = "00000000-0000-0000-0000-000000000000";
/// The largest file that is read, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Plans an update, for the cluster of the kubeconfig or a simulated one.
pub fn run(connection: &Connection, args: &PlanArgs) -> Result<Exit, Failure> {
    let template = template::read(&args.file)?;
    #[cfg(feature = "sandbox")]
    if args.sandbox {
        let snapshot = crate::sandbox::snapshot(&args.cluster)?;
        return of(template, &with_facts(snapshot, args.facts.as_deref())?, args);
    }
    let snapshot = match &args.snapshot {
        Some(file) => cluster_file::read(file)?,
        None => live(connection)?,
    };
    of(template, &with_facts(snapshot, args.facts.as_deref())?, args)
}

/// The same cluster, with what that file says of minors over what is known.
pub(crate) fn with_facts(mut snapshot: ClusterSnapshot, file: Option<&Path>) -> Result<ClusterSnapshot, Failure> {
    let Some(file) = file else { return Ok(snapshot) };
    let next = "mend it as docs/facts.md says, or leave --facts out";
    let tried = format!("read the facts of {}", file.display());
    let text = read(file, FILE_BYTES_MAX)?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| Failure::from_error(&tried, &error, next))?;
    let facts = own_facts(value).map_err(|error| Failure::from_error(&tried, &error, next))?;
    overlay_facts(&mut snapshot.facts, facts);
    Ok(snapshot)
}

fn of(template: Template, snapshot: &ClusterSnapshot, args: &PlanArgs) -> Result<Exit, Failure> {
    if let Some(about) = template.about(connect::now()).filter(|_| args.output.is_none()) {
        out::line(about);
    }
    let name = template.name();
    match template.update(snapshot)? {
        Ok(update) => Ok(tell(&update, snapshot, args)),
        Err(message) => {
            nothing_to_do(args.output, &name, &message, &[]);
            Ok(Exit::Done)
        }
    }
}

fn nothing_to_do(output: Option<Format>, name: &str, message: &str, warnings: &[Finding]) {
    if let Some(format) = output {
        let told = json!({
            "result": "NothingToDo", "directUpdate": name, "message": message, "hops": [],
            "warnings": warnings, "refusals": [],
        });
        out::document(format, &told);
    } else {
        out::line(message);
        warn(warnings);
    }
}

/// The cluster of the kubeconfig, as compilers see it.
pub(crate) fn live(connection: &Connection) -> Result<ClusterSnapshot, Failure> {
    runtime()?.block_on(async {
        let client = connect::client(connection).await?;
        gather_all(&client, connect::now()).await.map_err(|error| {
            Failure::from_error("read the cluster", &error, "kubectl get nodes, to see whether the API server answers")
        })
    })
}

/// The hops as programs read them: which nodes move at which version.
fn hops(summary: &Summary) -> Value {
    let hop = |hop: &HopSummary| {
        let batches: Vec<&Vec<String>> = hop.batches.iter().map(|batch| &batch.nodes).collect();
        let mut told = json!({"version": hop.version, "controlPlane": hop.control_plane, "kubelets": hop.kubelets, "batches": batches});
        if let Some(reason) = &hop.reason {
            told["reason"] = json!(reason);
        }
        if let Some(containerd) = &hop.containerd {
            told["containerd"] = json!(containerd);
        }
        if let Some(images) = &hop.images {
            told["images"] = json!(images);
        }
        told
    };
    summary.hops.iter().map(hop).collect()
}

fn tell(update: &DirectUpdate, snapshot: &ClusterSnapshot, args: &PlanArgs) -> Exit {
    let name = update.name_any();
    // What is planned before it exists has no UID yet; names of runs need one.
    let uid = update.uid().unwrap_or_else(|| UID_TO_COME.to_owned());
    let request = Request { name: &name, uid: &uid, spec: &update.spec };
    let compiled = request.root_run().map_err(Refusal::one).and_then(|run| compile(&request, &run, snapshot));
    match compiled {
        Ok(Compilation::Plan(compiled)) => {
            if let Some(format) = args.output {
                let mut told = json!({
                    "result": "Changes", "directUpdate": name, "hops": hops(&compiled.summary), "summary": compiled.summary,
                    "warnings": compiled.report.warnings, "refusals": [],
                    "digest": compiled.digest, "planBytes": plan_bytes(&compiled.plan), "plan": compiled.plan,
                });
                if args.commands {
                    told["commands"] = json!(compiled.commands);
                }
                out::document(format, &told);
            } else {
                compiled.summary.lines().into_iter().for_each(out::line);
                if args.commands {
                    compiled.commands.iter().flat_map(NodeCommands::lines).for_each(out::line);
                }
                warn(&compiled.report.warnings);
                out::line(format!("next: kubectl apply -f {}", args.file.display()));
            }
            Exit::Changes
        }
        Ok(Compilation::NothingToDo(nothing)) => {
            nothing_to_do(args.output, &name, &nothing.message, &nothing.report.warnings);
            Exit::Done
        }
        Err(refusal) => {
            if let Some(format) = args.output {
                let told = json!({
                    "result": "Refused", "directUpdate": name, "hops": [], "refusals": refusal.findings,
                    "warnings": refusal.warnings,
                });
                out::document(format, &told);
            } else {
                for finding in &refusal.findings {
                    out::line(format!("refused: {finding}"));
                }
                warn(&refusal.warnings);
                let cluster = args.snapshot.as_ref().map(|file| format!(" --snapshot {}", file.display()));
                let cluster = cluster.unwrap_or_default();
                let file = args.file.display();
                // What a cluster is no edit of the update changes.
                let is_of_it =
                    |finding: &Finding| finding.field.starts_with("spec.") || finding.field.starts_with("metadata");
                let first = match (refusal.findings.iter().any(is_of_it), &args.snapshot) {
                    (true, _) => format!("edit {file}"),
                    (false, None) => "mend what is named (docs/checks.md)".to_owned(),
                    (false, Some(cluster)) => {
                        format!("mend what is named (docs/checks.md) and tell it in {}", cluster.display())
                    }
                };
                out::line(format!("next: {first}, then kubectl cupcake plan -f {file}{cluster}"));
            }
            Exit::Refused
        }
    }
}

fn warn(warnings: &[Finding]) {
    for warning in warnings {
        let word = if warning.code.is_note() { "note" } else { "warning" };
        out::line(format!("{word}: {warning}"));
    }
}

/// The documents of a YAML stream.
pub(crate) fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n---").map(|document| document.trim_start_matches('-')).filter(|document| !document.trim().is_empty())
}

/// The first field that was written and not understood.
pub(crate) fn unknown_field(written: &Value, known: &Value, path: &str) -> Option<String> {
    match written {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match known.get(name) {
                Some(known) => unknown_field(value, known, &path),
                None => (!is_empty(value)).then_some(path),
            }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| unknown_field(item, known.get(index)?, &format!("{path}[{index}]"))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Whether a value says no more than its absence.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[expect(clippy::disallowed_methods, reason = "the file that the user named")]
pub(crate) fn read(file: &Path, bytes_max: u64) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(bytes_max).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(bytes_max).read_to_string(&mut text))
    };
    read.map_err(|error| {
        Failure::from_error(
            &format!("read {}", file.display()),
            &error,
            "kubectl cupcake plan -f FILE, with a file that exists",
        )
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_nobody_knows_is_named() {
        let written = json!({"targetVersion": "1.34.4", "canary": {"nodez": ["a"]}, "nodeSelector": {}});
        let known = json!({"targetVersion": "1.34.4", "canary": {"enabled": false}});
        assert_eq!(unknown_field(&written, &known, "spec").as_deref(), Some("spec.canary.nodez"));
        assert_eq!(unknown_field(&json!({"nodeSelector": {}}), &known, "spec"), None);
    }

    #[test]
    fn a_file_may_hold_several_documents() {
        assert_eq!(documents("---\na: 1\n---\nb: 2\n").count(), 2);
    }
}
