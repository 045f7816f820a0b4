//! The other door: HTTP/1.1 on a loopback socket, for a real kubectl.

use super::server::Server;
use http_body_util::{BodyExt as _, Limited};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 256;

/// Serves HTTP/1.1 on `listener` until the future is dropped, which ends all connections.
///
/// Requests are recorded under the client name `http`. Works on a multi-threaded or unpaused runtime; with paused time, sockets
/// make no progress that the runtime can wait for.
///
/// # Errors
/// What the listener says when it can accept no more.
pub async fn serve(listener: TcpListener, server: Server) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let (stream, _peer) = listener.accept().await?;
        // Watches send small lines that somebody waits for.
        stream.set_nodelay(true)?;
        let server = server.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let server = server.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let limit = server.inner.options.body_bytes_max.saturating_add(1);
                    let bytes = match Limited::new(body, limit).collect().await {
                        Ok(body) => body.to_bytes(),
                        Err(error) => return Err(std::io::Error::other(error)),
                    };
                    let request = http::Request::from_parts(parts, bytes);
                    server.serve("http", request).await.map_err(std::io::Error::other)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away in the middle of an answer is no error of ours.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

/// A kubeconfig for a server at `address`, without credentials: it listens on loopback only.
pub fn kubeconfig(address: SocketAddr) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: cupcake-sandbox\n\
         \x20 cluster:\n\
         \x20   server: http://{address}\n\
         contexts:\n\
         - name: cupcake-sandbox\n\
         \x20 context:\n\
         \x20   cluster: cupcake-sandbox\n\
         \x20   user: cupcake-sandbox\n\
         \x20   namespace: default\n\
         current-context: cupcake-sandbox\n\
         users:\n\
         - name: cupcake-sandbox\n\
         \x20 user: {{}}\n"
    )
}
