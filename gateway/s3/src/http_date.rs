//! Dates as HTTP writes them.

use std::time::{Duration, UNIX_EPOCH};

use placement_types::Timestamp;

/// Year 9999 ends here: the last second an HTTP date can name.
const SECONDS_MAX: u64 = 253_402_300_799;

/// `Sun, 06 Nov 1994 08:49:37 GMT`, at whole seconds.
pub fn format(time: Timestamp) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_seconds().min(SECONDS_MAX)))
}

/// Reads any of the three HTTP date formats, and the first with a numeric zone of zero: Python's mail library writes dates so, and
/// botocore signs what it writes.
pub fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let time = match text.strip_suffix("-0000").or(text.strip_suffix("+0000")) {
        Some(time) => httpdate::parse_http_date(&format!("{time}GMT")),
        None => httpdate::parse_http_date(text),
    };
    let time = time.ok()?;
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Timestamp::from_millis(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_are_read_and_the_first_is_written() {
        let time = Timestamp::from_millis(784_111_777_000);
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text), Some(time), "{text}");
        }
        assert_eq!(format(Timestamp::from_millis(784_111_777_999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(parse("yesterday"), None);
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 -0000"), Some(time));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 +0000"), Some(time));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 +0100"), None);
        assert_eq!(parse("-0000"), None);
        format(Timestamp::from_millis(u64::MAX));
    }
}
