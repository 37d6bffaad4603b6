//! Every byte the store writes.
//!
//! Integers are big-endian. A *position* is `segment u32, block u32`.
//!
//! `disk.id`:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DOZODISK` |
//! | 2 | version, 1. It stands for everything on the disk: a build that reads only older formats refuses the disk |
//! | 16, 16, 16 | cluster, node, disk id |
//! | 16 | BLAKE3 of the above, cut to 16 bytes |
//!
//! Record, at a 4 KiB boundary of `segments/NNNNNNNN.seg`, padded to the next by whatever the file holds:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `DZRC` |
//! | 4 | 2 | version, 1 |
//! | 6 | 1 | kind: 1 unit, 2 seal, 3 delete |
//! | 7 | 17 | shard id (zero in a delete) |
//! | 24 | 4 | index of the unit; in a seal of the last unit |
//! | 28 | 16, 2 | owner: transaction, metadata slot |
//! | 46 | 1, 1 | profile: k, m |
//! | 48 | 8 | written at, ms |
//! | 56 | 8 | position of this very record: another place's record is refused (D12, D13) |
//! | 64 | 8 | position before which everything was fsynced when this was written |
//! | 72 | 4 | data bytes |
//! | 76 | 4 | table bytes |
//! | 80 | 32 | BLAKE3 of the data |
//! | 112 | 32 | BLAKE3 of the table |
//! | 144 | 16 | BLAKE3 of the above, keyed with the disk's identity, cut to 16 bytes |
//! | 160 | | data: the unit. Empty in a delete, and in the seal of a shard without units |
//! | | | table: the seal's or the delete's; empty in a unit |
//!
//! Seal table: shard bytes `u64`; root hash, 32; then counted units: position, bytes `u32`, BLAKE3 (32).
//! Delete table: counted tombstones: shard id, position of the newest seal it kills.
//!
//! Why keyed: where a header is damaged a scan looks for the next one block by block, through bytes that clients chose. A
//! client who does not know the key cannot make an object that is read as a record.
//!
//! Index: key `s` + shard id -> entry; key `q` + shard id -> position of the seal of the copy that was found bad; key
//! `mcheckpoint` -> version `u8`, disk id, position; key `mscrub` -> how far the scrub is (`scrub.rs`). Entry: version `u8`, owner,
//! profile, written at, bytes `u64`, root, position of the seal, counted units: position, bytes `u32`.

use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{ChunkId, ClusterId, DiskId, NodeId, Profile, ShardId, Slot, Timestamp, TxnId, codec_struct};

use crate::identity::DiskIdentity;
use crate::limits::{TABLE_BYTES_MAX, TOMBSTONES_MAX, UNIT_BYTES_MAX, UNITS_MAX};
use crate::position::{Extent, Position, blocks_of};
use crate::writer::Owner;

pub(crate) const HEADER_BYTES: usize = 160;
const CHECKSUM_BYTES: usize = 16;
const MAGIC: [u8; 4] = *b"DZRC";
const VERSION: u16 = 1;
const IDENTITY_MAGIC: [u8; 8] = *b"DOZODISK";
const ENTRY_VERSION: u8 = 1;
const CHECKPOINT_VERSION: u8 = 1;

pub(crate) type Hash = [u8; 32];

/// Keys the header checksums of one disk.
#[derive(Clone)]
pub(crate) struct RecordKey(Hash);

impl RecordKey {
    pub fn new(identity: &DiskIdentity) -> Self {
        let mut material = Encoder::new();
        identity.cluster.encode(&mut material);
        identity.disk.encode(&mut material);
        Self(blake3::derive_key("dozo storage-node-store record header v1", &material.finish()))
    }

