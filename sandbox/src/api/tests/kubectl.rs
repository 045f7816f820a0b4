//! A real kubectl, 1.33 or newer, over HTTP on loopback.

use super::TokioClock;
use crate::api::{Server, http};
use chrono::Utc;

/// Serves until it is stopped: `CUPCAKE_BY_HAND=127.0.0.1:PORT cargo test -p cupcake-sandbox --lib by_hand -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "for trying things by hand"]
async fn by_hand() {
    let address = std::env::var("CUPCAKE_BY_HAND").unwrap();
    let server = Server::new(TokioClock::starting_at(Utc::now()), 7);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    http::serve(listener, server).await.unwrap();
}
