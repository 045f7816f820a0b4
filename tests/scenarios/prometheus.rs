//! The operator's questions to a real Prometheus, Debian's, which scrapes itself on loopback.
//!
//! Skipped with a loud line where there is no prometheus; never skipped when CI is set.
#![expect(
    clippy::disallowed_methods,
    reason = "starts a real process, writes its files, and polls it by the wall clock up to a limit"
)]

use cupcake_engine::clock::Clock;
use cupcake_operator::adapters::prometheus::Prometheus;
use cupcake_operator::process::SystemClock;
use cupcake_operator::web::{Place, Secret};
use cupcake_steps::ports::cluster::OpsError;
use cupcake_steps::ports::measures::{Measured, Measures};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long it may take until it answers, in seconds.
const WAIT_SECONDS_MAX: u32 = 60;

/// A Prometheus of a test's own; ends with it.
struct Server {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts one, or says why this is skipped.
fn start() -> Option<Server> {
    let program = std::env::var("CUPCAKE_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
    if !Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI is set and there is no prometheus: apt-get install prometheus");
        println!(
            "\n=== SKIPPED: the gates of a user are not measured by a real Prometheus: apt-get install prometheus, or CUPCAKE_PROMETHEUS ===\n"
        );
        return None;
    }
    let folder = std::env::temp_dir().join(format!("cupcake-prometheus-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: self, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let process = Command::new(&program)
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some(Server { process, folder, port })
}

#[tokio::test]
async fn a_real_prometheus_gives_one_number_nothing_or_the_reason_why_it_gives_none() {
    let Some(mut server) = start() else { return };
    let url = format!("http://127.0.0.1:{}/", server.port);
    let clock = Arc::new(SystemClock);
    let prometheus = Prometheus::new(Place::Given(Secret::from(url.as_str())), Arc::clone(&clock) as Arc<dyn Clock>);
    let mut scraped = prometheus.ask("up{job=\"self\"}").await;
    for _ in 0..WAIT_SECONDS_MAX {
        if scraped == Ok(Measured::Value(1.0)) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        scraped = prometheus.ask("up{job=\"self\"}").await;
    }
    assert_eq!(scraped, Ok(Measured::Value(1.0)), "it has scraped itself");
    for (query, wanted) in [
        ("vector(0.25) * 2", Measured::Value(0.5)),
        ("scalar(vector(7))", Measured::Value(7.0)),
        ("up{job=\"no such\"}", Measured::Nothing),
        ("vector(1) / 0", Measured::Value(f64::INFINITY)),
        ("count(up{job=~\"se.f\"}) > bool 0", Measured::Value(1.0)),
    ] {
        assert_eq!(prometheus.ask(query).await, Ok(wanted), "{query}");
    }
    assert!(matches!(prometheus.ask("{__name__=~\"go_.*\"}").await, Ok(Measured::Many(count)) if count > 10));
    for (query, part) in [("sum(up", "parse error"), ("up[5m]", "gives a matrix"), ("\"text\"", "gives a string")] {
        let Err(OpsError::NeedsOperator(reason)) = prometheus.ask(query).await else {
            panic!("{query} is no question")
        };
        assert!(reason.code == "QueryRefused" && reason.message.contains(part), "{query}: {reason:?}");
    }
    let Err(OpsError::Transient(reason)) = prometheus.ask("up * on() {__name__=~\"go_gc.*\"}").await else {
        panic!("that cannot be evaluated now")
    };
    assert!(reason.message.contains("422"), "{reason:?}");
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let Err(OpsError::Transient(reason)) = prometheus.ask("up").await else { panic!("it is gone") };
    assert_eq!(reason.code, "PrometheusAway");
}
