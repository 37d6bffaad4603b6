//! Byte forms of the types of this crate, field by field in the order listed.
//!
//! Log entries, rows and files begin with [`VERSION`]; the types inside carry no version of their own. A [`ClusterMap`] that
//! breaks its invariants does not decode, so that nobody past this point checks them again. Version 1 was a map without the
//! list of claims at its end, and knew fewer commands and outcomes: it is still read.
//!
//! A ring names each disk many thousand times, so it is written as a dictionary and indexes into it:
//!
//! | bytes | what |
//! |---|---|
//! | u32 count, 16 each | the disks in the ring, in ascending order |
//! | u32 | partitions |
//! | per partition: u8 width, u32 each | the row: indexes into the disks |

use std::time::Duration;

use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{Boot, DiskId, Epoch, GroupId, NodeId, codec_enum, codec_struct, codec_versioned};

use crate::bucket::{Bucket, BucketState, BucketVersioning};
use crate::cluster_map::{ClusterMap, ClusterSettings, Disk, DiskRole, DiskState, Node, NodeState, Ring};
use crate::recovery::{
    CopyReport, Fate, KnownCluster, KnownNode, LogPlace, NodeReport, NodeSteps, RecoveryPlan, ReplicaReport, Step,
};
use crate::system::{BucketRow, LayoutChange, NewDisk, NewNode, SystemChange, SystemCommand, SystemOutcome};

/// The newest version of the byte forms below; see [`SystemCommand::to_versioned`].
pub(crate) const VERSION: u16 = 2;

codec_struct!(Node { id, replica, address, zone, state });
codec_enum!(NodeState, "node state" { 0 => Up {}, 1 => Down {}, 2 => Lost {} });
codec_struct!(Disk { id, node, capacity_bytes, weight_bytes, role, state });
codec_enum!(DiskRole, "disk role" { 0 => Joining {}, 1 => InUse {}, 2 => Draining {} });
codec_enum!(DiskState, "disk state" { 0 => Good {}, 1 => ReadOnly {}, 2 => Dead {}, 3 => Lost {} });

codec_struct!(Bucket { name, id, created, index_shards, region, owner, versioning, state });
codec_enum!(BucketVersioning, "bucket versioning" { 0 => Unversioned {}, 1 => Enabled {}, 2 => Suspended {} });
codec_enum!(BucketState, "bucket state" { 0 => Active {}, 1 => Deleting {} });
codec_struct!(BucketRow { bucket, deleting_since });

codec_struct!(NewDisk { disk, capacity_bytes });
codec_struct!(NewNode { node, address, zone, disks });
codec_struct!(SystemCommand { txn, time, change });
codec_enum!(SystemChange, "system change" {
    1 => Form { cluster, nodes, profile, partitions, groups },
    2 => Register { node },
    3 => SetNodeState { node, state },
    4 => SetDiskState { disk, state },
    5 => CreateBucket { bucket },
    6 => BeginDeleteBucket { name, id },
    7 => FinishDeleteBucket { name, id },
    8 => CancelDeleteBucket { name, id },
    9 => SetBucket { bucket },
    10 => Nothing {},
    11 => Rebalance {},
    12 => Join { node },
    13 => SetLayout { planned_on, change },
    14 => SetVoters { group, from, to },
    15 => SetSettings { settings },
    16 => Claim { node, boot, known },
    17 => Recover { gone, alone },
});
codec_enum!(LayoutChange, "layout change" {
    1 => TakeIn { disks },
    2 => Drain { disks },
    3 => Keep { disks },
    4 => Weigh { disk, weight_bytes },
    5 => RemoveDisks { disks },
    6 => RemoveNode { node },
    7 => SetProfile { profile },
});
codec_enum!(SystemOutcome, "system outcome" {
    1 => Done {},
    2 => AlreadyFormed { cluster },
    3 => NotFormed {},
    4 => UnknownNode {},
    5 => DiskTaken { disk },
    6 => BucketExists { bucket },
    7 => NoSuchBucket {},
    8 => BucketBusy {},
    9 => TooManyBuckets {},
    10 => Malformed { why },
    11 => Removed {},
    12 => StalePlan { layout },
    13 => Refused { why },
    14 => Superseded { claimed },
    15 => InUse { claimed, heard },
});

impl Encode for Ring {
    fn encode(&self, out: &mut Encoder) {
        let mut disks: Vec<DiskId> = self.rows.iter().flatten().copied().collect();
        disks.sort_unstable();
        disks.dedup();
        disks.encode(out);
        out.u32(u32::try_from(self.rows.len()).expect("a ring has far fewer than 2^32 partitions"));
        for row in &self.rows {
            out.u8(u8::try_from(row.len()).expect("a row is at most 24 wide, as profiles are"));
            for disk in row {
                let index = disks.binary_search(disk).expect("the dictionary was made from the rows");
                out.u32(u32::try_from(index).expect("a ring has far fewer than 2^32 disks"));
            }
        }
    }
}

