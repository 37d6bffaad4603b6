//! Byte forms of the messages of this crate, field by field in the order listed. The map's own types bring theirs.
//!
//! Messages travel between builds that are at most one release apart, so they carry no version of their own; what is kept on
//! disk puts a version number in front ([`Membership::to_versioned`]).

use placement_types::{codec_enum, codec_struct, codec_versioned};

use crate::api::{Heartbeat, PlacementError, SystemCopy};
use crate::meeting::{Hello, MeetingError, Membership, Pledge, PledgeReply};

/// The newest version of the byte forms below.
pub(crate) const VERSION: u16 = 1;

codec_struct!(SystemCopy { cluster, place, rows });
codec_struct!(Heartbeat { node, boot, full, dead });
codec_enum!(PlacementError, "placement error" {
    1 => NotLeader { leader },
    2 => NotFormed {},
    3 => Unavailable { why },
    4 => Unknown { why },
    5 => BadMessage { why },
    6 => Superseded { node },
});

codec_struct!(Hello { node, expect, membership, met });
codec_struct!(Membership { cluster, replica, system_group });
codec_struct!(Pledge { founder, membership, nodes });
codec_enum!(PledgeReply, "pledge reply" { 1 => Pledged {}, 2 => Taken { cluster } });
codec_enum!(MeetingError, "meeting error" {
    1 => Unreachable { why },
    2 => NotWritten { why },
    3 => BadMessage { why },
});

codec_versioned!(VERSION { Membership, "a membership"; });

#[cfg(test)]
mod tests {
    use placement_map::system::{NewDisk, NewNode};
    use placement_types::codec::{Decode, Encode};
    use placement_types::{Boot, ClusterId, DiskId, NodeId, ReplicaId, ZoneName};
    use proptest::prelude::*;

    use super::*;

    fn check<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = value.to_encoded();
        assert_eq!(T::from_encoded(&bytes).as_ref(), Ok(value));
        for length in 0..bytes.len() {
            assert!(T::from_encoded(&bytes[..length]).is_err(), "{length} bytes of {value:?}");
        }
    }

    #[test]
    fn messages_round_trip_and_their_beginnings_do_not_decode() {
        let (node, disk) = (NodeId::from_u128(1), DiskId::from_u128(2));
        let new = NewNode {
            node,
            address: "node-1:9100".into(),
            zone: ZoneName::default(),
            disks: vec![NewDisk { disk, capacity_bytes: 3 }],
        };
        let membership =
            Membership { cluster: ClusterId::from_u128(4), replica: ReplicaId(1), system_group: vec![(node, ReplicaId(1))] };
        let place = placement_map::recovery::LogPlace { term: 2, index: 9 };
        check(&SystemCopy { cluster: ClusterId::from_u128(4), place, rows: vec![("map".into(), "bytes".into())] });
        check(&Heartbeat { node, boot: Boot { number: 1, nonce: 2 }, full: vec![disk], dead: vec![] });
        check(&Hello { node: new.clone(), expect: 3, membership: Some(membership.clone()), met: vec![new.clone()] });
        check(&Pledge { founder: node, membership: membership.clone(), nodes: vec![new] });
        check(&PledgeReply::Taken { cluster: ClusterId::from_u128(4) });
        check(&PlacementError::NotLeader { leader: Some(node) });
        check(&PlacementError::NotFormed);
        check(&PlacementError::Unknown { why: "an election".into() });
        check(&MeetingError::NotWritten { why: "no space".into() });
        assert_eq!(Membership::from_versioned(&membership.to_versioned()), Ok(membership));
    }

    fn any<T: Encode + Decode + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(value) = T::from_encoded(bytes) {
            prop_assert_eq!(T::from_encoded(&value.to_encoded()), Ok(value));
        }
        Ok(())
    }

    proptest! {
        /// Small values are lengths, tags and flags, so that some of it gets far.
        #[test]
        fn any_bytes_are_a_message_or_refused(
            bytes in prop::collection::vec(prop_oneof![3 => 0u8..4, 1 => proptest::prelude::any::<u8>()], 0..300),
        ) {
            any::<Heartbeat>(&bytes)?;
            any::<Hello>(&bytes)?;
            any::<Membership>(&bytes)?;
            any::<Pledge>(&bytes)?;
            any::<PledgeReply>(&bytes)?;
            any::<MeetingError>(&bytes)?;
            any::<PlacementError>(&bytes)?;
            let _ = Membership::from_versioned(&bytes);
        }
    }
}
