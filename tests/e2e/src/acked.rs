//! Writes that go on while something fails, and what they were promised.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::client::Client;

/// `writer.py` at work: it writes objects one after the other and tells of each that was acknowledged.
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
    /// The longest time between two acknowledgements, or after the last.
    pub pause_max: Duration,
    /// What it wrote to standard error: the requests that failed.
    pub errors: String,
}

impl Writer {
    /// Starts writing below `prefix`, for so many seconds.
    ///
    /// # Errors
    /// When Python cannot be started.
    pub fn start(client: &Client, bucket: &str, prefix: &str, seconds: u32) -> anyhow::Result<Self> {
        let mut child = client.python_start("writer.py", &[bucket, prefix, &seconds.to_string()])?;
        let output = child.stdout.take().context("standard output is piped")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send((Instant::now(), line));
            }
        });
        Ok(Self { child, lines, acked: Vec::new() })
    }

    /// Until writing is under way: so many objects were acknowledged.
    ///
    /// # Errors
    /// When it ends before that.
    pub fn wait_acked(&mut self, count: usize) -> anyhow::Result<()> {
        while self.acked.len() < count {
            self.acked.push(self.lines.recv().context("the writer ended early")?);
        }
        Ok(())
    }

    /// Waits until its time is over.
    ///
    /// # Errors
    /// When it did not end well, or nothing at all was acknowledged.
    pub fn finish(mut self) -> anyhow::Result<Written> {
        self.acked.extend(self.lines.iter());
        let ended = Instant::now();
        let mut errors = String::new();
        self.child.stderr.take().context("standard error is piped")?.read_to_string(&mut errors)?;
        let status = self.child.wait()?;
        if !status.success() || self.acked.is_empty() {
            bail!("the writer ended with {status} after {} acknowledgements:\n{errors}", self.acked.len());
        }
        let times = self.acked.iter().map(|(at, _)| *at);
        let pause_max = times.clone().zip(times.skip(1).chain([ended])).map(|(from, to)| to - from).max().unwrap_or_default();
        let acked = self.acked.iter().map(|(_, line)| format!("{line}\n")).collect();
        Ok(Written { acked, count: self.acked.len(), pause_max, errors })
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
