//! What a client that is slow, stands still or keeps up costs, and that it gets the right bytes all the same.

use futures::StreamExt as _;
use gateway_s3::{ObjectBody, RangeRequest};
use placement_types::{ChunkId, TxnId};
use storage_node_proto::command::{Change, Command, Outcome};
use storage_node_proto::object::Data;

use super::*;
use crate::double::Trouble;

const MIB: usize = 1 << 20;
const PIECE: usize = 128 << 10;

/// A body, and what was read of it.
struct Client {
    body: ObjectBody,
    read: BytesMut,
}

impl Client {
    async fn open(bench: &Bench, selection: ObjectSelection) -> Self {
        let body = bench.open("k", selection).await.unwrap().body.unwrap();
        Self { body, read: BytesMut::new() }
    }

    /// Reads a piece; `None` at the end.
    async fn read(&mut self) -> Option<Result<usize, S3Error>> {
        let piece = match self.body.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        assert!(piece.len() <= PIECE, "a connection holds what it gets: {}", piece.len());
        self.read.extend_from_slice(&piece);
        Some(Ok(piece.len()))
    }

    /// Reads up to so many bytes in all, pausing after each piece.
    async fn read_to(&mut self, bench: &Bench, bytes: usize, pause: Duration) {
        while self.read.len() < bytes {
            self.read().await.expect("there is more").unwrap();
            bench.cluster.env.sleep(pause).await;
        }
    }

    async fn read_all(&mut self) {
        while let Some(piece) = self.read().await {
            piece.unwrap();
        }
    }
}

