//! Finding the version a read is about, which of its bytes, and opening them: what GET, HEAD, GetObjectAttributes and copies
//! share.

use std::sync::Arc;

use bytes::Bytes;
use gateway_s3::{HeadObjectReply, ObjectBody, ObjectHead, ObjectSelection, S3ErrorCode, ServedPart};
use placement_map::bucket::Bucket;
use placement_types::{BucketName, ByteRange, ObjectKey};
use storage_node_proto::object::{ObjectRecord, VersionBody};
use storage_node_proto::query::{Answer, Query};

use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::OVERTAKEN_MAX;
use crate::object_reader::{DataPlace, Pieces, ReadObjectError};
use crate::records::{self, shelf_of};
use crate::version_id;

/// An object's version as its group answered: head, bytes and place belong together (K3).
pub struct StoredObject {
    pub place: DataPlace,
    pub head: ObjectHead,
    pub record: ObjectRecord,
    /// All its bytes, when they are in the metadata.
    pub inline: Option<Bytes>,
}

/// Asks the key's group for the current version, or the one named. Linearizable.
pub async fn find_object(
    gw: &Gateway,
    bucket: &BucketName,
    key: &ObjectKey,
    version_id: Option<&str>,
) -> Result<StoredObject, Failure> {
    let selector = version_id::selector(version_id)?;
    gw.buckets
        .with(bucket, |bucket: Arc<Bucket>| async move {
            let shelf = shelf_of(&bucket, key);
            let query = Query::Version { shelf, key: key.clone(), selector };
            let (version, inline) = match gw.router.query(shelf, query).await? {
                Answer::Version { version, inline } => (version, inline),
                other => return Err(Failure::of_answer("version", other)),
            };
            let record = match &version.body {
                VersionBody::Object(record) => record.clone(),
                VersionBody::DeleteMarker => return Err(Failure::IsDeleteMarker { version: Some(version.id) }),
            };
            let head = records::head(&bucket, &version, &record)?;
            Ok(StoredObject { place: DataPlace { shelf, key: key.clone() }, head, record, inline })
        })
        .await
}

/// An object of which a part was chosen and opened.
pub struct OpenedObject<T> {
    pub object: StoredObject,
    /// What `choose` made of it.
    pub chosen: T,
    pub range: ByteRange,
    /// `None` when the range is empty.
    pub body: Option<ObjectBody>,
}

/// Finds a version, lets `choose` check it and say which of its bytes are wanted, and opens them. All of the result is of one
/// version (K3): when the key is overwritten or deleted between the finding and the first byte, it starts over with what the
/// key holds then, and `choose` is asked anew.
pub async fn open_object<T>(
    gw: &Gateway,
    bucket: &BucketName,
    key: &ObjectKey,
    version_id: Option<&str>,
    pieces: Pieces,
    choose: impl Fn(&StoredObject) -> Result<(T, ByteRange), Failure>,
) -> Result<OpenedObject<T>, Failure> {
    let mut overtaken = 0;
    loop {
        let object = find_object(gw, bucket, key, version_id).await?;
        let (chosen, range) = choose(&object)?;
        match gw.reader.open(object.place.clone(), &object.record, object.inline.clone(), range, pieces).await {
            Ok(body) => return Ok(OpenedObject { object, chosen, range, body }),
            Err(ReadObjectError::Gone) if overtaken < OVERTAKEN_MAX => overtaken += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

impl StoredObject {
    /// What a GET or HEAD with this selection answers, and the bytes that go with it.
    pub fn select(&self, selection: ObjectSelection) -> Result<(HeadObjectReply, ByteRange), Failure> {
        let size = self.record.bytes;
        let whole = ByteRange::new(0, size).expect("no size is negative");
        let (range, part) = match selection {
            ObjectSelection::Whole => (None, None),
            ObjectSelection::Range(range) => (Some(range.resolve(size)?), None),
            ObjectSelection::Part(number) => {
                let (range, part) = self.part(usize::from(number.get()))?;
                ((size > 0).then_some(range), Some(part))
            }
        };
        Ok((HeadObjectReply { object: self.head.clone(), range, part }, range.unwrap_or(whole)))
    }

    /// The `number`-th part in order, from 1.
    fn part(&self, number: usize) -> Result<(ByteRange, ServedPart), Failure> {
        let parts = &self.record.parts;
        if parts.is_empty() && number == 1 {
            let whole = ByteRange::new(0, self.record.bytes).expect("no size is negative");
            return Ok((whole, ServedPart { count: 1, checksum: self.head.checksum.clone() }));
        }
        let part = parts.get(number - 1).ok_or(S3ErrorCode::InvalidPartNumber)?;
        let start: u64 = parts[..number - 1].iter().map(|part| part.bytes).sum();
        let range = ByteRange::new(start, start + part.bytes).expect("a part ends after its start");
        let checksum = records::part_checksum_from(part.checksum.as_ref())?;
        Ok((range, ServedPart { count: u16::try_from(parts.len()).unwrap_or(u16::MAX), checksum }))
    }
}
