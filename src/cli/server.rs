//! `dozo server`, `dozo node`, `dozo gateway`: start a role, say so, run until told to stop.

use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use super::logging;
use crate::config::Settings;
use crate::roles::{GatewayRole, NodeRole, ServerRole};

/// Which role the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Node,
    Gateway,
}

enum Running {
    Server(ServerRole),
    Node(NodeRole),
    Gateway(GatewayRole),
}

/// Requests under way get 25 s of this, the storage side the rest.
const SHUTDOWN_MAX: Duration = Duration::from_secs(35);

/// Runs the role until SIGTERM or SIGINT, then drains. A second signal ends it at once.
pub fn run(role: Role, settings: Settings) -> anyhow::Result<()> {
    logging::init(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let env = placement_env::system();
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let started = env.monotonic();
        let running = tokio::select! {
            running = start(role, &env, &settings) => running?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let addresses = match &running {
            Running::Server(role) => role.addresses(),
            Running::Node(role) => role.addresses(),
            Running::Gateway(role) => role.addresses(),
        };
        println!("ready {addresses}");
        tracing::info!(%addresses, milliseconds = (env.monotonic() - started).as_millis() as u64, "ready");
        let failure = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            reason = failed(&running) => Some(reason),
        };
        tracing::info!("stopping");
        let stopped = async {
            match running {
                Running::Server(role) => role.shutdown().await,
                Running::Node(role) => role.shutdown().await,
                Running::Gateway(role) => role.shutdown().await,
            }
        };
        tokio::select! {
            ended = env.timeout(SHUTDOWN_MAX, stopped) => if ended.is_err() {
                tracing::warn!("stopped before everything was closed; nothing acknowledged is lost");
            },
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        match failure {
            Some(reason) => Err(anyhow!(reason)),
            None => Ok(()),
        }
    });
    // Blocking reads of a hung disk must not keep a process alive that has nothing left to do.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Why the process must end, when it must; a gateway has nothing of its own that can fail.
async fn failed(running: &Running) -> String {
    match running {
        Running::Server(role) => role.failed().await,
        Running::Node(role) => role.failed().await,
        Running::Gateway(_) => std::future::pending().await,
    }
}

async fn start(role: Role, env: &placement_types::Env, settings: &Settings) -> anyhow::Result<Running> {
    Ok(match role {
        Role::Server => Running::Server(ServerRole::start(env.clone(), settings).await?),
        Role::Node => Running::Node(NodeRole::start(env.clone(), settings).await?),
        Role::Gateway => Running::Gateway(GatewayRole::start(env.clone(), settings).await?),
    })
}
