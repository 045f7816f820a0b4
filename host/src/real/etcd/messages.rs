//! The few messages of etcd's Maintenance service that are used, as its rpc.proto numbers them.
//!
//! Source: etcd api/etcdserverpb/rpc.proto, release-3.5 and release-3.6. Fields that are not read are left out: protobuf passes
//! over them.

/// Asks a member how it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct StatusRequest {}

/// How a member is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    /// Its own version, such as `3.5.24`.
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    /// Bytes of its database file.
    #[prost(int64, tag = "3")]
    pub(crate) db_size: i64,
    /// The leader's member id; 0 if there is none.
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
    /// Alarms and the like.
    #[prost(string, repeated, tag = "8")]
    pub(crate) errors: Vec<String>,
    /// Whether it only follows.
    #[prost(bool, tag = "10")]
    pub(crate) is_learner: bool,
}

/// What stands above every answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    pub(crate) cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
    /// The revision of the member's store.
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// Asks for the members.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct MemberListRequest {
    /// Whether the answer has to be agreed upon, rather than what this member knows.
    #[prost(bool, tag = "1")]
    pub(crate) linearizable: bool,
}

/// The members.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct MemberListResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) members: Vec<ListedMember>,
}

/// A member as the others know it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ListedMember {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// Empty until it has started.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) client_urls: Vec<String>,
    #[prost(bool, tag = "5")]
    pub(crate) is_learner: bool,
}

/// Asks for a snapshot.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct SnapshotRequest {}

/// A part of a snapshot; the last 32 bytes of all are the SHA-256 of the bytes before.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct SnapshotResponse {
    /// How many bytes are still to come.
    #[prost(uint64, tag = "2")]
    pub(crate) remaining_bytes: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) blob: Vec<u8>,
}

/// Writes a key.
#[cfg(test)]
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_members_status_is_read_from_the_bytes_that_etcd_sends() {
        // header { cluster 1, member 2, revision 300, term 4 }, version "3.5.24", dbSize 4096, leader 2, raftIndex 9, learner
        let bytes = [
            &[0x0a, 9, 0x08, 1, 0x10, 2, 0x18, 0xac, 0x02, 0x20, 4][..],
            &[0x12, 6],
            b"3.5.24",
            &[0x18, 0x80, 0x20, 0x20, 2, 0x28, 9, 0x42, 2],
            b"no",
            &[0x50, 1],
        ]
        .concat();
        let status = StatusResponse::decode(bytes.as_slice()).expect("they fit");
        let header = ResponseHeader { cluster_id: 1, member_id: 2, revision: 300 };
        assert_eq!(
            status,
            StatusResponse {
                header: Some(header),
                version: "3.5.24".to_owned(),
                db_size: 4096,
                leader: 2,
                errors: vec!["no".to_owned()],
                is_learner: true,
            }
        );
    }

    #[test]
    fn the_members_are_read_from_the_bytes_that_etcd_sends() {
        // header { member 2 }, member { id 2, name "cp-1", peer and client URL }, member { id 3, learner }
        let first = [&[0x08, 2, 0x12, 4][..], b"cp-1", &[0x1a, 1, b'p', 0x22, 1, b'c']].concat();
        let bytes =
            [&[0x0a, 2, 0x10, 2, 0x12, u8::try_from(first.len()).unwrap()][..], &first, &[0x12, 4, 0x08, 3, 0x28, 1]];
        let list = MemberListResponse::decode(bytes.concat().as_slice()).expect("they fit");
        let member = |id, name: &str, urls: &[&str], is_learner| ListedMember {
            id,
            name: name.to_owned(),
            client_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            is_learner,
        };
        assert_eq!(list.members, [member(2, "cp-1", &["c"], false), member(3, "", &[], true)]);
    }

    #[test]
    fn a_part_of_a_snapshot_is_read_from_the_bytes_that_etcd_sends() {
        let bytes = [0x0a, 2, 0x08, 1, 0x10, 5, 0x1a, 3, 1, 2, 3, 0x22, 3, b'3', b'.', b'6'];
        let part = SnapshotResponse::decode(bytes.as_slice()).expect("they fit");
        assert_eq!(part, SnapshotResponse { remaining_bytes: 5, blob: vec![1, 2, 3] });
    }
}
