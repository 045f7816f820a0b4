//! The nodes of an update, a line each: `kubectl cupcake status -o wide`.

use cupcake_crds::DirectUpdate;
use cupcake_crds::direct_update::NodeProgress;
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::render::duration;

/// The table of the nodes that the status names, with how many it does not name; nothing where it names none.
pub(crate) fn lines(update: Option<&DirectUpdate>, now: Timestamp) -> Vec<String> {
    let Some(status) = update.and_then(|update| update.status.as_ref()).filter(|status| !status.nodes.is_empty())
    else {
        return Vec::new();
    };
    let head = ["NODE", "PHASE", "STEP", "TOOK", "MESSAGE"].map(str::to_owned);
    let rows: Vec<[String; 5]> =
        std::iter::once(head).chain(status.nodes.iter().map(|(name, node)| row(name, node, now))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  "));
        format!("{}{}", cells.collect::<String>(), row[4]).trim_end().to_owned()
    };
    let mut lines = vec![String::new()];
    lines.extend(rows.iter().map(line));
    let total = status.summary.as_ref().and_then(|summary| usize::try_from(summary.total).ok()).unwrap_or(0);
    if total > status.nodes.len() {
        lines.push(format!("and {} more", total - status.nodes.len()));
    }
    lines
}

fn row(name: &str, node: &NodeProgress, now: Timestamp) -> [String; 5] {
    let took = node.started_at.map(|begun| duration((node.completed_at.unwrap_or(now) - begun).num_seconds()));
    let message = node.error.as_ref().or(node.message.as_ref());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        name.to_owned(),
        format!("{:?}", node.phase),
        or_dash(node.last_step.clone()),
        or_dash(took),
        message.cloned().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_node_has_a_line_and_those_that_are_not_named_are_counted() {
        let update: DirectUpdate = serde_json::from_value(json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate",
            "metadata": {"name": "to-1-34"}, "spec": {"targetVersion": "1.34.4"},
            "status": {
                "summary": {"total": 70, "completed": 1, "upgrading": 1, "pending": 67, "failed": 1},
                "nodes": {
                    "w-1": {"phase": "Completed", "startedAt": "2026-11-22T07:10:00Z", "completedAt": "2026-11-22T07:14:05Z"},
                    "w-2": {"phase": "Draining", "lastStep": "drain", "startedAt": "2026-11-22T07:15:00Z", "message": "3 of 12 pods evicted"},
                    "worker-30": {"phase": "Failed", "lastStep": "restart-kubelet", "error": "KubeletCrashes", "message": "rests"},
                },
            },
        }))
        .unwrap();
        let now = "2026-11-22T07:16:00Z".parse().unwrap();
        let told = lines(Some(&update), now).join("\n");
        assert_eq!(
            told,
            "
NODE       PHASE      STEP             TOOK  MESSAGE
w-1        Completed  -                4m5s
w-2        Draining   drain            1m    3 of 12 pods evicted
worker-30  Failed     restart-kubelet  -     KubeletCrashes
and 67 more"
        );
        assert!(lines(None, now).is_empty());
    }
}
