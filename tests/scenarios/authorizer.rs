//! An API server whose authorizer is cold forbids everything to everybody for some seconds: after its start, and so in the middle of
//! every upgrade of a control plane. Nobody may take that for an answer.

use crate::cluster::{UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_sandbox::api::{Failure, Fault, Faults, ReplyFault, RequestInfo, RequestRecord};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// How long it is cold from the start: longer than a lease.
const START_SECONDS: i64 = 40;
/// Of how many seconds it is cold for how many from then on.
const EVERY_SECONDS: i64 = 9;
const COLD_SECONDS: i64 = 3;

/// Forbids all that our programs ask while it is cold.
struct ColdAuthorizer {
    before: Arc<dyn Faults>,
    clock: Arc<dyn Clock>,
    start: Timestamp,
    /// Guards the refusals, by what was asked, and the names of the clients.
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    refused: BTreeMap<String, u32>,
    clients: BTreeSet<String>,
}

impl ColdAuthorizer {
    fn is_cold(&self) -> bool {
        let since = (self.clock.now() - self.start).num_seconds();
        since < START_SECONDS || since % EVERY_SECONDS < COLD_SECONDS
    }

    fn heard<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Faults for ColdAuthorizer {
    fn before(&self, request: &RequestInfo) -> Fault {
        let of_ours = ["operator.", "agent."].iter().any(|program| request.client.starts_with(program));
        if of_ours {
            self.heard(|heard| heard.clients.insert(request.client.clone()));
        }
        let decided = self.before.before(request);
        if !of_ours || decided != Fault::None || !self.is_cold() {
            return decided;
        }
        let (group, resource, name) = request
            .target
            .as_ref()
            .map_or(("", "", ""), |target| (target.group.as_str(), target.resource.as_str(), target.name.as_str()));
        let asked = format!("{} {resource}", request.verb.as_str());
        self.heard(|heard| *heard.refused.entry(asked).or_default() += 1);
        let why = format!("User \"{}\" cannot do that: RBAC: clusterrole not found", request.client);
        Fault::Reject(Failure::forbidden(group, resource, name, &why))
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        self.before.after(record)
    }
}

#[test]
fn an_authorizer_that_forbids_everything_at_the_start_and_again_and_again_ends_nothing() {
    in_cluster(2, true, async |cluster| {
        let server = cluster.world.server();
        let (clock, start) = (cluster.world.clock(), cluster.world.now());
        let before = server.faults().unwrap();
        let cold = Arc::new(ColdAuthorizer { before, clock, start, heard: Mutex::default() });
        server.inject(Arc::clone(&cold) as Arc<dyn Faults>);
        cluster.pass(START_SECONDS + 60).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        let took = cluster.world.now() - start;
        cold.heard(|heard| {
            println!("{} s; refused: {:?}", took.num_seconds(), heard.refused);
            assert_eq!(phase, Phase::Succeeded, "{message}; refused: {:?}", heard.refused);
            let second = heard.clients.iter().find(|client| !client.ends_with(".1"));
            assert_eq!(second, None, "no program ended, so none was started again");
            for asked in ["get leases", "update leases", "list nodetasks", "get upgraderuns", "patch nodetasks"] {
                assert!(heard.refused.contains_key(asked), "never met a cold authorizer: {asked}: {:?}", heard.refused);
            }
        });
        cluster.nothing_was_done_twice("though much was forbidden");
        assert!(cluster.cordoned().is_empty());
    });
}
