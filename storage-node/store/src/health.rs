//! Whether a disk takes writes.

use parking_lot::Mutex;
use placement_types::DiskId;

use crate::error::WriteError;

/// A disk's state. `ReadOnly` and `Dead` end only when the disk is opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskState {
    Good,
    /// Takes no more shards; reads and deletes work.
    Full,
    /// Its file system takes no writes any more, as after an error that it remounted itself for (D20). Reads work.
    ReadOnly {
        why: String,
    },
    /// A write, an fsync, the index or the identity check failed. Reads may be tried.
    Dead {
        why: String,
    },
}

pub(crate) struct Health {
    disk: DiskId,
    state: Mutex<DiskState>,
}

impl Health {
    pub fn new(disk: DiskId) -> Self {
        Self { disk, state: Mutex::new(DiskState::Good) }
    }

    pub fn state(&self) -> DiskState {
        self.state.lock().clone()
    }

    /// `Err` once the disk takes no writes of any kind.
    pub fn alive(&self) -> Result<(), WriteError> {
        match &*self.state.lock() {
            DiskState::Dead { why } | DiskState::ReadOnly { why } => Err(WriteError::Dead { disk: self.disk, why: why.clone() }),
            DiskState::Good | DiskState::Full => Ok(()),
        }
    }

    /// Ends the disk's life (I14): after a failed write or fsync nobody knows what the disk holds, and a retry that "succeeds"
    /// may have lost the pages. The first reason is kept.
    pub fn kill(&self, why: impl std::fmt::Display) -> WriteError {
        let mut state = self.state.lock();
        if let DiskState::Dead { why } = &*state {
            return WriteError::Dead { disk: self.disk, why: why.clone() };
        }
        let why = why.to_string();
        tracing::error!(disk = %self.disk, why, "the disk is dead");
        *state = DiskState::Dead { why: why.clone() };
        WriteError::Dead { disk: self.disk, why }
    }

    /// Ends writing, not reading: nothing that failed was acknowledged, and what was is as durable as before.
    pub fn freeze(&self, why: impl std::fmt::Display) -> WriteError {
        let mut state = self.state.lock();
        let known = match &*state {
            DiskState::Dead { why } | DiskState::ReadOnly { why } => Some(why.clone()),
            DiskState::Good | DiskState::Full => None,
        };
        let why = known.unwrap_or_else(|| {
            let why = why.to_string();
            tracing::error!(disk = %self.disk, why, "the disk is read-only");
            *state = DiskState::ReadOnly { why: why.clone() };
            why
        });
        WriteError::Dead { disk: self.disk, why }
    }

    pub fn set_full(&self) -> WriteError {
        let mut state = self.state.lock();
        if *state == DiskState::Good {
            tracing::warn!(disk = %self.disk, "the disk is full");
            *state = DiskState::Full;
        }
        WriteError::Full { disk: self.disk }
    }

    pub fn set_room(&self) {
        let mut state = self.state.lock();
        if *state == DiskState::Full {
            tracing::info!(disk = %self.disk, "the disk has room again");
            *state = DiskState::Good;
        }
    }
}
