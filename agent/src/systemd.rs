//! The runner's unit by systemd's D-Bus API: what outlives this pod, the kubelet and containerd.
//!
//! Needs no privilege but uid 0 and the two folders /var/lib/cupcake and /run/dbus (systemd checks the caller's uid). The first
//! start is a transient unit; while it has work the runner keeps a unit file of its own for the next boot.
//! Source: org.freedesktop.systemd1(5), systemd.exec(5); methods and properties as of systemd 247 and newer.

#![expect(clippy::disallowed_methods, reason = "this is where the agent puts the runner's program onto the machine")]

use crate::runner_unit::{RunnerUnit, UnitError};
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

/// The name of the runner's unit, transient or on disk.
pub const UNIT: &str = "cupcake-host.service";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
/// What it says of a transient unit whose name it still has.
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// Where systemd keeps the files of transient units.
const TRANSIENT_UNITS: &str = "/run/systemd/transient/";
/// How long systemd may take to answer, in seconds.
const ANSWER_SECONDS_MAX: u64 = 10;
/// How soon systemd starts a runner again that died, in microseconds.
const RESTART_MICROS: u64 = 1_000_000;

/// What is started, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bus of the machine, such as `unix:path=/run/dbus/system_bus_socket`.
    pub bus: String,
    /// The runner's program as this pod has it.
    pub program: PathBuf,
    /// The runner's folder, under the same path here and on the machine.
    pub folder: PathBuf,
    /// The node's name, for the runner to refuse orders of another one.
    pub node_name: String,
}

/// The runner's unit in the machine's systemd.
pub struct SystemdRunner {
    settings: Settings,
    /// One connection at a time; a broken one is made anew by the next call.
    connection: tokio::sync::Mutex<Option<Connection>>,
}

impl SystemdRunner {
    /// The unit on that bus. Connects with its first call.
    pub fn new(settings: Settings) -> Self {
        Self { settings, connection: tokio::sync::Mutex::new(None) }
    }

    async fn connection(&self) -> Result<Connection, UnitError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let builder = Builder::address(self.settings.bus.as_str());
        let connected = builder.method_timeout(Duration::from_secs(ANSWER_SECONDS_MAX)).build().await;
        let connection = connected.map_err(|error| {
            UnitError::new(format!("no way to systemd by {}: {error}; is /run/dbus mounted?", self.settings.bus))
        })?;
        *held = Some(connection.clone());
        Ok(connection)
    }

    /// What a failed call means; a broken connection is dropped.
    async fn failed(&self, what: &str, error: &zbus::Error) -> UnitError {
        if matches!(error, zbus::Error::InputOutput(_)) {
            *self.connection.lock().await = None;
        }
        UnitError::new(format!("{what}: {error}"))
    }

    async fn property<T>(&self, unit: &OwnedObjectPath, name: &str) -> Result<T, UnitError>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: std::fmt::Display,
    {
        let connection = self.connection().await?;
        let properties = Some("org.freedesktop.DBus.Properties");
        let reply = connection.call_method(Some(SYSTEMD), unit, properties, "Get", &(UNIT_INTERFACE, name)).await;
        let value = reply.and_then(|message| message.body().deserialize::<OwnedVariant>());
        match value.map(T::try_from) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(UnitError::new(format!("{name} of {UNIT}: {error}"))),
            Err(error) => Err(self.failed(name, &error).await),
        }
    }

    /// Whether systemd has a unit file that a runner left which had work when it died.
    ///
    /// A unit stays loaded as it was when its file was removed or written anew (systemd says `NeedDaemonReload`): started so, the
    /// program of an earlier release would go on being started for ever.
    async fn has_own_file(&self) -> Result<bool, UnitError> {
        let mut unit = self.load().await?;
        if self.property::<bool>(&unit, "NeedDaemonReload").await? {
            self.reload().await?;
            unit = self.load().await?;
        }
        let loaded = self.property::<String>(&unit, "LoadState").await? == "loaded";
        let file = self.property::<String>(&unit, "FragmentPath").await?;
        // A transient unit that is over is this agent's or an earlier one's, and goes away by itself (`CollectMode`).
        Ok(loaded && !file.starts_with(TRANSIENT_UNITS))
    }

    /// `systemctl daemon-reload`.
    async fn reload(&self) -> Result<(), UnitError> {
        let connection = self.connection().await?;
        match connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Reload", &()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("Reload", &error).await),
        }
    }

    /// The unit as systemd has it, loaded from disk if need be.
    async fn load(&self) -> Result<OwnedObjectPath, UnitError> {
        let connection = self.connection().await?;
        let reply = connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "LoadUnit", &(UNIT,)).await;
        match reply.and_then(|message| message.body().deserialize::<OwnedObjectPath>()) {
            Ok(path) => Ok(path),
            Err(error) => Err(self.failed("LoadUnit", &error).await),
        }
    }

    async fn start_known(&self) -> Result<(), UnitError> {
        let connection = self.connection().await?;
        let arguments = (UNIT, "replace");
        let reply = connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "StartUnit", &arguments).await;
        match reply {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("StartUnit", &error).await),
        }
    }

    async fn start_transient(&self, program: &Path) -> Result<(), UnitError> {
        let program = program.display().to_string();
        let folder = self.settings.folder.display().to_string();
        let node = self.settings.node_name.clone();
        let arguments: Vec<String> =
            [&program, "run", "--dir", &folder, "--node-name", &node].map(str::to_owned).to_vec();
        let properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", Variant::from("CUPCAKE runner: host work of a cluster upgrade")),
            ("Type", Variant::from("exec")),
            ("ExecStart", Variant::new(vec![(program, arguments, false)])),
            ("Restart", Variant::from("on-failure")),
            ("RestartUSec", Variant::from(RESTART_MICROS)),
            ("StartLimitIntervalUSec", Variant::from(0_u64)),
            // Killed in the middle, its children end with it: nobody is left behind who writes.
            ("KillMode", Variant::from("control-group")),
            // A transient unit that is over leaves nothing that a new one would collide with.
            ("CollectMode", Variant::from("inactive-or-failed")),
        ];
        let no_others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let connection = self.connection().await?;
        let body = (UNIT, "replace", properties, no_others);
        let start = || connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "StartTransientUnit", &body);
        let mut reply = start().await;
        if reply.as_ref().is_err_and(exists_already) {
            // Packages reload systemd. Where that fell into the last order, when the runner's unit was one of the next boot's,
            // systemd keeps the unit that is over loaded for that target until it reads its files anew.
            self.reload().await?;
            reply = start().await;
        }
        match reply {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("StartTransientUnit", &error).await),
        }
    }
}

