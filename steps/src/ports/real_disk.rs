//! A folder of this machine: the real adapter of [`Disk`], for the binaries of agent and runner.

#![expect(clippy::disallowed_methods, reason = "this is where the Disk port meets the machine's files")]

use super::disk::{Disk, DiskError, DiskLock, check_path};
use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock, inotify};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// What a temporary file of [`Disk::replace`] ends in; leftovers of a crash are removed by the next who takes a lock.
const TEMPORARY: &str = ".tmp";
/// How often a replace begins anew whose temporary file was taken for a leftover.
const REPLACES_MAX: usize = 3;
/// Numbers this process's temporary files.
static TEMPORARIES: AtomicU64 = AtomicU64::new(0);
/// How often a folder is looked at that cannot be watched, in seconds.
const POLL_SECONDS: u64 = 1;

/// Small files below a folder of this machine, root's alone.
///
/// # Assumptions
/// Runs in a tokio runtime. The folder lies on a file system with working fsync and flock: a local one. A write whose caller
/// was dropped may still happen a moment later: whoever drops one in the middle does not write that file again.
pub struct RealDisk {
    root: PathBuf,
    watches: Mutex<BTreeMap<String, Arc<Watch>>>,
}

impl RealDisk {
    /// The disk below `root`, which comes into being with its first file.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), watches: Mutex::new(BTreeMap::new()) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        path: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        check_path(operation, path)?;
        let whole = self.root.join(path);
        let failed = |why: String| DiskError { operation, path: whole.display().to_string(), why };
        let at = whole.clone();
        // A blocking task runs to its end even if its caller is dropped: a write is whole or never began.
        let result = tokio::task::spawn_blocking(move || work(&at)).await;
        result.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    fn watch(&self, folder: &str) -> io::Result<Arc<Watch>> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watches.get(folder) {
            return Ok(Arc::clone(watch));
        }
        let path = self.root.join(folder);
        make_folder(&path)?;
        let watch = Arc::new(Watch::of(&path)?);
        watches.insert(folder.to_owned(), Arc::clone(&watch));
        Ok(watch)
    }
}

/// A folder's inotify queue and the count of changes that were read from it.
///
/// A queue is read like a pipe that never ends; taking it for one is tokio's way to wait for it without unsafe code.
struct Watch {
    queue: Receiver,
    count: Mutex<u64>,
}

