//! The `Range` of a GET or HEAD, before the object's size is known.

use placement_types::ByteRange;

use crate::error::S3Error;

/// One byte range as the client asked for it. A malformed or multiple range never becomes one: it is ignored and the whole
/// object is served, as RFC 9110 section 14.2 allows and Amazon S3 does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeRequest {
    /// `bytes=first-last`, both inclusive.
    FromTo { first: u64, last: u64 },
    /// `bytes=first-`.
    From { first: u64 },
    /// `bytes=-bytes`: that many at the end.
    Suffix { bytes: u64 },
}

impl RangeRequest {
    /// Reads a `Range` value; `None` when it is to be ignored.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, spec) = value.trim().split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = spec.trim().split_once('-')?;
        // A number beyond u64 is beyond every object: saturate rather than call it malformed.
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        match (first.trim(), last.trim()) {
            ("", bytes) => Some(Self::Suffix { bytes: number(bytes)? }),
            (first, "") => Some(Self::From { first: number(first)? }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::FromTo { first, last })
            }
        }
    }

    /// The bytes of an object of `size` bytes; never empty. 416 `InvalidRange` when no byte of the object is in the range.
    pub fn resolve(self, size: u64) -> Result<ByteRange, S3Error> {
        let (start, end) = match self {
            Self::FromTo { first, last } => (first, last.saturating_add(1).min(size)),
            Self::From { first } => (first, size),
            Self::Suffix { bytes } => (size.saturating_sub(bytes), size),
        };
        ByteRange::new(start, end).filter(|range| !range.is_empty()).ok_or_else(|| S3Error::invalid_range(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_served_clamped_refused_or_ignored() {
        let check = |value: &str, size: u64, expected: Option<Option<(u64, u64)>>| {
            let got = RangeRequest::parse(value).map(|r| r.resolve(size).ok().map(|r| (r.start(), r.end())));
            assert_eq!(got, expected, "{value} of {size}");
        };
        let served = |start, end| Some(Some((start, end)));
        let (refused, ignored) = (Some(None), None);
        check("bytes=0-0", 10, served(0, 1));
        check("bytes=2-5", 10, served(2, 6));
        check("bytes=2-", 10, served(2, 10));
        check("bytes=-7", 10, served(3, 10));
        check("bytes=-70", 10, served(0, 10));
        check("bytes=5-100", 10, served(5, 10));
        check("bytes=5-100000000000000000000", 10, served(5, 10));
        check("Bytes = 1-2", 10, served(1, 3));
        check("bytes=-0", 10, refused);
        check("bytes=10-", 10, refused);
        check("bytes=10-11", 10, refused);
        check("bytes=100000000000000000000-", 10, refused);
        check("bytes=0-0", 0, refused);
        check("bytes=-1", 0, refused);
        check("bytes=5-2", 10, ignored);
        check("bytes=0-1,3-4", 10, ignored);
        check("bytes=a-b", 10, ignored);
        check("bytes=", 10, ignored);
        check("bytes=-", 10, ignored);
        check("bytes=+1-2", 10, ignored);
        check("items=0-1", 10, ignored);
        check("0-1", 10, ignored);
    }
}
