//! Gates: where an update waits for a person or for those who went first, by name.

use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::ApprovalPoint;
use std::fmt;

/// How long those that went first are watched where nobody has to approve, in seconds.
pub(crate) const SOAK_SECONDS_DEFAULT: u32 = 300;
/// The longest soak, in seconds: three days.
pub(crate) const SOAK_SECONDS_MAX: u32 = 259_200;
/// How long a gate may stay closed before its run rests, in seconds: six days, a day less than what waits for its run above.
pub(crate) const GATE_SECONDS: u32 = 518_400;

/// The name of a gate of a hop.
pub fn gate_name(hop: impl fmt::Display, point: ApprovalPoint) -> String {
    let gate = match point {
        ApprovalPoint::AfterCanary => "canary-gate",
        ApprovalPoint::BeforeEachHop => "hop-gate",
        ApprovalPoint::BeforeControlPlane => "control-plane-gate",
    };
    format!("{hop}/{gate}")
}

/// All gates that people open in an update through those hops, in order.
pub fn gates_of(spec: &DirectUpdateSpec, hops: &[String]) -> Vec<String> {
    let points = [ApprovalPoint::BeforeEachHop, ApprovalPoint::BeforeControlPlane, ApprovalPoint::AfterCanary];
    let asked = |point: &ApprovalPoint| spec.approvals.contains(point);
    hops.iter().flat_map(|hop| points.into_iter().filter(asked).map(move |point| gate_name(hop, point))).collect()
}

/// Who opened that gate, if somebody did: one who does not say who they are has not.
pub fn opened_by<'s>(spec: &'s DirectUpdateSpec, gate: &str) -> Option<&'s str> {
    let approvals = spec.control.iter().flat_map(|control| &control.approvals);
    approvals.into_iter().find_map(|one| one.requested_by.as_deref().filter(|by| one.gate == gate && !by.is_empty()))
}
