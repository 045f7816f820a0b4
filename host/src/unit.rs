//! The runner's own unit file: while there is work, a boot starts the runner again, without any cluster.
//!
//! The agent starts the runner as a transient unit, which a reboot forgets; a pod cannot come back to start it again while the
//! API is away, and on a single control plane the API may be away because of what the runner was doing. So the runner leaves a
//! unit file of the same name in /etc/systemd/system (not linked from /var, which may be mounted later), with the link that
//! `systemctl enable` would make; systemd refuses to enable a name that is transient just then. Both go when the work is done.
//! Source: systemd.unit(5), sd_booted(3).

#![expect(clippy::disallowed_methods, reason = "the links of systemd are no files of the Disk port")]

use crate::boot::{BootUnit, BootUnitError};
use async_trait::async_trait;
use cupcake_steps::ports::disk::{Disk, DiskError};
use cupcake_steps::ports::real_disk::RealDisk;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The unit's name; the agent's transient unit has it too.
pub const UNIT: &str = "cupcake-host.service";
const WANTS: &str = "multi-user.target.wants";
/// The largest unit file that is read.
const BYTES_MAX: usize = 64 * 1024;
/// What stands before the runner's folder in the command of the unit.
const FOLDER_ARGUMENT: &str = " --dir ";

/// The runner's unit file in a folder of systemd.
pub struct UnitFile {
    folder: PathBuf,
    state: PathBuf,
    text: String,
}

impl UnitFile {
    /// The one of this machine, which starts `program` on `state`; `None` where systemd is not what runs it.
    pub fn of_this_machine(program: &Path, state: &Path, node_name: Option<&str>) -> Option<Self> {
        let is_systemd = Path::new("/run/systemd/system").is_dir();
        is_systemd.then(|| Self::inside("/etc/systemd/system", program, state, node_name))
    }

    /// The one inside that folder.
    pub fn inside(folder: impl Into<PathBuf>, program: &Path, state: &Path, node_name: Option<&str>) -> Self {
        Self { folder: folder.into(), state: state.to_owned(), text: text(program, state, node_name) }
    }

    /// The file as it is there, and the error if it starts a runner on another folder.
    async fn own(&self) -> Result<Option<String>, BootUnitError> {
        let read = RealDisk::below(&self.folder).read(UNIT, BYTES_MAX).await.map_err(unwritable)?;
        let read = read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let found = read.as_deref().and_then(folder_of);
        match found.filter(|found| Path::new(found) != self.state) {
            None => Ok(read),
            Some(found) => Err(BootUnitError::OtherFolder {
                path: self.folder.join(UNIT).display().to_string(),
                found: found.to_owned(),
                own: self.state.display().to_string(),
            }),
        }
    }

    fn link(&self) -> io::Result<()> {
        let wants = self.folder.join(WANTS);
        fs::create_dir_all(&wants)?;
        match symlink(format!("../{UNIT}"), wants.join(UNIT)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) | Ok(()) => {}
        }
        File::open(&wants)?.sync_all()
    }

    fn unlink(&self) -> io::Result<()> {
        match fs::remove_file(self.folder.join(WANTS).join(UNIT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> BootUnitError {
    BootUnitError::Unwritable(Box::new(error))
}

#[async_trait]
impl BootUnit for UnitFile {
    async fn keep(&self) -> Result<(), BootUnitError> {
        if self.own().await?.as_deref() != Some(&self.text) {
            let replaced: Result<(), DiskError> =
                RealDisk::below(&self.folder).replace(UNIT, self.text.as_bytes()).await;
            replaced.map_err(unwritable)?;
        }
        self.link().map_err(unwritable)
    }

    async fn remove(&self) -> Result<(), BootUnitError> {
        match self.own().await {
            Ok(_) => {}
            Err(BootUnitError::OtherFolder { .. }) => return Ok(()),
            Err(error @ BootUnitError::Unwritable(_)) => return Err(error),
        }
        self.unlink().map_err(unwritable)?;
        RealDisk::below(&self.folder).remove(UNIT).await.map_err(unwritable)
    }
}

/// The runner's folder in the text of a unit; `None` if it names none.
fn folder_of(unit: &str) -> Option<&str> {
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let (_, rest) = command.split_once(FOLDER_ARGUMENT)?;
    rest.split_whitespace().next()
}

fn text(program: &Path, state: &Path, node_name: Option<&str>) -> String {
    let (program, state) = (program.display(), state.display());
    let node_name = node_name.map_or_else(String::new, |name| format!(" --node-name {name}"));
    format!(
        "[Unit]\n\
         Description=CUPCAKE runner: host work of a cluster upgrade\n\
         RequiresMountsFor={state}\n\
         After=containerd.service\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={program} run{FOLDER_ARGUMENT}{state}{node_name}\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         KillMode=control-group\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("cupcake-unit-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[tokio::test]
    async fn a_unit_file_is_left_enabled_and_taken_away_whole_and_both_may_be_repeated() {
        let folder = folder("keep");
        let unit =
            UnitFile::inside(&folder, Path::new("/opt/cupcake-host"), Path::new("/var/lib/cupcake"), Some("w-1"));
        unit.remove().await.unwrap();
        for _ in 0..2 {
            unit.keep().await.unwrap();
        }
        let enabled = fs::read_to_string(folder.join(WANTS).join(UNIT)).unwrap();
        let start = "ExecStart=/opt/cupcake-host run --dir /var/lib/cupcake --node-name w-1\n";
        assert!(enabled.contains(start), "{enabled}");
        assert!(enabled.contains("RequiresMountsFor=/var/lib/cupcake\n"), "{enabled}");
        for _ in 0..2 {
            unit.remove().await.unwrap();
        }
        assert_eq!(fs::read_dir(folder.join(WANTS)).unwrap().count(), 0);
        assert!(!folder.join(UNIT).exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_newer_program_takes_the_place_of_an_older_one_and_another_folder_is_left_alone() {
        let folder = folder("other");
        let at = |program: &str, state: &str| UnitFile::inside(&folder, Path::new(program), Path::new(state), None);
        at("/opt/old", "/var/lib/cupcake").keep().await.unwrap();
        at("/opt/new", "/var/lib/cupcake").keep().await.unwrap();
        let kept = || fs::read_to_string(folder.join(UNIT)).unwrap();
        assert!(kept().contains("ExecStart=/opt/new "), "{}", kept());
        let by_hand = at("/opt/new", "/other");
        let error = by_hand.keep().await.unwrap_err();
        assert!(matches!(&error, BootUnitError::OtherFolder { found, .. } if found == "/var/lib/cupcake"), "{error}");
        by_hand.remove().await.unwrap();
        assert!(kept().contains("--dir /var/lib/cupcake\n"));
        assert!(folder.join(WANTS).join(UNIT).exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
