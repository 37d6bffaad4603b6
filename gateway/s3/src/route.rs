//! Which operation a request is: bucket and key from host and path, the operation from method and sub-resource.
//!
//! Nothing falls through. A sub-resource we know of but do not serve, and a bare name we do not know, is 501: were it
//! ignored, `PUT /bucket/key?tagging` would overwrite the object and `GET /bucket?policy` would be a listing (G18). A known
//! name at the wrong place is 400. Unknown names *with* a value are ignored, as Amazon S3 does (`x-id=GetObject`).

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode;
use placement_types::{BucketName, InvalidObjectKey, ObjectKey};

use crate::error::{S3Error, S3ErrorCode};
use crate::query::Query;

/// What a request's host and path name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Service,
    Bucket(BucketName),
    Object(BucketName, ObjectKey),
}

/// The operations served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    ListObjects,
    ListObjectsV2,
    ListMultipartUploads,
    DeleteObjects,
    PutObject,
    CopyObject,
    GetObject,
    HeadObject,
    GetObjectAttributes,
    DeleteObject,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
}

impl Operation {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListBuckets => "ListBuckets",
            Self::CreateBucket => "CreateBucket",
            Self::HeadBucket => "HeadBucket",
            Self::DeleteBucket => "DeleteBucket",
            Self::GetBucketLocation => "GetBucketLocation",
            Self::ListObjects => "ListObjects",
            Self::ListObjectsV2 => "ListObjectsV2",
            Self::ListMultipartUploads => "ListMultipartUploads",
            Self::DeleteObjects => "DeleteObjects",
            Self::PutObject => "PutObject",
            Self::CopyObject => "CopyObject",
            Self::GetObject => "GetObject",
            Self::HeadObject => "HeadObject",
            Self::GetObjectAttributes => "GetObjectAttributes",
            Self::DeleteObject => "DeleteObject",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::UploadPartCopy => "UploadPartCopy",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::ListParts => "ListParts",
        }
    }

    /// Whether the body is an object's bytes. Only these may come aws-chunked.
    pub const fn streams(self) -> bool {
        matches!(self, Self::PutObject | Self::UploadPart)
    }
}

/// Sub-resources that select one of our operations.
const SERVED: [&str; 6] = ["attributes", "delete", "location", "partNumber", "uploadId", "uploads"];

/// Sub-resources of Amazon S3 that are not served, whether or not they come with a value.
const NOT_SERVED: [&str; 42] = [
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "annotation",
    "annotations",
    "append",
    "cors",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "logging",
    "metadataAnnotationTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "position",
    "publicAccessBlock",
    "rename",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "select-type",
    "session",
    "tagging",
    "torrent",
    "updateObjectEncryption",
    "versioning",
    "versions",
    "website",
];

/// Bare names that are parameters, not sub-resources: an empty value means the same as none.
const PARAMETERS: [&str; 23] = [
    "bucket-region",
    "continuation-token",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "key-marker",
    "list-type",
    "marker",
    "max-buckets",
    "max-keys",
    "max-parts",
    "max-uploads",
    "part-number-marker",
    "prefix",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "start-after",
    "upload-id-marker",
    "versionId",
];

/// Parameters of signatures and SDKs.
fn is_ambient(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with("x-amz-") || matches!(lower.as_str(), "x-id" | "awsaccesskeyid" | "signature" | "expires" | "version")
}

/// The bucket that the host names, when it is below one of `domains`.
pub(crate) fn host_bucket<'h>(host: &'h str, domains: &[String]) -> Option<&'h str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    domains.iter().find_map(|domain| {
        let split = name.len().checked_sub(domain.len() + 1)?;
        let (bucket, rest) = (name.get(..split)?, name.get(split..)?);
        (!bucket.is_empty() && rest.starts_with('.') && rest[1..].eq_ignore_ascii_case(domain)).then_some(bucket)
    })
}

