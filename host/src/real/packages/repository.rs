//! The Kubernetes package repository: read, set to a minor, refreshed, taken back; whichever package manager reads it.

use super::Manager;
use super::sources::SourceFile;
use crate::real::RealHost;
use crate::real::failure::{self, needs_operator, transient};
use crate::real::os::write_whole;
use cupcake_crds::limits::{HAND_MADE_CHARS_MAX, VERSIONS_MAX, cut};
use cupcake_crds::node_task::OfferedMinor;
use cupcake_crds::values::MinorVersion;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{HostError, Package};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What was refreshed to the end: source files by path with the SHA-256 of their content then.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Refreshed {
    files: BTreeMap<String, String>,
}

impl Refreshed {
    fn of(files: &[SourceFile]) -> Self {
        Self { files: files.iter().map(|file| (file.path.display().to_string(), digest(&file.text))).collect() }
    }
}

/// A change of the repository that is not known to work yet, as source files by path. Kept until it is or is taken back.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct RepositoryChange {
    files: BTreeMap<String, SetFile>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SetFile {
    /// What stood there before the first attempt.
    before: String,
    /// What the last attempt wrote; anything else there is somebody else's.
    after: String,
}

/// What was written down there; `None` where nothing is, or nothing that can be read.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub(super) fn write_json(path: &Path, content: &impl Serialize) -> Result<(), HostError> {
    let json = serde_json::to_vec(content)
        .map_err(|error| transient("FileError", format!("{} cannot be written: {error}", path.display())))?;
    write_whole(path, &json, 0o600)
}

pub(super) fn remove_file(path: &Path) -> Result<(), HostError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure::file("removing", path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn digest(text: &str) -> String {
    use std::fmt::Write;
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A folder for an index of its own, beside the machine's, with the sources set to `minor` in a folder of theirs.
pub(super) fn sources_aside(folder: &Path, files: &[SourceFile], minor: MinorVersion) -> Result<PathBuf, HostError> {
    // Files of an earlier look may name mirrors that the machine has no more.
    let sources = folder.join("sources");
    match fs::remove_dir_all(&sources) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failure::file("removing", &sources, &error));
        }
        Ok(()) | Err(_) => {}
    }
    for (index, file) in files.iter().enumerate() {
        let name = format!("{index}.{}", file.form.ending());
        write_whole(&sources.join(name), file.only_with(minor).as_bytes(), 0o600)?;
    }
    Ok(sources)
}

impl RealHost {
    /// The files that name Kubernetes repositories; none where the package manager is not known.
    fn source_files(&self) -> Vec<SourceFile> {
        self.manager().map(|manager| manager.sources()).unwrap_or_default()
    }

    fn refreshed_marker(&self) -> PathBuf {
        self.settings.state.join("repository.json")
    }

    pub(in crate::real) fn repository_now(&self) -> Option<MinorVersion> {
        let files = self.source_files();
        let mut minors = files.iter().flat_map(|file| &file.minors);
        let minor = *minors.next()?;
        // Two minors at once: whichever would be taken, it is set to none.
        if minors.any(|other| *other != minor) {
            return None;
        }
        let refreshed: Refreshed = read_json(&self.refreshed_marker())?;
        (refreshed == Refreshed::of(&files)).then_some(minor)
    }

    pub(in crate::real) async fn set_repository(&self, minor: MinorVersion) -> Result<(), HostError> {
        self.known_sources()?;
        // From the next refresh on the machine's own upgrades would see the new minor.
        self.hold(&Package::ALL).await?;
        // Looked at after that: a hold may stand in such a file.
        let files = self.known_sources()?;
        let change = self.change_under_way(&files, minor);
        // Before the first file is rewritten: an attempt after this one, or after a crash, finds the new text already there.
        write_json(&self.change_file(), &change)?;
        for file in &files {
            let text = file.with(minor);
            if text != file.text {
                self.keep_copy(file)?;
                file.replace(&text)?;
                tracing::info!(file = %file.path.display(), %minor, "the package repository was set");
            }
        }
        let refreshed = self.refresh_and_check(self.manager()?.as_ref(), minor).await;
        match &refreshed {
            // It may work another time: the next attempt still has to know what stood there first.
            Err(HostError::Transient(_) | HostError::Permanent(_)) => return refreshed,
            Err(HostError::NeedsOperator(_)) => {
                // Left there, a repository that does not exist would fail every later refresh of the machine.
                for file in self.source_files() {
                    let set = change.files.get(&file.path.display().to_string());
                    if let Some(set) = set.filter(|set| set.after == file.text) {
                        file.replace(&set.before)?;
                    }
                }
            }
            Ok(()) => {}
        }
        remove_file(&self.change_file())?;
        refreshed
    }

