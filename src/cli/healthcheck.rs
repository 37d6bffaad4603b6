//! `dozo healthcheck`: asks a process on this host whether it is ready.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::ADMIN_ADDRESS_DEFAULT;

const REPLY_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// The admin address of the process [default: 127.0.0.1:9001]
    #[arg(long, value_name = "ADDR", env = "DOZO_ADMIN_ADDR")]
    admin_addr: Option<String>,

    /// Ask only whether the process lives, not whether it can serve
    #[arg(long)]
    live: bool,
}

/// Succeeds when the process answers 200 within five seconds.
pub fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let env = placement_env::system();
    let address = args.admin_addr.as_deref().unwrap_or(ADMIN_ADDRESS_DEFAULT);
    // An image's configuration says `0.0.0.0:9001`, which is not an address to connect to.
    let address = match address.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]", port)) => format!("127.0.0.1:{port}"),
        _ => address.to_owned(),
    };
    let path = if args.live { "/health/live" } else { "/health/ready" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = ask(&env, &address, path);
        match env.timeout(Duration::from_secs(5), asked).await {
            Ok(result) => result,
            Err(_) => bail!("{address} did not answer within 5 s"),
        }
    })
}

async fn ask(env: &placement_types::Env, address: &str, path: &str) -> anyhow::Result<()> {
    let mut stream = env.net.connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply).await?;
    let reply = String::from_utf8_lossy(&reply);
    let status = reply.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{address}{path} answered: {status}\n{}", reply.split("\r\n\r\n").nth(1).unwrap_or_default().trim());
    }
    Ok(())
}
