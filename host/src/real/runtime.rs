//! The container runtime as crictl shows it: images, and the control plane's containers beside their manifests.

use super::RealHost;
use super::failure::{self, Class, Meaning, permanent, transient};
use super::program::Program;
use cupcake_crds::values::KubeVersion;
use cupcake_steps::ports::host::{HostError, Images, KubeProxy, StaticPods};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Static pods that kubeadm manages.
pub(crate) const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// Folder of the static pods' manifests.
pub(crate) const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Where kubeadm takes images from unless told otherwise.
const DEFAULT_REPOSITORY: &str = "registry.k8s.io";
/// How long one image may take; the largest, the API server's, has about 100 MB.
const PULL_LIMIT: Duration = Duration::from_secs(15 * 60);

const PULL: [Meaning; 2] = [
    Meaning {
        words: "no space left on device",
        class: Class::NeedsOperator,
        code: "DiskFull",
        advice: "free some space where the container runtime keeps its images, then retry",
    },
    Meaning {
        words: "not found",
        class: Class::NeedsOperator,
        code: "ImageNotFound",
        advice: "the registry does not have it: a mirror has to carry it first",
    },
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageList {
    #[serde(default)]
    images: Vec<Image>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct ContainerList {
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    image: ContainerImage,
    #[serde(default)]
    image_ref: String,
    state: String,
    /// Nanoseconds since 1970, in JSON a string as 64-bit numbers are there.
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerImage {
    #[serde(default)]
    image: String,
    #[serde(default)]
    user_specified_image: String,
}

/// The part of a pod's manifest that is looked at.
#[derive(Debug, Deserialize)]
struct Manifest {
    spec: ManifestSpec,
}

#[derive(Debug, Deserialize)]
struct ManifestSpec {
    containers: Vec<ManifestContainer>,
}

#[derive(Debug, Deserialize)]
struct ManifestContainer {
    name: String,
    image: String,
    #[serde(default)]
    command: Vec<String>,
}

/// The component's container in the text of its manifest; `None` where a crash left no whole manifest.
fn container_of(component: &str, manifest: &str) -> Option<ManifestContainer> {
    let manifest: Manifest = serde_saphyr::from_str(manifest).ok()?;
    manifest.spec.containers.into_iter().find(|container| container.name == component)
}

/// Whether the text is a manifest of that component that the kubelet can run.
pub(super) fn is_manifest_of(component: &str, text: &str) -> bool {
    container_of(component, text).is_some()
}

/// The tag of a reference; `None` for one by digest only.
fn tag(reference: &str) -> Option<&str> {
    let reference = reference.split('@').next().unwrap_or(reference);
    let (_, last) = reference.rsplit_once('/').unwrap_or(("", reference));
    last.split_once(':').map(|(_, tag)| tag)
}

/// `registry.k8s.io` of `registry.k8s.io/kube-apiserver:v1.33.13`.
fn repository_of(reference: &str) -> Option<&str> {
    reference.rsplit_once('/').map(|(repository, _)| repository)
}

/// `kube-proxy` of `registry.k8s.io/kube-proxy:v1.34.4`.
fn name_of(reference: &str) -> &str {
    let (_, last) = reference.rsplit_once('/').unwrap_or(("", reference));
    last.split_once(':').map_or(last, |(name, _)| name)
}

/// Those of the references that kubeadm lists which such a machine needs.
fn needed<'l>(listed: &'l str, images: &Images) -> impl Iterator<Item = &'l str> {
    let names: Option<&[&str]> = match images {
        Images::ControlPlane { .. } => None,
        Images::Worker { kube_proxy: KubeProxy::Upgrade, .. } => Some(&["kube-proxy", "pause"]),
        Images::Worker { kube_proxy: KubeProxy::LeaveOut, .. } => Some(&["pause"]),
    };
    let references = listed.lines().map(str::trim).filter(|line| line.contains('/') && !line.contains(' '));
    references.filter(move |reference| names.is_none_or(|names| names.contains(&name_of(reference))))
}

/// References that are asked for and that no image carries.
fn missing<'l>(asked: impl Iterator<Item = &'l str>, images: &ImageList) -> Vec<String> {
    let present: BTreeSet<&str> =
        images.images.iter().flat_map(|image| image.repo_tags.iter().flatten()).map(String::as_str).collect();
    asked.filter(|reference| !present.contains(reference)).map(ToOwned::to_owned).collect()
}

