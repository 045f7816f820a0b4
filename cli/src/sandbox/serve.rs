//! `--serve`: the simulated cluster behind a loopback socket, for a real kubectl.

use super::args::SandboxArgs;
use super::{config, draw, failed, upgrade};
use crate::exit::{Exit, Failure};
use crate::forest::Graphs;
use crate::out;
use crate::printer::{EventLog, Printer};
use cupcake_sandbox::api::http::{kubeconfig, serve};
use cupcake_sandbox::world::{self, SPEED_WATCHED, Speed, World};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until Ctrl-C.
pub(super) fn run(args: &SandboxArgs, address: SocketAddr) -> Result<Exit, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::new(
            format!("{address} is no loopback address, and the sandbox lets everybody in"),
            format!("kubectl cupcake sandbox --serve 127.0.0.1:{}", address.port()),
        ));
    }
    let speed = Speed::Times(args.speed.unwrap_or(SPEED_WATCHED));
    world::runtime(speed).map_err(|error| failed(&error))?.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Failure::from_error(&format!("listen on {address}"), &error, "kubectl cupcake sandbox --serve 127.0.0.1:0")
        })?;
        let io_failed =
            |error: &std::io::Error| Failure::from_error("serve", error, "kubectl cupcake sandbox --serve 127.0.0.1:0");
        let address = listener.local_addr().map_err(|error| io_failed(&error))?;
        let file = kubeconfig_path(address);
        write_kubeconfig(&file, &kubeconfig(address)).map_err(|error| io_failed(&error))?;
        let world = World::new(config(args, speed)).map_err(|error| failed(&error))?;
        world.start();
        out::line(format!("KUBECONFIG={}", file.display()));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| io_failed(&error))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| io_failed(&error))?;
        let result = tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(Exit::Done),
            _ = terminate.recv() => Ok(Exit::Done),
            served = serve(listener, world.server().clone()) => match served {
                Ok(()) => Ok(Exit::Done),
                Err(error) => Err(io_failed(&error)),
            },
            refused = apply(&world, args) => Err(refused),
            never = tell(&world) => match never {},
        };
        remove(&file);
        result
    })
}

/// Applies the upgrade that was asked for, if one was; then rests. Gives what went wrong.
async fn apply(world: &World, args: &SandboxArgs) -> Failure {
    if let Some(to) = args.to
        && let Err(error) = world.upgrade(&upgrade(args, to)).await
    {
        return failed(&error);
    }
    std::future::pending().await
}

/// Tells what happens, a line an event, on stdout below the kubeconfig.
async fn tell(world: &World) -> std::convert::Infallible {
    let mut printer = Printer::Plain(EventLog::default());
    let mut graphs = Graphs::new();
    loop {
        world.progress().await;
        draw(world, &mut printer, &mut graphs);
    }
}

#[expect(clippy::disallowed_methods, reason = "a file of this process, for the kubectl of the same user")]
fn kubeconfig_path(address: SocketAddr) -> PathBuf {
    std::env::temp_dir().join(format!("cupcake-sandbox-{}.kubeconfig", address.port()))
}

#[expect(clippy::disallowed_methods, reason = "a file of this process, for the kubectl of the same user")]
fn write_kubeconfig(path: &Path, text: &str) -> std::io::Result<()> {
    // Not through a link or into a file that somebody else laid there.
    remove(path);
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[expect(clippy::disallowed_methods, reason = "a file of this process")]
fn remove(path: &Path) {
    // It may be gone already.
    let _gone = std::fs::remove_file(path);
}
