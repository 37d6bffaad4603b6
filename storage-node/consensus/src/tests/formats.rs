//! The byte forms: they round-trip, and hostile bytes are an error.

use bytes::Bytes;
use placement_types::codec::{Decoder, Encoder};
use placement_types::{GroupId, ReplicaId};
use proptest::collection::vec;
use proptest::prelude::*;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType,
};

use crate::format::{
    Body, CheckpointGroup, FrameHeader, FrameKind, GroupMeta, Hard, Identity, MetaState, Origin, Point, Record, SnapshotChunk,
    Wire, decode_change, decode_entry, encode_change, encode_entry, encode_frame,
};

fn members() -> impl Strategy<Value = ConfState> {
    (1u64..5, 0u64..3, any::<bool>()).prop_map(|(voters, learners, joint)| {
        let mut members = ConfState::default();
        members.voters = (1..=voters).collect();
        members.learners = (100..100 + learners).collect();
        if joint {
            members.voters_outgoing = vec![1, 50];
            members.learners_next = vec![50];
            members.auto_leave = true;
        }
        members
    })
}

fn point() -> impl Strategy<Value = Point> {
    (1..u64::MAX / 2, any::<u64>()).prop_map(|(index, term)| Point { index, term })
}

fn hard() -> impl Strategy<Value = Hard> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, vote, commit)| Hard { term, vote, commit })
}

fn origin() -> impl Strategy<Value = Origin> {
    (point(), members(), any::<u128>()).prop_map(|(point, members, file)| Origin { point, members, file })
}

fn entries(first: u64) -> impl Strategy<Value = Vec<Entry>> {
    vec((vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..20), any::<bool>()), 1..8).prop_map(move |parts| {
        let made = parts.into_iter().enumerate().map(|(at, (data, context, normal))| {
            let mut entry = Entry::default();
            entry.entry_type = if normal { EntryType::EntryNormal } else { EntryType::EntryConfChangeV2 };
            entry.index = first + at as u64;
            entry.term = 3 + at as u64 / 2;
            entry.data = data.into();
            entry.context = context.into();
            entry
        });
        made.collect()
    })
}

fn record() -> impl Strategy<Value = Record> {
    let group = any::<u32>().prop_map(GroupId);
    let checkpoint = (group.clone(), hard(), point(), origin()).prop_map(|(group, hard, last, origin)| CheckpointGroup {
        group,
        hard,
        last,
        origin,
    });
    prop_oneof![
        vec(checkpoint, 0..4).prop_map(|groups| Record::Checkpoint { groups }),
        (group.clone(), members()).prop_map(|(group, members)| Record::Created { group, members }),
        (group.clone(), hard()).prop_map(|(group, hard)| Record::Hard { group, hard }),
        (group.clone(), any::<u64>(), entries(9)).prop_map(|(group, previous_term, entries)| Record::Entries {
            group,
            previous_term,
            entries
        }),
        (group, origin()).prop_map(|(group, origin)| Record::Snapshot { group, origin }),
    ]
}

fn wire(body: Body) -> Wire {
    Wire { group: GroupId(5), from: ReplicaId(1), to: ReplicaId(2), body }
}

fn append(entries: Vec<Entry>) -> Message {
    let mut message = Message::default();
    message.msg_type = MessageType::MsgAppend;
    (message.from, message.to, message.term, message.log_term, message.index) = (1, 2, 9, 3, 8);
    message.entries = entries.into();
    message
}

