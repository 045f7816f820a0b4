//! A disk that forgets epochs: what a machine reads that remembers no leader but the one whose order it works on.

use cupcake_host::memory;
use serde_json::{Value, json};

const ORDER: &str = "mailbox/order.json";
const ANSWER: &str = "mailbox/answer.json";

/// What the runner's memory and an order that is over read like without their epochs; `read` gives other files of the disk.
/// `None` where nothing is forgotten.
pub(super) fn forgotten(path: &str, content: &[u8], read: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut file: Value = serde_json::from_slice(content).ok()?;
    match path {
        memory::PATH => file["epoch"] = json!(0),
        // An order that is open is compared with itself: what is forgotten is what the next one is compared with.
        ORDER => {
            let answer: Value = serde_json::from_slice(&read(ANSWER)?).ok()?;
            let answer = &answer["content"];
            let order = &mut file["content"]["order"];
            let is_final = matches!(answer["state"].as_str(), Some("Done" | "Failed" | "Refused" | "Stopped"));
            if !is_final || answer["key"] != order["key"] {
                return None;
            }
            order["epoch"] = json!(0);
        }
        _ => return None,
    }
    serde_json::to_vec(&file).ok()
}
