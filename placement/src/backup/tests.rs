use async_trait::async_trait;
use parking_lot::Mutex;
use placement_env::sim;
use placement_map::bucket::Bucket;
use placement_map::recovery::LogPlace;
use placement_map::state::SystemState;
use placement_map::system::{NewDisk, NewNode, SystemChange, SystemCommand, SystemOutcome};
use placement_proto::api::Heartbeat;
use placement_types::{BucketName, ClusterId, DiskId, NodeId, TxnId, ZoneName};
use tokio::sync::watch;

use super::*;

const NODE_DIR: &str = "/node";

fn map(layout: u64) -> ClusterMap {
    let node = NewNode {
        node: NodeId::from_u128(1),
        address: "node-1:9100".into(),
        zone: ZoneName::default(),
        disks: vec![NewDisk { disk: DiskId::from_u128(10), capacity_bytes: 1 << 40 }],
    };
    let change =
        SystemChange::Form { cluster: ClusterId::from_u128(0xc1), nodes: vec![node], profile: None, partitions: 1, groups: 1 };
    let mut state = SystemState::default();
    state.apply(&SystemCommand { txn: TxnId::from_u128(1), time: Timestamp::default(), change });
    ClusterMap { layout, ..state.map.expect("a cluster was formed") }
}

fn copy(layout: u64) -> SystemCopy {
    let map = map(layout);
    let rows = vec![("bucket/photos".into(), "row".into()), (Bytes::from_static(rows::MAP), map.to_versioned())];
    SystemCopy { cluster: map.cluster, place: LogPlace { term: 2, index: 40 + layout }, rows }
}

fn backup(layout: u64) -> Backup {
    Backup::new(Incarnation::FIRST, Timestamp::from_millis(1000 + layout), copy(layout)).unwrap()
}

fn disk() -> (Env, sim::SimFs) {
    let (env, controls) = sim::env(3);
    env.fs.create_dir_all(Path::new(NODE_DIR)).unwrap();
    env.fs.sync_dir(Path::new("/")).unwrap();
    (env, controls.fs)
}

#[test]
fn a_file_is_laid_out_as_the_module_says() {
    let backup = backup(5);
    let row = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend_from_slice(bytes);
    };
    let mut expected = b"DOZOCOPY\0\x01".to_vec();
    for number in [1u64 << 32, 1, 1005] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    expected.extend_from_slice(&0xc1u128.to_be_bytes());
    for number in [2u64, 45] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    expected.extend_from_slice(&2u32.to_be_bytes());
    for bytes in [&b"bucket/photos"[..], b"row", b"map", &map(5).to_versioned()] {
        row(&mut expected, bytes);
    }
    expected.extend_from_slice(&crc_fast::crc64_nvme(&expected).to_be_bytes());
    assert_eq!(backup.encode_file(), expected);
    assert_eq!(Backup::decode_file(&expected), Ok(backup));
}

#[test]
fn any_damage_and_any_other_bytes_are_an_error() {
    let bytes = backup(1).encode_file();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(Backup::decode_file(&damaged).is_err() && Backup::decode_file(&bytes[..at]).is_err(), "byte {at}");
    }
    let (env, _) = sim::env(9);
    for _ in 0..500 {
        let length = env.random_below(200);
        // With a right beginning and a right checksum, so that what is between them is looked at.
        let mut body = b"DOZOCOPY\0\x01".to_vec();
        body.extend((0..length).map(|_| env.random_below(256) as u8));
        body.extend_from_slice(&crc_fast::crc64_nvme(&body).to_be_bytes());
        assert!(Backup::decode_file(&body).is_err());
    }
    let mut other = backup(1);
    other.epoch = Epoch(9);
    assert!(Backup::decode_file(&other.encode_file()).is_err(), "the map is of another epoch than the head says");
    assert!(Backup::new(Incarnation::FIRST, Timestamp::default(), SystemCopy { rows: Vec::new(), ..copy(1) }).is_err());
}

