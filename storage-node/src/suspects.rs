//! Remembers which disks did not answer in time lately.
//!
//! Between a node's death and the map that says so, and for as long as a disk hangs under a node that lives, every request
//! would wait out the same deadlines again (D21, D22). So a disk that missed one is not waited for by others for a while:
//! reads ask it last, writes go on without it as soon as there is a quorum. After that it is tried again; one request in
//! [`Limits::suspicion`](crate::Limits) pays for finding out.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use placement_types::{DiskId, Env};

/// # Invariants
/// Holds only disks that the cluster map named, so it is as small as the cluster.
pub(crate) struct Suspects {
    env: Env,
    lasts: Duration,
    /// Until when, in monotonic time.
    until: Mutex<BTreeMap<DiskId, Duration>>,
}

impl Suspects {
    pub fn new(env: Env, lasts: Duration) -> Self {
        Self { env, lasts, until: Mutex::default() }
    }

    pub fn add(&self, disk: DiskId) {
        let until = self.env.monotonic() + self.lasts;
        self.until.lock().insert(disk, until);
    }

    /// It answered.
    pub fn clear(&self, disk: DiskId) {
        self.until.lock().remove(&disk);
    }

    pub fn contains(&self, disk: DiskId) -> bool {
        let mut until = self.until.lock();
        match until.get(&disk) {
            Some(end) if self.env.monotonic() < *end => true,
            Some(_) => {
                until.remove(&disk);
                false
            }
            None => false,
        }
    }
}
