//! The suite that every [`Disk`] passes: the one in memory and the one of the machine.

use super::disk::Disk;

/// Runs every check on an empty disk.
///
/// # Panics
/// When the disk breaks a promise.
pub async fn suite(disk: &dyn Disk) {
    assert_eq!(disk.read("none", 10).await.expect("a missing file can be asked for"), None, "a missing file is None");
    assert!(disk.list("none").await.expect("a missing folder can be listed").is_empty(), "a missing folder is empty");
    disk.remove("none").await.expect("removing what is not there is no error");

    disk.replace("folder/a.json", b"one").await.expect("a file comes into being with its folder");
    disk.replace("folder/a.json", b"second").await.expect("a file can be replaced");
    let read = disk.read("folder/a.json", 6).await.expect("a file can be read");
    assert_eq!(read.as_deref(), Some(b"second".as_slice()), "a file holds what was written last");
    assert!(disk.read("folder/a.json", 5).await.is_err(), "a file beyond the limit is refused");

    disk.append("folder/log", b"ab").await.expect("an append makes the file");
    disk.append("folder/log", b"cd").await.expect("an append adds");
    disk.truncate("folder/log", 3).await.expect("a file can be cut");
    let read = disk.read("folder/log", 9).await.expect("a file can be read");
    assert_eq!(read.as_deref(), Some(b"abc".as_slice()), "appends add up and a cut keeps the beginning");

    disk.replace("folder/inner/b.json", b"").await.expect("folders nest");
    assert_eq!(disk.list("folder").await.expect("listed"), ["a.json", "log"], "only files, sorted, no leftovers");

    let seen = disk.changed("folder", 0).await;
    assert!(seen > 0, "a count begins above 0");
    disk.replace("folder/a.json", b"third").await.expect("a file can be replaced");
    assert!(disk.changed("folder", seen).await > seen, "a write after the last look is a change");

    disk.remove("folder/a.json").await.expect("a file can be removed");
    assert_eq!(disk.read("folder/a.json", 10).await.expect("read"), None, "a removed file is gone");

    let held = disk.lock("lock").await.expect("a lock can be taken");
    assert!(held.is_some(), "a free lock is given");
    assert!(disk.lock("lock").await.expect("asked").is_none(), "a held lock is not given twice");
    drop(held);
    assert!(disk.lock("lock").await.expect("asked").is_some(), "a dropped lock is free");

    for bad in ["", "/etc/passwd", "../up", "a/../b", "a//b", "."] {
        assert!(disk.read(bad, 10).await.is_err(), "path {bad:?} is refused");
    }
}
