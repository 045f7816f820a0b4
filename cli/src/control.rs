//! `kubectl cupcake pause`, `resume`, `cancel` and `skip`: what people ask of an update that is under way, in its `spec.control`.

use crate::args::{AskArgs, Connection, SkipArgs};
use crate::connect::{client, request_failed};
use crate::exit::{Exit, Failure};
use crate::out;
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::control::{Control, Request, VertexRequest};
use cupcake_crds::values::{NodeRole, Phase};
use cupcake_crds::{DirectUpdate, PAUSED_ANNOTATION, limits};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// How often a change is tried that meets another one.
const TRIES_MAX: usize = 10;

/// What is asked of an update.
pub(crate) struct Asking<'a> {
    pub(crate) client: kube::Client,
    /// The update.
    pub(crate) name: &'a str,
    /// What is tried, for errors.
    pub(crate) tried: String,
    /// The command that tries it again.
    pub(crate) again: String,
}

/// What a change of an update comes to.
pub(crate) enum Change {
    /// It is to be written, and then this is said.
    Asked(String),
    /// It is so already: this is said.
    IsSo(String),
    /// It cannot be.
    Refused {
        /// Why.
        why: String,
        /// What to type instead.
        next: String,
    },
}

impl Asking<'_> {
    /// Changes what is asked of the update; refuses one that is over. Its status, which the operator writes all the time, does not
    /// matter: the change is refused, and made anew, only where somebody changed the spec meanwhile.
    pub(crate) async fn of(self, mut change: impl FnMut(&mut DirectUpdate) -> Change) -> Result<Exit, Failure> {
        let api: Api<DirectUpdate> = Api::all(self.client.clone());
        let mut refused: Option<(Option<i64>, kube::Error)> = None;
        for _ in 0..TRIES_MAX {
            let before = self.read(&api).await?;
            if let Some((generation, error)) = &refused
                && *generation == before.metadata.generation
            {
                return Err(request_failed(&self.tried, error));
            }
            let mut update = before.clone();
            let asked = match change(&mut update) {
                Change::Asked(asked) => asked,
                Change::IsSo(so) => {
                    out::line(so);
                    return Ok(Exit::Done);
                }
                Change::Refused { why, next } => {
                    return Err(Failure::new(format!("{}: {why}", self.tried), next));
                }
            };
            let patch = Patch::Json::<()>(difference(&before, &update));
            match api.patch(self.name, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    out::line(format!("{asked}; see: kubectl cupcake status {}", self.name));
                    return Ok(Exit::Done);
                }
                // The spec is another one by now, or what is asked for is not allowed: the next look tells which.
                Err(error) if matches!(&error, kube::Error::Api(status) if matches!(status.code, 409 | 422)) => {
                    refused = Some((before.metadata.generation, error));
                }
                Err(error) => return Err(request_failed(&self.tried, &error)),
            }
        }
        Err(Failure::new(format!("{}: it changes all the time", self.tried), self.again))
    }

    /// The update, which is not over.
    async fn read(&self, api: &Api<DirectUpdate>) -> Result<DirectUpdate, Failure> {
        let name = self.name;
        let found = api.get_opt(name).await.map_err(|error| request_failed(&self.tried, &error))?;
        let Some(update) = found else {
            return Err(Failure::new(format!("there is no DirectUpdate {name}"), "kubectl get directupdates"));
        };
        let phase = update.status.as_ref().and_then(|status| status.phase);
        match phase.filter(|phase| Phase::is_final(*phase)) {
            None => Ok(update),
            Some(phase) => Err(Failure::new(
                format!("DirectUpdate {name} is {phase}, which is its end: nothing of it can be asked any more"),
                format!(
                    "kubectl cupcake status {name}, then apply it under another name, which goes on from what is there"
                ),
            )),
        }
    }
}

