use proptest::prelude::*;

use super::content::{Content, SECTOR_BYTES};
use super::*;

const FILE: &str = "/disk/file";

/// A file system with a durable directory `/disk`.
fn disk(seed: u64) -> SimFs {
    let fs = SimFs::new(seed);
    fs.create_dir_all("/disk".as_ref()).unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    fs
}

/// A durable file `/disk/file`.
fn file(fs: &SimFs, bytes: &[u8]) -> Arc<dyn File> {
    let file = fs.open(FILE.as_ref(), OpenMode::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir("/disk".as_ref()).unwrap();
    file
}

fn read(fs: &SimFs, path: &str) -> io::Result<Vec<u8>> {
    (fs as &dyn Fs).read_small(path.as_ref(), 1 << 20)
}

#[test]
fn synced_bytes_under_synced_names_survive_a_crash_and_nothing_else_has_to() {
    let fs = disk(1);
    let kept = file(&fs, b"kept");
    kept.write_at(b"lost", 0).unwrap();
    let unnamed = fs.open("/disk/unnamed".as_ref(), OpenMode::CreateNew).unwrap();
    unnamed.write_at(b"synced", 0).unwrap();
    unnamed.sync_data().unwrap();
    assert_eq!(read(&fs, FILE).unwrap(), b"lost", "processes see unsynced bytes");
    fs.crash_losing_unsynced();
    assert_eq!(read(&fs, FILE).unwrap(), b"kept");
    assert_eq!(read(&fs, "/disk/unnamed").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_file_in_an_unsynced_directory_is_lost_with_it() {
    let fs = SimFs::new(1);
    fs.create_dir_all("/disk/deep".as_ref()).unwrap();
    fs.sync_dir("/disk".as_ref()).unwrap();
    fs.crash_losing_unsynced();
    assert_eq!(fs.metadata("/disk/deep".as_ref()).unwrap(), None);
    assert!(fs.open("/disk/deep/file".as_ref(), OpenMode::CreateNew).is_err(), "there is no such directory");
}

#[test]
fn a_crash_leaves_each_unsynced_sector_old_or_new() {
    let (old, new) = ([b'o'; 4096], [b'n'; 4096]);
    let (mut all_old, mut all_new, mut mixed) = (0, 0, 0);
    for seed in 0..64 {
        let fs = disk(seed);
        let handle = file(&fs, &old);
        handle.write_at(&new, 0).unwrap();
        fs.crash();
        let found = read(&fs, FILE).unwrap();
        assert_eq!(found.len(), old.len());
        let sectors: Vec<u8> = found
            .chunks(SECTOR_BYTES as usize)
            .map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never half written");
                sector[0]
            })
            .collect();
        match (sectors.contains(&b'o'), sectors.contains(&b'n')) {
            (true, false) => all_old += 1,
            (false, true) => all_new += 1,
            _ => mixed += 1,
        }
    }
    assert!(all_old > 0 && all_new > 0 && mixed > 0, "{all_old} {all_new} {mixed}");
}

#[test]
fn the_same_seed_crashes_the_same_way() {
    let left = |seed| {
        let fs = disk(seed);
        let handle = file(&fs, &[0; 8192]);
        handle.write_at(&[1; 8192], 100).unwrap();
        fs.open("/disk/other".as_ref(), OpenMode::CreateNew).unwrap();
        fs.crash();
        (read(&fs, FILE).unwrap(), fs.read_dir("/disk".as_ref()).unwrap())
    };
    let mut different = false;
    for seed in 0..16 {
        assert_eq!(left(seed), left(seed));
        different |= left(seed) != left(seed + 1);
    }
    assert!(different, "the seed decides something");
}

#[test]
fn a_replaced_file_is_old_or_new_but_whole_at_every_crash() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..8 {
        for step in 0..12 {
            let fs = disk(seed);
            file(&fs, &[b'o'; 3000]);
            fs.halt_after(step);
            let replaced = (&fs as &dyn Fs).replace_durably(FILE.as_ref(), &[b'n'; 2000]);
            fs.crash();
            let found = read(&fs, FILE).unwrap();
            if found == [b'n'; 2000] {
                new += 1;
            } else {
                assert!(replaced.is_err(), "a durable replacement is there after the crash");
                assert_eq!(found, [b'o'; 3000]);
                old += 1;
            }
        }
    }
    assert!(old > 0 && new > 0, "{old} {new}");
}

