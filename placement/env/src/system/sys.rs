//! The system calls that std has no safe form of. The only `unsafe` of the workspace: each call passes pointers that live
//! across it, and keeps none.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use placement_types::Space;

/// Fills `bytes` from getrandom(2).
pub(super) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
        let written = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(written) {
            Ok(written) => done += written,
            Err(_) => retry_if_interrupted()?,
        }
    }
    Ok(())
}

/// fallocate(2) with `mode`. A file system without it answers `Unsupported`.
pub(super) fn fallocate(file: BorrowedFd<'_>, mode: libc::c_int, offset: u64, bytes: u64) -> io::Result<()> {
    let too_far = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let (offset, bytes) = (libc::off64_t::try_from(offset).map_err(too_far)?, libc::off64_t::try_from(bytes).map_err(too_far)?);
    // SAFETY: the descriptor is borrowed, hence open for the whole call; the other arguments are plain numbers.
    while unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, bytes) } != 0 {
        retry_if_interrupted()?;
    }
    Ok(())
}

/// statvfs(2): the size of the file system that holds `path`, and what an unprivileged writer may still use.
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the struct holds integers only, for which all-zero bytes are a value.
    let mut answer: libc::statvfs64 = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a NUL-terminated string and the answer a struct of the right type; both outlive the call.
    while unsafe { libc::statvfs64(path.as_ptr(), &raw mut answer) } != 0 {
        retry_if_interrupted()?;
    }
    Ok(Space {
        total_bytes: answer.f_blocks.saturating_mul(answer.f_frsize),
        available_bytes: answer.f_bavail.saturating_mul(answer.f_frsize),
    })
}

/// setsockopt(2) of `TCP_NOTSENT_LOWAT`: the kernel takes no more of a stream while so much of it waits to be sent. What is on
/// its way is not counted, so that a fast connection is as fast as without.
pub(super) fn set_unsent_bytes_max(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed, hence open; the value lives across the call, and its true length is given.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const bytes).cast(), length)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn retry_if_interrupted() -> io::Result<()> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