/// Tags of the control plane's running containers, by component. An image's id that carries several tags counts as the
/// manifest's one if that is among them.
fn running(
    containers: &ContainerList,
    images: &ImageList,
    manifests: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut newest: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    for container in containers.containers.iter().filter(|container| container.state == "CONTAINER_RUNNING") {
        let label = |name: &str| container.labels.get(name).map_or("", String::as_str);
        let name = label("io.kubernetes.container.name");
        let Some(component) = COMPONENTS.into_iter().find(|component| *component == name) else {
            continue;
        };
        if label("io.kubernetes.pod.namespace") != "kube-system" {
            continue;
        }
        let wanted = manifests.get(component).map(String::as_str);
        let Some(tag) = container_tag(container, images, wanted) else {
            continue;
        };
        let created: u64 = container.created_at.parse().unwrap_or(0);
        if newest.get(component).is_none_or(|(known, _)| *known <= created) {
            newest.insert(component, (created, tag));
        }
    }
    newest.into_iter().map(|(component, (_, tag))| (component.to_owned(), tag)).collect()
}

fn container_tag(container: &Container, images: &ImageList, wanted: Option<&str>) -> Option<String> {
    for reference in [&container.image.user_specified_image, &container.image.image] {
        if !reference.starts_with("sha256:")
            && let Some(tag) = tag(reference)
        {
            return Some(tag.to_owned());
        }
    }
    let is_it = |image: &&Image| image.id == container.image.image || image.id == container.image_ref;
    let tags: BTreeSet<&str> = images
        .images
        .iter()
        .filter(is_it)
        .flat_map(|image| image.repo_tags.iter().flatten())
        .filter_map(|r| tag(r))
        .collect();
    let same = wanted.filter(|wanted| tags.contains(wanted));
    same.or_else(|| tags.first().copied()).map(ToOwned::to_owned)
}

/// `--container-runtime-endpoint` of kubeadm-flags.env, or `containerRuntimeEndpoint` of the kubelet's configuration.
fn endpoint(flags: Option<&str>, config: Option<&str>) -> Option<String> {
    let flag = flags.and_then(|text| {
        let (_, rest) = text.split_once("--container-runtime-endpoint=")?;
        rest.split([' ', '"', '\n']).next()
    });
    let field = || {
        let text = config?;
        let line = text.lines().find_map(|line| line.strip_prefix("containerRuntimeEndpoint:"))?;
        Some(line.trim().trim_matches(['"', '\'']))
    };
    flag.or_else(field).filter(|endpoint| !endpoint.is_empty()).map(ToOwned::to_owned)
}

/// What kubeadm of this machine lists as the images of that version, one a line.
async fn listed_images(version: &KubeVersion, repository: Option<&str>) -> Result<String, HostError> {
    let version = version.with_v();
    let mut arguments = vec!["config", "images", "list", "--kubernetes-version", &version];
    if let Some(repository) = repository {
        arguments.extend(["--image-repository", repository]);
    }
    let asked = Program::asking("kubeadm", arguments).run().await;
    Ok(asked.map_err(|error| failure::program(&error, &[], "KubeadmFailed"))?.stdout)
}

fn read<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, HostError> {
    serde_json::from_str(text)
        .map_err(|error| transient("RuntimeUnreadable", format!("the answer of crictl {what} cannot be read: {error}")))
}

impl RealHost {
    /// Where the kubelet finds its runtime, if it is told.
    pub(super) fn runtime_endpoint(&self) -> Option<String> {
        let flags = self.files.text("/var/lib/kubelet/kubeadm-flags.env");
        let config = self.files.text("/var/lib/kubelet/config.yaml");
        endpoint(flags.as_deref(), config.as_deref())
    }

    /// crictl with the endpoint that the kubelet uses, so that it does not try one after the other.
    pub(super) fn crictl(&self, arguments: &[&str]) -> Vec<String> {
        let endpoint =
            self.runtime_endpoint().into_iter().flat_map(|endpoint| ["--runtime-endpoint".to_owned(), endpoint]);
        endpoint.chain(arguments.iter().map(|argument| (*argument).to_owned())).collect()
    }

    async fn images(&self) -> Result<ImageList, HostError> {
        let asked = Program::asking("crictl", self.crictl(&["images", "-o", "json"])).run().await;
        let finished = asked.map_err(|error| failure::program(&error, &[], "RuntimeAway"))?;
        read("images", &finished.stdout)
    }

