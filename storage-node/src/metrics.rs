//! The names of this service's metrics, behind typed functions. No other module names one.

use metrics::{counter, gauge, histogram};
use placement_types::{DiskId, Timestamp};
use std::time::Duration;

/// A chunk was written; `missing` of its shards are owed to repair.
pub(crate) fn chunk_written(bytes: u64, missing: usize, took: Duration) {
    counter!("dozo_chunks_written_total").increment(1);
    counter!("dozo_chunk_bytes_written_total").increment(bytes);
    histogram!("dozo_chunk_write_seconds").record(took.as_secs_f64());
    if missing > 0 {
        counter!("dozo_chunks_written_degraded_total").increment(1);
    }
}

pub(crate) fn chunk_write_failed() {
    counter!("dozo_chunk_write_failures_total").increment(1);
}

pub(crate) fn shard_writer_failed() {
    counter!("dozo_shard_writer_failures_total").increment(1);
}

/// Once for each bad shard: when it goes into quarantine.
pub(crate) fn bitrot_detected() {
    counter!("dozo_bitrot_detected_total").increment(1);
}

/// Each time a reader meets one.
pub(crate) fn corrupt_read() {
    counter!("dozo_corrupt_reads_total").increment(1);
}

/// Every unit of a chunk is sound, and the chunk's hash is wrong.
pub(crate) fn chunk_hash_wrong() {
    counter!("dozo_chunk_hash_wrong_total").increment(1);
}

pub(crate) fn scrubbed(shards: usize, bytes: u64) {
    counter!("dozo_scrubbed_shards_total").increment(shards as u64);
    counter!("dozo_scrubbed_bytes_total").increment(bytes);
}

/// Shards found in segments and not in the index: those that were put back, and those that are not whole.
pub(crate) fn dark_data(shards: usize, unreadable: u64) {
    counter!("dozo_dark_shards_total").increment(shards as u64);
    counter!("dozo_dark_shards_unreadable_total").increment(unreadable);
}

pub(crate) fn scrub_finished(disk: DiskId, at: Timestamp) {
    gauge!("dozo_disk_scrub_finished_timestamp_seconds", "disk" => disk.to_string()).set(at.as_millis() as f64 / 1000.0);
}

pub(crate) fn shard_missing() {
    counter!("dozo_shards_missing_total").increment(1);
}

/// A chunk that another node repairs was given shards here.
pub(crate) fn restored_for_peer() {
    counter!("dozo_chunks_restored_for_peers_total").increment(1);
}

pub(crate) fn read_hedged() {
    counter!("dozo_reads_hedged_total").increment(1);
}

pub(crate) fn stripe_rebuilt() {
    counter!("dozo_stripes_rebuilt_total").increment(1);
}

pub(crate) fn chunk_unreadable() {
    counter!("dozo_chunks_unreadable_total").increment(1);
}

pub(crate) fn garbage_collected(chunks: usize) {
    counter!("dozo_gc_chunks_total").increment(chunks as u64);
}

pub(crate) fn orphans_deleted(shards: usize) {
    counter!("dozo_orphan_shards_deleted_total").increment(shards as u64);
}

pub(crate) fn shard_repaired() {
    counter!("dozo_shards_repaired_total").increment(1);
}

pub(crate) fn shard_moved() {
    counter!("dozo_shards_moved_total").increment(1);
}

pub(crate) fn chunk_recoded() {
    counter!("dozo_chunks_recoded_total").increment(1);
}

/// Bytes of shards that repair, rebalance and re-coding wrote.
pub(crate) fn upkeep_bytes(bytes: u64) {
    counter!("dozo_upkeep_bytes_written_total").increment(bytes);
}

/// What the last surveys of the groups this node leads found.
pub(crate) fn surveyed(lost: u64, leaving: u64, misplaced: u64, outdated: u64, unreadable_chunks: u64) {
    gauge!("dozo_shards_lost").set(lost as f64);
    gauge!("dozo_shards_leaving").set(leaving as f64);
    gauge!("dozo_shards_misplaced").set(misplaced as f64);
    gauge!("dozo_shards_to_recode").set(outdated as f64);
    gauge!("dozo_chunks_unreadable").set(unreadable_chunks as f64);
}

pub(crate) fn repair_failed() {
    counter!("dozo_repair_failures_total").increment(1);
}

pub(crate) fn disk(disk: DiskId, shard_bytes: u64, available_bytes: u64, quarantined: u64) {
    gauge!("dozo_disk_quarantined_shards", "disk" => disk.to_string()).set(quarantined as f64);
    gauge!("dozo_disk_shard_bytes", "disk" => disk.to_string()).set(shard_bytes as f64);
    gauge!("dozo_disk_available_bytes", "disk" => disk.to_string()).set(available_bytes as f64);
}

/// When this node's newest copy of the system group's state was taken.
pub(crate) fn system_copied(taken: Timestamp) {
    gauge!("dozo_system_copy_timestamp_seconds").set(taken.as_seconds() as f64);
}