impl Target {
    /// Reads the raw path, percent-decoding it once. `bucket` is what the host names.
    pub fn parse(uri: &Uri, bucket: Option<&str>) -> Result<Self, S3Error> {
        let path = uri.path();
        let decoded = percent_decode(path.as_bytes()).decode_utf8().map_err(|_| S3ErrorCode::InvalidURI)?;
        let path = decoded.strip_prefix('/').ok_or(S3ErrorCode::InvalidURI)?;
        let (bucket, key) = match bucket {
            Some(bucket) => (bucket, path),
            None => path.split_once('/').unwrap_or((path, "")),
        };
        if bucket.is_empty() {
            // `//key` names no bucket, and is not the service either.
            return if key.is_empty() && path.is_empty() {
                Ok(Self::Service)
            } else {
                Err(S3ErrorCode::InvalidBucketName.into())
            };
        }
        let bucket = parse_bucket(bucket)?;
        if key.is_empty() { Ok(Self::Bucket(bucket)) } else { Ok(Self::Object(bucket, parse_key(key)?)) }
    }
}

pub(crate) fn parse_bucket(name: &str) -> Result<BucketName, S3Error> {
    BucketName::parse(name).map_err(|_| S3ErrorCode::InvalidBucketName.into())
}

pub(crate) fn parse_key(key: &str) -> Result<ObjectKey, S3Error> {
    ObjectKey::parse(key).map_err(|invalid| match invalid {
        InvalidObjectKey::TooLong { .. } => S3ErrorCode::KeyTooLongError.into(),
        InvalidObjectKey::Empty | InvalidObjectKey::NotText | InvalidObjectKey::Climbs => {
            S3Error::with_message(S3ErrorCode::InvalidArgument, invalid.to_string())
        }
    })
}

