//! `dozo admin`: looks into a running cluster, and changes it, through its admin listener.

mod layout;
mod print;
mod recover;
mod verify;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use self::layout::LayoutArgs;
use self::print::{print_applied, print_explained, print_json, print_plan, print_risk, print_status, text};
use self::recover::RecoverArgs;
use self::verify::VerifyArgs;
use super::bench::CredentialArgs;
use super::units::parse_seconds;
use crate::client::{Endpoint, S3Client};
use crate::config::Settings;

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
    /// Nodes, disks, metadata groups and their leaders, redundancy, capacity; repair, re-coding and rebalance under way
    Status,
    /// What would be lost or unreadable if one more disk, node or zone failed now
    Risk,
    /// Show what a change of the cluster would move, without making it
    Plan(LayoutArgs),
    /// Make a change of the cluster: take disks in, drain, keep, weigh or remove them, remove a node, set the profile
    Apply(LayoutArgs),
    /// Change a setting of the whole cluster
    #[command(group(clap::ArgGroup::new("setting").required(true).multiple(true)))]
    Set {
        /// How long a node may be down, or a disk dead, before its shards are rebuilt elsewhere, such as 10m or 36h
        #[arg(long, value_name = "TIME", value_parser = parse_seconds, group = "setting")]
        rebuild_after: Option<u64>,

        /// Within which time every shard on every disk is read and checked once, such as 14d
        #[arg(long, value_name = "TIME", value_parser = parse_seconds, group = "setting")]
        scrub_cycle: Option<u64>,
    },
    /// Read every shard of a bucket's objects, say what is bad, and sign a summary; fails when anything is bad or unknown
    Verify(VerifyArgs),
    /// Bring a cluster back that has lost the majority of a metadata group for ever; for stopped nodes, never by itself
    Recover(RecoverArgs),
    /// Where an object's shards are, why there, and what may be lost before it is unreadable
    Explain {
        /// s3://bucket/key
        object: String,
    },
}

pub fn run(args: AdminArgs, settings: impl FnOnce() -> anyhow::Result<Settings>) -> anyhow::Result<()> {
    let env = placement_env::system();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connect = || {
        let endpoint = Endpoint::parse(&args.admin_endpoint)?;
        let keys = args.credentials.keys(&env, settings)?;
        let signer = args.credentials.signer_of(&keys.0, &keys.1);
        anyhow::Ok((S3Client::new(env.clone(), endpoint, signer), keys))
    };
    match &args.command {
        // Of stopped nodes: there is nobody to ask.
        AdminCommand::Recover(recover) => runtime.block_on(recover::run(&env, recover, args.json)),
        AdminCommand::Status => {
            let status = runtime.block_on(ask(&connect()?.0, "/admin/v1/status", &[]))?;
            if args.json { print_json(&status) } else { print_status(&status) }
        }
        AdminCommand::Risk => {
            let risk = runtime.block_on(ask(&connect()?.0, "/admin/v1/risk", &[]))?;
            if args.json { print_json(&risk) } else { print_risk(&risk) }
        }
        AdminCommand::Plan(layout) => {
            let plan = runtime.block_on(ask(&connect()?.0, "/admin/v1/layout/plan", &layout.query()))?;
            if args.json { print_json(&plan) } else { print_plan(&plan, &layout.words()) }
        }
        AdminCommand::Apply(layout) => {
            let applied = runtime.block_on(send(&connect()?.0, Method::POST, "/admin/v1/layout/apply", &layout.query()))?;
            if args.json { print_json(&applied) } else { print_applied(&applied) }
        }
        AdminCommand::Set { rebuild_after, scrub_cycle } => {
            let settings = [("rebuild_after_seconds", rebuild_after), ("scrub_cycle_seconds", scrub_cycle)];
            let query: Vec<(&str, String)> =
                settings.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?.to_string()))).collect();
            let applied = runtime.block_on(send(&connect()?.0, Method::POST, "/admin/v1/settings", &query))?;
            if args.json {
                return print_json(&applied);
            }
            println!("done");
            Ok(())
        }
        AdminCommand::Verify(verify) => {
            let (client, (access_key, secret_key)) = connect()?;
            runtime.block_on(verify::run(verify, &env, &client, (&access_key, &secret_key), args.json))
        }
        AdminCommand::Explain { object } => {
            let (bucket, key) = object
                .strip_prefix("s3://")
                .and_then(|rest| rest.split_once('/'))
                .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
                .with_context(|| format!("{object:?} is not s3://bucket/key"))?;
            let query = [("bucket", bucket.to_owned()), ("key", key.to_owned())];
            let found = runtime.block_on(ask(&connect()?.0, "/admin/v1/explain", &query))?;
            if args.json { print_json(&found) } else { print_explained(&found) }
        }
    }
}

async fn ask(client: &S3Client, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
    send(client, Method::GET, path, query).await
}

async fn send(client: &S3Client, method: Method, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply = client.send(method, path, &query, Bytes::new()).await?;
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    if reply.status != 200 {
        bail!("the server answered {}: {}", reply.status, text(&answer["message"]));
    }
    Ok(answer)
}