#[test]
fn the_newest_few_are_kept_and_damaged_ones_passed_over() {
    let (env, fs) = disk();
    let dir = Path::new(NODE_DIR);
    assert!(newest(&env, dir).unwrap().is_none());
    for layout in 1..=5 {
        put(&env, dir, &backup(layout)).unwrap();
    }
    fs.crash_losing_unsynced();
    let (env, _) = sim::env_on(&fs, 4);
    let numbers = |env: &Env| files(env, dir).unwrap().iter().map(|(number, _)| *number).collect::<Vec<_>>();
    // The last removal is not waited for: what it should have removed is removed the next time.
    assert!(numbers(&env) == [3, 4, 5] || numbers(&env) == [2, 3, 4, 5], "{:?}", numbers(&env));
    assert_eq!(newest(&env, dir).unwrap(), Some(backup(5)));
    let mut damaged = backup(5).encode_file();
    damaged[60] ^= 1;
    env.fs.replace_durably(&files(&env, dir).unwrap().pop().unwrap().1, &damaged).unwrap();
    env.fs.replace_durably(&dir.join("backup/notes.txt"), b"not a copy").unwrap();
    assert_eq!(newest(&env, dir).unwrap(), Some(backup(4)));
    put(&env, dir, &backup(6)).unwrap();
    assert_eq!(newest(&env, dir).unwrap(), Some(backup(6)));
    assert_eq!(numbers(&env), [4, 5, 6]);
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_whole_copy() {
    for operations in 0.. {
        let (env, fs) = disk();
        let dir = Path::new(NODE_DIR);
        for layout in 1..=3 {
            put(&env, dir, &backup(layout)).unwrap();
        }
        fs.halt_after(operations);
        let whole = put(&env, dir, &backup(4)).is_ok();
        fs.crash_losing_unsynced();
        let (env, _) = sim::env_on(&fs, 4);
        let found = newest(&env, dir).unwrap();
        assert!(found == Some(backup(3)) || found == Some(backup(4)), "cut off after {operations} operations");
        if whole {
            assert_eq!(found, Some(backup(4)));
            return;
        }
    }
}

/// Gives copies of the layout it is told, or none.
struct Giver(Mutex<Option<u64>>);

#[async_trait]
impl PlacementApi for Giver {
    async fn propose(&self, _: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        Err(PlacementError::NotFormed)
    }

    async fn bucket(&self, _: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        Err(PlacementError::NotFormed)
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        Err(PlacementError::NotFormed)
    }

    async fn newer_map(&self, _: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        Err(PlacementError::NotFormed)
    }

    async fn heartbeat(&self, _: Heartbeat) -> Result<(), PlacementError> {
        Err(PlacementError::NotFormed)
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        self.0.lock().map(copy).ok_or(PlacementError::NotFormed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_copies_when_the_layout_changes_and_every_hour() {
    let (env, _) = disk();
    let (tell, maps) = watch::channel(None);
    let giver = Arc::new(Giver(Mutex::new(None)));
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let keeper = || Keeper {
        env: env.clone(),
        node_dir: NODE_DIR.into(),
        incarnation: Incarnation::FIRST,
        placement: giver.clone(),
        maps: maps.clone(),
        taken: Arc::new({
            let counted = counted.clone();
            move |_| *counted.lock() += 1
        }),
    };
    let running = keeper().start();
    let after = |limit: Duration| env.sleep(limit);
    tell.send_replace(Some(Arc::new(map(1))));
    after(2 * COPY_SETTLE).await;
    assert_eq!(*count.lock(), 0, "nobody had one to give");
    *giver.0.lock() = Some(1);
    after(3 * COPY_RETRY).await;
    assert_eq!(*count.lock(), 1);
    tell.send_replace(Some(Arc::new(map(2))));
    *giver.0.lock() = Some(2);
    after(3 * COPY_SETTLE).await;
    assert_eq!(*count.lock(), 2);
    after(COPY_INTERVAL / 2).await;
    assert_eq!(*count.lock(), 2, "nothing changed");
    after(COPY_INTERVAL / 2).await;
    assert_eq!(*count.lock(), 3);
    drop(running);
    // A node that starts anew has what it needs, and says of when that is.
    let _running = keeper().start();
    after(COPY_INTERVAL / 2).await;
    assert_eq!(*count.lock(), 4);
    assert_eq!(newest(&env, Path::new(NODE_DIR)).unwrap().unwrap().copy, copy(2));
}
