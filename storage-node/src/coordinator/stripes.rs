//! Cuts a body into stripes.
//!
//! A body arrives in pieces of any size. A stripe is handed on as one run of bytes; when a piece holds a whole stripe it is
//! cut out of it without a copy, else its pieces are copied together once, into memory of just the right size.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use placement_types::STRIPE_BYTES;
use storage_node_proto::api::{ByteStream, ChunkError};

/// A body, read stripe by stripe: all of [`STRIPE_BYTES`] but the last.
pub(crate) struct Stripes {
    body: ByteStream<ChunkError>,
    left: Bytes,
    ended: bool,
}

impl Stripes {
    pub fn new(body: ByteStream<ChunkError>) -> Self {
        Self { body, left: Bytes::new(), ended: false }
    }

    /// The next stripe; `None` at the end of the body. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ChunkError> {
        let stripe_bytes = usize::try_from(STRIPE_BYTES).expect("a stripe fits in memory");
        let mut pieces = Vec::new();
        let mut gathered = 0;
        while gathered < stripe_bytes {
            if self.left.is_empty() {
                if self.ended {
                    break;
                }
                match self.body.next().await {
                    Some(Ok(piece)) => self.left = piece,
                    Some(Err(error)) => {
                        self.ended = true;
                        return Err(error);
                    }
                    None => self.ended = true,
                }
                continue;
            }
            let piece = self.left.split_to(self.left.len().min(stripe_bytes - gathered));
            gathered += piece.len();
            pieces.push(piece);
        }
        Ok(match pieces.len() {
            0 => None,
            1 => pieces.pop(),
            _ => {
                let mut stripe = BytesMut::with_capacity(gathered);
                pieces.iter().for_each(|piece| stripe.extend_from_slice(piece));
                Some(stripe.freeze())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[usize]) -> Vec<usize> {
        let mut count = 0u8;
        let bodies: Vec<Result<Bytes, ChunkError>> = pieces
            .iter()
            .map(|bytes| {
                count = count.wrapping_add(1);
                Ok(Bytes::from(vec![count; *bytes]))
            })
            .collect();
        let whole: Vec<u8> = bodies.iter().flat_map(|piece| piece.clone().unwrap()).collect();
        let mut stripes = Stripes::new(futures::stream::iter(bodies).boxed());
        let (mut lengths, mut seen) = (Vec::new(), Vec::new());
        while let Some(stripe) = futures::executor::block_on(stripes.next()).unwrap() {
            lengths.push(stripe.len());
            seen.extend_from_slice(&stripe);
        }
        assert!(seen == whole, "the stripes are not the body");
        lengths
    }

    #[test]
    fn every_stripe_but_the_last_is_full() {
        let mib = 1 << 20;
        assert_eq!(cut(&[]), Vec::<usize>::new());
        assert_eq!(cut(&[0, 0]), Vec::<usize>::new());
        assert_eq!(cut(&[5]), [5]);
        assert_eq!(cut(&[mib]), [mib]);
        assert_eq!(cut(&[mib + 1]), [mib, 1]);
        assert_eq!(cut(&[1, mib, mib]), [mib, mib, 1]);
        assert_eq!(cut(&[700_000, 0, 700_000, 700_000, 1]), [mib, mib, 2_100_001 - 2 * mib]);
    }

    #[test]
    fn a_failed_body_is_an_error_and_not_an_end() {
        let body = vec![Ok(Bytes::from_static(b"x")), Err(ChunkError::BodyFailed { why: "gone".into() })];
        let mut stripes = Stripes::new(futures::stream::iter(body).boxed());
        assert!(futures::executor::block_on(stripes.next()).is_err());
    }
}
