//! The mailbox: a folder of four files through which a node's agent and its runner talk.
//!
//! ```text
//!   agent ── order.json, inventory-request.json ──► runner
//!   agent ◄── answer.json, inventory.json ───────── runner        stop.json: a person on the machine ──► runner
//! ```
//! Each file has one writer, who replaces it whole. What the API server enforces on a NodeTask is enforced here again: an
//! order stays until it is answered, its epoch never goes back, a final answer stands.

use crate::ports::disk::{Disk, DiskError};
use cupcake_crds::node_task::{NodeInventory, Order, TaskError, TaskState, TaskWait};
use cupcake_crds::values::{NodeRef, OrderKey};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::RunName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The folder of the mailbox.
pub const FOLDER: &str = "mailbox";
/// The format of the files that this release writes; newer ones are refused.
pub const FORMAT: u32 = 1;
/// The largest order, in bytes of JSON; a NodeTask is kept below 4 kB.
pub const ORDER_BYTES_MAX: usize = 64 * 1024;
/// The largest other file, in bytes of JSON.
pub const OTHER_BYTES_MAX: usize = 32 * 1024;
/// The longest name of an inventory request, in characters, as in the schema of NodeTask.
pub const REQUEST_CHARS_MAX: usize = 128;

const ORDER: &str = "mailbox/order.json";
const ANSWER: &str = "mailbox/answer.json";
const INVENTORY_REQUEST: &str = "mailbox/inventory-request.json";
const INVENTORY: &str = "mailbox/inventory.json";
const STOP: &str = "mailbox/stop.json";

/// An order as it lies in the mailbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailOrder {
    /// The node that it is for.
    pub node: NodeRef,
    /// The order.
    pub order: Order,
}

/// How far an order is, as the runner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// A step is at work.
    Working,
    /// The first part is done; waits for `proceed`.
    Prepared,
    /// All of it is done.
    Done,
    /// A step failed for good, or the order took too long.
    Failed {
        /// Why.
        error: TaskError,
    },
    /// It was not taken; nothing was done.
    Refused {
        /// Why.
        error: TaskError,
    },
    /// It stopped between two steps because it was asked to.
    Stopped,
}

impl Verdict {
    /// The state that the NodeTask shows for it.
    pub const fn state(&self) -> TaskState {
        match self {
            Self::Working => TaskState::Working,
            Self::Prepared => TaskState::Prepared,
            Self::Done => TaskState::Done,
            Self::Failed { .. } => TaskState::Failed,
            Self::Refused { .. } => TaskState::Refused,
            Self::Stopped => TaskState::Stopped,
        }
    }

    /// What went wrong, if something did.
    pub const fn error(&self) -> Option<&TaskError> {
        match self {
            Self::Failed { error } | Self::Refused { error } => Some(error),
            Self::Working | Self::Prepared | Self::Done | Self::Stopped => None,
        }
    }
}

/// What the runner says about an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The order that it answers.
    pub key: OrderKey,
    /// How far it is.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The step under way, or the one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When that step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_since: Option<Timestamp>,
    /// What happens, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why the step under way waits, if people should see that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<TaskWait>,
    /// What the steps found out: `<step>.<field>` to text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Boot id of the machine: tells a reboot from a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// When it was written.
    pub at: Timestamp,
}

