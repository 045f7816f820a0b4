//! [`RunStore`] over UpgradeRun and UpgradePlan objects.
//!
//! The cursor is one string in `status.cursor`; a commit is one PUT of the status subresource with the resourceVersion that
//! was loaded, and carries everything else that people read there (graph, message, progress, conditions). The rules of the
//! CRD refuse a smaller epoch, so a leader that was stopped and resumed is fenced by the API server itself.
//!
//! RBAC: get, list, create on upgraderuns; update on upgraderuns/status; get, create on upgradeplans.

use super::stragglers::ask_stragglers;
use super::{is_already_exists, is_not_found};
use crate::run_status;
use async_trait::async_trait;
use cupcake_crds::upgrade_run::{ObjectRef, ParentRef, PlanRef};
use cupcake_crds::values::KubeVersion;
use cupcake_crds::{GROUP, RUN_LABEL, UpgradePlan, UpgradePlanSpec, UpgradeRun, UpgradeRunSpec, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::codec;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use cupcake_engine::decide::{Intent, Limits};
use cupcake_engine::names::{Epoch, RunName};
use cupcake_engine::plan::{Plan, PlanError};
use cupcake_engine::store::{Change, NewRun, RunStore, StoreError, StoredRun, Version};
use cupcake_workflows::plan_name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest run object that is sent, in bytes. The goal is 20 kB; past this limit the API server itself gets slow.
pub const RUN_BYTES_MAX: usize = 100_000;
/// The largest plan that is sent, in bytes: a little more than the compiler's for a root run. It is written once, and read when
/// somebody begins to lead; what is written again and again is small.
pub const PLAN_BYTES_MAX: usize = 409_600;
/// How many expanded plans are kept in memory; a run's tree has at most three open levels.
const PLANS_KEPT_MAX: usize = 16;
/// When a run was created, as RFC 3339: the zero of its cursor's times.
const CREATED_ANNOTATION: &str = "cupcake.ricardomolendijk.com/created-at";

/// The graph of a run's plan, and how far it has come.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The expanded plan.
    pub dag: Arc<Dag>,
    /// The cursor.
    pub cursor: Cursor,
}

/// What a run carries besides its plan.
#[derive(Debug, Clone, PartialEq)]
pub struct RunMeta {
    /// Whose run it is.
    pub direct_update: ObjectRef,
    /// Names the operation over all its runs.
    pub operation_id: String,
    /// Absent on the root.
    pub parent: Option<ParentRef>,
    /// UID of the root run; `None` on the root itself.
    pub root_uid: Option<String>,
    /// Where the whole update goes.
    pub target_version: KubeVersion,
    /// Where this hop goes.
    pub hop: Option<KubeVersion>,
    /// How many nodes at once.
    pub concurrency: u32,
    /// How many failed nodes stop new ones.
    pub failures_max: u32,
    /// With whom it is garbage-collected; `None` for a run that nobody asked for through a DirectUpdate.
    pub owner: Option<OwnerReference>,
}

impl RunMeta {
    /// The owner of a run that `kind` `name` asked for.
    pub fn owned_by(kind: &str, name: &str, uid: &str) -> Option<OwnerReference> {
        Some(OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        })
    }

    /// The root's UID, as the children of `parent` carry it.
    pub fn root_uid_of(parent: &UpgradeRun) -> Option<String> {
        parent.labels().get(RUN_LABEL).cloned().or_else(|| parent.uid())
    }
}

/// Runs in custom resources. Cheap to clone.
#[derive(Clone)]
pub struct KubeStore {
    client: kube::Client,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// Plans by object name: they never change.
    plans: BTreeMap<String, (Arc<Plan>, Arc<Dag>)>,
    /// Runs as last loaded or written: a commit sends the whole object back.
    runs: BTreeMap<RunName, UpgradeRun>,
    /// What people ask, by DirectUpdate: kept up to date by the watch of DirectUpdates.
    intents: BTreeMap<String, Intent>,
    /// How many workers may be in flight, by DirectUpdate, as its spec says now.
    concurrency: BTreeMap<String, u32>,
}

impl KubeStore {
    /// Over that client.
    pub fn new(client: kube::Client) -> Self {
        Self { client, shared: Arc::default() }
    }

