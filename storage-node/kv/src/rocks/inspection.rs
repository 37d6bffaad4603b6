//! What RocksDB would not notice, looked for before it opens a store.
//!
//! - A directory with data but without `CURRENT`, the file that names the rest: RocksDB takes it for a new store, and starts
//!   empty.
//! - A damaged length in the last block of a log: RocksDB takes the record for one that was being written when the machine
//!   stopped, and drops it with all that follows. Here the record's own checksum, which does not cover the length, tells: it
//!   fits a shorter record.
//! - A damaged kind: RocksDB takes some for the remains of an older log, and stops there; others it skips.
//! - Zeros where a record should begin: RocksDB takes them for preallocated room and skips the rest of the block. Here nothing
//!   but zeros may follow.
//!
//! What a log looks like (RocksDB's `db/log_format.h`): blocks of 32 KiB, each a run of records that do not cross its end,
//! the last bytes zero when no header fits any more.
//!
//! ```text
//! 0  u32  masked CRC-32C of the kind and the payload
//! 4  u16  length of the payload
//! 6  u8   kind: 1 a whole batch, 2 to 4 the first, a middle and the last piece of one; 0 is no record
//! 7       payload
//! ```
//!
//! Any other damage RocksDB reports by itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use crate::KvError;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// The kinds that are written with the options in `rocks.rs`: no recycled logs, no compressed ones, no timestamps.
const KINDS: std::ops::RangeInclusive<u8> = 1..=4;

/// Refuses a store that RocksDB would open with a part of it missing.
pub(super) fn inspect(path: &Path) -> Result<(), KvError> {
    let failed = |error: io::Error| KvError::Io { detail: format!("inspect {}: {error}", path.display()) };
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let (mut has_current, mut has_data) = (false, false);
    for entry in entries {
        let file = entry.map_err(failed)?.path();
        let is = |extension| file.extension().is_some_and(|found| found == extension);
        has_current |= file.ends_with("CURRENT");
        has_data |= is("sst") || is("log");
        if is("log")
            && let Some(damage) = OpenOptions::new().read(true).open(&file).and_then(find_damage).map_err(failed)?
        {
            return Err(KvError::Corrupt { detail: format!("{} at byte {}: {}", file.display(), damage.offset, damage.what) });
        }
    }
    if has_data && !has_current {
        let path = path.display();
        return Err(KvError::Corrupt {
            detail: format!("{path} holds data, but its file CURRENT, which says what belongs to it, is gone"),
        });
    }
    Ok(())
}

struct Damage {
    offset: usize,
    what: &'static str,
}

fn find_damage(mut log: File) -> io::Result<Option<Damage>> {
    let mut zeros_from = None;
    let mut start = 0;
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        (&mut log).take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        let (at, ending) = walk(&block);
        if let Some(offset) = zeros_from
            && block.iter().any(|byte| *byte != 0)
        {
            return Ok(Some(Damage { offset, what: "zeros where a record should begin" }));
        }
        match ending {
            Ending::Zeros if block[at..].iter().any(|byte| *byte != 0) => {
                return Ok(Some(Damage { offset: start + at, what: "zeros where a record should begin" }));
            }
            Ending::Zeros => zeros_from = zeros_from.or(Some(start + at)),
            Ending::TooLong if block.len() < BLOCK_BYTES && fits_a_shorter_record(&block[at..]) => {
                return Ok(Some(Damage { offset: start + at, what: "the length of a record is damaged" }));
            }
            Ending::UnknownKind => return Ok(Some(Damage { offset: start + at, what: "the kind of a record is damaged" })),
            Ending::TooLong | Ending::Whole => {}
        }
        if block.len() < BLOCK_BYTES {
            return Ok(None);
        }
        start += block.len();
    }
}

/// How the run of records in a block ends.
enum Ending {
    /// With fewer bytes than a header has.
    Whole,
    /// With a header that announces more than there is.
    TooLong,
    /// With a header of no record.
    Zeros,
    UnknownKind,
}

/// Follows the headers, and returns where they end and how.
fn walk(block: &[u8]) -> (usize, Ending) {
    let mut at = 0;
    while let Some(header) = block.get(at..at + HEADER_BYTES) {
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        if header[6] == 0 && length == 0 {
            return (at, Ending::Zeros);
        }
        if !KINDS.contains(&header[6]) {
            return (at, Ending::UnknownKind);
        }
        if at + HEADER_BYTES + length > block.len() {
            return (at, Ending::TooLong);
        }
        at += HEADER_BYTES + length;
    }
    (at, Ending::Whole)
}

/// Whether the checksum in the header is that of some part of what follows. By chance it is once in 2^32 / 32 Ki records.
fn fits_a_shorter_record(record: &[u8]) -> bool {
    let masked = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
    // RocksDB masks a checksum that is stored beside what it covers: rotated by 15, plus a constant.
    let expected = masked.wrapping_sub(0xa282_ead8).rotate_left(15);
    let mut crc = u32::MAX;
    let (kind, payload) = record[HEADER_BYTES - 1..].split_first().expect("a header ends with the kind");
    crc = crc32c_step(crc, *kind);
    if !crc == expected {
        return true;
    }
    payload.iter().any(|byte| {
        crc = crc32c_step(crc, *byte);
        !crc == expected
    })
}

/// CRC-32C (Castagnoli, reflected) of one more byte. Bit by bit: it runs once at a start, over 32 KiB at most.
fn crc32c_step(crc: u32, byte: u8) -> u32 {
    (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        let crc = !b"123456789".iter().fold(u32::MAX, |crc, byte| crc32c_step(crc, *byte));
        assert_eq!(crc, 0xe306_9283, "the check value of CRC-32/ISCSI");
    }
}
