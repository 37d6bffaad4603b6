//! The rows of the system group's state.
//!
//! | key | value |
//! |---|---|
//! | `map` | the cluster map, versioned |
//! | `epoch` | version u16, cluster u128, epoch u64: tells cheaply whether a copy of the map is still the newest |
//! | `bucket/` name | [`BucketRow`], versioned |
//! | `txn/` 16 bytes | the outcome of a transaction, versioned |
//! | `order/` u64 | the transaction (16 bytes) that was applied as the so-many-th |
//! | `counters` | version u16, transactions applied u64, buckets u64 |

use bytes::Bytes;
use placement_map::ClusterMap;
use placement_map::system::{BucketRow, SystemOutcome};
use placement_types::codec::{Decode, DecodeError, Encode};
use placement_types::{BucketName, ClusterId, Epoch, TxnId, codec_struct, codec_versioned};
use storage_node_kv::{KvError, KvRead, Overlay, Step};

const VERSION: u16 = 1;
pub(crate) const MAP: &[u8] = b"map";
const EPOCH: &[u8] = b"epoch";
const COUNTERS: &[u8] = b"counters";
const BUCKETS: &str = "bucket/";

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("a row of the system group does not decode")]
    Undecodable(#[from] DecodeError),
}

/// Which map is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapEdition {
    pub cluster: ClusterId,
    pub epoch: Epoch,
}
codec_struct!(MapEdition { cluster, epoch });

impl MapEdition {
    pub fn of(map: &ClusterMap) -> Self {
        Self { cluster: map.cluster, epoch: map.epoch }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// How many transactions were ever remembered: the number of the next one.
    pub txns: u64,
    pub buckets: u64,
}
codec_struct!(Counters { txns, buckets });

codec_versioned!(VERSION {
    MapEdition, "a map edition";
    Counters, "counters";
});

fn read<T>(rows: &dyn KvRead, key: &[u8], decode: impl Fn(&[u8]) -> Result<T, DecodeError>) -> Result<Option<T>, RowError> {
    Ok(rows.get(key)?.map(|bytes| decode(&bytes)).transpose()?)
}

pub(crate) fn map_edition(rows: &dyn KvRead) -> Result<Option<MapEdition>, RowError> {
    read(rows, EPOCH, MapEdition::from_versioned)
}

pub(crate) fn map(rows: &dyn KvRead) -> Result<Option<ClusterMap>, RowError> {
    read(rows, MAP, ClusterMap::from_versioned)
}

pub(crate) fn put_map(state: &mut Overlay<'_>, map: &ClusterMap) {
    state.put(MAP, map.to_versioned());
    state.put(EPOCH, MapEdition::of(map).to_versioned());
}

pub(crate) fn counters(rows: &dyn KvRead) -> Result<Counters, RowError> {
    Ok(read(rows, COUNTERS, Counters::from_versioned)?.unwrap_or_default())
}

pub(crate) fn put_counters(state: &mut Overlay<'_>, counters: Counters) {
    state.put(COUNTERS, counters.to_versioned());
}

fn bucket_key(name: &BucketName) -> Vec<u8> {
    format!("{BUCKETS}{name}").into_bytes()
}

pub(crate) fn bucket(rows: &dyn KvRead, name: &BucketName) -> Result<Option<BucketRow>, RowError> {
    read(rows, &bucket_key(name), BucketRow::from_versioned)
}

/// All of them, in name order.
pub(crate) fn buckets(rows: &dyn KvRead) -> Result<Vec<BucketRow>, RowError> {
    let mut decoded = Ok(Vec::new());
    // '0' is the byte after '/'.
    rows.scan(BUCKETS.as_bytes(), b"bucket0", &mut |_, value| match BucketRow::from_versioned(value) {
        Ok(row) => {
            decoded.as_mut().expect("the scan stops at the first error").push(row);
            Step::Next
        }
        Err(error) => {
            decoded = Err(error);
            Step::Stop
        }
    })?;
    Ok(decoded?)
}

pub(crate) fn put_bucket(state: &mut Overlay<'_>, row: &BucketRow) {
    state.put(bucket_key(&row.bucket.name), row.to_versioned());
}

pub(crate) fn remove_bucket(state: &mut Overlay<'_>, name: &BucketName) {
    state.delete(bucket_key(name));
}

/// Every row but the outcomes of transactions, in key order.
pub(crate) fn copy(rows: &dyn KvRead) -> Result<Vec<(Bytes, Bytes)>, KvError> {
    let mut copied = Vec::new();
    rows.scan(b"", b"", &mut |key, value| {
        // '0' is the byte after '/'.
        if key.starts_with(b"order/") {
            return Step::Seek(b"order0".to_vec());
        }
        if key.starts_with(b"txn/") {
            return Step::Seek(b"txn0".to_vec());
        }
        copied.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        Step::Next
    })?;
    Ok(copied)
}

fn txn_key(txn: TxnId) -> Vec<u8> {
    [b"txn/".as_slice(), &txn.to_bytes()].concat()
}

fn order_key(number: u64) -> Vec<u8> {
    [b"order/".as_slice(), &number.to_be_bytes()].concat()
}

pub(crate) fn outcome(rows: &dyn KvRead, txn: TxnId) -> Result<Option<SystemOutcome>, RowError> {
    read(rows, &txn_key(txn), SystemOutcome::from_versioned)
}

pub(crate) fn put_outcome(state: &mut Overlay<'_>, number: u64, txn: TxnId, outcome: &SystemOutcome) {
    state.put(txn_key(txn), outcome.to_versioned());
    state.put(order_key(number), txn.to_encoded());
}

/// Forgets the transaction that was applied as number `number`.
pub(crate) fn forget_outcome(state: &mut Overlay<'_>, number: u64) -> Result<(), RowError> {
    let Some(txn) = read(state, &order_key(number), TxnId::from_encoded)? else { return Ok(()) };
    state.delete(txn_key(txn));
    state.delete(order_key(number));
    Ok(())
}