proptest! {
    #[test]
    fn records_round_trip_and_say_where_entries_are(records in vec(record(), 0..6)) {
        let (mut payload, mut places) = (Vec::new(), Vec::new());
        for record in &records {
            record.encode(&mut payload, &mut places);
        }
        let (decoded, again) = Record::decode_all(&payload).unwrap();
        prop_assert_eq!(&decoded, &records);
        prop_assert_eq!(places.len(), again.len());
        for (place, also) in places.iter().zip(&again) {
            prop_assert_eq!((place.offset, place.bytes), (also.offset, also.bytes));
            let bytes = &payload[place.offset..place.offset + place.bytes];
            let entry = decode_entry(place.group, &mut Decoder::new(bytes)).unwrap();
            prop_assert_eq!((entry.index, entry.term), (place.index, place.term));
            let other = GroupId(place.group.0.wrapping_add(1));
            prop_assert!(decode_entry(other, &mut Decoder::new(bytes)).is_err(), "an entry of another group");
        }
    }

    #[test]
    fn messages_round_trip(entries in entries(9), members in members(), point in point(), bytes in vec(any::<u8>(), 1..100)) {
        let chunk = SnapshotChunk {
            transfer: 4, term: 2, point, members, file_bytes: bytes.len() as u64, sequence: 0, bytes: Bytes::from(bytes),
        };
        for body in [
            Body::Raft(Box::new(append(entries))),
            Body::Chunk(chunk),
            Body::Ack { transfer: u64::MAX, next: 3, refused: true },
        ] {
            let message = wire(body);
            prop_assert_eq!(Wire::decode_message(&message.encode_message()).unwrap(), message);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_message_is_noticed(entries in entries(9), at: prop::sample::Index, bit in 0..8u8) {
        let mut bytes = wire(Body::Raft(Box::new(append(entries)))).encode_message().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Wire::decode_message(&bytes).is_err());
    }

    #[test]
    fn any_bytes_decode_or_fail_without_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Record::decode_all(&bytes);
        let _ = FrameHeader::decode(&bytes, 1);
        let _ = Identity::decode(&bytes);
        let _ = GroupMeta::decode(&bytes);
        let _ = decode_change(&bytes);
        // Behind a right checksum too, as a hostile peer would send them.
        let mut summed = bytes.clone();
        summed.extend_from_slice(&crc_fast::crc32_iscsi(&bytes).to_be_bytes());
        let _ = Wire::decode_message(&summed);
        // And with a right head.
        let mut body = vec![0, 1, bytes.first().map_or(1, |byte| byte % 4)];
        body.extend_from_slice(&[0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        body.extend_from_slice(&bytes);
        let crc = crc_fast::crc32_iscsi(&body);
        body.extend_from_slice(&crc.to_be_bytes());
        let _ = Wire::decode_message(&body);
    }

    #[test]
    fn frames_are_whole_or_nothing(payload in vec(any::<u8>(), 0..9000), at: prop::sample::Index, bit in 0..8u8) {
        let frame = encode_frame(FrameKind::Later, 3, 8, &payload, 77);
        prop_assert_eq!(frame.len() % 4096, 0);
        let header = FrameHeader::decode(&frame, 77).unwrap();
        prop_assert_eq!((header.kind, header.segment, header.sequence), (FrameKind::Later, 3, 8));
        prop_assert!(header.payload_matches(&frame[44..44 + payload.len()]));
        prop_assert!(FrameHeader::decode(&frame, 78).is_err(), "a frame of another log");
        let mut torn = frame;
        let at = at.index(44 + payload.len());
        torn[at] ^= 1 << bit;
        let whole = FrameHeader::decode(&torn, 77).is_ok_and(|header| header.payload_matches(&torn[44..44 + payload.len()]));
        prop_assert!(!whole);
    }

    #[test]
    fn what_the_store_and_the_identity_hold_round_trips(applied in point(), members in members(), replica: u64, salt: u64) {
        for state in [MetaState::Whole, MetaState::Installing] {
            let meta = GroupMeta { state, applied, members: members.clone() };
            prop_assert_eq!(GroupMeta::decode(&meta.encode()).unwrap(), meta);
        }
        let identity = Identity { replica: ReplicaId(replica), salt };
        prop_assert_eq!(Identity::decode(&identity.encode()).unwrap(), identity);
    }

    #[test]
    fn entries_round_trip(entries in entries(1)) {
        let mut out = Encoder::new();
        for entry in &entries {
            encode_entry(GroupId(1), entry, &mut out);
        }
        let bytes = out.finish();
        let mut input = Decoder::new(&bytes);
        for entry in &entries {
            prop_assert_eq!(&decode_entry(GroupId(1), &mut input).unwrap(), entry);
        }
    }
}

#[test]
fn membership_changes_round_trip_and_an_empty_one_leaves_the_joint_membership() {
    let single = |kind, id| {
        let mut single = ConfChangeSingle::default();
        single.change_type = kind;
        single.node_id = id;
        single
    };
    let mut change = ConfChangeV2::default();
    change.changes = vec![
        single(ConfChangeType::AddNode, 1),
        single(ConfChangeType::AddLearnerNode, 2),
        single(ConfChangeType::RemoveNode, 3),
    ]
    .into();
    change.transition = ConfChangeTransition::Implicit;
    assert_eq!(decode_change(&encode_change(&change)), Ok(change));
    assert!(decode_change(&[]).unwrap().leave_joint());
    assert!(decode_change(&[1, 0, 0, 0, 0]).is_err(), "a change without changes is not one");
}

/// Raft asserts these; a peer must not be able to reach the assertion.
#[test]
fn members_and_messages_that_raft_would_choke_on_are_refused() {
    let refused = |change: fn(&mut ConfState)| {
        let mut members = ConfState::default();
        members.voters = vec![1, 2];
        change(&mut members);
        let meta = GroupMeta { state: MetaState::Whole, applied: Point::default(), members };
        assert!(GroupMeta::decode(&meta.encode()).is_err());
    };
    refused(|members| members.voters = vec![1, 1]);
    refused(|members| members.voters = vec![0]);
    refused(|members| members.learners = vec![2]);
    refused(|members| members.learners_next = vec![9]);
    refused(|members| members.auto_leave = true);
    refused(|members| members.voters = (1..100).collect());

    let entry = |index, term| {
        let mut entry = Entry::default();
        (entry.index, entry.term) = (index, term);
        entry
    };
    for entries in [vec![entry(10, 3)], vec![entry(9, 2)], vec![entry(9, 10)], vec![entry(9, 4), entry(11, 4)]] {
        let bytes = wire(Body::Raft(Box::new(append(entries)))).encode_message();
        assert!(Wire::decode_message(&bytes).is_err());
    }
}