impl Decode for Ring {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let invalid = DecodeError::Invalid { what: "ring" };
        let disks = Vec::<DiskId>::decode(input)?;
        if !disks.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(invalid);
        }
        let partitions = usize::try_from(input.u32()?).map_err(|_| invalid.clone())?;
        if partitions > input.left() {
            return Err(DecodeError::Truncated);
        }
        let mut rows = Vec::with_capacity(partitions.min(4096));
        for _ in 0..partitions {
            let width = usize::from(input.u8()?);
            let mut row = Vec::with_capacity(width);
            for _ in 0..width {
                let index = usize::try_from(input.u32()?).map_err(|_| invalid.clone())?;
                row.push(*disks.get(index).ok_or_else(|| invalid.clone())?);
            }
            rows.push(row);
        }
        Ok(Ring { rows })
    }
}

/// Whole milliseconds.
impl Encode for ClusterSettings {
    fn encode(&self, out: &mut Encoder) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        out.u64(millis(self.rebuild_after));
        out.u64(millis(self.scrub_cycle));
    }
}

impl Decode for ClusterSettings {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (rebuild_after, scrub_cycle) = (Duration::from_millis(input.u64()?), Duration::from_millis(input.u64()?));
        Ok(ClusterSettings { rebuild_after, scrub_cycle })
    }
}

/// Nodes and disks travel as lists in ascending order of their ids.
impl Encode for ClusterMap {
    fn encode(&self, out: &mut Encoder) {
        self.cluster.encode(out);
        self.epoch.encode(out);
        self.layout.encode(out);
        self.profile.encode(out);
        self.settings.encode(out);
        self.next_replica.encode(out);
        out.u32(u32::try_from(self.nodes.len()).expect("a cluster has far fewer than 2^32 nodes"));
        self.nodes.values().for_each(|node| node.encode(out));
        out.u32(u32::try_from(self.disks.len()).expect("a cluster has far fewer than 2^32 disks"));
        self.disks.values().for_each(|disk| disk.encode(out));
        self.ring.encode(out);
        out.u32(u32::try_from(self.groups.len()).expect("a cluster has far fewer than 2^32 groups"));
        for (group, voters) in &self.groups {
            group.encode(out);
            voters.encode(out);
        }
        self.slots.encode(out);
        self.moved_groups.iter().copied().collect::<Vec<_>>().encode(out);
        self.removed_nodes.iter().copied().collect::<Vec<_>>().encode(out);
        self.removed_disks.iter().copied().collect::<Vec<_>>().encode(out);
        self.boots.iter().map(|(node, boot)| (*node, *boot)).collect::<Vec<_>>().encode(out);
    }
}

impl Decode for ClusterMap {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let invalid = DecodeError::Invalid { what: "cluster map" };
        let (cluster, epoch, layout) = (Decode::decode(input)?, Epoch::decode(input)?, Decode::decode(input)?);
        let (profile, settings, next_replica) = (Decode::decode(input)?, Decode::decode(input)?, Decode::decode(input)?);
        let nodes = Vec::<Node>::decode(input)?;
        let disks = Vec::<Disk>::decode(input)?;
        let ring = Ring::decode(input)?;
        let groups: Vec<(GroupId, Vec<NodeId>)> = Decode::decode(input)?;
        let slots = Decode::decode(input)?;
        let moved_groups = Vec::<GroupId>::decode(input)?;
        let removed_nodes = Vec::<NodeId>::decode(input)?;
        let removed_disks = Vec::<DiskId>::decode(input)?;
        // A map is always the last thing in what holds it.
        let boots = if input.left() == 0 { Vec::new() } else { Vec::<(NodeId, Boot)>::decode(input)? };
        let ascending = nodes.windows(2).all(|pair| pair[0].id < pair[1].id)
            && disks.windows(2).all(|pair| pair[0].id < pair[1].id)
            && groups.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && moved_groups.is_sorted_by(|one, next| one < next)
            && removed_nodes.is_sorted_by(|one, next| one < next)
            && removed_disks.is_sorted_by(|one, next| one < next)
            && boots.is_sorted_by(|one, next| one.0 < next.0);
        if !ascending {
            return Err(invalid);
        }
        let map = ClusterMap {
            cluster,
            epoch,
            layout,
            profile,
            settings,
            next_replica,
            nodes: nodes.into_iter().map(|node| (node.id, node)).collect(),
            disks: disks.into_iter().map(|disk| (disk.id, disk)).collect(),
            ring,
            groups: groups.into_iter().collect(),
            slots,
            moved_groups: moved_groups.into_iter().collect(),
            removed_nodes: removed_nodes.into_iter().collect(),
            removed_disks: removed_disks.into_iter().collect(),
            boots: boots.into_iter().collect(),
        };
        map.check().map_err(|_| invalid)?;
        Ok(map)
    }
}

