//! What is particular to each minor of Kubernetes: one file of data with its sources, `data/facts.json`.
//!
//! People may lay facts of their own over it, field by field (docs/facts.md). What inventories and `spec.path` name goes before the newest patch that stands there, and nodes install nothing that their
//! repositories do not offer.

use crate::changes::minor_of;
use cupcake_crds::values::{KubeVersion, MinorVersion, OwnFacts};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

/// One minor.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Facts {
    /// Its newest known patch.
    newest_patch: u32,
    /// Patches that an upgrade is better not led through.
    pub avoid: Option<Avoid>,
    /// From which patch on a cluster may leave it for the next minor, where not every one will do.
    pub leave_from: Option<LeaveFrom>,
    /// Kinds and API versions that its API server no longer serves.
    #[serde(default, deserialize_with = "or_nothing")]
    pub removed_apis: Vec<String>,
    /// Kinds of objects that its API server has by itself and that of the minor before had not.
    #[serde(default, deserialize_with = "or_nothing")]
    pub new_builtin_kinds: Vec<NewKind>,
    /// Flags that its kubelet no longer starts with.
    #[serde(default, deserialize_with = "or_nothing")]
    pub removed_kubelet_flags: Vec<String>,
    /// Feature gates that its components no longer know, of which a component ends at once.
    #[serde(default, deserialize_with = "or_nothing")]
    pub removed_feature_gates: Vec<String>,
    /// Feature gates that its components no longer let be set to another value: `Name=true`.
    #[serde(default, deserialize_with = "or_nothing")]
    pub locked_feature_gates: Vec<String>,
    /// Admission plugins that its API server no longer knows.
    #[serde(default, deserialize_with = "or_nothing")]
    pub removed_admission_plugins: Vec<String>,
    /// Flags that a component of its control plane no longer knows, by component.
    #[serde(default, deserialize_with = "or_nothing")]
    pub removed_flags: BTreeMap<String, Vec<String>>,
    /// Whether its kubelet refuses to start on control groups version 1 unless it is told otherwise.
    #[serde(default, deserialize_with = "or_nothing")]
    pub refuses_cgroup_v1: bool,
    /// The minor of etcd that kubeadm brings, where it is another one than before.
    pub etcd: Option<String>,
    /// The oldest etcd outside the cluster that its kubeadm works with: `3.5.24`.
    pub oldest_etcd: Option<String>,
    /// The versions of kubeadm's configuration API that its kubeadm reads, and the one that it writes.
    pub kubeadm_config: Option<KubeadmConfig>,
    /// The images that kubeadm of one patch of it brings.
    pub images: Option<Images>,
    /// Fields of the kubelet's configuration that its kubelet no longer knows, and leaves aside.
    #[serde(default, deserialize_with = "or_nothing")]
    pub removed_kubelet_settings: Vec<String>,
    /// The oldest minor of containerd that its kubelet works with, where it is another one than before.
    pub oldest_containerd: Option<String>,
    /// The oldest minor of containerd that the kubelet of a later minor will work with, which is announced.
    pub later_containerd: Option<LaterContainerd>,
    /// Where all that stands.
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers of the file; a test asks for them"))]
    sources: Vec<String>,
}

/// A field that a null takes away.
fn or_nothing<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A kind of objects that a minor adds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewKind {
    /// Its API group.
    pub group: String,
    /// Its name.
    pub kind: String,
    /// The component of the control plane that writes such objects whether or not anybody asks, if one does.
    pub written_by: Option<String>,
}

/// What kubeadm of a minor makes of kubeadm's configuration in the cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KubeadmConfig {
    /// The versions of the API that it reads: `v1beta3`.
    pub reads: Vec<String>,
    /// The one in which it stores the configuration.
    pub writes: String,
}

/// The images that kubeadm of one patch brings, unless its configuration names others.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Images {
    /// The patch.
    of_patch: u32,
    /// The tag of CoreDNS.
    pub coredns: String,
    /// The tag of etcd.
    pub etcd: String,
    /// The tag of pause.
    pub pause: String,
}