#[test]
fn bytes_of_a_failed_sync_are_not_saved_by_the_next_one() {
    let mut lost = 0;
    for seed in 0..16 {
        let fs = disk(seed);
        let handle = file(&fs, &[b'o'; 8192]);
        fs.fail_nth_sync(FILE, 1);
        handle.write_at(&[b'n'; 4096], 0).unwrap();
        assert_eq!(handle.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
        handle.write_at(&[b'n'; 4096], 4096).unwrap();
        handle.sync_data().unwrap();
        assert_eq!(read(&fs, FILE).unwrap(), [b'n'; 8192]);
        fs.crash();
        let found = read(&fs, FILE).unwrap();
        assert_eq!(found[4096..], [b'n'; 4096]);
        lost += usize::from(found[..4096].contains(&b'o'));
    }
    assert!(lost > 0);
}

#[test]
fn faults_come_when_and_where_they_were_asked_for() {
    let fs = disk(1);
    let handle = file(&fs, b"bytes");
    let mut byte = [0];
    fs.fail_nth_sync("/disk", 2);
    assert!(handle.sync_data().is_ok() && handle.sync_data().is_err() && handle.sync_data().is_ok());
    fs.fail_all("/other", FaultKind::Read);
    assert!(handle.read_at(&mut byte, 0).is_ok());
    fs.fail_all("/disk", FaultKind::Read);
    assert!(handle.read_at(&mut byte, 0).is_err() && handle.write_at(b"x", 0).is_ok());
    fs.clear_faults();
    fs.set_read_only("/disk");
    assert!(handle.read_at(&mut byte, 0).is_ok());
    assert_eq!(handle.write_at(b"x", 0).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert!(fs.open("/disk/new".as_ref(), OpenMode::CreateNew).is_err());
    fs.clear_faults();
    fs.flip_bit(FILE, 1, 0);
    assert_eq!(read(&fs, FILE).unwrap()[..2], [b'x', b'y' ^ 1]);
    fs.crash_losing_unsynced();
    assert_eq!(read(&fs, FILE).unwrap()[..2], [b'b', b'y' ^ 1], "rot is on the disk itself");
    fs.set_device("/disk", 9);
    assert_eq!(fs.metadata(FILE.as_ref()).unwrap().unwrap().device, 9);
    assert_eq!(fs.metadata("/".as_ref()).unwrap().unwrap().device, DEVICE_DEFAULT);
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_nothing_else() {
    let fs = disk(1);
    fs.set_capacity(8192);
    let handle = file(&fs, &[1; 4096]);
    assert_eq!(fs.space("/disk".as_ref()).unwrap(), Space { total_bytes: 8192, available_bytes: 4096 });
    handle.allocate(4096, 4096).unwrap();
    for refused in [handle.allocate(8192, 1), handle.write_at(&[1], 8192)] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    handle.write_at(&[2; 8192], 0).unwrap();
    handle.punch_hole(0, 4096).unwrap();
    handle.write_at(&[3; 4096], 8192).unwrap();
    assert_eq!(handle.len().unwrap(), 12288);
}

#[test]
fn a_lock_has_one_holder_until_it_is_dropped_or_the_machine_crashes() {
    let fs = disk(1);
    let first = fs.lock("/disk/lock".as_ref()).unwrap();
    assert_eq!(fs.lock("/disk/lock".as_ref()).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    fs.sync_dir("/disk".as_ref()).unwrap();
    fs.crash();
    let second = fs.lock("/disk/lock".as_ref()).unwrap();
    drop(first);
    assert!(fs.lock("/disk/lock".as_ref()).is_err(), "a guard of an earlier life frees nothing");
    drop(second);
    assert!(fs.lock("/disk/lock".as_ref()).is_ok());
}

#[test]
fn handles_do_not_outlive_a_crash() {
    let fs = disk(1);
    let handle = file(&fs, b"bytes");
    fs.crash();
    assert!(handle.write_at(b"x", 0).is_err() && handle.sync_data().is_err() && handle.len().is_err());
}

#[test]
fn mistakes_are_answered_as_the_system_would() {
    let fs = disk(1);
    file(&fs, b"bytes");
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    let open = |path: &str, mode| fs.open(path.as_ref(), mode).map(drop);
    assert_eq!(kind(open(FILE, OpenMode::CreateNew)), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(open("/disk/absent", OpenMode::ReadWrite)), io::ErrorKind::NotFound);
    assert_eq!(kind(open("/absent/file", OpenMode::CreateNew)), io::ErrorKind::NotFound);
    assert_eq!(kind(open("/disk", OpenMode::Read)), io::ErrorKind::IsADirectory);
    assert_eq!(kind(fs.remove_file("/disk/absent".as_ref())), io::ErrorKind::NotFound);
    assert_eq!(kind(fs.create_dir_all("/disk/file/dir".as_ref())), io::ErrorKind::NotADirectory);
    assert!(fs.open(FILE.as_ref(), OpenMode::Read).unwrap().write_at(b"x", 0).is_err());
}

#[derive(Debug, Clone)]
enum Op {
    Write(u16, u16, u8),
    Allocate(u16, u16),
    Punch(u16, u16),
    SetLen(u16),
    Sync,
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..20_000u16;
    prop_oneof![
        (at.clone(), 0..9000u16, 1..255u8).prop_map(|(offset, bytes, fill)| Op::Write(offset, bytes, fill)),
        (at.clone(), 0..9000u16).prop_map(|(offset, bytes)| Op::Allocate(offset, bytes)),
        (at.clone(), 0..9000u16).prop_map(|(offset, bytes)| Op::Punch(offset, bytes)),
        at.prop_map(Op::SetLen),
        Just(Op::Sync),
    ]
}

fn whole(content: &Content) -> Vec<u8> {
    let mut bytes = vec![0xee; content.len() as usize + 10];
    let length = content.read(&mut bytes, 0);
    bytes.truncate(length);
    bytes
}

proptest! {
    #[test]
    fn content_behaves_like_a_plain_vector(ops in proptest::collection::vec(op(), 0..24)) {
        let (mut content, mut model, mut synced) = (Content::default(), Vec::<u8>::new(), Vec::new());
        for op in ops {
            match op {
                Op::Write(offset, bytes, fill) => {
                    content.write(&vec![fill; bytes as usize], offset.into());
                    let end = offset as usize + bytes as usize;
                    if bytes > 0 {
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].fill(fill);
                    }
                }
                Op::Allocate(offset, bytes) => {
                    content.allocate(offset.into(), bytes.into());
                    model.resize(model.len().max(offset as usize + bytes as usize), 0);
                }
                Op::Punch(offset, bytes) => {
                    content.punch_hole(offset.into(), bytes.into());
                    let end = model.len().min(offset as usize + bytes as usize);
                    model[end.min(offset as usize)..end].fill(0);
                }
                Op::SetLen(bytes) => {
                    content.set_len(bytes.into());
                    model.resize(bytes.into(), 0);
                }
                Op::Sync => {
                    content.sync();
                    synced = model.clone();
                }
            }
            prop_assert_eq!(whole(&content), model.clone());
        }
        content.crash_losing_unsynced();
        prop_assert_eq!(whole(&content), synced);
    }
}