fn reads(bench: &Bench) -> usize {
    *bench.cluster.chunks.reads.lock()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stands_still_holds_nothing_and_gets_its_bytes_afterwards() {
    let bench = Bench::new(41).await;
    let stored = bytes(33 * MIB + 5, 0);
    bench.put("k", &stored).await.unwrap();
    let before = bench.cluster.chunks.lent();
    // From the start, in the middle of a stripe, of a chunk, before and behind a chunk's border, at the last piece.
    for at in [1, MIB, 3 * MIB + 1, 9 * MIB, 15 * MIB + PIECE, 16 * MIB, 17 * MIB, 32 * MIB, stored.len() - MIB, stored.len() - 1]
    {
        let mut client = Client::open(&bench, ObjectSelection::Whole).await;
        client.read_to(&bench, at, Duration::ZERO).await;
        for _ in 0..3 {
            bench.cluster.env.sleep(Duration::from_secs(3)).await;
            assert_eq!(bench.cluster.chunks.lent(), before, "it stands still at {at}");
            if client.read.len() < stored.len() {
                client.read().await.expect("there is more").unwrap();
            }
        }
        client.read_all().await;
        assert!(client.read == stored, "it stood still at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_nods_off_after_every_piece_reads_across_chunks() {
    let bench = Bench::new(42).await;
    let stored = bytes(17 * MIB + 5, 0);
    bench.put("k", &stored).await.unwrap();
    let mut client = Client::open(&bench, ObjectSelection::Whole).await;
    while client.read.len() < stored.len() {
        client.read().await.expect("there is more").unwrap();
        bench.cluster.env.sleep(Duration::from_millis(1500)).await;
        assert_eq!(bench.cluster.chunks.lent(), 0, "at {}", client.read.len());
        // Now and then a node is gone when the chunk is opened again.
        if client.read.len() % (3 * MIB) == 0 {
            bench.cluster.chunks.read_trouble.lock().extend([Trouble::Connect, Trouble::Unreadable]);
        }
    }
    assert!(client.read().await.is_none() && client.read == stored);

    let range = RangeRequest::FromTo { first: 15 * MIB as u64 + 77, last: 16 * MIB as u64 + 99 };
    let mut client = Client::open(&bench, ObjectSelection::Range(range)).await;
    client.read_to(&bench, MIB + 23, Duration::from_secs(2)).await;
    assert!(client.read().await.is_none() && client.read == stored[15 * MIB + 77..16 * MIB + 100]);
}

#[tokio::test(start_paused = true)]
async fn a_download_outlives_the_coding_of_its_object() {
    let bench = Bench::new(45).await;
    let stored = bytes(33 * MIB + 5, 0);
    bench.put("k", &stored).await.unwrap();
    let Some(Change::Put { shelf, key, record, data: Some(Data::Chunks(mut chunks)), .. }) =
        bench.cluster.groups.applied.lock().last().cloned()
    else {
        panic!("the object has chunks")
    };
    let owner = record.data[0].txn;
    let env = bench.cluster.env.clone();
    for at in [1, 9 * MIB, 16 * MIB, 17 * MIB + PIECE] {
        let mut brisk = Client::open(&bench, ObjectSelection::Whole).await;
        let mut still = Client::open(&bench, ObjectSelection::Whole).await;
        still.read_to(&bench, at, Duration::ZERO).await;
        env.sleep(Duration::from_secs(3)).await;
        brisk.read_to(&bench, at, Duration::ZERO).await;
        for from in &mut chunks {
            let to = bench.cluster.chunks.recode(from, ChunkId::random(&env));
            let change = Change::Recode { shelf, key: key.clone(), owner, from: from.clone(), to: to.clone() };
            let command = Command { txn: TxnId::random(&env), time: env.now(), change };
            assert_eq!(bench.gw.commit(shelf, command, None).await.unwrap(), Outcome::Done);
            *from = to;
        }
        for client in [&mut brisk, &mut still] {
            client.read_all().await;
            assert!(client.read == stored, "coded anew at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_holds_a_stripe_however_brisk_it_was() {
    let bench = Bench::new(43).await;
    let stored = bytes(50 * MIB, 0);
    bench.put("k", &stored).await.unwrap();
    for brisk in [0, 9 * MIB] {
        let mut client = Client::open(&bench, ObjectSelection::Whole).await;
        client.read_to(&bench, brisk, Duration::ZERO).await;
        // 1.25 MiB/s: it never stands still for long.
        client.read_to(&bench, brisk + 10 * MIB, Duration::from_millis(100)).await;
        while client.read.len() < brisk + 20 * MIB {
            client.read_to(&bench, client.read.len() + 1, Duration::from_millis(100)).await;
            assert!(bench.cluster.chunks.lent() <= MIB, "{} at {}", bench.cluster.chunks.lent(), client.read.len());
        }
        client.read_all().await;
        assert!(client.read == stored);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_up_has_each_chunk_opened_once() {
    let bench = Bench::new(44).await;
    let stored = bytes(80 * MIB, 0);
    bench.put("k", &stored).await.unwrap();
    let mut client = Client::open(&bench, ObjectSelection::Whole).await;
    client.read_to(&bench, 8 * MIB, Duration::ZERO).await;
    // Its first stripes came singly, until it had shown what it can; by now its first chunk and the next one are open.
    let before = reads(&bench);
    assert!((4..=9).contains(&before), "{before}");
    client.read_all().await;
    assert!(client.read == stored);
    assert_eq!(reads(&bench), before + 3, "of five chunks two were open");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stood_still_becomes_brisk_again() {
    let bench = Bench::new(45).await;
    let stored = bytes(80 * MIB, 0);
    bench.put("k", &stored).await.unwrap();
    let mut client = Client::open(&bench, ObjectSelection::Whole).await;
    client.read_to(&bench, 20 * MIB, Duration::ZERO).await;
    bench.cluster.env.sleep(Duration::from_secs(60)).await;
    client.read_to(&bench, 32 * MIB, Duration::ZERO).await;
    let before = reads(&bench);
    client.read_all().await;
    assert!(client.read == stored);
    assert!(reads(&bench) <= before + 3, "three chunks were left: {} calls", reads(&bench) - before);
}

#[tokio::test(start_paused = true)]
async fn an_object_overwritten_while_its_client_stands_still_is_read_on_or_broken_off() {
    let bench = Bench::new(46).await;
    let (old, new) = (bytes(20 * MIB, 0), bytes(20 * MIB, 1));
    for at in [PIECE, 16 * MIB] {
        for collected in [false, true] {
            bench.put("k", &old).await.unwrap();
            let mut client = Client::open(&bench, ObjectSelection::Whole).await;
            client.read_to(&bench, at, Duration::ZERO).await;
            bench.cluster.env.sleep(Duration::from_secs(5)).await;
            if collected {
                bench.cluster.chunks.delete_all();
            }
            bench.put("k", &new).await.unwrap();
            let end = loop {
                match client.read().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Some(error.code),
                    None => break None,
                }
            };
            assert!(old.starts_with(&client.read), "not a byte of another version");
            assert_eq!(end.is_none(), client.read.len() == old.len(), "short, and no error");
            assert!(collected || end.is_none(), "what is still there is read: {end:?} at {at}");
            assert!(!collected || end.is_some(), "what is gone is not");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_byte_is_noticed_across_stalls() {
    let bench = Bench::new(47).await;
    let stored = bytes(5 * MIB, 0);
    bench.put("k", &stored).await.unwrap();
    let mut client = Client::open(&bench, ObjectSelection::Whole).await;
    client.read_to(&bench, 2 * MIB, Duration::from_millis(1500)).await;
    // The next stripe's last byte is wrong.
    bench.cluster.chunks.read_trouble.lock().push_back(Trouble::WrongBytes);
    let error = loop {
        if let Err(error) = client.read().await.expect("it does not end cleanly") {
            break error;
        }
    };
    assert_eq!(error.code, S3ErrorCode::InternalError);
    assert!(client.read.len() < stored.len(), "the client must notice");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_its_reading() {
    let bench = Bench::new(48).await;
    bench.put("k", &bytes(50 * MIB, 0)).await.unwrap();
    for (at, pause) in [(1, 0), (20 * MIB, 0), (1, 2000)] {
        let mut client = Client::open(&bench, ObjectSelection::Whole).await;
        client.read_to(&bench, at, Duration::from_millis(pause)).await;
        drop(client);
        bench.cluster.env.sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.cluster.chunks.lent(), 0, "it left at {at}");
        let before = reads(&bench);
        bench.settle().await;
        assert_eq!(reads(&bench), before, "nothing is read for nobody");
    }
}