    /// What people ask of the runs of a DirectUpdate, from now on. Gives whether that is new.
    pub fn set_intent(&self, direct_update: &str, intent: Intent) -> bool {
        let mut shared = self.lock();
        let changed = shared.intents.get(direct_update) != Some(&intent);
        shared.intents.insert(direct_update.to_owned(), intent);
        changed
    }

    /// Lets go of what is kept of a run that is gone.
    pub fn forget_run(&self, name: &RunName) {
        self.lock().runs.remove(name);
    }

    /// How many workers the runs below a DirectUpdate's root may have in flight, from now on. Gives whether that is new.
    pub fn set_concurrency(&self, direct_update: &str, concurrency: u32) -> bool {
        self.lock().concurrency.insert(direct_update.to_owned(), concurrency) != Some(concurrency)
    }

    /// Makes the plan object exist, garbage-collected with `owner`; gives the plan's digest. Repeating it changes nothing.
    pub async fn create_plan(
        &self,
        run: &RunName,
        plan: &Plan,
        owner: Option<OwnerReference>,
    ) -> Result<String, StoreError> {
        let digest = plan.digest();
        let json = serde_json::to_value(plan).map_err(|error| corrupt(run, error))?;
        let bytes = json.to_string().len();
        if bytes > PLAN_BYTES_MAX {
            return Err(StoreError::TooLarge { run: run.clone(), bytes, bytes_max: PLAN_BYTES_MAX });
        }
        let spec = UpgradePlanSpec {
            compiler: plan.compiler.clone(),
            digest: digest.clone(),
            format: plan.format,
            plan: json,
            run: run.as_str().to_owned(),
        };
        let mut object = UpgradePlan::new(&plan_name(run, &digest), spec);
        object.metadata.owner_references = owner.map(|owner| vec![owner]);
        let api: Api<UpgradePlan> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(digest),
            // Plans are named by their digest and immutable: one of that name is this one.
            Err(error) if is_already_exists(&error) => Ok(digest),
            Err(error) => Err(unavailable(run, error)),
        }
    }

    /// Makes the run object exist, of a stored plan.
    pub async fn create_run(
        &self,
        name: &RunName,
        digest: &str,
        meta: &RunMeta,
        created: Timestamp,
    ) -> Result<(), kube::Error> {
        let spec = UpgradeRunSpec {
            concurrency: meta.concurrency,
            direct_update: meta.direct_update.clone(),
            failures_max: meta.failures_max,
            hop: meta.hop,
            operation_id: meta.operation_id.clone(),
            parent: meta.parent.clone(),
            plan: PlanRef { name: plan_name(name, digest), digest: digest.to_owned() },
            target_version: meta.target_version,
        };
        let mut run = UpgradeRun::new(name.as_str(), spec);
        run.annotations_mut().insert(CREATED_ANNOTATION.to_owned(), created.to_rfc3339());
        if let Some(root) = &meta.root_uid {
            run.labels_mut().insert(RUN_LABEL.to_owned(), root.clone());
        }
        run.metadata.owner_references = meta.owner.clone().map(|owner| vec![owner]);
        let api: Api<UpgradeRun> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &run).await.map(drop)
    }

    /// What a run object has recorded; `None` if its plan or cursor cannot be read now.
    pub async fn recorded(&self, run: &UpgradeRun) -> Option<Recorded> {
        let name = RunName::new(run.name_any()).ok()?;
        let dag = self.plan_of(&name, run).await.ok()?;
        let cursor = cursor_of(run, &dag).ok()?;
        Some(Recorded { dag, cursor })
    }

    /// The expanded plan of a run object.
    async fn plan_of(&self, name: &RunName, run: &UpgradeRun) -> Result<Arc<Dag>, StoreError> {
        let plan_name = &run.spec.plan.name;
        if let Some((_, dag)) = self.lock().plans.get(plan_name) {
            return Ok(Arc::clone(dag));
        }
        let api: Api<UpgradePlan> = Api::all(self.client.clone());
        let object = api
            .get(plan_name)
            .await
            .map_err(|error| if is_not_found(&error) { corrupt(name, error) } else { unavailable(name, error) })?;
        let plan: Plan = serde_json::from_value(object.spec.plan).map_err(|error| corrupt(name, error))?;
        let found = plan.digest();
        if found != run.spec.plan.digest {
            let wanted = run.spec.plan.digest.clone();
            return Err(corrupt(name, codec::DecodeError::OtherPlan { found, wanted }));
        }
        let dag = Arc::new(plan.expand().map_err(|error: PlanError| corrupt(name, error))?);
        let mut shared = self.lock();
        while shared.plans.len() >= PLANS_KEPT_MAX {
            shared.plans.pop_first();
        }
        shared.plans.insert(plan_name.clone(), (Arc::new(plan), Arc::clone(&dag)));
        Ok(dag)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every critical section leaves the maps whole; what they hold is re-read from the API server when it is missing.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn corrupt(run: &RunName, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Corrupt { run: run.clone(), source: Box::new(source) }
}

fn unavailable(run: &RunName, source: kube::Error) -> StoreError {
    StoreError::Unavailable { run: run.clone(), source: Box::new(source) }
}

fn version_of(meta: &ObjectMeta) -> Version {
    Version(format!(
        "{}/{}",
        meta.uid.as_deref().unwrap_or_default(),
        meta.resource_version.as_deref().unwrap_or_default()
    ))
}

/// The state of a run object; one that was never committed to is at its plan's beginning.
pub fn cursor_of(run: &UpgradeRun, dag: &Dag) -> Result<Cursor, codec::DecodeError> {
    let digest = &run.spec.plan.digest;
    if let Some(text) = run.status.as_ref().and_then(|status| status.cursor.as_deref()) {
        return codec::decode(text, digest, dag);
    }
    let annotated = run.annotations().get(CREATED_ANNOTATION);
    let annotated = annotated.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    let created = run.metadata.creation_timestamp.as_ref().and_then(super::views::timestamp);
    let created = annotated.map(|at| at.to_utc()).or(created).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(Cursor::new(digest.clone(), dag, created))
}

/// Whether a webhook or a policy denied a request, in their own words.
///
/// Source: k8s.io/apiserver v0.34, pkg/admission/plugin/webhook/errors/statuserror.go and plugin/policy/validating/dispatcher.go.
pub(crate) fn is_denied(message: &str) -> bool {
    message.contains(" denied the request") || message.contains(" denied request: ")
}

#[async_trait]
impl RunStore for KubeStore {
    async fn create(&self, run: &NewRun) -> Result<(), StoreError> {
        let digest = self.create_plan(&run.name, &run.plan, None).await?;
        let meta = RunMeta {
            direct_update: ObjectRef { name: run.name.as_str().to_owned(), uid: format!("uid-of-{}", run.name) },
            operation_id: run.name.as_str().to_owned(),
            parent: None,
            root_uid: None,
            target_version: KubeVersion::new(1, 0, 0),
            hop: None,
            concurrency: run.limits.concurrency,
            failures_max: run.limits.failures_max,
            owner: None,
        };
        match self.create_run(&run.name, &digest, &meta, run.cursor.created()).await {
            Ok(()) => Ok(()),
            Err(error) if is_already_exists(&error) => {
                let api: Api<UpgradeRun> = Api::all(self.client.clone());
                let present = api.get(run.name.as_str()).await.map_err(|error| unavailable(&run.name, error))?;
                if present.spec.plan.digest == digest { Ok(()) } else { Err(StoreError::Conflict(run.name.clone())) }
            }
            Err(error) => Err(unavailable(&run.name, error)),
        }
    }

    async fn load(&self, name: &RunName) -> Result<StoredRun, StoreError> {
        let api: Api<UpgradeRun> = Api::all(self.client.clone());
        let run = match api.get(name.as_str()).await {
            Ok(run) => run,
            Err(error) if is_not_found(&error) => {
                self.lock().runs.remove(name);
                return Err(StoreError::NotFound(name.clone()));
            }
            // The object is there and is not one: another writer left it malformed.
            Err(error @ (kube::Error::SerdeError(_) | kube::Error::FromUtf8(_))) => return Err(corrupt(name, error)),
            Err(error) => return Err(unavailable(name, error)),
        };
        let dag = self.plan_of(name, &run).await?;
        let cursor = cursor_of(&run, &dag).map_err(|error| corrupt(name, error))?;
        let mut shared = self.lock();
        let mut intent = shared.intents.get(&run.spec.direct_update.name).cloned().unwrap_or_default();
        // A run that is being deleted ends as soon as it safely can.
        intent.cancel |= run.metadata.deletion_timestamp.is_some();
        ask_stragglers(&mut intent, &dag, &cursor);
        for asked in &mut intent.retry {
            if asked.run.as_ref().is_some_and(|run| run != name) {
                asked.what = None;
            }
        }
        // The nodes of a root run are the control plane, of which none can be left out.
        if run.spec.parent.is_none() {
            intent.skip.clear();
        }
        // The root's nodes are one after another whatever the spec says; a wave has no nodes of its own.
        let asked = run.spec.parent.as_ref().and(shared.concurrency.get(&run.spec.direct_update.name).copied());
        let stored = StoredRun {
            name: name.clone(),
            uid: run.uid().unwrap_or_default(),
            dag,
            cursor,
            version: version_of(&run.metadata),
            epoch: Epoch(run.status.as_ref().and_then(|status| status.epoch).unwrap_or(0)),
            limits: Limits {
                concurrency: asked.unwrap_or(run.spec.concurrency),
                failures_max: run.spec.failures_max,
                ..Limits::default()
            },
            intent,
        };
        shared.runs.insert(name.clone(), run);
        Ok(stored)
    }

    async fn commit(
        &self,
        name: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError> {
        let held = self.lock().runs.get(name).cloned();
        let Some(mut run) = held.filter(|run| version_of(&run.metadata) == *expected) else {
            return Err(StoreError::Conflict(name.clone()));
        };
        let current = Epoch(run.status.as_ref().and_then(|status| status.epoch).unwrap_or(0));
        if epoch < current {
            return Err(StoreError::Fenced { run: name.clone(), current, own: epoch });
        }
        let dag = self.plan_of(name, &run).await?;
        run_status::write(&mut run, &dag, change, epoch);
        run.metadata.managed_fields = None;
        let bytes = serde_json::to_vec(&run).map_or(usize::MAX, |json| json.len());
        if bytes > RUN_BYTES_MAX {
            return Err(StoreError::TooLarge { run: name.clone(), bytes, bytes_max: RUN_BYTES_MAX });
        }
        let api: Api<UpgradeRun> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some("cupcake-operator-status".to_owned()), ..PostParams::default() };
        match api.replace_status(name.as_str(), &params, &run).await {
            Ok(written) => {
                let version = version_of(&written.metadata);
                self.lock().runs.insert(name.clone(), written);
                Ok(version)
            }
            Err(error) if is_not_found(&error) => Err(StoreError::NotFound(name.clone())),
            // A webhook denies with any status, and a ValidatingAdmissionPolicy by its default reason with 422: the run is none the worse
            // for it.
            Err(kube::Error::Api(status)) if is_denied(&status.message) => {
                Err(unavailable(name, kube::Error::Api(status)))
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Err(StoreError::Conflict(name.clone())),
            Err(kube::Error::Api(status)) if status.code == 413 => {
                Err(StoreError::TooLarge { run: name.clone(), bytes, bytes_max: RUN_BYTES_MAX })
            }
            // A rule of the CRD: a greater epoch or commit stands there by now. The next load says which.
            Err(kube::Error::Api(status))
                if status.code == 422
                    && ["status.epoch", "status.commit"].iter().any(|at| status.message.contains(at)) =>
            {
                Err(StoreError::Conflict(name.clone()))
            }
            Err(kube::Error::Api(status)) if status.code == 422 => Err(corrupt(name, kube::Error::Api(status))),
            Err(error) => Err(unavailable(name, error)),
        }
    }

    async fn list(&self) -> Result<Vec<RunName>, StoreError> {
        let api: Api<UpgradeRun> = Api::all(self.client.clone());
        let nobody = || RunName::new("all-runs").expect("a legal name");
        let list = api.list_metadata(&ListParams::default()).await.map_err(|error| unavailable(&nobody(), error))?;
        Ok(list.items.iter().filter_map(|run| RunName::new(run.name_any()).ok()).collect())
    }
}
