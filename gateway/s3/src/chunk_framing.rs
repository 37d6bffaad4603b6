//! A second pair of eyes on the aws-chunked framing of an upload.
//!
//! s3s removes the framing and verifies chunk signatures, but it takes the end of the stream for the end of the body even
//! when the final zero-length chunk never came, does not know the 8 KiB minimum, and passes any trailer on. This observer
//! reads the same raw bytes before s3s does and refuses those bodies.
//!
//! ```text
//! body    = *( size-hex [";chunk-signature=" 64 hex] CRLF data CRLF )  "0" [";chunk-signature=" ...] CRLF trailers
//! trailers = *( name ":" value LF / CRLF )     blank lines are ignored, as clients disagree about them
//! ```

use std::collections::BTreeSet;

use http::HeaderMap;

use crate::error::{S3Error, S3ErrorCode};
use crate::header_text;
use crate::limits::CHUNK_BYTES_MIN;

/// The longest chunk header: 16 hex digits and a signature fit with room to spare.
const META_BYTES_MAX: usize = 256;

/// All trailers together.
const TRAILER_BYTES_MAX: usize = 16 << 10;

const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// Whether the sender says that the body is framed as aws-chunked.
pub(crate) fn is_streaming(headers: &HeaderMap) -> Result<bool, S3Error> {
    Ok(header_text::text(headers, "x-amz-content-sha256")?.is_some_and(|value| value.starts_with("STREAMING-")))
}

/// Follows the framing of one body.
///
/// # Invariants
/// After an error every further call fails too: the state stays where nothing is accepted.
pub(crate) struct ChunkFraming {
    state: State,
    /// The previous chunk was shorter than the minimum, so it must have been the last.
    short_chunk: bool,
    /// Names that `x-amz-trailer` announced, in lower case.
    announced: BTreeSet<String>,
}

enum State {
    Meta(Vec<u8>),
    Data { remaining: u64 },
    DataEnd(&'static [u8]),
    Trailers(Vec<u8>),
}

impl ChunkFraming {
    /// `trailer_header` is the value of `x-amz-trailer`.
    pub fn new(trailer_header: Option<&str>) -> Self {
        let announced = trailer_header
            .unwrap_or("")
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        Self { state: State::Meta(Vec::new()), short_chunk: false, announced }
    }

    /// Looks at the next bytes of the body.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), S3Error> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Meta(line) => {
                    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                    line.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end..];
                    if line.len() > META_BYTES_MAX {
                        return Err(malformed());
                    }
                    if line.ends_with(b"\n") {
                        let size = chunk_size(line).ok_or_else(malformed)?;
                        self.begin_chunk(size)?;
                    }
                }
                State::Data { remaining } => {
                    let here = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
                    *remaining -= here as u64;
                    bytes = &bytes[here..];
                    if *remaining == 0 {
                        self.state = State::DataEnd(b"\r\n");
                    }
                }
                State::DataEnd(expected) => {
                    if bytes[0] != expected[0] {
                        return Err(malformed());
                    }
                    bytes = &bytes[1..];
                    let rest = &expected[1..];
                    self.state = if rest.is_empty() { State::Meta(Vec::new()) } else { State::DataEnd(rest) };
                }
                State::Trailers(text) => {
                    if text.len() + bytes.len() > TRAILER_BYTES_MAX {
                        return Err(S3ErrorCode::MalformedTrailerError.into());
                    }
                    text.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        Ok(())
    }

    fn begin_chunk(&mut self, size: u64) -> Result<(), S3Error> {
        if size == 0 {
            self.state = State::Trailers(Vec::new());
            return Ok(());
        }
        if self.short_chunk {
            return Err(S3ErrorCode::InvalidChunkSizeError.into());
        }
        self.short_chunk = size < CHUNK_BYTES_MIN;
        self.state = State::Data { remaining: size };
        Ok(())
    }

    /// The body has ended: `IncompleteBody` before the final chunk, `MalformedTrailerError` unless exactly the announced
    /// trailers came.
    pub fn finish(&self) -> Result<(), S3Error> {
        let State::Trailers(text) = &self.state else {
            return Err(S3ErrorCode::IncompleteBody.into());
        };
        let bad_trailer = || S3Error::new(S3ErrorCode::MalformedTrailerError);
        let text = std::str::from_utf8(text).map_err(|_| bad_trailer())?;
        let mut missing = self.announced.clone();
        let mut signed = false;
        for line in text.split('\n').map(str::trim).filter(|line| !line.is_empty()) {
            let (name, _) = line.split_once(':').ok_or_else(bad_trailer)?;
            let name = name.trim().to_ascii_lowercase();
            let expected = if name == TRAILER_SIGNATURE { !std::mem::replace(&mut signed, true) } else { missing.remove(&name) };
            if !expected {
                return Err(bad_trailer());
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(bad_trailer()) }
    }
}

