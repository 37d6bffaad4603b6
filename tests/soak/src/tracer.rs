//! `strace` on a running process, making its system calls fail or lie.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::command::run;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// Every fdatasync fails with EIO.
    FailSync,
    /// Every fdatasync of the given files succeeds without being done.
    LieAboutSync,
}

pub struct Tracer {
    child: Child,
    output: PathBuf,
}

impl Tracer {
    /// Attaches to all threads of a process, and returns once it has them.
    ///
    /// # Errors
    /// When there is no strace, or it may not.
    pub fn attach(pid: u32, injection: Injection, files: &[PathBuf], dir: &Path) -> anyhow::Result<Self> {
        let output = dir.join(format!("strace-{pid}"));
        let said = dir.join(format!("strace-{pid}-said"));
        let inject = match injection {
            Injection::FailSync => "inject=fdatasync:error=EIO",
            Injection::LieAboutSync => "inject=fdatasync:retval=0",
        };
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=fdatasync", "-e", inject, "-o"]).arg(&output).args(["-p", &pid.to_string()]);
        for file in files {
            command.arg("-P").arg(file);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said)?)
            .spawn()
            .context("cannot run strace")?;
        let mut tracer = Self { child, output };
        for _ in 0..200 {
            if fs::read_to_string(&said)?.contains("attached") {
                return Ok(tracer);
            }
            if tracer.child.try_wait()?.is_some() {
                bail!("strace ended: {}", fs::read_to_string(&said)?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("strace did not attach within four seconds")
    }

    /// Detaches. Returns how many calls were tampered with.
    ///
    /// # Errors
    /// When its output cannot be read.
    pub fn stop(mut self) -> anyhow::Result<u64> {
        self.detach();
        let text = fs::read_to_string(&self.output)?;
        Ok(text.lines().filter(|line| line.contains("(INJECTED)")).count() as u64)
    }

    /// SIGINT makes it let the process go; killed, it would leave it stopped.
    fn detach(&mut self) {
        let _ = run(&["kill", "-INT", &self.child.id().to_string()]);
        let _ = self.child.wait();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.detach();
        }
    }
}
