//! CEL validation rules (`x-kubernetes-validations`), transition rules included.
//!
//! Rules are compiled once with their CustomResourceDefinition. Unlike kube's client-side validator, items of keyed lists are
//! matched with their old item by key, rules on unchanged values are ratcheted, and `optionalOldSelf` binds a CEL optional,
//! as the real server does.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

use super::cel_quick::Quick;
use super::schema::{Additional, ListType, Schema, Type};
use super::status::{FieldError, FieldErrorKind};
use super::trail::Trail;
use kube::core::cel::KubeCelExt as _;
use kube::core::cel::cel::objects::{Key, Map, OptionalValue};
use kube::core::cel::cel::{Context, Program, Value as Cel};
use serde_json::Value;
use std::sync::Arc;

/// One rule of a schema node.
#[derive(Debug)]
pub struct Rule {
    /// The expression's text.
    pub text: String,
    /// The compiled expression, or why it does not compile.
    pub program: Result<Program, String>,
    /// The same, where it can be evaluated in place.
    pub(super) quick: Option<Quick>,
    message: Option<String>,
    message_program: Option<Program>,
    reason: FieldErrorKind,
    field_path: String,
    transition: bool,
    optional_old_self: bool,
}

impl Rule {
    /// Compiles one entry of `x-kubernetes-validations`.
    pub fn compile(rule: &Value) -> Self {
        let text = |name: &str| rule.get(name).and_then(Value::as_str);
        let expression = text("rule").unwrap_or_default();
        let program = Program::compile(expression).map_err(|error| error.to_string());
        let transition = program.as_ref().is_ok_and(|program| program.references().has_variable("oldSelf"));
        let optional_old_self = rule.get("optionalOldSelf").and_then(Value::as_bool) == Some(true);
        let quick = program.as_ref().ok().and_then(|program| Quick::compile(program.expression(), optional_old_self));
        Self {
            text: expression.to_owned(),
            quick,
            program,
            message: text("message").map(str::to_owned),
            message_program: text("messageExpression").and_then(|text| Program::compile(text).ok()),
            reason: match text("reason") {
                Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
                Some("FieldValueRequired") => FieldErrorKind::Required,
                Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
                _invalid => FieldErrorKind::Invalid,
            },
            field_path: text("fieldPath").unwrap_or_default().to_owned(),
            transition,
            optional_old_self,
        }
    }
}

thread_local! {
    // Registering the function library costs more than a rule: once a thread.
    static LIBRARY: Context<'static> = Context::default().with_all();
}

/// Checks all rules of `schema` on `object`; `old` is the stored object on updates.
pub(super) fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if schema.has_rules {
        LIBRARY.with(|library| walk(library, schema, object, old, &Trail::Root, true, &mut errors));
    }
    errors
}

fn walk(
    library: &Context<'_>,
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &Trail<'_>,
    root: bool,
    errors: &mut Vec<FieldError>,
) {
    if !schema.has_rules || value.is_null() {
        return;
    }
    check_rules(library, schema, value, old, path, root, errors);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let (below, child) = match (schema.properties.get(name), &schema.additional) {
                    (Some(below), _) => (below, path.field(name)),
                    (None, Additional::Schema(below)) => (below, Trail::Key(path, name)),
                    (None, Additional::None | Additional::Anything) => continue,
                };
                let old = old.and_then(|old| old.get(name)).filter(|old| !old.is_null());
                walk(library, below, field, old, &child, false, errors);
            }
        }
        Value::Array(items) => {
            let Some(below) = &schema.items else { return };
            for (at, item) in items.iter().enumerate() {
                let old = old.and_then(|old| old_item(&schema.list_type, old, item));
                walk(library, below, item, old, &Trail::Item(path, at), false, errors);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The item of the old list that `item` replaces: only keyed lists can tell.
fn old_item<'a>(list_type: &ListType, old: &'a Value, item: &Value) -> Option<&'a Value> {
    let ListType::Map(keys) = list_type else {
        return None;
    };
    old.as_array()?.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}

