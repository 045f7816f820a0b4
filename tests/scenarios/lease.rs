//! The lease on the sandbox's API: what it costs, and what replicas make of answers and watches that get lost.

use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_engine::names::Epoch;
use cupcake_operator::lease::{LEASE_NAME, LeaseLock, Standing, Timing};
use cupcake_sandbox::api::{Fault, Faults, ReplyFault, RequestInfo, RequestRecord, Server, Verb};
use cupcake_tests::{TokioClock, install_definitions};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const TIMING: Timing = Timing { lease_seconds: 5, retry_seconds: 1 };

/// Two replicas, on paused time.
struct Replicas {
    server: Server,
    clock: Arc<dyn Clock>,
    a: LeaseLock,
    b: LeaseLock,
}

impl Replicas {
    async fn start() -> Self {
        let clock: Arc<dyn Clock> =
            Arc::new(TokioClock::starting_at(Timestamp::from_timestamp(1_790_000_000, 0).unwrap()));
        let server = Server::new(Arc::clone(&clock), 7);
        install_definitions(&server.client("user")).await.unwrap();
        let lock = |name: &str| LeaseLock::new(server.client(name), "kube-system", name, TIMING);
        Self { a: lock("a"), b: lock("b"), server, clock }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, milliseconds: i64) {
        self.clock.sleep_until(self.now() + chrono::TimeDelta::milliseconds(milliseconds)).await;
    }

    fn requests(&self, of: &str) -> u64 {
        self.server.counts().requests.get(of).copied().unwrap_or_default()
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.server.client("user"), "kube-system")
    }

    /// Lets `a` lead and `b` know of it.
    async fn a_leads(&mut self) {
        let now = self.now();
        assert_eq!(self.a.attempt(None, now).await.unwrap(), Standing::Holds(Epoch(1)));
        assert_eq!(self.b.attempt(None, now).await.unwrap(), Standing::AnotherHolds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_one_request_and_keeps_the_time_of_the_acquisition() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    let before = replicas.requests("a");
    for _ in 0..5 {
        replicas.pass(1_000).await;
        let now = replicas.now();
        assert_eq!(replicas.a.attempt(Some(Epoch(1)), now).await.unwrap(), Standing::Holds(Epoch(1)));
    }
    assert_eq!(replicas.requests("a") - before, 5);
    let spec = replicas.leases().get(LEASE_NAME).await.unwrap().spec.unwrap();
    let (acquired, renewed) = (spec.acquire_time.unwrap().0, spec.renew_time.unwrap().0);
    assert_eq!(renewed.as_second() - acquired.as_second(), 5);
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_lease_knows_since_when_nobody_led() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    let began = replicas.now();
    assert_eq!(replicas.a.unled(), None, "there was no leader before it");
    replicas.pass(600_000).await;
    let now = replicas.now();
    assert_eq!(replicas.b.attempt(None, now).await.unwrap(), Standing::Holds(Epoch(2)));
    assert_eq!(replicas.b.unled(), Some((began, now)));
    replicas.pass(1_000).await;
    let later = replicas.now();
    assert_eq!(replicas.b.attempt(Some(Epoch(2)), later).await.unwrap(), Standing::Holds(Epoch(2)));
    assert_eq!(replicas.b.unled(), Some((began, now)), "a renewal is no beginning");
}

/// Loses the answer to one PUT, which stands nevertheless.
struct LosesAnAnswer(AtomicU32);

impl Faults for LosesAnAnswer {
    fn before(&self, _: &RequestInfo) -> Fault {
        Fault::None
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        let lost = record.request.verb == Verb::Update && self.0.fetch_add(1, Ordering::Relaxed) == 0;
        if lost { ReplyFault::Drop } else { ReplyFault::None }
    }
}

#[tokio::test(start_paused = true)]
async fn since_when_nobody_led_is_known_although_the_answer_to_the_first_write_was_lost_and_forgotten_when_another_leads()
 {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    let began = replicas.now();
    replicas.pass(600_000).await;
    replicas.server.inject(Arc::new(LosesAnAnswer(AtomicU32::new(0))));
    let now = replicas.now();
    replicas.b.attempt(None, now).await.unwrap_err();
    replicas.pass(1_000).await;
    let now = replicas.now();
    assert!(matches!(replicas.b.attempt(None, now).await.unwrap(), Standing::Holds(_)));
    assert_eq!(replicas.b.unled(), Some((began, now)), "not since its own first write");
    // The old holder comes back, leads for long, and goes: only the time after it counts.
    replicas.pass(5_000).await;
    let now = replicas.now();
    assert!(matches!(replicas.a.attempt(None, now).await.unwrap(), Standing::AnotherHolds));
    replicas.pass(5_000).await;
    let taken = replicas.now();
    assert!(matches!(replicas.a.attempt(None, taken).await.unwrap(), Standing::Holds(_)));
    assert!(matches!(replicas.b.attempt(None, taken).await.unwrap(), Standing::AnotherHolds));
    replicas.pass(300_000).await;
    let now = replicas.now();
    assert!(matches!(replicas.b.attempt(None, now).await.unwrap(), Standing::Holds(_)));
    assert_eq!(replicas.b.unled(), Some((taken, now)));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_is_looked_at_before_the_next_one() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    replicas.server.inject(Arc::new(LosesAnAnswer(AtomicU32::new(0))));
    let now = replicas.now();
    replicas.a.attempt(Some(Epoch(1)), now).await.unwrap_err();
    let before = replicas.requests("a");
    assert_eq!(replicas.a.attempt(Some(Epoch(1)), now).await.unwrap(), Standing::Holds(Epoch(1)));
    assert_eq!(replicas.requests("a") - before, 2, "a GET, then the PUT");
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_was_taken_learns_it_with_its_next_renewal() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    replicas.pass(5_000).await;
    let now = replicas.now();
    assert_eq!(replicas.b.attempt(None, now).await.unwrap(), Standing::Holds(Epoch(2)));
    assert_eq!(replicas.a.attempt(Some(Epoch(1)), now).await.unwrap(), Standing::AnotherHolds);
}

#[tokio::test(start_paused = true)]
async fn a_standby_hears_of_a_release_at_once() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    let Replicas { clock, a, b, .. } = &mut replicas;
    let release = async {
        clock.sleep_until(clock.now() + chrono::TimeDelta::milliseconds(2_500)).await;
        a.release(Epoch(1), clock.now()).await.unwrap();
        clock.now()
    };
    let (released, heard) = tokio::join!(release, async {
        b.chance(clock.as_ref()).await;
        clock.now()
    });
    assert_eq!(heard, released);
    let before = replicas.requests("b");
    assert_eq!(replicas.b.attempt(None, heard).await.unwrap(), Standing::Holds(Epoch(2)));
    assert_eq!(replicas.requests("b") - before, 1, "the watch showed all that the PUT needs");
}

