//! Bytes on one disk: segments, index, recovery.
