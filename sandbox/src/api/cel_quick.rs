//! The part of CEL that the rules of our own kinds use, evaluated in place on JSON.
//!
//! The cel crate copies the whole object for every field that a rule selects: milliseconds a write where this takes microseconds.
//! Whatever is not understood here, and whatever ends in an error, is left to the cel crate: `None` means "ask it".
//! The two agree on everything that both decide, but for one thing in which this follows the real server and the crate does
//! not: keyed lists and sets are equal in any order.

use super::schema::{Additional, ListType, Schema, Type};
use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use regex::Regex;
use serde_json::Value;
use std::cmp::Ordering;

/// A rule that is understood.
#[derive(Debug)]
pub(super) enum Quick {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    This,
    Old,
    HasOld,
    Select(Box<Quick>, String),
    Has(Box<Quick>, String),
    Not(Box<Quick>),
    And(Box<Quick>, Box<Quick>),
    Or(Box<Quick>, Box<Quick>),
    If(Box<[Quick; 3]>),
    Equal(Box<Quick>, Box<Quick>),
    Compare(Box<Quick>, &'static [Ordering], Box<Quick>),
    In(Box<Quick>, Vec<Quick>),
    IsItem(Box<Quick>, Box<Quick>),
    Size(Box<Quick>),
    AsText(Box<Quick>),
    Matches(Box<Quick>, Box<Regex>),
    StartsWith(Box<Quick>, String),
}

impl Quick {
    /// The expression, if all of it is understood; `optional_old` makes `oldSelf` an optional.
    pub(super) fn compile(expression: &IdedExpr, optional_old: bool) -> Option<Self> {
        let below = |expression: &IdedExpr| Self::compile(expression, optional_old).map(Box::new);
        match &expression.expr {
            Expr::Literal(literal) => Some(match literal {
                LiteralValue::Boolean(flag) => Self::Bool(*flag.inner()),
                LiteralValue::Int(whole) => Self::Int(*whole.inner()),
                LiteralValue::Double(float) => Self::Float(*float.inner()),
                LiteralValue::String(text) => Self::Text(text.inner().to_owned()),
                LiteralValue::Bytes(_) | LiteralValue::Null | LiteralValue::UInt(_) => return None,
            }),
            Expr::Ident(name) => match name.as_str() {
                "self" => Some(Self::This),
                "oldSelf" if !optional_old => Some(Self::Old),
                _other => None,
            },
            // Escaped names are left to the other evaluator.
            Expr::Select(select) if select.field.contains("__") => None,
            Expr::Select(select) if select.test => Some(Self::Has(below(&select.operand)?, select.field.clone())),
            Expr::Select(select) => Some(Self::Select(below(&select.operand)?, select.field.clone())),
            Expr::Call(call) => Self::compile_call(call, optional_old),
            Expr::Comprehension(_) | Expr::List(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => None,
        }
    }

    fn compile_call(call: &CallExpr, optional_old: bool) -> Option<Self> {
        use Ordering::{Equal, Greater, Less};
        let below = |expression: &IdedExpr| Self::compile(expression, optional_old).map(Box::new);
        let target = call.target.as_deref();
        let old_itself = || matches!(target.map(|target| &target.expr), Some(Expr::Ident(name)) if name == "oldSelf");
        let constant = |expression: &IdedExpr| match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
            _computed => None,
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_NOT, [one]) => Some(Self::Not(below(one)?)),
            (operators::LOGICAL_AND, [left, right]) => Some(Self::And(below(left)?, below(right)?)),
            (operators::LOGICAL_OR, [left, right]) => Some(Self::Or(below(left)?, below(right)?)),
            (operators::CONDITIONAL, [when, then, other]) => {
                Some(Self::If(Box::new([*below(when)?, *below(then)?, *below(other)?])))
            }
            (operators::EQUALS, [left, right]) => Some(Self::Equal(below(left)?, below(right)?)),
            (operators::NOT_EQUALS, [left, right]) => {
                Some(Self::Not(Box::new(Self::Equal(below(left)?, below(right)?))))
            }
            (operators::LESS, [left, right]) => Some(Self::Compare(below(left)?, &[Less], below(right)?)),
            (operators::LESS_EQUALS, [left, right]) => Some(Self::Compare(below(left)?, &[Less, Equal], below(right)?)),
            (operators::GREATER, [left, right]) => Some(Self::Compare(below(left)?, &[Greater], below(right)?)),
            (operators::GREATER_EQUALS, [left, right]) => {
                Some(Self::Compare(below(left)?, &[Greater, Equal], below(right)?))
            }
            (operators::IN, [item, list]) => match &list.expr {
                Expr::List(list) if list.optional_indices.is_empty() => {
                    let items: Option<Vec<Self>> =
                        list.elements.iter().map(|item| Self::compile(item, optional_old)).collect();
                    Some(Self::In(below(item)?, items?))
                }
                _computed => Some(Self::IsItem(below(item)?, below(list)?)),
            },
            ("size", [one]) if target.is_none() => Some(Self::Size(below(one)?)),
            ("size", []) => Some(Self::Size(below(target?)?)),
            ("string", [one]) if target.is_none() => Some(Self::AsText(below(one)?)),
            ("matches", [pattern]) => {
                let pattern = Regex::new(&constant(pattern)?).ok()?;
                Some(Self::Matches(below(target?)?, Box::new(pattern)))
            }
            ("startsWith", [prefix]) => Some(Self::StartsWith(below(target?)?, constant(prefix)?)),
            ("hasValue", []) if optional_old && old_itself() => Some(Self::HasOld),
            ("value", []) if optional_old && old_itself() => Some(Self::Old),
            _other => None,
        }
    }

