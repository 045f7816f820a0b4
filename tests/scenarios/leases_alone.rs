//! An API server that answers for Leases and for nothing else: the leader leads on, and cannot look at anything.

use crate::cluster::{UPDATE, in_cluster};
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
