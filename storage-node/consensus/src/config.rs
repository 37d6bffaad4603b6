//! How the driver is set up.

use std::path::PathBuf;
use std::time::Duration;

use placement_types::ReplicaId;

/// Plain data; [`Config::new`] gives the values for production.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this node is in every group. Written to `log_dir` at first start; another id is refused later (I12).
    pub replica: ReplicaId,
    /// Directory of the log, made when missing. Nothing else may live in it.
    pub log_dir: PathBuf,
    /// Length of a tick.
    pub tick: Duration,
    /// Ticks without a leader before an election; the real timeout is drawn between this and twice this.
    pub election_ticks: u32,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: u32,
    /// Size of a log segment; a multiple of 4 KiB that holds at least one largest frame.
    pub segment_bytes: u64,
    /// Segments kept for slow followers even when nothing on this node needs them.
    pub segments_kept: usize,
    /// Log bytes after which the state is flushed and the log purged.
    pub flush_bytes: u64,
    /// Memory for recent entries, over all groups. Entries not applied yet are held beyond it.
    pub cache_bytes: usize,
}

impl Config {
    /// A lost leader is replaced within 1 to 3 s: 100 ms ticks, an election after 10 to 20 of them.
    pub fn new(replica: ReplicaId, log_dir: impl Into<PathBuf>) -> Self {
        Self {
            replica,
            log_dir: log_dir.into(),
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            segment_bytes: 64 << 20,
            segments_kept: 3,
            flush_bytes: 48 << 20,
            cache_bytes: 32 << 20,
        }
    }
}
