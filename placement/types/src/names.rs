//! Names that users choose: buckets, object keys, zones.

use std::fmt;

use bytes::Bytes;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};

/// What names that are short texts have in common, besides the `parse` that says which texts are names.
macro_rules! name {
    ($type:ident, $what:literal) => {
        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Encode for $type {
            fn encode(&self, out: &mut Encoder) {
                out.bytes(self.0.as_bytes());
            }
        }

        impl Decode for $type {
            fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                Self::parse(&String::decode(input)?).map_err(|_| DecodeError::Invalid { what: $what })
            }
        }
    };
}

/// A bucket's name, as the general-purpose bucket naming rules of Amazon S3 allow it.
///
/// 3 to 63 bytes of lower-case letters, digits, dots and hyphens; starts and ends with a letter or digit; no two dots in a
/// row; not formatted like an IPv4 address; none of the reserved prefixes and suffixes.
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName(Box<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a bucket name: {reason}")]
pub struct InvalidBucketName {
    pub reason: &'static str,
}

const BUCKET_PREFIXES_RESERVED: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const BUCKET_SUFFIXES_RESERVED: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

impl BucketName {
    pub fn parse(text: &str) -> Result<Self, InvalidBucketName> {
        let invalid = |reason| Err(InvalidBucketName { reason });
        let bytes = text.as_bytes();
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(3..=63).contains(&bytes.len()) {
            return invalid("it must have 3 to 63 characters");
        }
        if !bytes.iter().all(|b| alphanumeric(b) || *b == b'.' || *b == b'-') {
            return invalid("it may have only lower-case letters, digits, dots and hyphens");
        }
        if !alphanumeric(&bytes[0]) || !alphanumeric(&bytes[bytes.len() - 1]) {
            return invalid("it must start and end with a letter or a digit");
        }
        if text.contains("..") || text.contains(".-") || text.contains("-.") {
            return invalid("a dot must stand between letters or digits");
        }
        if text.parse::<std::net::Ipv4Addr>().is_ok() {
            return invalid("it must not look like an IP address");
        }
        if BUCKET_PREFIXES_RESERVED.iter().any(|prefix| text.starts_with(prefix)) {
            return invalid("it starts with a reserved prefix");
        }
        if BUCKET_SUFFIXES_RESERVED.iter().any(|suffix| text.ends_with(suffix)) {
            return invalid("it ends with a reserved suffix");
        }
        Ok(Self(text.into()))
    }
}

name!(BucketName, "bucket name");

/// An object's key: 1 to 1024 bytes of UTF-8 without NUL, otherwise opaque. It never becomes a file name (I15).
///
/// `a//b`, `./a`, `/a` and a key of one space are distinct legal keys. Only a key that, read as a path, would climb above
/// its bucket (`../a`, `a/../../b`) is refused, because many clients turn keys into paths.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Bytes);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidObjectKey {
    #[error("an object key must not be empty")]
    Empty,
    #[error("an object key has at most {} bytes, this one has {bytes}", ObjectKey::BYTES_MAX)]
    TooLong { bytes: usize },
    #[error("an object key is UTF-8 without NUL")]
    NotText,
    #[error("an object key must not climb above its bucket with `..`")]
    Climbs,
}

impl ObjectKey {
    pub const BYTES_MAX: usize = 1024;

    pub fn parse(text: &str) -> Result<Self, InvalidObjectKey> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    pub fn from_bytes(bytes: Bytes) -> Result<Self, InvalidObjectKey> {
        if bytes.is_empty() {
            return Err(InvalidObjectKey::Empty);
        }
        if bytes.len() > Self::BYTES_MAX {
            return Err(InvalidObjectKey::TooLong { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| InvalidObjectKey::NotText)?;
        if text.contains('\0') {
            return Err(InvalidObjectKey::NotText);
        }
        let mut depth = 0i64;
        for segment in text.split('/') {
            match segment {
                ".." => depth -= 1,
                "" | "." => {}
                _ => depth += 1,
            }
            if depth < 0 {
                return Err(InvalidObjectKey::Climbs);
            }
        }
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked by the constructor")
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Encode for ObjectKey {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(&self.0);
    }
}

impl Decode for ObjectKey {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Self::from_bytes(Bytes::decode(input)?).map_err(|_| DecodeError::Invalid { what: "object key" })
    }
}

/// A failure domain above the node: a rack, a room, a site. 1 to 63 bytes of letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneName(Box<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a zone name (1 to 63 letters, digits, `-`, `_` or `.`): {text:?}")]
pub struct InvalidZoneName {
    pub text: String,
}

impl ZoneName {
    pub fn parse(text: &str) -> Result<Self, InvalidZoneName> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > 63 || !text.bytes().all(legal) {
            return Err(InvalidZoneName { text: text.chars().take(64).collect() });
        }
        Ok(Self(text.into()))
    }
}

name!(ZoneName, "zone name");

impl Default for ZoneName {
    fn default() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_aws_rules() {
        let longest = "a".repeat(63);
        for good in ["abc", "a.b", "my-bucket.2026", "0a0", "192.168.5", longest.as_str()] {
            assert!(BucketName::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "ab",
            "Abc",
            "a..b",
            "a.-b",
            "-ab",
            "ab-",
            "192.168.5.4",
            "xn--ab",
            "a_b",
            "ab-s3alias",
            "é123",
            too_long.as_str(),
        ] {
            assert!(BucketName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_opaque_unless_they_climb() {
        let longest = "k".repeat(1024);
        for good in ["a", " ", "_", "%", "?versionId", "foo//bar", "/foo", "foo/", "a/./b", "a/../b", "..a", longest.as_str()] {
            assert!(ObjectKey::parse(good).is_ok(), "{good}");
        }
        let check = |bad: &str, expected| assert_eq!(ObjectKey::parse(bad), Err(expected), "{bad:?}");
        check("", InvalidObjectKey::Empty);
        check(&"k".repeat(1025), InvalidObjectKey::TooLong { bytes: 1025 });
        check("a\0b", InvalidObjectKey::NotText);
        check("../x", InvalidObjectKey::Climbs);
        check("a/../../x", InvalidObjectKey::Climbs);
        assert_eq!(ObjectKey::from_bytes(Bytes::from_static(b"\xff")), Err(InvalidObjectKey::NotText));
    }
}
