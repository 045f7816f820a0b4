//! A client of the local etcd member: two calls, over loopback, with the certificates that kubeadm made.

use super::messages::{
    ListedMember, MemberListRequest, MemberListResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use crate::real::failure::{self, needs_operator, transient};
use crate::real::os::Files;
use cupcake_steps::ports::host::HostError;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const STATUS_LIMIT: Duration = Duration::from_secs(10);
const AUTHORITY: &str = "/etc/kubernetes/pki/etcd/ca.crt";
/// Certificates that may read from the member, the least mighty first; the last one is the member's own.
const IDENTITIES: [&str; 3] = [
    "/etc/kubernetes/pki/etcd/healthcheck-client",
    "/etc/kubernetes/pki/apiserver-etcd-client",
    "/etc/kubernetes/pki/etcd/server",
];

/// The local member.
pub(super) struct Member {
    grpc: Grpc<Channel>,
}

impl Member {
    /// Connects to the member at `address`, such as `https://127.0.0.1:2379`.
    pub(super) async fn connect(files: &Files, address: &str) -> Result<Self, HostError> {
        let authority = read(files, AUTHORITY)?;
        let has_both = |name: &&str| files.has(&format!("{name}.crt")) && files.has(&format!("{name}.key"));
        let Some(name) = IDENTITIES.into_iter().find(has_both) else {
            return Err(needs_operator(
                "EtcdCertificateMissing",
                format!(
                    "none of {} is there as .crt and .key: without one etcd gives no snapshot",
                    IDENTITIES.join(", ")
                ),
            ));
        };
        let identity = Identity::from_pem(read(files, &format!("{name}.crt"))?, read(files, &format!("{name}.key"))?);
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).identity(identity);
        let bad = |error: tonic::transport::Error| {
            needs_operator(
                "EtcdCertificateUnreadable",
                format!("certificates for etcd cannot be used: {}", failure::chain(&error)),
            )
        };
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(bad)?;
        let endpoint = endpoint.connect_timeout(CONNECT_LIMIT).tls_config(tls).map_err(bad)?;
        let channel = tokio::time::timeout(CONNECT_LIMIT, endpoint.connect())
            .await
            .map_err(|_| {
                transient("EtcdAway", format!("etcd at {address} did not answer within {} s", CONNECT_LIMIT.as_secs()))
            })?
            .map_err(|error| {
                transient("EtcdAway", format!("etcd at {address} cannot be reached: {}", failure::chain(&error)))
            })?;
        Ok(Self { grpc: Grpc::new(channel) })
    }

    /// How the member is.
    pub(super) async fn status(&mut self) -> Result<StatusResponse, HostError> {
        self.ready().await?;
        let mut request = Request::new(StatusRequest {});
        request.set_timeout(STATUS_LIMIT);
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
        let codec = ProstCodec::<StatusRequest, StatusResponse>::default();
        let answer = self.grpc.unary(request, path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refused("status", &status))
    }

    /// The members, as most of them agree.
    pub(super) async fn members(&mut self) -> Result<Vec<ListedMember>, HostError> {
        self.ready().await?;
        let mut request = Request::new(MemberListRequest { linearizable: true });
        request.set_timeout(STATUS_LIMIT);
        let path = PathAndQuery::from_static("/etcdserverpb.Cluster/MemberList");
        let codec = ProstCodec::<MemberListRequest, MemberListResponse>::default();
        let answer = self.grpc.unary(request, path, codec).await;
        answer.map(|response| response.into_inner().members).map_err(|status| refused("list of members", &status))
    }

    /// The member's database as it is now, part by part.
    pub(super) async fn snapshot(&mut self) -> Result<Streaming<SnapshotResponse>, HostError> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Snapshot");
        let codec = ProstCodec::<SnapshotRequest, SnapshotResponse>::default();
        let answer = self.grpc.server_streaming(Request::new(SnapshotRequest {}), path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refused("snapshot", &status))
    }

    /// Writes a key, so that a snapshot has something to hold.
    #[cfg(test)]
    pub(super) async fn put(&mut self, key: &str, value: &str) -> Result<(), HostError> {
        self.ready().await?;
        let request = super::messages::PutRequest { key: key.into(), value: value.into() };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ProstCodec::<super::messages::PutRequest, StatusRequest>::default();
        let answer = self.grpc.unary(Request::new(request), path, codec).await;
        answer.map(drop).map_err(|status| refused("answer to a write", &status))
    }

    async fn ready(&mut self) -> Result<(), HostError> {
        self.grpc
            .ready()
            .await
            .map_err(|error| transient("EtcdAway", format!("etcd went away: {}", failure::chain(&error))))
    }
}

fn read(files: &Files, path: &str) -> Result<Vec<u8>, HostError> {
    let path = files.path(path);
    std::fs::read(&path).map_err(|error| failure::file("reading", &path, &error))
}

/// What etcd's refusal means.
pub(super) fn refused(what: &str, status: &Status) -> HostError {
    let text = format!("etcd gave no {what}: {:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => needs_operator("EtcdRefuses", text),
        _ => transient("EtcdAway", text),
    }
}
