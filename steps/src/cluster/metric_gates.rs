//! `metric-gates/v1`: what follows waits until what a user wants measured is right, all of it at the same look.
//!
//! It changes nothing: whether the gates are open is measured, so that any replica comes to the same after any crash. One that stays closed
//! for longer than it may fails the step, and a person is asked.

use super::{again, params};
use crate::ports::cluster::{Cluster, OpsError};
use crate::ports::measures::{Measured, Measures};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use futures::future::join_all;

/// How soon it is measured again, in seconds: Prometheus scrapes about as often.
const AGAIN_SECONDS: i64 = 30;

/// Why an update waits whose gates are closed.
pub const GATE_CLOSED: &str = "GateClosed";
/// Why an update waits whose gates nobody measures now.
pub const GATE_UNMEASURED: &str = "GateUnmeasured";

/// Opens when all is measured as it has to be.
pub struct MetricGates;

#[async_trait]
impl Step<Cluster> for MetricGates {
    const KIND: &'static str = "metric-gates/v1";
    type Params = params::MetricGates;
    type Output = params::GatesMet;
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let looks = asked(ctx.ports().measures.as_ref(), &params.gates).await;
        match judged(&looks, ctx.started(), ctx.now()) {
            Judged::Open(values) => Ok(Probe::Satisfied(params::GatesMet { values })),
            Judged::Closed(reason) => Ok(Probe::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), reason))),
            Judged::Fails(reason) => Err(StepError::NeedsOperator(reason)),
        }
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Cluster>,
        _: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), Reason::new("Gate", "measuring"))))
    }
}

/// What a look at all gates came to.
#[derive(Debug, PartialEq)]
enum Judged {
    Open(String),
    Closed(Reason),
    Fails(Reason),
}

type Look<'p> = (&'p params::MetricGate, Result<Measured, OpsError>);

/// Asks for all of them at once: one that does not answer takes the time of one, whatever their number.
async fn asked<'p>(measures: &dyn Measures, gates: &'p [params::MetricGate]) -> Vec<Look<'p>> {
    join_all(gates.iter().map(async |gate| (gate, measures.ask(&gate.query).await))).await
}

