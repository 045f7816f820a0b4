//! Kubernetes protobuf, read only, for what kubectl's typed commands post: evictions, deletions, reviews, and the kinds that
//! `kubectl create` makes without a pod template. Everything else is JSON; answers always are.
//!
//! Source: `generated.proto` of `k8s.io/api` and `k8s.io/apimachinery`, `runtime.Unknown`.

use super::strategy::base64;
use super::write::stamp;
use serde_json::{Map, Value, json};

/// The content type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Levels of nesting that a message may have.
const DEPTH_MAX: usize = 16;

type Message = &'static [Field];

struct Field {
    number: u64,
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// A text that Go holds by a pointer: an empty one was written, and is not an absent one.
    PointedText,
    Bytes,
    Int,
    Bool,
    Time,
    IntOrString,
    Message(Message),
    TextMap,
    BytesMap,
    Texts,
    Messages(Message),
}

const fn field(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind }
}

const OWNER: Message = &[
    field(1, "kind", Kind::Text),
    field(3, "name", Kind::Text),
    field(4, "uid", Kind::Text),
    field(5, "apiVersion", Kind::Text),
    field(6, "controller", Kind::Bool),
    field(7, "blockOwnerDeletion", Kind::Bool),
];
const METADATA: Message = &[
    field(1, "name", Kind::Text),
    field(2, "generateName", Kind::Text),
    field(3, "namespace", Kind::Text),
    field(5, "uid", Kind::Text),
    field(6, "resourceVersion", Kind::Text),
    field(7, "generation", Kind::Int),
    field(8, "creationTimestamp", Kind::Time),
    field(9, "deletionTimestamp", Kind::Time),
    field(10, "deletionGracePeriodSeconds", Kind::Int),
    field(11, "labels", Kind::TextMap),
    field(12, "annotations", Kind::TextMap),
    field(13, "ownerReferences", Kind::Messages(OWNER)),
    field(14, "finalizers", Kind::Texts),
];
const PRECONDITIONS: Message = &[field(1, "uid", Kind::PointedText), field(2, "resourceVersion", Kind::PointedText)];
const DELETE_OPTIONS: Message = &[
    field(1, "gracePeriodSeconds", Kind::Int),
    field(2, "preconditions", Kind::Message(PRECONDITIONS)),
    field(3, "orphanDependents", Kind::Bool),
    field(4, "propagationPolicy", Kind::PointedText),
    field(5, "dryRun", Kind::Texts),
];
const EVICTION: Message =
    &[field(1, "metadata", Kind::Message(METADATA)), field(2, "deleteOptions", Kind::Message(DELETE_OPTIONS))];
const NAMESPACE: Message = &[
    field(1, "metadata", Kind::Message(METADATA)),
    field(2, "spec", Kind::Message(&[field(1, "finalizers", Kind::Texts)])),
    field(3, "status", Kind::Message(&[field(1, "phase", Kind::Text)])),
];
const CONFIG_MAP: Message = &[
    field(1, "metadata", Kind::Message(METADATA)),
    field(2, "data", Kind::TextMap),
    field(3, "binaryData", Kind::BytesMap),
    field(4, "immutable", Kind::Bool),
];
const SECRET: Message = &[
    field(1, "metadata", Kind::Message(METADATA)),
    field(2, "data", Kind::BytesMap),
    field(3, "type", Kind::Text),
    field(4, "stringData", Kind::TextMap),
    field(5, "immutable", Kind::Bool),
];
const SERVICE_ACCOUNT: Message =
    &[field(1, "metadata", Kind::Message(METADATA)), field(4, "automountServiceAccountToken", Kind::Bool)];