/// What a later minor will ask of containerd.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LaterContainerd {
    /// That minor.
    pub from: String,
    /// The oldest minor of containerd that its kubelet will work with.
    pub oldest: String,
}

/// The first patches of a minor, which leave something behind that stands in the way of the next upgrade.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Avoid {
    /// The newest of them.
    newest_patch: u32,
    /// What is wrong with them.
    pub why: String,
    /// What to do on a cluster that is at one of them.
    pub leaving: String,
}

/// The patch that a cluster of a minor has to be at, or past, before it goes on to the next minor.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LeaveFrom {
    /// The oldest patch that will do.
    pub oldest_patch: u32,
    /// What older ones lack.
    why: String,
    /// Where that stands.
    source: Option<String>,
}

impl fmt::Display for LeaveFrom {
    /// The reason, in one line, with its source where it has one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, " ({source})"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "for readers of the file")]
    about: String,
    /// Of the form of the file: another one for each change that older readers would not understand.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers of the file; a test asks for it"))]
    version: u32,
    minors: BTreeMap<String, Value>,
}

/// Why facts of somebody's own are not taken: which field, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {remedy}")]
pub struct InvalidFacts {
    /// The field: `minors.1.35.newestPatch`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What docs/facts.md says, for every mistake that it answers.
const SEE: &str = "see docs/facts.md for the fields and what each takes";

fn builtin() -> &'static BTreeMap<String, Value> {
    static FILE: OnceLock<File> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        serde_json::from_str(include_str!("../data/facts.json"))
            .expect("the file is part of the program, and a test reads it")
    });
    &file.minors
}

/// Checks facts of somebody's own: an object with `minors`, each with those fields that differ from what is known; null takes one away.
///
/// # Errors
/// The first field that cannot be understood.
pub fn own(file: Value) -> Result<OwnFacts, InvalidFacts> {
    let invalid = |field: String, problem: String| InvalidFacts { field, problem, remedy: SEE };
    let Value::Object(mut file) = file else {
        return Err(invalid("the file".to_owned(), "it is no object with the field minors".to_owned()));
    };
    file.remove("about");
    file.remove("version");
    let minors = match file.remove("minors") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(minors)) => minors,
        Some(_) => return Err(invalid("minors".to_owned(), "it is no object by minor version".to_owned())),
    };
    if let Some(field) = file.keys().next() {
        return Err(invalid(field.clone(), "there is no such field; there are about, version and minors".to_owned()));
    }
    for (minor, fields) in &minors {
        let field = format!("minors.{minor}");
        let number = minor.strip_prefix("1.").and_then(|number| number.parse::<u32>().ok());
        if number.is_none_or(|number| format!("1.{number}") != *minor) {
            return Err(invalid(field, "no minor version of Kubernetes, such as 1.35".to_owned()));
        }
        let Value::Object(fields) = fields else {
            return Err(invalid(field, "it is no object".to_owned()));
        };
        // Each on its own, so that the one that is wrong is named.
        let known = builtin().get(minor).cloned().unwrap_or_else(|| json!({"newestPatch": 0}));
        for (name, value) in fields {
            let mut one = known.clone();
            merge(&mut one, &json!({name: value}));
            serde_json::from_value::<Facts>(one)
                .map_err(|error| invalid(format!("{field}.{name}"), error.to_string()))?;
        }
        if !builtin().contains_key(minor) && !fields.contains_key("newestPatch") {
            let problem = "it is missing, and nothing is known of that minor".to_owned();
            return Err(invalid(format!("{field}.newestPatch"), problem));
        }
    }
    let own: OwnFacts = minors.into_iter().collect();
    for minor in own.keys() {
        let field = |name: &str| format!("minors.{minor}.{name}");
        let number = minor.strip_prefix("1.").and_then(|number| number.parse().ok());
        let known = number.and_then(|minor| of(&own, MinorVersion { major: 1, minor }));
        let Some(facts) = known else { continue };
        let later = facts.later_containerd.as_ref();
        for (name, version) in [
            ("etcd", facts.etcd.as_ref()),
            ("oldestContainerd", facts.oldest_containerd.as_ref()),
            ("oldestEtcd", facts.oldest_etcd.as_ref()),
            ("laterContainerd.from", later.map(|later| &later.from)),
            ("laterContainerd.oldest", later.map(|later| &later.oldest)),
        ] {
            if let Some(version) = version.filter(|version| minor_of(version).is_none()) {
                return Err(invalid(field(name), format!("{version:?} is no minor version, such as 2.0")));
            }
        }
        if let Some(avoid) = facts.avoid.as_ref().filter(|avoid| avoid.newest_patch >= facts.newest_patch) {
            let problem = format!("{} is to be avoided, and newestPatch is {}", avoid.newest_patch, facts.newest_patch);
            return Err(invalid(field("avoid.newestPatch"), format!("{problem}: no patch is left to go to")));
        }
    }
    Ok(own)
}

