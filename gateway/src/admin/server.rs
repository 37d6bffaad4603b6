//! Serves the admin routes: a bounded number of connections, each with a deadline for its request's head.

use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use placement_types::{Env, Listener, TaskHandle};
use tokio::sync::Semaphore;

use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_TIMEOUT};

/// A running admin listener; dropping it closes the listener and its connections.
pub struct AdminServer {
    _accepting: TaskHandle,
    address: String,
}

impl AdminServer {
    /// Starts serving `router` on `listener`.
    pub fn start(env: &Env, listener: Box<dyn Listener>, router: Router) -> Self {
        let address = listener.local_address();
        let accepting = env.spawn("accept admin connections", accept(env.clone(), listener, router));
        Self { _accepting: accepting, address }
    }

    /// `ip:port` as bound.
    pub fn address(&self) -> &str {
        &self.address
    }
}

async fn accept(env: Env, mut listener: Box<dyn Listener>, router: Router) {
    let room = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let mut connections: Vec<(tokio::sync::oneshot::Receiver<()>, TaskHandle)> = Vec::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                // It is about one connection, or about too many open files: go on, but not in a spin.
                tracing::debug!(%error, "an admin connection was not accepted");
                env.sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let task = env.spawn("serve an admin connection", async move {
            let mut builder = Builder::new(TokioExecutor::new()).http1_only();
            builder.http1().timer(TokioTimer::new()).header_read_timeout(ADMIN_HEADER_TIMEOUT);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error, "an admin connection ended badly");
            }
            drop(permit);
            let _ = ended.send(());
        });
        // Finished tasks go; those under way end with this one.
        connections.retain_mut(|(has_ended, _)| has_ended.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty));
        connections.push((has_ended, task));
    }
}
