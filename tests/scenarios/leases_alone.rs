//! An API server that answers for Leases and for nothing else, or refuses to record runs: the leader leads on, and cannot move anything.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use crate::stalls::answer;
use cupcake_crds::conditions;
use cupcake_crds::values::Phase;
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_sandbox::api::{Failure, Fault, Faults, ReplyFault, RequestInfo, RequestRecord};
use kube::api::DeleteParams;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How long: longer than a drain may take, and than its step may.
const OVERLOADED_SECONDS: i64 = 4 * 3600;

/// Too busy for the operator, but for its Lease.
struct Overloaded {
    before: Arc<dyn Faults>,
    clock: Arc<dyn Clock>,
    until: Timestamp,
    refused: AtomicU32,
}

impl Faults for Overloaded {
    fn before(&self, request: &RequestInfo) -> Fault {
        let decided = self.before.before(request);
        let lease = request.target.as_ref().is_some_and(|target| target.resource == "leases");
        let of_operator = request.client.starts_with("operator.");
        if decided != Fault::None || lease || !of_operator || self.clock.now() >= self.until {
            return decided;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let message = "The apiserver is currently overloaded, please try again later.";
        Fault::Reject(Failure::new(http::StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message))
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        self.before.after(record)
    }
}

#[test]
fn a_drain_that_nobody_could_attempt_for_hours_is_given_that_time_back() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        cluster.eventually("the drain is blocked", async || cluster.phase(UPDATE).1.contains("w-1: ")).await;
        let server = cluster.world.server();
        let until = cluster.world.now() + chrono::TimeDelta::seconds(OVERLOADED_SECONDS);
        let (before, clock) = (server.faults().unwrap(), cluster.world.clock());
        let overloaded = Arc::new(Overloaded { before, clock, until, refused: AtomicU32::new(0) });
        server.inject(Arc::clone(&overloaded) as Arc<dyn Faults>);
        cluster.pass(OVERLOADED_SECONDS - 30).await;
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        let refused = overloaded.refused.load(Ordering::Relaxed);
        assert!(refused > 100, "{refused} requests were refused");
        assert_eq!(phase, Phase::Succeeded, "after {refused} refusals: {message}");
        cluster.nothing_was_done_twice("though nothing was answered for hours");
        assert!(cluster.cordoned().is_empty());
    });
}

/// Refuses what the operator writes of runs: somebody took a line out of its role, a policy denies it, or a webhook is away.
pub(crate) struct Refusing {
    before: Arc<dyn Faults>,
    clock: Arc<dyn Clock>,
    until: Timestamp,
    with: Failure,
}

impl Refusing {
    /// From now on, until then.
    pub(crate) fn begin(cluster: &Cluster, until: Timestamp, with: Failure) {
        let server = cluster.world.server();
        let (before, clock) = (server.faults().unwrap(), cluster.world.clock());
        server.inject(Arc::new(Self { before, clock, until, with }));
    }
}

impl Faults for Refusing {
    fn before(&self, request: &RequestInfo) -> Fault {
        let decided = self.before.before(request);
        let of_runs = request.target.as_ref().is_some_and(|target| target.resource == "upgraderuns");
        let writes = of_runs && request.method != http::Method::GET && request.client.starts_with("operator.");
        if decided != Fault::None || !writes || self.clock.now() >= self.until {
            return decided;
        }
        Fault::Reject(self.with.clone())
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        self.before.after(record)
    }
}

#[test]
fn a_run_whose_record_is_refused_is_told_by_its_update_until_it_may_be_recorded_again() {
    let refused = |code: u16, reason: &'static str, message: &str| {
        Failure::new(http::StatusCode::from_u16(code).unwrap(), reason, message)
    };
    for (with, says) in [
        (
            refused(403, "Forbidden", "upgraderuns is forbidden: User \"operator\" cannot update resource"),
            "cannot update resource",
        ),
        (
            refused(422, "Invalid", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: not at night"),
            "not at night",
        ),
        // A webhook denies with whatever status it likes.
        (
            refused(409, "Conflict", "admission webhook \"w.example\" denied the request: not in a freeze"),
            "not in a freeze",
        ),
        (refused(422, "Invalid", "admission webhook \"w.example\" denied the request: no ticket"), "no ticket"),
        (
            refused(500, "InternalError", "failed calling webhook \"w.example\": no endpoints available"),
            "no endpoints available",
        ),
    ] {
        in_cluster(2, true, async |cluster| {
            cluster.apply(UPDATE, json!({})).await;
            cluster.eventually("it has begun", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
            let until = cluster.world.now() + chrono::TimeDelta::hours(1);
            Refusing::begin(cluster, until, with);
            let reason = || {
                let status = cluster.update(UPDATE).unwrap().status.unwrap();
                conditions::get(&status.conditions, conditions::RECONCILING).unwrap().reason.clone()
            };
            cluster.eventually("it says so", async || reason() == "RunRefused").await;
            let (phase, message) = cluster.phase(UPDATE);
            assert_eq!(phase, Phase::InProgress, "{message}");
            assert!(message.contains(says) && message.contains("until then no further step begins"), "{message}");
            assert!((until - cluster.world.now()).num_minutes() > 50, "it was told at {}", cluster.world.now());
            let why = answer(cluster, UPDATE).join("\n");
            assert!(why.contains("next:  kubectl auth can-i update upgraderuns.cupcake"), "{why}");
            cluster.pass((until - cluster.world.now()).num_seconds()).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            assert!(!message.contains(says), "{message}");
            cluster.nothing_was_done_twice("though nothing could be recorded for an hour");
        });
    }
}
