//! The five checksums of S3: their names, their values, and how those of parts make that of an object.
//!
//! SHA checksums of a multipart object are composite only, CRC64NVME is full-object only, CRC32 and CRC32C may be either.
//! A full-object CRC is combined from the parts' CRCs and lengths, so no byte is read again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use sha1::Digest as _;

use crate::error::{S3Error, S3ErrorCode};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChecksumAlgorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// What a multipart object's checksum is computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChecksumType {
    /// Over the object's bytes, as if it had been uploaded at once.
    FullObject,
    /// Over the binary checksums of its parts; written `base64-N`.
    Composite,
}

impl ChecksumAlgorithm {
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As `x-amz-checksum-algorithm` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header, or trailer, that carries a value of this algorithm.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Reads a name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// Reads a header's name, in any case.
    pub fn from_header(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.header().eq_ignore_ascii_case(name))
    }

    /// How many bytes a value has.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The type of a multipart object's checksum when the client names none.
    pub const fn default_type(self) -> ChecksumType {
        match self {
            Self::Crc64Nvme => ChecksumType::FullObject,
            Self::Crc32 | Self::Crc32c | Self::Sha1 | Self::Sha256 => ChecksumType::Composite,
        }
    }

    pub const fn allows(self, checksum_type: ChecksumType) -> bool {
        match checksum_type {
            ChecksumType::FullObject => matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme),
            ChecksumType::Composite => !matches!(self, Self::Crc64Nvme),
        }
    }

    const fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }
}

impl ChecksumType {
    /// As `x-amz-checksum-type` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::FullObject, Self::Composite].into_iter().find(|checksum_type| checksum_type.name().eq_ignore_ascii_case(name))
    }
}

/// One algorithm's value.
///
/// # Invariants
/// - The value is as long as the algorithm says.
/// - `parts` is set exactly for a composite checksum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checksum {
    algorithm: ChecksumAlgorithm,
    value: Box<[u8]>,
    parts: Option<u16>,
}

/// Bytes or a text that are no value of the algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {} value", algorithm.name())]
pub struct InvalidChecksum {
    pub algorithm: ChecksumAlgorithm,
}

impl From<InvalidChecksum> for S3Error {
    fn from(error: InvalidChecksum) -> Self {
        S3Error::with_message(S3ErrorCode::InvalidRequest, format!("Value for {} header is invalid.", error.algorithm.header()))
    }
}

impl Checksum {
    /// A full-object checksum, or a part's.
    pub fn new(algorithm: ChecksumAlgorithm, value: &[u8]) -> Result<Self, InvalidChecksum> {
        if value.len() != algorithm.bytes() {
            return Err(InvalidChecksum { algorithm });
        }
        Ok(Self { algorithm, value: value.into(), parts: None })
    }

    /// A stored composite checksum over `parts` parts.
    pub fn composite(algorithm: ChecksumAlgorithm, value: &[u8], parts: u16) -> Result<Self, InvalidChecksum> {
        if value.len() != algorithm.bytes() || !algorithm.allows(ChecksumType::Composite) || parts == 0 {
            return Err(InvalidChecksum { algorithm });
        }
        Ok(Self { algorithm, value: value.into(), parts: Some(parts) })
    }

    /// Reads what a client sent: base64, and for a composite one `-N` behind it.
    pub fn parse(algorithm: ChecksumAlgorithm, text: &str) -> Result<Self, InvalidChecksum> {
        let invalid = |_| InvalidChecksum { algorithm };
        match text.split_once('-') {
            None => Self::new(algorithm, &BASE64.decode(text).map_err(|_| InvalidChecksum { algorithm })?),
            Some((value, parts)) => Self::composite(
                algorithm,
                &BASE64.decode(value).map_err(|_| InvalidChecksum { algorithm })?,
                parts.parse::<u16>().map_err(invalid)?,
            ),
        }
    }

    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The binary value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// How many parts a composite checksum covers.
    pub fn parts(&self) -> Option<u16> {
        self.parts
    }

    pub fn checksum_type(&self) -> ChecksumType {
        if self.parts.is_some() { ChecksumType::Composite } else { ChecksumType::FullObject }
    }

    /// The text of a header: base64, and `-N` for a composite one.
    pub fn text(&self) -> String {
        let value = BASE64.encode(&self.value);
        match self.parts {
            Some(parts) => format!("{value}-{parts}"),
            None => value,
        }
    }

