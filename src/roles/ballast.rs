//! Ballast: room that is given up on a full disk, so that its process can start.
//!
//! A process writes a few MiB before it is up: which of its runs this is, and the tables of what was only in its stores' logs.
//! On a disk without a free byte, which others may have filled, it could neither serve reads nor take the deletes that make room.
//! So each data directory has a file that takes up room and means nothing. A start that finds less than that free removes
//! it, and it is made again once there is plenty. Shards do not get at the room: they leave more than that free.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use placement_types::{Env, OpenMode, Space};

use super::data_dirs::holds_disk;

pub const FILE: &str = "dozo.ballast";

/// The memory tables that a start may have to write out are about as large.
const BYTES_MAX: u64 = 64 << 20;
const BYTES_MIN: u64 = 16 << 20;

/// One part in so many of a small disk.
const SHARE: u64 = 512;

/// It is made only where at least so many times its size are free.
const PLENTY: u64 = 4;

const INTERVAL: Duration = Duration::from_secs(60);

/// Gives the ballast of a data directory up when its disk is full, and makes it when there is plenty of room. That neither can be
/// done is said and stops nobody.
pub fn settle(env: &Env, dir: &Path) {
    let path = dir.join(FILE);
    let settled = env.fs.space(dir).and_then(|space| {
        let there = env.fs.metadata(&path)?.map(|metadata| metadata.bytes);
        match there {
            Some(_) if space.available_bytes < bytes_for(space) => give_up(env, dir, &path),
            Some(bytes) if bytes >= bytes_for(space) => Ok(()),
            _ if space.available_bytes < PLENTY * bytes_for(space) => Ok(()),
            _ => make(env, dir, &path, bytes_for(space)),
        }
    });
    if let Err(error) = settled {
        tracing::warn!(path = %path.display(), %error, "the ballast, which lets a start have room on a full disk, is not as it should be");
    }
}

/// Sees to it that there is ballast again some time after there is room. Only a start gives it up.
pub async fn keep(env: Env, dirs: Vec<PathBuf>) {
    loop {
        env.sleep(INTERVAL).await;
        for dir in &dirs {
            let (on, dir) = (env.clone(), dir.clone());
            // Where the disk is missing, that is somebody else's file system by now.
            env.run_blocking(move || {
                if holds_disk(&on, &dir) {
                    restore(&on, &dir)
                }
            })
            .await;
        }
    }
}

fn restore(env: &Env, dir: &Path) {
    if matches!(env.fs.metadata(&dir.join(FILE)), Ok(None)) {
        settle(env, dir);
    }
}

fn bytes_for(space: Space) -> u64 {
    (space.total_bytes / SHARE).clamp(BYTES_MIN, BYTES_MAX)
}

fn give_up(env: &Env, dir: &Path, path: &Path) -> io::Result<()> {
    tracing::warn!(dir = %dir.display(), "the disk is full: its ballast is given up so that this process can start. Make room, or add disks");
    env.fs.remove_file(path)?;
    // Some file systems give the room back only now.
    env.fs.sync_dir(dir)
}

/// It is synced, because a start after a power cut may be the one that needs it. A failure of that says nothing of anybody's data.
fn make(env: &Env, dir: &Path, path: &Path, bytes: u64) -> io::Result<()> {
    let file = match env.fs.metadata(path)? {
        Some(_) => env.fs.open(path, OpenMode::ReadWrite)?,
        None => env.fs.open(path, OpenMode::CreateNew)?,
    };
    file.allocate(0, bytes).inspect_err(|_| drop(env.fs.remove_file(path)))?;
    file.sync_data()?;
    env.fs.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use placement_env::sim;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_start_on_a_full_disk_has_the_room_of_the_ballast_and_gets_it_back_later() {
        let (env, controls) = sim::env(1);
        let dir = Path::new("/data");
        env.fs.create_dir_all(dir).unwrap();
        let available = || env.fs.space(dir).unwrap().available_bytes;
        let there = || env.fs.metadata(&dir.join(FILE)).unwrap().map(|metadata| metadata.bytes);

        controls.fs.set_capacity(1024 * MIB);
        settle(&env, dir);
        assert_eq!((there(), available()), (Some(16 * MIB), 1008 * MIB));
        let others = env.fs.open(&dir.join("others"), OpenMode::CreateNew).unwrap();
        others.allocate(0, 1008 * MIB).unwrap();
        assert_eq!(available(), 0);
        restore(&env, dir);
        assert_eq!(there(), Some(16 * MIB), "only a start gives it up");
        settle(&env, dir);
        assert_eq!((there(), available()), (None, 16 * MIB));
        restore(&env, dir);
        assert_eq!(there(), None, "the disk still is full");
        others.set_len(900 * MIB).unwrap();
        restore(&env, dir);
        assert_eq!((there(), available()), (Some(16 * MIB), 108 * MIB));
    }

    #[test]
    fn a_large_disk_has_more_and_a_tiny_one_none() {
        let (env, controls) = sim::env(1);
        let dir = Path::new("/data");
        env.fs.create_dir_all(dir).unwrap();
        let bytes = || env.fs.metadata(&dir.join(FILE)).unwrap().map(|metadata| metadata.bytes);
        controls.fs.set_capacity(60 * MIB);
        settle(&env, dir);
        assert_eq!(bytes(), None);
        controls.fs.set_capacity(1 << 40);
        settle(&env, dir);
        assert_eq!(bytes(), Some(64 * MIB));
    }
}
