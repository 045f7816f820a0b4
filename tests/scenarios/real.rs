//! The tier of a real API server: etcd and kube-apiserver as processes, by `tests/apiserver`.
//!
//! Skipped with a loud line where Go is absent and no binaries are named; never skipped when CI is set.
#![expect(
    clippy::disallowed_methods,
    reason = "starts real processes, reads their files, and polls them by the wall clock up to a limit"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// How long anything here may take before the test fails and says what it waited for.
const WAIT_SECONDS_MAX: u64 = 120;

/// What runs beside the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controllers {
    /// Budgets and garbage collection.
    Some,
    /// Nothing: what happens, the API server does.
    None,
}

/// A real API server of a test's own.
pub struct ApiServer {
    pub dir: PathBuf,
}

impl ApiServer {
    /// Starts one, or says why the tier is skipped.
    pub fn start(name: &str, controllers: Controllers) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("cupcake-api-{name}-{}", std::process::id()));
        let named = std::env::var_os("CUPCAKE_KUBE_APISERVER").is_some();
        let go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
        if !go && !named {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI is set and there is no Go: the API-server tier cannot be skipped"
            );
            println!("\n=== SKIPPED: the API-server tier needs Go (or CUPCAKE_KUBE_APISERVER and its like) ===\n");
            return None;
        }
        let mut start = Command::new(format!("{ROOT}/tests/apiserver/start.sh"));
        if controllers == Controllers::None {
            start.env("CUPCAKE_API_CONTROLLERS", "none");
        }
        let status = start.arg(&dir).status().unwrap();
        assert!(status.success(), "tests/apiserver/start.sh failed: see its output above");
        Some(Self { dir })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Kills `program` (`kube-apiserver` or `etcd`) with -9, leaves it away for so many seconds, and starts it again on the
    /// same data; returns when the API server is ready.
    pub async fn restart(&self, program: &str, away_seconds: u32) {
        let mut restart = tokio::process::Command::new(format!("{ROOT}/tests/apiserver/restart.sh"));
        let status = restart.arg(&self.dir).arg(program).arg(away_seconds.to_string()).status().await.unwrap();
        assert!(status.success(), "tests/apiserver/restart.sh failed: see its output above");
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = Command::new(format!("{ROOT}/tests/apiserver/stop.sh")).arg(&self.dir).status();
        if std::thread::panicking() || std::env::var_os("CUPCAKE_KEEP_LOGS").is_some() {
            println!("the logs are left in {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A client that repeats nothing by itself.
pub async fn client_of(kubeconfig: &Path) -> kube::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

/// Looks until `look` shows something, or fails with what it waited for.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(WAIT_SECONDS_MAX), "waited {WAIT_SECONDS_MAX} s for {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the six kinds are served.
pub async fn definitions_established(client: &kube::Client) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{Api, ListParams};
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    eventually("the definitions to establish", async || {
        let all = api.list(&ListParams::default()).await.ok()?;
        let established = all.iter().filter(|definition| {
            let conditions =
                definition.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
        });
        (established.count() == 6).then_some(())
    })
    .await;
}
