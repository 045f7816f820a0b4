//! From an order to a plan: pure. What cannot be done is refused whole, before anything is.
//!
//! ```text
//!   prepare/<step> ─► prepare/<step> ─► await-proceed ─► finish/<step> ─► finish/<step>
//! ```

use cupcake_crds::node_task::{ErrorClass, Order, TaskError};
use cupcake_crds::values::HostStep;
use cupcake_engine::names::{StepKind, VertexName};
use cupcake_engine::plan::{Plan, VertexTemplate};
use cupcake_steps::host::params::{AWAIT_PROCEED, KUBEADM_UPGRADE, ORDER_KINDS};
use serde_json::{Value, json};

/// The name of the vertex that waits between the two parts.
pub const AWAIT: &str = "await-proceed";
/// The compiler's name and version, as plans carry it.
const COMPILER: &str = "host-order/1";
/// How long an order may wait for proceed, in seconds: a year. Its deadline does not count this time.
const WAIT_SECONDS_MAX: u32 = 31_536_000;

/// The plan of an order, or why it is refused.
pub fn compile(order: &Order) -> Result<Plan, TaskError> {
    let mut plan = Plan::new(COMPILER);
    let mut last: Option<String> = None;
    let mut append = |plan: &mut Plan, vertex: VertexTemplate| {
        let after: Vec<String> = last.iter().cloned().collect();
        last = Some(vertex.name.clone());
        plan.vertex(VertexTemplate { after, ..vertex });
    };
    for step in &order.prepare {
        append(&mut plan, vertex_of("prepare", step, order.deadline_seconds)?);
    }
    if !order.finish.is_empty() {
        let kind = StepKind::new(AWAIT_PROCEED).expect("the kind of a step of this release");
        let wait = VertexTemplate::new(AWAIT, kind, json!({}), &[]).deadline_seconds(WAIT_SECONDS_MAX);
        append(&mut plan, wait);
    }
    for step in &order.finish {
        append(&mut plan, vertex_of("finish", step, order.deadline_seconds)?);
    }
    if plan.parts.is_empty() {
        return Err(refusal("EmptyOrder", "the order holds no step"));
    }
    match plan.expand() {
        Ok(_) => Ok(plan),
        Err(error) => Err(refusal("BadOrder", format!("{error}: names of steps need to be unique in their part"))),
    }
}

/// The name of the step that a vertex stands for, as the order has it.
pub fn step_of(vertex: &VertexName) -> &str {
    vertex.as_str().split_once('/').map_or(vertex.as_str(), |(_, step)| step)
}

/// A refusal that no repetition of the same order changes.
pub fn refusal(code: &str, message: impl Into<String>) -> TaskError {
    TaskError { class: ErrorClass::NeedsOperator, code: code.to_owned(), message: message.into() }
}

fn vertex_of(part: &str, step: &HostStep, deadline_seconds: u32) -> Result<VertexTemplate, TaskError> {
    if !ORDER_KINDS.contains(&step.kind.as_str()) {
        let message = format!(
            "step {} has kind {}, which this runner does not have: run agent and operator of one release",
            step.name, step.kind
        );
        return Err(refusal("UnknownStepKind", message));
    }
    let name = format!("{part}/{}", step.name);
    if step.name.contains('/') || VertexName::new(name.clone()).is_err() {
        let message = format!("step name {:?} may hold letters, digits, '.', '_' and '-' only", step.name);
        return Err(refusal("BadOrder", message));
    }
    let kind = StepKind::new(step.kind.clone()).map_err(|error| refusal("UnknownStepKind", error.to_string()))?;
    let params = Value::Object(step.params.clone());
    let vertex = VertexTemplate::new(name, kind, params, &[]).deadline_seconds(deadline_seconds);
    // Who ordered it decides whether kubeadm runs again, and orders anew: each run waits for minutes and copies etcd's data.
    // What passes by itself is waited for before kubeadm begins.
    Ok(if step.kind == KUBEADM_UPGRADE { VertexTemplate { attempts_max: 1, ..vertex } } else { vertex })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{NEW, order, step};
    use cupcake_steps::host::params::{self, PULL_IMAGES, RESTART_KUBELET};

    fn names(order: &Order) -> Vec<String> {
        let dag = compile(order).unwrap().expand().unwrap();
        dag.vertices().iter().map(|vertex| vertex.name.to_string()).collect()
    }

    #[test]
    fn an_order_in_two_parts_waits_between_them_and_one_in_one_part_does_not() {
        let whole = order(1);
        let expected = [
            "prepare/switch-repository",
            "prepare/install-kubeadm",
            "prepare/kubeadm-upgrade",
            "await-proceed",
            "finish/install-kubelet",
            "finish/restart-kubelet",
        ];
        assert_eq!(names(&whole), expected);
        let dag = compile(&whole).unwrap().expand().unwrap();
        for pair in dag.vertices().windows(2) {
            assert_eq!(pair[1].after, [pair[0].name.clone()]);
        }
        let one_part = Order { finish: Vec::new(), ..whole.clone() };
        assert_eq!(names(&one_part), expected[..3]);
        let second_only = Order { prepare: Vec::new(), ..whole };
        assert_eq!(names(&second_only), expected[3..]);
    }

    #[test]
    fn what_cannot_be_done_whole_is_refused_by_name() {
        let restart = step("restart-kubelet", RESTART_KUBELET, &params::RestartKubelet { version: NEW });
        let pull = step("restart-kubelet", PULL_IMAGES, &params::PullImages { version: NEW });
        let upgrade = |name: &str, kind: &str| HostStep { name: name.into(), kind: kind.into(), ..pull.clone() };
        let cases = [
            (vec![], "EmptyOrder"),
            (vec![upgrade("x", "format-disk/v1")], "UnknownStepKind"),
            (vec![upgrade("x", AWAIT_PROCEED)], "UnknownStepKind"),
            (vec![upgrade("a/b", KUBEADM_UPGRADE)], "BadOrder"),
            (vec![upgrade("", KUBEADM_UPGRADE)], "BadOrder"),
            (vec![restart, pull], "BadOrder"),
        ];
        for (prepare, code) in cases {
            let order = Order { prepare, finish: Vec::new(), ..order(1) };
            assert_eq!(compile(&order).unwrap_err().code, code, "{order:?}");
        }
    }
}
