//! Files of repositories in the form of dnf and zypper: sections of settings, one a repository (`/etc/yum.repos.d/*.repo`).
//!
//! Source: dnf.conf(5), "Repo options"; zypper reads the same. Only lines that hold an address are ever changed by a switch: order,
//! comments, keys, `exclude=` and the host of a mirror stay.

use super::sources::places;

/// Settings whose value is where a repository is.
const ADDRESSES: [&str; 3] = ["baseurl", "mirrorlist", "metalink"];
/// Settings that hide packages of a repository; one is the other's older name.
const EXCLUDES: [&str; 2] = ["excludepkgs", "exclude"];

/// A line of a section, with its end.
#[derive(Debug)]
struct Line<'t> {
    text: &'t str,
    /// The setting that the line begins or goes on with; empty for a header, a comment or nothing.
    setting: String,
    /// Where its value begins in the line.
    value: usize,
}

/// A section with its header; what stands before the first header is one without an id.
#[derive(Debug)]
pub(super) struct Section<'t> {
    pub(super) id: &'t str,
    lines: Vec<Line<'t>>,
}

impl<'t> Section<'t> {
    /// All of a text, in order.
    pub(super) fn all(text: &'t str) -> Vec<Self> {
        let mut sections = vec![Section { id: "", lines: Vec::new() }];
        let mut setting = String::new();
        for line in text.split_inclusive('\n') {
            let bare = line.trim();
            let mut value = 0;
            if let Some(id) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(id, _)| id) {
                sections.push(Section { id: id.trim(), lines: Vec::new() });
                setting.clear();
            } else if bare.is_empty() || bare.starts_with(['#', ';']) {
                // A comment may stand between the lines of one value.
                let section = sections.last_mut().expect("there is always one");
                section.lines.push(Line { text: line, setting: String::new(), value });
                continue;
            } else if !line.starts_with([' ', '\t'])
                && let Some((name, rest)) = line.split_once('=')
            {
                setting = name.trim().to_ascii_lowercase();
                value = line.len() - rest.len();
            }
            let section = sections.last_mut().expect("there is always one");
            section.lines.push(Line { text: line, setting: setting.clone(), value });
        }
        sections
    }

    /// The words of a setting's value; they may be parted by commas and go on in further lines.
    fn words(&self, settings: &[&str]) -> Vec<&'t str> {
        let lines = self.lines.iter().filter(|line| settings.contains(&line.setting.as_str()));
        let words = lines.flat_map(|line| line.text[line.value..].split(|c: char| c.is_whitespace() || c == ','));
        words.filter(|word| !word.is_empty()).collect()
    }

    /// Whether it is a repository in use.
    fn is_enabled(&self) -> bool {
        let enabled = self.words(&["enabled"]);
        let is_on = |word: &&str| !matches!(word.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "off");
        !self.id.is_empty() && enabled.last().is_none_or(is_on)
    }

    /// Whether it names Kubernetes repositories, and is in use.
    pub(super) fn is_live(&self) -> bool {
        self.is_enabled() && self.words(&ADDRESSES).iter().any(|word| !places(word).is_empty())
    }

    /// Whether packages of that name are hidden from ordinary upgrades.
    pub(super) fn excludes(&self, package: &str) -> bool {
        self.words(&EXCLUDES).iter().any(|pattern| fits(pattern, package))
    }

    /// Whether a key is one that lies where the repository is, or is fetched by itself: another on the machine's own disk stays.
    fn moves_along(&self, key: &str) -> bool {
        let before = |word: &str| places(word).first().map(|(place, _)| word[..place.start].to_owned());
        let fetched = key.contains("://") && !key.starts_with("file:");
        fetched || self.words(&ADDRESSES).iter().any(|address| before(address) == before(key))
    }
}

/// Every line with its end, and whether minors of Kubernetes repositories in it are in use.
pub(super) fn live(text: &str) -> Vec<(&str, bool)> {
    let mut lines = Vec::new();
    for section in Section::all(text) {
        let is_live = section.is_live();
        for line in &section.lines {
            let key = || line.text[line.value..].split_whitespace().all(|key| section.moves_along(key));
            let address = ADDRESSES.contains(&line.setting.as_str()) || (line.setting == "gpgkey" && key());
            lines.push((line.text, is_live && address));
        }
    }
    lines
}

/// The same text without sections that name no Kubernetes repository in use.
pub(super) fn only(text: &str) -> String {
    let sections = Section::all(text).into_iter().filter(Section::is_live);
    sections.flat_map(|section| section.lines).map(|line| line.text).collect()
}

/// Ids of the sections that name Kubernetes repositories in use.
pub(super) fn ids(text: &str) -> Vec<String> {
    let sections = Section::all(text).into_iter().filter(Section::is_live);
    sections.map(|section| section.id.to_owned()).collect()
}