/// Whether systemd still has a unit of that name.
fn exists_already(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _) if name.as_str() == UNIT_EXISTS)
}

#[async_trait]
impl RunnerUnit for SystemdRunner {
    async fn is_active(&self) -> Result<bool, UnitError> {
        let unit = self.load().await?;
        let state: String = self.property(&unit, "ActiveState").await?;
        Ok(matches!(state.as_str(), "active" | "activating" | "reloading"))
    }

    async fn ensure_started(&self) -> Result<(), UnitError> {
        if self.has_own_file().await? {
            // That one goes on with what it began.
            return self.start_known().await;
        }
        let (source, folder) = (self.settings.program.clone(), self.settings.folder.join("bin"));
        let installed = tokio::task::spawn_blocking(move || install(&source, &folder)).await;
        let installed = installed.map_err(|error| UnitError::new(error.to_string()))?;
        let source = self.settings.program.display();
        let program =
            installed.map_err(|error| UnitError::new(format!("{source} cannot be put onto the machine: {error}")))?;
        tracing::info!(program = %program.display(), "starts the runner");
        self.start_transient(&program).await
    }
}

/// Puts the program into the folder under a name of its digest, whole or not at all; older ones stay for runners at work.
fn install(source: &Path, folder: &Path) -> std::io::Result<PathBuf> {
    let bytes = fs::read(source)?;
    let digest = Sha256::digest(&bytes).iter().take(8).fold(0, |digest: u64, byte| (digest << 8) | u64::from(*byte));
    let target = folder.join(format!("cupcake-host-{digest:016x}"));
    if target.exists() {
        return Ok(target);
    }
    fs::create_dir_all(folder)?;
    clear(folder)?;
    let (temporary, mut file) = temporary(&target)?;
    file.write_all(&bytes)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, &target)?;
    File::open(folder)?.sync_all()?;
    Ok(target)
}