    /// What the rule says of `this`; `None` where the other evaluator has to be asked.
    pub(super) fn evaluate(&self, schema: &Schema, this: &Value, old: Option<&Value>, root: bool) -> Option<bool> {
        let node = if root { Node::Root(schema) } else { Node::Typed(schema) };
        self.result(&Scope { node, this, old })?.bool()
    }

    /// `None` is an error of the rule, or something not understood: both are decided elsewhere.
    fn result<'a>(&'a self, scope: &Scope<'a>) -> Option<Item<'a>> {
        Some(match self {
            Self::Bool(flag) => Item::Bool(*flag),
            Self::Int(whole) => Item::Int(*whole),
            Self::Float(float) => Item::Float(*float),
            Self::Text(text) => Item::Text(text),
            Self::This => Item::of(scope.this, scope.node)?,
            Self::Old => Item::of(scope.old?, scope.node)?,
            Self::HasOld => Item::Bool(scope.old.is_some()),
            Self::Select(operand, field) => match operand.result(scope)?.field(field) {
                Field::Found(item) => item,
                Field::Absent | Field::Unknown => return None,
            },
            Self::Has(operand, field) => match operand.result(scope)?.field(field) {
                Field::Found(_) => Item::Bool(true),
                Field::Absent => Item::Bool(false),
                Field::Unknown => return None,
            },
            Self::Not(one) => Item::Bool(!one.result(scope)?.bool()?),
            // An error on one side does not matter if the other side decides.
            Self::And(left, right) => match left.result(scope).and_then(Item::bool) {
                Some(false) => Item::Bool(false),
                Some(true) => Item::Bool(right.result(scope)?.bool()?),
                None => {
                    let right = right.result(scope)?.bool()?;
                    return (!right).then_some(Item::Bool(false));
                }
            },
            Self::Or(left, right) => match left.result(scope).and_then(Item::bool) {
                Some(true) => Item::Bool(true),
                Some(false) => Item::Bool(right.result(scope)?.bool()?),
                None => {
                    let right = right.result(scope)?.bool()?;
                    return right.then_some(Item::Bool(true));
                }
            },
            Self::If(parts) => {
                let [when, then, other] = &**parts;
                if when.result(scope)?.bool()? { then.result(scope)? } else { other.result(scope)? }
            }
            Self::Equal(left, right) => Item::Bool(left.result(scope)?.equals(&right.result(scope)?)?),
            Self::Compare(left, wanted, right) => {
                Item::Bool(wanted.contains(&left.result(scope)?.compare(&right.result(scope)?)?))
            }
            Self::In(item, list) => {
                let item = item.result(scope)?;
                let mut found = false;
                for other in list {
                    found |= item.equals(&other.result(scope)?)?;
                }
                Item::Bool(found)
            }
            Self::IsItem(item, list) => {
                let item = item.result(scope)?;
                // Of a map the keys are looked at: not here.
                let Item::Json(Value::Array(others), Node::Typed(schema)) = list.result(scope)? else { return None };
                let schema = schema.items.as_deref()?;
                let mut found = false;
                for other in others {
                    found |= item.equals(&Item::of(other, Node::Typed(schema))?)?;
                }
                Item::Bool(found)
            }
            Self::Size(one) => Item::Int(one.result(scope)?.size()?),
            Self::AsText(one) => match one.result(scope)? {
                Item::Text(text) => Item::Text(text),
                Item::Int(whole) => Item::Owned(whole.to_string()),
                Item::Bool(_) | Item::Float(_) | Item::Owned(_) | Item::Json(..) => return None,
            },
            Self::Matches(one, pattern) => Item::Bool(pattern.is_match(one.result(scope)?.text()?)),
            Self::StartsWith(one, prefix) => Item::Bool(one.result(scope)?.text()?.starts_with(prefix)),
        })
    }
}