/// Whether every Kubernetes repository in use, and there is one, hides packages of that name.
pub(super) fn excludes(text: &str, package: &str) -> bool {
    let live: Vec<_> = Section::all(text).into_iter().filter(Section::is_live).collect();
    !live.is_empty() && live.iter().all(|section| section.excludes(package))
}

/// Ids of the repositories in use, whichever they are, that hide packages of that name.
pub(super) fn excluding(text: &str, package: &str) -> Vec<String> {
    let sections = Section::all(text).into_iter().filter(|section| section.is_enabled() && section.excludes(package));
    sections.map(|section| section.id.to_owned()).collect()
}

/// Whether the main section of dnf's own configuration hides packages of that name.
pub(super) fn main_excludes(text: &str, package: &str) -> bool {
    Section::all(text).iter().any(|section| section.id == "main" && section.excludes(package))
}

/// The versions of the package, as patterns, that the main section hides: `1.35*` of `exclude=kubelet-1.35*`.
pub(super) fn main_excluded_versions<'t>(text: &'t str, package: &str) -> Vec<&'t str> {
    let main = Section::all(text).into_iter().filter(|section| section.id == "main");
    let words = main.flat_map(|section| section.words(&EXCLUDES));
    let version = |word: &'t str| word.strip_prefix(package)?.strip_prefix('-');
    words.filter_map(version).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// The same text with these packages hidden in every Kubernetes repository in use; what is hidden already is not named twice.
pub(super) fn with_excludes(text: &str, packages: &[&str]) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for section in Section::all(text) {
        let lacking: Vec<&str> = packages.iter().copied().filter(|package| !section.excludes(package)).collect();
        let adds = section.is_live() && !lacking.is_empty();
        let lacking = lacking.join(" ");
        let own = section.lines.iter().position(|line| EXCLUDES.contains(&line.setting.as_str()));
        let last = section.lines.iter().rposition(|line| !line.setting.is_empty());
        for (index, line) in section.lines.iter().enumerate() {
            if adds && own == Some(index) {
                let bare = line.text.trim_end();
                out.push_str(bare);
                out.push(' ');
                out.push_str(&lacking);
                out.push_str(if line.text.len() > bare.len() { &line.text[bare.len()..] } else { "\n" });
                continue;
            }
            out.push_str(line.text);
            if adds && own.is_none() && last == Some(index) {
                if !line.text.ends_with('\n') {
                    out.push('\n');
                }
                out.push_str("exclude=");
                out.push_str(&lacking);
                out.push('\n');
            }
        }
    }
    out
}