codec_struct!(LogPlace { term, index });
codec_struct!(ReplicaReport { group, term, last, committed, applied, voters, voters_outgoing, members_open, newest });
codec_struct!(KnownCluster { epoch, nodes, groups });
codec_struct!(KnownNode { node, replica, address });
codec_struct!(CopyReport { place, taken, known });
codec_struct!(NodeReport { cluster, incarnation, node, replica, replicas, known, copy });
codec_enum!(Fate, "fate of a group" {
    1 => Whole {},
    2 => Alone { node, last, newest },
    3 => Founded { node, copied, epoch, taken },
    4 => Lost {},
});
codec_struct!(NodeSteps { node, expected, steps });
codec_enum!(Step, "step of a recovery" {
    1 => Alone { group, after },
    2 => Forget { group },
    3 => Found { copied, at },
});
codec_struct!(RecoveryPlan { cluster, before, incarnation, txn, time, gone, fates, nodes });

codec_versioned!(VERSION {
    NodeReport, "a report of a stopped node";
    RecoveryPlan, "a recovery plan";
    ClusterMap, "a cluster map";
    Bucket, "a bucket";
    BucketRow, "a bucket row";
    SystemCommand, "a system command";
    SystemOutcome, "a system outcome";
});

#[cfg(test)]
mod tests {
    use placement_types::{BucketId, BucketName, Timestamp, TxnId};
    use proptest::prelude::*;

    use super::*;
    use crate::state::tests::formed;

    #[test]
    fn a_map_round_trips() {
        let mut map = formed(6, 2, "4+2");
        assert_eq!(ClusterMap::from_versioned(&map.to_versioned()), Ok(map.clone()));
        map.boots.insert(*map.nodes.keys().next().unwrap(), Boot { number: 7, nonce: 8 });
        assert_eq!(ClusterMap::from_versioned(&map.to_versioned()), Ok(map));
    }

    #[test]
    fn a_map_of_the_first_version_is_one_without_claims() {
        let map = formed(3, 1, "2+1");
        let newest = map.to_versioned();
        // An empty list is its count, four zeros.
        let first = [&[0, 1], &newest[2..newest.len() - 4]].concat();
        assert_eq!(ClusterMap::from_versioned(&first), Ok(map));
    }

    #[test]
    fn a_map_that_breaks_an_invariant_does_not_decode() {
        let check = |spoil: fn(&mut ClusterMap)| {
            let mut map = formed(3, 1, "2+1");
            spoil(&mut map);
            assert!(ClusterMap::from_versioned(&map.to_versioned()).is_err());
        };
        check(|map| map.ring.rows[0][1] = map.ring.rows[0][0]);
        check(|map| map.ring.rows[0][1] = DiskId::from_u128(0xbad));
        check(|map| map.ring.rows.truncate(63));
        check(|map| map.slots[3] = GroupId(77));
        check(|map| map.slots.truncate(1000));
        check(|map| map.nodes.values_mut().for_each(|node| node.replica.0 = 1));
        check(|map| map.disks.values_mut().for_each(|disk| disk.node = NodeId::from_u128(0xbad)));
        check(|map| map.groups.values_mut().for_each(|voters| voters.clear()));
    }

    #[test]
    fn commands_and_outcomes_round_trip() {
        let bucket = Bucket {
            name: BucketName::parse("photos").unwrap(),
            id: BucketId::from_u128(1),
            created: Timestamp::from_millis(2),
            index_shards: 8,
            region: "eu".into(),
            owner: "ann".into(),
            versioning: BucketVersioning::Suspended,
            state: BucketState::Deleting,
        };
        for change in [SystemChange::CreateBucket { bucket: bucket.clone() }, SystemChange::Rebalance {}] {
            let command = SystemCommand { txn: TxnId::from_u128(9), time: Timestamp::from_millis(3), change };
            assert_eq!(SystemCommand::from_versioned(&command.to_versioned()), Ok(command));
        }
        let outcome = SystemOutcome::BucketExists { bucket };
        assert_eq!(SystemOutcome::from_versioned(&outcome.to_versioned()), Ok(outcome));
    }

    fn any_of<T: Encode + Decode + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(value) = T::from_encoded(bytes) {
            prop_assert_eq!(T::from_encoded(&value.to_encoded()), Ok(value));
        }
        Ok(())
    }

    proptest! {
        /// Small values are lengths, tags and flags, so that some of it gets far.
        #[test]
        fn any_bytes_are_a_command_or_refused(
            bytes in prop::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..300),
        ) {
            any_of::<SystemCommand>(&bytes)?;
            any_of::<SystemChange>(&bytes)?;
            any_of::<SystemOutcome>(&bytes)?;
            any_of::<Bucket>(&bytes)?;
            any_of::<BucketRow>(&bytes)?;
            let _ = SystemCommand::from_versioned(&bytes);
            let _ = ClusterMap::from_versioned(&bytes);
        }

        #[test]
        fn any_damage_to_a_map_is_an_error_or_a_sound_map(at in any::<prop::sample::Index>(), value: u8, cut: bool) {
            let mut bytes = formed(3, 1, "2+1").to_versioned().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = value;
            if cut {
                bytes.truncate(at);
            }
            if let Ok(map) = ClusterMap::from_versioned(&bytes) {
                prop_assert_eq!(map.check(), Ok(()));
                // A map of before the claims is written with an empty list of them.
                prop_assert_eq!(map.to_versioned().len() <= bytes.len() + 4, true);
            }
        }
    }
}
