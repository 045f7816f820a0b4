//! What was checked before an update starts, as its status tells it: the checklist of what the compiler came to. Pure.

use cupcake_crds::DirectUpdateStatus;
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::direct_update::{PreflightCheck, PreflightResults};
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::preflight::{Check, Verdict, checklist};
use cupcake_workflows::{Code, Compilation, Compiled, Finding, Refusal};

/// The longest message of one check, in characters: seventeen of them beside each other still make an object of a few kilobytes.
const CHECK_CHARS_MAX: usize = 400;

/// What the checks came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    checks: Vec<PreflightCheck>,
    state: ConditionStatus,
    code: String,
    message: String,
}

impl Looked {
    /// Of what was compiled. False where something stands in the way, under the code that Stalled gives, too; Unknown where nothing is
    /// checked before the first change, because `spec.preflightChecks` is false.
    pub fn of(compiled: &Result<Compilation<Compiled>, Refusal>) -> Self {
        let list = checklist(compiled);
        let checks = list.iter().map(told).collect();
        let of = |verdict| list.iter().filter(move |check| check.verdict == verdict);
        let first = match compiled {
            Err(refusal) => refusal.findings.first(),
            Ok(_) => of(Verdict::Failed).flat_map(|check| &check.findings).next(),
        };
        let left_out = of(Verdict::Warned).flat_map(|check| &check.findings).find(|it| it.code == Code::ChecksLeftOut);
        let by = |finding: &Finding| (finding.code.to_string(), finding.to_string());
        let (state, (code, message)) = match (first, left_out) {
            (Some(finding), _) => (ConditionStatus::False, by(finding)),
            (None, Some(finding)) => (ConditionStatus::Unknown, by(finding)),
            (None, None) => {
                let warned = of(Verdict::Warned).count();
                let message =
                    format!("nothing stands in the way: {} checks, {warned} of them with a warning", list.len());
                (ConditionStatus::True, ("Passed".to_owned(), message))
            }
        };
        Self { checks, state, code, message }
    }

    /// Puts it into the status.
    pub fn show(self, status: &mut DirectUpdateStatus, now: Timestamp) {
        let passed = self.state == ConditionStatus::True;
        status.preflight_results = Some(PreflightResults { checks: self.checks, passed });
        set(status, self.state, &self.code, self.message, now);
    }
}

/// A check in the words of the API; what only warns has passed.
fn told(check: &Check) -> PreflightCheck {
    let findings = Refusal { findings: check.findings.clone(), warnings: Vec::new() };
    let message = Some(findings.message(CHECK_CHARS_MAX)).filter(|message| !message.is_empty());
    PreflightCheck { message, name: check.name.to_owned(), passed: check.verdict != Verdict::Failed }
}

/// What an update began without and waited for at its first step (a node that was not Ready) is there now.
pub fn passed_later(status: &mut DirectUpdateStatus, now: Timestamp) {
    let waited = conditions::get(&status.conditions, conditions::PREFLIGHT)
        .is_some_and(|preflight| preflight.status == ConditionStatus::False);
    if !waited {
        return;
    }
    if let Some(results) = &mut status.preflight_results {
        results.passed = true;
        for check in results.checks.iter_mut().filter(|check| !check.passed) {
            check.passed = true;
            check.message = None;
        }
    }
    set(status, ConditionStatus::True, "Passed", "what the first step waited for is there".to_owned(), now);
}

fn set(status: &mut DirectUpdateStatus, state: ConditionStatus, code: &str, message: String, now: Timestamp) {
    let condition = Condition {
        last_transition_time: now,
        message,
        observed_generation: status.observed_generation,
        reason: code.to_owned(),
        status: state,
        type_: conditions::PREFLIGHT.to_owned(),
    };
    conditions::set(&mut status.conditions, condition);
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_workflows::Report;

    fn finding(code: Code, message: &str) -> Finding {
        Finding::new(code, "nodes", "w-1", message, "mend it")
    }

    fn shown(compiled: &Result<Compilation<Compiled>, Refusal>) -> (DirectUpdateStatus, Condition) {
        let mut status = DirectUpdateStatus::default();
        Looked::of(compiled).show(&mut status, Timestamp::from_timestamp(1_790_000_000, 0).unwrap());
        let condition = conditions::get(&status.conditions, conditions::PREFLIGHT).unwrap().clone();
        (status, condition)
    }

    fn fit(warnings: Vec<Finding>) -> Compilation<Compiled> {
        let nothing = cupcake_workflows::NothingToDo {
            message: String::new(),
            plan: cupcake_engine::plan::Plan::new("test"),
            report: Report { warnings },
        };
        Compilation::NothingToDo(nothing)
    }

    #[test]
    fn what_stands_in_the_way_is_told_by_check_and_by_the_code_of_the_first_finding() {
        let long = "x".repeat(5_000);
        let refusal = Refusal {
            findings: vec![finding(Code::DiskSpace, &long), finding(Code::Downgrade, "too old")],
            warnings: vec![finding(Code::RemovedApis, "somebody asks for them")],
        };
        let (status, condition) = shown(&Err(refusal));
        assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::False, "DiskSpace"));
        let results = status.preflight_results.unwrap();
        let of = |name: &str| results.checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(["Machines", "Versions", "Apis", "Skew"].map(|name| of(name).passed), [false, false, true, true]);
        assert!(of("Apis").message.as_ref().unwrap().contains("somebody asks"), "a warning is told");
        assert_eq!((of("Skew").message.clone(), results.passed), (None, false));
        assert_eq!(of("Machines").message.as_ref().unwrap().chars().count(), CHECK_CHARS_MAX);
    }

    #[test]
    fn checks_that_are_left_out_have_neither_passed_nor_failed_and_a_node_that_comes_back_passes_later() {
        let (status, condition) = shown(&Ok(fit(vec![finding(Code::ChecksLeftOut, "nothing is checked")])));
        assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::Unknown, "ChecksLeftOut"));
        assert!(!status.preflight_results.unwrap().passed);
        let (status, condition) = shown(&Ok(fit(Vec::new())));
        assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::True, "Passed"));
        assert!(status.preflight_results.unwrap().passed);
        let (mut status, condition) = shown(&Ok(fit(vec![finding(Code::NodeNotReady, "not Ready").waited_for()])));
        assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::False, "NodeNotReady"));
        passed_later(&mut status, Timestamp::from_timestamp(1_790_000_060, 0).unwrap());
        let later = conditions::get(&status.conditions, conditions::PREFLIGHT).unwrap();
        assert_eq!((later.status, later.reason.as_str()), (ConditionStatus::True, "Passed"));
        let results = status.preflight_results.unwrap();
        assert!(results.passed && results.checks.iter().all(|check| check.passed));
    }
}