/// `1f4` or `1f4;chunk-signature=...`, then CRLF.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let (size, extension) = line.split_once(';').unwrap_or((line, ""));
    if !(extension.is_empty() || extension.starts_with("chunk-signature=")) {
        return None;
    }
    if size.is_empty() || size.len() > 16 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(size, 16).ok()
}

fn malformed() -> S3Error {
    S3Error::with_message(S3ErrorCode::IncompleteBody, "The chunked encoding of the request body is malformed.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(body: &[u8], trailer: Option<&str>, step: usize) -> Result<(), S3ErrorCode> {
        let mut framing = ChunkFraming::new(trailer);
        for piece in body.chunks(step) {
            framing.feed(piece).map_err(|error| error.code)?;
        }
        framing.finish().map_err(|error| error.code)
    }

    fn check(body: &[u8], trailer: Option<&str>, expected: Result<(), S3ErrorCode>) {
        for step in [1, 3, body.len().max(1)] {
            assert_eq!(follow(body, trailer, step), expected, "{:?} by {step}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_body_must_be_framed_to_its_very_end() {
        use S3ErrorCode::{IncompleteBody, MalformedTrailerError};
        check(b"3\r\nabc\r\n0\r\n\r\n", None, Ok(()));
        check(b"0\r\n\r\n", None, Ok(()));
        check(b"0;chunk-signature=ab\r\n\r\n", None, Ok(()));
        check(b"3;chunk-signature=ab\r\nabc\r\n0;chunk-signature=cd\r\n", None, Ok(()));
        check(b"", None, Err(IncompleteBody));
        check(b"3\r\nabc\r\n", None, Err(IncompleteBody));
        check(b"3\r\nab", None, Err(IncompleteBody));
        check(b"3\r\nabcd\r\n0\r\n\r\n", None, Err(IncompleteBody));
        check(b"3\nabc\r\n0\r\n\r\n", None, Err(IncompleteBody));
        check(b"-3\r\nabc\r\n0\r\n\r\n", None, Err(IncompleteBody));
        check(b"+3\r\nabc\r\n0\r\n\r\n", None, Err(IncompleteBody));
        check(b"3;x=y\r\nabc\r\n0\r\n\r\n", None, Err(IncompleteBody));
        check(b"fffffffffffffffff\r\n", None, Err(IncompleteBody));
        check(&[b'1'; 400], None, Err(IncompleteBody));
        check(b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", Some("x-amz-checksum-crc32"), Ok(()));
        check(
            b"0\r\nX-Amz-Checksum-CRC32: AAAAAA==\n\r\n\r\nx-amz-trailer-signature:ab\r\n\r\n",
            Some("x-amz-checksum-crc32"),
            Ok(()),
        );
        check(b"0\r\n\r\n", Some("x-amz-checksum-crc32"), Err(MalformedTrailerError));
        check(b"0\r\nx-amz-checksum-sha1:AA\r\n\r\n", Some("x-amz-checksum-crc32"), Err(MalformedTrailerError));
        check(b"0\r\nx-amz-checksum-crc32:AA\r\n\r\n", None, Err(MalformedTrailerError));
        check(b"0\r\na:1\r\na:1\r\n\r\n", Some("a"), Err(MalformedTrailerError));
        check(b"0\r\nnonsense\r\n\r\n", None, Err(MalformedTrailerError));
        check(b"0\r\n\r\n3\r\nabc\r\n0\r\n\r\n", None, Err(MalformedTrailerError));
    }

    #[test]
    fn only_the_last_chunk_may_be_short() {
        let mut body = b"2000\r\n".to_vec();
        body.extend_from_slice(&[b'x'; 8192]);
        body.extend_from_slice(b"\r\n1\r\ny\r\n0\r\n\r\n");
        assert_eq!(follow(&body, None, 1000), Ok(()));
        assert_eq!(follow(b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n", None, 7), Err(S3ErrorCode::InvalidChunkSizeError));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_alike_however_they_arrive(body in "([0-9a-f]{0,2}\r\n|[a-z]{0,9}|;chunk-signature=|\r|\n|0\r\n|:){0,12}", step in 1usize..9) {
            let whole = follow(body.as_bytes(), Some("a"), body.len().max(1));
            proptest::prop_assert_eq!(follow(body.as_bytes(), Some("a"), step), whole);
        }
    }

    #[test]
    fn trailers_are_bounded() {
        let mut body = b"0\r\n".to_vec();
        body.resize(TRAILER_BYTES_MAX + 10, b'a');
        assert_eq!(follow(&body, None, 100), Err(S3ErrorCode::MalformedTrailerError));
    }
}