/// What a rule is evaluated on.
struct Scope<'a> {
    node: Node<'a>,
    this: &'a Value,
    old: Option<&'a Value>,
}

/// Where in the schema a value stands.
#[derive(Debug, Clone, Copy)]
enum Node<'a> {
    /// A resource.
    Root(&'a Schema),
    /// A resource's metadata, of which rules see two fields.
    Metadata,
    Typed(&'a Schema),
    Untyped,
}

/// A value on the way.
#[derive(Debug)]
enum Item<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Owned(String),
    /// A map or list.
    Json(&'a Value, Node<'a>),
}

enum Field<'a> {
    Found(Item<'a>),
    Absent,
    Unknown,
}

impl<'a> Item<'a> {
    fn of(value: &'a Value, node: Node<'a>) -> Option<Self> {
        let kind = match node {
            Node::Typed(schema) => {
                // Times and durations are no strings to CEL.
                if matches!(schema.limits.format.as_str(), "date-time" | "date" | "duration") {
                    return None;
                }
                schema.kind
            }
            Node::Root(_) | Node::Metadata | Node::Untyped => Type::Any,
        };
        Some(match value {
            Value::Null => return None,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(whole) if kind != Type::Number => Self::Int(whole),
                Some(_) | None => Self::Float(number.as_f64()?),
            },
            Value::String(text) => Self::Text(text),
            Value::Array(_) | Value::Object(_) => Self::Json(value, node),
        })
    }

    fn bool(self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(flag),
            Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Owned(_) | Self::Json(..) => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Owned(text) => Some(text),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Json(..) => None,
        }
    }

    fn field(&self, name: &str) -> Field<'a> {
        let Self::Json(Value::Object(fields), node) = self else {
            return Field::Unknown;
        };
        let below = match node {
            Node::Root(_) if name == "metadata" => Node::Metadata,
            Node::Root(_) if matches!(name, "apiVersion" | "kind") => Node::Untyped,
            Node::Metadata if matches!(name, "name" | "generateName") => Node::Untyped,
            Node::Metadata => return Field::Unknown,
            Node::Untyped => Node::Untyped,
            Node::Root(schema) | Node::Typed(schema) => match (schema.properties.get(name), &schema.additional) {
                _embedded if schema.embedded => return Field::Unknown,
                (Some(below), _) | (None, Additional::Schema(below)) => Node::Typed(below),
                (None, Additional::Anything) => Node::Untyped,
                (None, Additional::None) if schema.preserve_unknown => Node::Untyped,
                (None, Additional::None) => return Field::Absent,
            },
        };
        match fields.get(name) {
            None | Some(Value::Null) => Field::Absent,
            Some(value) => Self::of(value, below).map_or(Field::Unknown, Field::Found),
        }
    }

    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(right)),
            (Self::Float(left), Self::Float(right)) => left.partial_cmp(right),
            (Self::Text(_) | Self::Owned(_), Self::Text(_) | Self::Owned(_)) => Some(self.text()?.cmp(other.text()?)),
            // Mixed numbers and everything else: not here.
            (
                Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Owned(_) | Self::Json(..),
                Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Owned(_) | Self::Json(..),
            ) => None,
        }
    }

    fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => Some(left == right),
            (Self::Json(left, node), Self::Json(right, _)) => match node {
                Node::Typed(schema) if schema.plain => Some(same(schema, left, right)),
                // Where nulls, times or hidden fields could matter, only what is equal to the letter is equal for sure.
                Node::Typed(_) | Node::Untyped => (left == right).then_some(true),
                Node::Root(_) | Node::Metadata => None,
            },
            (
                Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Owned(_) | Self::Json(..),
                Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Owned(_) | Self::Json(..),
            ) => Some(self.compare(other)? == Ordering::Equal),
        }
    }

    fn size(&self) -> Option<i64> {
        let count = match self {
            Self::Text(_) | Self::Owned(_) => self.text()?.chars().count(),
            Self::Json(Value::Array(items), _) => items.len(),
            Self::Json(Value::Object(fields), Node::Typed(schema)) if schema.plain => fields.len(),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Json(..) => return None,
        };
        i64::try_from(count).ok()
    }
}

