//! Unwritten changes over a view.
//!
//! A scan merges two ordered sources: the base drives it, and before each of its keys come the changes that sort before it;
//! what is left of the changes follows at the end. A change to a key of the base replaces it, a deletion hides it. A seek
//! moves both sources.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;

use crate::{KvError, KvRead, Step, WriteBatch};

/// A deletion is `None`.
type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// A view with changes that are not written yet; reads see them.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    changes: Changes,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self { base, changes: BTreeMap::new() }
    }

    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.insert(key.into(), Some(value.into()));
    }

    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.changes.insert(key.into(), None);
    }

    pub fn is_unchanged(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in key order, each key with `prefix` before it.
    pub fn into_batch(self, prefix: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (key, value) in self.changes {
            let key = if prefix.is_empty() { key } else { Bytes::from([prefix, &key].concat()) };
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        let pending = range(&self.changes, from, to).peekable();
        let mut merge = Merge { changes: &self.changes, to, pending, sought: None, stopped: false, visit };
        self.base.scan(from, to, &mut |key, value| merge.visit_base(key, value))?;
        merge.visit_changes_before(None);
        Ok(())
    }
}

/// A scan under way.
struct Merge<'a, 'v> {
    changes: &'a Changes,
    to: &'a [u8],
    /// The changes still to come.
    pending: Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>,
    /// Where the visitor sought to, when the base does not know it yet.
    sought: Option<Vec<u8>>,
    stopped: bool,
    visit: &'v mut dyn FnMut(&[u8], &[u8]) -> Step,
}

impl Merge<'_, '_> {
    fn visit_base(&mut self, key: &[u8], value: &[u8]) -> Step {
        self.visit_changes_before(Some(key));
        let passed = self.sought.as_deref().is_some_and(|sought| sought > key);
        if !self.stopped && !passed {
            self.sought = None;
            match self.pending.next_if(|(changed, _)| changed.as_ref() == key) {
                Some((_, Some(changed))) => self.offer(key, changed),
                Some((_, None)) => {}
                None => self.offer(key, value),
            }
        }
        match self.sought.take() {
            _ if self.stopped => Step::Stop,
            Some(sought) => Step::Seek(sought),
            None => Step::Next,
        }
    }

    /// Visits the changes that sort before `limit`, or all that are left.
    fn visit_changes_before(&mut self, limit: Option<&[u8]>) {
        let is_before = |key: &Bytes| limit.is_none_or(|limit| key.as_ref() < limit);
        while !self.stopped
            && let Some((key, change)) = self.pending.next_if(|(key, _)| is_before(key))
        {
            if let Some(value) = change {
                self.offer(key, value);
            }
        }
    }

    fn offer(&mut self, key: &[u8], value: &[u8]) {
        match (self.visit)(key, value) {
            Step::Next => {}
            Step::Seek(next) if next.as_slice() <= key => {}
            Step::Seek(next) => {
                self.pending = range(self.changes, &next, self.to).peekable();
                self.sought = Some(next);
            }
            Step::Stop => self.stopped = true,
        }
    }
}

/// The changes with `from <= key < to`; an empty `to` means no end. (`BTreeMap::range` panics when they are the wrong way round.)
fn range<'a>(changes: &'a Changes, from: &[u8], to: &[u8]) -> btree_map::Range<'a, Bytes, Option<Bytes>> {
    if to.is_empty() {
        changes.range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
    } else {
        changes.range::<[u8], _>((Bound::Included(from.min(to)), Bound::Excluded(to)))
    }
}
