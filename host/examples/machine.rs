//! Does one operation on the machine it runs on, as a host step would, and prints what came of it as JSON: for trying the
//! adapter on a real node (tests/rig), never for daily use.

use anyhow::{Context, bail};
use cupcake_crds::values::{KubeVersion, PackageVersion};
use cupcake_host::real::{RealHost, Settings, probe_machine};
use cupcake_steps::ports::host::{HostOps, Images, KubeProxy, KubeadmUpgrade, Package};
use cupcake_steps::ports::real_clock::RealClock;
use serde_json::{Value, json};
use std::sync::Arc;

const USAGE: &str = "machine probe | repository | switch MINOR.0 | package NAME | install VERSION NAME... | missing VERSION | pull VERSION | \
                     apply VERSION | node VERSION | heal | pods | kubelet | restart-kubelet | containerd | install-containerd VERSION | \
                     restart-containerd | snapshot NAME | take-snapshot NAME";

fn package(name: &str) -> anyhow::Result<Package> {
    let packages = [Package::Kubeadm, Package::Kubelet, Package::Kubectl];
    packages.into_iter().find(|package| package.as_str() == name).with_context(|| format!("{name} is none of ours"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    #[expect(clippy::disallowed_methods, reason = "the words of its command line")]
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let host = RealHost::new(Settings::of_this_machine(Arc::new(RealClock)));
    let version = |text: &str| text.parse::<KubeVersion>().context(USAGE);
    let came: Value = match words.as_slice() {
        ["probe"] => probe_machine(&host).await,
        ["repository"] => json!(host.repository().await?.map(|minor| minor.to_string())),
        ["switch", to] => json!(host.switch_repository(version(to)?.minor_version()).await?),
        ["package", name] => json!(format!("{:?}", host.package(package(name)?).await?)),
        ["install", to, names @ ..] => {
            let packages = names.iter().map(|name| package(name)).collect::<anyhow::Result<Vec<_>>>()?;
            json!(host.install(&packages, &version(to)?).await?)
        }
        ["missing", of] => json!(host.images_missing(&Images::ControlPlane { version: version(of)? }).await?),
        ["pull", of] => json!(host.pull_images(&Images::ControlPlane { version: version(of)? }).await?),
        ["apply", to] => json!(host.kubeadm_upgrade(KubeadmUpgrade::Apply, &version(to)?, KubeProxy::Upgrade).await?),
        ["node", to] => json!(host.kubeadm_upgrade(KubeadmUpgrade::Node, &version(to)?, KubeProxy::Upgrade).await?),
        ["heal"] => json!(host.heal().await?),
        ["pods"] => json!(format!("{:?}", host.static_pods().await?)),
        ["kubelet"] => json!(format!("{:?}", host.kubelet().await?)),
        ["restart-kubelet"] => json!(host.restart_kubelet().await?),
        ["containerd"] => json!(host.containerd().await?),
        ["install-containerd", to] => {
            json!(host.install_containerd(&to.parse::<PackageVersion>().context(USAGE)?).await?)
        }
        ["restart-containerd"] => json!(host.restart_containerd().await?),
        ["snapshot", name] => json!(host.etcd_snapshot(name).await?),
        ["take-snapshot", name] => json!(host.take_etcd_snapshot(name).await?),
        _ => bail!(USAGE),
    };
    #[expect(clippy::print_stdout, reason = "it is what this program is for")]
    {
        println!("{came:#}");
    }
    Ok(())
}
