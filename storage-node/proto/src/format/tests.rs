//! Whatever a peer sends decodes or fails, and what decodes means the same when it is written again.

use placement_types::{ByteRange, DiskId, ShardId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Small values are lengths, tags and flags, so that some of it gets far.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..300)
}

fn check<T: Encode + Decode + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = T::from_encoded(bytes) {
        prop_assert_eq!(T::from_encoded(&value.to_encoded()), Ok(value));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in bytes()) {
        check::<Command>(&bytes)?;
        check::<Outcome>(&bytes)?;
        check::<Query>(&bytes)?;
        check::<Answer>(&bytes)?;
        check::<WriteChunk>(&bytes)?;
        check::<WriteShard>(&bytes)?;
        check::<RestoreShards>(&bytes)?;
        check::<Option<Vec<Option<DiskId>>>>(&bytes)?;
        check::<(ChunkEntry, ByteRange)>(&bytes)?;
        check::<((DiskId, ShardId), (u32, u32))>(&bytes)?;
        check::<(DiskId, Vec<ShardId>)>(&bytes)?;
        check::<Vec<DiskReport>>(&bytes)?;
        check::<Vec<GroupReport>>(&bytes)?;
        check::<UpkeepReport>(&bytes)?;
        check::<RaftSender>(&bytes)?;
        check::<MetaError>(&bytes)?;
        check::<ChunkError>(&bytes)?;
        check::<ShardError>(&bytes)?;
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(bytes in bytes()) {
        check::<Version>(&bytes)?;
        check::<ObjectRecord>(&bytes)?;
        check::<Data>(&bytes)?;
        check::<Upload>(&bytes)?;
        check::<Part>(&bytes)?;
        let _ = Command::from_versioned(&bytes);
        let _ = Query::from_versioned(&bytes);
    }
}
