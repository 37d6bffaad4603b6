//! The byte codec of every format and message: fixed-width big-endian integers, length-prefixed bytes, tagged enums.
//!
//! It guarantees that decoding hostile bytes neither panics nor allocates more than a small multiple of the input: a
//! sequence's claimed length is checked against the bytes that are left before anything is reserved. Versioning is left to
//! the formats: each has a version number of its own, puts it in front of what is kept
//! ([`codec_versioned!`](crate::codec_versioned)), and decides what it still reads.
//!
//! | value | bytes |
//! |---|---|
//! | `u8` `u16` `u32` `u64` `u128` | big-endian |
//! | `bool` | one byte, 0 or 1 |
//! | bytes, `String` | `u32` length, then the bytes |
//! | `Option<T>` | 0, or 1 and the value |
//! | `Vec<T>` | `u32` count, then the values |
//! | struct | its fields in order ([`codec_struct!`](crate::codec_struct)) |
//! | enum | `u8` tag, then the variant's fields ([`codec_enum!`](crate::codec_enum)) |

use bytes::{BufMut, BytesMut};

/// Named here for the macros below: who calls them need not depend on `bytes`.
pub use bytes::Bytes;

/// Bytes that do not decode. It says which rule they break, never what they hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the bytes end inside a value")]
    Truncated,
    #[error("{bytes} bytes are left over after the value")]
    Trailing { bytes: usize },
    #[error("tag {tag} does not name a {what}")]
    UnknownTag { what: &'static str, tag: u8 },
    #[error("version {version} of {what} is not one this build reads")]
    UnknownVersion { what: &'static str, version: u16 },
    #[error("not a valid {what}")]
    Invalid { what: &'static str },
}

/// A value with one byte form.
pub trait Encode {
    fn encode(&self, out: &mut Encoder);

    /// The value's bytes alone.
    fn to_encoded(&self) -> Bytes {
        let mut out = Encoder::new();
        self.encode(&mut out);
        out.finish()
    }
}

/// A value that can be read back; the inverse of [`Encode`].
pub trait Decode: Sized {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError>;

    /// Decodes a value that must fill `bytes` exactly.
    fn from_encoded(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let value = Self::decode(&mut input)?;
        input.finish()?;
        Ok(value)
    }
}

/// Builds a byte string.
#[derive(Debug, Default)]
pub struct Encoder {
    out: BytesMut,
}

impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: BytesMut::with_capacity(bytes) }
    }

    pub fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.out.put_u16(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.out.put_u32(value);
    }

    pub fn u64(&mut self, value: u64) {
        self.out.put_u64(value);
    }

    pub fn u128(&mut self, value: u128) {
        self.out.put_u128(value);
    }

    /// A `u32` length, then the bytes.
    ///
    /// # Panics
    /// With 4 GiB or more: no format of ours holds such a value, every maximum is far below.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("formats hold less than 4 GiB to a value"));
        self.raw(bytes);
    }

    /// The bytes alone, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

/// Reads a byte string from its front.
#[derive(Debug)]
pub struct Decoder<'a> {
    left: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_be_bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.left.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.left = tail;
        Ok(*head)
    }

    pub fn raw(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.left.split_at_checked(bytes).ok_or(DecodeError::Truncated)?;
        self.left = tail;
        Ok(head)
    }

    /// A `u32` length, then that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.raw(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)
    }

    /// A version number that must be one of those this build reads.
    pub fn version(&mut self, what: &'static str, newest: u16) -> Result<u16, DecodeError> {
        match self.u16()? {
            version if (1..=newest).contains(&version) => Ok(version),
            version => Err(DecodeError::UnknownVersion { what, version }),
        }
    }

    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// Refuses bytes left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

macro_rules! integer {
    ($($int:ident),*) => {$(
        impl Encode for $int {
            fn encode(&self, out: &mut Encoder) {
                out.$int(*self);
            }
        }

        impl Decode for $int {
            fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                input.$int()
            }
        }
    )*};
}

integer!(u8, u16, u32, u64, u128);

impl Encode for bool {
    fn encode(&self, out: &mut Encoder) {
        out.u8(u8::from(*self));
    }
}

impl Decode for bool {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::UnknownTag { what: "bool", tag }),
        }
    }
}

impl Encode for Bytes {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(self);
    }
}

impl Decode for Bytes {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        input.bytes().map(Bytes::copy_from_slice)
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(self.as_bytes());
    }
}

impl Decode for String {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(input.bytes()?).map_err(|_| DecodeError::Invalid { what: "UTF-8 text" })?;
        Ok(text.to_owned())
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, out: &mut Encoder) {
        out.raw(self);
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        input.array()
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Encoder) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if bool::decode(input)? { T::decode(input).map(Some) } else { Ok(None) }
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Encoder) {
        out.u32(u32::try_from(self.len()).expect("formats hold less than 2^32 values to a list"));
        for value in self {
            value.encode(out);
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    /// Every value takes at least one byte, so a count beyond the bytes left is refused before anything is reserved.
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = usize::try_from(input.u32()?).map_err(|_| DecodeError::Truncated)?;
        if count > input.left() {
            return Err(DecodeError::Truncated);
        }
        let mut values = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            values.push(T::decode(input)?);
        }
        Ok(values)
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, out: &mut Encoder) {
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(input)?, B::decode(input)?))
    }
}

