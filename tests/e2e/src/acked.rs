//! Writes that go on while something fails, and what they were promised.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::client::Client;

/// How long nothing may be acknowledged before a wait gives up: far more than any test allows.
const SILENCE_LIMIT: Duration = Duration::from_secs(90);

/// Longer than any test; the writer is stopped when the test has seen enough.
const WRITER_SECONDS: &str = "600";

/// `writer.py` at work: it writes objects one after the other and tells of each that was acknowledged. Killed when dropped.
pub struct Writer {
    child: Child,
    lines: Receiver<(Instant, String)>,
    acked: Vec<(Instant, String)>,
}

/// What a writer was told.
pub struct Written {
    /// `key md5 size` of every acknowledged object, one a line.
    pub acked: String,
    pub count: usize,
    /// The longest time between two acknowledgements.
    pub pause_max: Duration,
    /// What it wrote to standard error: the requests that failed.
    pub errors: String,
}

impl Writer {
    /// Starts writing below `prefix`.
    ///
    /// # Errors
    /// When Python cannot be started.
    pub fn start(client: &Client, bucket: &str, prefix: &str) -> anyhow::Result<Self> {
        let mut child = client.python_start("writer.py", &[bucket, prefix, WRITER_SECONDS])?;
        let output = child.stdout.take().context("standard output is piped")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send((Instant::now(), line));
            }
        });
        Ok(Self { child, lines, acked: Vec::new() })
    }

    /// Until so many more objects were acknowledged than before: however slow the machine is, writes are under way then.
    ///
    /// # Errors
    /// When none is for [`SILENCE_LIMIT`]: the message has the requests that failed.
    pub fn wait_acked(&mut self, more: usize) -> anyhow::Result<()> {
        for waited in 0..more {
            match self.lines.recv_timeout(SILENCE_LIMIT) {
                Ok(line) => self.acked.push(line),
                Err(_) => {
                    let errors = self.kill()?;
                    bail!("after {waited} of {more} acknowledgements there was none for {SILENCE_LIMIT:?}:\n{errors}");
                }
            }
        }
        Ok(())
    }

    /// Ends the writing. What was under way then is not acknowledged.
    ///
    /// # Errors
    /// When nothing at all was acknowledged.
    pub fn stop(mut self) -> anyhow::Result<Written> {
        let errors = self.kill()?;
        self.acked.extend(self.lines.iter());
        if self.acked.is_empty() {
            bail!("nothing was acknowledged:\n{errors}");
        }
        let times = self.acked.iter().map(|(at, _)| *at);
        let pause_max = times.clone().zip(times.skip(1)).map(|(from, to)| to - from).max().unwrap_or_default();
        let acked = self.acked.iter().map(|(_, line)| format!("{line}\n")).collect();
        Ok(Written { acked, count: self.acked.len(), pause_max, errors })
    }

    fn kill(&mut self) -> anyhow::Result<String> {
        self.child.kill()?;
        let mut errors = String::new();
        self.child.stderr.take().context("standard error is piped")?.read_to_string(&mut errors)?;
        self.child.wait()?;
        Ok(errors)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sixteen processes create the same key through these gateways in turn; returns the number of the one that won.
///
/// # Errors
/// When one fails in another way than by losing, when not exactly one wins, or when another one's body is stored.
pub fn race_creators(gateways: &[Client], bucket: &str, key: &str) -> anyhow::Result<usize> {
    let gateway = |number: usize| &gateways[number % gateways.len()];
    let racers = (0..16)
        .map(|number| gateway(number).python_start("race_create.py", &[bucket, key, &number.to_string()]))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut winners = Vec::new();
    for (number, racer) in racers.into_iter().enumerate() {
        let output = racer.wait_with_output()?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "won" => winners.push(number),
            "lost" => {}
            _ => bail!("racer {number} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
        }
    }
    let [winner] = winners[..] else { bail!("{winners:?} won") };
    let stored = gateway(winner + 1).aws(&["s3", "cp", "--only-show-errors", &format!("s3://{bucket}/{key}"), "-"])?;
    if stored != winner.to_string() {
        bail!("{winner} won, but the body of {stored} is stored");
    }
    Ok(winner)
}
