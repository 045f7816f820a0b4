//! Whether etcd 3.6 would find on this machine's disk what etcd 3.5 goes by.
//!
//! etcd 3.5 goes by its old store (v2), which lies in files of its own beside the database; 3.6 goes by the database alone, and does not
//! start where the old store has more than members. Where the two differ, members that were removed come back, or lose their vote.
//! Source: etcd.io, "Upgrade etcd from 3.5 to 3.6", and its blog of 2025, "Avoiding Zombie Cluster Members When Upgrading to etcd v3.6".

use super::bolt;
use super::client::Member;
use super::messages::ListedMember;
use crate::real::RealHost;
use cupcake_crds::limits::{ETCD_DOUBT_CHARS_MAX, ETCD_DOUBTS_MAX, cut};
use cupcake_crds::values::{EtcdDoubt, EtcdDoubtKind};
use prost::Message;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// How long the local member may take to list the members.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// The largest file of the old store that is read: with members alone it has a few kB.
const OLD_STORE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Where etcd's data lies if its manifest does not say: kubeadm's default.
const DATA: &str = "/var/lib/etcd";

/// A member as the database has it.
#[derive(Debug, Deserialize)]
struct StoredMember {
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "isLearner")]
    learner: bool,
}

/// A file of snap/: raft's snapshot in an envelope. Source: etcd server/etcdserver/api/snap/snappb/snap.proto and raft/raftpb/raft.proto.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

/// Raft's snapshot; its data is the old store as JSON.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct RaftSnapshot {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

/// The old store.
#[derive(Debug, Deserialize)]
struct OldStore {
    #[serde(rename = "Root")]
    root: OldNode,
}

#[derive(Debug, Deserialize)]
struct OldNode {
    #[serde(default, rename = "Children")]
    children: Option<BTreeMap<String, OldNode>>,
}

impl OldNode {
    fn children(&self) -> impl Iterator<Item = (&String, &Self)> {
        self.children.iter().flatten()
    }

    fn is_empty(&self) -> bool {
        self.children().next().is_none()
    }
}

impl RealHost {
    /// Why etcd 3.6 should not be started on this machine's etcd data; empty if nothing speaks against it. `None` on a machine
    /// without a member.
    pub(in crate::real) async fn doubts_of_etcds_store(&self) -> Option<Vec<EtcdDoubt>> {
        let address = self.etcd_address()?;
        let data = self.etcd_argument("--data-dir=").unwrap_or_else(|| DATA.to_owned());
        let folder = self.files.path(&data).join("member/snap");
        let asked =
            tokio::time::timeout(ASK_LIMIT, async { Member::connect(&self.files, &address).await?.members().await });
        let mut told = match asked.await {
            Ok(Ok(listed)) => {
                let looked = tokio::task::spawn_blocking(move || doubts(&folder, &listed)).await;
                looked.unwrap_or_else(|error| vec![not_read(format!("looking at etcd's data was cut short: {error}"))])
            }
            Ok(Err(error)) => vec![not_read(format!("its members cannot be listed: {error}"))],
            Err(_) => vec![not_read(format!("its members could not be listed within {} s", ASK_LIMIT.as_secs()))],
        };
        told.truncate(ETCD_DOUBTS_MAX);
        for doubt in &mut told {
            cut(&mut doubt.message, ETCD_DOUBT_CHARS_MAX);
        }
        Some(told)
    }
}

fn not_read(message: String) -> EtcdDoubt {
    EtcdDoubt { kind: EtcdDoubtKind::NotRead, message }
}

/// What speaks against it in the folder `member/snap` of etcd's data, of a cluster with these members.
pub(super) fn doubts(folder: &Path, listed: &[ListedMember]) -> Vec<EtcdDoubt> {
    let mut told = match stored(&folder.join("db")) {
        Ok(stored) => compare(listed, &stored),
        Err(error) => vec![not_read(format!("the members in its database cannot be read: {error}"))],
    };
    match old_keys(folder) {
        Ok(keys) if keys.is_empty() => {}
        Ok(keys) => {
            let message = format!("its old store (v2) has data: {}", keys.join(", "));
            told.push(EtcdDoubt { kind: EtcdDoubtKind::OldKeys, message });
        }
        Err(error) => told.push(not_read(format!("its old store (v2) cannot be read: {error}"))),
    }
    told
}

fn stored(database: &Path) -> io::Result<Vec<StoredMember>> {
    let entries = bolt::bucket(database, b"members")?;
    let entries = entries.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "there is no bucket of members"))?;
    entries.iter().map(|(_, value)| serde_json::from_slice(value).map_err(io::Error::from)).collect()
}

fn compare(listed: &[ListedMember], stored: &[StoredMember]) -> Vec<EtcdDoubt> {
    let by_id: BTreeMap<u64, &StoredMember> = stored.iter().map(|member| (member.id, member)).collect();
    let ids: BTreeSet<u64> = listed.iter().map(|member| member.id).collect();
    let gone = stored.iter().filter(|member| !ids.contains(&member.id)).map(|member| {
        format!(
            "its database still has member {:x} ({}), which was removed and would come back",
            member.id, member.name
        )
    });
    let others = listed.iter().filter_map(|member| match by_id.get(&member.id) {
        None => Some(format!("its database lacks member {:x} ({})", member.id, member.name)),
        Some(stored) if stored.learner && !member.is_learner => {
            Some(format!("in its database member {:x} ({}) has no vote yet", member.id, member.name))
        }
        Some(_) => None,
    });
    gone.chain(others).map(|message| EtcdDoubt { kind: EtcdDoubtKind::MembersDiffer, message }).collect()
}

