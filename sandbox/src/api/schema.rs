//! Structural schemas: what a resource's fields may be, and how their lists and maps are owned and merged.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema` (structural schemas) and
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>.

use super::cel::Rule;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Levels of nesting that a schema may have; deeper ones are read as "anything goes".
const DEPTH_MAX: usize = 48;

/// The JSON type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Any type.
    Any,
    /// A map.
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
}

impl Type {
    /// The name in schemas and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value.
    Atomic,
    /// Items are scalars, each at most once.
    Set,
    /// Items are objects, told apart by these fields.
    Map(Vec<String>),
}

/// What may stand in fields that `properties` does not name.
#[derive(Debug, Clone)]
pub enum Additional {
    /// Nothing.
    None,
    /// Anything.
    Anything,
    /// Values of one schema.
    Schema(Arc<Schema>),
}

/// One node of a structural schema, compiled.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a keyword of structural schemas, and they combine freely")]
pub struct Schema {
    /// JSON type.
    pub kind: Type,
    /// Null is allowed.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// Named fields.
    pub properties: BTreeMap<String, Arc<Schema>>,
    /// Other fields.
    pub additional: Additional,
    /// Items of a list.
    pub items: Option<Arc<Schema>>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Value for an absent field.
    pub default: Option<Value>,
    /// Whether this node or one below it has a default.
    pub has_defaults: bool,
    /// Whether this node or one below it has CEL rules.
    pub has_rules: bool,
    /// Nothing here or below is nullable, a time, a duration or a fraction: values are equal as JSON is.
    pub plain: bool,
    /// CEL rules of this node.
    pub rules: Vec<Rule>,
    /// How items are told apart.
    pub list_type: ListType,
    /// `x-kubernetes-map-type: atomic`: the map is one value.
    pub map_atomic: bool,
    /// Limits on values.
    pub limits: Limits,
    /// Validation-only alternatives.
    pub logic: Logic,
}

/// Limits on a value.
#[derive(Debug, Default)]
pub struct Limits {
    /// Allowed values.
    pub enumeration: Vec<Value>,
    /// Pattern of a string, with its source text.
    pub pattern: Option<(String, Option<Regex>)>,
    /// Format of a string.
    pub format: String,
    /// Smallest number, and whether it is itself excluded.
    pub minimum: Option<(f64, bool)>,
    /// Largest number, and whether it is itself excluded.
    pub maximum: Option<(f64, bool)>,
    /// A number must be a multiple of this.
    pub multiple_of: Option<f64>,
    /// Characters of a string.
    pub length_min: Option<u64>,
    /// Characters of a string.
    pub length_max: Option<u64>,
    /// Items of a list.
    pub items_min: Option<u64>,
    /// Items of a list.
    pub items_max: Option<u64>,
    /// Fields of a map.
    pub properties_min: Option<u64>,
    /// Fields of a map.
    pub properties_max: Option<u64>,
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
#[derive(Debug, Default)]
pub struct Logic {
    /// All must hold.
    pub all_of: Vec<Arc<Schema>>,
    /// One or more must hold.
    pub any_of: Vec<Arc<Schema>>,
    /// Exactly one must hold.
    pub one_of: Vec<Arc<Schema>>,
    /// Must not hold.
    pub not: Option<Arc<Schema>>,
}

impl Schema {
    /// Compiles the `openAPIV3Schema` of a CustomResourceDefinition's version.
    pub fn compile(schema: &Value) -> Arc<Self> {
        Arc::new(compile(schema, 0))
    }

    /// As [`Schema::compile`], with the `metadata` that every resource has.
    pub fn compile_resource(schema: &Value, metadata: Arc<Self>) -> Arc<Self> {
        let mut compiled = compile(schema, 0);
        compiled.properties.insert("metadata".to_owned(), metadata);
        Arc::new(compiled)
    }

