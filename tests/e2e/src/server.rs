//! An embedded server on a directory of its own.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::process::Process;
use crate::{ACCESS_KEY, SECRET_KEY};

/// `dozo server`, with its data in a temporary directory that outlives restarts.
pub struct Server {
    pub dir: TempDir,
    disks: usize,
    process: Option<Process>,
    s3: String,
    admin: String,
}

impl Server {
    /// Starts on `disks` fresh data directories.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start(disks: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        for disk in 0..disks {
            std::fs::create_dir(dir.path().join(format!("disk{disk}")))?;
        }
        let mut server = Self { dir, disks, process: None, s3: String::new(), admin: String::new() };
        server.restart()?;
        Ok(server)
    }

    pub fn disk(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("disk{number}"))
    }

    /// Starts again over the same data, after [`Server::kill`] or by ending the running process first.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = None;
        let disks: Vec<String> = (0..self.disks).map(|disk| self.disk(disk).display().to_string()).collect();
        let mut arguments = vec!["server", "--s3-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];
        arguments.extend(disks.iter().map(String::as_str));
        let variables = [("DOZO_ROOT_ACCESS_KEY", ACCESS_KEY), ("DOZO_ROOT_SECRET_KEY", SECRET_KEY)];
        let log = self.dir.path().join("server.log");
        let (process, ready) = Process::start(&arguments, &variables, &log, Duration::from_secs(30))?;
        let field = |name: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {ready:?}")).to_owned()
        };
        self.s3 = field("s3=");
        self.admin = field("admin=");
        self.process = Some(process);
        Ok(())
    }

    /// Restarts with further fresh data directories.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn restart_with(&mut self, disks: usize) -> anyhow::Result<()> {
        for disk in self.disks..disks {
            std::fs::create_dir(self.disk(disk))?;
        }
        self.disks = disks;
        self.restart()
    }

    /// Overwrites every shard on a disk with zeros.
    ///
    /// # Errors
    /// When the disk holds no shard, or cannot be written.
    pub fn wipe(&self, number: usize) -> anyhow::Result<()> {
        let segments = self.disk(number).join("disk/segments");
        let mut wiped = 0;
        for entry in std::fs::read_dir(&segments)? {
            let path = entry?.path();
            let bytes = std::fs::metadata(&path)?.len();
            let file = std::fs::File::options().write(true).open(&path)?;
            file.set_len(0)?;
            file.set_len(bytes)?;
            wiped += 1;
        }
        anyhow::ensure!(wiped > 0, "there was nothing to wipe in {}", segments.display());
        Ok(())
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs")
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// `http://127.0.0.1:PORT`.
    pub fn s3(&self) -> &str {
        &self.s3
    }

    pub fn admin(&self) -> &str {
        &self.admin
    }

    pub fn client(&self) -> Client {
        Client::new(&self.s3)
    }
}