/// Whether all are open; the values of all of them are told either way.
fn judged(looks: &[Look<'_>], started: Timestamp, now: Timestamp) -> Judged {
    let (mut told, mut closed, mut code, mut over) = (Vec::new(), false, GATE_CLOSED, false);
    for (gate, look) in looks {
        let name = &gate.name;
        let open = match look {
            Ok(Measured::Value(value)) => {
                let open = is_open(gate, *value);
                let wants = if open { String::new() } else { format!(", has to be {}", wanted(gate)) };
                told.push(format!("{name} is {}{wants}", shown_beside(gate, *value)));
                open
            }
            Ok(Measured::Nothing) => {
                told.push(format!("{name} has no value, has to be {}", wanted(gate)));
                false
            }
            Ok(Measured::Many(count)) => {
                told.push(format!("{name} gives {count} series, one number is needed"));
                false
            }
            Err(OpsError::Changed(reason) | OpsError::Transient(reason)) => {
                told.push(format!("{name} is not measured: {}", reason.message));
                code = GATE_UNMEASURED;
                false
            }
            Err(OpsError::NeedsOperator(reason)) => {
                return Judged::Fails(Reason::new(&reason.code, format!("gate {name}: {}", reason.message)));
            }
        };
        closed |= !open;
        over |= !open && now >= started + TimeDelta::seconds(i64::from(gate.seconds_max));
    }
    let values = told.join("; ");
    match (closed, over) {
        (false, _) => Judged::Open(values),
        (true, false) => Judged::Closed(Reason::new(code, values)),
        (true, true) => {
            Judged::Fails(Reason::new(code, format!("closed for longer than spec.gates lets it: {values}")))
        }
    }
}

/// What is no number is neither small nor great enough.
fn is_open(gate: &params::MetricGate, value: f64) -> bool {
    !value.is_nan() && gate.at_least.is_none_or(|least| value >= least) && gate.at_most.is_none_or(|most| value <= most)
}

fn wanted(gate: &params::MetricGate) -> String {
    let least = gate.at_least.map(|least| format!("at least {least}"));
    let most = gate.at_most.map(|most| format!("at most {most}"));
    least.into_iter().chain(most).collect::<Vec<_>>().join(" and ")
}

/// The value as it is told: whole where its first digits alone would be right and it is not.
fn shown_beside(gate: &params::MetricGate, value: f64) -> String {
    let text = shown(value);
    let misleads = !is_open(gate, value) && text.parse().is_ok_and(|rounded| is_open(gate, rounded));
    if misleads { format!("{value}") } else { text }
}

/// Three digits that matter: a value that hardly moves is no news.
fn shown(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    if !(1e-12..1e15).contains(&value.abs()) {
        return format!("{value:.2e}");
    }
    let digits = 2.0 - value.abs().log10().floor();
    let scale = 10_f64.powf(digits.clamp(0.0, 15.0));
    format!("{}", (value * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn gate(name: &str, at_least: Option<f64>, at_most: Option<f64>) -> params::MetricGate {
        params::MetricGate { at_least, at_most, name: name.into(), query: "q".into(), seconds_max: 600 }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn gates_open_when_all_are_right_at_one_look_and_else_tell_every_value_and_what_it_has_to_be() {
        let (errors, ready) = (gate("errors", None, Some(0.01)), gate("ready", Some(0.99), Some(1.0)));
        let look = |one, two, seconds| judged(&[(&errors, Ok(one)), (&ready, Ok(two))], at(0), at(seconds));
        let value = Measured::Value;
        assert_eq!(look(value(0.01), value(0.99), 0), Judged::Open("errors is 0.01; ready is 0.99".into()));
        let closed = |message: &str| Judged::Closed(Reason::new(GATE_CLOSED, message));
        assert_eq!(
            look(value(0.034_56), value(1.0), 599),
            closed("errors is 0.0346, has to be at most 0.01; ready is 1")
        );
        let told = "errors is 0; ready is 1.01, has to be at least 0.99 and at most 1";
        assert_eq!(look(value(0.0), value(1.01), 0), closed(told));
        let told = "errors has no value, has to be at most 0.01; ready is NaN, has to be at least 0.99 and at most 1";
        assert_eq!(look(Measured::Nothing, value(f64::NAN), 0), closed(told));
        let Judged::Fails(over) = look(value(1.0), value(1.0), 600) else { panic!("its time is over") };
        assert_eq!(over.code, GATE_CLOSED);
        assert!(over.message.ends_with("errors is 1, has to be at most 0.01; ready is 1"), "{}", over.message);
        assert_eq!(
            look(value(0.0), value(1.0), 9_999),
            Judged::Open("errors is 0; ready is 1".into()),
            "late is right"
        );
    }

    /// Never answers, and counts who asks.
    #[derive(Default)]
    struct Silent(AtomicU32);

    #[async_trait]
    impl Measures for Silent {
        async fn ask(&self, _: &str) -> Result<Measured, OpsError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        }
    }

    #[test]
    fn all_gates_are_asked_at_once_so_that_one_without_an_answer_takes_the_time_of_one() {
        let gates = ["a", "b", "c"].map(|name| gate(name, None, Some(1.0)));
        let silent = Silent::default();
        assert!(asked(&silent, &gates).now_or_never().is_none());
        assert_eq!(silent.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_value_whose_first_digits_would_be_right_is_told_whole_where_it_is_not() {
        let errors = gate("errors", None, Some(0.01));
        let told = |value| judged(&[(&errors, Ok(Measured::Value(value)))], at(0), at(0));
        let closed = |message: &str| Judged::Closed(Reason::new(GATE_CLOSED, message));
        assert_eq!(told(0.010_004), closed("errors is 0.010004, has to be at most 0.01"));
        assert_eq!(told(0.010_06), closed("errors is 0.0101, has to be at most 0.01"));
        assert_eq!(told(0.009_999_9), Judged::Open("errors is 0.01".into()));
    }

    #[test]
    fn who_gives_no_answer_is_waited_for_as_long_and_one_who_never_will_is_told_at_once() {
        let errors = gate("errors", None, Some(0.01));
        let away = || Err(OpsError::Transient(Reason::new("PrometheusAway", "no answer")));
        let waits = Judged::Closed(Reason::new(GATE_UNMEASURED, "errors is not measured: no answer"));
        assert_eq!(judged(&[(&errors, away())], at(0), at(599)), waits);
        assert!(matches!(judged(&[(&errors, away())], at(0), at(600)), Judged::Fails(_)));
        let never = Err(OpsError::NeedsOperator(Reason::new("QueryRefused", "parse error")));
        let told = Judged::Fails(Reason::new("QueryRefused", "gate errors: parse error"));
        assert_eq!(judged(&[(&errors, never)], at(0), at(0)), told);
    }

    #[test]
    fn values_are_told_with_three_digits_that_matter() {
        let told: Vec<String> =
            [0.0, 1.0, 1234.5, 0.000_123_456, -2.345_6, 99.95, 1e300, f64::INFINITY].into_iter().map(shown).collect();
        assert_eq!(told[..6], ["0", "1", "1235", "0.000123", "-2.35", "100"]);
        assert_eq!(told[6..], ["1.00e300", "inf"]);
    }
}
