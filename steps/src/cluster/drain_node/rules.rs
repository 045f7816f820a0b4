//! Whose turn it is in a drain, by the rules of its update. Pure.
//!
//! Source: Cluster API book 1.12, "Machine deletion process", "Node drain" (`MachineDrainRule`): pods are evicted in groups by rising
//! order, one group after another is gone; what is waited for until it completes belongs to the group of order 0.

use crate::ports::cluster::PodView;
use cupcake_crds::values::{DrainRule, Treatment};

/// What the rules say of a pod.
pub(super) fn treatment(rules: &[DrainRule], pod: &PodView) -> Treatment {
    Treatment::of(rules, &pod.namespace, &pod.labels)
}

/// What is done now about the pods that are left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn<'p> {
    /// Those that are evicted, or on their way out.
    pub(super) evicted: Vec<&'p PodView>,
    /// Those that are waited for until they have ended by themselves.
    pub(super) completing: Vec<&'p PodView>,
    /// How many have to wait until none of these is left.
    pub(super) later: usize,
}

impl<'p> Turn<'p> {
    /// The lowest order of all that are left, whether they are evicted or waited for.
    pub(super) fn of(left: &'p [PodView], rules: &[DrainRule]) -> Self {
        let treated: Vec<(&PodView, Treatment)> = left.iter().map(|pod| (pod, treatment(rules, pod))).collect();
        let now = treated.iter().map(|(_, treatment)| treatment.turn()).min();
        let (mut evicted, mut completing, mut later) = (Vec::new(), Vec::new(), 0);
        for (pod, treatment) in treated {
            if Some(treatment.turn()) != now {
                later += 1;
            } else if treatment.evicts() {
                evicted.push(pod);
            } else {
                completing.push(pod);
            }
        }
        Self { evicted, completing, later }
    }

    /// Everybody's, since time is up.
    pub(super) fn of_all(left: &'p [PodView]) -> Self {
        Self { evicted: left.iter().collect(), completing: Vec::new(), later: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pod;
    use super::*;
    use serde_json::json;

    fn of_app(app: &str) -> PodView {
        PodView { name: app.into(), labels: [("app".to_owned(), app.to_owned())].into(), ..pod() }
    }

    fn rules() -> Vec<DrainRule> {
        let of = |app: &str| json!({"matchLabels": {"app": app}});
        serde_json::from_value(json!([
            {"action": "Evict", "order": -1, "selector": of("web")},
            {"action": "WaitCompleted", "selector": of("job")},
            {"action": "Evict", "order": 10, "selector": of("db")},
        ]))
        .unwrap()
    }

    fn turn(apps: &[&str]) -> (Vec<String>, Vec<String>, usize) {
        let left: Vec<PodView> = apps.iter().map(|app| of_app(app)).collect();
        let turn = Turn::of(&left, &rules());
        let names = |pods: &[&PodView]| pods.iter().map(|pod| pod.name.clone()).collect();
        (names(&turn.evicted), names(&turn.completing), turn.later)
    }

    #[test]
    fn groups_go_one_after_another_and_what_is_waited_for_belongs_to_those_without_an_order() {
        let told = |evicted: &[&str], completing: &[&str], later| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            (owned(evicted), owned(completing), later)
        };
        assert_eq!(turn(&["db", "job", "web", "other"]), told(&["web"], &[], 3));
        assert_eq!(turn(&["db", "job", "other"]), told(&["other"], &["job"], 1));
        assert_eq!(turn(&["db", "job"]), told(&[], &["job"], 1), "a later order waits for what is to complete");
        assert_eq!(turn(&["db"]), told(&["db"], &[], 0));
        assert_eq!(turn(&[]), told(&[], &[], 0));
    }

    #[test]
    fn when_time_is_up_nobody_has_a_turn_any_more() {
        let left = [of_app("db"), of_app("job")];
        assert_eq!(Turn::of_all(&left).evicted.len(), 2);
    }
}
