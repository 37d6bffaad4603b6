//! What a process is told: TOML file < environment < flags.
//!
//! One set of settings serves all roles; a role ignores what is not its own. Every option has a user who would set it,
//! everything else is a constant in some `limits.rs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Deserializer, Serialize};

pub const S3_ADDRESS_DEFAULT: &str = "127.0.0.1:9000";
pub const ADMIN_ADDRESS_DEFAULT: &str = "127.0.0.1:9001";
pub const INTERNAL_ADDRESS_DEFAULT: &str = "0.0.0.0:9100";
pub const REGION_DEFAULT: &str = "us-east-1";

/// Every option, as the file, the environment (`DOZO_` and the name in capitals) or a flag gives it.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to listen for S3 requests; port 0 picks a free one [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_addr: Option<String>,

    /// Where to listen for health checks, metrics and `dozo admin` [default: 127.0.0.1:9001]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_addr: Option<String>,

    /// Where a storage node listens for its peers and gateways [default: 0.0.0.0:9100]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,

    /// The address under which peers reach this node [default: this host's name and the port of --listen]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,

    /// A data directory, one for each disk; may be repeated
    #[arg(long = "data", value_name = "DIR", value_delimiter = ',')]
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub data: Vec<String>,

    /// Internal addresses of the storage nodes, the same list for every process
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub peers: Vec<String>,

    /// How many storage nodes found the cluster [default: the number of peers]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<u32>,

    /// Join the cluster that --peers belong to, instead of founding one; the new node holds nothing until `dozo admin apply
    /// take-in`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", conflicts_with = "expect")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<bool>,

    /// The first data directory was moved here while the node was stopped, and nothing was started with the old one since: for
    /// one start. Never with a copy whose original may still run
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<bool>,

    /// The failure domain of this node: a rack, a room, a site [default: "default"]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,

    /// Erasure-coding profile k+m of a new cluster [default: chosen from the number of nodes and disks]
    #[arg(long, value_name = "K+M")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,

    /// The file that holds the cluster secret, the same on every process of a cluster
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_secret_file: Option<PathBuf>,

    /// Access key of the root user; better set in DOZO_ROOT_ACCESS_KEY or a file
    #[arg(long, value_name = "KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_access_key: Option<String>,

    /// The file that holds the root user's access key
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_access_key_file: Option<PathBuf>,

    /// Secret key of the root user, at least 16 characters. Environment or file only: a flag would show in `ps`
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_secret_key: Option<String>,

    /// The file that holds the root user's secret key
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_secret_key_file: Option<PathBuf>,

    /// The region clients sign for and buckets report [default: us-east-1]
    #[arg(long, value_name = "REGION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,

    /// A domain whose subdomains are bucket names (virtual-host style); may be repeated
    #[arg(long = "domain", value_name = "NAME", value_delimiter = ',')]
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub domains: Vec<String>,

    /// TLS certificate chain of the S3 listener, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,

    /// TLS private key of the S3 listener, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,

    /// Whether presigned GET and PUT URLs with signature version 2 are accepted [default: true]
    #[arg(long, value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigv2_presigned: Option<bool>,

    /// What to log: `error`, `warn`, `info`, `debug`, or a tracing filter [default: info]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,

    /// `text`, `json`, or `auto`: text on a terminal, JSON otherwise [default: auto]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
}

/// A list is written `["a", "b"]` in the file and `a,b` in the environment.
fn list<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let split = |text: String| text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    OneOrMany::deserialize(input).map(|value| match value {
        OneOrMany::One(text) => split(text),
        OneOrMany::Many(list) => list,
    })
}

impl Settings {
    /// Merges the file (when given), the environment, and these flags.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong kind, an unreadable file: the message names the source.
    pub fn load(file: Option<&Path>, flags: &Settings) -> anyhow::Result<Settings> {
        let mut figment = Figment::new();
        if let Some(file) = file {
            if !file.is_file() {
                bail!("the configuration file {} does not exist or is not a file", file.display());
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        figment
            // These two are read by the command line: the first names the file itself, the second is of `dozo admin`.
            .merge(Env::prefixed("DOZO_").ignore(&["config", "admin_endpoint"]))
            .merge(Serialized::defaults(flags))
            .extract()
            .context("the configuration is not valid (sources: file, DOZO_* environment variables, flags)")
    }

    /// The settings in effect as TOML, defaults filled in, secrets redacted.
    pub fn describe(&self) -> anyhow::Result<String> {
        let mut shown = self.clone();
        shown.s3_addr.get_or_insert_with(|| S3_ADDRESS_DEFAULT.to_owned());
        shown.admin_addr.get_or_insert_with(|| ADMIN_ADDRESS_DEFAULT.to_owned());
        shown.region.get_or_insert_with(|| REGION_DEFAULT.to_owned());
        shown.sigv2_presigned.get_or_insert(true);
        shown.log.get_or_insert_with(|| "info".to_owned());
        shown.log_format.get_or_insert_with(|| "auto".to_owned());
        if shown.root_secret_key.is_some() {
            shown.root_secret_key = Some("(redacted)".to_owned());
        }
        Ok(toml::to_string(&shown)?)
    }

    pub fn s3_address(&self) -> &str {
        self.s3_addr.as_deref().unwrap_or(S3_ADDRESS_DEFAULT)
    }

    pub fn admin_address(&self) -> &str {
        self.admin_addr.as_deref().unwrap_or(ADMIN_ADDRESS_DEFAULT)
    }

    pub fn internal_address(&self) -> &str {
        self.listen.as_deref().unwrap_or(INTERNAL_ADDRESS_DEFAULT)
    }

    pub fn region(&self) -> &str {
        self.region.as_deref().unwrap_or(REGION_DEFAULT)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_unknown_names_are_refused() {
        let dir = std::env::temp_dir().join(format!("dozo-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("dozo.toml");
        std::fs::write(&file, "region = \"eu-west-1\"\nzone = \"a\"\npeers = [\"n1:9100\", \"n2:9100\"]\n").unwrap();
        let flags = Settings { zone: Some("b".to_owned()), ..Settings::default() };
        let settings = Settings::load(Some(&file), &flags).unwrap();
        assert_eq!((settings.region(), settings.zone.as_deref()), ("eu-west-1", Some("b")));
        assert_eq!(settings.peers, ["n1:9100", "n2:9100"]);

        std::fs::write(&file, "regoin = \"eu-west-1\"\n").unwrap();
        let error = format!("{:#}", Settings::load(Some(&file), &flags).unwrap_err());
        assert!(error.contains("regoin"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_secret_key_is_never_described() {
        let settings = Settings { root_secret_key: Some("correct horse battery".to_owned()), ..Settings::default() };
        let text = settings.describe().unwrap();
        assert!(!text.contains("horse") && text.contains("(redacted)"), "{text}");
    }
}
