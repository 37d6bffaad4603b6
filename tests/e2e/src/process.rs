//! One `dozo` process.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The `dozo` binary that was built beside this test.
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("dozo");
    assert!(path.is_file(), "{} is missing: run `cargo build --bin dozo` first", path.display());
    path
}

/// A port of 127.0.0.1 that nothing listens on. Somebody else may take it before it is used; callers that can, let the
/// process choose with port 0 instead.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `dozo` with these arguments and variables; standard error goes to `log`. Returns the process and its first line
    /// of standard output that begins with `ready `.
    ///
    /// # Errors
    /// When the process ends, or stays silent for `limit`: the message has the end of its log.
    pub fn start(arguments: &[&str], variables: &[(&str, &str)], log: &Path, limit: Duration) -> anyhow::Result<(Self, String)> {
        Self::start_under(&[], arguments, variables, log, limit)
    }

    /// The same behind a program that becomes `dozo` in the end, such as `nsenter ...`, so that the pid is its own.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_under(
        wrapper: &[String],
        arguments: &[&str],
        variables: &[(&str, &str)],
        log: &Path,
        limit: Duration,
    ) -> anyhow::Result<(Self, String)> {
        let errors = File::options().create(true).append(true).open(log)?;
        let words: Vec<OsString> = wrapper.iter().map(OsString::from).chain([binary().into_os_string()]).collect();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot start dozo")?;
        let output = child.stdout.take().expect("standard output is piped");
        let (sender, lines) = mpsc::channel();
        // Reads on after the ready line, so that the process never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut process = Self { child, log: log.to_owned() };
        let end = Instant::now() + limit;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("ready ") => return Ok((process, line)),
                Ok(_) => {}
                Err(_) => {
                    let state = match process.child.try_wait()? {
                        Some(status) => format!("ended with {status}"),
                        None => format!("was not ready after {limit:?}"),
                    };
                    bail!("dozo {arguments:?} {state}; its log ends:\n{}", process.log_tail());
                }
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When the process is still there after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> anyhow::Result<std::process::ExitStatus> {
        self.signal("TERM")?;
        self.wait_end(limit)
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// When it is still there after `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the process did not end within {limit:?}; its log ends:\n{}", self.log_tail())
    }

    /// Sends a signal by name (`STOP`, `CONT`, `TERM`).
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status()?;
        if !status.success() {
            bail!("kill -{name} failed");
        }
        Ok(())
    }

    /// The most memory the process has had resident, in bytes.
    pub fn peak_rss_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
        let kilobytes: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kilobytes * 1024)
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
