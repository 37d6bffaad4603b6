use futures::future::join;
use gateway_s3::{GetObject, ListBuckets, ListObjects};
use placement_map::system::SystemChange;
use placement_proto::api::PlacementApi as _;

use super::*;

async fn create(gw: &Gateway) -> Result<(), S3Error> {
    gw.create_bucket(&root(), CreateBucket { bucket: bucket(), location: None }).await
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_made_once_and_deleted_only_when_empty() {
    let bench = Bench::new(31).await;
    bench.gw.head_bucket(&root(), bucket()).await.unwrap();
    assert_eq!(bench.gw.get_bucket_location(&root(), bucket()).await.unwrap().region, "us-east-1");
    bench.put("k", &bytes(3, 0)).await.unwrap();
    refused(bench.gw.delete_bucket(&root(), bucket()).await, S3ErrorCode::BucketNotEmpty);
    bench.put("k", &bytes(3, 1)).await.unwrap();
    bench.delete("k").await.unwrap();
    bench.gw.delete_bucket(&root(), bucket()).await.unwrap();
    refused(bench.gw.head_bucket(&root(), bucket()).await, S3ErrorCode::NoSuchBucket);
    refused(bench.gw.delete_bucket(&root(), bucket()).await, S3ErrorCode::NoSuchBucket);
    refused(bench.put("k", &bytes(3, 0)).await, S3ErrorCode::NoSuchBucket);
    let listed = bench.gw.list_buckets(&root(), ListBuckets { prefix: String::new(), after: None, max_buckets: 10 }).await;
    assert!(listed.unwrap().buckets.is_empty());
}

#[tokio::test(start_paused = true)]
async fn making_ones_own_bucket_again_changes_nothing_and_succeeds_in_us_east_1_only() {
    let bench = Bench::new(36).await;
    let create = |name: &str, location: Option<&str>| {
        let request = CreateBucket { bucket: BucketName::parse(name).unwrap(), location: location.map(str::to_owned) };
        async { bench.gw.create_bucket(&root(), request).await }
    };
    bench.put("k", &bytes(3, 0)).await.unwrap();
    create("bench", None).await.unwrap();
    create("bench", Some("us-east-1")).await.unwrap();
    assert!(bench.get("k").await.unwrap() == bytes(3, 0));
    refused(create("bench", Some("eu-west-1")).await, S3ErrorCode::BucketAlreadyOwnedByYou);
    create("elsewhere", Some("eu-west-1")).await.unwrap();
    refused(create("elsewhere", Some("eu-west-1")).await, S3ErrorCode::BucketAlreadyOwnedByYou);
    refused(create("elsewhere", None).await, S3ErrorCode::BucketAlreadyOwnedByYou);
}

#[tokio::test(start_paused = true)]
async fn another_gateways_memory_of_a_deleted_bucket_gives_no_wrong_answer() {
    let bench = Bench::new(32).await;
    let other = bench.cluster.gateway();
    let list = || ListObjects { bucket: bucket(), prefix: String::new(), delimiter: None, after: None, max_keys: 10 };
    other.list_objects(&root(), list()).await.unwrap();
    bench.gw.delete_bucket(&root(), bucket()).await.unwrap();
    let get = || GetObject { ..get_request("k", ObjectSelection::Whole) };
    refused(other.get_object(&root(), get()).await, S3ErrorCode::NoSuchBucket);

    create(&bench.gw).await.unwrap();
    other.list_objects(&root(), list()).await.unwrap();
    bench.gw.delete_bucket(&root(), bucket()).await.unwrap();
    create(&bench.gw).await.unwrap();
    // It remembers the one before; small objects go to the new one all the same, large ones must be sent again.
    for (length, tries) in [(3, 1), (50_000, 1)] {
        let put = |body| PutObject {
            bucket: bucket(),
            key: key("k"),
            headers: WriteHeaders::default(),
            condition: WriteCondition::None,
            body,
        };
        let mut verdicts = Vec::new();
        for _ in 0..=tries {
            verdicts.push(other.put_object(&root(), put(bench.body(&bytes(length, 0)))).await);
        }
        assert!(verdicts.last().unwrap().is_ok());
        assert!(bench.get("k").await.unwrap() == bytes(length, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn large_bytes_for_a_bucket_made_anew_are_refused_and_cleaned_up() {
    let bench = Bench::new(33).await;
    let other = bench.cluster.gateway();
    let list = ListObjects { bucket: bucket(), prefix: String::new(), delimiter: None, after: None, max_keys: 10 };
    other.list_objects(&root(), list).await.unwrap();
    bench.gw.delete_bucket(&root(), bucket()).await.unwrap();
    create(&bench.gw).await.unwrap();
    let put = PutObject {
        bucket: bucket(),
        key: key("k"),
        headers: WriteHeaders::default(),
        condition: WriteCondition::None,
        body: bench.body(&bytes(50_000, 0)),
    };
    refused(other.put_object(&root(), put).await, S3ErrorCode::ServiceUnavailable);
    bench.settle().await;
    assert_eq!(bench.cluster.chunks.shards(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_racing_the_deletion_of_its_bucket_is_kept_or_refused() {
    for seed in 0..20 {
        let bench = Bench::new(100 + seed).await;
        let small = bytes(3, seed);
        let root = root();
        let (put, deleted) = join(bench.put("k", &small), bench.gw.delete_bucket(&root, bucket())).await;
        match (put, deleted) {
            (Ok(_), deleted) => {
                refused(deleted, S3ErrorCode::BucketNotEmpty);
                assert_eq!(bench.get("k").await.unwrap(), small);
            }
            (Err(error), Ok(())) => {
                assert!(matches!(error.code, S3ErrorCode::NoSuchBucket | S3ErrorCode::ServiceUnavailable), "{error}");
            }
            (Err(error), Err(other)) => panic!("both failed: {error}, {other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_whose_driver_died_is_taken_over() {
    let bench = Bench::new(34).await;
    bench.put("k", &bytes(3, 0)).await.unwrap();
    let found = bench.cluster.system.bucket(&bucket()).await.unwrap().unwrap();
    bench.gw.system.propose(SystemChange::BeginDeleteBucket { name: bucket(), id: found.id }).await.unwrap();
    refused(bench.gw.delete_bucket(&root(), bucket()).await, S3ErrorCode::OperationAborted);
    bench.gw.resume_deletes().await;
    refused(bench.gw.delete_bucket(&root(), bucket()).await, S3ErrorCode::OperationAborted);
    bench.cluster.env.sleep(placement_map::limits::DELETE_LEASE).await;
    // It turns out not to be empty, so it is active again, with all that was in it.
    bench.gw.resume_deletes().await;
    assert_eq!(bench.get("k").await.unwrap(), bytes(3, 0));
    bench.put("l", &bytes(3, 0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_bucket_left_in_deletion_goes() {
    let bench = Bench::new(35).await;
    let found = bench.cluster.system.bucket(&bucket()).await.unwrap().unwrap();
    bench.gw.system.propose(SystemChange::BeginDeleteBucket { name: bucket(), id: found.id }).await.unwrap();
    refused(create(&bench.gw).await, S3ErrorCode::OperationAborted);
    bench.cluster.env.sleep(placement_map::limits::DELETE_LEASE).await;
    bench.gw.delete_bucket(&root(), bucket()).await.unwrap();
    refused(bench.gw.head_bucket(&root(), bucket()).await, S3ErrorCode::NoSuchBucket);
    create(&bench.gw).await.unwrap();
}
