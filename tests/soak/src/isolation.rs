//! A world of its own for the soak: network, processes and mounts in namespaces that the kernel takes down with it, however it
//! ends.

use std::env;
use std::process::{Command, ExitCode};

use crate::command::run;

/// Set for the process inside.
const INSIDE: &str = "SOAK_ISOLATED";

/// What the directories of all soaks are called, with the process that made them.
const PREFIX: &str = "dozo-soak-";

/// What this process may do to its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surroundings {
    /// Namespaces of our own: interfaces, packet filters and mounts are nobody else's.
    Own,
    /// Those of the machine: nothing but files and processes may be touched.
    Shared,
}

/// Where this process is.
pub fn surroundings() -> Surroundings {
    if env::var_os(INSIDE).is_some() { Surroundings::Own } else { Surroundings::Shared }
}

/// Runs this program again inside, if that is possible here, and returns how it ended.
pub fn enter() -> Option<ExitCode> {
    if surroundings() == Surroundings::Own {
        return None;
    }
    let namespaces = ["--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"];
    let possible = run(&[["unshare"].as_slice(), &namespaces, &["ip", "link", "set", "lo", "up"]].concat());
    if let Err(why) = possible {
        eprintln!("soak: SKIPPED power cuts and partitions: no namespaces here ({why:#})");
        return None;
    }
    // Removed when the process inside is gone, also when it could not do that itself.
    remove_leftovers();
    let dir = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir().ok()?;
    // Killed with this process, whatever kills it; and everything inside with it.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(namespaces)
        .arg(env::current_exe().ok()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("TMPDIR", dir.path())
        .status();
    Some(match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: cannot start inside namespaces: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Removes what soaks left that were killed before they could: images take space.
fn remove_leftovers() {
    for entry in std::fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
