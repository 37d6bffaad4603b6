//! Wall-clock time.

use std::fmt;
use std::time::Duration;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};

/// Milliseconds since 1970-01-01T00:00:00Z. For showing and for expiry; it never decides which of two writes wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    pub const fn as_seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Saturates at the end of time instead of wrapping.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl Encode for Timestamp {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.0);
    }
}

impl Decode for Timestamp {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        input.u64().map(Self)
    }
}
