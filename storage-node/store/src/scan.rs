//! Reads a segment record by record, past whatever is damaged.
//!
//! A record's header is believed when its keyed checksum holds and it names the very place it is at. Behind a record the scan
//! goes on at its end; where there is no record it tries the next block: holes, torn writes and damaged headers cost only what
//! they covered. No length is used before the header that claims it was checked.

use std::io;
use std::sync::Arc;

use placement_types::File;
use placement_types::codec::Decode;

use crate::format::{DeleteTable, Header, RecordKey, SealTable, hash};
use crate::limits::{SCAN_WINDOW_BYTES, SEGMENT_BYTES_MAX};
use crate::position::{BLOCK_BYTES, Position};

pub(crate) struct Scan<'a> {
    file: &'a Arc<dyn File>,
    key: &'a RecordKey,
    next: Position,
    file_bytes: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Scan<'a> {
    /// Begins at `from`, in that segment's file.
    pub fn new(file: &'a Arc<dyn File>, key: &'a RecordKey, from: Position) -> io::Result<Self> {
        let file_bytes = file.len()?.min(SEGMENT_BYTES_MAX);
        Ok(Self { file, key, next: from, file_bytes, window: Vec::new(), window_at: 0 })
    }

    /// The next record, or `None` at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<Header>> {
        while self.next.offset() < self.file_bytes {
            let at = self.next;
            let key = self.key;
            match Header::read(self.block(at.offset())?, key, at) {
                Ok(header) => {
                    self.next.block = at.block.saturating_add(header.extent().blocks);
                    return Ok(Some(header));
                }
                Err(_) => self.next.block += 1,
            }
        }
        Ok(None)
    }

    /// What the file holds from `offset`, up to a block of it.
    fn block(&mut self, offset: u64) -> io::Result<&[u8]> {
        let inside = |start: u64, length: usize| offset >= start && offset + BLOCK_BYTES <= start + length as u64;
        if !inside(self.window_at, self.window.len()) {
            self.window.resize(SCAN_WINDOW_BYTES, 0);
            let mut filled = 0;
            while filled < SCAN_WINDOW_BYTES {
                match self.file.read_at(&mut self.window[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            self.window.truncate(filled);
            self.window_at = offset;
        }
        let start = (offset - self.window_at) as usize;
        let end = self.window.len().min(start + BLOCK_BYTES as usize);
        Ok(&self.window[start.min(end)..end])
    }
}

/// The seal table of a record, or `None` when it fails its checksum.
pub(crate) fn read_seal_table(file: &Arc<dyn File>, header: &Header) -> io::Result<Option<SealTable>> {
    let table = read_table(file, header)?;
    Ok(table.and_then(|bytes| SealTable::from_encoded(&bytes).ok()))
}

/// The delete table of a record, or `None` when it fails its checksum.
pub(crate) fn read_delete_table(file: &Arc<dyn File>, header: &Header) -> io::Result<Option<DeleteTable>> {
    let table = read_table(file, header)?;
    Ok(table.and_then(|bytes| DeleteTable::from_encoded(&bytes).ok()))
}

/// At most `TABLE_BYTES_MAX`, which [`Header::read`] checked.
fn read_table(file: &Arc<dyn File>, header: &Header) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; header.table_bytes as usize];
    match file.read_exact_at(&mut bytes, header.table_offset()) {
        Ok(()) => Ok((hash(&bytes) == header.table_hash).then_some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