    /// The schema of a field, if the field is known.
    pub fn field(&self, name: &str) -> Option<&Arc<Self>> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            Additional::None | Additional::Anything => None,
        })
    }

    /// A node that allows everything: maps granular, lists atomic, as field ownership treats untyped data.
    pub fn anything() -> Self {
        Self {
            kind: Type::Any,
            nullable: true,
            int_or_string: false,
            preserve_unknown: true,
            embedded: false,
            properties: BTreeMap::new(),
            additional: Additional::Anything,
            items: None,
            required: Vec::new(),
            default: None,
            has_defaults: false,
            has_rules: false,
            plain: false,
            rules: Vec::new(),
            list_type: ListType::Atomic,
            map_atomic: false,
            limits: Limits::default(),
            logic: Logic::default(),
        }
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn compile(schema: &Value, depth: usize) -> Schema {
    if depth > DEPTH_MAX || !schema.is_object() {
        return Schema::anything();
    }
    let below = |value: &Value| Arc::new(compile(value, depth + 1));
    let map_of = |name: &str| -> BTreeMap<String, Arc<Schema>> {
        let fields = schema.get(name).and_then(Value::as_object);
        fields.into_iter().flatten().map(|(field, schema)| (field.clone(), below(schema))).collect()
    };
    let list_of = |name: &str| -> Vec<Arc<Schema>> {
        let list = schema.get(name).and_then(Value::as_array);
        list.into_iter().flatten().map(&below).collect()
    };
    let properties = map_of("properties");
    let additional = match schema.get("additionalProperties") {
        Some(Value::Object(_)) => Additional::Schema(below(&schema["additionalProperties"])),
        Some(Value::Bool(true)) => Additional::Anything,
        _absent_or_false => Additional::None,
    };
    let items = schema.get("items").map(&below);
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    let rules: Vec<Rule> = schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(Rule::compile)
        .collect();
    let children = || {
        let additional = match &additional {
            Additional::Schema(schema) => Some(schema),
            Additional::None | Additional::Anything => None,
        };
        properties.values().chain(additional).chain(items.as_ref())
    };
    let default = schema.get("default").cloned();
    let has_type = schema.get("type").is_some();
    Schema {
        kind: match schema.get("type").and_then(Value::as_str) {
            _either if int_or_string => Type::Any,
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            _untyped => Type::Any,
        },
        nullable: flag(schema, "nullable"),
        int_or_string,
        preserve_unknown: flag(schema, "x-kubernetes-preserve-unknown-fields"),
        embedded: flag(schema, "x-kubernetes-embedded-resource"),
        has_defaults: default.is_some() || children().any(|child| child.has_defaults),
        plain: is_plain(schema) && children().all(|child| child.plain) && (has_type || int_or_string),
        has_rules: !rules.is_empty() || children().any(|child| child.has_rules),
        default,
        rules,
        list_type: list_type(schema),
        map_atomic: schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
        required: strings(schema, "required"),
        limits: limits(schema),
        logic: Logic {
            all_of: list_of("allOf"),
            any_of: list_of("anyOf"),
            one_of: list_of("oneOf"),
            not: schema.get("not").map(&below),
        },
        properties,
        additional,
        items,
    }
}

fn is_plain(schema: &Value) -> bool {
    let keyword = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
    !flag(schema, "nullable")
        && !flag(schema, "x-kubernetes-preserve-unknown-fields")
        && keyword("type") != "number"
        && !matches!(keyword("format"), "date-time" | "date" | "duration")
}

fn strings(schema: &Value, name: &str) -> Vec<String> {
    let list = schema.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn list_type(schema: &Value) -> ListType {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(schema, "x-kubernetes-list-map-keys")),
        _atomic => ListType::Atomic,
    }
}

fn limits(schema: &Value) -> Limits {
    let whole = |name: &str| schema.get(name).and_then(Value::as_u64);
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let pattern = schema.get("pattern").and_then(Value::as_str);
    Limits {
        enumeration: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        pattern: pattern.map(|text| (text.to_owned(), Regex::new(text).ok())),
        format: schema.get("format").and_then(Value::as_str).unwrap_or_default().to_owned(),
        minimum: number("minimum").map(|limit| (limit, flag(schema, "exclusiveMinimum"))),
        maximum: number("maximum").map(|limit| (limit, flag(schema, "exclusiveMaximum"))),
        multiple_of: number("multipleOf"),
        length_min: whole("minLength"),
        length_max: whole("maxLength"),
        items_min: whole("minItems"),
        items_max: whole("maxItems"),
        properties_min: whole("minProperties"),
        properties_max: whole("maxProperties"),
    }
}
