use std::collections::BTreeMap;

use placement_map::bucket::{Bucket, BucketState, BucketVersioning};
use placement_map::state::SystemState;
use placement_map::system::{NewDisk, NewNode, SystemChange};
use placement_map::{DiskState, NodeState};
use placement_types::{BucketId, BucketName, ClusterId, DiskId, Epoch, NodeId, Timestamp, TxnId, ZoneName};
use storage_node_kv::{Durability, KvRead, MemoryKv};

use super::*;

const PREFIX: &[u8] = b"group 0/";

/// Applies entries as the driver does.
struct Group {
    kv: MemoryKv,
    machine: Arc<SystemMachine>,
}

impl Group {
    fn on(kv: MemoryKv) -> Self {
        let machine = SystemMachine::new(Arc::new(kv.clone()), PREFIX).unwrap();
        Self { kv, machine }
    }

    fn apply_bytes(&self, entry: &[u8]) -> SystemOutcome {
        let rows = Prefixed::new(&self.kv, PREFIX);
        let mut state = Overlay::new(&rows);
        let reply = self.machine.apply(&mut state, 1, entry).expect("memory does not fail");
        let batch = state.into_batch(PREFIX);
        self.kv.write(&batch, Durability::Synced).unwrap();
        self.machine.applied(GroupId::SYSTEM, 1);
        SystemOutcome::from_versioned(&reply).unwrap()
    }

    fn apply(&self, command: &SystemCommand) -> SystemOutcome {
        self.apply_bytes(&command.to_versioned())
    }

    fn map(&self) -> Option<Arc<ClusterMap>> {
        self.machine.maps().borrow().clone()
    }
}

fn command(txn: u64, change: SystemChange) -> SystemCommand {
    SystemCommand { txn: TxnId::from_u128(txn.into()), time: Timestamp::from_millis(txn * 1000), change }
}

fn new_node(number: u128, disks: u128) -> NewNode {
    let disk = |disk: u128| NewDisk { disk: DiskId::from_u128(number * 10 + disk), capacity_bytes: 1 << 40 };
    NewNode {
        node: NodeId::from_u128(number),
        address: format!("node-{number}:9100"),
        zone: ZoneName::default(),
        disks: (0..disks).map(disk).collect(),
    }
}

fn form() -> SystemChange {
    let nodes = (1..=3).map(|number| new_node(number, 1)).collect();
    SystemChange::Form { cluster: ClusterId::from_u128(0xc1), nodes, profile: None, partitions: 16, groups: 2 }
}

fn bucket(name: &str) -> Bucket {
    Bucket {
        name: BucketName::parse(name).unwrap(),
        id: BucketId::from_u128(7),
        created: Timestamp::default(),
        index_shards: 8,
        region: String::new(),
        owner: "ann".into(),
        versioning: BucketVersioning::Unversioned,
        state: BucketState::Active,
    }
}

fn any_change(dice: u64) -> SystemChange {
    let number = u128::from(dice / 16 % 4) + 1;
    let name = BucketName::parse(["photos", "videos", "texts"][(dice / 16 % 3) as usize]).unwrap();
    let id = BucketId::from_u128(7);
    match dice % 12 {
        0 => form(),
        1 => SystemChange::Register { node: new_node(number, u128::from(dice / 64 % 3)) },
        2 => SystemChange::SetNodeState { node: NodeId::from_u128(number), state: NodeState::Down },
        3 => SystemChange::SetNodeState { node: NodeId::from_u128(number), state: NodeState::Up },
        4 => SystemChange::SetDiskState { disk: DiskId::from_u128(number * 10), state: DiskState::Dead },
        5 => SystemChange::Rebalance {},
        6 | 7 => SystemChange::CreateBucket { bucket: bucket(name.as_str()) },
        8 => SystemChange::SetBucket { bucket: Bucket { versioning: BucketVersioning::Enabled, ..bucket(name.as_str()) } },
        9 => SystemChange::BeginDeleteBucket { name, id },
        10 => SystemChange::FinishDeleteBucket { name, id },
        _ => SystemChange::CancelDeleteBucket { name, id },
    }
}

