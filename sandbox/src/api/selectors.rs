//! Label and field selectors: parsing and matching.
//!
//! Source: `k8s.io/apimachinery/pkg/labels/selector.go`, `pkg/fields/selector.go`.

use super::resource::Resource;
use super::status::Failure;
use serde_json::Value;

/// A parsed label selector; empty matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Parses the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let Some(requirement) = parse_requirement(part) else {
                return Err(Failure::bad_request(format!(
                    "unable to parse requirement: found '{part}', expected: a label requirement such as key=value"
                )));
            };
            requirements.push(requirement);
        }
        Ok(Self(requirements))
    }

    /// The selector of a `metav1.LabelSelector` object; `None` (absent) matches nothing.
    pub(super) fn from_object(value: Option<&Value>) -> Option<Self> {
        let value = value?.as_object()?;
        let mut requirements = Vec::new();
        if let Some(labels) = value.get("matchLabels").and_then(Value::as_object) {
            for (key, wanted) in labels {
                requirements.push(Requirement {
                    key: key.clone(),
                    operator: Operator::In(vec![wanted.as_str().unwrap_or_default().to_owned()]),
                });
            }
        }
        for expression in value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression["key"].as_str()?.to_owned();
            let values: Vec<String> = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect();
            let operator = match expression["operator"].as_str()? {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _unknown => return None,
            };
            requirements.push(Requirement { key, operator });
        }
        Some(Self(requirements))
    }

    /// Whether the selector lets everything through.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: Option<&Value>) -> bool {
        self.0.iter().all(|requirement| {
            let found = labels.and_then(|labels| labels.get(&requirement.key)).and_then(Value::as_str);
            match &requirement.operator {
                Operator::In(values) => found.is_some_and(|found| values.iter().any(|value| value == found)),
                Operator::NotIn(values) => !found.is_some_and(|found| values.iter().any(|value| value == found)),
                Operator::Exists => found.is_some(),
                Operator::DoesNotExist => found.is_none(),
            }
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0_usize);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _other => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Option<Requirement> {
    let requirement = |key: &str, operator| {
        let key = key.trim();
        let plain = !key.is_empty() && !key.contains([' ', '=', '!', '(', ')', ',']);
        plain.then(|| Requirement { key: key.to_owned(), operator })
    };
    if let Some(open) = part.find('(') {
        let values = part[open + 1..].strip_suffix(')')?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let head = part[..open].trim();
        return if let Some(key) = head.strip_suffix(" notin") {
            requirement(key, Operator::NotIn(values))
        } else {
            requirement(head.strip_suffix(" in")?, Operator::In(values))
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return requirement(key, Operator::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return requirement(key, Operator::In(vec![value.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => requirement(key, Operator::DoesNotExist),
        None => requirement(part, Operator::Exists),
    }
}

/// A parsed field selector; empty matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldTerm>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Parses `a.b=c,d.e!=f`; a path that `supported` refuses is a 400 in the words of its kind.
    pub(super) fn parse_for(resource: &Resource, text: &str) -> Result<Self, Failure> {
        Self::parse(text, |path| resource.selectable(path)).map_err(|mut failure| {
            let path = failure.message.strip_prefix("field label not supported: ");
            if let Some(path) = path.filter(|_| resource.selects_by_name_only()) {
                failure.message =
                    format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"");
            }
            failure
        })
    }

    /// Parses `a.b=c,d.e!=f`; a path that `supported` refuses is a 400 in the server's words.
    pub fn parse(text: &str, supported: impl Fn(&str) -> bool) -> Result<Self, Failure> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(Failure::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            if !supported(path) {
                return Err(Failure::bad_request(format!("field label not supported: {path}")));
            }
            terms.push(FieldTerm { path: path.to_owned(), value: value.to_owned(), equal });
        }
        Ok(Self(terms))
    }

    /// Whether the selector lets everything through.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that `path` must have, if the selector pins it.
    pub(super) fn pinned(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|term| term.equal && term.path == path).map(|term| term.value.as_str())
    }

    /// Whether the object is selected; an absent field reads as the empty string.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| (field_text(object, &term.path) == term.value) == term.equal)
    }
}

/// The field's value as selectors see it.
fn field_text(object: &Value, path: &str) -> String {
    let mut at = object;
    for part in path.split('.') {
        match at.get(part) {
            Some(next) => at = next,
            None => return default_text(path).to_owned(),
        }
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => at.to_string(),
    }
}

fn default_text(path: &str) -> &'static str {
    if path == "spec.unschedulable" { "false" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_understand_every_operator() {
        let labels = json!({"app": "web", "tier": "front", "node-role.kubernetes.io/worker": ""});
        for (text, expected) in [
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (api, web),tier notin (back)", true),
            ("node-role.kubernetes.io/worker,!missing", true),
            ("app=api", false),
            ("missing", false),
            ("tier notin (front)", false),
            ("missing!=x", true),
            ("", true),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(Some(&labels)), expected, "{text}");
        }
        assert!(LabelSelector::parse("a=(b").is_err());
    }

    #[test]
    fn field_selectors_match_by_path_and_refuse_unknown_ones() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}});
        let known = |path: &str| path != "spec.image";
        assert!(FieldSelector::parse("spec.nodeName=n1,metadata.name!=q", known).unwrap().matches(&pod));
        assert!(!FieldSelector::parse("status.phase=Running", known).unwrap().matches(&pod));
        let refused = FieldSelector::parse("spec.image=x", known).unwrap_err();
        assert_eq!(refused.message, "field label not supported: spec.image");
    }
}