/// The change as a patch that holds only for the spec that was read: each change of a spec has a generation of its own.
fn difference(before: &DirectUpdate, after: &DirectUpdate) -> json_patch::Patch {
    let mut operations =
        vec![json!({"op": "test", "path": "/metadata/generation", "value": before.metadata.generation})];
    if before.spec.control != after.spec.control {
        operations.push(json!({"op": "add", "path": "/spec/control", "value": after.spec.control}));
    }
    if before.annotations().contains_key(PAUSED_ANNOTATION) && !after.annotations().contains_key(PAUSED_ANNOTATION) {
        let key = PAUSED_ANNOTATION.replace('~', "~0").replace('/', "~1");
        operations.push(json!({"op": "remove", "path": format!("/metadata/annotations/{key}")}));
    }
    serde_json::from_value(json!(operations)).expect("these are operations of a JSON patch")
}

/// What is asked of an update already.
pub(crate) fn control(update: &mut DirectUpdate) -> &mut Control {
    update.spec.control.get_or_insert_default()
}

/// The number after the last `PREFIX-N` among the names of requests.
pub(crate) fn next_number<'n>(names: impl Iterator<Item = &'n str>, prefix: &str) -> u64 {
    let number = |name: &str| name.strip_prefix(prefix)?.strip_prefix('-')?.parse::<u64>().ok();
    names.filter_map(number).max().unwrap_or(0) + 1
}

/// Adds a request under a name that no other has; the oldest goes where there are as many as there may be.
pub(crate) fn add(requests: &mut Vec<VertexRequest>, prefix: &str, request: VertexRequest) -> String {
    let number = next_number(requests.iter().map(|request| request.request_id.as_str()), prefix);
    let request_id = format!("{prefix}-{number}");
    requests.push(VertexRequest { request_id: request_id.clone(), ..request });
    let surplus = requests.len().saturating_sub(limits::REQUESTS_MAX);
    requests.drain(..surplus);
    request_id
}

/// The name for a request of which there is one at a time: another than those that were answered.
fn another(update: &DirectUpdate, prefix: &str) -> String {
    let answered = update.status.iter().flat_map(|status| &status.acknowledged);
    let number = next_number(answered.map(|answer| answer.request_id.as_str()), prefix);
    format!("{prefix}-{number}")
}

async fn asking<'a>(connection: &Connection, command: &str, args: &'a AskArgs) -> Result<Asking<'a>, Failure> {
    let name = args.update.as_str();
    let (tried, again) = (format!("{command} DirectUpdate {name}"), format!("kubectl cupcake {command} {name}"));
    Ok(Asking { client: client(connection).await?, name, tried, again })
}

/// Starts nothing new until `resume`.
pub async fn pause(connection: &Connection, args: &AskArgs) -> Result<Exit, Failure> {
    let change = |update: &mut DirectUpdate| {
        let name = &args.update;
        if update.is_paused() {
            let so = format!("DirectUpdate {name} is paused already; kubectl cupcake resume {name} lets it go on");
            return Change::IsSo(so);
        }
        if let Some(cancel) = &control(update).cancel {
            return Change::IsSo(format!("DirectUpdate {name} is being cancelled, as {} asked", cancel.request_id));
        }
        let request_id = another(update, "pause");
        let asked = format!("asked, as {request_id}: nothing new starts, what is under way comes to its end");
        control(update).pause = Some(Request { request_id, reason: args.reason.clone(), requested_by: None });
        Change::Asked(asked)
    };
    asking(connection, "pause", args).await?.of(change).await
}

/// Whether an update holds because its time is over.
fn is_timed_out(update: &DirectUpdate) -> bool {
    let conditions = update.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    conditions::get(conditions, conditions::TIMED_OUT).is_some_and(|over| over.status == ConditionStatus::True)
}

/// Takes a pause away, whichever way it was asked for, and lets an update go on whose time was over.
pub async fn resume(connection: &Connection, args: &AskArgs) -> Result<Exit, Failure> {
    let change = |update: &mut DirectUpdate| {
        let name = &args.update;
        let timed_out = is_timed_out(update);
        if !update.is_paused() && !timed_out {
            let so = format!("DirectUpdate {name} is not paused; kubectl cupcake status {name} says what it waits for");
            return Change::IsSo(so);
        }
        control(update).pause = None;
        update.annotations_mut().remove(PAUSED_ANNOTATION);
        if !timed_out {
            return Change::Asked("the pause is taken away".to_owned());
        }
        let request_id = another(update, "resume");
        let asked =
            format!("asked, as {request_id}: it goes on for as long as spec.operationTimeout allows, once more");
        control(update).resume = Some(Request { request_id, reason: args.reason.clone(), requested_by: None });
        Change::Asked(asked)
    };
    asking(connection, "resume", args).await?.of(change).await
}

