//! `kubectl cupcake why`: what an update waits for, and the next command to type.

use crate::args::{Connection, WhyArgs};
use crate::connect::{client, now};
use crate::exit::{Exit, Failure};
use crate::out;
use crate::status::{graphs, read};

/// Says why an update is where it is.
pub(crate) async fn run(connection: &Connection, args: &WhyArgs) -> Result<Exit, Failure> {
    let client = client(connection).await?;
    let forest = read(&client, args.update.as_deref()).await?;
    let graphs = graphs(&client, &forest).await?;
    let now = now();
    let why = forest.why(&graphs, now).ok_or_else(|| {
        let run = forest.runs.first().map(kube::ResourceExt::name_any).unwrap_or_default();
        Failure::new(format!("the DirectUpdate of UpgradeRun {run} is gone"), format!("kubectl cupcake status {run}"))
    })?;
    match args.output {
        Some(format) => out::document(format, &why),
        None => why.lines(now).into_iter().for_each(out::line),
    }
    Ok(Exit::Done)
}