    pub(super) async fn missing_images(&self, images: &Images) -> Result<Vec<String>, HostError> {
        let version = images.version();
        // kubeadm knows the add-ons' images of its own minor only.
        let kubeadm = self.kubeadm_version().await?;
        if kubeadm.minor_version() != version.minor_version() {
            return Err(permanent(
                "KubeadmVersionDiffers",
                format!("kubeadm {kubeadm} cannot tell the images of {version}: install kubeadm {version} first"),
            ));
        }
        let repository = match images {
            Images::ControlPlane { .. } => self.image_repository(),
            // No manifest lies on a worker that would tell.
            Images::Worker { repository, .. } => repository.clone(),
        };
        let listed = listed_images(version, repository.as_deref()).await?;
        Ok(missing(needed(&listed, images), &self.images().await?))
    }

    /// The image of CoreDNS that kubeadm of this machine brings with that version, if it names one.
    pub(super) async fn core_dns_of(&self, version: &KubeVersion) -> Result<Option<String>, HostError> {
        let listed = listed_images(version, self.image_repository().as_deref()).await?;
        Ok(listed.lines().map(str::trim).find(|reference| name_of(reference) == "coredns").map(ToOwned::to_owned))
    }

    /// The repository that the control plane's images come from, if it is not the default.
    fn image_repository(&self) -> Option<String> {
        let manifest = self.manifest("kube-apiserver")?;
        repository_of(&manifest.image).filter(|repository| *repository != DEFAULT_REPOSITORY).map(ToOwned::to_owned)
    }

    pub(super) async fn pull_missing(&self, images: &Images) -> Result<(), HostError> {
        // One by one and only what is missing: `kubeadm config images pull` asks the registry for every image, which an
        // air-gapped node cannot do even if it has them all.
        for reference in self.missing_images(images).await? {
            let pull = Program::doing("crictl", PULL_LIMIT, self.crictl(&["pull", &reference]));
            pull.run().await.map_err(|error| failure::program(&error, &PULL, "PullFailed"))?;
        }
        Ok(())
    }

    fn manifest(&self, component: &str) -> Option<ManifestContainer> {
        container_of(component, &self.files.text(&format!("{MANIFESTS}/{component}.yaml"))?)
    }

    /// The tag of a component's image in its manifest.
    pub(super) fn manifest_tag(&self, component: &str) -> Option<String> {
        tag(&self.manifest(component)?.image).map(ToOwned::to_owned)
    }

    /// How a static pod is started; nothing where there is no whole manifest of it.
    pub(super) fn command_of(&self, component: &str) -> Vec<String> {
        self.manifest(component).map(|manifest| manifest.command).unwrap_or_default()
    }

    /// How the local etcd member is started; empty where there is none.
    pub(super) fn etcd_command(&self) -> Vec<String> {
        self.command_of("etcd")
    }

    /// The value of one argument of the local etcd member, such as `--data-dir=`.
    pub(super) fn etcd_argument(&self, name: &str) -> Option<String> {
        self.etcd_command().iter().find_map(|argument| argument.strip_prefix(name)).map(ToOwned::to_owned)
    }