    fn change_file(&self) -> PathBuf {
        self.settings.state.join("repository-change.json")
    }

    /// What is about to change. A file that an earlier attempt set, and nobody else since, stood as that attempt found it.
    fn change_under_way(&self, files: &[SourceFile], minor: MinorVersion) -> RepositoryChange {
        let mut earlier = read_json::<RepositoryChange>(&self.change_file()).unwrap_or_default().files;
        let change = |file: &SourceFile| {
            let path = file.path.display().to_string();
            let before = earlier.remove(&path).filter(|set| set.after == file.text).map(|set| set.before);
            let before = before.unwrap_or_else(|| file.text.clone());
            (path, SetFile { before, after: file.with(minor) })
        };
        RepositoryChange { files: files.iter().map(change).collect() }
    }

    async fn refresh_and_check(&self, manager: &dyn Manager, minor: MinorVersion) -> Result<(), HostError> {
        manager.refresh(&self.known_sources()?).await?;
        let versions = manager.offered("kubeadm").await?;
        if !versions.iter().any(|(version, _)| version.minor_version() == minor) {
            return Err(needs_operator(
                "RepositoryEmpty",
                format!(
                    "the package repository of {minor} offers no kubeadm of {minor}: look at its source file and at the mirror"
                ),
            ));
        }
        write_json(&self.refreshed_marker(), &Refreshed::of(&self.source_files()))
    }

    pub(super) fn known_sources(&self) -> Result<Vec<SourceFile>, HostError> {
        let manager = self.manager()?;
        let files = manager.sources();
        if files.is_empty() {
            return Err(needs_operator(
                "RepositoryUnknown",
                format!(
                    "{}: no Kubernetes repository (core:/stable:/vX.Y) is named there: add one as kubernetes.io documents it; \
                     apt.kubernetes.io, yum.kubernetes.io and packages.cloud.google.com are gone since 2024",
                    manager.where_sources_are()
                ),
            ));
        }
        Ok(files)
    }

    /// Gives a source file another text that changes no repository; what was refreshed stays so.
    pub(super) fn rewrite_source(&self, file: &SourceFile, text: &str) -> Result<(), HostError> {
        let refreshed = self.repository_now().is_some();
        self.keep_copy(file)?;
        file.replace(text)?;
        if refreshed { write_json(&self.refreshed_marker(), &Refreshed::of(&self.source_files())) } else { Ok(()) }
    }

    /// Keeps the file as it was, once for each content, where apt does not look.
    fn keep_copy(&self, file: &SourceFile) -> Result<(), HostError> {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let copy = self.settings.state.join("sources").join(format!("{name}.{}", &digest(&file.text)[..12]));
        if copy.exists() { Ok(()) } else { write_whole(&copy, file.text.as_bytes(), 0o600) }
    }
}

/// A reason in the room that an inventory has for it: its code, and the end of what the program said, behind its long command line.
fn why_unread(reason: &Reason) -> String {
    let room = HAND_MADE_CHARS_MAX.saturating_sub(reason.code.len() + 3);
    let surplus = reason.message.chars().count().saturating_sub(room);
    let end: String = reason.message.chars().skip(surplus).collect();
    let mut why = format!("{}: {}{end}", reason.code, if surplus > 0 { "…" } else { "" });
    cut(&mut why, HAND_MADE_CHARS_MAX);
    why
}

