//! The seam between Dozo and the machine: clock, randomness, network, file system, tasks.
//!
//! Everything that is not a pure function takes an [`Env`]. Production passes `placement_env::system()`, the simulation its
//! own; clippy refuses the std and tokio equivalents everywhere else. This is what lets a whole cluster run in one process
//! from one seed.
//!
//! - File operations block: call them inside [`Env::run_blocking`], never on the reactor.
//! - Every spawned task belongs to a [`TaskHandle`]; dropping the handle aborts the task, so nobody leaks one by forgetting it.
//! - All of it may be called from any task; nothing here holds a lock across an await.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::time::Timestamp;
use crate::waypoint::{Watcher, Waypoint};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
pub type BoxStream = Box<dyn Stream>;

/// Everything Dozo asks of the machine. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub net: Arc<dyn Net>,
    pub fs: Arc<dyn Fs>,
    pub tasks: Arc<dyn Tasks>,
    /// Nobody, in production.
    pub watcher: Option<Arc<dyn Watcher>>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

/// Time. Wall-clock time is for showing and for expiry, monotonic time for everything else.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;

    /// Time since some fixed point in this process's life; never goes back.
    fn monotonic(&self) -> Duration;

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Unpredictable bytes (in production: the operating system's generator).
pub trait Random: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

/// A byte stream between two processes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Addresses are texts, `host:port`, resolved when they are used.
#[async_trait::async_trait]
pub trait Net: Send + Sync {
    async fn connect(&self, address: &str) -> io::Result<BoxStream>;

    /// Port 0 asks for a free one; [`Listener::local_address`] tells which.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}

#[async_trait::async_trait]
pub trait Listener: Send {
    /// The next connection and its peer's address. An error is about that one connection: keep accepting.
    async fn accept(&mut self) -> io::Result<(BoxStream, String)>;

    /// `ip:port`, with the port really bound.
    fn local_address(&self) -> String;
}

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A file that must not exist yet, to read and write, readable by its owner only.
    CreateNew,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    pub path: PathBuf,
    pub is_dir: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMetadata {
    pub bytes: u64,
    pub is_dir: bool,
    /// Identifies the mounted file system, so that a vanished mount is noticed (D23).
    pub device: u64,
    /// Tells a file or directory from a copy of it: when it was made, where the file system knows, else its inode number with
    /// the highest bit set. What copies a whole file system keeps it.
    pub birthmark: u64,
}

/// Room on the file system that holds a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

/// A file system. All calls block. Directory listings are sorted by name. Nothing is durable before [`File::sync_data`] (for
/// bytes) and [`Fs::sync_dir`] (for names) returned `Ok`; after an error of either the disk is to be treated as dead (I14).
pub trait Fs: Send + Sync {
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// `Ok(None)` when nothing is there.
    fn metadata(&self, path: &Path) -> io::Result<Option<FileMetadata>>;
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes the exclusive lock of a file (made when missing); held until the guard is dropped. `WouldBlock` when another
    /// process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file, positioned by each call. Concurrent calls are fine; overlapping writes are the caller's mistake.
pub trait File: Send + Sync {
    /// Reads up to `bytes.len()`; 0 only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reserves blocks and extends the length to at least `offset + bytes`.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives blocks back; the range reads as zeros. Silently keeps them where the file system cannot.
    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// `fdatasync`: bytes and length are durable.
    fn sync_data(&self) -> io::Result<()>;

    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|bytes| bytes == 0)
    }

    /// Fills `bytes` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

impl dyn Fs {
    /// The whole of a small file. A file longer than `bytes_max` is `InvalidData`, not an allocation.
    pub fn read_small(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let length = file.len()?;
        if length > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is larger than it can legally be"));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces a small file atomically and durably: write a sibling, fsync it, rename it, fsync the directory. After a crash
    /// the old or the new content is there, whole.
    pub fn replace_durably(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let temporary = path.with_extension("tmp");
        if self.metadata(&temporary)?.is_some() {
            self.remove_file(&temporary)?;
        }
        let file = self.open(&temporary, OpenMode::CreateNew)?;
        file.write_at(content, 0)?;
        file.sync_data()?;
        self.rename(&temporary, path)?;
        self.sync_dir(dir)
    }
}

/// Runs futures and blocking closures.
pub trait Tasks: Send + Sync {
    /// Starts a task; the returned handle aborts it when dropped.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle;

    /// Runs a closure that may block, away from the reactor. It runs to its end even if the future is dropped.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// A running task. Dropping it aborts the task at its next await; [`TaskHandle::join`] waits for the end.
pub struct TaskHandle {
    abort: Option<Box<dyn FnOnce() + Send + Sync>>,
    ended: BoxFuture<'static, ()>,
}

impl TaskHandle {
    /// `abort` stops the task; `ended` resolves when it no longer runs, whatever ended it.
    pub fn new(abort: Box<dyn FnOnce() + Send + Sync>, ended: BoxFuture<'static, ()>) -> Self {
        Self { abort: Some(abort), ended }
    }

    /// Waits until the task has ended by itself.
    pub async fn join(mut self) {
        (&mut self.ended).await;
        self.abort = None;
    }

    /// Stops the task and waits until it has ended.
    pub async fn stop(mut self) {
        if let Some(abort) = self.abort.take() {
            abort();
        }
        (&mut self.ended).await;
    }

    /// Lets the task run on with nobody waiting for it. Only for work that must outlive its requester, such as a commit whose
    /// client went away.
    pub fn detach(mut self) {
        self.abort = None;
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        if let Some(abort) = self.abort.take() {
            abort();
        }
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskHandle")
    }
}

/// The time allowed for something ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time allowed ran out")]
pub struct Elapsed;

impl Env {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    pub async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// Runs `work` for at most `limit`; past it `work` is dropped where it waits.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            value = work => Ok(value),
            () = self.clock.sleep(limit) => Err(Elapsed),
        }
    }

    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        self.tasks.spawn(name, Box::pin(task))
    }

    /// Runs blocking `work` away from the reactor and returns its result.
    ///
    /// # Panics
    /// When `work` panicked, or the runtime is shutting down and refused it.
    pub async fn run_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        self.tasks
            .run_blocking(Box::new(move || {
                let _ = sender.send(work());
            }))
            .await;
        receiver.await.expect("the blocking closure ran to its end")
    }

    /// Says that an operation has come to a point at which the process might die.
    pub async fn pass(&self, waypoint: Waypoint) {
        if let Some(watcher) = &self.watcher {
            watcher.pass(waypoint).await;
        }
    }

    /// [`Env::pass`] for what goes through a stream.
    pub async fn passed<T>(self, waypoint: Waypoint, value: T) -> T {
        self.pass(waypoint).await;
        value
    }

    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    pub fn random_u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        u128::from_be_bytes(bytes)
    }

    /// Uniform in `0..bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn random_below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no random element");
        // Multiply-shift: the bias is below 2^-64 x bound, far under anything these uses could notice.
        ((u128::from(self.random_u64()) * u128::from(bound)) >> 64) as u64
    }
}
