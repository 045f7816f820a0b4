//! Runs on the machine's disk: one journal file a run, appended to and fsynced before anything happens.
//!
//! ```text
//!  journal/<run>.log     00000312 9f86d081884c7d65 {"created":{"plan":…,"cursor":…}}
//!                        00000201 60303ae22b998861 {"commit":{"number":1,"epoch":3,"cursor":…,"events":[…]}}
//!                        bytes    checksum         one record a line
//! ```
//! A last line without an end is what a crash tore off: it was never acknowledged, and is cut by the next commit. Anything
//! else that does not read back is damage: the run is refused with the file and the place named. A journal that has grown
//! beyond [`JOURNAL_BYTES_MAX`] is replaced by its creation and its newest commit.

use async_trait::async_trait;
use cupcake_engine::codec;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use cupcake_engine::decide::{Intent, Limits};
use cupcake_engine::event::Event;
use cupcake_engine::names::{Epoch, RunName};
use cupcake_engine::plan::Plan;
use cupcake_engine::store::{Change, NewRun, RunStore, StoreError, StoredRun, Version};
use cupcake_steps::ports::disk::{DiskError, SharedDisk};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// The folder of the journals.
pub const FOLDER: &str = "journal";
/// How large a journal grows before it is replaced by its newest state, in bytes.
pub const JOURNAL_BYTES_MAX: usize = 128 * 1024;
/// The largest journal that is read: creation and newest commit of the largest order, and room.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// The largest record, in bytes.
const RECORD_BYTES_MAX: usize = 400 * 1024;
/// How many events survive the replacement of a journal.
const EVENTS_KEPT: usize = 32;
/// Digits of the length, a space, digits of the checksum, a space.
const HEAD_BYTES: usize = 8 + 1 + 16 + 1;

/// Why a journal cannot be used: a person must look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is damaged at byte {offset}: {why}; move it away and order again")]
pub struct Damage {
    /// The file, by its absolute path.
    pub path: String,
    /// Where in it.
    pub offset: usize,
    /// What is wrong there.
    pub why: String,
}

/// Keeps runs in journals on a disk.
///
/// # Assumptions
/// One process at a time writes (the runner's lock). Names of runs are never used again (they are digests of tokens of
/// orders), so the UID of a run is its name.
pub struct FileStore {
    disk: SharedDisk,
    /// Runs that are asked to end at their next safe point; the order in the mailbox keeps it, not the journal.
    cancelled: Mutex<BTreeSet<RunName>>,
    /// The journal that was read last: it is read several times a step, and most often nothing was added. The file counts: what is
    /// kept is used only where the file begins with the bytes that it was read from.
    last_read: Mutex<Option<(RunName, Arc<Journal>)>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Record {
    Created(Created),
    Commit(Commit),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    plan: Plan,
    cursor: String,
    concurrency: u32,
    failures_max: u32,
    backoff_base_seconds: u32,
    backoff_max_seconds: u32,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    number: u64,
    epoch: Epoch,
    cursor: String,
    events: Vec<Event>,
}

/// A journal as read.
#[derive(Clone)]
struct Journal {
    created: Created,
    digest: String,
    dag: Arc<Dag>,
    cursor: Cursor,
    /// Of the last commit, if there is one.
    number: Option<u64>,
    epoch: Epoch,
    events: Vec<Event>,
    /// The bytes up to the end of the last whole record.
    whole: Vec<u8>,
}

impl Journal {
    fn version(&self) -> Version {
        Version(self.number.unwrap_or(0).to_string())
    }
}

impl FileStore {
    /// The journals on that disk.
    pub fn on(disk: SharedDisk) -> Self {
        Self { disk, cancelled: Mutex::default(), last_read: Mutex::default() }
    }

    /// Lets a run end at its next safe point. Lasts as long as this store.
    pub fn cancel(&self, run: &RunName) {
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).insert(run.clone());
    }

