//! Which k+m a topology can bear, and which it gets when nobody says.
//!
//! A profile is borne when a chunk's shards fit on distinct disks and, with several nodes, any one node may be lost: no node
//! need hold more than m shards. A single node's profile protects against lost disks only.
//!
//! | nodes with disks | profile | | disks of the only node | profile |
//! |---|---|---|---|---|
//! | 1 | by its disks | | 1 | 1+0 |
//! | 2 | 1+1 | | 2 | 1+1 |
//! | 3 | 2+1 | | 3 | 2+1 |
//! | 4 | 2+2 | | 4 | 2+2 |
//! | 5 | 3+2 | | 5 | 3+2 |
//! | 6 and more | 4+2 | | 6 and more | 4+2 |

use placement_types::Profile;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnbearableProfile {
    #[error("{profile} needs {needed} disks, the cluster has {disks}", needed = .profile.width())]
    TooFewDisks { profile: Profile, disks: usize },
    #[error(
        "{profile} on {nodes} nodes puts {per_node} shards of a chunk on one node, which may lose at most {parity}: data would \
         not survive the loss of that node",
        parity = .profile.parity()
    )]
    NodeHoldsTooMany { profile: Profile, nodes: usize, per_node: usize },
}

/// The profile of new chunks when nobody chose one. `disks_per_node` has an entry for every node; those without disks do not
/// count. `None` without any disk.
pub fn default_profile(disks_per_node: &[usize]) -> Option<Profile> {
    let nodes: Vec<usize> = disks_per_node.iter().copied().filter(|disks| *disks > 0).collect();
    let domains = match nodes.as_slice() {
        [] => return None,
        [disks] => *disks,
        several => several.len(),
    };
    let (data, parity) = match domains {
        1 => (1, 0),
        2 => (1, 1),
        3 => (2, 1),
        4 => (2, 2),
        5 => (3, 2),
        _ => (4, 2),
    };
    Some(Profile::new(data, parity).expect("the table above holds profiles"))
}

/// Whether the topology can bear a profile.
pub fn check_profile(profile: Profile, disks_per_node: &[usize]) -> Result<(), UnbearableProfile> {
    let disks = disks_per_node.iter().sum();
    if disks < profile.width() {
        return Err(UnbearableProfile::TooFewDisks { profile, disks });
    }
    let nodes = disks_per_node.iter().filter(|disks| **disks > 0).count();
    let per_node = least_cap(profile.width(), disks_per_node.iter().copied());
    if nodes > 1 && per_node > profile.parity() {
        return Err(UnbearableProfile::NodeHoldsTooMany { profile, nodes, per_node });
    }
    Ok(())
}

/// The smallest cap under which `width` things fit into holders of the given sizes; the largest size when they do not.
pub(crate) fn least_cap(width: usize, sizes: impl Iterator<Item = usize> + Clone) -> usize {
    let most: usize = sizes.clone().max().unwrap_or(0);
    (1..=most).find(|cap| sizes.clone().map(|size| size.min(*cap)).sum::<usize>() >= width).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_gets_the_profile_of_the_table() {
        let check = |disks_per_node: &[usize], expected: &str| {
            let profile = default_profile(disks_per_node).unwrap();
            assert_eq!(profile.to_string(), expected, "{disks_per_node:?}");
            assert_eq!(check_profile(profile, disks_per_node), Ok(()), "{disks_per_node:?}");
        };
        check(&[1], "1+0");
        check(&[2], "1+1");
        check(&[3], "2+1");
        check(&[4], "2+2");
        check(&[5], "3+2");
        check(&[12], "4+2");
        check(&[1, 1], "1+1");
        check(&[4, 0, 4], "1+1");
        check(&[1, 2, 3], "2+1");
        check(&[1; 4], "2+2");
        check(&[2; 5], "3+2");
        check(&[1; 6], "4+2");
        check(&[8; 40], "4+2");
        assert_eq!(default_profile(&[0]), None);
    }

    #[test]
    fn a_profile_that_does_not_survive_a_node_is_refused() {
        let check = |text: &str, disks_per_node: &[usize], bearable| {
            let checked = check_profile(text.parse().unwrap(), disks_per_node);
            assert_eq!(checked.is_ok(), bearable, "{text} on {disks_per_node:?}: {checked:?}");
        };
        check("4+2", &[2, 2, 2], true);
        check("4+2", &[8, 1, 1], false);
        check("4+2", &[5], false);
        check("4+2", &[6], true);
        check("1+0", &[1, 1], false);
        check("4+2", &[3, 3], false);
        check("2+2", &[2, 2], true);
        check("2+1", &[2, 1], false);
    }
}
