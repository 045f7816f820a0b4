//! Leadership: one Lease, and the epoch that is taken with it.
//!
//! The lease is for efficiency only: two leaders may believe in themselves at once, and the epoch keeps them from harm. A
//! replica that wins the lease takes 1 + the highest epoch that stands in the Lease (if it is new: in runs and tasks), and writes
//! both with one PUT under the resourceVersion that it saw (renewals in the API server's leader-election priority level are get, create and update; a patch
//! would not be).
//!
//! ```text
//!  holder    PUT ─► answer ─► PUT ─► answer ...        each under the resourceVersion of the answer before
//!                └► refused, failed or unheard: GET, compare, then decide
//!  standby   GET ─► WATCH from there ─► released, deleted, or silent for its whole duration ─► PUT
//!                       └► ended or refused: GET again, at the earliest after retry_seconds
//! ```
//!
//! RBAC: get, create, update, watch on leases in the release namespace; list on upgraderuns and nodetasks.

use crate::adapters::views::timestamp;
use chrono::TimeDelta;
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_engine::names::Epoch;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use std::collections::BTreeMap;

/// Name of the Lease.
pub const LEASE_NAME: &str = "cupcake-operator";
/// Where the epoch stands in the Lease.
pub const EPOCH_ANNOTATION: &str = "cupcake.ricardomolendijk.com/epoch";

/// How long a lease holds, and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A holder that was not heard of for this long has lost it, in seconds.
    pub lease_seconds: u32,
    /// How often a holder renews, and how soon others look again where they cannot watch, in seconds.
    pub retry_seconds: u32,
}

impl Timing {
    /// After how much silence a lease is lost.
    pub fn lease(self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.lease_seconds.max(1)))
    }

    /// How long to wait before the next look or renewal.
    pub fn retry(self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.retry_seconds.max(1)))
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease_seconds: 5, retry_seconds: 1 }
    }
}

/// How often one attempt looks and writes: once, and once more after a refusal, by which it learns that it had seen too little.
const ROUNDS_MAX: usize = 2;

/// The lease as this replica saw it last.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    uid: Option<String>,
    resource_version: Option<String>,
    holder: Option<String>,
    /// When this replica first saw that renewal, by its own clock: the holder's clock proves nothing.
    observed: Option<Timestamp>,
    renewed: Option<Timestamp>,
    acquired: Option<MicroTime>,
    transitions: i32,
    epoch: u64,
}

/// Whether what was seen may be built upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// An answer or a watch showed it. A write under its resourceVersion is safe: if it is old by now, it is refused.
    Clear,
    /// A write was sent since, and its outcome was not heard, or was a refusal: look before anything else.
    Doubtful,
}

/// What one attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// This replica holds the lease, under that epoch.
    Holds(Epoch),
    /// Another one does.
    AnotherHolds,
    /// Others were faster every time: nothing is known.
    Unknown,
}

/// How a watch ended.
enum Watched {
    /// The lease may be had.
    Chance,
    /// By itself: nothing is known.
    Ended,
}

/// What to do about the lease now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It does not exist: create it and lead.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Its holder is gone: take it and lead under a new epoch.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// Whether a replica may take, must renew or has to wait. Pure.
pub fn next_move(seen: &Seen, identity: &str, timing: Timing, now: Timestamp) -> Move {
    if seen.resource_version.is_none() {
        return Move::Create;
    }
    let holder = seen.holder.as_deref().filter(|holder| !holder.is_empty());
    let expired = seen.observed.is_none_or(|at| now - at >= timing.lease());
    match holder {
        None => Move::Take,
        Some(holder) if holder == identity => Move::Renew,
        Some(_) if expired => Move::Take,
        Some(_) => Move::Wait,
    }
}

/// The Lease of one namespace, from one replica's view.
pub struct LeaseLock {
    client: kube::Client,
    api: Api<Lease>,
    identity: String,
    timing: Timing,
    seen: Seen,
    sight: Sight,
    /// The last sign of life of the leader before, from the first try to take the lease to the first renewal of its own.
    silent_since: Option<Timestamp>,
    /// Between that sign of life and this replica's own beginning, if it took the lease from one.
    unled: Option<(Timestamp, Timestamp)>,
}