    /// The events of a run in order; the oldest are gone once the journal was replaced.
    pub async fn events(&self, run: &RunName) -> Result<Vec<Event>, StoreError> {
        Ok(self.journal(run).await?.0.events.clone())
    }

    /// Removes a run. One that is not there is no error.
    pub async fn remove(&self, run: &RunName) -> Result<(), DiskError> {
        self.disk.remove(&path_of(run)).await
    }

    /// The journal of a run, and whether something torn stands behind its last whole record.
    async fn journal(&self, run: &RunName) -> Result<(Arc<Journal>, bool), StoreError> {
        let path = path_of(run);
        let bytes = self.disk.read(&path, READ_BYTES_MAX).await.map_err(|error| unavailable(run, error))?;
        let bytes = bytes.ok_or_else(|| StoreError::NotFound(run.clone()))?;
        let mut last_read = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last_read.take().and_then(|(of, journal)| (of == *run).then_some(journal));
        let journal = read(&self.disk.place(&path), &bytes, before)
            .map_err(|damage| StoreError::Corrupt { run: run.clone(), source: Box::new(damage) })?;
        *last_read = Some((run.clone(), Arc::clone(&journal)));
        let torn = journal.whole.len() < bytes.len();
        Ok((journal, torn))
    }
}

fn path_of(run: &RunName) -> String {
    format!("{FOLDER}/{run}.log")
}

fn unavailable(run: &RunName, error: DiskError) -> StoreError {
    StoreError::Unavailable { run: run.clone(), source: Box::new(error) }
}

