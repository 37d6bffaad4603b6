//! Reports and plans as files that operators carry from node to node.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DOZOREPT` or `DOZOPLAN` |
//! | rest but 8 | the report or the plan, versioned (`placement/map/src/format.rs`) |
//! | 8 | the first bytes of the BLAKE3 of all before |

use std::path::Path;

use anyhow::{Context, bail};
use placement_map::recovery::{NodeReport, RecoveryPlan};
use placement_types::Env;

const REPORT: &[u8; 8] = b"DOZOREPT";
const PLAN: &[u8; 8] = b"DOZOPLAN";
const BYTES_MAX: u64 = 64 << 20;

/// # Errors
/// When the file cannot be written.
pub fn write_report(env: &Env, path: &Path, report: &NodeReport) -> anyhow::Result<()> {
    write(env, path, REPORT, &report.to_versioned())
}

/// # Errors
/// When the file is not a whole report.
pub fn read_report(env: &Env, path: &Path) -> anyhow::Result<NodeReport> {
    let body = read(env, path, REPORT, "report")?;
    NodeReport::from_versioned(&body).with_context(|| format!("{} is not a report", path.display()))
}

/// # Errors
/// When the file cannot be written.
pub fn write_plan(env: &Env, path: &Path, plan: &RecoveryPlan) -> anyhow::Result<()> {
    write(env, path, PLAN, &plan.to_versioned())
}

/// # Errors
/// When the file is not a whole plan.
pub fn read_plan(env: &Env, path: &Path) -> anyhow::Result<RecoveryPlan> {
    let body = read(env, path, PLAN, "plan")?;
    RecoveryPlan::from_versioned(&body).with_context(|| format!("{} is not a plan", path.display()))
}

fn write(env: &Env, path: &Path, magic: &[u8; 8], body: &[u8]) -> anyhow::Result<()> {
    let mut bytes = [&magic[..], body].concat();
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    // A bare name has an empty parent, which cannot be opened.
    let path = if path.parent().is_some_and(|parent| parent.as_os_str().is_empty()) {
        Path::new(".").join(path)
    } else {
        path.to_owned()
    };
    env.fs.replace_durably(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn read(env: &Env, path: &Path, magic: &[u8; 8], what: &str) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let bytes = env.fs.read_small(path, BYTES_MAX).with_context(|| format!("cannot read {shown}"))?;
    let whole = bytes.split_last_chunk::<8>().filter(|(content, sum)| checksum(content) == **sum);
    match whole.and_then(|(content, _)| content.strip_prefix(magic)) {
        Some(body) => Ok(body.to_vec()),
        None => bail!("{shown} is not a whole {what} of dozo admin recover"),
    }
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    let (head, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    *head
}

#[cfg(test)]
mod tests {
    use placement_types::{ClusterId, Incarnation, NodeId, ReplicaId};

    use super::*;

    #[test]
    fn a_report_is_read_back_whole_or_not_at_all() {
        let (env, _) = placement_env::sim::env(1);
        let path = Path::new("/report");
        let report = NodeReport {
            cluster: ClusterId::from_u128(1),
            incarnation: Incarnation::FIRST,
            node: NodeId::from_u128(2),
            replica: ReplicaId(3),
            replicas: Vec::new(),
            known: None,
            copy: None,
        };
        write_report(&env, path, &report).unwrap();
        assert_eq!(read_report(&env, path).unwrap(), report);
        assert!(read_plan(&env, path).is_err());
        let bytes = env.fs.read_small(path, 1000).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            env.fs.replace_durably(path, &damaged).unwrap();
            assert!(read_report(&env, path).is_err(), "byte {at}");
        }
    }
}
