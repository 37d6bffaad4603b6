use std::sync::Arc;

use placement_env::sim;
use placement_types::{ClusterId, DiskId, NodeId, OpenMode};
use proptest::prelude::*;
use storage_node_kv::MemoryKv;

use super::machine::*;
use crate::format::{decode_identity, encode_identity};
use crate::{Disk, DiskIdentity, DiskState, ExpectedIdentity, IndexOpener, OpenError, WriteError};

#[tokio::test]
async fn a_formatted_disk_survives_a_power_cut_and_is_formatted_once() {
    let machine = Machine::new(1).await;
    machine.fs.crash_losing_unsynced();
    assert_eq!(Disk::read_identity(&machine.env, path()).await.unwrap(), Some(IDENTITY));
    let again = Disk::format(&machine.env, path(), IDENTITY).await;
    assert!(matches!(again, Err(OpenError::AlreadyFormatted { disk, .. }) if disk == IDENTITY.disk));
}

#[tokio::test]
async fn a_format_that_dies_at_any_step_can_be_repeated() {
    for step in 0..12 {
        let (env, controls) = sim::env(step);
        env.fs.create_dir_all(path()).unwrap();
        env.fs.sync_dir("/".as_ref()).unwrap();
        controls.fs.halt_after(step);
        let formatted = Disk::format(&env, path(), IDENTITY).await;
        controls.fs.crash();
        let found = Disk::read_identity(&env, path()).await.unwrap();
        assert!(found == Some(IDENTITY) || formatted.is_err());
        if found.is_none() {
            Disk::format(&env, path(), IDENTITY).await.unwrap();
        }
    }
}

#[tokio::test]
async fn directories_that_are_not_this_disk_are_refused_and_left_alone() {
    let machine = Machine::new(1).await;
    let fs = &machine.env.fs;
    for dir in ["/empty", "/mounted/lost+found", "/foreign"] {
        fs.create_dir_all(dir.as_ref()).unwrap();
    }
    fs.open("/foreign/thesis.tex".as_ref(), OpenMode::CreateNew).unwrap();
    fs.open("/file".as_ref(), OpenMode::CreateNew).unwrap();
    let index: IndexOpener = Arc::new(|_| Ok(Arc::new(MemoryKv::new())));
    let expected = ExpectedIdentity::exactly(IDENTITY);
    let refusal = async |path: &str, expected: ExpectedIdentity| {
        let error = Disk::open(&machine.env, path.as_ref(), expected, index.clone(), OPTIONS).await.unwrap_err();
        assert!(error.to_string().contains(path), "{error} names the path");
        error
    };
    assert!(matches!(refusal("/missing", expected).await, OpenError::Missing { .. }));
    assert!(matches!(refusal("/file", expected).await, OpenError::NotADirectory { .. }));
    assert!(matches!(refusal("/empty", expected).await, OpenError::Unformatted { .. }));
    assert!(matches!(refusal("/mounted", expected).await, OpenError::Unformatted { .. }));
    assert!(matches!(refusal("/foreign", expected).await, OpenError::ForeignData { found, .. } if found == "thesis.tex"));
    let other = ExpectedIdentity { cluster: ClusterId::from_u128(8), ..expected };
    assert!(matches!(refusal("/disk", other).await, OpenError::OtherCluster { .. }));
    let other = ExpectedIdentity { node: Some(NodeId::from_u128(8)), ..expected };
    assert!(matches!(refusal("/disk", other).await, OpenError::OtherNode { .. }));
    let other = ExpectedIdentity { disk: Some(DiskId::from_u128(8)), ..expected };
    assert!(matches!(refusal("/disk", other).await, OpenError::OtherDisk { .. }));
    let formatted = Disk::format(&machine.env, "/foreign".as_ref(), IDENTITY).await;
    assert!(matches!(formatted, Err(OpenError::ForeignData { .. })));
    assert!(fs.metadata("/foreign/disk.id".as_ref()).unwrap().is_none());
    Disk::format(&machine.env, "/mounted".as_ref(), IDENTITY).await.unwrap();
}

#[tokio::test]
async fn a_damaged_disk_id_is_not_a_missing_one() {
    let machine = Machine::new(1).await;
    machine.fs.flip_bit("/disk/disk.id", 20, 3);
    assert!(matches!(machine.try_open().await, Err(OpenError::CorruptIdentity { .. })));
    let formatted = Disk::format(&machine.env, path(), IDENTITY).await;
    assert!(matches!(formatted, Err(OpenError::CorruptIdentity { .. })));
}

#[tokio::test]
async fn a_disk_has_one_process_at_a_time() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    assert!(matches!(machine.try_open().await, Err(OpenError::InUse { .. })));
    disk.close().await.unwrap();
    machine.open().await;
}

#[tokio::test]
async fn a_read_only_disk_is_named_as_such() {
    let machine = Machine::new(1).await;
    machine.fs.set_read_only("/disk");
    assert!(matches!(machine.try_open().await, Err(OpenError::Unwritable { .. })));
}

#[tokio::test]
async fn a_disk_whose_mount_vanished_gets_no_new_segment() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    machine.fs.set_device("/disk", 99);
    let refused = put(&disk, shard(1), &units(1, &[10])).await;
    assert!(matches!(refused, Err(WriteError::Dead { why, .. }) if why.contains("unmounted")));
    assert!(machine.env.fs.read_dir("/disk/segments".as_ref()).unwrap().is_empty());
}

#[tokio::test]
async fn a_swapped_disk_is_noticed() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    disk.check_identity().await.unwrap();
    let other = DiskIdentity { disk: DiskId::from_u128(77), ..IDENTITY };
    machine.env.fs.replace_durably("/disk/disk.id".as_ref(), &encode_identity(&other)).unwrap();
    assert!(matches!(disk.check_identity().await, Err(WriteError::Dead { .. })));
    assert!(matches!(disk.state(), DiskState::Dead { .. }));
}

#[test]
fn disk_id_has_the_documented_layout() {
    let bytes = encode_identity(&IDENTITY);
    assert_eq!(bytes.len(), 8 + 2 + 48 + 16);
    assert_eq!(&bytes[..10], b"DOZODISK\0\x01");
    assert_eq!(decode_identity(&bytes), Ok(IDENTITY));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(decode_identity(&damaged).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_disk_id_or_refused(bytes: Vec<u8>) {
        prop_assert!(decode_identity(&bytes).is_err());
    }
}