    pub(super) async fn static_pods_now(&self) -> Result<StaticPods, HostError> {
        let manifests: BTreeMap<String, String> = COMPONENTS
            .into_iter()
            .filter_map(|component| {
                let manifest = self.manifest(component)?;
                Some((component.to_owned(), tag(&manifest.image)?.to_owned()))
            })
            .collect();
        let asked = Program::asking("crictl", self.crictl(&["ps", "-o", "json"])).run().await;
        let finished = asked.map_err(|error| failure::program(&error, &[], "RuntimeAway"))?;
        let containers: ContainerList = read("ps", &finished.stdout)?;
        let images = self.images().await?;
        let running = running(&containers, &images, &manifests);
        Ok(StaticPods { manifests, running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use cupcake_crds::values::KubeVersion;

    const IMAGES: &str = include_str!("fixtures/crictl-images.json");
    const CONTAINERS: &str = include_str!("fixtures/crictl-ps.json");
    const ASKED: &str = "\
registry.k8s.io/kube-apiserver:v1.34.4
registry.k8s.io/kube-proxy:v1.34.4
registry.k8s.io/coredns/coredns:v1.12.1
registry.k8s.io/pause:3.10.1
registry.k8s.io/etcd:3.6.5-0
";

    fn images() -> ImageList {
        read("images", IMAGES).expect("a real answer")
    }

    const VERSION: KubeVersion = KubeVersion::new(1, 34, 4);

    #[test]
    fn images_are_missing_that_no_tag_names() {
        let all = Images::ControlPlane { version: VERSION };
        assert!(missing(needed(ASKED, &all), &images()).is_empty());
        let more = format!("{ASKED}registry.k8s.io/kube-scheduler:v1.35.0\n");
        assert_eq!(missing(needed(&more, &all), &images()), ["registry.k8s.io/kube-scheduler:v1.35.0"]);
    }

    #[test]
    fn a_worker_needs_pause_and_a_kube_proxy_that_is_not_left_out() {
        let of = |kube_proxy| {
            let worker = Images::Worker { version: VERSION, repository: None, kube_proxy };
            needed(ASKED, &worker).collect::<Vec<_>>()
        };
        let (proxy, pause) = ("registry.k8s.io/kube-proxy:v1.34.4", "registry.k8s.io/pause:3.10.1");
        assert_eq!(of(KubeProxy::Upgrade), [proxy, pause]);
        assert_eq!(of(KubeProxy::LeaveOut), [pause]);
        let mirror = ASKED.replace("registry.k8s.io", "mirror:5000/k8s");
        let worker = Images::Worker { version: VERSION, repository: None, kube_proxy: KubeProxy::LeaveOut };
        assert_eq!(needed(&mirror, &worker).collect::<Vec<_>>(), ["mirror:5000/k8s/pause:3.10.1"]);
    }

    #[test]
    fn running_components_are_named_by_the_tag_behind_their_image_id() {
        let containers = read("ps", CONTAINERS).expect("a real answer");
        let running = running(&containers, &images(), &BTreeMap::new());
        let expected = [
            ("etcd", "3.5.24-0"),
            ("kube-apiserver", "v1.33.13"),
            ("kube-controller-manager", "v1.33.13"),
            ("kube-scheduler", "v1.33.13"),
        ];
        assert_eq!(running, expected.map(|(name, tag)| (name.to_owned(), tag.to_owned())).into());
    }

    #[test]
    fn an_image_with_several_tags_counts_as_the_manifests_one() {
        let images: ImageList =
            read("images", r#"{"images":[{"id":"sha256:a","repoTags":["r/etcd:3.6.5-0","r/etcd:3.6.5-1"]}]}"#)
                .expect("JSON");
        let containers: ContainerList = read(
            "ps",
            r#"{"containers":[{"image":{"image":"sha256:a"},"imageRef":"sha256:a","state":"CONTAINER_RUNNING","createdAt":"5",
               "labels":{"io.kubernetes.container.name":"etcd","io.kubernetes.pod.namespace":"kube-system"}}]}"#,
        )
        .expect("JSON");
        let manifests = BTreeMap::from([("etcd".to_owned(), "3.6.5-1".to_owned())]);
        assert_eq!(running(&containers, &images, &manifests)["etcd"], "3.6.5-1");
        assert_eq!(running(&containers, &images, &BTreeMap::new())["etcd"], "3.6.5-0");
    }

    #[test]
    fn tags_are_told_from_ports_and_digests() {
        assert_eq!(tag("registry.k8s.io/etcd:3.5.24-0"), Some("3.5.24-0"));
        assert_eq!(tag("mirror:5000/k8s/etcd:3.5.24-0@sha256:00"), Some("3.5.24-0"));
        assert_eq!(tag("mirror:5000/k8s/etcd"), None);
        assert_eq!(repository_of("mirror:5000/k8s/kube-apiserver:v1.33.13"), Some("mirror:5000/k8s"));
    }

    #[test]
    fn the_endpoint_is_the_kubelets() {
        let flags =
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/containerd/containerd.sock --x=y\"\n";
        let config = "cgroupDriver: systemd\ncontainerRuntimeEndpoint: \"unix:///run/crio/crio.sock\"\n";
        assert_eq!(endpoint(Some(flags), Some(config)).as_deref(), Some("unix:///run/containerd/containerd.sock"));
        assert_eq!(
            endpoint(Some("KUBELET_KUBEADM_ARGS=\"\""), Some(config)).as_deref(),
            Some("unix:///run/crio/crio.sock")
        );
        assert_eq!(endpoint(None, Some("containerRuntimeEndpoint: \"\"\n")), None);
    }

    #[test]
    fn arguments_and_image_of_the_local_member_are_its_manifests() {
        let folder = TestFolder::new("manifests");
        let host = host_in(&folder);
        assert_eq!(host.etcd_argument("--data-dir="), None);
        folder.write("/etc/kubernetes/manifests/etcd.yaml", include_str!("fixtures/etcd.yaml"));
        assert_eq!(host.etcd_argument("--data-dir=").as_deref(), Some("/var/lib/etcd"));
        assert_eq!(
            host.manifest("etcd").and_then(|m| tag(&m.image).map(ToOwned::to_owned)).as_deref(),
            Some("3.5.24-0")
        );
    }
}
