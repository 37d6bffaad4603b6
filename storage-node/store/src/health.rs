//! Whether a disk takes writes.

use parking_lot::Mutex;
use placement_types::DiskId;

use crate::error::WriteError;

/// A disk's state. `Dead` ends only when the disk is opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskState {
    Good,
    /// Takes no more shards; reads and deletes work.
    Full,
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

    /// `Err` once the disk is dead.
    pub fn alive(&self) -> Result<(), WriteError> {
        match &*self.state.lock() {
            DiskState::Dead { why } => Err(WriteError::Dead { disk: self.disk, why: why.clone() }),
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