#[test]
fn rows_hold_what_the_state_in_memory_holds() {
    for seed in 0..20 {
        let (env, _) = placement_env::sim::env(seed);
        let mut group = Group::on(MemoryKv::new());
        let mut model = SystemState::default();
        for txn in 0..200 {
            // Now and then a transaction comes again.
            let txn = if env.random_below(8) == 0 { env.random_below(txn + 1) } else { txn };
            let command = command(txn, any_change(env.random_u64()));
            assert_eq!(group.apply(&command), model.apply(&command).0);
            assert_eq!(group.map().as_deref(), model.map.as_ref());
            if env.random_below(10) == 0 {
                group = Group::on(group.kv);
                assert_eq!(group.map().as_deref(), model.map.as_ref(), "after a restart");
            }
        }
        let rows = rows::buckets(&group.machine.rows()).unwrap();
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.bucket.name.clone(), row)).collect();
        assert_eq!(rows, model.buckets);
        assert_eq!(rows::counters(&group.machine.rows()).unwrap().buckets, model.buckets.len() as u64);
    }
}

#[test]
fn a_map_is_published_when_it_is_readable_and_not_before() {
    let group = Group::on(MemoryKv::new());
    let rows = Prefixed::new(&group.kv, PREFIX);
    let mut state = Overlay::new(&rows);
    group.machine.apply(&mut state, 1, &command(1, form()).to_versioned()).expect("memory does not fail");
    assert_eq!(group.map(), None);
    group.kv.write(&state.into_batch(PREFIX), Durability::Buffered).unwrap();
    group.machine.applied(GroupId::SYSTEM, 1);
    assert_eq!(group.map().unwrap().epoch, Epoch(1));
}

#[test]
fn a_snapshot_of_another_replica_is_published() {
    let (ours, theirs) = (Group::on(MemoryKv::new()), Group::on(MemoryKv::new()));
    theirs.apply(&command(1, form()));
    theirs.apply(&command(2, SystemChange::SetNodeState { node: NodeId::from_u128(2), state: NodeState::Down }));
    let mut batch = storage_node_kv::WriteBatch::new();
    theirs
        .kv
        .scan(b"", b"", &mut |key, value| {
            batch.put(key.to_vec(), value.to_vec());
            storage_node_kv::Step::Next
        })
        .unwrap();
    ours.kv.write(&batch, Durability::Synced).unwrap();
    ours.machine.applied(GroupId::SYSTEM, 2);
    assert_eq!(ours.map(), theirs.map());
    assert_eq!(ours.apply(&command(2, SystemChange::Nothing {})), SystemOutcome::Done);
}

#[test]
fn old_transactions_leave_no_rows() {
    let group = Group::on(MemoryKv::new());
    for txn in 0..TXNS_MAX + 50 {
        group.apply(&command(txn, SystemChange::Nothing {}));
    }
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        storage_node_kv::Step::Next
    };
    group.machine.rows().scan(b"", b"", &mut count).unwrap();
    assert_eq!(rows, 2 * TXNS_MAX + 1, "an outcome and its place for each, and the counters");
}

#[test]
fn entries_that_make_no_sense_change_nothing() {
    let group = Group::on(MemoryKv::new());
    for entry in [&b""[..], b"\x00", b"\xff\xff\xff\xff", &[0; 100]] {
        assert!(matches!(group.apply_bytes(entry), SystemOutcome::Malformed { .. }));
    }
    let newer = [&[0, 9][..], &command(1, form()).to_versioned()[2..]].concat();
    assert!(matches!(group.apply_bytes(&newer), SystemOutcome::Malformed { .. }));
    assert_eq!(rows::counters(&group.machine.rows()).unwrap(), rows::Counters::default());
}