const SELECTOR: Message = &[
    field(1, "matchLabels", Kind::TextMap),
    field(
        2,
        "matchExpressions",
        Kind::Messages(&[
            field(1, "key", Kind::Text),
            field(2, "operator", Kind::Text),
            field(3, "values", Kind::Texts),
        ]),
    ),
];
const BUDGET: Message = &[
    field(1, "metadata", Kind::Message(METADATA)),
    field(
        2,
        "spec",
        Kind::Message(&[
            field(1, "minAvailable", Kind::IntOrString),
            field(2, "selector", Kind::Message(SELECTOR)),
            field(3, "maxUnavailable", Kind::IntOrString),
            field(4, "unhealthyPodEvictionPolicy", Kind::Text),
        ]),
    ),
];
/// The type that the envelope names.
const TYPE: Message = &[field(1, "apiVersion", Kind::Text), field(2, "kind", Kind::Text)];
/// Reviews are allowed whatever they ask.
const REVIEW: Message = &[];

fn message(kind: &str) -> Option<Message> {
    Some(match kind {
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "PodDisruptionBudget" => BUDGET,
        "SelfSubjectAccessReview" | "SelfSubjectRulesReview" | "SelfSubjectReview" => REVIEW,
        _unknown => return None,
    })
}

/// Why a body is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// Not protobuf, or cut short.
    #[error("the body is no Kubernetes protobuf message")]
    Malformed,
    /// A kind that is only read as JSON.
    #[error("{0} is read as JSON only; use kubectl apply or create with -f")]
    Unsupported(String),
}

/// The object in a protobuf body, as JSON.
pub(super) fn decode(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Error::Malformed)?;
    let mut object = Value::Null;
    let mut raw: &[u8] = &[];
    for part in Reader(envelope) {
        match part? {
            (1, Part::Bytes(bytes)) => object = read(TYPE, bytes, 0)?,
            (2, Part::Bytes(bytes)) => raw = bytes,
            (_, Part::Bytes(_) | Part::Number(_)) => {}
        }
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    let message = message(kind).ok_or_else(|| Error::Unsupported(kind.to_owned()))?;
    let Value::Object(fields) = read(message, raw, 0)? else {
        return Err(Error::Malformed);
    };
    if let Some(object) = object.as_object_mut() {
        object.extend(fields);
    }
    Ok(object)
}

enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads fields one after the other: number and content.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn part(&mut self) -> Option<(u64, Part<'a>)> {
        let key = self.varint()?;
        let part = match key & 7 {
            0 => Part::Number(self.varint()?),
            1 => Part::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Part::Bytes(self.take(length)?)
            }
            5 => Part::Bytes(self.take(4)?),
            _group => return None,
        };
        Some((key >> 3, part))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u64, Part<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_none() {
            self.0 = &[];
        }
        Some(part.ok_or(Error::Malformed))
    }
}

fn text(bytes: &[u8]) -> Result<Value, Error> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|_invalid| Error::Malformed)
}

fn read(message: Message, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::Malformed);
    }
    let mut fields = Map::new();
    for part in Reader(bytes) {
        let (number, part) = part?;
        let Some(field) = message.iter().find(|field| field.number == number) else {
            continue;
        };
        let value = match (field.kind, part) {
            // Empty strings and zero numbers are how Go writes absent fields.
            (Kind::Text | Kind::Time, Part::Bytes([])) => continue,
            (Kind::Text | Kind::PointedText, Part::Bytes(bytes)) => text(bytes)?,
            (Kind::Bytes, Part::Bytes(bytes)) => Value::from(base64(bytes)),
            (Kind::Int, Part::Number(number)) => Value::from(number.cast_signed()),
            (Kind::Bool, Part::Number(number)) => Value::from(number != 0),
            (Kind::Time, Part::Bytes(bytes)) => time(bytes)?,
            (Kind::IntOrString, Part::Bytes(bytes)) => int_or_string(bytes)?,
            (Kind::Message(message), Part::Bytes(bytes)) => read(message, bytes, depth + 1)?,
            (Kind::TextMap, Part::Bytes(bytes)) => {
                add_entry(&mut fields, field.name, bytes, Kind::Text, depth)?;
                continue;
            }
            (Kind::BytesMap, Part::Bytes(bytes)) => {
                add_entry(&mut fields, field.name, bytes, Kind::Bytes, depth)?;
                continue;
            }
            (Kind::Texts, Part::Bytes(bytes)) => {
                add_item(&mut fields, field.name, text(bytes)?);
                continue;
            }
            (Kind::Messages(message), Part::Bytes(bytes)) => {
                add_item(&mut fields, field.name, read(message, bytes, depth + 1)?);
                continue;
            }
            (_mismatch, Part::Number(_) | Part::Bytes(_)) => return Err(Error::Malformed),
        };
        fields.insert(field.name.to_owned(), value);
    }
    Ok(Value::Object(fields))
}

