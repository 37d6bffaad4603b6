//! `dozo admin`: looks into a running cluster through its admin listener.

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::bench::CredentialArgs;
use crate::client::{Endpoint, S3Client};

#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The admin endpoint of a server, node or gateway
    #[arg(long, value_name = "URL", env = "DOZO_ADMIN_ENDPOINT", default_value = "http://127.0.0.1:9001")]
    admin_endpoint: String,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    credentials: CredentialArgs,

    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Nodes, disks, metadata groups and their leaders, redundancy, capacity
    Status,
    /// Where an object's shards are, why there, and what may be lost before it is unreadable
    Explain {
        /// s3://bucket/key
        object: String,
    },
}

pub fn run(args: AdminArgs) -> anyhow::Result<()> {
    let env = placement_env::system();
    let endpoint = Endpoint::parse(&args.admin_endpoint)?;
    let client = S3Client::new(env, endpoint, args.credentials.signer()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &args.command {
        AdminCommand::Status => {
            let status = runtime.block_on(ask(&client, "/admin/v1/status", &[]))?;
            if args.json { print_json(&status) } else { print_status(&status) }
        }
        AdminCommand::Explain { object } => {
            let (bucket, key) = object
                .strip_prefix("s3://")
                .and_then(|rest| rest.split_once('/'))
                .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
                .with_context(|| format!("{object:?} is not s3://bucket/key"))?;
            let found = runtime.block_on(ask(&client, "/admin/v1/explain", &[("bucket", bucket), ("key", key)]))?;
            if args.json { print_json(&found) } else { print_explained(&found) }
        }
    }
}

async fn ask(client: &S3Client, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
    let reply = client.send(Method::GET, path, query, Bytes::new()).await?;
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    if reply.status != 200 {
        bail!("the server answered {}: {}", reply.status, text(&answer["message"]));
    }
    Ok(answer)
}

fn print_json(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

fn print_status(status: &Value) -> anyhow::Result<()> {
    if status["formed"] != Value::Bool(true) {
        println!("no cluster is formed yet");
        return Ok(());
    }
    println!("cluster {}  epoch {}  profile {}", text(&status["cluster"]), status["epoch"], text(&status["profile"]));
    println!("redundancy: {}", text(&status["redundancy"]));
    let capacity = &status["capacity"];
    println!(
        "capacity: {} in total, {} free (room for {} of objects), {} of shards",
        size(&capacity["total_bytes"]),
        size(&capacity["available_bytes"]),
        size(&capacity["available_object_bytes"]),
        size(&capacity["shard_bytes"])
    );
    println!("writable disks: {}, needed for a write: {}", status["disks_writable"], status["write_quorum"]);
    println!();
    println!("{:<34}{:<24}{:<16}{:<8}answers", "node", "address", "zone", "state");
    for node in list(&status["nodes"]) {
        println!(
            "{:<34}{:<24}{:<16}{:<8}{}",
            text(&node["id"]),
            text(&node["address"]),
            text(&node["zone"]),
            text(&node["state"]),
            if node["answers"] == Value::Bool(true) { "yes" } else { "no" }
        );
        for disk in list(&node["disks"]) {
            let report = &disk["report"];
            println!(
                "  disk {:<34}{:<10}{:<8}{:>12} free of {:<12}{:>10} shards  {}",
                text(&disk["id"]),
                text(&disk["state"]),
                text(&report["health"]),
                size(&report["available_bytes"]),
                size(&report["total_bytes"]),
                report["shards"].as_u64().map_or("-".to_owned(), |shards| shards.to_string()),
                text(&report["path"])
            );
        }
    }
    println!();
    println!("{:<8}{:<36}voters", "group", "leader");
    for group in list(&status["groups"]) {
        let voters: Vec<&str> = list(&group["voters"]).iter().map(text).collect();
        let leader = group["leader"].as_str().unwrap_or("none answers");
        println!("{:<8}{leader:<36}{}", group["id"].as_u64().unwrap_or_default(), voters.len());
    }
    Ok(())
}

fn print_explained(found: &Value) -> anyhow::Result<()> {
    println!("s3://{}/{}", text(&found["bucket"]), text(&found["key"]));
    println!(
        "metadata: index shard {}, slot {}, group {}, leader {}",
        found["index_shard"],
        found["slot"],
        found["group"],
        text(&found["group_leader"])
    );
    for version in list(&found["versions"]) {
        let latest = if version["latest"] == Value::Bool(true) { "  (latest)" } else { "" };
        println!("\nversion {}  {}{latest}", text(&version["version_id"]), text(&version["kind"]));
        let data = &version["data"];
        if data.is_null() {
            continue;
        }
        println!("  {} bytes, etag {}", data["bytes"], text(&data["etag"]));
        for record in list(&data["records"]) {
            if let Some(placed) = record["placed"].as_str() {
                println!("  {} bytes {placed}", record["bytes"]);
            }
            for chunk in list(&record["chunks"]) {
                let lost = &chunk["may_be_lost"];
                println!(
                    "  chunk {}  {} bytes  {}  {} of {} shards readable; bears the loss of {} more disks, {} nodes, {} zones",
                    text(&chunk["chunk"]),
                    chunk["bytes"],
                    text(&chunk["profile"]),
                    chunk["readable_shards"],
                    list(&chunk["shards"]).len(),
                    lost["disks"],
                    lost["nodes"],
                    lost["zones"]
                );
                for shard in list(&chunk["shards"]) {
                    println!(
                        "    {:>2} {:<7}disk {:<34}node {:<34}zone {:<12}{}",
                        shard["slot"].as_u64().unwrap_or_default(),
                        text(&shard["kind"]),
                        text(&shard["disk"]),
                        text(&shard["node"]),
                        text(&shard["zone"]),
                        text(&shard["why"])
                    );
                }
            }
            if record["chunks_omitted"].as_u64().unwrap_or(0) > 0 {
                println!("  ... and {} more chunks", record["chunks_omitted"]);
            }
        }
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Bytes in the largest binary unit that leaves a number of at least one.
fn size(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return "-".to_owned() };
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = bytes as f64;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{scaled:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_binary_units() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(&Value::from(bytes)), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(3 << 40, "3.0 TiB");
        assert_eq!(size(&Value::Null), "-");
    }
}