/// Ends an update for good.
pub async fn cancel(connection: &Connection, args: &AskArgs) -> Result<Exit, Failure> {
    let change = |update: &mut DirectUpdate| {
        if let Some(cancel) = &control(update).cancel {
            let so = format!("DirectUpdate {} is being cancelled already, as {} asked", args.update, cancel.request_id);
            return Change::IsSo(so);
        }
        let request_id = another(update, "cancel");
        let asked =
            format!("asked, as {request_id}: what is under way comes to a safe point, then nodes are given back");
        control(update).cancel = Some(Request { request_id, reason: args.reason.clone(), requested_by: None });
        Change::Asked(asked)
    };
    asking(connection, "cancel", args).await?.of(change).await
}

/// Leaves a worker out.
pub async fn skip(connection: &Connection, args: &SkipArgs) -> Result<Exit, Failure> {
    let (name, node) = (args.update.as_str(), args.node.as_str());
    let client = client(connection).await?;
    let tried = format!("leave {node} out of DirectUpdate {name}");
    let nodes: Api<Node> = Api::all(client.clone());
    let Some(found) = nodes.get_opt(node).await.map_err(|error| request_failed(&tried, &error))? else {
        return Err(Failure::new(format!("{tried}: there is no such node"), "kubectl get nodes"));
    };
    if found.labels().contains_key(NodeRole::CONTROL_PLANE_LABEL) {
        return Err(Failure::new(
            format!("{tried}: it is of the control plane, which moves as a whole"),
            format!(
                "kubectl cupcake pause {name}, or, if it has failed there, mend it and kubectl cupcake retry {name} {node}"
            ),
        ));
    }
    let request = VertexRequest {
        request_id: String::new(),
        run: None,
        vertex: node.to_owned(),
        reason: args.reason.clone(),
        requested_by: None,
    };
    let change = |update: &mut DirectUpdate| {
        let rests = update.status.as_ref().and_then(|status| status.phase) == Some(Phase::RequiresAttention);
        // Asked for again while it rests, it is left out without being given back, which has failed then.
        if update.spec.skips(node) && !rests {
            return Change::IsSo(format!("{node} is left out of DirectUpdate {name} already"));
        }
        if control(update).skip.len() >= limits::REQUESTS_MAX {
            let why = format!(
                "{} nodes are left out already, and each stays so: leave more out by spec.nodeSelector of another update",
                limits::REQUESTS_MAX
            );
            return Change::Refused { why, next: format!("kubectl cupcake cancel {name}") };
        }
        if let Some(cancel) = &control(update).cancel {
            return Change::IsSo(format!("DirectUpdate {name} is being cancelled, as {} asked", cancel.request_id));
        }
        let begun = update.status.as_ref().is_some_and(|status| status.run.is_some());
        let request_id = add(&mut control(update).skip, "skip", request.clone());
        let begins = if begun {
            ""
        } else {
            "; an update that waits or is refused begins as soon as nothing else stands in its way"
        };
        Change::Asked(format!("asked, as {request_id}: {node} stays at its version in this update{begins}"))
    };
    let again = format!("kubectl cupcake skip {name} {node}");
    Asking { client, name, tried, again }.of(change).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_name_of_its_own_and_there_are_never_too_many() {
        let request = VertexRequest {
            request_id: String::new(),
            run: None,
            vertex: "w-3".into(),
            reason: None,
            requested_by: None,
        };
        let mut requests = Vec::new();
        let names: Vec<String> = (0..40).map(|_| add(&mut requests, "retry", request.clone())).collect();
        assert_eq!((names[0].as_str(), names[39].as_str()), ("retry-1", "retry-40"));
        assert_eq!((requests.len(), requests[0].request_id.as_str()), (limits::REQUESTS_MAX, "retry-9"));
        assert_eq!(next_number(["skip-2", "skip", "mine", "retry-7"].into_iter(), "skip"), 3);
    }
}
