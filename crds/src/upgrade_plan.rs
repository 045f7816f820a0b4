//! UpgradePlan: what a run will do, written once.

use crate::validate::upgrade_plan as rules;
use kube_derive::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A compiled plan; never changed after it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "cupcake.ricardomolendijk.com",
    version = "v1",
    kind = "UpgradePlan",
    plural = "upgradeplans",
    shortname = "up",
    category = "cupcake",
    derive = "PartialEq",
    doc = "What a run will do, step by step; written once by the operator and never changed. `kubectl cupcake plan` prints it for people.",
    printcolumn(name = "Run", type_ = "string", json_path = ".spec.run", description = "the run that carries it out"),
    printcolumn(
        name = "Format",
        type_ = "integer",
        json_path = ".spec.format",
        description = "version of the stored form"
    ),
    printcolumn(
        name = "Compiler",
        type_ = "string",
        json_path = ".spec.compiler",
        description = "who compiled it",
        priority = 1
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".spec.digest",
        description = "SHA-256 of the plan",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::IMMUTABLE)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePlanSpec {
    /// Name and version of what compiled it. Example: cupcake-workflows/0.1.0
    #[schemars(length(min = 1, max = 64))]
    pub compiler: String,
    /// SHA-256 of the plan in hexadecimal digits. Example: 1b9d2c3a...
    #[schemars(length(min = 8, max = 64), regex(pattern = "^[0-9a-f]+$"))]
    pub digest: String,
    /// Version of the stored form. Example: 1
    #[schemars(range(min = 1, max = 1000))]
    pub format: u32,
    /// The plan itself, in the stored form that format names.
    #[schemars(schema_with = "plan_schema")]
    pub plan: Value,
    /// The UpgradeRun that carries it out. Example: to-1-34-6f0d7f0e
    #[schemars(length(min = 1, max = 253))]
    pub run: String,
}

fn plan_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
    })
}
