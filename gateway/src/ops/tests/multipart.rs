use gateway_s3::{
    AbortMultipartUpload, Checksum, ChecksumAlgorithm, ChecksumType, CompleteMultipartUpload, CompletedPart, CopySource,
    CreateMultipartUpload, GetObjectAttributes, ListParts, PartNumber, UploadPart, UploadPartCopy,
};
use placement_types::UploadId;

use super::*;

const PART: usize = 5 << 20;

fn number(number: i64) -> PartNumber {
    PartNumber::new(number).unwrap()
}

impl Bench {
    async fn begin(&self, checksum: Option<(ChecksumAlgorithm, ChecksumType)>) -> UploadId {
        let request = CreateMultipartUpload { bucket: bucket(), key: key("k"), headers: WriteHeaders::default(), checksum };
        self.gw.create_multipart_upload(&root(), request).await.unwrap()
    }

    async fn part(&self, upload: UploadId, part: i64, content: &Bytes) -> Result<CompletedPart, S3Error> {
        let request = UploadPart { bucket: bucket(), key: key("k"), upload, number: number(part), body: self.body(content) };
        let reply = self.gw.upload_part(&root(), request).await?;
        Ok(CompletedPart { number: number(part), etag: reply.etag, checksum: reply.checksum })
    }

    async fn complete(&self, upload: UploadId, parts: Vec<CompletedPart>) -> Result<PutObjectReply, S3Error> {
        self.gw.complete_multipart_upload(&root(), complete_request(upload, parts)).await
    }
}

fn complete_request(upload: UploadId, parts: Vec<CompletedPart>) -> CompleteMultipartUpload {
    CompleteMultipartUpload {
        bucket: bucket(),
        key: key("k"),
        upload,
        parts,
        checksum: None,
        checksum_type: None,
        object_size: None,
        condition: WriteCondition::None,
    }
}

