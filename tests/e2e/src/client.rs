//! Clients: the aws cli, boto3 scripts, rclone, restic, s3cmd, raw HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::binary;
use crate::{ACCESS_KEY, SECRET_KEY};

/// Runs clients against one endpoint.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: String,
    access_key: String,
    secret_key: String,
}

impl Client {
    /// With the keys of the processes that these tests start.
    pub fn new(endpoint: &str) -> Self {
        Self::with_keys(endpoint, ACCESS_KEY, SECRET_KEY)
    }

    pub fn with_keys(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let [endpoint, access_key, secret_key] = [endpoint, access_key, secret_key].map(str::to_owned);
        Self { endpoint, access_key, secret_key }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("AWS_ACCESS_KEY_ID", &self.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret_key)
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_MAX_ATTEMPTS", "10")
            .env("AWS_RETRY_MODE", "standard")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("AWS_CA_BUNDLE")
            .env_remove("AWS_PROFILE");
        command
    }

    /// Runs the aws cli and returns its standard output.
    ///
    /// # Errors
    /// When it fails: the message has its standard error.
    pub fn aws(&self, arguments: &[&str]) -> anyhow::Result<String> {
        succeed(self.command("aws").args(arguments).output().context("cannot run the aws cli")?, arguments)
    }

    /// Runs rclone, to which the server is the remote `dozo:`, and returns its standard output.
    ///
    /// # Errors
    /// When it fails: the message has its standard error.
    pub fn rclone(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command("rclone");
        command
            .env("RCLONE_CONFIG", "/dev/null")
            .env("RCLONE_CONFIG_DOZO_TYPE", "s3")
            .env("RCLONE_CONFIG_DOZO_PROVIDER", "Other")
            .env("RCLONE_CONFIG_DOZO_ENV_AUTH", "true")
            .env("RCLONE_CONFIG_DOZO_REGION", "us-east-1")
            .env("RCLONE_CONFIG_DOZO_ENDPOINT", &self.endpoint)
            // A failure is to be seen, not to be repeated until it is gone.
            .env("RCLONE_RETRIES", "1")
            .env("RCLONE_LOW_LEVEL_RETRIES", "1");
        succeed(command.args(arguments).output().context("cannot run rclone")?, arguments)
    }

    /// Runs restic on the repository of a bucket and returns its standard output.
    ///
    /// # Errors
    /// When it fails: the message has its standard error.
    pub fn restic(&self, bucket: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command("restic");
        command
            .env("RESTIC_REPOSITORY", format!("s3:{}/{bucket}", self.endpoint))
            .env("RESTIC_PASSWORD", "e2e")
            .arg("--no-cache");
        succeed(command.args(arguments).output().context("cannot run restic")?, arguments)
    }

    /// Runs s3cmd as it is before anybody configured more than the endpoint, and returns its standard output.
    ///
    /// # Errors
    /// When it fails: the message has its standard error.
    pub fn s3cmd(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let host = self.endpoint.strip_prefix("http://").context("not an http endpoint")?;
        let mut command = self.command("s3cmd");
        command.args(["--config=/dev/null", "--no-ssl", "--no-progress", "--host", host, "--host-bucket", host]);
        succeed(command.args(arguments).output().context("cannot run s3cmd")?, arguments)
    }

    /// Runs a script of `tests/e2e/clients` with Python and returns its standard output.
    ///
    /// # Errors
    /// When it fails: the message has its standard error.
    pub fn python(&self, script: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let path = script_path(script);
        succeed(self.command("python3").arg(&path).args(arguments).output().context("cannot run python3")?, &[script])
    }

    /// Starts a script without waiting for it.
    ///
    /// # Errors
    /// When Python cannot be started.
    pub fn python_start(&self, script: &str, arguments: &[&str]) -> anyhow::Result<std::process::Child> {
        let mut command = self.command("python3");
        command.arg(script_path(script)).args(arguments);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().context("cannot run python3")
    }

    /// Runs `dozo` itself as a client.
    ///
    /// # Errors
    /// When it fails: the message has its standard error.
    pub fn dozo(&self, arguments: &[&str]) -> anyhow::Result<String> {
        succeed(self.command(binary()).args(arguments).output().context("cannot run dozo")?, arguments)
    }

    /// Runs `dozo admin` against an admin endpoint.
    ///
    /// # Errors
    /// When it fails: the message has what it said.
    pub fn admin(&self, endpoint: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.dozo(&[["admin", "--admin-endpoint", endpoint].as_slice(), arguments].concat())
    }

    /// Waits until every group was surveyed by the newest map and nothing is left to repair, to code anew or to move.
    ///
    /// # Errors
    /// When that takes longer than `limit`: the message has the last status.
    pub fn wait_settled(&self, endpoint: &str, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut quiet = 0;
        loop {
            let status: Value = serde_json::from_str(&self.admin(endpoint, &["--json", "status"])?)?;
            let upkeep = &status["upkeep"];
            let idle = ["lost", "leaving", "outdated", "misplaced"].iter().all(|work| upkeep[work]["shards"] == 0);
            let surveyed = upkeep["groups_not_surveyed"].as_array().is_some_and(Vec::is_empty);
            // The ring settles in steps; a step makes a new epoch, and so a survey that is not there yet.
            quiet = if idle && surveyed { quiet + 1 } else { 0 };
            if quiet >= 3 {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("not settled after {limit:?}: {upkeep:#}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn script_path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script)
}

fn succeed(output: Output, what: &[&str]) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{what:?} ended with {}:\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// What came back on a raw connection until it was closed or fell silent.
#[derive(Debug)]
pub struct RawReply {
    pub text: String,
    /// Whether the server closed the connection.
    pub closed: bool,
}

impl RawReply {
    /// The status of the first reply, 0 if none came.
    pub fn status(&self) -> u16 {
        self.text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }
}

/// Sends bytes to `http://host:port` and reads until the server closes or nothing comes for two seconds.
///
/// # Errors
/// When no connection can be made.
pub fn raw_http(endpoint: &str, request: &[u8]) -> anyhow::Result<RawReply> {
    let address = endpoint.strip_prefix("http://").context("not an http endpoint")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // The server may refuse and close before it has read everything.
    let _ = stream.write_all(request);
    let mut reply = Vec::new();
    let mut piece = [0; 8192];
    let closed = loop {
        match stream.read(&mut piece) {
            Ok(0) => break true,
            Ok(read) => reply.extend_from_slice(&piece[..read]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => break false,
            Err(_) => break true,
        }
    };
    Ok(RawReply { text: String::from_utf8_lossy(&reply).into_owned(), closed })
}
