//! What a drain does about which pods, where the user says something else than "evict them all at once".
//!
//! The semantics are those of Cluster API's `MachineDrainRule` (Cluster API book 1.12, "Machine deletion process", "Node drain"): actions,
//! turns by rising order, pods that are waited for in the turn of order 0. Other than there the first rule of a list counts, not the
//! first one by name; namespaces are named, not selected by their labels; and a rule has to select something.

use crate::limits;
use crate::validate::direct_update as rules;
use kube_derive::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a drain does about a pod: Skip, WaitCompleted or Evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DrainAction {
    /// It stays where it is, and nobody waits for it.
    Skip,
    /// It is not evicted, and waited for until it has ended by itself.
    WaitCompleted,
    /// It is evicted when its turn comes.
    Evict,
}

/// What a drain does about the pods that a rule selects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ORDER_OF_EVICT, validation = rules::RULE_SELECTS)]
pub struct DrainRule {
    /// What is done about them: Skip (they stay where they are while the kubelet restarts, and nobody waits for them), WaitCompleted (they are not evicted, and waited for until they have ended by themselves, within the drain's time; then onExpiry) or Evict (they are evicted in the turn of their order). Example: WaitCompleted
    pub action: DrainAction,
    /// Only pods of these namespaces; of all if left out. Example: ["batch"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::DRAIN_RULE_NAMESPACES_MAX), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Their turn, with action Evict alone: lower ones are evicted first, and have to be gone before the next ones are; 0 if left out, as of pods that no rule selects. Example: 10
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = i32::MIN, max = i32::MAX))]
    pub order: Option<i32>,
    /// Only pods with these labels; whatever their labels if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodSelector>,
}

/// Which pods, by their labels: all that is written here has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// What has to hold of single labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::DRAIN_RULE_EXPRESSIONS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<PodRequirement>,
    /// Labels that they have to have. Example: {"app": "db"}
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "match_labels_schema")]
    pub match_labels: BTreeMap<String, String>,
}

/// What has to hold of one label of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::VALUES_OF_OPERATOR)]
pub struct PodRequirement {
    /// Key of the label. Example: tier
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// What has to hold of it: In (its value is one of values), NotIn (it is none of them, or there is no such label), Exists or DoesNotExist. Example: In
    pub operator: LabelOperator,
    /// The values that In and NotIn speak of. Example: ["cache", "batch"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::DRAIN_RULE_VALUES_MAX), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// How a label is looked at: In, NotIn, Exists or DoesNotExist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// Its value is one of those.
    In,
    /// Its value is none of those, or there is no such label.
    NotIn,
    /// There is such a label.
    Exists,
    /// There is no such label.
    DoesNotExist,
}

/// Labels, fewer than a selector of nodes has: a plan holds the rules once for each hop and visit.
fn match_labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": limits::DRAIN_RULE_LABELS_MAX,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// What the rules of an update come to for one pod that a drain would evict otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It stays.
    Skip,
    /// It is waited for.
    WaitCompleted,
    /// It is evicted in that turn.
    Evict(i32),
}

impl Treatment {
    /// Of a pod in that namespace with these labels: what the first rule says that selects it, else eviction in turn 0.
    pub fn of(rules: &[DrainRule], namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let first = rules.iter().find(|rule| rule.selects(namespace, labels));
        first.map_or(Self::Evict(0), |rule| match rule.action {
            DrainAction::Skip => Self::Skip,
            DrainAction::WaitCompleted => Self::WaitCompleted,
            DrainAction::Evict => Self::Evict(rule.order.unwrap_or_default()),
        })
    }

    /// Whether a drain evicts such a pod.
    pub fn evicts(self) -> bool {
        matches!(self, Self::Evict(_))
    }

    /// The turn that it belongs to: what is waited for belongs to that of pods without an order.
    pub fn turn(self) -> i32 {
        match self {
            Self::Skip | Self::WaitCompleted => 0,
            Self::Evict(order) => order,
        }
    }
}

