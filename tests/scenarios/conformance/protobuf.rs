//! Evictions and DeleteOptions as Go clients send them: protobuf, which kubectl speaks to built-in kinds.
//!
//! Source: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`, and the generated.proto of meta/v1 and policy/v1.

use serde_json::Value;

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: [u8; 4] = *b"k8s\0";

/// The object in its envelope. Only the fields of an Eviction and of DeleteOptions are written.
pub fn encode(object: &Value) -> Vec<u8> {
    let mut types = Vec::new();
    text(&mut types, 1, &object["apiVersion"]);
    text(&mut types, 2, &object["kind"]);
    let raw = if object["kind"] == "DeleteOptions" { delete_options(object) } else { eviction(object) };
    let mut bytes = MAGIC.to_vec();
    message(&mut bytes, 1, &types);
    message(&mut bytes, 2, &raw);
    bytes
}

fn eviction(object: &Value) -> Vec<u8> {
    let mut metadata = Vec::new();
    text(&mut metadata, 1, &object["metadata"]["name"]);
    text(&mut metadata, 3, &object["metadata"]["namespace"]);
    let mut raw = Vec::new();
    message(&mut raw, 1, &metadata);
    if object["deleteOptions"].is_object() {
        message(&mut raw, 2, &delete_options(&object["deleteOptions"]));
    }
    raw
}

fn delete_options(options: &Value) -> Vec<u8> {
    let mut raw = Vec::new();
    if let Some(seconds) = options["gracePeriodSeconds"].as_i64() {
        varint(&mut raw, 1 << 3);
        varint(&mut raw, u64::from_le_bytes(seconds.to_le_bytes()));
    }
    if options["preconditions"].is_object() {
        let mut preconditions = Vec::new();
        text(&mut preconditions, 1, &options["preconditions"]["uid"]);
        text(&mut preconditions, 2, &options["preconditions"]["resourceVersion"]);
        message(&mut raw, 2, &preconditions);
    }
    text(&mut raw, 4, &options["propagationPolicy"]);
    options["dryRun"].as_array().into_iter().flatten().for_each(|one| text(&mut raw, 5, one));
    raw
}

fn text(into: &mut Vec<u8>, field: u64, value: &Value) {
    if let Some(text) = value.as_str() {
        message(into, field, text.as_bytes());
    }
}

fn message(into: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(into, field << 3 | 2);
    varint(into, u64::try_from(content.len()).unwrap());
    into.extend_from_slice(content);
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}
