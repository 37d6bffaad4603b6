//! Which nodes should hold the replicas of the metadata groups: one change at a time, decided from the map alone.
//!
//! A group should have [`VOTERS_MAX`] voters, or one on every node when there are fewer. It keeps those it has, except on a
//! node that was given up or has nothing in use any more, which is what draining all of its disks means. A new voter is taken
//! from a zone that has none of the group yet, if there is one, and from the node with the fewest replicas.
//!
//! What is decided here is where replicas are to be. The group's leader brings them there, learners first, by joint consensus;
//! nobody's correctness depends on how far that is.

use std::collections::BTreeSet;

use placement_types::{GroupId, NodeId};

use crate::cluster_map::{ClusterMap, DiskRole, NodeState};
use crate::limits::VOTERS_MAX;

/// The voters a group has and should have instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterChange {
    pub group: GroupId,
    pub from: Vec<NodeId>,
    pub to: Vec<NodeId>,
}

/// The next change, if there is one to make. It adds or replaces one voter of one group; the system group comes first.
pub fn next_change(map: &ClusterMap) -> Option<VoterChange> {
    map.groups.iter().find_map(|(group, voters)| {
        let to = improved(map, voters)?;
        Some(VoterChange { group: *group, from: voters.clone(), to })
    })
}

/// The voters that a group should have instead of these, one step away; `None` when these are fine.
pub(crate) fn improved(map: &ClusterMap, voters: &[NodeId]) -> Option<Vec<NodeId>> {
    let leaving = voters.iter().position(|node| !keeps_replicas(map, *node));
    if leaving.is_none() && voters.len() >= VOTERS_MAX {
        return None;
    }
    let candidate = best_candidate(map, voters);
    match (leaving, candidate) {
        (Some(position), Some(candidate)) => {
            let mut to = voters.to_vec();
            to[position] = candidate;
            Some(to)
        }
        // Better a voter less than one that never answers, as long as more than one is left to decide; a node that is only
        // being drained does answer.
        (Some(position), None) if voters.len() > 2 && is_lost(map, voters[position]) => {
            Some(voters.iter().copied().filter(|node| *node != voters[position]).collect())
        }
        (Some(_), None) | (None, None) => None,
        (None, Some(candidate)) => Some(voters.iter().copied().chain([candidate]).collect()),
    }
}

fn is_lost(map: &ClusterMap, node: NodeId) -> bool {
    map.nodes.get(&node).is_none_or(|node| node.state == NodeState::Lost)
}

/// A node keeps its replicas unless it was given up, or operators took it out of use.
fn keeps_replicas(map: &ClusterMap, node: NodeId) -> bool {
    !is_lost(map, node) && has_disk_in_use(map, node)
}

fn has_disk_in_use(map: &ClusterMap, node: NodeId) -> bool {
    map.disks.values().any(|disk| disk.node == node && disk.role == DiskRole::InUse)
}

fn best_candidate(map: &ClusterMap, voters: &[NodeId]) -> Option<NodeId> {
    let zones: BTreeSet<_> = voters.iter().filter_map(|node| map.nodes.get(node)).map(|node| &node.zone).collect();
    let load = |node: NodeId| map.groups.values().filter(|voters| voters.contains(&node)).count();
    map.nodes
        .values()
        .filter(|node| node.state == NodeState::Up && !voters.contains(&node.id) && has_disk_in_use(map, node.id))
        .min_by_key(|node| (zones.contains(&node.zone), load(node.id), node.id))
        .map(|node| node.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::formed;

    fn node(number: u128) -> NodeId {
        NodeId::from_u128(number)
    }

    /// Makes changes until there are none, and returns how many there were.
    fn settle(map: &mut ClusterMap) -> usize {
        for made in 0..1000 {
            let Some(change) = next_change(map) else { return made };
            assert_eq!(map.groups[&change.group], change.from);
            let kept = change.from.iter().filter(|node| change.to.contains(node)).count();
            assert!(kept + 1 >= change.from.len().min(change.to.len()), "one voter at a time: {change:?}");
            map.groups.insert(change.group, change.to);
            map.check().unwrap();
        }
        panic!("it does not end");
    }

    fn set_role(map: &mut ClusterMap, node: NodeId, role: DiskRole) {
        map.disks.values_mut().filter(|disk| disk.node == node).for_each(|disk| disk.role = role);
    }

    #[test]
    fn a_founded_cluster_is_as_it_should_be() {
        for nodes in [1, 2, 3, 4, 7] {
            assert_eq!(next_change(&formed(nodes, 1, if nodes == 1 { "1+0" } else { "1+1" })), None, "{nodes} nodes");
        }
    }

    #[test]
    fn replicas_leave_a_lost_or_drained_node_and_spread_over_the_others() {
        let mut map = formed(6, 1, "2+1");
        map.nodes.get_mut(&node(2)).unwrap().state = NodeState::Down;
        assert_eq!(next_change(&map), None, "a node that is down is waited for");
        map.nodes.get_mut(&node(2)).unwrap().state = NodeState::Lost;
        let had = map.groups.values().filter(|voters| voters.contains(&node(2))).count();
        assert_eq!(settle(&mut map), had);
        set_role(&mut map, node(3), DiskRole::Draining);
        settle(&mut map);
        let gone = [node(2), node(3)];
        for voters in map.groups.values() {
            assert_eq!(voters.len(), 3);
            assert!(gone.iter().all(|node| !voters.contains(node)));
        }
        let loads: Vec<usize> =
            [1, 4, 5, 6].map(|number| map.groups.values().filter(|voters| voters.contains(&node(number))).count()).into();
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 3, "{loads:?}");
    }

    #[test]
    fn a_single_node_grows_to_three_voters() {
        let mut map = formed(4, 1, "1+1");
        let alone = map.groups.keys().copied().map(|group| (group, vec![node(1)])).collect();
        map.groups = alone;
        settle(&mut map);
        assert!(map.groups.values().all(|voters| voters.len() == 3 && voters.contains(&node(1))));
    }

    #[test]
    fn a_lost_voter_without_a_successor_leaves_a_pair_but_nobody_alone() {
        let mut map = formed(3, 1, "2+1");
        map.nodes.get_mut(&node(3)).unwrap().state = NodeState::Lost;
        settle(&mut map);
        assert!(map.groups.values().all(|voters| voters.len() == 2 && !voters.contains(&node(3))));
        map.nodes.get_mut(&node(2)).unwrap().state = NodeState::Lost;
        assert_eq!(settle(&mut map), 0);
        map.nodes.get_mut(&node(2)).unwrap().state = NodeState::Up;
        map.nodes.get_mut(&node(3)).unwrap().state = NodeState::Up;
        settle(&mut map);
        assert!(map.groups.values().all(|voters| voters.len() == 3));
    }

    #[test]
    fn a_zone_without_a_voter_comes_first() {
        let mut map = formed(5, 1, "2+1");
        map.nodes.get_mut(&node(5)).unwrap().zone = placement_types::ZoneName::parse("other").unwrap();
        map.groups.insert(GroupId(1), vec![node(1), node(2), node(3)]);
        map.nodes.get_mut(&node(1)).unwrap().state = NodeState::Lost;
        settle(&mut map);
        assert!(map.groups[&GroupId(1)].contains(&node(5)));
    }
}
