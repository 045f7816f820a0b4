//! An object that may be unreadable without taking its neighbours along: what lists, watches and gets of our kinds are read as.
//!
//! kube has the same (`kube::core::DeserializeGuard`), by way of a copy of the object in a map of maps that are ordered by any
//! value. This one reads from one tree of JSON; what that is worth is in docs/decisions/0018-own-guard-of-unreadable-objects.md.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// An object, or what it lacks to be one, with its metadata.
///
/// Only where metadata cannot be read either the whole answer fails.
#[derive(Debug, Clone)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

impl<'de, K> Deserialize<'de> for Guarded<K>
where
    K: for<'tree> Deserialize<'tree> + Resource,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = Value::deserialize(deserializer)?;
        Ok(Self(match K::deserialize(&tree) {
            Ok(object) => Ok(object),
            Err(error) => {
                let metadata = ObjectMeta::deserialize(&tree["metadata"]).map_err(D::Error::custom)?;
                Err(InvalidObject { error: error.to_string(), metadata })
            }
        }))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::NodeTask;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::json;

    fn tasks() -> Value {
        let task = |name: &str, spec: Value| json!({"apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "NodeTask", "metadata": {"name": name}, "spec": spec});
        let good = json!({"nodeName": "w-1", "nodeUid": "u", "epoch": 3});
        json!([task("w-1", good), task("w-2", json!({"epoch": "three"}))])
    }

    #[test]
    fn an_object_that_cannot_be_read_keeps_its_name_and_leaves_the_rest_of_the_list_alone() {
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": tasks()}).to_string();
        let list: ObjectList<Guarded<NodeTask>> = serde_json::from_str(&list).unwrap();
        let told: Vec<(Option<&str>, bool)> =
            list.items.iter().map(|one| (one.meta().name.as_deref(), one.0.is_ok())).collect();
        assert_eq!(told, [(Some("w-1"), true), (Some("w-2"), false)]);
        let error = &list.items[1].0.as_ref().unwrap_err().error;
        assert!(error.contains("three"), "what is wrong is told: {error}");
    }

    #[test]
    fn what_a_watch_tells_is_read_in_either_order_of_its_fields() {
        for bad in [false, true] {
            let object = &tasks()[usize::from(bad)];
            for line in [
                format!(r#"{{"type":"MODIFIED","object":{object}}}"#),
                format!(r#"{{"object":{object},"type":"MODIFIED"}}"#),
            ] {
                let WatchEvent::Modified(one) = serde_json::from_str::<WatchEvent<Guarded<NodeTask>>>(&line).unwrap()
                else {
                    panic!("{line}")
                };
                assert_eq!(one.0.is_err(), bad, "{line}");
            }
        }
    }

    #[test]
    fn what_has_no_metadata_to_be_named_by_fails_as_a_whole() {
        let line = r#"{"kind": "NodeTask", "metadata": 7, "spec": 7}"#;
        assert!(serde_json::from_str::<Guarded<NodeTask>>(line).is_err());
    }
}
