//! One key prefix of a store, seen as a store of its own.

use bytes::Bytes;

use crate::{KvError, KvRead, Step};

/// The keys of `base` that start with `prefix`, seen without it.
pub struct Prefixed<'a> {
    base: &'a dyn KvRead,
    prefix: Vec<u8>,
}

impl<'a> Prefixed<'a> {
    pub fn new(base: &'a dyn KvRead, prefix: impl Into<Vec<u8>>) -> Self {
        Self { base, prefix: prefix.into() }
    }

    /// The first key after every key with the prefix; empty (no end) when there is none.
    pub fn end_of(prefix: &[u8]) -> Vec<u8> {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                break;
            }
        }
        end
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }
}

impl KvRead for Prefixed<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.base.get(&self.full(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        let end = if to.is_empty() { Self::end_of(&self.prefix) } else { self.full(to) };
        self.base.scan(&self.full(from), &end, &mut |key, value| match visit(&key[self.prefix.len()..], value) {
            Step::Seek(next) => Step::Seek(self.full(&next)),
            step => step,
        })
    }
}