/// Whether a pattern of `*` and `?` fits the whole of a name.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            (0..=name.len()).any(|from| name.is_char_boundary(from) && fits(rest, &name[from..]))
        }
        Some(wanted) => {
            let mut chars = name.chars();
            let first = chars.next();
            first.is_some_and(|first| wanted == '?' || wanted == first)
                && fits(&pattern[wanted.len_utf8()..], chars.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::packages::sources::{self, Form};
    use cupcake_crds::values::MinorVersion;

    const fn v(minor: u32) -> MinorVersion {
        MinorVersion { major: 1, minor }
    }

    /// The file that the Kubernetes documentation tells people to write.
    const DOCUMENTED: &str = "\
[kubernetes]
name=Kubernetes
baseurl=https://pkgs.k8s.io/core:/stable:/v1.33/rpm/
enabled=1
gpgcheck=1
gpgkey=https://pkgs.k8s.io/core:/stable:/v1.33/rpm/repodata/repomd.xml.key
exclude=kubelet kubeadm kubectl cri-tools kubernetes-cni
";

    /// A file of several, as administrators leave them.
    const MIXED: &str = "\
# our mirrors; was core:/stable:/v1.30/ once
[base]
name = Base
baseurl = https://mirror.example/rocky/9/
exclude=kernel*

[k8s-mirror]
name = Kubernetes v1.33 (core:/stable:/v1.33/)
; baseurl = https://pkgs.k8s.io/core:/stable:/v1.33/rpm/
baseurl = https://u:p@mirror.example:8443/k8s/core:/stable:/v1.33/rpm/
  https://other.example/k8s/core/stable/v1.33/rpm/
Enabled = True
gpgkey = file:///etc/pki/rpm-gpg/core:/stable:/v1.33/key
excludepkgs = kubelet,
# not kubeadm
   kubectl

[old]
baseurl=https://pkgs.k8s.io/core:/stable:/v1.32/rpm/
enabled=0

[cri-o]
baseurl=https://pkgs.k8s.io/addons:/cri-o:/stable:/v1.33/rpm/
";

    #[test]
    fn only_the_minor_of_addresses_and_fetched_keys_changes() {
        assert_eq!(sources::minors(Form::Sections, DOCUMENTED), [v(33), v(33)], "of the key, too");
        assert_eq!(sources::set(Form::Sections, DOCUMENTED, v(34)), DOCUMENTED.replace("v1.33", "v1.34"));
        assert_eq!(sources::minors(Form::Sections, MIXED), [v(33), v(33)]);
        let set = sources::set(Form::Sections, MIXED, v(34));
        let expected = MIXED
            .replace("8443/k8s/core:/stable:/v1.33", "8443/k8s/core:/stable:/v1.34")
            .replace("k8s/core/stable/v1.33", "k8s/core/stable/v1.34");
        assert_eq!(set, expected, "the key on the machine's own disk stays");
        assert_eq!(sources::set(Form::Sections, &set, v(34)), set, "a second time changes nothing");
        let beside = DOCUMENTED.replace("https://pkgs.k8s.io", "file:///srv/mirror");
        let moved = beside.replace("v1.33", "v1.34");
        assert_eq!(sources::set(Form::Sections, &beside, v(34)), moved, "a key within the mirror goes with it");
        let gone =
            "[kubernetes]\nbaseurl=https://packages.cloud.google.com/yum/repos/kubernetes-el7-x86_64\nenabled=1\n";
        assert!(sources::minors(Form::Sections, gone).is_empty());
    }

    #[test]
    fn sections_are_told_by_their_ids_and_left_out_by_what_they_are() {
        assert_eq!(ids(DOCUMENTED), ["kubernetes"]);
        assert_eq!(ids(MIXED), ["k8s-mirror"]);
        let only = only(MIXED);
        assert!(only.starts_with("[k8s-mirror]\n") && only.ends_with("kubectl\n\n"), "{only}");
        assert!(ids("baseurl=https://pkgs.k8s.io/core:/stable:/v1.33/rpm/\n[a]\n").is_empty(), "of no section");
    }

    #[test]
    fn excludes_are_read_as_dnf_reads_them() {
        for package in ["kubelet", "kubeadm", "kubectl"] {
            assert!(excludes(DOCUMENTED, package), "{package}");
        }
        assert!(excludes(MIXED, "kubelet") && excludes(MIXED, "kubectl") && !excludes(MIXED, "kubeadm"));
        assert!(excludes(&MIXED.replace("= kubelet,", "= kube*"), "kubeadm"));
        let twice = format!("{DOCUMENTED}[other]\nbaseurl=https://m.example/core:/stable:/v1.33/rpm/\n");
        assert!(!excludes(&twice, "kubelet"), "the other section offers it");
        assert!(!excludes("", "kubelet"));
        let main = "[main]\ngpgcheck=1\nexclude=kube? kubelet-1.35* kubeadm\n[x]\nexclude=kubectl\n";
        assert!(main_excludes(main, "kubeadm") && !main_excludes(main, "kubelet") && !main_excludes(main, "kubectl"));
        assert_eq!(main_excluded_versions(main, "kubelet"), ["1.35*"]);
        assert!(main_excluded_versions(main, "kubeadm").is_empty() && main_excluded_versions("", "kubelet").is_empty());
        let docker = "[docker]\nbaseurl=x\nexclude=containerd.io\n[old]\nenabled=0\nbaseurl=y\nexclude=containerd*\n";
        assert_eq!(
            excluding(docker, "containerd.io"),
            ["docker"],
            "whatever repository it is, as long as it is in use"
        );
        assert!(excluding(docker, "containerd").is_empty());
    }

    #[test]
    fn what_is_not_hidden_yet_is_added_to_the_line_that_is_there_or_to_a_new_one() {
        let all = ["kubeadm", "kubelet", "kubectl"];
        assert_eq!(with_excludes(DOCUMENTED, &all), DOCUMENTED);
        let set = with_excludes(MIXED, &all);
        assert_eq!(set, MIXED.replace("excludepkgs = kubelet,\n", "excludepkgs = kubelet, kubeadm\n"));
        assert!(all.iter().all(|package| excludes(&set, package)));
        let bare = "[kubernetes]\nbaseurl=https://pkgs.k8s.io/core:/stable:/v1.33/rpm/\n# end\n\n[base]\nbaseurl=x";
        let set = with_excludes(bare, &all);
        assert_eq!(set, bare.replace("rpm/\n", "rpm/\nexclude=kubeadm kubelet kubectl\n"));
        let unended = "[k]\nbaseurl=https://pkgs.k8s.io/core:/stable:/v1.33/rpm/";
        assert_eq!(with_excludes(unended, &["kubelet"]), format!("{unended}\nexclude=kubelet\n"));
        assert_eq!(
            with_excludes("[k]\nbaseurl=https://m/core:/stable:/v1.33/rpm/\nexclude=a", &["b"]).lines().last(),
            Some("exclude=a b")
        );
    }

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, expected) in [
            ("kube*", "kubelet", true),
            ("kube?t", "kubelet", false),
            ("kube??t", "kubelet", true),
            ("*", "", true),
            ("kube", "kubelet", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
