//! Package sources in the layout of pkgs.k8s.io, one repository a minor: which minor they name, and the same text with another.
//!
//! Source: "Changing the Kubernetes package repository" (kubernetes.io/docs/tasks/administer-cluster/kubeadm). Mirrors keep the
//! end of the path (`core:/stable:/v1.34/deb/`), so that end is what is looked for, on whatever host. Both forms of
//! sources.list(5) are read: a line an entry (`.list`) and deb822 (`.sources`); and the sections of dnf and zypper (`.repo`).

use super::repo_files;
use crate::real::os::write_whole;
use cupcake_crds::values::MinorVersion;
use cupcake_steps::ports::host::HostError;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A source file that names Kubernetes repositories.
pub(in crate::real) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) form: Form,
    pub(super) text: String,
    pub(super) minors: Vec<MinorVersion>,
}

impl SourceFile {
    /// The file, if it has such a form and names such a repository.
    pub(super) fn read(path: PathBuf, forms: &[Form]) -> Option<Self> {
        let form = Form::of(path.file_name()?.to_str()?).filter(|form| forms.contains(form))?;
        let text = fs::read_to_string(&path).ok()?;
        let minors = minors(form, &text);
        (!minors.is_empty()).then_some(Self { path, form, text, minors })
    }

    /// Its text with every Kubernetes repository in use set to `minor`.
    pub(super) fn with(&self, minor: MinorVersion) -> String {
        set(self.form, &self.text, minor)
    }

    /// The same, without what names no Kubernetes repository.
    pub(super) fn only_with(&self, minor: MinorVersion) -> String {
        only(self.form, &self.with(minor))
    }

    /// Sets its content, mode kept.
    pub(super) fn replace(&self, text: &str) -> Result<(), HostError> {
        let mode = fs::metadata(&self.path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
        write_whole(&self.path, text.as_bytes(), mode)
    }
}

/// The form of a source file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line an entry.
    Lines,
    /// Stanzas of fields.
    Deb822,
    /// Sections of dnf and zypper.
    Sections,
}

impl Form {
    /// The form that package managers read a file of that name in; `None` if none would read it.
    pub(crate) fn of(file_name: &str) -> Option<Self> {
        if file_name.starts_with('.') {
            return None;
        }
        let (_, ending) = file_name.rsplit_once('.')?;
        match ending {
            "list" => Some(Self::Lines),
            "sources" => Some(Self::Deb822),
            "repo" => Some(Self::Sections),
            _ => None,
        }
    }

    /// How the names of such files end.
    pub(super) const fn ending(self) -> &'static str {
        match self {
            Self::Lines => "list",
            Self::Deb822 => "sources",
            Self::Sections => "repo",
        }
    }
}

/// Minors of the Kubernetes repositories that the text names and that are in use, in order of appearance.
pub(crate) fn minors(form: Form, text: &str) -> Vec<MinorVersion> {
    let lines = live(form, text).into_iter().filter(|(_, live)| *live);
    lines.flat_map(|(line, _)| places(line)).map(|(_, minor)| minor).collect()
}

/// The same text with every Kubernetes repository in use set to `minor`; nothing else changes.
pub(crate) fn set(form: Form, text: &str, minor: MinorVersion) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for (line, live) in live(form, text) {
        let mut from = 0;
        if live {
            for (place, _) in places(line) {
                out.push_str(&line[from..place.start]);
                out.push_str(&minor.to_string());
                from = place.end;
            }
        }
        out.push_str(&line[from..]);
    }
    out
}

/// The same text without entries that name no Kubernetes repository. Stanzas of fields stay as they are: each is short, and
/// what belongs to one is not told line by line.
pub(crate) fn only(form: Form, text: &str) -> String {
    match form {
        Form::Lines => text.split_inclusive('\n').filter(|line| is_entry(line) && !places(line).is_empty()).collect(),
        Form::Deb822 => text.to_owned(),
        Form::Sections => repo_files::only(text),
    }
}

/// Every line with its end, and whether repositories in it are in use.
fn live(form: Form, text: &str) -> Vec<(&str, bool)> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    match form {
        Form::Lines => lines.into_iter().map(|line| (line, is_entry(line))).collect(),
        Form::Deb822 => {
            let stanzas = lines.split_inclusive(|line| line.trim().is_empty());
            stanzas.flat_map(live_of_stanza).collect()
        }
        Form::Sections => repo_files::live(text),
    }
}

fn is_entry(line: &str) -> bool {
    matches!(line.split_whitespace().next(), Some("deb" | "deb-src"))
}

fn live_of_stanza<'t>(lines: &[&'t str]) -> Vec<(&'t str, bool)> {
    let mut field = String::new();
    let mut enabled = true;
    let mut marked = Vec::with_capacity(lines.len());
    for line in lines {
        if line.starts_with('#') {
            marked.push((*line, false));
            continue;
        }
        if !line.starts_with([' ', '\t'])
            && let Some((name, value)) = line.split_once(':')
        {
            field = name.trim().to_ascii_lowercase();
            if field == "enabled" && matches!(value.trim().to_ascii_lowercase().as_str(), "no" | "false" | "0") {
                enabled = false;
            }
        }
        marked.push((*line, field == "uris"));
    }
    marked.into_iter().map(|(line, live)| (line, live && enabled)).collect()
}