#[tokio::test(start_paused = true)]
async fn parts_become_one_object_and_completing_again_answers_the_same() {
    let bench = Bench::new(51).await;
    let upload = bench.begin(None).await;
    let contents = [bytes(PART + 3, 1), bytes(PART, 2), bytes(7, 3)];
    // Numbers with gaps, uploaded in another order; one is replaced and one never listed.
    let last = bench.part(upload, 900, &contents[2]).await.unwrap();
    bench.part(upload, 3, &bytes(PART, 9)).await.unwrap();
    let first = bench.part(upload, 3, &contents[0]).await.unwrap();
    let second = bench.part(upload, 17, &contents[1]).await.unwrap();
    bench.part(upload, 1000, &bytes(50_000, 4)).await.unwrap();
    refused(bench.get("k").await, S3ErrorCode::NoSuchKey);

    let list = ListParts { bucket: bucket(), key: key("k"), upload, part_number_marker: 3, max_parts: 2 };
    let listed = bench.gw.list_parts(&root(), list).await.unwrap();
    assert_eq!(listed.parts.iter().map(|part| part.number.get()).collect::<Vec<_>>(), [17, 900]);
    assert!(listed.truncated);

    let whole = Bytes::from(contents.concat());
    let parts = vec![first, second, last];
    let done = bench.complete(upload, parts.clone()).await.unwrap();
    assert!(done.etag.ends_with("-3"));
    assert_eq!(done.size, whole.len() as u64);
    assert_eq!(done.checksum, Some(Checksum::of(ChecksumAlgorithm::Crc64Nvme, &whole)), "combined without reading");
    assert!(bench.get("k").await.unwrap() == whole);
    assert_eq!(bench.complete(upload, parts.clone()).await.unwrap(), done);
    refused(bench.complete(upload, parts[..1].to_vec()).await, S3ErrorCode::NoSuchUpload);

    for (part, content_of_part) in (1..).zip(&contents) {
        let reply = bench.open("k", ObjectSelection::Part(number(part))).await.unwrap();
        assert_eq!(reply.head.part.as_ref().unwrap().count, 3);
        assert!(content(reply).await.unwrap() == *content_of_part);
    }
    refused(bench.open("k", ObjectSelection::Part(number(4))).await, S3ErrorCode::InvalidPartNumber);
    let attributes =
        GetObjectAttributes { bucket: bucket(), key: key("k"), version_id: None, part_number_marker: 3, max_parts: 1 };
    let attributes = bench.gw.get_object_attributes(&root(), attributes).await.unwrap();
    assert_eq!((attributes.parts[0].number, attributes.parts.len(), attributes.parts_truncated), (number(17), 1, true));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_true_completes_nothing() {
    let bench = Bench::new(52).await;
    let upload = bench.begin(None).await;
    let small = bench.part(upload, 1, &bytes(100, 1)).await.unwrap();
    let large = bench.part(upload, 2, &bytes(PART, 2)).await.unwrap();
    refused(bench.complete(upload, vec![small.clone(), large.clone()]).await, S3ErrorCode::EntityTooSmall);
    let wrong = CompletedPart { etag: "0".repeat(32), ..large.clone() };
    refused(bench.complete(upload, vec![wrong]).await, S3ErrorCode::InvalidPart);
    let absent = CompletedPart { number: number(3), ..large.clone() };
    refused(bench.complete(upload, vec![large.clone(), absent]).await, S3ErrorCode::InvalidPart);
    let sized = CompleteMultipartUpload { object_size: Some(1), ..complete_request(upload, vec![large.clone()]) };
    refused(bench.gw.complete_multipart_upload(&root(), sized).await, S3ErrorCode::InvalidRequest);
    let claimed = Some(Checksum::of(ChecksumAlgorithm::Crc64Nvme, b"something else"));
    let wrong_sum = CompleteMultipartUpload { checksum: claimed, ..complete_request(upload, vec![large.clone()]) };
    refused(bench.gw.complete_multipart_upload(&root(), wrong_sum).await, S3ErrorCode::BadDigest);
    refused(bench.complete(UploadId::from_u128(1), vec![large.clone()]).await, S3ErrorCode::NoSuchUpload);
    refused(bench.get("k").await, S3ErrorCode::NoSuchKey);
    bench.complete(upload, vec![large]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn composite_checksums_are_of_the_parts_checksums() {
    let bench = Bench::new(53).await;
    let upload = bench.begin(Some((ChecksumAlgorithm::Sha256, ChecksumType::Composite))).await;
    let contents = [bytes(PART, 1), bytes(3, 2)];
    let parts = vec![bench.part(upload, 1, &contents[0]).await.unwrap(), bench.part(upload, 2, &contents[1]).await.unwrap()];
    let sums: Vec<u8> =
        contents.iter().flat_map(|content| Checksum::of(ChecksumAlgorithm::Sha256, content).value().to_vec()).collect();
    let expected = Checksum::of(ChecksumAlgorithm::Sha256, &sums);
    let done = bench.complete(upload, parts.clone()).await.unwrap();
    assert_eq!(done.checksum.as_ref().unwrap().text(), format!("{}-2", expected.text()));
    assert_eq!(bench.complete(upload, parts).await.unwrap().checksum, done.checksum);
    let reply = bench.open("k", ObjectSelection::Part(number(2))).await.unwrap();
    assert_eq!(reply.head.part.unwrap().checksum, Some(Checksum::of(ChecksumAlgorithm::Sha256, &contents[1])));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_upload_takes_no_part() {
    let bench = Bench::new(54).await;
    let upload = bench.begin(None).await;
    let part = bench.part(upload, 1, &bytes(50_000, 1)).await.unwrap();
    let abort = AbortMultipartUpload { bucket: bucket(), key: key("k"), upload };
    bench.gw.abort_multipart_upload(&root(), abort.clone()).await.unwrap();
    refused(bench.gw.abort_multipart_upload(&root(), abort).await, S3ErrorCode::NoSuchUpload);
    refused(bench.part(upload, 2, &bytes(50_000, 1)).await, S3ErrorCode::NoSuchUpload);
    refused(bench.complete(upload, vec![part]).await, S3ErrorCode::NoSuchUpload);
}

#[tokio::test(start_paused = true)]
async fn a_part_may_be_copied_from_a_range() {
    let bench = Bench::new(55).await;
    let source = bytes(2 * PART, 1);
    bench.put("source", &source).await.unwrap();
    let upload = bench.begin(None).await;
    let request = |range| UploadPartCopy {
        bucket: bucket(),
        key: key("k"),
        upload,
        number: number(1),
        source: CopySource { bucket: bucket(), key: key("source"), version_id: None, conditions: ReadConditions::default() },
        range,
    };
    refused(bench.gw.upload_part_copy(&root(), request(Some((5, 2 * PART as u64)))).await, S3ErrorCode::InvalidRange);
    let copied = bench.gw.upload_part_copy(&root(), request(Some((100, PART as u64 + 99)))).await.unwrap();
    let part = CompletedPart { number: number(1), etag: copied.etag, checksum: copied.checksum };
    bench.complete(upload, vec![part]).await.unwrap();
    assert!(bench.get("k").await.unwrap() == source[100..PART + 100]);
}

#[tokio::test(start_paused = true)]
async fn racing_completions_of_one_upload_both_succeed() {
    let bench = Bench::new(56).await;
    let upload = bench.begin(None).await;
    let part = bench.part(upload, 1, &bytes(50_000, 1)).await.unwrap();
    let verdicts = futures::join!(bench.complete(upload, vec![part.clone()]), bench.complete(upload, vec![part.clone()]));
    assert_eq!(verdicts.0.unwrap().etag, verdicts.1.unwrap().etag);
    let conditional =
        CompleteMultipartUpload { condition: WriteCondition::IfAbsent, ..complete_request(bench.begin(None).await, vec![part]) };
    refused(bench.gw.complete_multipart_upload(&root(), conditional).await, S3ErrorCode::InvalidPart);
}

#[tokio::test(start_paused = true)]
async fn a_part_replaced_while_the_upload_completes_never_mixes_in() {
    let bench = Bench::new(57).await;
    for round in 0..10 {
        let upload = bench.begin(None).await;
        let (old, new) = (bytes(50_000, round), bytes(60_000, round));
        let listed = bench.part(upload, 1, &old).await.unwrap();
        let (completed, replaced) = futures::join!(bench.complete(upload, vec![listed]), bench.part(upload, 1, &new));
        match completed {
            Ok(_) => assert!(bench.get("k").await.unwrap() == old),
            Err(error) => {
                assert_eq!(error.code, S3ErrorCode::InvalidPart);
                replaced.unwrap();
            }
        }
    }
}
