//! Which incarnation of its cluster a node belongs to, once that is not the first any more: one small file beside the identity.
//!
//! It is written before a node becomes a member of a recovered cluster, and around what a recovery does to a node: while it
//! says [`Stage::Rewriting`] the node does not start, because its replicas may be half of this life and half of the one before.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DOZOLIFE` |
//! | u16 | version: 1 |
//! | 16, 8 | cluster, incarnation |
//! | u8 | stage: 0 rewriting, 1 in effect |
//! | u32 | CRC-32C of all before |

use std::io;
use std::path::{Path, PathBuf};

use placement_types::codec::{Decode, DecodeError};
use placement_types::{ClusterId, Env, Incarnation};

use crate::sealed::Seal;

const SEAL: Seal = Seal { magic: b"DOZOLIFE", version: 1, what: "an incarnation file" };
const FILE: &str = "incarnation";
const BYTES_MAX: u64 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub cluster: ClusterId,
    pub incarnation: Incarnation,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A recovery is rewriting the node's replicas.
    Rewriting,
    InEffect,
}

placement_types::codec_struct!(Life { cluster, incarnation, stage });
placement_types::codec_enum!(Stage, "stage of a recovery" { 0 => Rewriting {}, 1 => InEffect {} });

#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    #[error("{path} is damaged or was written by a newer release ({why}); wipe the node and let it join again, as a new one")]
    Unreadable { path: PathBuf, why: DecodeError },
    #[error("access {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// `None` in a node of the first incarnation, or without a cluster. Blocks.
///
/// # Errors
/// A file that cannot be read, or is not what was written.
pub fn read(env: &Env, node_dir: &Path) -> Result<Option<Life>, LifeError> {
    let path = node_dir.join(FILE);
    let failed = |source| LifeError::Io { path: path.clone(), source };
    if env.fs.metadata(&path).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let bytes = env.fs.read_small(&path, BYTES_MAX).map_err(failed)?;
    decode(&bytes).map(Some).map_err(|why| LifeError::Unreadable { path: path.clone(), why })
}

/// Durable when it returns. Blocks.
///
/// # Errors
/// When the file cannot be written.
pub fn write(env: &Env, node_dir: &Path, life: &Life) -> Result<(), LifeError> {
    let path = node_dir.join(FILE);
    env.fs.replace_durably(&path, &SEAL.close(life)).map_err(|source| LifeError::Io { path, source })
}

fn decode(bytes: &[u8]) -> Result<Life, DecodeError> {
    let (_, mut input) = SEAL.open(bytes)?;
    let life = Life::decode(&mut input)?;
    input.finish()?;
    Ok(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_kept_over_power_cuts_and_damage_is_noticed() {
        let (env, controls) = placement_env::sim::env(1);
        let dir = Path::new("/node");
        env.fs.create_dir_all(dir).unwrap();
        env.fs.sync_dir(Path::new("/")).unwrap();
        assert_eq!(read(&env, dir).unwrap(), None);
        let life = Life { cluster: ClusterId::from_u128(1), incarnation: Incarnation::FIRST.next(9), stage: Stage::Rewriting };
        write(&env, dir, &life).unwrap();
        controls.fs.crash_losing_unsynced();
        let (env, _) = placement_env::sim::env_on(&controls.fs, 2);
        assert_eq!(read(&env, dir).unwrap(), Some(life));
        let bytes = SEAL.close(&life);
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