    fn checksum(&self, header: &[u8]) -> [u8; CHECKSUM_BYTES] {
        cut(blake3::keyed_hash(&self.0, header).as_bytes())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Unit,
    Seal,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: RecordKind,
    pub shard: ShardId,
    pub unit: u32,
    pub owner: Owner,
    pub profile: Profile,
    pub written_at: Timestamp,
    pub at: Position,
    pub durable: Position,
    pub data_bytes: u32,
    pub table_bytes: u32,
    pub data_hash: Hash,
    pub table_hash: Hash,
}

/// The bytes are not the header of a record that belongs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotARecord;

impl Header {
    pub fn delete(at: Position, durable: Position, written_at: Timestamp, table: &[u8]) -> Self {
        Self {
            kind: RecordKind::Delete,
            shard: ShardId { chunk: ChunkId::from_u128(0), index: 0 },
            unit: 0,
            owner: Owner { txn: TxnId::from_u128(0), slot: Slot(0) },
            profile: Profile::SINGLE,
            written_at,
            at,
            durable,
            data_bytes: 0,
            table_bytes: u32::try_from(table.len()).expect("tables are bounded by TABLE_BYTES_MAX"),
            data_hash: hash(&[]),
            table_hash: hash(table),
        }
    }

    pub fn to_bytes(&self, key: &RecordKey) -> [u8; HEADER_BYTES] {
        let mut out = Encoder::with_capacity(HEADER_BYTES);
        out.raw(&MAGIC);
        out.u16(VERSION);
        out.u8(match self.kind {
            RecordKind::Unit => 1,
            RecordKind::Seal => 2,
            RecordKind::Delete => 3,
        });
        self.shard.encode(&mut out);
        out.u32(self.unit);
        self.owner.encode(&mut out);
        self.profile.encode(&mut out);
        self.written_at.encode(&mut out);
        self.at.encode(&mut out);
        self.durable.encode(&mut out);
        out.u32(self.data_bytes);
        out.u32(self.table_bytes);
        out.raw(&self.data_hash);
        out.raw(&self.table_hash);
        let fields = out.finish();
        let mut bytes = [0; HEADER_BYTES];
        bytes[..fields.len()].copy_from_slice(&fields);
        bytes[fields.len()..].copy_from_slice(&key.checksum(&fields));
        bytes
    }

    /// Reads the header of the record at `at`: nothing a damaged or foreign block holds gets past it.
    pub fn read(bytes: &[u8], key: &RecordKey, at: Position) -> Result<Self, NotARecord> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(NotARecord)?;
        let (fields, checksum) = bytes.split_at(HEADER_BYTES - CHECKSUM_BYTES);
        if fields[..4] != MAGIC || key.checksum(fields) != checksum {
            return Err(NotARecord);
        }
        let header = Self::from_fields(fields).map_err(|_| NotARecord)?;
        if header.at != at || header.data_bytes > UNIT_BYTES_MAX as u32 || header.table_bytes > TABLE_BYTES_MAX {
            return Err(NotARecord);
        }
        Ok(header)
    }

    fn from_fields(fields: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(&fields[MAGIC.len()..]);
        input.version("record", VERSION)?;
        let kind = match input.u8()? {
            1 => RecordKind::Unit,
            2 => RecordKind::Seal,
            3 => RecordKind::Delete,
            tag => return Err(DecodeError::UnknownTag { what: "record kind", tag }),
        };
        let header = Self {
            kind,
            shard: ShardId::decode(&mut input)?,
            unit: input.u32()?,
            owner: Owner::decode(&mut input)?,
            profile: Profile::decode(&mut input)?,
            written_at: Timestamp::decode(&mut input)?,
            at: Position::decode(&mut input)?,
            durable: Position::decode(&mut input)?,
            data_bytes: input.u32()?,
            table_bytes: input.u32()?,
            data_hash: input.array()?,
            table_hash: input.array()?,
        };
        input.finish()?;
        Ok(header)
    }

    pub fn extent(&self) -> Extent {
        Extent { at: self.at, blocks: record_blocks(self.data_bytes, self.table_bytes) }
    }

    /// Where the record's data begins in the file.
    pub fn data_offset(&self) -> u64 {
        self.at.offset() + HEADER_BYTES as u64
    }

    pub fn table_offset(&self) -> u64 {
        self.data_offset() + u64::from(self.data_bytes)
    }
}

