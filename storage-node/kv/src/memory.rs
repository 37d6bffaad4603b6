//! The in-memory double: forgets unsynced writes on demand, as a crash would.
//!
//! It keeps the state a crash would leave, and the batches since. Snapshots and scans share the map as it is and a write
//! copies it only while somebody looks at it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Durability, Kv, KvError, KvRead, Step, WriteBatch, WriteOp};

type Map = BTreeMap<Bytes, Bytes>;

/// A shared handle: clones see the same store, also after the node that used it is gone.
#[derive(Clone, Default)]
pub struct MemoryKv {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    live: Arc<Map>,
    durable: Map,
    /// What separates `live` from `durable`, in order.
    unsynced: VecDeque<WriteBatch>,
    failed: bool,
}

impl MemoryKv {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many batches a crash may lose.
    pub fn unsynced_batches(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// Loses every batch that is not durable.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// Loses what is not durable but for the first `batches` of it, which had reached the disk all the same.
    pub fn crash_keeping(&self, batches: usize) {
        let state = &mut *self.state.lock();
        state.make_durable(batches);
        state.unsynced.clear();
        state.live = Arc::new(state.durable.clone());
        state.failed = false;
    }

    /// Every call fails from now on, until a crash.
    pub fn fail(&self) {
        self.state.lock().failed = true;
    }

    fn view(&self) -> Result<View, KvError> {
        let state = self.state.lock();
        state.check()?;
        Ok(View { map: state.live.clone() })
    }
}

impl State {
    fn check(&self) -> Result<(), KvError> {
        if self.failed { Err(KvError::Io { detail: "the simulated store has failed".into() }) } else { Ok(()) }
    }

    fn make_durable(&mut self, batches: usize) {
        let batches = batches.min(self.unsynced.len());
        for batch in self.unsynced.drain(..batches) {
            apply(&mut self.durable, &batch);
        }
    }
}

impl KvRead for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.view()?.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        self.view()?.scan(from, to, visit)
    }
}

impl Kv for MemoryKv {
    fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<(), KvError> {
        let state = &mut *self.state.lock();
        state.check()?;
        apply(Arc::make_mut(&mut state.live), batch);
        state.unsynced.push_back(batch.clone());
        if durability == Durability::Synced {
            state.make_durable(usize::MAX);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        let state = &mut *self.state.lock();
        state.check()?;
        state.make_durable(usize::MAX);
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        Box::new(View { map: self.state.lock().live.clone() })
    }

    fn as_read(&self) -> &dyn KvRead {
        self
    }
}

/// The store as it was at one moment.
struct View {
    map: Arc<Map>,
}

impl KvRead for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.map.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        let range = |from: &[u8]| {
            if to.is_empty() {
                self.map.range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            } else {
                // BTreeMap panics on bounds that are the wrong way round.
                self.map.range::<[u8], _>((Bound::Included(from.min(to)), Bound::Excluded(to)))
            }
        };
        let mut pairs = range(from);
        while let Some((key, value)) = pairs.next() {
            match visit(key, value) {
                Step::Next => {}
                Step::Seek(next) if next.as_slice() <= key.as_ref() => {}
                Step::Seek(next) => pairs = range(&next),
                Step::Stop => break,
            }
        }
        Ok(())
    }
}

fn apply(map: &mut Map, batch: &WriteBatch) {
    for op in batch.ops() {
        match op {
            WriteOp::Put { key, value } => {
                map.insert(key.clone(), value.clone());
            }
            WriteOp::Delete { key } => {
                map.remove(key);
            }
            WriteOp::DeleteRange { from, to } => {
                map.retain(|key, _| key < from || key >= to);
            }
        }
    }
}
