//! `kubectl cupcake status`: one upgrade as it is now.

use crate::args::{Connection, Format, StatusArgs, WideFormat};
use crate::connect::{client, now, request_failed};
use crate::exit::{Exit, Failure};
use crate::forest::{Detail, Forest, Graphs, add_graph};
use crate::{nodes, out, terminal};
use cupcake_crds::{DirectUpdate, UpgradePlan, UpgradeRun};
use cupcake_operator::guarded::Guarded;
use cupcake_workflows::render::Glyphs;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Shows an upgrade.
pub async fn run(connection: &Connection, args: &StatusArgs) -> Result<Exit, Failure> {
    let client = client(connection).await?;
    let forest = read(&client, args.run.as_deref()).await?;
    match args.output {
        Some(WideFormat::Json) => out::document(Format::Json, &list(&forest)),
        Some(WideFormat::Yaml) => out::document(Format::Yaml, &list(&forest)),
        output @ (Some(WideFormat::Wide) | None) => {
            let graphs = graphs(&client, &forest).await?;
            let glyphs = if args.ascii { Glyphs::Ascii } else { Glyphs::Unicode };
            let lines = if args.timeline {
                forest.timeline(&graphs, now(), terminal::columns(), glyphs)
            } else {
                forest.lines(&graphs, now(), Detail::Full, glyphs)
            };
            let nodes = output.map(|_| nodes::lines(forest.update.as_ref(), now())).unwrap_or_default();
            for line in lines.into_iter().chain(nodes) {
                out::line(line);
            }
        }
    }
    Ok(Exit::Done)
}

/// The upgrade that was named, or the newest.
pub async fn read(client: &kube::Client, name: Option<&str>) -> Result<Forest, Failure> {
    let updates: Vec<DirectUpdate> = all(client, "list directupdates").await?;
    let runs: Vec<UpgradeRun> = all(client, "list upgraderuns").await?;
    Forest::pick(&updates, &runs, name).ok_or_else(|| match name {
        Some(name) => Failure::new(
            format!("there is no DirectUpdate and no UpgradeRun named {name:?}"),
            "kubectl get directupdates,upgraderuns",
        ),
        None => Failure::new("there is no DirectUpdate yet", "kubectl cupcake plan -f update.yaml"),
    })
}

/// All objects of a kind that this release can read; those of other writers are left out.
async fn all<K>(client: &kube::Client, what: &str) -> Result<Vec<K>, Failure>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    PartialObjectMeta<K>: DeserializeOwned,
{
    let api: Api<Guarded<K>> = Api::all(client.clone());
    let list = api.list(&ListParams::default()).await.map_err(|error| request_failed(what, &error))?;
    Ok(list.items.into_iter().filter_map(|item| item.0.ok()).collect())
}

/// The graphs of a forest's runs.
pub async fn graphs(client: &kube::Client, forest: &Forest) -> Result<Graphs, Failure> {
    let mut graphs = Graphs::new();
    for run in &forest.runs {
        add(client, &mut graphs, run).await?;
    }
    Ok(graphs)
}

/// Adds the graph of a run, unless it is there.
pub async fn add(client: &kube::Client, graphs: &mut Graphs, run: &UpgradeRun) -> Result<(), Failure> {
    let name = &run.spec.plan.name;
    if graphs.contains_key(name) {
        return Ok(());
    }
    let api: Api<UpgradePlan> = Api::all(client.clone());
    if let Some(plan) = api.get_opt(name).await.map_err(|error| request_failed("get upgradeplan", &error))? {
        add_graph(graphs, &plan);
    }
    Ok(())
}

/// The objects of a forest as a List, as kubectl prints them.
fn list(forest: &Forest) -> Value {
    let update = forest.update.iter().map(|update| serde_json::to_value(update).unwrap_or_default());
    let runs = forest.runs.iter().map(|run| serde_json::to_value(run).unwrap_or_default());
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": update.chain(runs).collect::<Vec<_>>()})
}