/// How many blocks a record fills.
pub(crate) fn record_blocks(data_bytes: u32, table_bytes: u32) -> u32 {
    blocks_of(HEADER_BYTES as u64 + u64::from(data_bytes) + u64::from(table_bytes))
}

/// A unit, as a seal lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedUnit {
    pub at: Position,
    pub bytes: u32,
    pub hash: Hash,
}
codec_struct!(SealedUnit { at, bytes, hash });

/// What makes a run of units a shard.
///
/// # Invariants
/// At most `UNITS_MAX` units; `bytes` is their sum; `root` is [`root_hash`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealTable {
    pub bytes: u64,
    pub root: Hash,
    pub units: Vec<SealedUnit>,
}

impl SealTable {
    pub fn new(units: Vec<SealedUnit>) -> Self {
        Self { bytes: units.iter().map(|unit| u64::from(unit.bytes)).sum(), root: root_hash(&units), units }
    }
}

impl Encode for SealTable {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.bytes);
        out.raw(&self.root);
        self.units.encode(out);
    }
}

impl Decode for SealTable {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (bytes, root, units) = (input.u64()?, input.array()?, Vec::<SealedUnit>::decode(input)?);
        let table = Self::new(units);
        if table.units.len() > UNITS_MAX || table.bytes != bytes || table.root != root {
            return Err(DecodeError::Invalid { what: "seal table" });
        }
        Ok(table)
    }
}

/// The bytes of a seal table of so many units.
pub(crate) fn seal_table_bytes(units: usize) -> u32 {
    (8 + 32 + 4 + 44 * u32::try_from(units).expect("at most UNITS_MAX")).min(TABLE_BYTES_MAX)
}

/// One hash over what the units hold, wherever they are.
pub(crate) fn root_hash(units: &[SealedUnit]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for unit in units {
        hasher.update(&unit.bytes.to_be_bytes());
        hasher.update(&unit.hash);
    }
    *hasher.finalize().as_bytes()
}

/// Kills every seal of `shard` up to position `newest`. Naming the position lets compaction append the tombstone again
/// without killing a shard that was written anew in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub shard: ShardId,
    pub newest: Position,
}
codec_struct!(Tombstone { shard, newest });

/// # Invariants
/// At most `TOMBSTONES_MAX` tombstones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteTable {
    pub tombstones: Vec<Tombstone>,
}

impl Encode for DeleteTable {
    fn encode(&self, out: &mut Encoder) {
        self.tombstones.encode(out);
    }
}

impl Decode for DeleteTable {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let tombstones = Vec::<Tombstone>::decode(input)?;
        if tombstones.len() > TOMBSTONES_MAX {
            return Err(DecodeError::Invalid { what: "delete table" });
        }
        Ok(Self { tombstones })
    }
}

/// A unit, as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnitPlace {
    pub at: Position,
    pub bytes: u32,
}
codec_struct!(UnitPlace { at, bytes });

/// A shard in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub owner: Owner,
    pub profile: Profile,
    pub written_at: Timestamp,
    pub bytes: u64,
    pub root: Hash,
    pub seal: Position,
    pub units: Vec<UnitPlace>,
}

impl Entry {
    /// The entry of a seal record.
    pub fn of_seal(header: &Header, table: &SealTable) -> Self {
        Self {
            owner: header.owner,
            profile: header.profile,
            written_at: header.written_at,
            bytes: table.bytes,
            root: table.root,
            seal: header.at,
            units: table.units.iter().map(|unit| UnitPlace { at: unit.at, bytes: unit.bytes }).collect(),
        }
    }

    /// The blocks of all its records.
    pub fn extents(&self) -> Vec<Extent> {
        let table_bytes = seal_table_bytes(self.units.len());
        let mut sealed = false;
        let mut extents = Vec::with_capacity(self.units.len() + 1);
        for unit in &self.units {
            let carries_seal = unit.at == self.seal;
            sealed |= carries_seal;
            extents.push(Extent { at: unit.at, blocks: record_blocks(unit.bytes, if carries_seal { table_bytes } else { 0 }) });
        }
        if !sealed {
            extents.push(Extent { at: self.seal, blocks: record_blocks(0, table_bytes) });
        }
        extents
    }

