//! `dozo bench`.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use gateway_s3::{SecretKey, Signer};
use placement_types::Env;

use super::units::parse_bytes;
use crate::bench::{Keep, Plan, Workload, run as run_bench};
use crate::client::{Endpoint, S3Client};
use crate::config::{REGION_DEFAULT, Settings};
use crate::credentials::RootCredentials;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    workload: Workload,

    /// The S3 endpoint
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000")]
    endpoint: String,

    /// The bucket to use; made when it is missing
    #[arg(long, value_name = "NAME", default_value = "dozo-bench")]
    bucket: String,

    /// Object size: bytes, or with KiB, MiB, GiB
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = parse_size)]
    size: usize,

    /// Part size of the multipart workload, at least 5MiB
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    part_size: usize,

    /// How many requests are under way at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,

    /// How long to measure, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    duration: u32,

    /// How many objects a reading workload has uploaded before it starts
    #[arg(long, value_name = "N", default_value_t = 1000)]
    objects: u64,

    /// Leave the uploaded objects in the bucket
    #[arg(long)]
    keep: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    credentials: CredentialArgs,
}

/// How a client command signs.
#[derive(Debug, Args)]
pub struct CredentialArgs {
    /// Access key to sign with [default: the root user's, where DOZO_ROOT_ACCESS_KEY or its file names it]
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "KEY")]
    access_key: Option<String>,

    /// Secret key to sign with [default: the root user's, likewise]
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "KEY")]
    secret_key: Option<String>,

    /// Region to sign for
    #[arg(long, env = "AWS_REGION", default_value = REGION_DEFAULT, value_name = "REGION")]
    region: String,
}

impl CredentialArgs {
    /// Signs with the keys given here, else the root user's where the settings name them, as they do in a container of a cluster.
    pub fn signer(&self, env: &Env, settings: impl FnOnce() -> anyhow::Result<Settings>) -> anyhow::Result<Signer> {
        let (access_key, secret_key) = self.keys(env, settings)?;
        Ok(self.signer_of(&access_key, &secret_key))
    }

    pub fn signer_of(&self, access_key: &str, secret_key: &str) -> Signer {
        Signer { access_key: access_key.to_owned(), secret: SecretKey::new(secret_key), region: self.region.clone() }
    }

    /// The access key and the secret key.
    pub fn keys(&self, env: &Env, settings: impl FnOnce() -> anyhow::Result<Settings>) -> anyhow::Result<(String, String)> {
        Ok(match (&self.access_key, &self.secret_key) {
            (Some(access_key), Some(secret_key)) => (access_key.clone(), secret_key.clone()),
            (None, None) => RootCredentials::from_settings(env, &settings()?)?
                .map(|root| (root.access_key, root.secret_key))
                .context("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or --access-key and --secret-key)")?,
            _ => bail!("set both the access key and the secret key to sign with, or neither"),
        })
    }
}

pub fn run(args: BenchArgs, settings: impl FnOnce() -> anyhow::Result<Settings>) -> anyhow::Result<()> {
    if args.workload == Workload::Multipart && args.part_size < 5 << 20 {
        bail!("--part-size must be at least 5MiB: S3 refuses smaller parts");
    }
    let env = placement_env::system();
    let endpoint = Endpoint::parse(&args.endpoint)?;
    let client = S3Client::new(env.clone(), endpoint, args.credentials.signer(&env, settings)?);
    let plan = Plan {
        workload: args.workload,
        endpoint: args.endpoint,
        bucket: args.bucket,
        object_bytes: args.size,
        part_bytes: args.part_size,
        concurrency: usize::from(args.concurrency),
        duration: Duration::from_secs(u64::from(args.duration)),
        objects: args.objects,
        keep: if args.keep { Keep::Objects } else { Keep::Nothing },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run_bench(&env, client, &plan))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).context("the report cannot be written as JSON")?);
    } else {
        println!("{report}");
    }
    if report.operations == 0 {
        bail!("no operation succeeded");
    }
    Ok(())
}

/// An object's or part's size.
fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    usize::try_from(bytes).ok().filter(|bytes| *bytes <= 64 << 30).ok_or_else(|| format!("{text:?} is too large"))
}
