//! Wrong clocks: libfaketime between a process and the time of the day. Monotonic time stays true.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

/// A process notices within this time that its clock was set.
pub const NOTICED_AFTER: Duration = Duration::from_secs(2);

/// What a process takes for the time: it reads a file, so that the time can jump under it.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is wrong by so many seconds; `file` is its own.
    ///
    /// # Errors
    /// When there is no libfaketime, or the file cannot be written.
    pub fn wrong_by(seconds: i64, file: PathBuf) -> anyhow::Result<Self> {
        let clock = Self { library: library()?, file };
        clock.set(seconds)?;
        Ok(clock)
    }

    /// Makes it wrong by so many seconds from now on.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        // By a rename: nobody reads half of it.
        let fresh = self.file.with_extension("fresh");
        fs::write(&fresh, format!("{seconds:+}\n"))?;
        Ok(fs::rename(&fresh, &self.file)?)
    }

    /// Assignments for `env`.
    pub fn variables(&self) -> Vec<String> {
        vec![
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}

/// Where the library is, in the form for programs of several threads.
///
/// # Errors
/// When it is not there.
pub fn library() -> anyhow::Result<PathBuf> {
    let beside = |dir: &Path| dir.join("faketime/libfaketimeMT.so.1");
    let dirs = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let all = dirs.chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
    all.map(|dir| beside(&dir)).find(|path| path.is_file()).context("there is no libfaketime (package faketime)")
}
