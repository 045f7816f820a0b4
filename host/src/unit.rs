//! The runner's own unit file: while there is work, a boot starts the runner again, without any cluster.
//!
//! The agent starts the runner as a transient unit, which a reboot forgets; a pod cannot come back to start it again while the
//! API is away, and on a single control plane the API may be away because of what the runner was doing. So the runner leaves a
//! unit file of the same name in /etc/systemd/system (not linked from /var, which may be mounted later), with the link that
//! `systemctl enable` would make; systemd refuses to enable a name that is transient just then. Both go when the work is done.
//! Source: systemd.unit(5), sd_booted(3).

#![expect(clippy::disallowed_methods, reason = "the links of systemd are no files of the Disk port")]

use cupcake_steps::ports::disk::{Disk, DiskError};
use cupcake_steps::ports::real_disk::RealDisk;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The unit's name; the agent's transient unit has it too.
pub const UNIT: &str = "cupcake-host.service";
const WANTS: &str = "multi-user.target.wants";

/// Why the unit file could not be left or taken away. The work goes on; only a reboot in the middle would rest.
#[derive(Debug, thiserror::Error)]
pub enum UnitFileError {
    /// The file itself.
    #[error("unit file of the runner")]
    File(#[from] DiskError),
    /// The link that enables it.
    #[error("link of the runner's unit file")]
    Link(#[from] io::Error),
}

/// The runner's unit file in a folder of systemd.
pub struct UnitFile {
    folder: PathBuf,
}

impl UnitFile {
    /// The one of this machine; `None` where systemd is not what runs it.
    pub fn of_this_machine() -> Option<Self> {
        Path::new("/run/systemd/system").is_dir().then(|| Self::inside("/etc/systemd/system"))
    }

    /// The one inside that folder.
    pub fn inside(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Leaves it, enabled: the next boot starts `program` on `state` again.
    pub async fn keep(&self, program: &Path, state: &Path, node_name: Option<&str>) -> Result<(), UnitFileError> {
        let text = text(program, state, node_name);
        RealDisk::below(&self.folder).replace(UNIT, text.as_bytes()).await?;
        let wants = self.folder.join(WANTS);
        fs::create_dir_all(&wants)?;
        match symlink(format!("../{UNIT}"), wants.join(UNIT)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            Err(_) | Ok(()) => {}
        }
        Ok(File::open(&wants)?.sync_all()?)
    }

    /// Takes it away. One that is not there is no error.
    pub async fn remove(&self) -> Result<(), UnitFileError> {
        match fs::remove_file(self.folder.join(WANTS).join(UNIT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Err(_) | Ok(()) => {}
        }
        Ok(RealDisk::below(&self.folder).remove(UNIT).await?)
    }
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
         ExecStart={program} run --dir {state}{node_name}\n\
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

    #[tokio::test]
    async fn a_unit_file_is_left_enabled_and_taken_away_whole_and_both_may_be_repeated() {
        let folder = std::env::temp_dir().join(format!("cupcake-unit-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let unit = UnitFile::inside(&folder);
        unit.remove().await.unwrap();
        for _ in 0..2 {
            unit.keep(Path::new("/opt/cupcake-host"), Path::new("/var/lib/cupcake"), Some("w-1")).await.unwrap();
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
}
