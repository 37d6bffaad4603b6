//! The S3 surface over a real socket, spoken byte by byte, in front of a store that remembers what it was made to keep.
//!
//! Every refusal is checked twice: by the exact error the client sees, and by the store having kept nothing.

mod client;
mod store;

mod auth;
mod http;
mod integrity;
mod listing;
mod objects;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use gateway_s3::{Caller, Credential, Credentials, S3Config, S3Error, S3Service, SecretKey, Tls, serve};
use placement_types::{Env, TaskHandle};
use store::Store;
use tokio_util::sync::CancellationToken;

pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// One key, root's.
struct OneKey;

#[async_trait::async_trait]
impl Credentials for OneKey {
    async fn lookup(&self, access_key: &str) -> Result<Option<Credential>, S3Error> {
        let credential =
            Credential { secret: SecretKey::new(SECRET), caller: Caller::Root { access_key: access_key.to_owned() } };
        Ok((access_key == ACCESS_KEY).then_some(credential))
    }
}

/// A served store.
pub struct Server {
    pub env: Env,
    pub store: Arc<Store>,
    pub address: String,
    shutdown: CancellationToken,
    task: TaskHandle,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(S3Config::default()).await
    }

    pub async fn start_with(config: S3Config) -> Self {
        Self::start_on(config, None).await
    }

    pub async fn start_on(config: S3Config, tls: Option<Tls>) -> Self {
        let env = placement_env::system();
        let store = Arc::new(Store::default());
        let listener = env.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let shutdown = CancellationToken::new();
        let service = S3Service::new(Arc::clone(&store) as _, Arc::new(OneKey), config, env.clone());
        let serving = serve(service, listener, tls, env.clone(), shutdown.clone(), Duration::from_secs(5));
        let task = env.spawn("s3 server", serving);
        Self { env, store, address, shutdown, task }
    }

    pub async fn connect(&self) -> Client {
        Client::connect(&self.env, &self.address).await
    }

    /// Asks the server to stop and waits until it has.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.join().await;
    }

    /// Asks the server to stop.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }
}
