//! Who writes objects by an API version that goes away, as far as the objects themselves tell.
//!
//! An API server counts such requests and does not say whose they were. What it keeps of each write is the field manager and the version
//! that was used (`metadata.managedFields`), so programs that write can be named, with some of their objects and a day; those that only
//! read leave no trace there. Objects are listed by another version, so that looking is no such request itself, and as metadata alone.
//!
//! RBAC: none of its own. List on the resource, where that is allowed anyway: whoever may not gets no names (`kubectl cupcake preflight`
//! reads with the rights of who types it). Nobody who is to upgrade nodes needs to read all kinds of objects.
//!
//! Source: kubernetes.io, "Server-Side Apply", field management (v1.34); "Deprecated API Migration Guide".

use super::views::timestamp;
use cupcake_crds::values::DeprecatedRequest;
use cupcake_engine::clock::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, ObjectMeta};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// API versions whose objects are looked at: one request each.
const APIS_MAX: usize = 10;
/// Objects of each that are looked at: one page.
const OBJECTS_MAX: u32 = 500;
/// Programs that are named, those that wrote last first.
const WRITERS_MAX: usize = 5;
/// Objects that are named of each.
const NAMES_MAX: usize = 3;

/// Names those who wrote objects so. What may not be read, or is not served, is passed over: the finding says how to look.
pub(super) async fn name_writers(client: &kube::Client, requests: &mut [DeprecatedRequest]) {
    if requests.is_empty() {
        return;
    }
    let Ok(groups) = client.list_api_groups().await else { return };
    for request in requests.iter_mut().take(APIS_MAX) {
        let Some((api_version, resource)) = request.api.split_once(' ') else { continue };
        let Some((group, _)) = api_version.split_once('/') else { continue };
        let Some(version) = served(&groups.groups, group, api_version) else { continue };
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, resource), resource);
        let api = Api::<DynamicObject>::all_with(client.clone(), &kind);
        if let Ok(list) = api.list_metadata(&ListParams::default().limit(OBJECTS_MAX)).await {
            let objects: Vec<ObjectMeta> = list.items.into_iter().map(|item| item.metadata).collect();
            request.written_by = writers_in(&objects, api_version);
        }
    }
}

/// A version of the group by which its objects can be listed without asking for the one that goes away.
fn served<'g>(groups: &'g [APIGroup], group: &str, without: &str) -> Option<&'g str> {
    let group = groups.iter().find(|one| one.name == group)?;
    let all = group.preferred_version.iter().chain(&group.versions);
    all.into_iter().find(|version| version.group_version != without).map(|version| version.version.as_str())
}

/// The programs that wrote some of these objects by that version.
fn writers_in(objects: &[ObjectMeta], api_version: &str) -> Vec<String> {
    #[derive(Default)]
    struct Writer {
        objects: BTreeSet<String>,
        last: Option<Timestamp>,
    }
    let mut writers: BTreeMap<&str, Writer> = BTreeMap::new();
    for meta in objects {
        let so = |entry: &&_| is_of(entry, api_version);
        for entry in meta.managed_fields.iter().flatten().filter(so) {
            let manager = entry.manager.as_deref().filter(|name| !name.is_empty()).unwrap_or("an unnamed program");
            let writer = writers.entry(manager).or_default();
            let name = meta.name.clone().unwrap_or_default();
            writer
                .objects
                .insert(meta.namespace.as_ref().map_or(name.clone(), |namespace| format!("{namespace}/{name}")));
            writer.last = writer.last.max(entry.time.as_ref().and_then(timestamp));
        }
    }
    let mut writers: Vec<(&str, Writer)> = writers.into_iter().collect();
    writers.sort_by_key(|(manager, writer)| (Reverse(writer.last), *manager));
    let told = writers.into_iter().take(WRITERS_MAX).map(|(manager, writer)| {
        let names: Vec<&str> = writer.objects.iter().take(NAMES_MAX).map(String::as_str).collect();
        let more = match writer.objects.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let last = writer.last.map(|last| format!("; last on {}", last.format("%Y-%m-%d"))).unwrap_or_default();
        format!("{manager} ({}{more}{last})", names.join(", "))
    });
    told.collect()
}

fn is_of(entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry, api_version: &str) -> bool {
    entry.api_version.as_deref() == Some(api_version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn meta(namespace: &Value, name: &str, fields: &[(&str, &str, &str)]) -> ObjectMeta {
        let entry = |(manager, version, day): &(&str, &str, &str)| json!({"manager": manager, "apiVersion": version, "operation": "Update", "time": format!("{day}T08:00:00Z")});
        let fields: Vec<Value> = fields.iter().map(entry).collect();
        serde_json::from_value(json!({"namespace": namespace, "name": name, "managedFields": fields})).unwrap()
    }

    #[test]
    fn programs_that_wrote_by_a_version_are_named_with_some_objects_and_their_last_day_the_newest_first() {
        let old = "policy/v1beta1";
        let mut objects = vec![
            meta(
                &json!("shop"),
                "web",
                &[("helm", old, "2026-11-01"), ("kube-controller-manager", "policy/v1", "2026-11-09")],
            ),
            meta(&json!("shop"), "db", &[("helm", old, "2026-11-20"), ("argocd", old, "2026-11-25")]),
            meta(&json!("ci"), "runner", &[("kubectl", "policy/v1", "2026-11-26")]),
        ];
        assert_eq!(
            writers_in(&objects, old),
            ["argocd (shop/db; last on 2026-11-25)", "helm (shop/db, shop/web; last on 2026-11-20)"]
        );
        objects.extend((0..9).map(|n| meta(&Value::Null, &format!("o-{n}"), &[("many", old, "2026-10-01")])));
        objects.extend((0..9).map(|n| meta(&Value::Null, "x", &[(format!("p-{n}").as_str(), old, "2026-09-01")])));
        let told = writers_in(&objects, old);
        assert_eq!(told.len(), WRITERS_MAX, "{told:?}");
        assert_eq!(told[2], "many (o-0, o-1, o-2 and 6 more; last on 2026-10-01)");
        assert_eq!(writers_in(&objects, "policy/v2"), [""; 0]);
    }

    #[test]
    fn objects_are_listed_by_another_version_than_the_one_that_goes_away() {
        let group = |versions: &[&str]| -> APIGroup {
            let of = |version: &&str| json!({"groupVersion": format!("policy/{version}"), "version": version});
            let versions: Vec<Value> = versions.iter().map(of).collect();
            serde_json::from_value(json!({"name": "policy", "versions": versions, "preferredVersion": versions[0]}))
                .unwrap()
        };
        let of = |versions: &[&str]| served(&[group(versions)], "policy", "policy/v1beta1").map(str::to_owned);
        assert_eq!(of(&["v1", "v1beta1"]).as_deref(), Some("v1"));
        assert_eq!(of(&["v1beta1", "v1"]).as_deref(), Some("v1"), "whichever the server prefers");
        assert_eq!(of(&["v1beta1"]), None, "looking would be such a request");
        assert_eq!(served(&[], "policy", "policy/v1beta1"), None);
    }
}