/// Lays facts over others: of the same field of the same minor the later one counts.
pub fn overlay(below: &mut OwnFacts, above: OwnFacts) {
    for (minor, fields) in above {
        merge(below.entry(minor).or_insert(Value::Null), &fields);
    }
}

/// A JSON merge patch (RFC 7396) that keeps the nulls of `patch` where `target` has nothing: they have to reach what lies below it.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

/// Whether somebody's own facts name a release of that minor.
pub(crate) fn is_own(own: &OwnFacts, minor: MinorVersion) -> bool {
    own.get(&minor.to_string()).is_some_and(|fields| fields.get("newestPatch").is_some_and(Value::is_u64))
}

/// What is known of a minor, if anything is: what comes with this release, below what people say.
pub(crate) fn of(own: &OwnFacts, minor: MinorVersion) -> Option<Cow<'static, Facts>> {
    static KNOWN: OnceLock<BTreeMap<String, Facts>> = OnceLock::new();
    let minor = minor.to_string();
    let known = KNOWN.get_or_init(|| {
        let read = |facts: &Value| serde_json::from_value(facts.clone()).expect("a test reads every minor of it");
        builtin().iter().map(|(minor, facts)| (minor.clone(), read(facts))).collect()
    });
    let known = known.get(&minor).map(Cow::Borrowed);
    let Some(own) = own.get(&minor) else { return known };
    let mut facts = builtin().get(&minor).cloned().unwrap_or(Value::Null);
    merge(&mut facts, own);
    // What people say was checked when it was read; what was not is left aside.
    serde_json::from_value(facts).ok().map(Cow::Owned).or(known)
}

/// The images that kubeadm of exactly that version brings, if that is known.
pub(crate) fn images(own: &OwnFacts, version: KubeVersion) -> Option<Images> {
    of(own, version.minor_version())?.images.clone().filter(|images| images.of_patch == version.patch())
}

/// Why an upgrade is better not led through a version, if so.
pub(crate) fn avoid(own: &OwnFacts, version: KubeVersion) -> Option<Avoid> {
    let facts = of(own, version.minor_version())?;
    facts.avoid.clone().filter(|avoid| version.patch() <= avoid.newest_patch)
}

/// What asks for a newer patch before a cluster at that version goes on to the next minor, if anything does.
pub(crate) fn leave_from(own: &OwnFacts, version: KubeVersion) -> Option<LeaveFrom> {
    let facts = of(own, version.minor_version())?;
    facts.leave_from.clone().filter(|leave| version.patch() < leave.oldest_patch)
}

