//! Whether packages are installed on the machine by itself, in the middle of an upgrade, too.
//!
//! Source: apt 2.6, debian/apt.systemd.daily: what runs, and when, stands in `APT::Periodic`; apt-daily-upgrade.timer starts it.

use super::RealHost;
use super::program::{Program, ProgramError};

/// What unattended-upgrades brings.
const PROGRAM: &str = "/usr/bin/unattended-upgrade";
const TIMER: &str = "apt-daily-upgrade.timer";
/// Whether anything is done periodically, which is so if it is not said, and whether that is.
const ENABLED: &str = "APT::Periodic::Enable";
const EVERY: &str = "APT::Periodic::Unattended-Upgrade";

/// The value of a variable in what `apt-config shell` prints: `every='1'`.
fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("='")?.strip_suffix('\''))
}

/// Whether the periodic run of that configuration does it; an interval of 0 is never.
fn is_configured(text: &str) -> bool {
    let never = |value: &str| matches!(value, "" | "0");
    !value(text, "enabled").is_some_and(never) && !value(text, "every").is_none_or(never)
}

impl RealHost {
    /// Whether unattended-upgrades is there and at work; nothing where that cannot be told.
    pub(super) async fn unattended_upgrades(&self) -> Option<bool> {
        if !self.files().has(PROGRAM) {
            return Some(false);
        }
        let configuration =
            Program::asking("apt-config", ["shell", "enabled", ENABLED, "every", EVERY]).run().await.ok()?;
        if !is_configured(&configuration.stdout) {
            return Some(false);
        }
        match Program::asking("systemctl", ["is-enabled", TIMER]).run().await {
            Ok(_) => Some(true),
            Err(ProgramError::Failed { .. }) => Some(false),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    #[tokio::test]
    async fn upgrades_by_themselves_are_told_where_they_are_installed_configured_and_started() {
        let folder = TestFolder::new("unattended");
        let told = async |configuration: &str, enabled: &str| {
            let prints = format!("echo \"{configuration}\"");
            folder.be_the_machine(&[("apt-config", prints.as_str()), ("systemctl", enabled)]);
            host_in(&folder).unattended_upgrades().await
        };
        assert_eq!(told("every='1'", "exit 0").await, Some(false), "it is not installed");
        folder.write(PROGRAM, "");
        assert_eq!(told("every='1'", "exit 0").await, Some(true));
        assert_eq!(told("every='1'", "exit 1").await, Some(false), "nothing starts it");
        assert_eq!(told("every='0'", "exit 0").await, Some(false));
        assert_eq!(told("", "exit 0").await, Some(false));
        assert_eq!(told("enabled='0'\nevery='1'", "exit 0").await, Some(false));
        assert_eq!(told("enabled='1'\nevery='always'", "exit 0").await, Some(true));
    }
}