/// Chooses the operation, or says why there is none.
pub(crate) fn resolve(method: &Method, target: &Target, query: &Query, headers: &HeaderMap) -> Result<Operation, S3Error> {
    if matches!(target, Target::Object(..)) && query.has("versions") {
        return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "The versions of one key cannot be listed"));
    }
    for (name, has_value) in query.names() {
        let known = SERVED.contains(&name) || PARAMETERS.contains(&name) || is_ambient(name);
        if NOT_SERVED.contains(&name) || (!known && !has_value) {
            return Err(S3ErrorCode::NotImplemented.into());
        }
    }
    let mut selected: Vec<&str> = SERVED.into_iter().filter(|name| query.has(name)).collect();
    if selected == ["partNumber", "uploadId"] {
        selected = vec!["uploadId"];
    }
    let copies = headers.contains_key("x-amz-copy-source");
    let operation = match (target, method.as_str(), selected.as_slice()) {
        (Target::Service, "GET", []) => Operation::ListBuckets,
        (Target::Bucket(_), "GET", []) => match query.get("list-type")? {
            Some("2") => Operation::ListObjectsV2,
            None | Some("" | "1") => Operation::ListObjects,
            Some(_) => return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "Invalid list type")),
        },
        (Target::Bucket(_), "GET", ["location"]) => Operation::GetBucketLocation,
        (Target::Bucket(_), "GET", ["uploads"]) => Operation::ListMultipartUploads,
        (Target::Bucket(_), "HEAD", []) => Operation::HeadBucket,
        (Target::Bucket(_), "PUT", []) => Operation::CreateBucket,
        (Target::Bucket(_), "DELETE", []) => Operation::DeleteBucket,
        (Target::Bucket(_), "POST", ["delete"]) => Operation::DeleteObjects,
        (Target::Object(..), "GET", [] | ["partNumber"]) => Operation::GetObject,
        (Target::Object(..), "GET", ["uploadId"]) => Operation::ListParts,
        (Target::Object(..), "GET", ["attributes"]) => Operation::GetObjectAttributes,
        (Target::Object(..), "HEAD", [] | ["partNumber"]) => Operation::HeadObject,
        (Target::Object(..), "PUT", []) if copies => Operation::CopyObject,
        (Target::Object(..), "PUT", []) => Operation::PutObject,
        (Target::Object(..), "PUT", ["uploadId"]) if copies => Operation::UploadPartCopy,
        (Target::Object(..), "PUT", ["uploadId"]) => Operation::UploadPart,
        (Target::Object(..), "DELETE", []) => Operation::DeleteObject,
        (Target::Object(..), "DELETE", ["uploadId"]) => Operation::AbortMultipartUpload,
        (Target::Object(..), "POST", ["uploads"]) => Operation::CreateMultipartUpload,
        (Target::Object(..), "POST", ["uploadId"]) => Operation::CompleteMultipartUpload,
        (Target::Service, "POST", []) | (Target::Bucket(_), "POST", []) => return Err(S3ErrorCode::NotImplemented.into()),
        (Target::Service, "HEAD" | "PUT" | "DELETE", []) | (Target::Object(..), "POST", []) => {
            return Err(S3ErrorCode::MethodNotAllowed.into());
        }
        (_, "GET" | "HEAD" | "PUT" | "DELETE" | "POST", selected) => {
            let message = format!("The sub-resource {} does not go with this request", selected.join(", "));
            return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message));
        }
        _ => return Err(S3ErrorCode::NotImplemented.into()),
    };
    if copies && !matches!(operation, Operation::CopyObject | Operation::UploadPartCopy) {
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, "x-amz-copy-source does not go with this request"));
    }
    Ok(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, expected: Result<Operation, S3ErrorCode>) {
        let uri: Uri = uri.parse().unwrap();
        let got = Target::parse(&uri, None).and_then(|target| {
            let query = Query::parse(uri.query().unwrap_or(""))?;
            resolve(&Method::from_bytes(method.as_bytes()).unwrap(), &target, &query, &HeaderMap::new())
        });
        assert_eq!(got.map_err(|error| error.code), expected, "{method} {uri}");
    }

    #[test]
    fn every_request_is_one_operation_or_refused() {
        use Operation as Op;
        use S3ErrorCode as Code;
        check("GET", "/", Ok(Op::ListBuckets));
        check("GET", "/bucket", Ok(Op::ListObjects));
        check("GET", "/bucket/", Ok(Op::ListObjects));
        check("GET", "/bucket?list-type=2&prefix=&x-id=ListObjectsV2", Ok(Op::ListObjectsV2));
        check("GET", "/bucket?list-type=3", Err(Code::InvalidArgument));
        check("GET", "/bucket?location", Ok(Op::GetBucketLocation));
        check("GET", "/bucket?location=", Ok(Op::GetBucketLocation));
        check("GET", "/bucket?uploads", Ok(Op::ListMultipartUploads));
        check("GET", "/bucket?policy", Err(Code::NotImplemented));
        check("GET", "/bucket?foo", Err(Code::NotImplemented));
        check("GET", "/bucket?foo=bar&Version=2006-03-01", Ok(Op::ListObjects));
        check("PUT", "/bucket?acl", Err(Code::NotImplemented));
        check("POST", "/bucket?delete", Ok(Op::DeleteObjects));
        check("POST", "/bucket", Err(Code::NotImplemented));
        check("PATCH", "/bucket/key", Err(Code::NotImplemented));
        check("PUT", "/bucket/key", Ok(Op::PutObject));
        check("PUT", "/bucket/key?x-id=PutObject", Ok(Op::PutObject));
        check("PUT", "/bucket/key?tagging", Err(Code::NotImplemented));
        check("PUT", "/bucket/key?tagging=1", Err(Code::NotImplemented));
        check("PUT", "/bucket/key?uploads", Err(Code::InvalidArgument));
        check("PUT", "/bucket/key?partNumber=1", Err(Code::InvalidArgument));
        check("PUT", "/bucket/key?partNumber=1&uploadId=u", Ok(Op::UploadPart));
        check("GET", "/bucket/key?uploads", Err(Code::InvalidArgument));
        check("GET", "/bucket/key?versions", Err(Code::InvalidArgument));
        check("GET", "/bucket/key?partNumber=1", Ok(Op::GetObject));
        check("GET", "/bucket/key?attributes", Ok(Op::GetObjectAttributes));
        check("GET", "/bucket/key?attributes&uploadId=1", Err(Code::InvalidArgument));
        check("DELETE", "/bucket/key?uploadId=u", Ok(Op::AbortMultipartUpload));
        check("DELETE", "/bucket/key?legal-hold", Err(Code::NotImplemented));
        check("POST", "/bucket/key?uploads", Ok(Op::CreateMultipartUpload));
        check("POST", "/bucket/key", Err(Code::MethodNotAllowed));
        check("GET", "/Bad_Bucket/key", Err(Code::InvalidBucketName));
        check("GET", "/bucket/%ff", Err(Code::InvalidURI));
        check("GET", "/bucket/a%00b", Err(Code::InvalidArgument));
        check("GET", "/bucket/a/../../b", Err(Code::InvalidArgument));
        check("PUT", &format!("/bucket/{}", "k".repeat(1025)), Err(Code::KeyTooLongError));
        check("PUT", &format!("/bucket/{}", "k".repeat(1024)), Ok(Op::PutObject));
    }

    #[test]
    fn keys_are_decoded_once_and_never_normalised() {
        let key = |path: &str, bucket| match Target::parse(&path.parse().unwrap(), bucket).unwrap() {
            Target::Object(bucket, key) => (bucket.to_string(), key.to_string()),
            other => panic!("{path} is {other:?}"),
        };
        let of = |bucket: &str, key: &str| (bucket.to_owned(), key.to_owned());
        assert_eq!(key("/bucket//a", None), of("bucket", "/a"));
        assert_eq!(key("/bucket/a//b/./c%2Fd%252F+%20", None), of("bucket", "a//b/./c/d%2F+ "));
        assert_eq!(key("/bucket/%3FversionId", None), of("bucket", "?versionId"));
        assert_eq!(key("/a/b", Some("bucket")), of("bucket", "a/b"));
        assert_eq!(
            Target::parse(&"/".parse().unwrap(), Some("bucket")).unwrap(),
            Target::Bucket(BucketName::parse("bucket").unwrap())
        );
    }

    #[test]
    fn a_bucket_may_be_in_front_of_a_configured_domain() {
        let domains = ["s3.example.org".to_owned()];
        let check = |host, expected| assert_eq!(host_bucket(host, &domains), expected, "{host}");
        check("my.bucket.s3.example.org:9000", Some("my.bucket"));
        check("bucket.S3.example.ORG", Some("bucket"));
        check("s3.example.org", None);
        check(".s3.example.org", None);
        check("bucket.example.org", None);
        check("buckets3.example.org", None);
        check("127.0.0.1:9000", None);
        check("é.org", None);
    }

    #[test]
    fn a_copy_source_is_only_for_copies() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-copy-source", "a/b".parse().unwrap());
        let target = Target::parse(&"/bucket/key".parse().unwrap(), None).unwrap();
        let check = |method, query, expected: Result<Operation, S3ErrorCode>| {
            let got = resolve(&method, &target, &Query::parse(query).unwrap(), &headers);
            assert_eq!(got.map_err(|error| error.code), expected);
        };
        check(Method::PUT, "", Ok(Operation::CopyObject));
        check(Method::PUT, "partNumber=1&uploadId=u", Ok(Operation::UploadPartCopy));
        check(Method::GET, "", Err(S3ErrorCode::InvalidRequest));
        check(Method::POST, "uploads", Err(S3ErrorCode::InvalidRequest));
    }
}
