//! `kubectl cupcake approve`: a gate is opened, in the name of who types it.

use crate::args::{ApproveArgs, Connection};
use crate::connect::{client, request_failed};
use crate::control::{Asking, Change, control, next_number};
use crate::exit::{Exit, Failure};
use cupcake_crds::control::Approval;
use cupcake_crds::{DirectUpdate, limits};
use cupcake_workflows::{gates_of, opened_by};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, PostParams};

/// Opens a gate of an update.
pub(crate) async fn run(connection: &Connection, args: &ApproveArgs) -> Result<Exit, Failure> {
    let client = client(connection).await?;
    let (name, gate) = (args.update.as_str(), args.gate.as_str());
    let tried = format!("approve gate {gate} of DirectUpdate {name}");
    let by = who_asks(client.clone(), &tried).await?;
    let change = |update: &mut DirectUpdate| {
        if let Some(by) = opened_by(&update.spec, gate) {
            return Change::IsSo(format!("gate {gate} of DirectUpdate {name} is open already: {by} approved"));
        }
        let path = update.status.as_ref().and_then(|status| status.upgrade_path.as_ref());
        let target = vec![update.spec.target_version.trim_start_matches('v').to_owned()];
        let gates = gates_of(&update.spec, path.map_or(&target, |path| &path.steps));
        if !gates.iter().any(|one| one == gate) {
            let there_are = match gates.as_slice() {
                [] => "its spec.approvals asks for nobody".to_owned(),
                gates => format!("there are {}", gates.join(", ")),
            };
            let next = gates.first().map(|gate| format!("kubectl cupcake approve {name} {gate}"));
            return Change::Refused {
                why: format!("there is no such gate; {there_are}"),
                next: next.unwrap_or_else(|| format!("kubectl cupcake status {name}")),
            };
        }
        let approvals = &mut control(update).approvals;
        if approvals.len() >= limits::REQUESTS_MAX {
            let why = format!("{} approvals stand in spec.control.approvals already", limits::REQUESTS_MAX);
            return Change::Refused { why, next: format!("kubectl edit directupdate {name}") };
        }
        let number = next_number(approvals.iter().map(|one| one.request_id.as_str()), "approve");
        let request_id = format!("approve-{number}");
        let asked = format!("approved, as {request_id}, by {by}: {gate} opens");
        approvals.push(Approval {
            request_id,
            gate: gate.to_owned(),
            reason: args.comment.clone(),
            requested_by: Some(by.clone()),
        });
        Change::Asked(asked)
    };
    let again = format!("kubectl cupcake approve {name} {gate}");
    Asking { client, name, tried, again }.of(change).await
}

/// Who the API server takes this client for: it lets nobody approve in the name of somebody else.
async fn who_asks(client: kube::Client, tried: &str) -> Result<String, Failure> {
    let api: Api<SelfSubjectReview> = Api::all(client);
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.map_err(|error| request_failed(tried, &error))?;
    let name = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| Failure::new(format!("{tried}: the API server does not say who asks"), "kubectl auth whoami"))
}
