//! Gates of a user: whether they can be measured at all, and what they came to.

use super::records::Record;
use crate::Operator;
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::direct_update::GateSeen;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::cluster::OpsError;
use cupcake_steps::ports::measures::Measured;

/// Why an update is refused whose gates can never be measured.
const QUERY_REFUSED: &str = "QueryRefused";

/// What is wrong with a gate of an update that has not begun, whatever is measured: nobody to ask, or a query that gives no number. Who
/// gives no answer now is asked again when the gate's turn comes.
pub(super) async fn unmeasurable(operator: &Operator, spec: &DirectUpdateSpec) -> Option<Reason> {
    for gate in &spec.gates {
        let told = |code: &str, what: &str| Some(Reason::new(code, format!("spec.gates, {}: {what}", gate.name)));
        match operator.ports.measures.ask(&gate.prometheus.query).await {
            Ok(Measured::Value(_) | Measured::Nothing) | Err(OpsError::Changed(_) | OpsError::Transient(_)) => {}
            Ok(Measured::Many(count)) => {
                let what =
                    format!("the query gives {count} series, one number is needed: aggregate, for example with sum()");
                return told(QUERY_REFUSED, &what);
            }
            Err(OpsError::NeedsOperator(reason)) => return told(&reason.code, &reason.message),
        }
    }
    None
}

/// What is told of gates now, with what was told before where nothing is new.
pub(super) fn seen(before: &[GateSeen], records: &[Record<'_>], now: Timestamp) -> Vec<GateSeen> {
    let mut all = before.to_vec();
    for (place, open, values) in records.iter().flat_map(Record::gates) {
        let told = GateSeen { at: now, open, place, values };
        match all.iter_mut().find(|one| one.place == told.place) {
            Some(one) if one.open == told.open && one.values == told.values => {}
            Some(one) => *one = told,
            None => all.push(told),
        }
    }
    all
}
