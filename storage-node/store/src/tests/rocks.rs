//! On a real file system with RocksDB as the index, as in production.

use std::path::Path;
use std::sync::Arc;

use placement_types::{Env, OpenMode};
use storage_node_kv::{Kv, RocksKv, RocksOptions};

use super::machine::{IDENTITY, OPTIONS, get, put, put_all, shard, units};
use crate::{Disk, ExpectedIdentity, IndexOpener};

fn rocks() -> IndexOpener {
    Arc::new(|path| {
        let options = RocksOptions { wal: false, ..RocksOptions::default() };
        Ok(Arc::new(RocksKv::open(path, options)?) as Arc<dyn Kv>)
    })
}

async fn open(env: &Env, path: &Path) -> Disk {
    Disk::open(env, path, ExpectedIdentity::exactly(IDENTITY), rocks(), OPTIONS).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_survive_restarts_compaction_and_a_damaged_index() {
    let dir = tempfile::tempdir().unwrap();
    let env = placement_env::system();
    let path = dir.path().join("disk");
    Disk::format(&env, &path, IDENTITY).await.unwrap();

    let disk = open(&env, &path).await;
    put_all(&disk, 0..20, &[400_000, 100_000]).await;
    disk.delete_shards((0..20).filter(|id| id % 3 > 0).map(shard).collect()).await.unwrap();
    while disk.compact_once().await.unwrap().is_some() {}
    check(&disk).await;
    disk.close().await.unwrap();

    let disk = open(&env, &path).await;
    check(&disk).await;
    disk.close().await.unwrap();

    // Every file of the index in turn is damaged; the answer is a rebuild, never an absent shard.
    let index = path.join("index");
    let mut damaged = 0;
    for kind in [".sst", "MANIFEST", "CURRENT"] {
        let files = env.fs.read_dir(&index).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        for file in files.into_iter().filter(|file| name(&file.path).contains(kind)) {
            let handle = env.fs.open(&file.path, OpenMode::ReadWrite).unwrap();
            let length = handle.len().unwrap().min(64);
            handle.write_at(&vec![0xa5; length as usize], 0).unwrap();
            damaged += 1;
        }
        let disk = open(&env, &path).await;
        check(&disk).await;
        disk.close().await.unwrap();
    }
    assert!(damaged >= 3, "there was something to damage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_never_fail_while_their_shards_are_moved() {
    let dir = tempfile::tempdir().unwrap();
    let env = placement_env::system();
    let path = dir.path().join("disk");
    Disk::format(&env, &path, IDENTITY).await.unwrap();
    let disk = open(&env, &path).await;
    let content = units(1, &[20_000; 8]);
    put(&disk, shard(1), &content).await.unwrap();
    let (done, mut finished) = tokio::sync::oneshot::channel::<()>();
    let reading = async {
        let mut reads = 0;
        while finished.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            assert_eq!(disk.read_units(shard(1), 0, 8).await.unwrap(), content);
            reads += 1;
        }
        assert!(reads > 0);
    };
    let moving = async {
        for id in 2..120 {
            // Each round ends the segment that holds shard 1 and leaves little else alive in it.
            put(&disk, shard(id), &units(1, &[900_000, 900_000])).await.unwrap();
            disk.delete_shards(vec![shard(id)]).await.unwrap();
            while disk.compact_once().await.unwrap().is_some() {}
        }
        drop(done);
    };
    tokio::join!(reading, moving);
}

async fn check(disk: &Disk) {
    for id in 0..20 {
        let expected = (id % 3 == 0).then(|| units(id as u64, &[400_000, 100_000]));
        assert_eq!(get(disk, shard(id)).await, expected);
    }
    assert_eq!(disk.usage().await.unwrap().shards, 7);
}