fn check_rules(
    library: &Context<'_>,
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &Trail<'_>,
    root: bool,
    errors: &mut Vec<FieldError>,
) {
    if schema.rules.is_empty() {
        return;
    }
    let unchanged = old == Some(value);
    let mut context: Option<Context<'_>> = None;
    for rule in &schema.rules {
        let skipped = if rule.transition {
            old.is_none() && !rule.optional_old_self
        } else {
            // Ratcheting: what was stored before stays allowed.
            unchanged
        };
        if skipped {
            continue;
        }
        let verdict = rule.quick.as_ref().and_then(|quick| quick.evaluate(schema, value, old, root));
        let detail = match (verdict, &rule.message_program) {
            // A list passes for a text with a format, which may be bytes (validate.rs), and no rule takes it for a text.
            _ if schema.kind == Type::String && value.is_array() => format!(
                "invalid data, expected string, got []interface {{}} evaluating rule: {}",
                rule.message.as_deref().unwrap_or(&rule.text)
            ),
            (Some(true), _) => continue,
            (Some(false), None) => rule.fixed_message(),
            (Some(false), Some(_)) | (None, _) => {
                let context = context.get_or_insert_with(|| {
                    let mut context = library.new_inner_scope();
                    context.add_variable_from_value("self", to_cel(schema, value, root));
                    context
                });
                let old = old.map(|old| to_cel(schema, old, root));
                match rule.evaluate(&rule.scope(context, old)) {
                    None => continue,
                    Some(detail) => detail,
                }
            }
        };
        let field = match rule.field_path.strip_prefix('.') {
            Some(below) => path.field(below).to_string(),
            None => format!("{path}{}", rule.field_path),
        };
        // The real server shows the type in place of the value.
        let shown = Value::from(schema.kind.name());
        errors.push(FieldError::new(rule.reason, field, Some(shown), detail));
    }
}

impl Rule {
    fn scope<'a>(&self, context: &'a Context<'a>, old: Option<Cel>) -> Context<'a> {
        let mut scope = context.new_inner_scope();
        if self.transition {
            let bound = match (self.optional_old_self, old) {
                (false, old) => old.unwrap_or(Cel::Null),
                (true, Some(old)) => Cel::Opaque(Arc::new(OptionalValue::of(old))),
                (true, None) => Cel::Opaque(Arc::new(OptionalValue::none())),
            };
            scope.add_variable_from_value("oldSelf", bound);
        }
        scope
    }

    fn fixed_message(&self) -> String {
        self.message.clone().unwrap_or_else(|| format!("failed rule: {}", self.text))
    }

    /// Why the rule does not hold, if it does not.
    fn evaluate(&self, scope: &Context<'_>) -> Option<String> {
        Some(match self.program.as_ref().map(|program| program.execute(scope)) {
            Ok(Ok(Cel::Bool(true))) => return None,
            Ok(Ok(Cel::Bool(false))) => self
                .message_program
                .as_ref()
                .and_then(|program| match program.execute(scope) {
                    Ok(Cel::String(text)) if !text.trim().is_empty() => Some(text.to_string()),
                    _no_text => None,
                })
                .unwrap_or_else(|| self.fixed_message()),
            Ok(Ok(_not_boolean)) => format!("rule evaluated to a value that is no boolean: {}", self.text),
            Ok(Err(error)) => format!("rule evaluation error: {error}: evaluating rule: {}", self.text),
            Err(error) => format!("rule compilation error: {error}: compiling rule: {}", self.text),
        })
    }

    /// The cel crate's verdict alone, for comparison; `None` is an error.
    #[cfg(test)]
    pub(super) fn evaluate_slowly(&self, schema: &Schema, this: &Value, old: Option<&Value>) -> Option<bool> {
        LIBRARY.with(|library| {
            let mut context = library.new_inner_scope();
            context.add_variable_from_value("self", to_cel(schema, this, false));
            let scope = self.scope(&context, old.map(|old| to_cel(schema, old, false)));
            match self.program.as_ref().ok()?.execute(&scope) {
                Ok(Cel::Bool(flag)) => Some(flag),
                _error => None,
            }
        })
    }
}