fn checksum(json: &[u8]) -> String {
    let mut text = String::with_capacity(16);
    for byte in Sha256::digest(json).iter().take(8) {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

/// A record as a line; no JSON text holds a raw line break.
fn line_of(run: &RunName, record: &Record) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(record).expect("a record has string keys only, which always serialise");
    if json.len() > RECORD_BYTES_MAX {
        return Err(StoreError::TooLarge { run: run.clone(), bytes: json.len(), bytes_max: RECORD_BYTES_MAX });
    }
    let mut line = format!("{:08} {} ", json.len(), checksum(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn record_of(line: &[u8]) -> Result<Record, String> {
    if line.len() < HEAD_BYTES {
        return Err(format!("a record of {} bytes", line.len()));
    }
    let (head, json) = line.split_at(HEAD_BYTES);
    if head != format!("{:08} {} ", json.len(), checksum(json)).as_bytes() {
        return Err("length or checksum do not fit".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// The journal of these bytes. What was read before is not read again where they begin with it.
fn read(path: &str, bytes: &[u8], before: Option<Arc<Journal>>) -> Result<Arc<Journal>, Damage> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let bytes = &bytes[..whole];
    match before.filter(|known| bytes.starts_with(&known.whole)) {
        Some(known) if known.whole.len() == whole => Ok(known),
        Some(known) => Ok(Arc::new(extended(path, bytes, Arc::unwrap_or_clone(known))?)),
        None => Ok(Arc::new(extended(path, bytes, created(path, bytes)?)?)),
    }
}

/// A journal up to the end of its first record.
fn created(path: &str, bytes: &[u8]) -> Result<Journal, Damage> {
    let damage = |why: String| Damage { path: path.to_owned(), offset: 0, why };
    let first = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let record = if bytes.is_empty() { None } else { Some(record_of(&bytes[..first]).map_err(damage)?) };
    let Some(Record::Created(created)) = record else {
        return Err(damage("it does not begin with the run's creation".to_owned()));
    };
    let dag = created.plan.expand().map_err(|error| damage(error.to_string()))?;
    let digest = created.plan.digest();
    let cursor = codec::decode(&created.cursor, &digest, &dag).map_err(|error| damage(error.to_string()))?;
    Ok(Journal {
        dag: Arc::new(dag),
        cursor,
        digest,
        number: None,
        epoch: Epoch(0),
        events: Vec::new(),
        created,
        whole: bytes[..=first].to_vec(),
    })
}

/// A journal with the records that follow it in these bytes, which begin with it and end with a whole line.
fn extended(path: &str, bytes: &[u8], mut journal: Journal) -> Result<Journal, Damage> {
    let damage = |offset: usize, why: String| Damage { path: path.to_owned(), offset, why };
    let mut offset = journal.whole.len();
    let mut cursor = None;
    while let Some(length) = bytes[offset..].iter().position(|&byte| byte == b'\n') {
        match record_of(&bytes[offset..offset + length]).map_err(|why| damage(offset, why))? {
            Record::Created(_) => return Err(damage(offset, "a second creation".to_owned())),
            Record::Commit(commit) => {
                if journal.number.is_some_and(|last| commit.number != last + 1) {
                    return Err(damage(offset, format!("commit {} is out of order", commit.number)));
                }
                journal.number = Some(commit.number);
                journal.epoch = commit.epoch;
                journal.events.extend(commit.events);
                cursor = Some(commit.cursor);
            }
        }
        offset += length + 1;
    }
    if let Some(text) = cursor {
        journal.cursor =
            codec::decode(&text, &journal.digest, &journal.dag).map_err(|error| damage(offset, error.to_string()))?;
    }
    journal.whole.extend_from_slice(&bytes[journal.whole.len()..offset]);
    Ok(journal)
}

#[async_trait]
impl RunStore for FileStore {
    async fn create(&self, run: &NewRun) -> Result<(), StoreError> {
        match self.journal(&run.name).await {
            Ok((journal, _)) if journal.created.plan == *run.plan => return Ok(()),
            Ok(_) => return Err(StoreError::Conflict(run.name.clone())),
            Err(StoreError::NotFound(_)) => {}
            Err(
                error @ (StoreError::Conflict(_)
                | StoreError::Fenced { .. }
                | StoreError::TooLarge { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Unavailable { .. }),
            ) => return Err(error),
        }
        let corrupt = |error| StoreError::Corrupt { run: run.name.clone(), source: Box::new(error) };
        let dag = run.plan.expand().map_err(corrupt)?;
        let created = Created {
            plan: (*run.plan).clone(),
            cursor: codec::encode(&run.cursor, &dag),
            concurrency: run.limits.concurrency,
            failures_max: run.limits.failures_max,
            backoff_base_seconds: run.limits.backoff_base_seconds,
            backoff_max_seconds: run.limits.backoff_max_seconds,
        };
        let line = line_of(&run.name, &Record::Created(created))?;
        self.disk.replace(&path_of(&run.name), &line).await.map_err(|error| unavailable(&run.name, error))
    }

    async fn load(&self, run: &RunName) -> Result<StoredRun, StoreError> {
        let (journal, _) = self.journal(run).await?;
        let cancel = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).contains(run);
        Ok(StoredRun {
            name: run.clone(),
            uid: run.to_string(),
            dag: Arc::clone(&journal.dag),
            cursor: journal.cursor.clone(),
            version: journal.version(),
            epoch: journal.epoch,
            limits: Limits {
                concurrency: journal.created.concurrency,
                failures_max: journal.created.failures_max,
                backoff_base_seconds: journal.created.backoff_base_seconds,
                backoff_max_seconds: journal.created.backoff_max_seconds,
            },
            intent: Intent { cancel, ..Intent::default() },
        })
    }

    async fn commit(
        &self,
        run: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError> {
        let (journal, torn) = self.journal(run).await?;
        if epoch < journal.epoch {
            return Err(StoreError::Fenced { run: run.clone(), current: journal.epoch, own: epoch });
        }
        if *expected != journal.version() {
            return Err(StoreError::Conflict(run.clone()));
        }
        let number = journal.number.unwrap_or(0) + 1;
        let mut commit = Commit {
            number,
            epoch,
            cursor: codec::encode(&change.cursor, &journal.dag),
            events: change.events.clone(),
        };
        let path = path_of(run);
        let line = line_of(run, &Record::Commit(commit.clone()))?;
        let written = if journal.whole.len() + line.len() > JOURNAL_BYTES_MAX {
            let mut events = journal.events.clone();
            events.append(&mut commit.events);
            commit.events = events.split_off(events.len().saturating_sub(EVENTS_KEPT));
            let mut content = line_of(run, &Record::Created(journal.created.clone()))?;
            content.extend(line_of(run, &Record::Commit(commit))?);
            self.disk.replace(&path, &content).await
        } else {
            let whole = journal.whole.len() as u64;
            if torn {
                self.disk.truncate(&path, whole).await.map_err(|error| unavailable(run, error))?;
            }
            let appended = self.disk.append(&path, &line).await;
            if appended.is_err() {
                // It may stand there whole and yet not be durable: take it back, so that nobody acts on it. If that fails
                // too, the next load shows what stands there.
                let _ = self.disk.truncate(&path, whole).await;
            }
            appended
        };
        written.map_err(|error| unavailable(run, error))?;
        Ok(Version(number.to_string()))
    }

    async fn list(&self) -> Result<Vec<RunName>, StoreError> {
        let unlisted = |error| {
            let run = RunName::new(FOLDER).expect("a plain word is a run name");
            unavailable(&run, error)
        };
        let files = self.disk.list(FOLDER).await.map_err(unlisted)?;
        Ok(files.iter().filter_map(|file| RunName::new(file.strip_suffix(".log")?).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::conformance::faults::suite_under_faults;
    use cupcake_engine::conformance::{sample_run, suite};
    use cupcake_engine::names::{CommitId, StepKind, VertexName};
    use cupcake_engine::plan::VertexTemplate;
    use cupcake_steps::ports::memory_disk::{Crash, MemoryDisk};
    use futures::executor::block_on;
    use futures::future::select;

    fn started(run: &StoredRun, attempt_failed_before: u32) -> Change {
        let mut cursor = run.cursor.clone();
        let event = Event::Started {
            vertex: VertexName::new("first").unwrap(),
            attempt: attempt_failed_before + 1,
            at: cursor.clock(),
        };
        cursor.apply(&event).unwrap();
        cursor.stamp(CommitId { epoch: Epoch(3), sequence: run.cursor.commit_id().sequence + 1 });
        Change { events: vec![event], cursor }
    }

    fn created(disk: &MemoryDisk) -> (FileStore, RunName) {
        let store = FileStore::on(Arc::new(disk.clone()));
        let run = sample_run("order-1");
        block_on(store.create(&run)).unwrap();
        (store, run.name)
    }

    #[test]
    fn the_file_store_keeps_every_promise_of_a_store() {
        block_on(suite(&FileStore::on(Arc::new(MemoryDisk::new()))));
    }

    #[test]
    fn the_file_store_keeps_its_promises_whatever_call_fails_and_however() {
        let faults = block_on(suite_under_faults(async || FileStore::on(Arc::new(MemoryDisk::new()))));
        assert!(faults > 80, "{faults} faults");
    }

    #[test]
    fn a_record_that_is_too_large_is_refused_before_it_is_written_and_the_run_stays_as_it_was() {
        let disk = MemoryDisk::new();
        let store = FileStore::on(Arc::new(disk.clone()));
        let is_refused = |error: &StoreError| matches!(error, StoreError::TooLarge { bytes, bytes_max: RECORD_BYTES_MAX, .. } if *bytes > RECORD_BYTES_MAX);
        let words = serde_json::Value::from("x".repeat(RECORD_BYTES_MAX));
        let mut large = sample_run("order-large");
        let kind = StepKind::new("noop/v1").unwrap();
        Arc::make_mut(&mut large.plan).vertex(VertexTemplate::new("third", kind, words.clone(), &[]));
        let error = block_on(store.create(&large)).unwrap_err();
        assert!(is_refused(&error), "{error}");
        assert_eq!((disk.writes(), block_on(store.list()).unwrap()), (0, Vec::new()), "nothing was written");

        let (store, name) = created(&disk);
        let run = block_on(store.load(&name)).unwrap();
        let before = (disk.writes(), disk.content(&path_of(&name)));
        let mut change = started(&run, 0);
        let event = Event::Succeeded {
            vertex: VertexName::new("first").unwrap(),
            attempt: 1,
            output: words,
            at: run.cursor.clock(),
        };
        change.cursor.apply(&event).unwrap();
        change.events.push(event);
        let error = block_on(store.commit(&name, Epoch(3), &run.version, &change)).unwrap_err();
        assert!(is_refused(&error), "{error}");
        assert_eq!((disk.writes(), disk.content(&path_of(&name))), before, "nothing was written");
        block_on(store.commit(&name, Epoch(3), &run.version, &started(&run, 0))).unwrap();
    }

    #[test]
    fn a_commit_that_a_crash_tore_off_never_happened_and_the_next_one_does() {
        for (how, happened) in [(Crash::Before, false), (Crash::Torn, false), (Crash::After, true)] {
            let disk = MemoryDisk::new();
            let (store, name) = created(&disk);
            let run = block_on(store.load(&name)).unwrap();
            let change = started(&run, 0);
            disk.crash_at(disk.writes() + 1, how);
            let commit = store.commit(&name, Epoch(3), &run.version, &change);
            block_on(select(commit, Box::pin(disk.until_crash())));
            disk.restart();
            let store = FileStore::on(Arc::new(disk.clone()));
            let after = block_on(store.load(&name)).unwrap();
            assert_eq!(after.cursor == change.cursor, happened, "{how:?}");
            if !happened {
                block_on(store.commit(&name, Epoch(3), &after.version, &change)).unwrap();
                assert_eq!(block_on(store.load(&name)).unwrap().cursor, change.cursor, "{how:?}");
            }
        }
    }

    #[test]
    fn a_full_disk_leaves_the_run_as_it_was_and_says_that_it_may_work_later() {
        let disk = MemoryDisk::new();
        let (store, name) = created(&disk);
        let run = block_on(store.load(&name)).unwrap();
        disk.fill();
        let error = block_on(store.commit(&name, Epoch(3), &run.version, &started(&run, 0))).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert_eq!(block_on(store.load(&name)).unwrap().cursor, run.cursor);
        disk.free();
        block_on(store.commit(&name, Epoch(3), &run.version, &started(&run, 0))).unwrap();
    }

    #[test]
    fn a_damaged_journal_is_refused_with_its_file_and_place_named() {
        let disk = MemoryDisk::new();
        let (store, name) = created(&disk);
        let run = block_on(store.load(&name)).unwrap();
        block_on(store.commit(&name, Epoch(3), &run.version, &started(&run, 0))).unwrap();
        let path = path_of(&name);
        let whole = disk.content(&path).unwrap();
        for position in [30, whole.len() - 10] {
            let mut bytes = whole.clone();
            bytes[position] ^= 1;
            disk.put(&path, &bytes);
            let error = block_on(store.load(&name)).unwrap_err();
            assert!(
                matches!(&error, StoreError::Corrupt { source, .. } if source.to_string().contains(&path)),
                "{error}"
            );
        }
        disk.put(&path, b"");
        assert!(matches!(block_on(store.load(&name)), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn a_journal_that_grew_too_large_is_replaced_by_its_newest_state() {
        let disk = MemoryDisk::new();
        let (store, name) = created(&disk);
        let mut largest = 0;
        for commit in 0..2_000_u64 {
            let run = block_on(store.load(&name)).unwrap();
            let mut cursor = run.cursor.clone();
            cursor.stamp(CommitId { epoch: Epoch(3), sequence: commit + 1 });
            let change = Change { events: Vec::new(), cursor };
            block_on(store.commit(&name, Epoch(3), &run.version, &change)).unwrap();
            largest = largest.max(disk.content(&path_of(&name)).unwrap().len());
        }
        assert!(largest <= JOURNAL_BYTES_MAX, "{largest}");
        let run = block_on(store.load(&name)).unwrap();
        assert_eq!((run.version, run.cursor.commit_id().sequence), (Version("2000".to_owned()), 2_000));
    }
}