impl Watch {
    fn of(folder: &Path) -> io::Result<Self> {
        let queue = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        // A file is whole once it is closed or moved into its place; half-written ones are nobody's news.
        let flags = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, folder, flags)?;
        Ok(Self { queue: Receiver::from_owned_fd_unchecked(queue)?, count: Mutex::new(1) })
    }

    /// Takes what lies in the queue into the count. What exactly changed does not matter: whoever waits looks at it all.
    fn drain(&self) -> io::Result<u64> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 4096];
        loop {
            match self.queue.try_read(&mut buffer) {
                Ok(_) => *count += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(*count),
                Err(error) => return Err(error),
            }
        }
    }

    async fn above(&self, seen: u64) -> io::Result<u64> {
        loop {
            self.queue.readable().await?;
            let count = self.drain()?;
            if count > seen {
                return Ok(count);
            }
        }
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match folder.parent() {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// A new file beside `path` that no other process writes: two agents of one node may both be process 1 of their pods.
fn temporary(path: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let number = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{number}{TEMPORARY}", std::process::id()));
        let name = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((name, opened?)),
        }
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    make_folder(folder_of(path))?;
    let mut tries = 1;
    loop {
        let (name, mut file) = temporary(path)?;
        let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&name, path));
        match written {
            Ok(()) => return sync_folder(folder_of(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < REPLACES_MAX => tries += 1,
            Err(error) => {
                // On a full disk its bytes are wanted elsewhere.
                let _ = fs::remove_file(&name);
                return Err(error);
            }
        }
    }
}

/// Removes temporary files in a folder and in those directly below it.
fn clear(folder: &Path) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    for folder in folders {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(TEMPORARY) && path.is_file() {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

fn append(path: &Path, content: &[u8]) -> io::Result<()> {
    make_folder(folder_of(path))?;
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    if is_new { sync_folder(folder_of(path)) } else { Ok(()) }
}

fn read(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
    if content.len() > bytes_max {
        return Err(io::Error::other(format!("more than the {bytes_max} bytes that are allowed")));
    }
    Ok(Some(content))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !name.ends_with(TEMPORARY) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whoever can open a file can lock it, so neither it nor its folder may be anybody's but root's: the kubelet makes the folder
/// for all to see when a pod asks for it first, and earlier releases made the file so.
fn lock(path: &Path) -> io::Result<Option<DiskLock>> {
    make_folder(folder_of(path))?;
    fs::set_permissions(folder_of(path), Permissions::from_mode(0o700))?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            clear(folder_of(path))?;
            Ok(Some(DiskLock::new(file)))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl Disk for RealDisk {
    async fn read(&self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, DiskError> {
        self.blocking("read", path, move |path| read(path, bytes_max)).await
    }

    async fn replace(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let content = content.to_vec();
        self.blocking("replace", path, move |path| replace(path, &content)).await
    }

    async fn append(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let content = content.to_vec();
        self.blocking("append", path, move |path| append(path, &content)).await
    }

    async fn truncate(&self, path: &str, bytes: u64) -> Result<(), DiskError> {
        let cut = move |path: &Path| {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(bytes)?;
            file.sync_all()
        };
        self.blocking("truncate", path, cut).await
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.blocking("remove", path, remove).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        self.blocking("list", folder, list).await
    }

    async fn changed(&self, folder: &str, seen: u64) -> u64 {
        let count = match self.watch(folder) {
            Ok(watch) => match watch.drain() {
                Ok(count) if count > seen => Ok(count),
                Ok(_) => watch.above(seen).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match count {
            Ok(count) => count,
            Err(error) => {
                // No inotify (its limits are shared by the machine): look once a second instead of never.
                tracing::debug!(folder, %error, "folder cannot be watched, polling it");
                tokio::time::sleep(Duration::from_secs(POLL_SECONDS)).await;
                seen + 1
            }
        }
    }

    async fn lock(&self, path: &str) -> Result<Option<DiskLock>, DiskError> {
        self.blocking("lock", path, lock).await
    }

    fn place(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("cupcake-real-disk-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[tokio::test]
    async fn the_disk_of_the_machine_keeps_every_promise_of_a_disk() {
        let folder = folder("suite");
        super::super::disk_suite::suite(&RealDisk::below(&folder)).await;
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn two_who_replace_one_file_at_once_write_two_temporary_files() {
        let folder = folder("temporary");
        make_folder(&folder).unwrap();
        let path = folder.join("order.json");
        // What another process of the same number left or is about to write.
        let next = TEMPORARIES.load(Ordering::Relaxed);
        for number in next..next + 20 {
            let name = format!("order.json.{}-{number}{TEMPORARY}", std::process::id());
            fs::write(folder.join(name), b"theirs").unwrap();
        }
        let (first, _own) = temporary(&path).unwrap();
        let (second, _other) = temporary(&path).unwrap();
        assert_ne!(first, second);
        replace(&path, b"ours").unwrap();
        let theirs = fs::read_dir(&folder).unwrap().filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            fs::read(path).unwrap() == b"theirs"
        });
        assert_eq!(theirs.count(), 20);
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn what_a_crash_left_is_gone_once_the_lock_is_taken_and_whole_files_stay() {
        let folder = folder("leftovers");
        let disk = RealDisk::below(&folder);
        disk.replace("mailbox/order.json", b"{}").await.unwrap();
        for left in ["runner.json.1-0.tmp", "mailbox/order.json.tmp", "mailbox/order.json.1-7.tmp"] {
            fs::write(folder.join(left), b"half").unwrap();
        }
        disk.lock("runner.lock").await.unwrap().expect("it is free");
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&folder), ["mailbox", "runner.lock"]);
        assert_eq!(names(&folder.join("mailbox")), ["order.json"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_change_by_another_process_wakes_whoever_watches() {
        let folder = folder("watch");
        let (own, other) = (RealDisk::below(&folder), RealDisk::below(&folder));
        let seen = own.changed("mailbox", 0).await;
        let (count, written) = tokio::join!(own.changed("mailbox", seen), other.replace("mailbox/order.json", b"{}"));
        written.unwrap();
        assert!(count > seen);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_lock_is_held_against_another_process() {
        let folder = folder("lock");
        let (own, other) = (RealDisk::below(&folder), RealDisk::below(&folder));
        let held = own.lock("runner.lock").await.unwrap();
        assert!(held.is_some());
        assert!(other.lock("runner.lock").await.unwrap().is_none());
        drop(held);
        assert!(other.lock("runner.lock").await.unwrap().is_some());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_lock_and_its_folder_are_closed_to_others_however_they_came_into_being() {
        let folder = folder("lock-mode");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let disk = RealDisk::below(&folder);
        disk.lock("runner.lock").await.unwrap().expect("it is free");
        assert_eq!((mode(&folder), mode(&folder.join("runner.lock"))), (0o700, 0o600));
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.join("runner.lock"), Permissions::from_mode(0o644)).unwrap();
        disk.lock("runner.lock").await.unwrap().expect("it is free");
        assert_eq!((mode(&folder), mode(&folder.join("runner.lock"))), (0o700, 0o600));
        fs::remove_dir_all(&folder).unwrap();
    }
}
