//! What a notification says, in the formats that there are. Pure.
//!
//! Source: CloudEvents 1.0.2 and its HTTP protocol binding (structured and binary content mode); api.slack.com, "Sending messages using
//! incoming webhooks" and "Formatting text for app surfaces" (which characters are escaped).

use chrono::SecondsFormat;
use cupcake_crds::notice::{Notice, Transition};
use cupcake_crds::{GROUP, VERSION};
use serde_json::{Value, json};

/// Before the transition in the type of a CloudEvent.
const TYPE: &str = "com.ricardomolendijk.cupcake.directupdate";

/// Before the name of an attribute where it is a header.
const HEADER: &str = "ce-";

/// One notice with what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The name of the DirectUpdate.
    pub update: String,
    /// Its id in metrics and traces.
    pub operation_id: String,
    /// Where it goes.
    pub target: String,
    /// What happened.
    pub notice: Notice,
}

/// How a notification is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Format {
    /// A CloudEvent as JSON.
    #[default]
    Cloudevents,
    /// A CloudEvent with its attributes as headers, and its data as JSON.
    CloudeventsBinary,
    /// JSON with a `text`, as Slack, Mattermost and their like take it.
    Slack,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Headers, the Content-Type among them.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// Writes a letter; `cluster` is what the cluster is called, or empty.
pub fn write(letter: &Letter, format: Format, cluster: &str) -> Message {
    match format {
        Format::Cloudevents => {
            let mut event =
                json!({"specversion": "1.0", "datacontenttype": "application/json", "data": data(letter, cluster)});
            for (name, value) in attributes(letter, cluster) {
                event[name.trim_start_matches(HEADER)] = value.into();
            }
            Message {
                headers: vec![("content-type", "application/cloudevents+json; charset=utf-8".to_owned())],
                body: event.to_string(),
            }
        }
        Format::CloudeventsBinary => {
            let mut headers =
                vec![("content-type", "application/json".to_owned()), ("ce-specversion", "1.0".to_owned())];
            headers.extend(attributes(letter, cluster).map(|(name, value)| (name, quoted(&value))));
            Message { headers, body: data(letter, cluster).to_string() }
        }
        Format::Slack => Message {
            headers: vec![("content-type", "application/json".to_owned())],
            body: json!({"text": text(letter, cluster)}).to_string(),
        },
    }
}