#[tokio::test(start_paused = true)]
async fn a_standby_hears_of_a_deletion_at_once_and_never_goes_back_to_an_older_epoch() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    let (leases, clock) = (replicas.leases(), Arc::clone(&replicas.clock));
    let began = clock.now();
    let (_, ()) = tokio::join!(
        async { leases.delete(LEASE_NAME, &DeleteParams::default()).await.unwrap() },
        replicas.b.chance(clock.as_ref())
    );
    assert_eq!(clock.now(), began);
    assert_eq!(replicas.b.attempt(None, began).await.unwrap(), Standing::Holds(Epoch(2)));
    assert_eq!(replicas.a.attempt(Some(Epoch(1)), began).await.unwrap(), Standing::AnotherHolds);
}

#[tokio::test(start_paused = true)]
async fn a_standby_waits_for_the_whole_lease_from_the_last_renewal_and_asks_nothing_meanwhile() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    let before = replicas.requests("b");
    let Replicas { clock, a, b, .. } = &mut replicas;
    let renewals = async {
        let mut last = clock.now();
        for _ in 0..10 {
            clock.sleep_until(last + TIMING.retry()).await;
            last = clock.now();
            a.attempt(Some(Epoch(1)), last).await.unwrap();
        }
        last
    };
    let (last, ()) = tokio::join!(renewals, b.chance(clock.as_ref()));
    assert_eq!(clock.now(), last + TIMING.lease());
    assert_eq!(replicas.requests("b") - before, 1, "the watch");
    let now = replicas.now();
    assert_eq!(replicas.b.attempt(None, now).await.unwrap(), Standing::Holds(Epoch(2)));
}

#[tokio::test(start_paused = true)]
async fn a_standby_whose_watch_ends_looks_again_and_still_counts_from_the_renewal_that_it_saw() {
    let mut replicas = Replicas::start().await;
    replicas.a_leads().await;
    let began = replicas.now();
    let clock = Arc::clone(&replicas.clock);
    loop {
        let server = replicas.server.clone();
        let cut = async {
            clock.sleep_until(clock.now() + chrono::TimeDelta::milliseconds(1_700)).await;
            server.close_watches();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = cut => {}
            () = replicas.b.chance(clock.as_ref()) => {}
        }
        let now = clock.now();
        if replicas.b.attempt(None, now).await.unwrap() == Standing::Holds(Epoch(2)) {
            break;
        }
    }
    assert_eq!(replicas.now(), began + TIMING.lease());
}