/// Keys of the newest file of the old store that are more than members and versions, as `etcdutl check v2store` judges it.
fn old_keys(folder: &Path) -> io::Result<Vec<String>> {
    let files = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "snap")).collect();
    // Their names are term and index in hex, of one length: the newest is the last. One that cannot be read is passed over, as etcd does
    // when it starts: it may just be written.
    files.sort();
    let mut why = None;
    for file in files.iter().rev() {
        match old_store(file) {
            Ok(store) => return Ok(content(&store)),
            Err(error) => {
                why.get_or_insert(error);
            }
        }
    }
    why.map_or(Ok(Vec::new()), Err)
}

/// Its keys that hold something else than members.
fn content(store: &OldStore) -> Vec<String> {
    let is_content = |(key, node): &(&String, &OldNode)| match key.as_str() {
        "0" => false,
        // What is left of users and roles once all of them are gone.
        "2" => node.children().any(|(_, child)| !child.is_empty()),
        _ => !node.is_empty(),
    };
    store.root.children().filter(is_content).map(|(key, _)| format!("/{key}")).collect()
}

fn old_store(file: &PathBuf) -> io::Result<OldStore> {
    if fs::metadata(file)?.len() > OLD_STORE_BYTES_MAX {
        return Err(io::Error::other(format!("{} is larger than members need", file.display())));
    }
    let invalid = |error: prost::DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
    let envelope = Envelope::decode(fs::read(file)?.as_slice()).map_err(invalid)?;
    let snapshot = RaftSnapshot::decode(envelope.data.as_slice()).map_err(invalid)?;
    serde_json::from_slice(&snapshot.data).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::etcd::bolt::tests::database;
    use crate::real::test_folder::TestFolder;
    use serde_json::{Value, json};

    fn told(folder: &TestFolder, listed: &[ListedMember]) -> Vec<String> {
        doubts(&folder.path("snap"), listed)
            .into_iter()
            .map(|doubt| format!("{:?}: {}", doubt.kind, doubt.message))
            .collect()
    }

    fn listed(id: u64, name: &str) -> ListedMember {
        ListedMember { id, name: name.to_owned(), ..ListedMember::default() }
    }

    fn old_file(store: &Value) -> Vec<u8> {
        let snapshot = RaftSnapshot { data: store.to_string().into_bytes() };
        Envelope { data: snapshot.encode_to_vec() }.encode_to_vec()
    }

    #[test]
    fn members_that_etcd_3_6_would_see_otherwise_are_told() {
        let folder = TestFolder::new("etcd-store");
        let stored = [
            ("a", r#"{"id":10,"peerURLs":["https://10.0.0.1:2380"],"name":"cp-1","clientURLs":[]}"#),
            ("b", r#"{"id":11,"peerURLs":[],"name":"cp-2","isLearner":true}"#),
            ("d", r#"{"id":13,"peerURLs":[],"name":"cp-3"}"#),
        ];
        folder.write("snap/db", database(&stored, false));
        assert_eq!(
            told(&folder, &[listed(10, "cp-1"), listed(11, "cp-2"), listed(12, "cp-3")]),
            [
                "MembersDiffer: its database still has member d (cp-3), which was removed and would come back",
                "MembersDiffer: in its database member b (cp-2) has no vote yet",
                "MembersDiffer: its database lacks member c (cp-3)",
            ]
        );
        folder.write("snap/db", database(&stored[..1], true));
        assert_eq!(told(&folder, &[listed(10, "cp-1")]), Vec::<String>::new());
        folder.write("snap/db", "no database");
        assert!(told(&folder, &[])[0].starts_with("NotRead: the members in its database cannot be read: "));
    }

    #[test]
    fn what_only_the_old_store_has_is_told() {
        let folder = TestFolder::new("etcd-old-store");
        folder.write("snap/db", database(&[], true));
        let keys = |store: &Value| {
            folder.write("snap/0000000000000002-00000000000186a5.snap", old_file(store));
            told(&folder, &[])
        };
        let node = |children: &Value| json!({"Path": "/x", "Value": "", "Children": children});
        let members =
            json!({"0": node(&json!({"members": node(&json!({"a": node(&json!(null))}))})), "1": node(&json!({}))});
        assert_eq!(keys(&json!({"Root": node(&members)})), Vec::<String>::new());
        let mut with_key = members.clone();
        with_key["1"] = node(&json!({"shop": node(&json!(null))}));
        assert_eq!(keys(&json!({"Root": node(&with_key)})), ["OldKeys: its old store (v2) has data: /1"]);
        let mut with_roles = members;
        with_roles["2"] = node(&json!({"roles": node(&json!({})), "enabled": node(&json!(null))}));
        assert_eq!(keys(&json!({"Root": node(&with_roles)})), Vec::<String>::new(), "what is left of roles is nothing");
        // The newest file counts.
        folder.write("snap/0000000000000001-00000000000186a0.snap", "damaged");
        assert_eq!(keys(&json!({"Root": node(&json!({}))})), Vec::<String>::new());
        // Unless it cannot be read, as while it is written.
        folder.write("snap/0000000000000003-0000000000000001.snap", "damaged");
        assert_eq!(keys(&json!({"Root": node(&with_key)})), ["OldKeys: its old store (v2) has data: /1"]);
        folder.write("snap/0000000000000002-00000000000186a5.snap", "damaged");
        assert!(told(&folder, &[])[0].starts_with("NotRead: its old store (v2) cannot be read: "));
    }
}
