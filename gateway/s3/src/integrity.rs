//! What a client declares about a body, read from its headers before the body is.
//!
//! A checksum that stands only in the query of a presigned URL is ignored: JS v3 puts the CRC of an empty body there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;

use crate::checksum::{Checksum, ChecksumAlgorithm};
use crate::error::{S3Error, S3ErrorCode};
use crate::etag_hasher::EtagHasher;
use crate::header_text;
use crate::limits::PUT_BYTES_MAX;
use crate::upload_body::{DeclaredChecksum, UploadExpectation};

/// Checksums of Amazon S3 that are not computed here. To ignore one would be to claim it was verified.
const NOT_COMPUTED: [&str; 5] = [
    "x-amz-checksum-md5",
    "x-amz-checksum-sha512",
    "x-amz-checksum-xxhash128",
    "x-amz-checksum-xxhash3",
    "x-amz-checksum-xxhash64",
];

/// Reads `Content-MD5`, the checksum and the length of an upload. `trailers` is set for an aws-chunked body, `size_hint` when
/// the transport knows the length without a header.
pub(crate) fn upload_expectation(
    headers: &HeaderMap,
    chunked: bool,
    size_hint: Option<u64>,
) -> Result<UploadExpectation, S3Error> {
    let declared = if chunked {
        header_text::number(headers, "x-amz-decoded-content-length")?
    } else {
        header_text::number(headers, "content-length")?.or(size_hint)
    };
    let bytes = declared.ok_or(S3ErrorCode::MissingContentLength)?;
    if bytes > PUT_BYTES_MAX {
        return Err(S3ErrorCode::EntityTooLarge.into());
    }
    let checksum = declared_checksum(headers, chunked)?;
    Ok(UploadExpectation { bytes: Some(bytes), content_md5: content_md5(headers)?, checksum, trailers: None })
}

/// `InvalidDigest` when it is present but not the base64 of 16 bytes.
pub(crate) fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, S3Error> {
    let Some(text) = header_text::present(headers, "content-md5")? else { return Ok(None) };
    let invalid = || S3Error::with_message(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified is not valid.");
    let bytes = BASE64.decode(text).map_err(|_| invalid())?;
    Ok(Some(<[u8; 16]>::try_from(bytes).map_err(|_| invalid())?))
}

/// The one checksum header, if any.
pub(crate) fn checksum_header(headers: &HeaderMap) -> Result<Option<Checksum>, S3Error> {
    if let Some(name) = NOT_COMPUTED.into_iter().find(|name| headers.contains_key(*name)) {
        let message = format!("The checksum {name} is not implemented");
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
    }
    let mut found = None;
    for algorithm in ChecksumAlgorithm::ALL {
        let Some(text) = header_text::present(headers, algorithm.header())? else { continue };
        if found.replace(Checksum::parse(algorithm, text)?).is_some() {
            let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
        }
    }
    Ok(found)
}

/// The checksum of an upload's body, as header or announced trailer.
pub(crate) fn declared_checksum(headers: &HeaderMap, trailers_allowed: bool) -> Result<Option<DeclaredChecksum>, S3Error> {
    let invalid = |message: &'static str| S3Error::with_message(S3ErrorCode::InvalidRequest, message);
    let header = checksum_header(headers)?;
    if header.as_ref().is_some_and(|checksum| checksum.parts().is_some()) {
        return Err(invalid("A composite checksum does not go with a single body."));
    }
    let trailer = match header_text::text(headers, "x-amz-trailer")? {
        Some(names) => announced_checksum(names)?,
        None => None,
    };
    if trailer.is_some() && !trailers_allowed {
        return Err(invalid("x-amz-trailer does not go with a body that is not aws-chunked."));
    }
    let declared = match (header, trailer) {
        (Some(_), Some(_)) => return Err(invalid("Expecting a single x-amz-checksum- header or trailer.")),
        (Some(checksum), None) => Some(DeclaredChecksum::Header(checksum)),
        (None, Some(algorithm)) => Some(DeclaredChecksum::Trailer(algorithm)),
        (None, None) => None,
    };
    if let Some(name) = header_text::text(headers, "x-amz-sdk-checksum-algorithm")? {
        let algorithm = ChecksumAlgorithm::from_name(name).ok_or_else(|| invalid("The checksum algorithm is not known."))?;
        match &declared {
            None => {
                return Err(invalid(
                    "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
                ));
            }
            Some(declared) if declared.algorithm() != algorithm => {
                return Err(invalid("Value for x-amz-sdk-checksum-algorithm header is invalid."));
            }
            Some(_) => {}
        }
    }
    Ok(declared)
}

fn announced_checksum(names: &str) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    let mut found = None;
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let Some(algorithm) = ChecksumAlgorithm::from_header(name) else {
            let message = "The value specified in the x-amz-trailer header is not supported";
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
        };
        if found.replace(algorithm).is_some() {
            let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
        }
    }
    Ok(found)
}

/// Verifies a document that is in memory against its headers. `InvalidRequest` when there is nothing to verify it with and
/// the operation demands it.
pub(crate) fn verify_document(headers: &HeaderMap, document: &[u8], demand: DigestDemand) -> Result<(), S3Error> {
    let md5 = content_md5(headers)?;
    let checksum = declared_checksum(headers, false)?;
    if md5.is_none() && checksum.is_none() && demand == DigestDemand::Required {
        let message = "Missing required header for this request: Content-MD5 OR x-amz-checksum-*";
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
    }
    verify_md5(md5, document)?;
    match checksum {
        Some(DeclaredChecksum::Header(declared)) if Checksum::of(declared.algorithm(), document) != declared => {
            Err(S3ErrorCode::BadDigest.into())
        }
        Some(DeclaredChecksum::Header(_) | DeclaredChecksum::Trailer(_)) | None => Ok(()),
    }
}