fn add_item(fields: &mut Map<String, Value>, name: &str, item: Value) {
    let list = fields.entry(name).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

fn add_entry(
    fields: &mut Map<String, Value>,
    name: &str,
    bytes: &[u8],
    value: Kind,
    depth: usize,
) -> Result<(), Error> {
    const TEXT: Message = &[field(1, "key", Kind::Text), field(2, "value", Kind::Text)];
    const BYTES: Message = &[field(1, "key", Kind::Text), field(2, "value", Kind::Bytes)];
    let entry = match value {
        Kind::Bytes => read(BYTES, bytes, depth + 1)?,
        Kind::Text
        | Kind::PointedText
        | Kind::Int
        | Kind::Bool
        | Kind::Time
        | Kind::IntOrString
        | Kind::Message(_)
        | Kind::TextMap
        | Kind::BytesMap
        | Kind::Texts
        | Kind::Messages(_) => read(TEXT, bytes, depth + 1)?,
    };
    let part = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    super::object::child(fields, name).insert(part("key"), Value::from(part("value")));
    Ok(())
}

fn time(bytes: &[u8]) -> Result<Value, Error> {
    const TIME: Message = &[field(1, "seconds", Kind::Int)];
    let seconds = read(TIME, bytes, 0)?["seconds"].as_i64().unwrap_or(0);
    let at = chrono::DateTime::from_timestamp(seconds, 0).ok_or(Error::Malformed)?;
    Ok(Value::from(stamp(at)))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    const EITHER: Message = &[field(1, "type", Kind::Int), field(2, "int", Kind::Int), field(3, "text", Kind::Text)];
    let mut either = read(EITHER, bytes, 0)?;
    let text = either["type"].as_i64().unwrap_or(0) == 1;
    Ok(if text { either["text"].take() } else { either["int"].take() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut message = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        message.extend(content);
        message
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &types), bytes(2, raw)].concat()
    }

    #[test]
    fn an_eviction_is_read_as_kubectl_writes_it() {
        let metadata = [bytes(1, b"web-1"), bytes(2, b""), bytes(3, b"default")].concat();
        let options = [vec![1 << 3, 5], bytes(2, &bytes(1, b"some-uid"))].concat();
        let raw = [bytes(1, &metadata), bytes(2, &options)].concat();
        let eviction = decode(&body("policy/v1", "Eviction", &raw)).unwrap();
        assert_eq!(
            eviction,
            json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": "web-1", "namespace": "default"},
                "deleteOptions": {"gracePeriodSeconds": 5, "preconditions": {"uid": "some-uid"}},
            })
        );
    }

    #[test]
    fn an_empty_precondition_is_one_as_go_writes_what_a_pointer_holds() {
        let preconditions = [bytes(1, b"some-uid"), bytes(2, b"")].concat();
        let options = decode(&body("v1", "DeleteOptions", &bytes(2, &preconditions))).unwrap();
        assert_eq!(options["preconditions"], json!({"uid": "some-uid", "resourceVersion": ""}));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(decode(b"{}"), Err(Error::Malformed));
        assert_eq!(decode(&body("v1", "Eviction", &[0x0a, 0xff])), Err(Error::Malformed));
        let pod = decode(&body("v1", "Pod", &[]));
        assert_eq!(pod, Err(Error::Unsupported("Pod".to_owned())));
    }
}
