//! `kubectl cupcake approve`: a gate is opened, in the name of who types it.

use crate::args::{ApproveArgs, Connection};
use crate::connect::{client, request_failed};
use crate::control::{Asking, Change, control, next_number};
use crate::exit::{Exit, Failure};
use cupcake_crds::control::Approval;
use cupcake_crds::{DirectUpdate, limits};
use cupcake_workflows::{gates_of, opened_by};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, PostParams, TypeMeta};
use serde_json::json;

/// Opens a gate of an update.
pub(crate) async fn run(connection: &Connection, args: &ApproveArgs) -> Result<Exit, Failure> {
    let client = client(connection).await?;
    let (name, gate) = (args.update.as_str(), args.gate.as_str());
    let tried = format!("approve gate {gate} of DirectUpdate {name}");
    let again = format!("kubectl cupcake approve {name} {gate}");
    let ask = async |version: &'static str| review(client.clone(), version).await;
    let by = who_asks(ask, args.by.as_deref(), &tried, &again).await?;
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
    Asking { client, name, tried, again }.of(change).await
}

/// The versions of the review by which an API server tells who asks, newest first: 1.28, 1.27, 1.26 (there where it is switched on).
const REVIEWS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// Posts an empty SelfSubjectReview of that version.
async fn review(client: kube::Client, version: &str) -> kube::Result<DynamicObject> {
    let kind = GroupVersionKind::gvk("authentication.k8s.io", version, "SelfSubjectReview");
    let resource = ApiResource::from_gvk_with_plural(&kind, "selfsubjectreviews");
    let types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: kind.kind });
    let empty = DynamicObject { types, metadata: ObjectMeta::default(), data: json!({}) };
    Api::<DynamicObject>::all_with(client, &resource).create(&PostParams::default(), &empty).await
}

/// Who the API server takes this client for: it lets nobody approve in the name of somebody else. One that does not know the
/// question cannot tell, nor does it hold the answer against anybody: there counts whom `by` names.
async fn who_asks(
    review: impl AsyncFn(&'static str) -> kube::Result<DynamicObject>,
    by: Option<&str>,
    tried: &str,
    again: &str,
) -> Result<String, Failure> {
    for version in REVIEWS {
        let review = match review(version).await {
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            review => review.map_err(|error| request_failed(tried, &error))?,
        };
        let name = review.data.pointer("/status/userInfo/username").and_then(|name| name.as_str()).unwrap_or_default();
        return match by {
            _ if name.is_empty() => {
                Err(Failure::new(format!("{tried}: the API server does not say who asks"), "kubectl auth whoami"))
            }
            Some(by) if by != name => {
                Err(Failure::new(format!("{tried}: the API server takes you for {name}, not for {by}"), again))
            }
            Some(_) | None => Ok(name.to_owned()),
        };
    }
    match by.filter(|by| !by.is_empty()) {
        Some(by) => Ok(by.to_owned()),
        None => Err(Failure::new(
            format!("{tried}: this API server cannot say who asks (SelfSubjectReview came with Kubernetes 1.26)"),
            format!("{again} --by YOUR-NAME, which nobody checks there"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(name: &str) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {}, "status": {"userInfo": {"username": name}}})).unwrap()
    }

    fn refused(code: u16) -> kube::Error {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code});
        kube::Error::Api(serde_json::from_value(status).unwrap())
    }

    /// Who approves where the API server knows that version of the review, and no other.
    async fn approves(known: &str, by: Option<&str>) -> Result<String, String> {
        let review =
            async |version: &'static str| if version == known { Ok(answered("jane")) } else { Err(refused(404)) };
        let said = who_asks(review, by, "approve gate g of DirectUpdate up", "kubectl cupcake approve up g").await;
        said.map_err(|failure| failure.to_string())
    }

    #[tokio::test]
    async fn who_approves_is_whom_the_api_server_takes_them_for_whichever_version_of_the_question_it_knows() {
        for known in REVIEWS {
            assert_eq!(approves(known, None).await.as_deref(), Ok("jane"), "{known}");
            assert_eq!(approves(known, Some("jane")).await.as_deref(), Ok("jane"), "{known}");
            let other = approves(known, Some("joe")).await.unwrap_err();
            assert!(other.contains("takes you for jane, not for joe"), "{other}");
        }
        let forbidden = async |_: &'static str| Err(refused(403));
        assert!(who_asks(forbidden, Some("joe"), "approve", "again").await.is_err(), "no answer is not no question");
    }

    #[tokio::test]
    async fn where_the_api_server_cannot_say_who_asks_they_name_themselves() {
        assert_eq!(approves("none", Some("joe")).await.as_deref(), Ok("joe"));
        let nobody = approves("none", None).await.unwrap_err();
        assert!(nobody.contains("next:  kubectl cupcake approve up g --by YOUR-NAME"), "{nobody}");
    }
}
