//! Each pain of docs/pains.md that a simulated cluster can show, as what a user sees of it: tests/goldens/pains/NN-name.txt.
//!
//! A text begins with what somebody did, in comments; then come the answers of the cluster, in the words that kubectl and `kubectl
//! cupcake` have. `UPDATE_GOLDENS=1 cargo test -p cupcake-tests pains::` writes them anew; read the diff.
//!
//! ```text
//!  drains          1 to 6: what keeps a node from being emptied, and a node from being given back
//!  durable         7 to 11, 13: what dies, and what goes on
//!  control_plane   12, 15, 19 to 23: kubeadm, etcd and the order of it all
//!  machines        14, 16 to 18, 24, 25: what the checklist says before anything moves
//! ```
#![expect(clippy::disallowed_methods, reason = "a golden text is written anew where somebody asks for it")]

mod control_plane;
mod drains;
mod durable;
mod machines;
mod story;

use std::path::{Path, PathBuf};
use story::Story;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/pains")
}

/// Compares stories with their golden texts, or writes those anew.
fn as_in_the_golden_texts(stories: &[Story]) {
    let mut changed = Vec::new();
    for story in stories {
        let path = folder().join(story.file());
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, story.text()).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        if golden != story.text() {
            changed.push(format!("{}:\n{}", story.file(), story.text()));
        }
    }
    assert!(changed.is_empty(), "told otherwise; UPDATE_GOLDENS=1 takes this over:\n{}", changed.join("\n"));
}

#[test]
fn what_keeps_a_node_from_being_emptied_or_given_back_is_told_as_in_the_golden_texts() {
    as_in_the_golden_texts(&drains::stories());
}

#[test]
fn whatever_dies_in_an_update_is_told_as_in_the_golden_texts() {
    as_in_the_golden_texts(&durable::stories());
}

#[test]
fn what_kubeadm_and_etcd_make_of_a_control_plane_is_told_as_in_the_golden_texts() {
    as_in_the_golden_texts(&control_plane::stories());
}

#[test]
fn what_stands_in_the_way_on_machines_is_told_as_in_the_golden_texts() {
    as_in_the_golden_texts(&machines::stories());
}

#[test]
fn the_page_of_pains_leads_to_the_golden_text_of_each() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pains.md");
    let page = std::fs::read_to_string(page).unwrap();
    let files = std::fs::read_dir(folder()).unwrap();
    let mut files: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    for pain in 1..=25_u32 {
        let row = page.lines().find(|line| line.starts_with(&format!("| {pain} |"))).unwrap();
        let file = files.iter().find(|file| file.starts_with(&format!("{pain:02}-")));
        let file = file.unwrap_or_else(|| panic!("no text of pain {pain}"));
        let text = std::fs::read_to_string(folder().join(file)).unwrap();
        let title = text.lines().next().unwrap().trim_start_matches(&format!("# Pain {pain}. "));
        let link = format!("| {pain} | [{title}](../tests/goldens/pains/{file}) |");
        assert!(row.starts_with(&link), "the row of pain {pain} does not begin with {link}");
    }
    assert_eq!(files.len(), 25, "one text a pain: {files:?}");
}