impl DrainRule {
    /// Whether it selects a pod in that namespace with these labels.
    pub fn selects(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let here = self.namespaces.is_empty() || self.namespaces.iter().any(|one| one == namespace);
        here && self.selector.as_ref().is_none_or(|selector| selector.matches(labels))
    }

    /// Whether it says which pods it is about.
    pub(crate) fn says_which(&self) -> bool {
        let labels =
            |selector: &PodSelector| !selector.match_labels.is_empty() || !selector.match_expressions.is_empty();
        !self.namespaces.is_empty() || self.selector.as_ref().is_some_and(labels)
    }
}

impl PodSelector {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels.get(&requirement.key)))
    }
}

impl PodRequirement {
    /// Source: kubernetes.io, "Labels and Selectors" (v1.34): `NotIn` holds without the label, too.
    fn holds(&self, value: Option<&String>) -> bool {
        let is_listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            LabelOperator::In => is_listed,
            LabelOperator::NotIn => !is_listed,
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }

    /// Whether its values are those that its operator takes.
    pub(crate) fn is_sound(&self) -> bool {
        match self.operator {
            LabelOperator::In | LabelOperator::NotIn => !self.values.is_empty(),
            LabelOperator::Exists | LabelOperator::DoesNotExist => self.values.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rules(rules: &Value) -> Vec<DrainRule> {
        serde_json::from_value(rules.clone()).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_rule_that_selects_a_pod_counts_and_a_pod_without_one_is_evicted_in_turn_0() {
        let rules = rules(&json!([
            {"action": "Skip", "namespaces": ["storage"], "selector": {"matchLabels": {"app": "osd"}}},
            {"action": "WaitCompleted", "namespaces": ["batch", "ci"]},
            {"action": "Evict", "order": 10, "selector": {"matchLabels": {"app": "db"}}},
            {"action": "Evict", "order": -5, "selector": {"matchLabels": {"tier": "web"}}},
            {"action": "Evict", "namespaces": ["storage"]},
        ]));
        for (namespace, pairs, expected) in [
            ("storage", vec![("app", "osd")], Treatment::Skip),
            ("other", vec![("app", "osd")], Treatment::Evict(0)),
            ("ci", vec![("app", "db")], Treatment::WaitCompleted),
            ("shop", vec![("app", "db"), ("tier", "web")], Treatment::Evict(10)),
            ("shop", vec![("tier", "web")], Treatment::Evict(-5)),
            ("storage", vec![("app", "mon")], Treatment::Evict(0)),
            ("shop", vec![], Treatment::Evict(0)),
        ] {
            assert_eq!(Treatment::of(&rules, namespace, &labels(&pairs)), expected, "{namespace} {pairs:?}");
        }
        assert_eq!(Treatment::of(&[], "shop", &labels(&[])), Treatment::Evict(0));
    }

    #[test]
    fn requirements_hold_as_those_of_kubernetes_do() {
        let selects = |operator: &str, values: &[&str], pairs: &[(&str, &str)]| {
            let expressions = json!([{"key": "tier", "operator": operator, "values": values}]);
            let rules = rules(&json!([{"action": "Skip", "selector": {"matchExpressions": expressions}}]));
            rules[0].selects("shop", &labels(pairs))
        };
        let (cache, web, none) = ([("tier", "cache")], [("tier", "web")], []);
        let of = |operator, values: &[&str]| {
            [selects(operator, values, &cache), selects(operator, values, &web), selects(operator, values, &none)]
        };
        assert_eq!(of("In", &["cache", "batch"]), [true, false, false]);
        assert_eq!(of("NotIn", &["cache", "batch"]), [false, true, true]);
        assert_eq!(of("Exists", &[]), [true, true, false]);
        assert_eq!(of("DoesNotExist", &[]), [false, false, true]);
    }
}