/// The newest patch of a minor, if it is known.
pub(crate) fn newest(own: &OwnFacts, minor: MinorVersion) -> Option<KubeVersion> {
    Some(KubeVersion::new(minor.major, minor.minor, of(own, minor)?.newest_patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_of_which_form_it_is_and_nothing_of_patches_that_nobody_looked_up() {
        let text = include_str!("../data/facts.json");
        let file: File = serde_json::from_str(text).unwrap();
        assert_eq!(file.version, 1);
        let about = text.lines().find(|line| line.contains("\"about\"")).unwrap();
        assert!(about.contains("newer ones may be out") && !about.contains("from the tags"), "{about}");
    }

    #[test]
    fn every_minor_from_1_24_on_is_known_and_what_is_said_of_it_has_a_source() {
        for minor in 24..=37 {
            let facts = of(&OwnFacts::new(), MinorVersion { major: 1, minor }).unwrap();
            let says = facts.avoid.is_some()
                || !facts.removed_apis.is_empty()
                || !facts.new_builtin_kinds.is_empty()
                || !facts.removed_kubelet_flags.is_empty()
                || !facts.removed_feature_gates.is_empty()
                || !facts.locked_feature_gates.is_empty()
                || !facts.removed_admission_plugins.is_empty()
                || !facts.removed_flags.is_empty()
                || facts.refuses_cgroup_v1
                || facts.etcd.is_some()
                || facts.oldest_etcd.is_some()
                || facts.kubeadm_config.is_some()
                || facts.images.is_some()
                || !facts.removed_kubelet_settings.is_empty()
                || facts.oldest_containerd.is_some();
            assert_eq!(says, !facts.sources.is_empty(), "1.{minor}");
            assert!(facts.sources.iter().all(|source| source.starts_with("https://")), "1.{minor}");
        }
        assert_eq!(newest(&OwnFacts::new(), MinorVersion { major: 1, minor: 33 }), Some(KubeVersion::new(1, 33, 13)));
        assert_eq!(newest(&OwnFacts::new(), MinorVersion { major: 1, minor: 99 }), None);
    }

    #[test]
    fn images_are_those_of_one_patch_and_every_minor_says_what_its_kubeadm_brings_reads_and_writes() {
        let none = OwnFacts::new();
        for minor in 24..=37 {
            let newest = newest(&none, MinorVersion { major: 1, minor }).unwrap();
            assert!(images(&none, newest).is_some(), "{newest}");
            assert!(images(&none, KubeVersion::new(1, minor, newest.patch() + 1)).is_none(), "of another patch");
            let facts = of(&none, newest.minor_version()).unwrap();
            let api = facts.kubeadm_config.as_ref().unwrap();
            assert!(api.reads.contains(&api.writes) && facts.oldest_etcd.is_some(), "{newest}");
        }
        let mine = read(json!({"minors": {"1.34": {"newestPatch": 9}}})).unwrap();
        assert!(
            images(&mine, KubeVersion::new(1, 34, 9)).is_none(),
            "a newer patch of one's own has no images by itself"
        );
        let images_of = json!({"images": {"ofPatch": 9, "etcd": "3.6.9-0"}});
        let mine = read(json!({"minors": {"1.34": images_of}})).unwrap();
        let of_9 = images(&mine, KubeVersion::new(1, 34, 9)).unwrap();
        assert_eq!((of_9.etcd.as_str(), of_9.coredns.as_str()), ("3.6.9-0", "v1.12.1"), "field by field");
    }

    fn read(file: Value) -> Result<OwnFacts, String> {
        own(file).map_err(|error| error.to_string())
    }

    #[test]
    fn facts_of_ones_own_count_field_by_field_and_a_null_takes_one_away() {
        let minor = |minor| MinorVersion { major: 1, minor };
        let mut mine = read(json!({"about": "ours", "minors": {
            "1.28": {"newestPatch": 17, "avoid": null},
            "1.35": {"removedKubeletFlags": ["--ours"], "refusesCgroupV1": null},
            "1.99": {"newestPatch": 3, "etcd": "4.0"},
        }}))
        .unwrap();
        assert_eq!(newest(&mine, minor(28)), Some(KubeVersion::new(1, 28, 17)));
        assert!(avoid(&mine, KubeVersion::new(1, 28, 1)).is_none(), "taken away");
        assert!(avoid(&OwnFacts::new(), KubeVersion::new(1, 28, 1)).is_some());
        let of_35 = of(&mine, minor(35)).unwrap().into_owned();
        assert_eq!((of_35.removed_kubelet_flags, of_35.refuses_cgroup_v1), (vec!["--ours".to_owned()], false));
        assert_eq!(newest(&mine, minor(35)), newest(&OwnFacts::new(), minor(35)), "what is not named stays");
        assert_eq!(of(&mine, minor(99)).unwrap().etcd.as_deref(), Some("4.0"));
        overlay(&mut mine, read(json!({"minors": {"1.28": {"newestPatch": 18}}})).unwrap());
        assert_eq!(newest(&mine, minor(28)), Some(KubeVersion::new(1, 28, 18)));
        assert!(avoid(&mine, KubeVersion::new(1, 28, 1)).is_none(), "and stays so below another file");
    }

    #[test]
    fn a_minor_is_left_from_the_patch_that_a_fact_names_which_people_may_move_or_take_away() {
        let asks = |own: &OwnFacts, patch| {
            let leave = leave_from(own, KubeVersion::new(1, 33, patch))?;
            Some((leave.oldest_patch, leave.to_string()))
        };
        assert_eq!(asks(&OwnFacts::new(), 0), None, "by itself no minor asks for one");
        let fact = json!({"oldestPatch": 6, "why": "its etcd is too old", "source": "https://etcd.io/blog/"});
        let known = read(json!({"minors": {"1.33": {"leaveFrom": fact}}})).unwrap();
        assert_eq!(asks(&known, 5), Some((6, "its etcd is too old (https://etcd.io/blog/)".to_owned())));
        assert_eq!(asks(&known, 6), None);
        let gone = read(json!({"minors": {"1.33": {"leaveFrom": null}}})).unwrap();
        assert_eq!(asks(&gone, 0), None);
        let mine = json!({"minors": {"1.34": {"leaveFrom": {"oldestPatch": 2, "why": "ours before it are broken"}}}});
        let told = leave_from(&read(mine).unwrap(), KubeVersion::new(1, 34, 1)).map(|leave| leave.to_string());
        assert_eq!(told.as_deref(), Some("ours before it are broken"), "a source may be left out");
    }

    #[test]
    fn facts_that_cannot_be_understood_are_refused_by_their_field() {
        let of = |minor: &str, fields: Value| read(json!({"minors": {minor: fields}})).unwrap_err();
        for (told, words) in [
            (read(json!([])).unwrap_err(), ["the file", "minors"]),
            (read(json!({"minor": {}})).unwrap_err(), ["minor: ", "about, version and minors"]),
            (of("1.035", json!({})), ["minors.1.035", "such as 1.35"]),
            (of("1.35", json!({"newestPatches": 3})), ["minors.1.35.newestPatches: unknown field", "`newestPatch`"]),
            (of("1.35", json!({"newestPatch": "3"})), ["minors.1.35.newestPatch: invalid type", "docs/facts.md"]),
            (of("1.35", json!({"avoid": {"newestPatch": 2}})), ["minors.1.35.avoid: missing field", "why"]),
            (of("1.35", json!({"leaveFrom": {"oldestPatch": 2}})), ["minors.1.35.leaveFrom: missing field", "why"]),
            (of("1.99", json!({"etcd": "4.0"})), ["minors.1.99.newestPatch", "is missing"]),
            (of("1.35", json!({"oldestContainerd": "banana"})), ["minors.1.35.oldestContainerd", "such as 2.0"]),
            (of("1.35", json!({"etcd": ">=3.6"})), ["minors.1.35.etcd", "such as 2.0"]),
            (
                of("1.28", json!({"avoid": {"newestPatch": 99, "why": "bad", "leaving": "wait"}})),
                ["minors.1.28.avoid.newestPatch", "no patch is left"],
            ),
        ] {
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
    }
}
