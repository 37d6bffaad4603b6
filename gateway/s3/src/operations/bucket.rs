//! The operations on buckets themselves.

use http::StatusCode;
use placement_types::BucketName;

use crate::api::{CreateBucket, ListBuckets};
use crate::call::{Answer, Call};
use crate::error::{S3Error, S3ErrorCode};
use crate::integrity::DigestDemand;
use crate::limits::LIST_BUCKETS_MAX;
use crate::reply::Reply;
use crate::xml_reader::Element;
use crate::xml_writer::XmlWriter;

pub(super) async fn list_buckets(call: Call<'_>) -> Answer {
    let invalid = || {
        let message = "max-buckets must be a number between 1 and 10000";
        S3Error::with_message(S3ErrorCode::InvalidArgument, message)
    };
    let max_buckets = match call.query.text("max-buckets")? {
        None => LIST_BUCKETS_MAX,
        Some(text) => text.parse().ok().filter(|max| (1..=LIST_BUCKETS_MAX).contains(max)).ok_or_else(invalid)?,
    };
    let prefix = call.query.text("prefix")?;
    let request =
        ListBuckets { prefix: prefix.clone().unwrap_or_default(), after: call.query.text("continuation-token")?, max_buckets };
    let reply = call.api.list_buckets(&call.cx, request).await?;
    let mut xml = XmlWriter::new("ListAllMyBucketsResult");
    xml.group("Owner", |xml| {
        xml.element("ID", &reply.owner.id);
        xml.element("DisplayName", &reply.owner.display_name);
    });
    xml.group("Buckets", |xml| {
        for bucket in &reply.buckets {
            xml.group("Bucket", |xml| {
                xml.element("Name", &bucket.name);
                xml.time("CreationDate", bucket.created);
            });
        }
    });
    let next = reply.buckets.last().filter(|_| reply.truncated);
    xml.optional("ContinuationToken", next.map(|bucket| &bucket.name));
    xml.optional("Prefix", prefix);
    Ok(Reply::xml(xml))
}

pub(super) async fn create_bucket(mut call: Call<'_>, bucket: BucketName) -> Answer {
    let document = call.take_document(DigestDemand::Optional).await?;
    let location = if document.is_empty() {
        None
    } else {
        let configuration = Element::parse(&document, "CreateBucketConfiguration")?;
        if configuration.children.iter().any(|child| !matches!(child.name.as_str(), "LocationConstraint")) {
            let message = "Only LocationConstraint is implemented in CreateBucketConfiguration.";
            return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
        }
        configuration.optional("LocationConstraint")?.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    // `default` is what clients of a private region send when they have to send something.
    let here = |location: &str| location == "default" || location == call.config.region;
    if call.config.region_strict && location.as_deref().is_some_and(|location| !here(location)) {
        let message = "The specified location-constraint is not valid";
        return Err(S3Error::with_message(S3ErrorCode::InvalidLocationConstraint, message));
    }
    let path = format!("/{bucket}");
    call.api.create_bucket(&call.cx, CreateBucket { bucket, location }).await?;
    let mut reply = Reply::empty(StatusCode::OK);
    reply.set("location", path);
    Ok(reply)
}

pub(super) async fn head_bucket(call: Call<'_>, bucket: BucketName) -> Answer {
    call.api.head_bucket(&call.cx, bucket).await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn delete_bucket(call: Call<'_>, bucket: BucketName) -> Answer {
    call.api.delete_bucket(&call.cx, bucket).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn get_bucket_location(call: Call<'_>, bucket: BucketName) -> Answer {
    let location = call.api.get_bucket_location(&call.cx, bucket).await?;
    let mut xml = XmlWriter::new("LocationConstraint");
    if location.region != "us-east-1" {
        xml.text(location.region);
    }
    Ok(Reply::xml(xml))
}
