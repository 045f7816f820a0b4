//! Every store keeps every promise of a store.

use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_engine::conformance;
use cupcake_engine::conformance::faults::{Careful, suite_under_faults};
use cupcake_operator::adapters::kube_store::KubeStore;
use cupcake_sandbox::api::{Failure, Fault, Faults, ReplyFault, RequestInfo, RequestRecord, Server};
use cupcake_tests::{TokioClock, install_definitions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

async fn server_and_store() -> (Server, KubeStore) {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_timestamp(1_790_000_000, 0).unwrap()));
    let server = Server::new(clock, 7);
    let client = server.client("operator");
    install_definitions(&client).await.unwrap();
    (server, KubeStore::new(client))
}

#[tokio::test(start_paused = true)]
async fn the_kube_store_keeps_every_promise_on_the_sandbox_api() {
    conformance::suite(&server_and_store().await.1).await;
}

#[tokio::test(start_paused = true)]
async fn the_kube_store_keeps_its_promises_whatever_call_fails_and_however() {
    let faults = suite_under_faults(async || server_and_store().await.1).await;
    assert!(faults > 80, "{faults} faults");
}

/// What goes wrong with a request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Nobody listens.
    Refused,
    /// Refused with that status, and not carried out.
    Status(u16),
    /// Carried out, and the connection ends.
    Lost,
    /// Carried out, and a proxy answers with that status.
    StatusAfter(u16),
}

const WRONGS: [Wrong; 7] = [
    Wrong::Refused,
    Wrong::Status(409),
    Wrong::Status(429),
    Wrong::Status(500),
    Wrong::Lost,
    Wrong::StatusAfter(409),
    Wrong::StatusAfter(504),
];

/// Lets one request go wrong, or two in a row, counted from 1 among those to which it can happen.
struct Wire {
    wrong: Wrong,
    first: u32,
    in_a_row: u32,
    before: AtomicU32,
    after: AtomicU32,
}

impl Wire {
    fn hits(&self, counter: &AtomicU32, request: &RequestInfo) -> bool {
        // 409 is an answer to writes of what is there.
        let conflict = matches!(self.wrong, Wrong::Status(409) | Wrong::StatusAfter(409));
        if conflict && request.method != http::Method::PUT {
            return false;
        }
        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
        (self.first..self.first + self.in_a_row).contains(&number)
    }

    fn happened(&self) -> bool {
        self.before.load(Ordering::Relaxed).max(self.after.load(Ordering::Relaxed)) >= self.first
    }
}

fn failure(code: u16) -> Failure {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        504 => "Timeout",
        _ => "InternalError",
    };
    Failure::new(http::StatusCode::from_u16(code).unwrap(), reason, "something on the way")
}

impl Faults for Wire {
    fn before(&self, request: &RequestInfo) -> Fault {
        match self.wrong {
            Wrong::Refused if self.hits(&self.before, request) => Fault::Refuse,
            Wrong::Status(code) if self.hits(&self.before, request) => Fault::Reject(failure(code)),
            Wrong::Refused | Wrong::Status(_) | Wrong::Lost | Wrong::StatusAfter(_) => Fault::None,
        }
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        match self.wrong {
            Wrong::Lost if self.hits(&self.after, record.request) => ReplyFault::Drop,
            Wrong::StatusAfter(code) if self.hits(&self.after, record.request) => ReplyFault::Reject(failure(code)),
            Wrong::Refused | Wrong::Status(_) | Wrong::Lost | Wrong::StatusAfter(_) => ReplyFault::None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_kube_store_keeps_its_promises_whatever_request_of_its_goes_wrong() {
    let mut schedules = 0;
    for (wrong, in_a_row) in WRONGS.into_iter().flat_map(|wrong| [(wrong, 1), (wrong, 2)]) {
        for first in 1.. {
            let (server, store) = server_and_store().await;
            let (before, after) = (AtomicU32::new(0), AtomicU32::new(0));
            let wire = Arc::new(Wire { wrong, first, in_a_row, before, after });
            server.inject(Arc::clone(&wire) as Arc<dyn Faults>);
            println!("{wrong:?} at {first}, {in_a_row} in a row");
            conformance::suite(&Careful(&store)).await;
            if !wire.happened() {
                break;
            }
            schedules += 1;
        }
    }
    println!("{schedules} schedules");
    assert!(schedules > 100, "{schedules} schedules");
}