    /// The checksum of `bytes`.
    pub fn of(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Self {
        let mut hasher = ChecksumHasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Computes one checksum on the fly.
pub struct ChecksumHasher {
    algorithm: ChecksumAlgorithm,
    state: HasherState,
}

enum HasherState {
    Crc(crc_fast::Digest),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl ChecksumHasher {
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        let state = match algorithm {
            ChecksumAlgorithm::Sha1 => HasherState::Sha1(sha1::Sha1::new()),
            ChecksumAlgorithm::Sha256 => HasherState::Sha256(sha2::Sha256::new()),
            ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c | ChecksumAlgorithm::Crc64Nvme => {
                HasherState::Crc(crc_fast::Digest::new(algorithm.crc().expect("these three are CRCs")))
            }
        };
        Self { algorithm, state }
    }

    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            HasherState::Crc(digest) => digest.update(bytes),
            HasherState::Sha1(digest) => digest.update(bytes),
            HasherState::Sha256(digest) => digest.update(bytes),
        }
    }

    pub fn finish(self) -> Checksum {
        let value: Box<[u8]> = match self.state {
            HasherState::Crc(digest) => {
                let bytes = digest.finalize().to_be_bytes();
                bytes[bytes.len() - self.algorithm.bytes()..].into()
            }
            HasherState::Sha1(digest) => digest.finalize().as_slice().into(),
            HasherState::Sha256(digest) => digest.finalize().as_slice().into(),
        };
        Checksum { algorithm: self.algorithm, value, parts: None }
    }
}

/// The checksum of a multipart object from its parts' checksums and lengths, in part order.
///
/// `Err` when a part's checksum is of another algorithm, there is no part, or the algorithm does not allow the type.
pub fn combine_part_checksums(
    algorithm: ChecksumAlgorithm,
    checksum_type: ChecksumType,
    parts: &[(Checksum, u64)],
) -> Result<Checksum, InvalidChecksum> {
    let invalid = InvalidChecksum { algorithm };
    if parts.is_empty() || !algorithm.allows(checksum_type) || parts.iter().any(|(part, _)| part.algorithm != algorithm) {
        return Err(invalid);
    }
    match checksum_type {
        ChecksumType::Composite => {
            let mut hasher = ChecksumHasher::new(algorithm);
            parts.iter().for_each(|(part, _)| hasher.update(&part.value));
            let count = u16::try_from(parts.len()).map_err(|_| invalid)?;
            Ok(Checksum { parts: Some(count), ..hasher.finish() })
        }
        ChecksumType::FullObject => {
            let crc = algorithm.crc().ok_or(invalid)?;
            let number = |value: &[u8]| value.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
            let first = number(&parts[0].0.value);
            let all = parts[1..]
                .iter()
                .fold(first, |sum, (part, bytes)| crc_fast::checksum_combine(crc, sum, number(&part.value), *bytes));
            let bytes = all.to_be_bytes();
            Checksum::new(algorithm, &bytes[bytes.len() - algorithm.bytes()..])
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_values_of_the_five_algorithms() {
        // The CRCs are the published check values over "123456789".
        let check = |algorithm, hex_value: &str| {
            let checksum = Checksum::of(algorithm, b"123456789");
            assert_eq!(hex::encode(checksum.value()), hex_value, "{algorithm:?}");
            assert_eq!(Checksum::parse(algorithm, &checksum.text()).unwrap(), checksum);
        };
        check(ChecksumAlgorithm::Crc32, "cbf43926");
        check(ChecksumAlgorithm::Crc32c, "e3069283");
        check(ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888");
        check(ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        check(ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
    }

    #[test]
    fn a_value_must_have_its_algorithms_length() {
        let check = |algorithm, text: &str, ok| assert_eq!(Checksum::parse(algorithm, text).is_ok(), ok, "{text}");
        check(ChecksumAlgorithm::Crc32, "NSRBwg==", true);
        check(ChecksumAlgorithm::Crc32, "NSRBwg", false);
        check(ChecksumAlgorithm::Crc32, "NSRBwgA=", false);
        check(ChecksumAlgorithm::Crc32, "", false);
        check(ChecksumAlgorithm::Crc32, "NSRBwg==-2", true);
        check(ChecksumAlgorithm::Crc32, "NSRBwg==-0", false);
        check(ChecksumAlgorithm::Crc32, "NSRBwg==-x", false);
        check(ChecksumAlgorithm::Crc64Nvme, "AAAAAAAAAAA=", true);
        check(ChecksumAlgorithm::Crc64Nvme, "AAAAAAAAAAA=-2", false);
    }

    #[test]
    fn a_composite_checksum_is_over_the_parts_values() {
        let parts: Vec<(Checksum, u64)> =
            [b"abc", b"def"].iter().map(|p| (Checksum::of(ChecksumAlgorithm::Sha256, *p), 3)).collect();
        let composite = combine_part_checksums(ChecksumAlgorithm::Sha256, ChecksumType::Composite, &parts).unwrap();
        let values = [parts[0].0.value(), parts[1].0.value()].concat();
        assert_eq!(composite.value(), Checksum::of(ChecksumAlgorithm::Sha256, &values).value());
        assert_eq!((composite.parts(), composite.checksum_type()), (Some(2), ChecksumType::Composite));
        assert!(composite.text().ends_with("-2"));
    }

    #[test]
    fn what_an_algorithm_does_not_allow_is_not_combined() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha1};
        let part = |algorithm| vec![(Checksum::of(algorithm, b"abc"), 3)];
        let refused = |algorithm, checksum_type, parts: &[_]| combine_part_checksums(algorithm, checksum_type, parts).is_err();
        assert!(refused(Sha1, ChecksumType::FullObject, &part(Sha1)));
        assert!(refused(Crc64Nvme, ChecksumType::Composite, &part(Crc64Nvme)));
        assert!(refused(Crc32, ChecksumType::FullObject, &part(Sha1)));
        assert!(refused(Crc32, ChecksumType::FullObject, &[]));
    }

    proptest! {
        #[test]
        fn part_crcs_combine_to_the_crc_of_the_whole(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..6)) {
            for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
                let sums: Vec<(Checksum, u64)> = parts.iter().map(|p| (Checksum::of(algorithm, p), p.len() as u64)).collect();
                let combined = combine_part_checksums(algorithm, ChecksumType::FullObject, &sums).unwrap();
                prop_assert_eq!(combined, Checksum::of(algorithm, &parts.concat()));
            }
        }
    }
}
