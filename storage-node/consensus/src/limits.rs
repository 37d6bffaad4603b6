//! Every maximum of this crate, with its reason.

/// One proposed entry. A CompleteMultipartUpload of 10,000 parts is the largest command and stays below it.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// What one append message carries, unless a single entry is larger: about the size the transport moves best.
pub const APPEND_BYTES: u64 = 1 << 20;

/// One message on the wire: the largest entry, or an append, with room for its frame.
pub const MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + (2 << 20);

/// Entries of one append message or log record; a longer claim is a broken one. Raft counts at least 8 bytes to an entry, so
/// an append holds half as many at most.
pub const MESSAGE_ENTRIES_MAX: usize = 1 << 18;

/// Append messages on their way to one follower.
pub const APPENDS_IN_FLIGHT: usize = 64;

/// Voters and learners of one group.
pub const MEMBERS_MAX: usize = 32;

/// Groups of one node. Each costs a few KiB of memory and a look per turn of the driver.
pub const GROUPS_MAX: usize = 4096;

/// Requests (proposals, reads, administration) that may wait for the driver; past it callers wait in `send`.
pub const REQUESTS_WAITING: usize = 8192;

/// Batches of messages that may wait for the driver; past it they are dropped, which Raft survives.
pub const INBOUND_WAITING: usize = 1024;

/// Requests and batches of messages taken per turn, so that a flood of one kind delays the others by little.
pub const REQUESTS_PER_TURN: usize = 1024;
pub const INBOUND_PER_TURN: usize = 256;

/// Proposals of one group that were accepted and not yet answered. Past it callers hear `Busy`.
pub const PROPOSALS_PER_GROUP: usize = 4096;

/// Bytes a leader holds that are not committed yet; past it callers hear `Busy`.
pub const UNCOMMITTED_BYTES: u64 = 64 << 20;

/// Committed bytes taken from Raft at once, and applied in one batch.
pub const APPLY_BYTES: u64 = 4 << 20;
pub const APPLY_ENTRIES: usize = 1024;

/// Committed bytes of a group waiting to be applied; past it appends are dropped, so that the leader slows down.
pub const APPLY_BACKLOG_BYTES: usize = 64 << 20;

/// Log records written with one fsync. A record is at most an entry and its frame.
pub const FRAME_BYTES: usize = 4 << 20;

/// The payload a frame on disk may claim: a full frame plus one record that filled it past the mark, and a checkpoint.
pub const FRAME_BYTES_MAX: usize = FRAME_BYTES + 2 * ENTRY_BYTES_MAX + (4 << 20);

/// Log bytes that wait for the fsync before them; past it no group gives out new work, which holds the proposals back.
pub const LOG_PENDING_BYTES: usize = 64 << 20;

/// Bytes read from the log at once for a follower that is behind.
pub const FETCH_BYTES: u64 = 2 << 20;

/// One piece of a snapshot on the wire, and how many may be unacknowledged.
pub const CHUNK_BYTES: usize = 1 << 20;
pub const CHUNKS_IN_FLIGHT: u32 = 4;

/// Keys and values in a snapshot; larger ones are a damaged file.
pub const SNAPSHOT_KEY_BYTES_MAX: usize = 1 << 16;
pub const SNAPSHOT_VALUE_BYTES_MAX: usize = 64 << 20;

/// Snapshots of one node that are made, and that are on their way, at the same time: each reads or holds a lot.
pub const SNAPSHOT_BUILDS_MAX: usize = 2;
pub const TRANSFERS_MAX: usize = 4;

/// Ticks that the file of a snapshot is kept for the next replica that may need it.
pub const SNAPSHOT_KEPT_TICKS: u32 = 300;

/// What a snapshot puts into the store with one write.
pub const INSTALL_BATCH_BYTES: usize = 4 << 20;

/// Ticks without an acknowledgement after which a piece of a snapshot is sent again, and the transfer is given up.
pub const CHUNK_RETRY_TICKS: u32 = 10;
pub const TRANSFER_GIVE_UP_TICKS: u32 = 100;

/// Turns a group may ask for more work within one turn of the driver.
pub const READIES_PER_TURN: usize = 4;

/// Ticks between two flushes of the state when little is written, so that a restart replays little.
pub const FLUSH_TICKS: u32 = 600;

/// Ticks that one write of the log may take before other replicas are asked to lead (D22).
pub const STALLED_WRITE_TICKS: u64 = 30;

/// Ticks that a write of the log takes when its disk is slow (0.2 s and more), and how many such writes in a row, each overtaken
/// by a majority elsewhere, a leader makes before it asks another replica to lead (D21). Among disks that are all slow and differ by
/// chance one is the last of three every third time: five in a row keep leadership from going round.
pub const SLOW_WRITE_TICKS: u64 = 3;
pub const SLOW_WRITES: u32 = 5;

/// Ticks that a graceful stop waits for other replicas to take over.
pub const HANDOVER_TICKS: u32 = 20;

/// A replica that lacks fewer entries than this has caught up: it gets the rest within a few messages.
pub(crate) const CAUGHT_UP_ENTRIES: u64 = 1000;

/// How far back from its end a stopped replica's log is searched for an entry that somebody proposed.
pub const LOOK_BACK_ENTRIES: u64 = 64;