/// Why the mailbox did not give or take something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// The disk failed: it may work another time.
    #[error("mailbox cannot be reached")]
    Disk(#[from] DiskError),
    /// A file holds what nobody here wrote: a person must look.
    #[error("{path} is damaged: {why}; move it away and order again")]
    Malformed {
        /// The file.
        path: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file of a newer release.
    #[error("{path} has format {found}, this release reads up to {FORMAT}: run agent and runner of one release")]
    NewerFormat {
        /// The file.
        path: &'static str,
        /// Its format.
        found: u32,
    },
    /// What is to be written does not fit.
    #[error("{path} would have {bytes} bytes, {bytes_max} are allowed")]
    TooLarge {
        /// The file.
        path: &'static str,
        /// Its size.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// An order of an older leader.
    #[error("order of epoch {own} is refused: the mailbox has seen epoch {current}")]
    EpochBack {
        /// Epoch of the order.
        own: u64,
        /// Highest epoch seen.
        current: u64,
    },
    /// The order that lies there is not answered yet.
    #[error("order {0} lies in the mailbox and is not answered yet: ask it to stop, or wait")]
    Occupied(OrderKey),
    /// Other content under the same token, or a request withdrawn.
    #[error("order {0} cannot be changed but for a newer epoch, proceed and stop")]
    Changed(OrderKey),
    /// An answer to an order that does not lie there.
    #[error("answer to order {0} is refused: another order lies in the mailbox")]
    NotAsked(OrderKey),
    /// The order has its final answer.
    #[error("order {0} is answered for good")]
    Answered(OrderKey),
}

/// The name of the run that works on an order: the same for the same token, of no other one.
pub fn run_name(key: &OrderKey) -> RunName {
    let digest = Sha256::digest(format!("{}\n{}\n{}", key.run_uid, key.vertex, key.attempt));
    let mut name = "order-".to_owned();
    for byte in digest.iter().take(10) {
        write!(name, "{byte:02x}").expect("a String takes everything");
    }
    RunName::new(name).expect("lower-case hex digits make a run name")
}

/// The mailbox in a disk's folder.
#[derive(Clone, Copy)]
pub struct Mailbox<'d> {
    disk: &'d dyn Disk,
}

impl<'d> Mailbox<'d> {
    /// The mailbox on that disk.
    pub fn on(disk: &'d dyn Disk) -> Self {
        Self { disk }
    }

    /// The order that lies there.
    pub async fn order(&self) -> Result<Option<MailOrder>, MailboxError> {
        self.read(ORDER, ORDER_BYTES_MAX).await
    }

    /// Puts an order there; the agent's.
    ///
    /// # Errors
    /// [`MailboxError::EpochBack`], [`MailboxError::Occupied`] and [`MailboxError::Changed`] where the API server would
    /// have refused it too. The same order again changes nothing.
    pub async fn put_order(&self, new: &MailOrder) -> Result<(), MailboxError> {
        if let Some(old) = self.order().await? {
            if old == *new {
                return Ok(());
            }
            if new.order.epoch < old.order.epoch {
                return Err(MailboxError::EpochBack { own: new.order.epoch, current: old.order.epoch });
            }
            if new.order.key == old.order.key {
                let mut asked = old.clone();
                asked.order.epoch = new.order.epoch;
                asked.order.proceed |= new.order.proceed;
                asked.order.stop |= new.order.stop;
                if asked != *new {
                    return Err(MailboxError::Changed(new.order.key.clone()));
                }
            } else if !self.is_answered(&old.order.key).await? {
                return Err(MailboxError::Occupied(old.order.key));
            }
        }
        self.write(ORDER, ORDER_BYTES_MAX, new).await
    }

    /// The runner's last answer.
    pub async fn answer(&self) -> Result<Option<Answer>, MailboxError> {
        self.read(ANSWER, OTHER_BYTES_MAX).await
    }

    /// Puts an answer there; the runner's.
    ///
    /// # Errors
    /// [`MailboxError::NotAsked`] if another order lies there, [`MailboxError::Answered`] if a final answer does.
    pub async fn put_answer(&self, new: &Answer) -> Result<(), MailboxError> {
        if self.order().await?.is_none_or(|mail| mail.order.key != new.key) {
            return Err(MailboxError::NotAsked(new.key.clone()));
        }
        if self.is_answered(&new.key).await? {
            return Err(MailboxError::Answered(new.key.clone()));
        }
        self.write(ANSWER, OTHER_BYTES_MAX, new).await
    }

    /// Whether that order has its final answer.
    pub async fn is_answered(&self, key: &OrderKey) -> Result<bool, MailboxError> {
        let answer = self.answer().await?;
        Ok(answer.is_some_and(|answer| answer.key == *key && answer.verdict.state().is_final()))
    }

    /// Name of the inventory that is asked for.
    pub async fn inventory_request(&self) -> Result<Option<String>, MailboxError> {
        let request: Option<Request> = self.read(INVENTORY_REQUEST, OTHER_BYTES_MAX).await?;
        Ok(request.map(|request| request.request))
    }

    /// Asks for an inventory of that name; the agent's.
    pub async fn put_inventory_request(&self, request: &str) -> Result<(), MailboxError> {
        let request = request.chars().take(REQUEST_CHARS_MAX).collect();
        self.write(INVENTORY_REQUEST, OTHER_BYTES_MAX, &Request { request }).await
    }

    /// The last inventory; its `request` says which one was asked for.
    pub async fn inventory(&self) -> Result<Option<NodeInventory>, MailboxError> {
        self.read(INVENTORY, OTHER_BYTES_MAX).await
    }

    /// Puts an inventory there; the runner's.
    pub async fn put_inventory(&self, inventory: &NodeInventory) -> Result<(), MailboxError> {
        self.write(INVENTORY, OTHER_BYTES_MAX, inventory).await
    }

    /// The order that a person on the machine asked to stop.
    pub async fn local_stop(&self) -> Result<Option<OrderKey>, MailboxError> {
        self.read(STOP, OTHER_BYTES_MAX).await
    }

    /// Asks that order to stop at its next safe point, on the machine itself.
    pub async fn put_local_stop(&self, key: &OrderKey) -> Result<(), MailboxError> {
        self.write(STOP, OTHER_BYTES_MAX, key).await
    }

    /// Takes everything out of it. The order goes first: one without its answer would be worked on anew.
    pub async fn clear(&self) -> Result<(), MailboxError> {
        for path in [ORDER, ANSWER, STOP, INVENTORY_REQUEST, INVENTORY] {
            self.disk.remove(path).await?;
        }
        Ok(())
    }

    async fn read<T: DeserializeOwned>(&self, path: &'static str, bytes_max: usize) -> Result<Option<T>, MailboxError> {
        let Some(bytes) = self.disk.read(path, bytes_max).await? else {
            return Ok(None);
        };
        let malformed = |error: serde_json::Error| MailboxError::Malformed { path, why: error.to_string() };
        let header: Header = serde_json::from_slice(&bytes).map_err(malformed)?;
        if header.format > FORMAT {
            return Err(MailboxError::NewerFormat { path, found: header.format });
        }
        let envelope: Envelope<T> = serde_json::from_slice(&bytes).map_err(malformed)?;
        Ok(Some(envelope.content))
    }

    async fn write<T: Serialize + Sync>(
        &self,
        path: &'static str,
        bytes_max: usize,
        content: &T,
    ) -> Result<(), MailboxError> {
        let envelope = Envelope { format: FORMAT, content };
        let bytes =
            serde_json::to_vec(&envelope).map_err(|error| MailboxError::Malformed { path, why: error.to_string() })?;
        if bytes.len() > bytes_max {
            return Err(MailboxError::TooLarge { path, bytes: bytes.len(), bytes_max });
        }
        Ok(self.disk.replace(path, &bytes).await?)
    }
}

#[derive(Deserialize)]
struct Header {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    content: T,
}

#[derive(Serialize, Deserialize)]
struct Request {
    request: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::memory_disk::MemoryDisk;
    use chrono::DateTime;
    use cupcake_crds::values::KubeVersion;
    use futures::executor::block_on;

    fn mail(attempt: u32, epoch: u64) -> MailOrder {
        let order = Order {
            deadline_seconds: 600,
            epoch,
            finish: Vec::new(),
            key: OrderKey { run_uid: "run".into(), vertex: "w-1/prepare".into(), attempt },
            prepare: Vec::new(),
            proceed: false,
            stop: false,
            target_version: KubeVersion::new(1, 34, 4),
            traceparent: None,
        };
        MailOrder { node: NodeRef { name: "w-1".into(), uid: "node".into() }, order }
    }

    fn answer(attempt: u32, verdict: Verdict) -> Answer {
        Answer {
            key: mail(attempt, 3).order.key,
            verdict,
            step: None,
            step_since: None,
            message: None,
            waiting: None,
            outputs: BTreeMap::new(),
            boot_id: None,
            at: DateTime::UNIX_EPOCH,
        }
    }

    fn refused(mail: &MailOrder) -> TaskError {
        TaskError {
            class: cupcake_crds::node_task::ErrorClass::Transient,
            code: "StaleEpoch".into(),
            message: mail.order.key.to_string(),
        }
    }

    #[test]
    fn what_is_put_there_is_what_is_read_there() {
        let disk = MemoryDisk::new();
        let mailbox = Mailbox::on(&disk);
        assert_eq!(block_on(mailbox.order()), Ok(None));
        block_on(mailbox.put_order(&mail(1, 3))).unwrap();
        assert_eq!(block_on(mailbox.order()), Ok(Some(mail(1, 3))));
        let verdicts = [Verdict::Working, Verdict::Prepared, Verdict::Refused { error: refused(&mail(1, 3)) }];
        for verdict in verdicts {
            block_on(mailbox.put_answer(&answer(1, verdict.clone()))).unwrap();
            assert_eq!(block_on(mailbox.answer()), Ok(Some(answer(1, verdict))));
        }
        block_on(mailbox.put_inventory_request("created")).unwrap();
        assert_eq!(block_on(mailbox.inventory_request()), Ok(Some("created".into())));
        block_on(mailbox.put_local_stop(&mail(1, 3).order.key)).unwrap();
        assert_eq!(block_on(mailbox.local_stop()), Ok(Some(mail(1, 3).order.key)));
    }

    #[test]
    fn an_order_stays_until_it_is_answered_and_no_epoch_goes_back() {
        let disk = MemoryDisk::new();
        let mailbox = Mailbox::on(&disk);
        block_on(mailbox.put_order(&mail(1, 3))).unwrap();
        assert_eq!(block_on(mailbox.put_order(&mail(2, 3))), Err(MailboxError::Occupied(mail(1, 3).order.key)));
        block_on(mailbox.put_answer(&answer(1, Verdict::Prepared))).unwrap();
        assert_eq!(block_on(mailbox.put_order(&mail(2, 3))), Err(MailboxError::Occupied(mail(1, 3).order.key)));
        block_on(mailbox.put_answer(&answer(1, Verdict::Done))).unwrap();
        let back = MailboxError::EpochBack { own: 2, current: 3 };
        assert_eq!(block_on(mailbox.put_order(&mail(2, 2))), Err(back.clone()));
        assert_eq!(block_on(mailbox.put_order(&mail(1, 2))), Err(back));
        block_on(mailbox.put_order(&mail(2, 3))).unwrap();
    }

    #[test]
    fn under_one_key_only_requests_and_a_newer_epoch_are_taken() {
        let disk = MemoryDisk::new();
        let mailbox = Mailbox::on(&disk);
        block_on(mailbox.put_order(&mail(1, 3))).unwrap();
        let mut proceed = mail(1, 4);
        proceed.order.proceed = true;
        block_on(mailbox.put_order(&proceed)).unwrap();
        let changed = Err(MailboxError::Changed(proceed.order.key.clone()));
        assert_eq!(block_on(mailbox.put_order(&mail(1, 4))), changed, "proceed withdrawn");
        let mut other = proceed.clone();
        other.order.deadline_seconds = 1;
        assert_eq!(block_on(mailbox.put_order(&other)), changed, "other content");
        assert_eq!(block_on(mailbox.order()), Ok(Some(proceed)));
    }

    #[test]
    fn an_answer_counts_only_to_the_order_that_lies_there_and_a_final_one_stands() {
        let disk = MemoryDisk::new();
        let mailbox = Mailbox::on(&disk);
        let not_asked = |attempt| Err(MailboxError::NotAsked(mail(attempt, 3).order.key));
        assert_eq!(block_on(mailbox.put_answer(&answer(1, Verdict::Done))), not_asked(1));
        block_on(mailbox.put_order(&mail(1, 3))).unwrap();
        assert_eq!(block_on(mailbox.put_answer(&answer(2, Verdict::Done))), not_asked(2));
        block_on(mailbox.put_answer(&answer(1, Verdict::Stopped))).unwrap();
        let stands = Err(MailboxError::Answered(mail(1, 3).order.key));
        assert_eq!(block_on(mailbox.put_answer(&answer(1, Verdict::Done))), stands);
    }

    #[test]
    fn a_file_that_nobody_here_wrote_is_refused_by_name() {
        let disk = MemoryDisk::new();
        let mailbox = Mailbox::on(&disk);
        for bad in ["", "{", r#"{"format":1}"#, r#"{"format":1,"content":{"node":{}}}"#] {
            disk.put(ORDER, bad.as_bytes());
            let error = block_on(mailbox.order()).unwrap_err();
            assert!(matches!(error, MailboxError::Malformed { .. }) && error.to_string().contains(ORDER), "{error}");
        }
        disk.put(ORDER, br#"{"format":2,"content":{"new":true}}"#);
        assert_eq!(block_on(mailbox.order()), Err(MailboxError::NewerFormat { path: ORDER, found: 2 }));
        disk.put(ORDER, &vec![b' '; ORDER_BYTES_MAX + 1]);
        assert!(matches!(block_on(mailbox.order()), Err(MailboxError::Disk(_))));
        let mut large = answer(1, Verdict::Working);
        large.message = Some("x".repeat(OTHER_BYTES_MAX));
        disk.put(ORDER, b"");
        let disk = MemoryDisk::new();
        let mailbox = Mailbox::on(&disk);
        block_on(mailbox.put_order(&mail(1, 3))).unwrap();
        assert!(matches!(block_on(mailbox.put_answer(&large)), Err(MailboxError::TooLarge { .. })));
    }

    #[test]
    fn orders_have_runs_of_their_own() {
        let key = |run: &str, vertex: &str, attempt| OrderKey { run_uid: run.into(), vertex: vertex.into(), attempt };
        let keys = [key("a", "b", 1), key("a", "b", 2), key("a", "c", 1), key("b", "b", 1), key("a", "b\n1", 1)];
        let names: std::collections::BTreeSet<_> = keys.iter().map(run_name).collect();
        assert_eq!(names.len(), keys.len());
        assert_eq!(run_name(&keys[0]), run_name(&keys[0].clone()));
    }
}
