//! Unique bodies: every PUT writes bytes that no other writes, so that a read tells which write it saw.

use bytes::Bytes;
use gateway_s3::EtagHasher;

/// What every body starts with: its number and its length.
const HEADER_BYTES: usize = 16;

/// The shortest body.
pub const BYTES_MIN: u64 = 64;

/// The bytes of body `number`: a header, then a stream that only it has.
pub fn content(number: u64, bytes: u64) -> Bytes {
    assert!(bytes >= BYTES_MIN, "a body holds its header");
    let mut content = vec![0; usize::try_from(bytes).expect("bodies fit in memory")];
    let (header, rest) = content.split_at_mut(HEADER_BYTES);
    header[..8].copy_from_slice(&number.to_be_bytes());
    header[8..].copy_from_slice(&bytes.to_be_bytes());
    blake3::Hasher::new().update(header).finalize_xof().fill(rest);
    content.into()
}

/// Which body these bytes are; `None` when they are none, be it by one bit.
pub fn identify(bytes: &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (length, _) = rest.split_first_chunk::<8>()?;
    if u64::from_be_bytes(*length) != bytes.len() as u64 || (bytes.len() as u64) < BYTES_MIN {
        return None;
    }
    let number = u64::from_be_bytes(*number);
    (content(number, bytes.len() as u64) == bytes).then_some(number)
}

/// The etag S3 defines for it.
pub fn etag(bytes: &[u8]) -> String {
    let mut hasher = EtagHasher::new();
    hasher.update(bytes);
    hex::encode(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_recognised_and_a_damaged_one_is_not() {
        for (number, bytes) in [(0, BYTES_MIN), (7, 100), (u64::MAX, 70_000)] {
            let body = content(number, bytes);
            assert_eq!(identify(&body), Some(number));
            assert_eq!(identify(&body[..body.len() - 1]), None);
            for place in [0, 8, 20, body.len() - 1] {
                let mut damaged = body.to_vec();
                damaged[place] ^= 1;
                assert_eq!(identify(&damaged), None, "byte {place}");
            }
        }
        assert_eq!(identify(b"short"), None);
    }
}
