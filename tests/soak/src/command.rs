//! Programs of the operating system.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// When it fails: the message has what it complained about.
pub fn run(words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", words[0]))?;
    if !output.status.success() {
        bail!("{words:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