/// Gives a struct the codec of its fields in the order written: `codec_struct!(Type { a, b })`.
#[macro_export]
macro_rules! codec_struct {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Encode for $type {
            fn encode(&self, out: &mut $crate::codec::Encoder) {
                let _ = &out;
                $($crate::codec::Encode::encode(&self.$field, out);)*
            }
        }

        impl $crate::codec::Decode for $type {
            fn decode(input: &mut $crate::codec::Decoder<'_>) -> Result<Self, $crate::codec::DecodeError> {
                let _ = &input;
                $(let $field = $crate::codec::Decode::decode(input)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
}

/// Gives an enum a tagged codec. Every variant is written with braces, those without fields with none:
/// `codec_enum!(Type, "what it is" { 1 => A { x, y }, 2 => B { } })`. Tuple variants name their field `0` through a struct
/// pattern (`3 => C { 0: value }`).
#[macro_export]
macro_rules! codec_enum {
    ($type:ident, $what:literal { $($tag:literal => $variant:ident { $($field:tt $(: $bind:ident)?),* $(,)? }),* $(,)? }) => {
        impl $crate::codec::Encode for $type {
            fn encode(&self, out: &mut $crate::codec::Encoder) {
                match self {
                    $(Self::$variant { $($field $(: $bind)?),* } => {
                        out.u8($tag);
                        $($crate::codec::Encode::encode($crate::codec_enum!(@name $field $($bind)?), out);)*
                    })*
                }
            }
        }

        impl $crate::codec::Decode for $type {
            fn decode(input: &mut $crate::codec::Decoder<'_>) -> Result<Self, $crate::codec::DecodeError> {
                match input.u8()? {
                    $($tag => Ok(Self::$variant { $($field: $crate::codec::Decode::decode(input)?),* }),)*
                    tag => Err($crate::codec::DecodeError::UnknownTag { what: $what, tag }),
                }
            }
        }
    };
    (@name $field:tt $bind:ident) => { $bind };
    (@name $field:tt) => { $field };
}

/// Gives types with a codec a form for log entries, rows and files that a version number comes first in:
/// `codec_versioned!(VERSION { Type, "a type"; Other, "another"; })`. `VERSION` is the newest one, the one that is written; a
/// type's text names it in the error for bytes of a newer build.
#[macro_export]
macro_rules! codec_versioned {
    ($version:ident { $($type:ident, $what:literal;)* }) => {$(
        impl $type {
            /// The byte form with a version number in front.
            pub fn to_versioned(&self) -> $crate::codec::Bytes {
                let mut out = $crate::codec::Encoder::new();
                out.u16($version);
                $crate::codec::Encode::encode(self, &mut out);
                out.finish()
            }

            /// Reads what [`Self::to_versioned`] wrote, by this or an older build.
            pub fn from_versioned(bytes: &[u8]) -> Result<Self, $crate::codec::DecodeError> {
                let mut input = $crate::codec::Decoder::new(bytes);
                input.version($what, $version)?;
                let value = <Self as $crate::codec::Decode>::decode(&mut input)?;
                input.finish()?;
                Ok(value)
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Pair {
        left: u32,
        right: Option<String>,
    }
    codec_struct!(Pair { left, right });

    #[derive(Debug, Clone, PartialEq)]
    enum Shape {
        Empty,
        Named { pairs: Vec<Pair> },
        Tuple(u64, bool),
    }
    codec_enum!(Shape, "shape" { 1 => Empty {}, 2 => Named { pairs }, 3 => Tuple { 0: count, 1: flag } });

    const VERSION: u16 = 2;
    codec_versioned!(VERSION { Shape, "a shape"; });

    #[test]
    fn a_versioned_value_is_its_bytes_behind_the_newest_version() {
        assert_eq!(Shape::Empty.to_versioned().as_ref(), [0, 2, 1]);
        for version in [1, 2] {
            assert_eq!(Shape::from_versioned(&[0, version, 1]), Ok(Shape::Empty));
        }
        for version in [0, 3] {
            let refused = DecodeError::UnknownVersion { what: "a shape", version: version.into() };
            assert_eq!(Shape::from_versioned(&[0, version, 1]), Err(refused));
        }
        assert_eq!(Shape::from_versioned(&[0, 2, 1, 7]), Err(DecodeError::Trailing { bytes: 1 }));
    }

    #[test]
    fn values_round_trip() {
        let named = Shape::Named { pairs: vec![Pair { left: 7, right: Some("é".into()) }, Pair { left: 8, right: None }] };
        for shape in [Shape::Empty, named, Shape::Tuple(u64::MAX, true)] {
            assert_eq!(Shape::from_encoded(&shape.to_encoded()), Ok(shape));
        }
    }

    #[test]
    fn a_claimed_length_beyond_the_input_is_refused() {
        assert_eq!(Vec::<u64>::from_encoded(&[0xff; 8]), Err(DecodeError::Truncated));
        assert_eq!(Bytes::from_encoded(&[0, 0, 0, 9, 1]), Err(DecodeError::Truncated));
        assert_eq!(Shape::from_encoded(&[9]), Err(DecodeError::UnknownTag { what: "shape", tag: 9 }));
        assert_eq!(u8::from_encoded(&[1, 2]), Err(DecodeError::Trailing { bytes: 1 }));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes: Vec<u8>) {
            if let Ok(shape) = Shape::from_encoded(&bytes) {
                prop_assert_eq!(shape.to_encoded(), bytes);
            }
        }
    }
}