/// Where in the line a minor stands in the address of a Kubernetes repository, and which.
pub(super) fn places(line: &str) -> Vec<(Range<usize>, MinorVersion)> {
    let mut places = Vec::new();
    let mut words = [("", 0); 3];
    let mut from = 0;
    for word in line.split_inclusive(['/', ' ', '\t', '\n', '\r']) {
        let bare = word.trim_end_matches(['/', ' ', '\t', '\n', '\r']);
        words = [words[1], words[2], (bare, from)];
        from += word.len();
        let [(core, _), (channel, _), (version, start)] = words;
        if plain(core).eq_ignore_ascii_case("core")
            && matches!(plain(channel).to_ascii_lowercase().as_str(), "stable" | "prerelease")
            && let Some(minor) = minor(version)
        {
            places.push((start + 1..start + version.len(), minor));
        }
    }
    places
}

/// A word of the path without the colon that the repositories' build service puts after it, written out or escaped.
fn plain(word: &str) -> &str {
    let word = word.strip_suffix("%3A").or_else(|| word.strip_suffix("%3a")).unwrap_or(word);
    word.trim_matches(':')
}

fn minor(word: &str) -> Option<MinorVersion> {
    let (major, minor) = word.strip_prefix('v')?.split_once('.')?;
    let number = |text: &str| -> Option<u32> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    Some(MinorVersion { major: number(major)?, minor: number(minor)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn v(minor: u32) -> MinorVersion {
        MinorVersion { major: 1, minor }
    }

    /// The line that the Kubernetes documentation tells people to write.
    const DOCUMENTED: &str =
        "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] https://pkgs.k8s.io/core:/stable:/v1.33/deb/ /\n";

    const DEB822: &str = "\
# Kubernetes
Types: deb
URIs: https://mirror.example/k8s/core:/stable:/v1.33/deb/
Suites: /
Signed-By: /etc/apt/keyrings/v1.33/core:/stable:/v1.33/key.gpg

Enabled: no
Types: deb
URIs:
 https://pkgs.k8s.io/core:/stable:/v1.32/deb/
Suites: /
";

    #[test]
    fn only_the_minor_changes() {
        let cases = [
            (Form::Lines, DOCUMENTED, vec![v(33)], DOCUMENTED.replace("v1.33", "v1.34")),
            (
                Form::Lines,
                "# deb https://pkgs.k8s.io/core:/stable:/v1.30/deb/ /\ndeb http://deb.debian.org/debian bookworm main\n  deb \
                 https://pkgs.kubernetes.io/core:/stable:/v1.33/deb / # v1.33\n",
                vec![v(33)],
                "# deb https://pkgs.k8s.io/core:/stable:/v1.30/deb/ /\ndeb http://deb.debian.org/debian bookworm main\n  deb \
                 https://pkgs.kubernetes.io/core:/stable:/v1.34/deb / # v1.33\n"
                    .to_owned(),
            ),
            (
                Form::Lines,
                "deb https://m.example:8443/kubernetes-new/core/stable/v1.33/deb/ /",
                vec![v(33)],
                "deb https://m.example:8443/kubernetes-new/core/stable/v1.34/deb/ /".to_owned(),
            ),
            (
                Form::Lines,
                "deb https://u:p@m.example/isv:/kubernetes:/core%3A/prerelease%3a/v1.33/deb/ /",
                vec![v(33)],
                "deb https://u:p@m.example/isv:/kubernetes:/core%3A/prerelease%3a/v1.34/deb/ /".to_owned(),
            ),
            (Form::Lines, "deb https://apt.kubernetes.io/ kubernetes-xenial main\n", vec![], String::new()),
            (Form::Lines, "deb https://pkgs.k8s.io/addons:/cri-o:/stable:/v1.33/deb/ /\n", vec![], String::new()),
            (
                Form::Deb822,
                DEB822,
                vec![v(33)],
                DEB822.replace("k8s/core:/stable:/v1.33", "k8s/core:/stable:/v1.34"),
            ),
        ];
        for (form, text, found, expected) in cases {
            assert_eq!(minors(form, text), found, "{text}");
            let expected = if found.is_empty() { text.to_owned() } else { expected };
            assert_eq!(set(form, text, v(34)), expected, "{text}");
            assert_eq!(set(form, &expected, v(34)), expected, "a second time changes nothing: {text}");
        }
    }

    #[test]
    fn several_addresses_in_one_field_are_all_set() {
        let text = "URIs: https://a/core:/stable:/v1.9/deb/ https://b/core:/stable:/v1.10/deb/\n\thttps://c/core:/stable:/v1.33/deb\n";
        assert_eq!(minors(Form::Deb822, text), [v(9), v(10), v(33)]);
        let set = set(Form::Deb822, text, v(134));
        assert_eq!(minors(Form::Deb822, &set), [v(134), v(134), v(134)]);
        assert_eq!(
            set,
            text.replace("v1.9/", "v1.134/")
                .replace("v1.10/", "v1.134/")
                .replace("v1.33/", "v1.134/")
                .replace("v1.33\n", "v1.134\n")
        );
    }

    #[test]
    fn files_that_no_package_manager_would_read_have_no_form() {
        assert_eq!(Form::of("kubernetes.list"), Some(Form::Lines));
        assert_eq!(Form::of("kubernetes.sources"), Some(Form::Deb822));
        assert_eq!(Form::of("kubernetes.repo"), Some(Form::Sections));
        for other in
            ["kubernetes.list.save", "kubernetes.repo.rpmnew", ".kubernetes.list.part", "README", ".kubernetes.list"]
        {
            assert_eq!(Form::of(other), None, "{other}");
        }
    }
}