/// Equality under a plain schema: sets and keyed lists in any order.
fn same(schema: &Schema, left: &Value, right: &Value) -> bool {
    if left == right {
        return true;
    }
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, field)| {
                    right.get(name).is_some_and(|other| match schema.field(name) {
                        Some(below) => same(below, field, other),
                        None => field == other,
                    })
                })
        }
        (Value::Array(left), Value::Array(right)) => {
            let Some(below) = &schema.items else { return false };
            left.len() == right.len()
                && match &schema.list_type {
                    ListType::Atomic => left.iter().zip(right).all(|(left, right)| same(below, left, right)),
                    ListType::Set | ListType::Map(_) => {
                        left.iter().all(|item| right.iter().any(|other| same(below, item, other)))
                    }
                }
        }
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cel::Rule;
    use serde_json::json;

    /// Both evaluators on one rule; `None` of the quick one means that it asks the other.
    fn both(rule: &str, this: &Value, old: Option<&Value>) -> (Option<bool>, Option<bool>) {
        let schema = Schema::compile(&json!({"type": "object", "properties": {
            "n": {"type": "integer"}, "f": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
            "l": {"type": "array", "items": {"type": "string"}},
            "t": {"type": "string", "format": "date-time"},
            "any": {"x-kubernetes-int-or-string": true},
            "o": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}));
        let compiled = Rule::compile(&json!({"rule": rule}));
        let quick = compiled.quick.as_ref().and_then(|quick| quick.evaluate(&schema, this, old, false));
        (quick, compiled.evaluate_slowly(&schema, this, old))
    }

    #[test]
    fn both_evaluators_agree_on_what_both_decide() {
        let objects = [
            json!({"n": 3, "f": 1, "s": "v1.2", "b": true, "l": ["a", "b"], "any": "5%", "o": {"x": 1}, "m": {"k": "v"}, "free": {"q": [1]}, "t": "2026-01-01T00:00:00Z"}),
            json!({"n": 0, "f": 1.5, "s": "", "b": false, "l": [], "any": 5, "o": {"x": 1, "y": "z"}, "m": {}, "free": {"q": [2]}}),
            json!({"n": 3, "o": {"y": "z"}, "s": "v2"}),
            json!({}),
        ];
        let rules = [
            "self.n > 2",
            "self.n >= oldSelf.n",
            "!has(self.n) || self.n < 3",
            "has(self.o) && has(self.o.y)",
            "self.s.matches('^v[0-9]')",
            "self.s.startsWith('v1') || self.b",
            "size(self.l) > 0 && self.l == oldSelf.l",
            "self.o == oldSelf.o",
            "self.s in ['v1.2', 'v2']",
            "self.n in [1, 3]",
            "has(self.l) && 'b' in self.l",
            "!('k' in self.m)",
            "self.b ? self.n == 3 : self.n == 0",
            "self.f == 1.0",
            "self.f > 1.2",
            "string(self.any).matches('^[0-9]+%?$')",
            "self.m == oldSelf.m && size(self.m) < 2",
            "self.free == oldSelf.free",
            "self.s != oldSelf.s",
            "self.n == 3 || self.o.x == 1",
            "self.o.x == 1 || self.n == 3",
            "self.o.x == 2 && self.n == 3",
            "self.missing == 1",
            "size(self.s) <= 4",
            "self.any == 5",
        ];
        let mut decided = 0;
        for rule in rules {
            for this in &objects {
                for old in &objects {
                    let (quick, slow) = both(rule, this, Some(old));
                    if let Some(quick) = quick {
                        decided += 1;
                        assert_eq!(Some(quick), slow, "{rule} on {this}, before {old}");
                    }
                }
            }
        }
        assert!(decided > 200, "the quick evaluator decided only {decided} cases");
    }

    #[test]
    fn times_and_comprehensions_are_left_to_the_other_evaluator() {
        let this = json!({"t": "2026-01-01T00:00:00Z", "l": ["a"]});
        for rule in ["self.t < timestamp('2027-01-01T00:00:00Z')", "self.l.all(x, x == 'a')", "self.t == oldSelf.t"] {
            assert_eq!(both(rule, &this, Some(&this)), (None, Some(true)), "{rule}");
        }
    }

    #[test]
    fn all_rules_of_our_own_kinds_are_understood() {
        fn count(schema: &Value, slow: &mut Vec<String>) -> usize {
            let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
            let mut rules_here = 0;
            for rule in rules.into_iter().flatten() {
                rules_here += 1;
                if Rule::compile(rule).quick.is_none() {
                    slow.push(rule["rule"].to_string());
                }
            }
            let below: Vec<&Value> = match schema {
                Value::Object(fields) => fields.values().collect(),
                Value::Array(items) => items.iter().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            };
            rules_here + below.into_iter().map(|schema| count(schema, slow)).sum::<usize>()
        }
        let mut slow = Vec::new();
        let all: usize = cupcake_crds::definitions()
            .iter()
            .map(|definition| count(&serde_json::to_value(definition).unwrap(), &mut slow))
            .sum();
        // That of ScheduledUpdates alone, of which a world has a handful.
        slow.retain(|rule| !rule.contains("timestamp("));
        assert!(all > 40, "only {all} rules found");
        assert!(slow.is_empty(), "rules that slow every write down: {slow:#?}");
    }
}
