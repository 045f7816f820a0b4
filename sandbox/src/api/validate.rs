//! Checks an object against its schema, in the words of the real server.
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/{validate,errors}` and
//! `apiextensions-apiserver/pkg/apiserver/validation/validation.go`.

use super::formats;
use super::schema::{Additional, ListType, Schema, Type};
use super::status::{FieldError, FieldErrorKind as Kind};
use super::trail::Trail;
use serde_json::Value;

/// All violations of `schema` in `object`; fields that are unchanged from `old` are not checked again (ratcheting).
pub(super) fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, object, old, &Trail::Root, true, &mut errors);
    errors
}

/// Whether the errors make CEL rules meaningless: the server then leaves them out and says so.
pub(super) fn block_rules(errors: &[FieldError]) -> bool {
    errors.iter().any(|error| match error.kind {
        Kind::Required | Kind::NotSupported | Kind::TooLong | Kind::TooMany | Kind::TypeInvalid => true,
        Kind::Duplicate | Kind::Invalid | Kind::Forbidden => false,
    })
}

fn check(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &Trail<'_>,
    resource: bool,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) && !path.is_root() {
        return;
    }
    if !check_type(schema, value, path, errors) || value.is_null() {
        if !value.is_null() {
            check_enumeration(schema, value, path, errors);
        }
        return;
    }
    match value {
        Value::String(text) => check_text(schema, text, path, errors),
        Value::Number(_) => check_number(schema, value, path, errors),
        Value::Array(items) => check_list(schema, items, old, path, errors),
        Value::Object(fields) => {
            for name in &schema.required {
                if !fields.contains_key(name) {
                    errors.push(FieldError::new(Kind::Required, path.field(name).to_string(), None, ""));
                }
            }
            let count = fields.len() as u64;
            if let Some(max) = schema.limits.properties_max
                && count > max
            {
                let detail = format!("must have at most {max} items");
                errors.push(FieldError::new(Kind::TooMany, path.to_string(), Some(count.into()), detail));
            }
            if let Some(min) = schema.limits.properties_min
                && count < min
            {
                let detail = format!("{path} in body should have at least {min} properties");
                errors.push(FieldError::new(Kind::Invalid, path.to_string(), Some(value.clone()), detail));
            }
            for (name, field) in fields {
                if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let old = old.and_then(|old| old.get(name));
                if let Some(below) = schema.properties.get(name) {
                    check(below, field, old, &path.field(name), below.embedded, errors);
                } else if let Additional::Schema(below) = &schema.additional {
                    check(below, field, old, &path.field(name), below.embedded, errors);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    check_enumeration(schema, value, path, errors);
    check_logic(schema, value, path, errors);
}

/// Whether the value has the schema's type; reports it if not.
fn check_type(schema: &Schema, value: &Value, path: &Trail<'_>, errors: &mut Vec<FieldError>) -> bool {
    let fits = match (schema.kind, value) {
        (_, Value::Null) => schema.nullable || schema.kind == Type::Any,
        (Type::Any, Value::String(_)) if schema.int_or_string => true,
        (Type::Any, Value::Number(number)) if schema.int_or_string => number.is_i64() || number.is_u64(),
        (Type::Any, _) => !schema.int_or_string,
        // The real server takes a list for a text with a format, and looks no further.
        (Type::String, Value::Array(_)) => !schema.limits.format.is_empty(),
        (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::String, Value::String(_))
        | (Type::Number, Value::Number(_))
        | (Type::Boolean, Value::Bool(_)) => true,
        (Type::Integer, Value::Number(number)) => {
            number.is_i64() || number.is_u64() || number.as_f64().is_some_and(is_integer)
        }
        (Type::Object | Type::Array | Type::String | Type::Integer | Type::Number | Type::Boolean, _) => false,
    };
    if !fits {
        let mut found = type_name(value);
        let mut wanted = if schema.int_or_string { "integer,string" } else { schema.kind.name() };
        let format = schema.limits.format.as_str();
        if schema.kind == Type::String && !format.is_empty() && !value.is_null() {
            // The real server compares the formats of these first.
            wanted = format;
            found = match value {
                Value::Number(number) if number.is_f64() => "float64",
                Value::Number(_) => "int64",
                _without => "",
            };
        }
        let place = if path.is_root() { "<nil>".to_owned() } else { path.to_string() };
        let detail = format!("{place} in body must be of type {wanted}: {}", Value::from(found));
        errors.push(FieldError::new(Kind::TypeInvalid, path.to_string(), Some(found.into()), detail));
    }
    fits
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_text(schema: &Schema, text: &str, path: &Trail<'_>, errors: &mut Vec<FieldError>) {
    let limits = &schema.limits;
    let length = text.chars().count() as u64;
    let mut invalid = |kind, detail: String| {
        errors.push(FieldError::new(kind, path.to_string(), Some(text.into()), detail));
    };
    if let Some(max) = limits.length_max
        && length > max
    {
        invalid(Kind::TooLong, format!("may not be more than {max} bytes"));
    } else if let Some(min) = limits.length_min
        && length < min
    {
        invalid(Kind::Invalid, format!("{path} in body should be at least {min} chars long"));
    } else if let Some((source, pattern)) = &limits.pattern
        && !pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
    {
        invalid(Kind::Invalid, format!("{path} in body should match '{source}'"));
    }
    if !limits.format.is_empty() && !formats::holds(&limits.format, text) {
        invalid(Kind::TypeInvalid, format!("{path} in body must be of type {}: {}", limits.format, Value::from(text)));
    }
}

/// Whether a number with a fraction or an exponent is a whole one that JSON can tell from its neighbours
/// (swag `IsFloat64AJSONInteger`, which kube-openapi asks).
fn is_integer(number: f64) -> bool {
    const MAX: f64 = 9_007_199_254_740_991.0;
    number.fract() == 0.0 && number.abs() <= MAX
}

fn check_number(schema: &Schema, value: &Value, path: &Trail<'_>, errors: &mut Vec<FieldError>) {
    let limits = &schema.limits;
    let Some(number) = value.as_f64() else { return };
    let mut invalid = |words: String| {
        let detail = format!("{path} in body should be {words}");
        errors.push(FieldError::new(Kind::Invalid, path.to_string(), Some(value.clone()), detail));
    };
    match limits.minimum {
        Some((min, true)) if number <= min => invalid(format!("greater than {min}")),
        Some((min, false)) if number < min => invalid(format!("greater than or equal to {min}")),
        _within => {}
    }
    match limits.maximum {
        Some((max, true)) if number >= max => invalid(format!("less than {max}")),
        Some((max, false)) if number > max => invalid(format!("less than or equal to {max}")),
        _within => {}
    }
    if let Some(step) = limits.multiple_of
        && step > 0.0
        && (number / step).fract().abs() > f64::EPSILON
    {
        invalid(format!("a multiple of {step}"));
    }
}

fn check_list(schema: &Schema, items: &[Value], old: Option<&Value>, path: &Trail<'_>, errors: &mut Vec<FieldError>) {
    let count = items.len() as u64;
    if let Some(max) = schema.limits.items_max
        && count > max
    {
        let detail = format!("must have at most {max} items");
        errors.push(FieldError::new(Kind::TooMany, path.to_string(), Some(count.into()), detail));
    }
    if let Some(min) = schema.limits.items_min
        && count < min
    {
        let detail = format!("{path} in body should have at least {min} items");
        errors.push(FieldError::new(Kind::Invalid, path.to_string(), Some(count.into()), detail));
    }
    if let Some(below) = &schema.items {
        for (at, item) in items.iter().enumerate() {
            let old = old.and_then(|old| match &schema.list_type {
                ListType::Map(keys) => {
                    old.as_array()?.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
                }
                ListType::Atomic | ListType::Set => None,
            });
            check(below, item, old, &Trail::Item(path, at), below.embedded, errors);
        }
    }
    check_duplicates(schema, items, path, errors);
}

fn check_duplicates(schema: &Schema, items: &[Value], path: &Trail<'_>, errors: &mut Vec<FieldError>) {
    let identity = |item: &Value| match &schema.list_type {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map(keys) => {
            Some(keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect::<Value>())
        }
    };
    let identities: Vec<Option<Value>> = items.iter().map(identity).collect();
    for (at, one) in identities.iter().enumerate() {
        if one.is_some() && identities[..at].contains(one) {
            let field = format!("{path}[{at}]");
            errors.push(FieldError::new(Kind::Duplicate, field, one.clone(), ""));
        }
    }
}

fn check_enumeration(schema: &Schema, value: &Value, path: &Trail<'_>, errors: &mut Vec<FieldError>) {
    let allowed = &schema.limits.enumeration;
    if allowed.is_empty() || allowed.contains(value) {
        return;
    }
    let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
    let detail = format!("supported values: {}", names.join(", "));
    errors.push(FieldError::new(Kind::NotSupported, path.to_string(), Some(value.clone()), detail));
}

fn check_logic(schema: &Schema, value: &Value, path: &Trail<'_>, errors: &mut Vec<FieldError>) {
    let logic = &schema.logic;
    let holds = |schema: &Schema| {
        let mut errors = Vec::new();
        check(schema, value, None, path, false, &mut errors);
        errors.is_empty()
    };
    let shown = || if path.is_root() { "<nil>".to_owned() } else { path.to_string() };
    let mut invalid = |detail: String| {
        errors.push(FieldError::new(Kind::Invalid, path.to_string(), Some(value.clone()), detail));
    };
    if !logic.all_of.iter().all(|schema| holds(schema)) {
        invalid(format!("\"{}\" must validate all the schemas (allOf)", shown()));
    }
    if !logic.any_of.is_empty() && !logic.any_of.iter().any(|schema| holds(schema)) {
        invalid(format!("\"{}\" must validate at least one schema (anyOf)", shown()));
    }
    if !logic.one_of.is_empty() {
        match logic.one_of.iter().filter(|schema| holds(schema)).count() {
            1 => {}
            0 => invalid(format!("\"{}\" must validate one and only one schema (oneOf). Found none valid", shown())),
            many => invalid(format!(
                "\"{}\" must validate one and only one schema (oneOf). Found {many} valid alternatives",
                shown()
            )),
        }
    }
    if logic.not.as_ref().is_some_and(|schema| holds(schema)) {
        invalid(format!("\"{}\" must not validate the schema (not)", shown()));
    }
}
