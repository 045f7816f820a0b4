//! What the scenarios share.

pub mod machines;

use cupcake_engine::clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use std::time::Duration;

/// A clock driven by tokio's time, which tests pause.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: Timestamp,
    began: tokio::time::Instant,
}

#[expect(clippy::disallowed_methods, reason = "a clock made of tokio's")]
impl TokioClock {
    /// A clock that shows `start` now.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, began: tokio::time::Instant::now() }
    }
}

#[expect(clippy::disallowed_methods, reason = "a clock made of tokio's")]
impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start + chrono::TimeDelta::from_std(self.began.elapsed()).unwrap_or_default()
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let wait = (until - self.now()).to_std().unwrap_or(Duration::ZERO);
        Box::pin(tokio::time::sleep(wait))
    }
}

/// Creates the definitions of all kinds.
pub async fn install_definitions(client: &kube::Client) -> Result<(), kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in cupcake_crds::definitions() {
        api.create(&PostParams::default(), &definition).await?;
    }
    Ok(())
}