impl RealHost {
    /// What the repository of the minor after the present one offers, by an index of its own: neither the machine's sources nor
    /// its index change, none of its hooks run, and no lock of its package manager is taken.
    pub(in crate::real) async fn next_minor(&self) -> Option<OfferedMinor> {
        let manager = self.manager().ok()?;
        let files = manager.sources();
        let Some(minor) = files.iter().flat_map(|file| &file.minors).max().map(|minor| minor.next()) else {
            // Every order sets the repository first, so that none could be carried out: to be told before.
            let minor = self.kubelet_version().await?.minor_version().next();
            let mut why = format!("RepositoryUnknown: none is named in {}", manager.where_sources_are());
            cut(&mut why, HAND_MADE_CHARS_MAX);
            return Some(OfferedMinor { minor: minor.to_string(), unread: Some(why), versions: Vec::new() });
        };
        let (versions, unread) = match manager.look_at(&files, minor).await {
            Ok(versions) => (versions, None),
            // There is no such repository: that is an answer.
            Err(HostError::NeedsOperator(reason)) if reason.code == "RepositoryMissing" => (Vec::new(), None),
            Err(HostError::Transient(reason) | HostError::Permanent(reason) | HostError::NeedsOperator(reason)) => {
                (Vec::new(), Some(why_unread(&reason)))
            }
        };
        let versions = versions.iter().take(VERSIONS_MAX).map(ToString::to_string).collect();
        Some(OfferedMinor { minor: minor.to_string(), unread, versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    const LINE: &str = "deb [signed-by=/k.gpg] https://pkgs.k8s.io/core:/stable:/v1.33/deb/ /\n";

    fn apt_machine(name: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        folder.write("/usr/bin/apt-get", "");
        folder
    }

    #[test]
    fn a_repository_counts_only_once_it_was_refreshed_as_it_is_now() {
        let folder = apt_machine("repository-marker");
        let host = host_in(&folder);
        assert_eq!(host.repository_now(), None, "there is none");
        folder.write("/etc/apt/sources.list.d/kubernetes.list", LINE);
        folder.write("/etc/apt/sources.list.d/debian.sources", "Types: deb\nURIs: http://deb.debian.org/debian\n");
        assert_eq!(host.repository_now(), None, "nobody refreshed it");
        let marker = serde_json::to_vec(&Refreshed::of(&host.source_files())).expect("JSON");
        write_whole(&host.refreshed_marker(), &marker, 0o644).expect("written");
        assert_eq!(host.repository_now(), Some(MinorVersion { major: 1, minor: 33 }));
        folder.write("/etc/apt/sources.list.d/kubernetes.list", LINE.replace("33", "34"));
        assert_eq!(host.repository_now(), None, "it changed after it was refreshed");
    }

    #[test]
    fn two_minors_at_once_are_none() {
        let folder = apt_machine("repository-two");
        let host = host_in(&folder);
        folder.write("/etc/apt/sources.list.d/a.list", LINE);
        folder.write("/etc/apt/sources.list.d/b.list", LINE.replace("33", "34"));
        let marker = serde_json::to_vec(&Refreshed::of(&host.source_files())).expect("JSON");
        write_whole(&host.refreshed_marker(), &marker, 0o644).expect("written");
        assert_eq!(host.repository_now(), None);
    }

    #[test]
    fn the_first_copy_of_a_source_file_stays() {
        let folder = apt_machine("repository-copy");
        let host = host_in(&folder);
        folder.write("/etc/apt/sources.list.d/kubernetes.list", LINE);
        for _ in 0..2 {
            host.keep_copy(&host.source_files()[0]).expect("kept");
        }
        let copies: Vec<_> = fs::read_dir(host.settings.state.join("sources")).expect("there").collect();
        assert_eq!(copies.len(), 1);
        let copy = copies.into_iter().next().expect("one").expect("readable").path();
        assert_eq!(fs::read_to_string(copy).expect("readable"), LINE);
    }

    #[tokio::test]
    async fn what_the_next_minor_offers_is_looked_up_beside_the_machines_own_sources() {
        let offers = "case \"$*\" in *next-minor/lists*) ;; *) exit 1;; esac\n\
                      echo \"$2 | 1.34.4-1.1 | https://pkgs.k8s.io/core:/stable:/v1.34/deb  Packages\"\n\
                      [ \"$2\" = kubelet ] || echo \"$2 | 1.34.5-1.1 | https://pkgs.k8s.io/core:/stable:/v1.34/deb  Packages\"";
        let folder = machine("repository-next", "");
        folder.be_the_machine(&[("apt-cache", offers)]);
        let host = host_in(&folder);
        let offered = |versions: &[&str], unread: Option<&str>| {
            let versions = versions.iter().map(|version| (*version).to_owned()).collect();
            Some(OfferedMinor { minor: "1.34".into(), unread: unread.map(str::to_owned), versions })
        };
        assert_eq!(host.next_minor().await, offered(&["1.34.4"], None), "of 1.34.5 there is no kubelet");
        let looked_at = fs::read_to_string(host.settings.state.join("next-minor/sources/0.list")).expect("written");
        assert_eq!((looked_at, folder.read(SOURCE)), (LINE.replace("33", "34"), LINE.to_owned()));
        folder.be_the_machine(&[("apt-get", NONE)]);
        assert_eq!(host.next_minor().await, offered(&[], None), "there is no such repository");
        folder.be_the_machine(&[("apt-get", AWAY)]);
        let away = host.next_minor().await.expect("told");
        assert!(
            away.versions.is_empty()
                && away
                    .unread
                    .is_some_and(|why| why.starts_with("RepositoryUnreachable: ") && why.ends_with("Failed to fetch"))
        );
        let bare = TestFolder::new("repository-next-none");
        assert_eq!(host_in(&bare).next_minor().await, None);
    }

    const SOURCE: &str = "/etc/apt/sources.list.d/kubernetes.list";

    /// A machine whose packages are held, and what its apt-get update does.
    fn machine(name: &str, update: &str) -> TestFolder {
        let folder = apt_machine(name);
        folder.write(SOURCE, LINE);
        folder.be_the_machine(&[
            ("dpkg-query", "printf 'hold\\tok\\tinstalled\\t1.33.13-1.1\\n'"),
            ("apt-cache", "echo 'kubeadm | 1.34.4-1.1 | https://pkgs.k8s.io/core:/stable:/v1.34/deb  Packages'"),
            ("apt-get", update),
        ]);
        folder
    }

    const AWAY: &str = "echo 'E: Failed to fetch'; exit 100";
    const NONE: &str = "echo \"E: The repository does not have a Release file.\"; exit 100";

    #[tokio::test]
    async fn a_repository_that_does_not_exist_is_taken_back_to_what_stood_there_before_the_first_attempt() {
        let folder = machine("repository-back", AWAY);
        let host = host_in(&folder);
        let error = host.set_repository(MinorVersion { major: 1, minor: 34 }).await.expect_err("away");
        assert!(matches!(error, HostError::Transient(_)), "{error}");
        assert_eq!(folder.read(SOURCE), LINE.replace("33", "34"), "the next attempt may find the mirror");
        folder.be_the_machine(&[("apt-get", NONE)]);
        let error = host.set_repository(MinorVersion { major: 1, minor: 34 }).await.expect_err("it does not exist");
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "RepositoryMissing"), "{error}");
        assert_eq!(folder.read(SOURCE), LINE);
        assert!(!host.change_file().exists());
    }

    #[tokio::test]
    async fn what_somebody_else_wrote_after_a_failed_attempt_is_what_stood_there() {
        let folder = machine("repository-other", AWAY);
        let host = host_in(&folder);
        host.set_repository(MinorVersion { major: 1, minor: 34 }).await.expect_err("away");
        let other = "deb https://mirror.example/core:/stable:/v1.33/deb/ /\n";
        folder.write(SOURCE, other);
        folder.be_the_machine(&[("apt-get", NONE)]);
        host.set_repository(MinorVersion { major: 1, minor: 34 }).await.expect_err("it does not exist");
        assert_eq!(folder.read(SOURCE), other);
    }

    #[tokio::test]
    async fn a_repository_that_was_refreshed_is_not_taken_back_later() {
        let folder = machine("repository-done", "");
        let host = host_in(&folder);
        host.set_repository(MinorVersion { major: 1, minor: 34 }).await.expect("it is there");
        assert_eq!(host.repository_now(), Some(MinorVersion { major: 1, minor: 34 }));
        assert!(!host.change_file().exists());
    }

    #[tokio::test]
    async fn a_machine_without_a_kubernetes_repository_is_told_so() {
        let folder = apt_machine("repository-none");
        let host = host_in(&folder);
        folder.write("/etc/apt/sources.list", "deb https://apt.kubernetes.io/ kubernetes-xenial main\n");
        let error = host.set_repository(MinorVersion { major: 1, minor: 34 }).await.expect_err("there is none");
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "RepositoryUnknown"), "{error}");
        folder.be_the_machine(&[("kubelet", "echo Kubernetes v1.33.4")]);
        let told = host.next_minor().await.expect("told before");
        assert_eq!((told.minor.as_str(), told.versions.len()), ("1.34", 0));
        let why = "RepositoryUnknown: none is named in /etc/apt/sources.list and /etc/apt/sources.list.d";
        assert_eq!(told.unread.as_deref(), Some(why));
    }
}