/// A JSON value as CEL sees it through its schema.
fn to_cel(schema: &Schema, value: &Value, root: bool) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (schema.kind, number.as_i64(), number.as_f64()) {
            (Type::Number, _, Some(float)) => Cel::Float(float),
            (_, Some(whole), _) => Cel::Int(whole),
            (_, None, float) => Cel::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => text_to_cel(schema, text),
        Value::Array(items) => {
            let anything = Schema::anything();
            let below = schema.items.as_deref().unwrap_or(&anything);
            Cel::List(Arc::new(items.iter().map(|item| to_cel(below, item, false)).collect()))
        }
        Value::Object(fields) => {
            let mut map = Vec::with_capacity(fields.len());
            let anything = Schema::anything();
            for (name, field) in fields {
                // A null where the schema knows the field is an absent one; elsewhere it is a value like others.
                let free = schema.preserve_unknown || matches!(schema.additional, Additional::Anything);
                if field.is_null() && (!free || schema.properties.contains_key(name)) {
                    continue;
                }
                let entry = match (schema.properties.get(name), &schema.additional) {
                    (Some(_), _) if root && name == "metadata" => match visible(name, field) {
                        Some(field) => (name.clone(), to_cel(&anything, &field, false)),
                        None => continue,
                    },
                    (Some(below), _) => (escape(name), to_cel(below, field, false)),
                    (None, Additional::Schema(below)) => (name.clone(), to_cel(below, field, false)),
                    // Preserved fields take part in comparisons of what holds them.
                    (None, Additional::Anything) => (name.clone(), to_cel(&anything, field, false)),
                    (None, Additional::None) if schema.preserve_unknown => {
                        (name.clone(), to_cel(&anything, field, false))
                    }
                    (None, Additional::None) if root || schema.embedded => match visible(name, field) {
                        Some(field) => (name.clone(), to_cel(&anything, &field, false)),
                        None => continue,
                    },
                    (None, Additional::None) => continue,
                };
                map.push((Key::String(Arc::new(entry.0)), entry.1));
            }
            // The cel crate's own map; rules cannot see its order but in errors that name the first bad entry.
            Cel::Map(Map { map: Arc::new(map.into_iter().collect()) })
        }
    }
}

/// Of a resource's own fields, rules see only `apiVersion`, `kind`, `metadata.name` and `metadata.generateName`.
fn visible(name: &str, field: &Value) -> Option<Value> {
    match name {
        "apiVersion" | "kind" => Some(field.clone()),
        "metadata" => {
            let names = ["name", "generateName"];
            let seen = names.into_iter().filter_map(|name| Some((name.to_owned(), field.get(name)?.clone())));
            Some(Value::Object(seen.collect()))
        }
        _hidden => None,
    }
}

fn text_to_cel(schema: &Schema, text: &str) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    match schema.limits.format.as_str() {
        "date-time" => chrono::DateTime::parse_from_rfc3339(text).map_or_else(|_invalid| plain(), Cel::Timestamp),
        "date" => chrono::DateTime::parse_from_rfc3339(&format!("{text}T00:00:00Z"))
            .map_or_else(|_invalid| plain(), Cel::Timestamp),
        "duration" => super::formats::duration(text).map_or_else(plain, Cel::Duration),
        _text => plain(),
    }
}

/// Field names that are no CEL identifiers are escaped, as in `x__dash__y`.
fn escape(name: &str) -> String {
    const RESERVED: [&str; 17] = [
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "return",
    ];
    if RESERVED.contains(&name) || name == "namespace" || name == "var" || name == "void" || name == "while" {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_in_place_of_a_text_with_a_format_is_told_as_a_real_server_tells_it() {
        let rule =
            json!({"rule": "self > timestamp('1970-01-01T00:00:00Z')", "message": "a time after 1970 is needed"});
        let at = json!({"type": "string", "format": "date-time", "x-kubernetes-validations": [rule]});
        let schema = Schema::compile(&json!({"type": "object", "properties": {"at": at}}));
        let told = |at: Value| -> Vec<String> {
            validate(&schema, &json!({"at": at}), None).iter().map(|error| error.detail.clone()).collect()
        };
        let as_a_list =
            "invalid data, expected string, got []interface {} evaluating rule: a time after 1970 is needed";
        assert_eq!(told(json!([])), [as_a_list]);
        assert_eq!(told(json!("1969-01-01T00:00:00Z")), ["a time after 1970 is needed"]);
        assert_eq!(told(json!("2027-01-09T22:00:00Z")), Vec::<String>::new());
    }
}