impl LeaseLock {
    /// The lease in that namespace, for a replica of that identity.
    pub fn new(client: kube::Client, namespace: &str, identity: &str, timing: Timing) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        let (seen, sight) = (Seen::default(), Sight::Doubtful);
        Self { client, api, identity: identity.to_owned(), timing, seen, sight, silent_since: None, unled: None }
    }

    /// Renews or takes the lease if that is this replica's to do.
    ///
    /// `led` is the epoch under which it led until now, if it did. A replica that finds its own name in the lease without
    /// having led (it crashed and came back) takes it anew, under a new epoch.
    ///
    /// # Guarantees
    /// A write whose outcome was not heard is never repeated blindly: the next attempt looks first. Cancel-safe: so does the
    /// attempt after one that was dropped.
    pub async fn attempt(&mut self, led: Option<Epoch>, now: Timestamp) -> Result<Standing, kube::Error> {
        for _ in 0..ROUNDS_MAX {
            self.look(now).await?;
            let step = match next_move(&self.seen, &self.identity, self.timing, now) {
                Move::Renew if led != Some(Epoch(self.seen.epoch)) => Move::Take,
                other => other,
            };
            let epoch = match step {
                Move::Wait => {
                    self.silent_since = None;
                    return Ok(Standing::AnotherHolds);
                }
                Move::Renew => Epoch(self.seen.epoch),
                // A Lease that was deleted and one without our annotation tell nothing, and others may have led since this replica
                // saw one: what carries an epoch tells.
                Move::Create => Epoch(self.seen.epoch.max(crate::epoch::highest(&self.client).await?.0) + 1),
                Move::Take if self.seen.epoch == 0 => Epoch(crate::epoch::highest(&self.client).await?.0 + 1),
                Move::Take => Epoch(self.seen.epoch + 1),
            };
            let transitions = self.seen.transitions + i32::from(step == Move::Take);
            if step == Move::Take {
                // Before the write: one whose answer is lost shows this replica's own time from then on.
                self.silent_since = self.silent_since.or(self.seen.renewed);
            }
            let acquired = self.seen.acquired.clone().filter(|_| step == Move::Renew);
            let mut lease = self.lease(Some(&self.identity), epoch, transitions, now);
            if let (Some(spec), Some(acquired)) = (&mut lease.spec, acquired) {
                spec.acquire_time = Some(acquired);
            }
            if self.write(step, &lease, now).await? {
                match step {
                    Move::Take => self.unled = self.silent_since.map(|since| (since, now)),
                    Move::Renew => self.silent_since = None,
                    Move::Create | Move::Wait => {}
                }
                return Ok(Standing::Holds(epoch));
            }
        }
        Ok(Standing::Unknown)
    }

    /// From when to when nobody led before this replica did, as far as clocks of two machines can tell.
    pub fn unled(&self) -> Option<(Timestamp, Timestamp)> {
        self.unled
    }

    /// Takes note of an epoch that stands somewhere: the next one that this replica takes is greater.
    pub fn knows_of(&mut self, epoch: Epoch) {
        self.seen.epoch = self.seen.epoch.max(epoch.0);
    }

    /// Waits until another attempt is worth its request: the lease was released or deleted, its holder was silent for its whole
    /// duration by this replica's own clock, or nothing is known of it any more. Cancel-safe.
    pub async fn chance(&mut self, clock: &dyn Clock) {
        // Watches that end at once must not become a loop without a pause.
        let again = clock.now() + self.timing.retry();
        if self.sight == Sight::Clear {
            match self.watch(clock).await {
                Ok(Watched::Chance) => return,
                Ok(Watched::Ended) => {}
                Err(error) => tracing::debug!(error = crate::error_chain(&error), "lease not watched; looking again"),
            }
            self.sight = Sight::Doubtful;
        }
        let (now, expiry) = (clock.now(), self.expiry(clock));
        clock.sleep_until(if now < expiry { again.min(expiry) } else { again }).await;
    }

    /// Gives the lease up, so that the next replica need not wait for it to expire.
    pub async fn release(&mut self, epoch: Epoch, now: Timestamp) -> Result<(), kube::Error> {
        for _ in 0..ROUNDS_MAX {
            self.look(now).await?;
            if self.seen.holder.as_deref() != Some(&self.identity) || self.seen.epoch != epoch.0 {
                return Ok(());
            }
            let lease = self.lease(None, epoch, self.seen.transitions, now);
            if self.write(Move::Renew, &lease, now).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sees to it that the lease is seen clearly.
    async fn look(&mut self, now: Timestamp) -> Result<(), kube::Error> {
        if self.sight == Sight::Doubtful {
            match self.api.get_opt(LEASE_NAME).await? {
                Some(lease) => self.note(&lease, now),
                None => self.is_gone(),
            }
        }
        Ok(())
    }

    /// Writes the lease under what was seen; gives whether it stands. Until the answer says so, nothing is clear.
    async fn write(&mut self, step: Move, lease: &Lease, now: Timestamp) -> Result<bool, kube::Error> {
        self.sight = Sight::Doubtful;
        let written = match step {
            Move::Create => self.api.create(&PostParams::default(), lease).await,
            Move::Renew | Move::Take | Move::Wait => self.api.replace(LEASE_NAME, &PostParams::default(), lease).await,
        };
        match written {
            Ok(written) => {
                self.note(&written, now);
                Ok(true)
            }
            // Another replica was faster, our own earlier request landed late, or somebody deleted it: the next look tells.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn watch(&mut self, clock: &dyn Clock) -> Result<Watched, kube::Error> {
        let params = WatchParams::default().fields(&format!("metadata.name={LEASE_NAME}"));
        let version = self.seen.resource_version.clone().unwrap_or_default();
        let opening = self.api.watch(&params, &version);
        let mut events = tokio::select! {
            biased;
            opened = opening => opened?.boxed(),
            () = clock.sleep_until(self.expiry(clock)) => return Ok(Watched::Chance),
        };
        loop {
            let event = tokio::select! {
                biased;
                event = events.next() => Some(event),
                () = clock.sleep_until(self.expiry(clock)) => None,
            };
            match event {
                Some(Some(Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease)))) => {
                    self.note(&lease, clock.now());
                }
                Some(Some(Ok(WatchEvent::Deleted(_)))) => self.is_gone(),
                Some(Some(Ok(WatchEvent::Bookmark(_)))) | None => {}
                Some(Some(Ok(WatchEvent::Error(status)))) => return Err(kube::Error::Api(status)),
                Some(Some(Err(error))) => return Err(error),
                Some(None) => return Ok(Watched::Ended),
            }
            if next_move(&self.seen, &self.identity, self.timing, clock.now()) != Move::Wait {
                return Ok(Watched::Chance);
            }
        }
    }

    /// When the lease is lost to its holder if nothing more is heard of it.
    fn expiry(&self, clock: &dyn Clock) -> Timestamp {
        self.seen.observed.unwrap_or_else(|| clock.now()) + self.timing.lease()
    }

    fn is_gone(&mut self) {
        self.seen = Seen { epoch: self.seen.epoch, ..Seen::default() };
        self.sight = Sight::Clear;
    }

    fn note(&mut self, lease: &Lease, now: Timestamp) {
        let spec = lease.spec.clone().unwrap_or_default();
        let renewed = spec
            .renew_time
            .as_ref()
            .and_then(|time| timestamp(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time.0)));
        let annotations = lease.metadata.annotations.as_ref();
        let epoch = annotations.and_then(|all| all.get(EPOCH_ANNOTATION)).and_then(|text| text.parse().ok());
        let unchanged = self.seen.renewed == renewed && self.seen.holder == spec.holder_identity;
        self.seen = Seen {
            uid: lease.metadata.uid.clone(),
            resource_version: lease.metadata.resource_version.clone(),
            holder: spec.holder_identity,
            observed: if unchanged { self.seen.observed.or(Some(now)) } else { Some(now) },
            renewed,
            acquired: spec.acquire_time,
            transitions: spec.lease_transitions.unwrap_or(0),
            epoch: epoch.unwrap_or(0).max(self.seen.epoch),
        };
        self.sight = Sight::Clear;
    }

    fn lease(&self, holder: Option<&str>, epoch: Epoch, transitions: i32, now: Timestamp) -> Lease {
        let micro = jiff::Timestamp::from_microsecond(now.timestamp_micros()).ok().map(MicroTime);
        Lease {
            metadata: ObjectMeta {
                name: Some(LEASE_NAME.to_owned()),
                // An API server creates a Lease by PUT where there is none, whatever resourceVersion it carries: without the UID,
                // a holder that slept would bring back a lease that was deleted, with its own epoch, which is past.
                uid: self.seen.uid.clone(),
                resource_version: self.seen.resource_version.clone(),
                annotations: Some(BTreeMap::from([(EPOCH_ANNOTATION.to_owned(), epoch.to_string())])),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: i32::try_from(self.timing.lease_seconds).ok(),
                lease_transitions: Some(transitions),
                renew_time: micro.clone(),
                acquire_time: micro,
                ..LeaseSpec::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: Option<&str>, observed: i64) -> Seen {
        Seen {
            resource_version: Some("7".into()),
            holder: holder.map(str::to_owned),
            observed: Timestamp::from_timestamp(observed, 0),
            ..Seen::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_its_holder_was_silent_for_its_whole_duration() {
        let timing = Timing { lease_seconds: 5, retry_seconds: 1 };
        let at = |seconds| Timestamp::from_timestamp(seconds, 0).unwrap();
        assert_eq!(next_move(&Seen::default(), "a", timing, at(0)), Move::Create);
        assert_eq!(next_move(&seen(None, 0), "a", timing, at(0)), Move::Take);
        assert_eq!(next_move(&seen(Some(""), 0), "a", timing, at(0)), Move::Take);
        assert_eq!(next_move(&seen(Some("a"), 0), "a", timing, at(100)), Move::Renew);
        assert_eq!(next_move(&seen(Some("b"), 0), "a", timing, at(4)), Move::Wait);
        assert_eq!(next_move(&seen(Some("b"), 0), "a", timing, at(5)), Move::Take);
    }
}
