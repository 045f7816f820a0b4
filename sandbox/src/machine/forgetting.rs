//! Disks that forget epochs: what a machine reads that remembers no leader but the one whose order it works on.

use cupcake_host::memory;
use serde_json::{Value, json};

const ORDER: &str = "mailbox/order.json";
const ANSWER: &str = "mailbox/answer.json";

/// What on a disk remembers an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remembered {
    /// The order in the mailbox: the agent's.
    Order,
    /// What the runner remembers from one order to the next.
    Memory,
}

impl Remembered {
    /// What the file of that path remembers.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            ORDER => Some(Self::Order),
            memory::PATH => Some(Self::Memory),
            _other => None,
        }
    }
}

/// What the runner's memory, or an order that is over, reads like without its epoch; `read` gives other files of the disk. `None`
/// where nothing is forgotten.
pub(super) fn forgotten(of: Remembered, content: &[u8], read: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut file: Value = serde_json::from_slice(content).ok()?;
    match of {
        Remembered::Memory => file["epoch"] = json!(0),
        // An order that is open is compared with itself: what is forgotten is what the next one is compared with.
        Remembered::Order => {
            let answer: Value = serde_json::from_slice(&read(ANSWER)?).ok()?;
            let answer = &answer["content"];
            let order = &mut file["content"]["order"];
            let is_final = matches!(answer["state"].as_str(), Some("Done" | "Failed" | "Refused" | "Stopped"));
            if !is_final || answer["key"] != order["key"] {
                return None;
            }
            order["epoch"] = json!(0);
        }
    }
    serde_json::to_vec(&file).ok()
}
