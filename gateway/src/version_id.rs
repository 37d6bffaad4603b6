//! Version ids as clients write them: `null`, or 32 hexadecimal digits (sequence, then salt).

use gateway_s3::{S3Error, S3ErrorCode};
use storage_node_proto::object::{VersionId, VersionSelector};

pub fn text(version: VersionId) -> String {
    match version {
        VersionId::Null => "null".into(),
        VersionId::Id { sequence, salt } => format!("{sequence:016x}{salt:016x}"),
    }
}

/// `InvalidArgument` for what no version id looks like.
pub fn parse(text: &str) -> Result<VersionId, S3Error> {
    if text == "null" {
        return Ok(VersionId::Null);
    }
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    (text.len() == 32 && text.bytes().all(digit))
        .then(|| Some(VersionId::Id { sequence: number(&text[..16])?, salt: number(&text[16..])? }))
        .flatten()
        .ok_or_else(|| S3Error::with_message(S3ErrorCode::InvalidArgument, "Invalid version id specified"))
}

/// The version a request is about.
pub fn selector(version_id: Option<&str>) -> Result<VersionSelector, S3Error> {
    version_id.map_or(Ok(VersionSelector::Current), |text| parse(text).map(VersionSelector::Exact))
}

/// The version id a reply to a write carries: none for the null version.
pub fn of_write(version: VersionId) -> Option<String> {
    match version {
        VersionId::Null => None,
        VersionId::Id { .. } => Some(text(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_id_round_trips_and_nothing_else_passes() {
        for version in [VersionId::Null, VersionId::Id { sequence: 1, salt: u64::MAX }] {
            assert_eq!(parse(&text(version)).unwrap(), version);
        }
        let long = "0".repeat(33);
        for bad in ["", "NULL", "0", "g0000000000000000000000000000000", "é000000000000000000000000000000", long.as_str()] {
            assert_eq!(parse(bad).unwrap_err().code, S3ErrorCode::InvalidArgument, "{bad}");
        }
    }
}
