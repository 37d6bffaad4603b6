use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::join_all;
use gateway_s3::{
    Caller, ChecksumAlgorithm, ContentHeaders, CopyObject, CopySource, DeleteObjects, DirectiveHeaders, DirectiveTags, EtagList,
    ListBuckets, ListObjects, RangeRequest, UserMetadata,
};

use super::*;
use crate::double::{Mischief, Trouble, context};

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn what_was_put_is_read_back_whole_and_in_ranges() {
    let bench = Bench::new(1).await;
    for (seed, length) in [0, 1, 16 << 10, (16 << 10) + 1, 3 * MIB + 7, 16 * MIB, 33 * MIB + 5].into_iter().enumerate() {
        let stored = bytes(length, seed as u64);
        let reply = bench.put("k", &stored).await.unwrap();
        assert_eq!((reply.size, reply.etag.len(), reply.version_id), (length as u64, 32, None));
        assert_eq!(reply.checksum.unwrap().algorithm(), ChecksumAlgorithm::Crc64Nvme);
        assert!(bench.get("k").await.unwrap() == stored, "{length} bytes");
        if length > 9 {
            let range = RangeRequest::FromTo { first: length as u64 / 2, last: length as u64 - 3 };
            let reply = bench.open("k", ObjectSelection::Range(range)).await.unwrap();
            assert_eq!(reply.head.range.unwrap().len(), (length - 2 - length / 2) as u64);
            assert!(content(reply).await.unwrap() == stored[length / 2..length - 2], "a range of {length} bytes");
        }
    }
    let beyond = bench.open("k", ObjectSelection::Range(RangeRequest::From { first: 40 * MIB as u64 })).await;
    refused(beyond, S3ErrorCode::InvalidRange);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_key_is_gone_and_an_absent_one_is_deleted_as_well() {
    let bench = Bench::new(2).await;
    bench.put("k", &bytes(5, 0)).await.unwrap();
    assert_eq!(bench.delete("k").await.unwrap(), DeleteObjectReply::default());
    refused(bench.get("k").await, S3ErrorCode::NoSuchKey);
    assert_eq!(bench.delete("k").await.unwrap(), DeleteObjectReply::default());
}

#[tokio::test(start_paused = true)]
async fn deletes_of_many_report_one_by_one() {
    let bench = Bench::new(3).await;
    bench.put("a", &bytes(5, 0)).await.unwrap();
    bench.put("b", &bytes(5, 1)).await.unwrap();
    let entry = |name: &str, condition| DeleteObject { bucket: bucket(), key: key(name), version_id: None, condition };
    let entries = vec![
        entry("a", WriteCondition::None),
        entry("absent", WriteCondition::None),
        entry("b", WriteCondition::IfMatch("another".into())),
        entry("a", WriteCondition::None),
    ];
    let verdicts = bench.gw.delete_objects(&root(), DeleteObjects { bucket: bucket(), entries }).await.unwrap();
    let codes: Vec<_> = verdicts.iter().map(|verdict| verdict.as_ref().err().map(|error| error.code)).collect();
    assert_eq!(codes, [None, None, Some(S3ErrorCode::PreconditionFailed), None]);
    refused(bench.get("a").await, S3ErrorCode::NoSuchKey);
    bench.get("b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reads_obey_their_conditions() {
    let bench = Bench::new(4).await;
    let etag = bench.put("k", &bytes(5, 0)).await.unwrap().etag;
    let read = async |conditions| {
        let request = GetObject { conditions, ..get_request("k", ObjectSelection::Whole) };
        bench.gw.head_object(&root(), request).await
    };
    let these = |etag: &str| Some(EtagList::These(vec![etag.to_owned()]));
    read(ReadConditions { if_match: these(&etag), ..ReadConditions::default() }).await.unwrap();
    let other = read(ReadConditions { if_match: these("other"), ..ReadConditions::default() }).await;
    refused(other, S3ErrorCode::PreconditionFailed);
    let same = read(ReadConditions { if_none_match: these(&etag), ..ReadConditions::default() }).await;
    assert!(refused(same, S3ErrorCode::NotModified).headers.contains_key("etag"));
}

#[tokio::test(start_paused = true)]
async fn of_racing_creations_one_wins_and_the_losers_leave_nothing() {
    let bench = Bench::new(5).await;
    let bodies: Vec<Bytes> = (0..40).map(|seed| bytes(100_000, seed)).collect();
    let verdicts = join_all(bodies.iter().map(|body| bench.put_if("k", body, WriteCondition::IfAbsent))).await;
    let winners: Vec<usize> = (0..verdicts.len()).filter(|index| verdicts[*index].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    for verdict in verdicts.into_iter().filter(Result::is_err) {
        refused(verdict, S3ErrorCode::PreconditionFailed);
    }
    assert!(bench.get("k").await.unwrap() == bodies[winners[0]]);
    bench.settle().await;
    assert_eq!(bench.cluster.chunks.shards(), 3, "one chunk of three shards");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_does_not_fail_its_own_condition() {
    let bench = Bench::new(6).await;
    for (name, length) in [("small", 10), ("large", 50_000)] {
        bench.cluster.groups.plan([Mischief::LoseAnswer, Mischief::Refuse]);
        bench.put_if(name, &bytes(length, 0), WriteCondition::IfAbsent).await.unwrap();
        assert_eq!(bench.cluster.groups.planned(), 0, "both were met");
    }
    bench.settle().await;
    assert!(bench.get("large").await.unwrap() == bytes(50_000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_commit_deletes_its_chunks_and_a_doubted_one_keeps_them() {
    let bench = Bench::new(7).await;
    bench.put("k", &bytes(5, 0)).await.unwrap();
    let large = bytes(50_000, 1);
    refused(bench.put_if("k", &large, WriteCondition::IfAbsent).await, S3ErrorCode::PreconditionFailed);
    bench.settle().await;
    assert_eq!(bench.cluster.chunks.shards(), 0);

    bench.cluster.groups.plan([Mischief::Refuse; 100]);
    refused(bench.put("k", &large).await, S3ErrorCode::ServiceUnavailable);
    bench.settle().await;
    assert_eq!(bench.cluster.chunks.shards(), 0);

    let left = bench.cluster.groups.planned();
    bench.cluster.groups.drop_plans();
    assert!(left > 0, "the deadline came before the mischief ended");
    bench.cluster.groups.plan([Mischief::Swallow; 100]);
    refused(bench.put("k", &large).await, S3ErrorCode::InternalError);
    bench.settle().await;
    assert_eq!(bench.cluster.chunks.shards(), 3, "it may be committed yet, so the scrub must decide");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_found() {
    let bench = Bench::new(8).await;
    for round in 0..5 {
        bench.put("k", &bytes(5, round)).await.unwrap();
        bench.cluster.groups.move_leaders();
        assert!(bench.get("k").await.unwrap() == bytes(5, round));
        bench.cluster.groups.move_leaders();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_mid_body_leaves_nothing() {
    let bench = Bench::new(9).await;
    let pieces = [bytes(20 * MIB, 0)];
    let body = UploadBody::from_pieces(bench.cluster.env.clone(), pieces.to_vec());
    let request =
        PutObject { bucket: bucket(), key: key("k"), headers: WriteHeaders::default(), condition: WriteCondition::None, body };
    // The last chunk waits for ever for its coordinator.
    bench.cluster.chunks.hang_write.store(2, std::sync::atomic::Ordering::SeqCst);
    let root = root();
    let put = bench.gw.put_object(&root, request);
    bench.cluster.env.timeout(Duration::from_secs(5), put).await.unwrap_err();
    bench.settle().await;
    assert_eq!(bench.cluster.chunks.shards(), 0);
    refused(bench.get("k").await, S3ErrorCode::NoSuchKey);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_cannot_be_reached_is_replaced_before_the_first_byte_only() {
    let bench = Bench::new(10).await;
    let large = bytes(3 * MIB, 0);
    bench.cluster.chunks.write_trouble.lock().extend([Trouble::Connect, Trouble::Connect]);
    bench.put("k", &large).await.unwrap();
    assert!(bench.get("k").await.unwrap() == large);
    bench.cluster.chunks.write_trouble.lock().push_back(Trouble::AfterFirstPiece);
    refused(bench.put("l", &large).await, S3ErrorCode::ServiceUnavailable);
    bench.cluster.chunks.write_trouble.lock().push_back(Trouble::WrongBytes);
    refused(bench.put("l", &large).await, S3ErrorCode::InternalError);
    bench.settle().await;
    refused(bench.get("l").await, S3ErrorCode::NoSuchKey);
    assert_eq!(bench.cluster.chunks.shards(), 3, "only the first object's chunk");
}

#[tokio::test(start_paused = true)]
async fn a_read_survives_what_it_can_and_never_delivers_wrong_bytes_whole() {
    let bench = Bench::new(11).await;
    let large = bytes(5 * MIB, 0);
    bench.put("k", &large).await.unwrap();
    for trouble in [Trouble::Connect, Trouble::AfterFirstPiece, Trouble::Unreadable] {
        bench.cluster.chunks.read_trouble.lock().push_back(trouble);
        assert!(bench.get("k").await.unwrap() == large, "{trouble:?}");
    }
    bench.cluster.chunks.read_trouble.lock().extend([Trouble::Connect; 5]);
    assert!(bench.get("k").await.unwrap() == large, "every node was asked in vain once");
    bench.cluster.chunks.read_trouble.lock().push_back(Trouble::WrongBytes);
    let mut body = bench.open("k", ObjectSelection::Whole).await.unwrap().body.unwrap();
    let mut delivered = 0;
    let error = loop {
        match body.next().await.expect("it does not end cleanly") {
            Ok(piece) => delivered += piece.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, S3ErrorCode::InternalError);
    assert!(delivered < large.len(), "the client must notice");
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_fails_before_its_first_byte() {
    let bench = Bench::new(12).await;
    bench.put("k", &bytes(MIB, 0)).await.unwrap();
    bench.cluster.chunks.read_trouble.lock().extend([Trouble::Unreadable; 50]);
    refused(bench.open("k", ObjectSelection::Whole).await, S3ErrorCode::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_root_is_denied_and_touches_nothing() {
    let bench = Bench::new(13).await;
    bench.put("k", &bytes(50_000, 0)).await.unwrap();
    let (applied, reads) = (bench.cluster.groups.applied.lock().len(), *bench.cluster.chunks.reads.lock());
    bench.cluster.groups.forbid_queries(true);
    for caller in [Caller::Anonymous, Caller::AccessKey { access_key: "other".into() }] {
        let cx = context(caller);
        refused(
            bench.gw.list_buckets(&cx, ListBuckets { prefix: String::new(), after: None, max_buckets: 10 }).await,
            S3ErrorCode::AccessDenied,
        );
        refused(bench.gw.head_bucket(&cx, bucket()).await, S3ErrorCode::AccessDenied);
        refused(bench.gw.delete_bucket(&cx, bucket()).await, S3ErrorCode::AccessDenied);
        let if_match = Some(EtagList::These(vec!["other".into()]));
        for name in ["k", "absent"] {
            let conditions = ReadConditions { if_match: if_match.clone(), ..ReadConditions::default() };
            let request = GetObject { conditions, ..get_request(name, ObjectSelection::Whole) };
            refused(bench.gw.get_object(&cx, request).await, S3ErrorCode::AccessDenied);
        }
        let put = PutObject {
            bucket: bucket(),
            key: key("k"),
            headers: WriteHeaders::default(),
            condition: WriteCondition::None,
            body: bench.body(&bytes(50_000, 1)),
        };
        refused(bench.gw.put_object(&cx, put).await, S3ErrorCode::AccessDenied);
        refused(bench.gw.copy_object(&cx, copy("k", "l")).await, S3ErrorCode::AccessDenied);
        let list = ListObjects { bucket: bucket(), prefix: String::new(), delimiter: None, after: None, max_keys: 10 };
        refused(bench.gw.list_objects(&cx, list).await, S3ErrorCode::AccessDenied);
    }
    assert_eq!((bench.cluster.groups.applied.lock().len(), *bench.cluster.chunks.reads.lock()), (applied, reads));
    bench.cluster.groups.forbid_queries(false);
}

fn copy(from: &str, to: &str) -> CopyObject {
    CopyObject {
        bucket: bucket(),
        key: key(to),
        source: CopySource { bucket: bucket(), key: key(from), version_id: None, conditions: ReadConditions::default() },
        headers: DirectiveHeaders::Copy,
        tags: DirectiveTags::Copy,
        storage_class: None,
        checksum_algorithm: None,
        condition: WriteCondition::None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_an_object_of_its_own() {
    let bench = Bench::new(14).await;
    for (name, length) in [("small", 10), ("large", 17 * MIB)] {
        let stored = bytes(length, 0);
        let metadata = UserMetadata::from([("colour".to_owned(), "red".to_owned())]);
        let headers = WriteHeaders { metadata: metadata.clone(), ..WriteHeaders::default() };
        let put =
            PutObject { bucket: bucket(), key: key(name), headers, condition: WriteCondition::None, body: bench.body(&stored) };
        let original = bench.gw.put_object(&root(), put).await.unwrap();
        let copied = bench.gw.copy_object(&root(), copy(name, "copy")).await.unwrap();
        assert_eq!((&copied.etag, &copied.checksum, copied.size), (&original.etag, &original.checksum, length as u64));
        bench.delete(name).await.unwrap();
        let reply = bench.open("copy", ObjectSelection::Whole).await.unwrap();
        assert_eq!(reply.head.object.metadata, metadata);
        assert!(content(reply).await.unwrap() == stored);
    }
    refused(bench.gw.copy_object(&root(), copy("copy", "copy")).await, S3ErrorCode::InvalidRequest);
    let content_type = Some("text/plain".to_owned());
    let content = ContentHeaders { content_type: content_type.clone(), ..ContentHeaders::default() };
    let headers = DirectiveHeaders::Replace { content, metadata: UserMetadata::new() };
    bench.gw.copy_object(&root(), CopyObject { headers, ..copy("copy", "copy") }).await.unwrap();
    let head = bench.gw.head_object(&root(), get_request("copy", ObjectSelection::Whole)).await.unwrap().object;
    assert_eq!((head.content.content_type, head.metadata.len()), (content_type, 0));

    let mut conditional = copy("copy", "other");
    conditional.source.conditions.if_none_match = Some(EtagList::Any);
    refused(bench.gw.copy_object(&root(), conditional).await, S3ErrorCode::PreconditionFailed);
    refused(bench.gw.copy_object(&root(), copy("absent", "other")).await, S3ErrorCode::NoSuchKey);
}

#[tokio::test(start_paused = true)]
async fn reads_and_copies_overtaken_by_an_overwrite_are_of_its_successor() {
    let bench = Bench::new(16).await;
    let (before, after) = (bytes(50_000, 1), bytes(60_000, 2));
    bench.put("source", &before).await.unwrap();
    let (came, pass) = bench.cluster.groups.hold_data_query();
    let overwrite = async {
        came.await.unwrap();
        bench.put("source", &after).await.unwrap();
        pass.send(()).unwrap();
    };
    let (got, ()) = tokio::join!(bench.get("source"), overwrite);
    assert!(got.unwrap() == after);

    let (came, pass) = bench.cluster.groups.hold_data_query();
    let overwrite = async {
        came.await.unwrap();
        bench.put("source", &before).await.unwrap();
        pass.send(()).unwrap();
    };
    let context = root();
    let (copied, ()) = tokio::join!(bench.gw.copy_object(&context, copy("source", "copy")), overwrite);
    copied.unwrap();
    assert!(bench.get("copy").await.unwrap() == before);
}

#[tokio::test(start_paused = true)]
async fn a_counter_kept_by_compare_and_swap_loses_no_update() {
    let bench = Arc::new(Bench::new(15).await);
    bench.put("counter", &Bytes::from_static(b"0")).await.unwrap();
    let workers = (0..8).map(|_| {
        let bench = Arc::clone(&bench);
        async move {
            let mut done = 0;
            while done < 10 {
                let reply = bench.open("counter", ObjectSelection::Whole).await.unwrap();
                let etag = reply.head.object.etag.clone();
                let count: u32 = std::str::from_utf8(&content(reply).await.unwrap()).unwrap().parse().unwrap();
                let next = Bytes::from((count + 1).to_string());
                match bench.put_if("counter", &next, WriteCondition::IfMatch(etag)).await {
                    Ok(_) => done += 1,
                    Err(error) => assert_eq!(error.code, S3ErrorCode::PreconditionFailed),
                }
            }
        }
    });
    join_all(workers).await;
    assert_eq!(bench.get("counter").await.unwrap(), "80");
}
