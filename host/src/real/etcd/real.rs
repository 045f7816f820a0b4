//! The client against real etcds of 3.5 and of 3.6: three members behind TLS, as kubeadm's certificates have it.
//!
//! Built from Go modules by tests/etcd/build.sh; skipped with a loud line where Go is absent, never where CI is set.

use super::client::Member;
use super::store::doubts;
use crate::real::RealHost;
use crate::real::test_folder::TestFolder;
use crate::real::tests::host_in;
use cupcake_crds::values::EtcdMember;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const KEYS: u32 = 200;

/// etcd 3.5, etcd 3.6 and etcdutl, if they can be had here.
fn programs() -> Option<[PathBuf; 3]> {
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/etcd/build.sh");
    let output = Command::new(build).stderr(Stdio::inherit()).output().expect("the script starts");
    if !output.status.success() {
        assert!(std::env::var_os("CI").is_none(), "CI is set: the test of real etcds cannot be skipped");
        println!("\n=== SKIPPED: real etcds: tests/etcd/build.sh needs Go ===\n");
        return None;
    }
    let text = String::from_utf8(output.stdout).expect("paths");
    let paths: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
    Some(paths.try_into().expect("three lines"))
}

fn done(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An authority, and a pair that serves as server and as client, where kubeadm puts them.
fn certificates(folder: &TestFolder) {
    let pki = "etc/kubernetes/pki/etcd";
    folder.write(&format!("{pki}/v3.ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n");
    let path = |name: &str| folder.path(&format!("{pki}/{name}"));
    let openssl = || Command::new("openssl");
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let mut authority = openssl();
    authority.args(["req", "-x509", "-days", "2", "-subj", "/CN=etcd-ca"]).args(curve);
    done(authority.arg("-keyout").arg(path("ca.key")).arg("-out").arg(path("ca.crt")));
    for name in ["server", "healthcheck-client"] {
        let (key, request) = (path(&format!("{name}.key")), path(&format!("{name}.csr")));
        let subject = format!("/O=system:masters/CN={name}");
        done(openssl().args(["req", "-subj", &subject]).args(curve).arg("-keyout").arg(key).arg("-out").arg(&request));
        let mut sign = openssl();
        sign.args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"]).arg(&request);
        sign.arg("-CA").arg(path("ca.crt")).arg("-CAkey").arg(path("ca.key")).arg("-extfile").arg(path("v3.ext"));
        done(sign.arg("-out").arg(path(&format!("{name}.crt"))));
    }
}

/// Members `cp-1` to `cp-3`; killed when this is dropped.
struct Cluster {
    folder: TestFolder,
    members: Vec<Child>,
}

impl Cluster {
    fn start(etcd: &Path, name: &str) -> Self {
        let folder = TestFolder::new(name);
        certificates(&folder);
        // Bound all at once, so that no two are equal.
        let ports: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |index: usize| ports[index].local_addr().expect("it is bound").port();
        let url = |index: usize| format!("https://127.0.0.1:{}", port(index));
        let peers: Vec<String> = (0..3).map(|index| format!("cp-{}={}", index + 1, url(index + 3))).collect();
        folder.write(
            "etc/kubernetes/manifests/etcd.yaml",
            include_str!("../fixtures/etcd.yaml")
                .replace("https://127.0.0.1:2379", &url(0))
                .replace("--data-dir=/var/lib/etcd", "--data-dir=/data-0"),
        );
        let arguments: Vec<Vec<String>> = (0..3)
            .map(|index| {
                let pki = folder.path("etc/kubernetes/pki/etcd");
                let file = |name: &str| pki.join(name).display().to_string();
                let data = folder.path(&format!("data-{index}")).display().to_string();
                let mut arguments = vec![
                    format!("--name=cp-{}", index + 1),
                    format!("--data-dir={data}"),
                    format!("--initial-cluster={}", peers.join(",")),
                    "--unsafe-no-fsync".to_owned(),
                    // So that the old store comes to a file of its own, too.
                    "--snapshot-count=100".to_owned(),
                    "--logger=zap".to_owned(),
                    "--log-level=error".to_owned(),
                ];
                for (option, value) in [
                    ("listen-client-urls", url(index)),
                    ("advertise-client-urls", url(index)),
                    ("listen-peer-urls", url(index + 3)),
                    ("initial-advertise-peer-urls", url(index + 3)),
                    ("cert-file", file("server.crt")),
                    ("key-file", file("server.key")),
                    ("trusted-ca-file", file("ca.crt")),
                    ("peer-cert-file", file("server.crt")),
                    ("peer-key-file", file("server.key")),
                    ("peer-trusted-ca-file", file("ca.crt")),
                ] {
                    arguments.push(format!("--{option}={value}"));
                }
                arguments.extend(["--client-cert-auth".to_owned(), "--peer-client-cert-auth".to_owned()]);
                arguments
            })
            .collect();
        drop(ports);
        let start = |arguments: &Vec<String>| {
            let mut command = Command::new(etcd);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("etcd starts")
        };
        let members = arguments.iter().map(start).collect();
        Self { folder, members }
    }

    fn end(&mut self, index: usize) {
        let _ = self.members[index].kill();
        let _ = self.members[index].wait();
    }

    /// The local member, once it knows a leader.
    async fn member(&self, host: &RealHost) -> Member {
        let address = host.etcd_address().expect("the manifest names it");
        for _ in 0..300 {
            if let Ok(mut member) = Member::connect(host.files(), &address).await
                && member.status().await.is_ok_and(|status| status.leader != 0)
            {
                return member;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("etcd at {address} has no leader after 30 s");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.end(index));
    }
}

fn told(name: &str, version: Option<&str>) -> EtcdMember {
    EtcdMember { healthy: version.is_some(), version: version.map(str::to_owned), ..EtcdMember::voting(name) }
}

async fn snapshot_and_members(etcd: &Path, etcdutl: &Path, minor: &str) {
    let mut cluster = Cluster::start(etcd, &format!("real-etcd-{minor}"));
    let host = host_in(&cluster.folder);
    let mut member = cluster.member(&host).await;
    for number in 0..KEYS {
        member.put(&format!("/registry/{number}"), &"x".repeat(1_000)).await.expect("a key is written");
    }
    let status = member.status().await.expect("it answers");
    assert!(status.version.starts_with(minor), "{} is not {minor}", status.version);

    let info = host.new_snapshot("to-next").await.expect("a snapshot");
    let said = status.header.as_ref().map(|header| u64::try_from(header.revision).expect("a revision"));
    assert!(info.revision >= u64::from(KEYS) && Some(info.revision) >= said, "{info:?}, its member said {said:?}");
    let file = PathBuf::from(&info.path);
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds every secret of the cluster");
    let text = done(Command::new(etcdutl).args(["snapshot", "status", "-w", "json"]).arg(&file));
    let seen: serde_json::Value = serde_json::from_str(&text).expect("etcdutl prints JSON");
    assert_eq!(seen["revision"].as_u64(), Some(info.revision), "{seen}");
    assert!(seen["totalKey"].as_u64() >= Some(u64::from(KEYS)), "{seen}");
    assert_eq!(host.finished_snapshot("to-next").await.expect("looked at"), Some(info.clone()));
    println!(
        "etcd {}: snapshot of {} bytes, revision {}; etcdutl: {}",
        status.version,
        info.bytes,
        info.revision,
        text.trim()
    );

    // And restored: the way back that the snapshot is for.
    let restored = cluster.folder.path("restored");
    done(Command::new(etcdutl).args(["snapshot", "restore"]).arg(&file).arg("--data-dir").arg(&restored));
    assert!(restored.join("member/snap/db").exists());

    let all = ["cp-1", "cp-2", "cp-3"].map(|name| told(name, Some(&status.version)));
    assert_eq!(members_until(&host, &all).await, Some(all.to_vec()));
    let whole = host.etcd_now().await.expect("all of them answer");
    assert_eq!((whole.own.as_str(), whole.alarms.as_slice()), ("cp-1", &[][..]), "{whole:?}");
    assert!(whole.version.starts_with(minor) && whole.members.iter().all(|member| member.healthy), "{whole:?}");
    store(&cluster, &host).await;
    cluster.end(2);
    let two = [told("cp-1", Some(&status.version)), told("cp-2", Some(&status.version)), told("cp-3", None)];
    assert_eq!(members_until(&host, &two).await, Some(two.to_vec()));
    cluster.end(1);
    assert_eq!(host.etcd_members().await, None, "one of three knows nothing for sure");
    assert!(host.etcd_now().await.is_err(), "nor is that taken for all being well");
}

/// What lies on the disk of a member that writes is what the members say, and one that they do not name is found.
async fn store(cluster: &Cluster, host: &RealHost) {
    assert_eq!(host.doubts_of_etcds_store().await, Some(Vec::new()));
    let folder = cluster.folder.path("data-0/member/snap");
    let files = std::fs::read_dir(&folder).expect("it is there").filter_map(Result::ok);
    assert!(files.map(|file| file.path()).any(|path| path.extension().is_some_and(|ending| ending == "snap")));
    let mut member = cluster.member(host).await;
    let mut listed = member.members().await.expect("a list");
    listed.retain(|member| member.name != "cp-3");
    let told = doubts(&folder, &listed);
    assert!(told.len() == 1 && told[0].message.contains("(cp-3), which was removed and would come back"), "{told:?}");
}

/// The members by name, once they are as they should be, or as they are after 30 s: a new leader is elected in between.
async fn members_until(host: &RealHost, wanted: &[EtcdMember]) -> Option<Vec<EtcdMember>> {
    let mut told = None;
    for _ in 0..30 {
        told = host.etcd_members().await.map(|mut members| {
            members.sort_by(|one, other| one.name.cmp(&other.name));
            members
        });
        if told.as_deref() == Some(wanted) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    told
}

#[tokio::test]
async fn real_members_of_both_minors_give_whole_snapshots_and_tell_who_they_are() {
    let Some([old, new, etcdutl]) = programs() else { return };
    snapshot_and_members(&old, &etcdutl, "3.5").await;
    snapshot_and_members(&new, &etcdutl, "3.6").await;
}