/// `BadDigest` when a document has another MD5 than declared.
pub(crate) fn verify_md5(declared: Option<[u8; 16]>, document: &[u8]) -> Result<(), S3Error> {
    let Some(declared) = declared else { return Ok(()) };
    let mut hasher = EtagHasher::new();
    hasher.update(document);
    if hasher.finish() == declared { Ok(()) } else { Err(S3ErrorCode::BadDigest.into()) }
}

/// Whether an operation insists on a digest of its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigestDemand {
    Optional,
    Required,
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_digest_must_be_well_formed() {
        use S3ErrorCode::{InvalidDigest, InvalidRequest, NotImplemented};
        let check = |pairs: &[(&'static str, &'static str)], expected: Result<(), S3ErrorCode>| {
            let mut all = vec![("content-length", "3")];
            all.extend_from_slice(pairs);
            let got = upload_expectation(&headers(&all), false, None).map(|_| ()).map_err(|error| error.code);
            assert_eq!(got, expected, "{pairs:?}");
        };
        check(&[], Ok(()));
        check(&[("content-md5", "kAFQmDzST7DWlj99KOF/cg==")], Ok(()));
        check(&[("content-md5", "")], Err(InvalidDigest));
        check(&[("content-md5", "abc")], Err(InvalidDigest));
        check(&[("content-md5", "AAAA")], Err(InvalidDigest));
        check(&[("x-amz-checksum-crc32", "NSRBwg==")], Ok(()));
        check(&[("x-amz-checksum-crc32", "")], Err(InvalidRequest));
        check(&[("x-amz-checksum-crc32", "NSRBwgAA")], Err(InvalidRequest));
        check(&[("x-amz-checksum-crc32", "NSRBwg==-1")], Err(InvalidRequest));
        check(&[("x-amz-checksum-crc32", "NSRBwg=="), ("x-amz-checksum-crc32c", "NSRBwg==")], Err(InvalidRequest));
        check(&[("x-amz-checksum-crc32", "NSRBwg=="), ("x-amz-sdk-checksum-algorithm", "CRC32")], Ok(()));
        check(&[("x-amz-checksum-crc32", "NSRBwg=="), ("x-amz-sdk-checksum-algorithm", "SHA1")], Err(InvalidRequest));
        check(&[("x-amz-sdk-checksum-algorithm", "CRC32")], Err(InvalidRequest));
        check(&[("x-amz-trailer", "x-amz-checksum-crc32")], Err(InvalidRequest));
        check(&[("x-amz-checksum-sha512", "AAAA")], Err(NotImplemented));
    }

    #[test]
    fn the_length_is_known_before_the_body() {
        let check = |pairs: &[(&'static str, &'static str)], chunked, hint, expected: Result<u64, S3ErrorCode>| {
            let got = upload_expectation(&headers(pairs), chunked, hint).map(|e| e.bytes.unwrap()).map_err(|error| error.code);
            assert_eq!(got, expected, "{pairs:?}");
        };
        check(&[("content-length", "7")], false, None, Ok(7));
        check(&[], false, Some(0), Ok(0));
        check(&[], false, None, Err(S3ErrorCode::MissingContentLength));
        check(&[("content-length", "70"), ("x-amz-decoded-content-length", "7")], true, None, Ok(7));
        check(&[("content-length", "70")], true, None, Err(S3ErrorCode::MissingContentLength));
        check(&[("x-amz-decoded-content-length", "-7")], true, None, Err(S3ErrorCode::InvalidArgument));
        check(&[("content-length", "5368709120")], false, None, Ok(5 << 30));
        check(&[("content-length", "5368709121")], false, None, Err(S3ErrorCode::EntityTooLarge));
    }

    #[test]
    fn one_announced_trailer_is_a_checksum() {
        let declared = |value: &'static str| declared_checksum(&headers(&[("x-amz-trailer", value)]), true);
        let algorithm = |value| declared(value).unwrap().map(|declared| declared.algorithm());
        assert_eq!(algorithm("X-Amz-Checksum-CRC64NVME"), Some(ChecksumAlgorithm::Crc64Nvme));
        assert!(declared("x-amz-checksum-crc32,x-amz-checksum-sha1").is_err());
        assert!(declared("x-other").is_err());
    }

    #[test]
    fn a_document_is_verified_against_its_digest() {
        let document = b"hello";
        let check = |pairs: &[(&'static str, &'static str)], demand, expected: Result<(), S3ErrorCode>| {
            assert_eq!(verify_document(&headers(pairs), document, demand).map_err(|e| e.code), expected, "{pairs:?}");
        };
        check(&[], DigestDemand::Optional, Ok(()));
        check(&[], DigestDemand::Required, Err(S3ErrorCode::InvalidRequest));
        check(&[("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")], DigestDemand::Required, Ok(()));
        check(&[("content-md5", "kAFQmDzST7DWlj99KOF/cg==")], DigestDemand::Required, Err(S3ErrorCode::BadDigest));
        check(&[("x-amz-checksum-crc32", "NhCmhg==")], DigestDemand::Required, Ok(()));
        check(&[("x-amz-checksum-crc32", "NSRBwg==")], DigestDemand::Required, Err(S3ErrorCode::BadDigest));
    }
}
