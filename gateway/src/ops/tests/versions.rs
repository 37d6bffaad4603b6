use gateway_s3::GetObject;
use placement_map::bucket::BucketVersioning;
use placement_map::system::SystemChange;
use placement_proto::api::PlacementApi as _;

use super::*;

impl Bench {
    async fn set_versioning(&self, versioning: BucketVersioning) {
        let mut found = self.cluster.system.bucket(&bucket()).await.unwrap().unwrap();
        found.versioning = versioning;
        self.gw.system.propose(SystemChange::SetBucket { bucket: found }).await.unwrap();
        // Settings may be remembered for a while.
        self.settle().await;
    }

    async fn get_version(&self, version: &str) -> Result<Bytes, S3Error> {
        let request = GetObject { version_id: Some(version.into()), ..get_request("k", ObjectSelection::Whole) };
        content(self.gw.get_object(&root(), request).await?).await
    }
}

#[tokio::test(start_paused = true)]
async fn versions_live_side_by_side_and_markers_hide_them() {
    let bench = Bench::new(21).await;
    bench.put("k", &bytes(3, 0)).await.unwrap();
    bench.set_versioning(BucketVersioning::Enabled).await;
    let first = bench.put("k", &bytes(3, 1)).await.unwrap().version_id.unwrap();
    let second = bench.put("k", &bytes(50_000, 2)).await.unwrap().version_id.unwrap();
    assert_ne!(first, second);
    let deleted = bench.delete("k").await.unwrap();
    assert!(deleted.delete_marker);
    let marker = deleted.version_id.unwrap();

    let error = refused(bench.get("k").await, S3ErrorCode::NoSuchKey);
    assert_eq!(error.headers["x-amz-delete-marker"], "true");
    let error = refused(bench.get_version(&marker).await, S3ErrorCode::MethodNotAllowed);
    assert_eq!(error.headers["allow"], "DELETE");
    assert_eq!(bench.get_version("null").await.unwrap(), bytes(3, 0));
    assert_eq!(bench.get_version(&first).await.unwrap(), bytes(3, 1));
    assert!(bench.get_version(&second).await.unwrap() == bytes(50_000, 2));
    refused(bench.get_version(&"0".repeat(32)).await, S3ErrorCode::NoSuchVersion);
    refused(bench.get_version("what").await, S3ErrorCode::InvalidArgument);

    let request =
        DeleteObject { bucket: bucket(), key: key("k"), version_id: Some(marker.clone()), condition: WriteCondition::None };
    let restored = bench.gw.delete_object(&root(), request).await.unwrap();
    assert_eq!(restored, DeleteObjectReply { version_id: Some(marker), delete_marker: true });
    assert!(bench.get("k").await.unwrap() == bytes(50_000, 2));
    refused(bench.gw.delete_bucket(&root(), bucket()).await, S3ErrorCode::BucketNotEmpty);
}
