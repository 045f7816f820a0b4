//! Every store keeps every promise of a store.

use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_engine::conformance;
use cupcake_operator::adapters::kube_store::KubeStore;
use cupcake_sandbox::api::Server;
use cupcake_tests::{TokioClock, install_definitions};
use std::sync::Arc;

#[tokio::test(start_paused = true)]
async fn the_kube_store_keeps_every_promise_on_the_sandbox_api() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_timestamp(1_790_000_000, 0).unwrap()));
    let server = Server::new(clock, 7);
    let client = server.client("operator");
    install_definitions(&client).await.unwrap();
    conformance::suite(&KubeStore::new(client)).await;
}
