//! `strace` on a running process, making its system calls fail, lie or take their time.

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
    /// Every read, write and fsync takes so much longer.
    Delay(Duration),
    /// Nothing is changed: counts what fails because too many files are open.
    CountTooManyFiles,
}

impl Injection {
    fn arguments(self) -> Vec<String> {
        const DISK: &str = "pread64,pwrite64,fsync,fdatasync";
        let (calls, inject) = match self {
            Injection::FailSync => ("fdatasync", Some("error=EIO".to_owned())),
            Injection::LieAboutSync => ("fdatasync", Some("retval=0".to_owned())),
            Injection::Delay(delay) => (DISK, Some(format!("delay_enter={}", delay.as_micros()))),
            Injection::CountTooManyFiles => ("accept4,socket,openat", None),
        };
        let inject = inject.map(|what| ["-e".to_owned(), format!("inject={calls}:{what}")]);
        ["-e".to_owned(), format!("trace={calls}")].into_iter().chain(inject.into_iter().flatten()).collect()
    }

    /// Whether a line of output is about a call that was hit.
    fn is_hit(self, line: &str) -> bool {
        match self {
            Injection::FailSync | Injection::LieAboutSync => line.contains("(INJECTED)"),
            // All are, and of one that was until the end nothing but its beginning is seen.
            Injection::Delay(_) => !line.contains(" resumed>") && !line.contains("+++"),
            Injection::CountTooManyFiles => line.contains("EMFILE"),
        }
    }
}

pub struct Tracer {
    injection: Injection,
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
        let mut command = Command::new("strace");
        command.arg("-f").args(injection.arguments()).arg("-o").arg(&output).args(["-p", &pid.to_string()]);
        for file in files {
            command.arg("-P").arg(file);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said)?)
            .spawn()
            .context("cannot run strace")?;
        let mut tracer = Self { injection, child, output };
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

    /// Detaches. Returns how many calls were hit.
    ///
    /// # Errors
    /// When its output cannot be read.
    pub fn stop(mut self) -> anyhow::Result<u64> {
        self.detach();
        let text = fs::read_to_string(&self.output)?;
        Ok(text.lines().filter(|line| self.injection.is_hit(line)).count() as u64)
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