/// Removes what a crash left half written. If another agent writes it just now, that one's rename fails, and it tries again.
fn clear(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "tmp") {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// A new file beside the target that no other agent of this node writes: each may be process 1 of its pod.
fn temporary(target: &Path) -> std::io::Result<(PathBuf, File)> {
    let mut number = 0_u32;
    loop {
        let name = target.with_extension(format!("{}-{number}.tmp", std::process::id()));
        match File::create_new(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            opened => return Ok((name, opened?)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, clippy::unused_self, reason = "what the macro of a D-Bus interface expands to")]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};
    use zbus::{fdo, interface};

    type Properties = Vec<(String, OwnedVariant)>;

    /// What systemd has loaded of the unit, and what a reload would find.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum File {
        /// Nothing.
        None,
        /// A file that a runner left.
        Own,
        /// What it had loaded of a file that is gone since.
        Gone,
        /// A transient unit that is over.
        Transient,
        /// One that a target of the next boot wanted when systemd read its files last.
        Wanted,
    }

    /// As systemd refuses.
    #[derive(Debug, zbus::DBusError)]
    #[zbus(prefix = "org.freedesktop.systemd1")]
    enum Refusal {
        #[zbus(error)]
        ZBus(zbus::Error),
        UnitExists(String),
    }

    /// A systemd that knows one unit.
    #[derive(Clone)]
    struct Systemd {
        file: Arc<Mutex<File>>,
        calls: Arc<Mutex<Vec<String>>>,
    }

    impl Systemd {
        fn with(file: File) -> Self {
            Self { file: Arc::new(Mutex::new(file)), calls: Arc::default() }
        }
    }

    #[interface(name = "org.freedesktop.systemd1.Manager")]
    impl Systemd {
        #[zbus(name = "LoadUnit")]
        fn load_unit(&self, name: &str) -> fdo::Result<OwnedObjectPath> {
            assert_eq!(name, UNIT);
            OwnedObjectPath::try_from("/unit").map_err(|error| fdo::Error::Failed(error.to_string()))
        }

        #[zbus(name = "Reload")]
        fn reload(&self) {
            self.calls.lock().unwrap().push("Reload".to_owned());
            let mut file = self.file.lock().unwrap();
            if matches!(*file, File::Gone | File::Wanted) {
                *file = File::None;
            }
        }

        #[zbus(name = "StartUnit")]
        fn start_unit(&self, name: &str, mode: &str) -> fdo::Result<OwnedObjectPath> {
            self.calls.lock().unwrap().push(format!("StartUnit {name} {mode}"));
            OwnedObjectPath::try_from("/job").map_err(|error| fdo::Error::Failed(error.to_string()))
        }

        #[zbus(name = "StartTransientUnit")]
        #[expect(clippy::needless_pass_by_value, reason = "the form that the D-Bus interface asks for")]
        fn start_transient_unit(
            &self,
            name: &str,
            mode: &str,
            properties: Properties,
            aux: Vec<(String, Properties)>,
        ) -> Result<OwnedObjectPath, Refusal> {
            assert!(aux.is_empty());
            if *self.file.lock().unwrap() == File::Wanted {
                self.calls.lock().unwrap().push("UnitExists".to_owned());
                return Err(Refusal::UnitExists(format!("Unit {name} was already loaded or has a fragment file.")));
            }
            let value = |(name, value): &(String, OwnedVariant)| format!("{name}={value:?}");
            let properties: Vec<_> = properties.iter().map(value).collect();
            self.calls.lock().unwrap().push(format!("StartTransientUnit {name} {mode} {}", properties.join("; ")));
            Ok(OwnedObjectPath::try_from("/job").unwrap())
        }
    }

    struct Unit {
        active: &'static str,
        file: Arc<Mutex<File>>,
    }

    #[interface(name = "org.freedesktop.systemd1.Unit")]
    impl Unit {
        #[zbus(property)]
        fn active_state(&self) -> &str {
            self.active
        }
        #[zbus(property)]
        fn load_state(&self) -> &str {
            if *self.file.lock().unwrap() == File::None { "not-found" } else { "loaded" }
        }
        #[zbus(property)]
        fn fragment_path(&self) -> &str {
            match *self.file.lock().unwrap() {
                File::None => "",
                File::Own | File::Gone => "/etc/systemd/system/cupcake-host.service",
                File::Transient | File::Wanted => "/run/systemd/transient/cupcake-host.service",
            }
        }
        #[zbus(property)]
        fn need_daemon_reload(&self) -> bool {
            *self.file.lock().unwrap() == File::Gone
        }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("cupcake-systemd-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The runner's unit over a connection to that systemd.
    async fn runner(systemd: &Systemd, active: &'static str, folder: &Path) -> (SystemdRunner, Connection) {
        let (own, other) = UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let server = Builder::unix_stream(other)
            .server(guid)
            .p2p()
            .serve_at(MANAGER_PATH, systemd.clone())
            .serve_at("/unit", Unit { active, file: Arc::clone(&systemd.file) });
        let (server, client) = tokio::join!(server.build(), Builder::unix_stream(own).p2p().build());
        let program = folder.join("program");
        fs::write(&program, b"#!/bin/true").unwrap();
        let settings =
            Settings { bus: "unix:path=/none".into(), program, folder: folder.to_owned(), node_name: "w-1".into() };
        let runner = SystemdRunner::new(settings);
        *runner.connection.lock().await = Some(client.unwrap());
        (runner, server.unwrap())
    }

    #[tokio::test]
    async fn the_first_start_installs_the_program_and_is_a_transient_unit_that_dies_as_a_whole() {
        let (folder, systemd) = (folder("transient"), Systemd::with(File::None));
        let (runner, _server) = runner(&systemd, "inactive", &folder).await;
        assert!(!runner.is_active().await.unwrap());
        runner.ensure_started().await.unwrap();
        let calls = systemd.calls.lock().unwrap().join("\n");
        for part in
            ["StartTransientUnit cupcake-host.service replace", "on-failure", "control-group", "--node-name", "w-1"]
        {
            assert!(calls.contains(part), "{part} in {calls}");
        }
        let installed: Vec<_> = fs::read_dir(folder.join("bin")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(installed.len(), 1);
        assert!(calls.contains(&installed[0].display().to_string()), "{calls}");
        assert_eq!(fs::metadata(&installed[0]).unwrap().permissions().mode() & 0o777, 0o755);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_unit_that_is_over_and_still_wanted_by_the_next_boot_is_forgotten_by_a_reload_and_begun_anew() {
        let (folder, systemd) = (folder("wanted"), Systemd::with(File::Wanted));
        let (runner, _server) = runner(&systemd, "inactive", &folder).await;
        runner.ensure_started().await.unwrap();
        let calls = systemd.calls.lock().unwrap().clone();
        assert_eq!(calls[..2], ["UnitExists", "Reload"]);
        assert!(
            calls.len() == 3 && calls[2].starts_with("StartTransientUnit cupcake-host.service replace"),
            "{calls:?}"
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn two_agents_that_install_one_program_never_write_one_file() {
        let folder = folder("install");
        fs::write(folder.join("program"), b"#!/bin/true").unwrap();
        let target = folder.join("bin").join("cupcake-host-00");
        fs::create_dir_all(folder.join("bin")).unwrap();
        let (first, _own) = temporary(&target).unwrap();
        let (second, _other) = temporary(&target).unwrap();
        assert_ne!(first, second);
        let installed = install(&folder.join("program"), &folder.join("bin")).unwrap();
        assert_eq!(fs::read(&installed).unwrap(), b"#!/bin/true");
        assert_eq!(fs::read_dir(folder.join("bin")).unwrap().count(), 1, "what was left half written is gone");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_runner_that_left_its_unit_file_is_started_by_that() {
        let (folder, systemd) = (folder("file"), Systemd::with(File::Own));
        let (runner, _server) = runner(&systemd, "failed", &folder).await;
        assert!(!runner.is_active().await.unwrap());
        runner.ensure_started().await.unwrap();
        assert_eq!(*systemd.calls.lock().unwrap(), ["StartUnit cupcake-host.service replace"]);
        assert!(!folder.join("bin").exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn what_systemd_still_has_of_a_runner_that_is_done_is_not_started_again() {
        for (file, reloads) in [(File::Gone, true), (File::Transient, false)] {
            let (folder, systemd) = (folder("gone"), Systemd::with(file));
            let (runner, _server) = runner(&systemd, "inactive", &folder).await;
            runner.ensure_started().await.unwrap();
            let calls = systemd.calls.lock().unwrap().clone();
            assert_eq!(calls.first().is_some_and(|call| call == "Reload"), reloads, "{calls:?}");
            let start = calls.last().unwrap();
            assert!(
                start.starts_with("StartTransientUnit") && start.contains("/bin/cupcake-host-"),
                "{file:?}: {start}"
            );
            fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[tokio::test]
    async fn a_runner_about_to_start_again_counts_as_running() {
        let folder = folder("active");
        for (state, is_active) in [("active", true), ("activating", true), ("deactivating", false)] {
            let (runner, _server) = runner(&Systemd::with(File::None), state, &folder).await;
            assert_eq!(runner.is_active().await.unwrap(), is_active, "{state}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn no_bus_is_an_error_that_says_what_to_mount() {
        let settings = Settings {
            bus: "unix:path=/nonexistent/bus".into(),
            program: PathBuf::from("/none"),
            folder: PathBuf::from("/none"),
            node_name: "w-1".into(),
        };
        let error = SystemdRunner::new(settings).is_active().await.unwrap_err().to_string();
        assert!(error.contains("/run/dbus"), "{error}");
    }
}
