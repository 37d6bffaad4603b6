//! Every maximum of the cluster's own state.

use std::time::Duration;

/// Buckets of a cluster: each is a row of the system group that every gateway may list.
pub const BUCKETS_MAX: u64 = 100_000;

/// Index shards of a bucket. A listing merges all of them, and what it reads in vain grows with their number.
pub const INDEX_SHARDS_MAX: u16 = 1024;

/// Nodes that found a cluster; later ones join.
pub const FOUNDING_NODES_MAX: usize = 256;

/// Nodes of a cluster.
pub const NODES_MAX: usize = 4096;

/// Disks that one layout change names.
pub const NAMES_MAX: usize = 1024;

/// Removed disks, and removed nodes, that are remembered for ever: sixteen bytes each, in every copy of the map.
pub const REMOVED_MAX: usize = 16_384;

/// Disks of a cluster: what a ring is built for within a second.
pub const DISKS_MAX: usize = 8192;

/// Partitions of a ring. 4096 is the default; more only make sense with thousands of disks.
pub const PARTITIONS_MAX: u32 = 1 << 18;

/// Partitions of a ring unless told otherwise.
pub const PARTITIONS_DEFAULT: u32 = 4096;

/// Metadata groups: each needs a slot, and a process leads only so many.
pub const GROUPS_MAX: u32 = placement_types::SLOTS as u32;

/// Runs of its process that a node's directory remembers: the last one that claimed the node, and those since that may have.
pub const BOOTS_MAX: usize = 64;

/// Voters of a Raft group.
pub const VOTERS_MAX: usize = 3;

/// What a recovered cluster skips of epochs, replica ids and log places: far more than the majority that was lost can have given
/// out since the replica or copy was written that the cluster goes on with.
pub const NUMBERS_SKIPPED: u64 = 1 << 20;

/// The same for layouts, which people type.
pub const LAYOUTS_SKIPPED: u64 = 1000;

/// Groups that one recovery names: all there may be.
pub const RECOVERY_GROUPS_MAX: usize = GROUPS_MAX as usize + 1;

/// Text fields of commands: addresses, regions, owners. DNS names end at 253 bytes.
pub const TEXT_BYTES_MAX: usize = 300;

/// How many transactions the group remembers. A retry comes within seconds of its first attempt; the group sees about one
/// command a second, and one burst of bucket creations is thousands.
pub const TXNS_MAX: u64 = 10_000;

/// How long a deletion of a bucket may go on before another deleter may take over. The first one must have given up long
/// before: its Finish or its unfencing must not overtake the second one's work.
pub const DELETE_LEASE: Duration = Duration::from_secs(300);