    /// Whether any of its records lies in the segment.
    pub fn touches(&self, segment: u32) -> bool {
        self.seal.segment == segment || self.units.iter().any(|unit| unit.at.segment == segment)
    }
}

impl Encode for Entry {
    fn encode(&self, out: &mut Encoder) {
        out.u8(ENTRY_VERSION);
        self.owner.encode(out);
        self.profile.encode(out);
        self.written_at.encode(out);
        out.u64(self.bytes);
        out.raw(&self.root);
        self.seal.encode(out);
        self.units.encode(out);
    }
}

impl Decode for Entry {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        entry_version(input, "index entry", ENTRY_VERSION)?;
        let entry = Self {
            owner: Owner::decode(input)?,
            profile: Profile::decode(input)?,
            written_at: Timestamp::decode(input)?,
            bytes: input.u64()?,
            root: input.array()?,
            seal: Position::decode(input)?,
            units: Vec::decode(input)?,
        };
        if entry.units.len() > UNITS_MAX || entry.units.iter().any(|unit| unit.bytes > UNIT_BYTES_MAX as u32) {
            return Err(DecodeError::Invalid { what: "index entry" });
        }
        Ok(entry)
    }
}

/// How far the index is known to be durable, and of which disk it is the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub disk: DiskId,
    pub upto: Position,
}

impl Encode for Checkpoint {
    fn encode(&self, out: &mut Encoder) {
        out.u8(CHECKPOINT_VERSION);
        self.disk.encode(out);
        self.upto.encode(out);
    }
}

impl Decode for Checkpoint {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        entry_version(input, "checkpoint", CHECKPOINT_VERSION)?;
        Ok(Self { disk: DiskId::decode(input)?, upto: Position::decode(input)? })
    }
}

fn entry_version(input: &mut Decoder<'_>, what: &'static str, version: u8) -> Result<(), DecodeError> {
    match input.u8()? {
        found if found == version => Ok(()),
        found => Err(DecodeError::UnknownVersion { what, version: u16::from(found) }),
    }
}

/// The content of `disk.id`.
pub(crate) fn encode_identity(identity: &DiskIdentity) -> Vec<u8> {
    let mut out = Encoder::new();
    out.raw(&IDENTITY_MAGIC);
    out.u16(VERSION);
    identity.cluster.encode(&mut out);
    identity.node.encode(&mut out);
    identity.disk.encode(&mut out);
    let mut bytes = out.finish().to_vec();
    let checksum: [u8; CHECKSUM_BYTES] = cut(&hash(&bytes));
    bytes.extend(checksum);
    bytes
}

/// Reads `disk.id`; damage and an unknown version are told apart in the error's text only, as both mean "leave it alone".
pub(crate) fn decode_identity(bytes: &[u8]) -> Result<DiskIdentity, DecodeError> {
    let mut input = Decoder::new(bytes);
    if input.array()? != IDENTITY_MAGIC {
        return Err(DecodeError::Invalid { what: "disk.id" });
    }
    input.version("disk.id", VERSION)?;
    let identity = DiskIdentity {
        cluster: ClusterId::decode(&mut input)?,
        node: NodeId::decode(&mut input)?,
        disk: DiskId::decode(&mut input)?,
    };
    let checksum: [u8; CHECKSUM_BYTES] = input.array()?;
    input.finish()?;
    if checksum != cut(&hash(&bytes[..bytes.len() - CHECKSUM_BYTES])) {
        return Err(DecodeError::Invalid { what: "disk.id (its checksum does not match)" });
    }
    Ok(identity)
}

pub(crate) fn hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

fn cut(hash: &Hash) -> [u8; CHECKSUM_BYTES] {
    *hash.first_chunk().expect("a hash is longer than a checksum")
}