/// The attributes of a CloudEvent that differ from one to another, by the names of their headers.
fn attributes(letter: &Letter, cluster: &str) -> [(&'static str, String); 5] {
    let Letter { update, notice, .. } = letter;
    let authority = if cluster.is_empty() { String::new() } else { format!("//{cluster}") };
    [
        ("ce-id", notice.id.clone()),
        ("ce-source", format!("{authority}/apis/{GROUP}/{VERSION}/directupdates/{update}")),
        ("ce-type", format!("{TYPE}.{}", notice.transition.as_str())),
        ("ce-subject", update.clone()),
        ("ce-time", notice.at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
    ]
}

/// As the binding asks for it in headers: what is no printable ASCII, a space, a quote or a percent sign is percent-encoded.
fn quoted(value: &str) -> String {
    let encoded = value.bytes().map(|byte| match byte {
        b'"' | b'%' | 0..=b' ' | 0x7f.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    });
    encoded.collect()
}

fn data(letter: &Letter, cluster: &str) -> Value {
    let Letter { update, operation_id, target, notice } = letter;
    let mut data = json!({
        "directUpdate": update,
        "message": notice.message,
        "operationId": operation_id,
        "reason": notice.reason,
        "severity": if notice.transition.needs_a_look() { "warning" } else { "info" },
        "targetVersion": target,
    });
    if !cluster.is_empty() {
        data["cluster"] = cluster.into();
    }
    data
}

/// One line for people.
fn text(letter: &Letter, cluster: &str) -> String {
    let Letter { update, target, notice, .. } = letter;
    let place = if cluster.is_empty() { String::new() } else { format!("[{cluster}] ") };
    let mark = if notice.transition.needs_a_look() { ":warning: " } else { "" };
    let what = match notice.transition {
        Transition::Started => "has started",
        Transition::Refused => "is refused",
        Transition::Waiting => "waits",
        Transition::Paused => "is paused",
        Transition::Resumed => "goes on",
        Transition::ApprovalNeeded => "waits for an approval",
        Transition::Approved => "is approved",
        Transition::RequiresAttention => "requires attention",
        Transition::Succeeded => "has succeeded",
        Transition::Failed => "has failed",
        Transition::Cancelled => "is cancelled",
    };
    let line = format!("{mark}{place}{update} (to {target}) {what}: {}", notice.message);
    line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use cupcake_engine::clock::Timestamp;

    pub(in crate::notify) fn letter(transition: Transition, message: &str) -> Letter {
        Letter {
            update: "to-1-34".into(),
            operation_id: "0193a6f2".into(),
            target: "1.34.4".into(),
            notice: Notice {
                at: Timestamp::from_timestamp(1_790_000_000, 0).unwrap(),
                id: format!("0193a6f2.17.{}", transition.as_str()),
                message: message.into(),
                reason: "DrainBlocked".into(),
                transition,
            },
        }
    }

    #[test]
    fn a_cloud_event_is_whole_in_its_body_or_in_headers_and_the_same_each_time() {
        let letter = letter(Transition::RequiresAttention, "shop/db keeps w-1; ü");
        let structured = write(&letter, Format::Cloudevents, "prod-eu");
        assert_eq!(structured, write(&letter, Format::Cloudevents, "prod-eu"));
        assert_eq!(structured.headers, [("content-type", "application/cloudevents+json; charset=utf-8".to_owned())]);
        let event: Value = serde_json::from_str(&structured.body).unwrap();
        let data = json!({
            "cluster": "prod-eu", "directUpdate": "to-1-34", "message": "shop/db keeps w-1; ü", "operationId": "0193a6f2",
            "reason": "DrainBlocked", "severity": "warning", "targetVersion": "1.34.4",
        });
        let source = "//prod-eu/apis/cupcake.ricardomolendijk.com/v1/directupdates/to-1-34";
        let wanted = json!({
            "specversion": "1.0", "id": "0193a6f2.17.requires-attention", "source": source, "subject": "to-1-34",
            "type": "com.ricardomolendijk.cupcake.directupdate.requires-attention", "time": "2026-09-21T14:13:20Z",
            "datacontenttype": "application/json", "data": data,
        });
        assert_eq!(event, wanted);

        let binary = write(&letter, Format::CloudeventsBinary, "prod-eu");
        assert_eq!(serde_json::from_str::<Value>(&binary.body).unwrap(), data);
        let find = |name: &str| binary.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        for name in ["specversion", "id", "source", "subject", "type", "time"] {
            assert_eq!(find(&format!("ce-{name}")), wanted[name].as_str(), "{name}");
        }
        assert_eq!((find("content-type"), binary.headers.len()), (Some("application/json"), 7));
        assert_eq!(quoted("Euro € 100% \"x\""), "Euro%20%E2%82%AC%20100%25%20%22x%22");
    }

    #[test]
    fn a_cluster_without_a_name_is_no_part_of_it() {
        let event: Value =
            serde_json::from_str(&write(&letter(Transition::Started, "m"), Format::Cloudevents, "").body).unwrap();
        assert_eq!(event["source"], "/apis/cupcake.ricardomolendijk.com/v1/directupdates/to-1-34");
        assert!(event["data"].get("cluster").is_none() && event["data"]["severity"] == "info");
    }

    #[test]
    fn slack_gets_one_line_in_which_nothing_is_taken_for_markup() {
        let written =
            write(&letter(Transition::RequiresAttention, "<!channel> & <http://x|y>"), Format::Slack, "prod-eu");
        let body: Value = serde_json::from_str(&written.body).unwrap();
        let text =
            ":warning: [prod-eu] to-1-34 (to 1.34.4) requires attention: &lt;!channel&gt; &amp; &lt;http://x|y&gt;";
        assert_eq!(body, json!({"text": text}));
        let plain = write(&letter(Transition::Succeeded, "done"), Format::Slack, "");
        assert_eq!(plain.body, "{\"text\":\"to-1-34 (to 1.34.4) has succeeded: done\"}");
    }
}
