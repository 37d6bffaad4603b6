//! Segment files: their names, making them, reading a frame from them.

use std::path::{Path, PathBuf};

use placement_types::codec::DecodeError;
use placement_types::{File, Fs, OpenMode};

use super::{LogError, io_error};
use crate::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, padded};

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

pub(super) fn segment_number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
    if digits.len() == 16 { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// Makes a file of zeros, durable under its name. A half-made one has another name, and is removed at the next start.
pub(super) fn make_spare(fs: &dyn Fs, path: &Path, bytes: u64) -> Result<(), LogError> {
    let unfinished = path.with_extension("tmp");
    if fs.metadata(&unfinished).map_err(io_error("look at", &unfinished))?.is_some() {
        fs.remove_file(&unfinished).map_err(io_error("remove", &unfinished))?;
    }
    let file = fs.open(&unfinished, OpenMode::CreateNew).map_err(io_error("create", &unfinished))?;
    let made = (|| {
        file.allocate(0, bytes)?;
        // Allocated is not enough: the first write to such blocks changes their extents, and its fsync waits for the
        // file system's journal (210 us against 122 us measured).
        let mut offset = 0;
        while offset < bytes {
            let length = usize::try_from((bytes - offset).min(ZEROS.len() as u64)).expect("at most the zeros there are");
            file.write_at(&ZEROS[..length], offset)?;
            offset += length as u64;
        }
        file.sync_data()?;
        fs.rename(&unfinished, path)?;
        fs.sync_dir(path.parent().expect("a spare lies in the log's directory"))
    })();
    made.map_err(|source| {
        // Give a full disk its bytes back.
        let _ = fs.remove_file(&unfinished);
        LogError::Io { action: "make", path: path.to_owned(), source }
    })
}

/// What is found where a frame may begin.
pub(super) enum Found {
    Frame {
        header: FrameHeader,
        payload: Vec<u8>,
        next: u64,
    },
    /// No frame, or one that was not written whole.
    Nothing,
    /// A frame with the right checksum that this build cannot read.
    Unreadable(DecodeError),
}

/// Reads the frame of segment `number` that begins at `offset`.
pub(super) fn read_frame(
    file: &dyn File,
    path: &Path,
    file_bytes: u64,
    number: u64,
    offset: u64,
    salt: u64,
) -> Result<Found, LogError> {
    if offset + BLOCK_BYTES > file_bytes {
        return Ok(Found::Nothing);
    }
    let mut head = [0; FRAME_HEADER_BYTES];
    file.read_exact_at(&mut head, offset).map_err(io_error("read", path))?;
    let header = match FrameHeader::decode(&head, salt) {
        Ok(header) => header,
        Err(DecodeError::UnknownVersion { what, version }) => {
            return Ok(Found::Unreadable(DecodeError::UnknownVersion { what, version }));
        }
        Err(_) => return Ok(Found::Nothing),
    };
    let next = offset + padded(header.payload_bytes);
    if header.segment != number || next > file_bytes {
        return Ok(Found::Nothing);
    }
    let mut payload = vec![0; header.payload_bytes];
    file.read_exact_at(&mut payload, offset + FRAME_HEADER_BYTES as u64).map_err(io_error("read", path))?;
    if !header.payload_matches(&payload) {
        return Ok(Found::Nothing);
    }
    Ok(Found::Frame { header, payload, next })
}
