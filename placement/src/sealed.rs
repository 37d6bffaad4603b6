//! Small files that say by themselves what they are and whether they are whole: magic, version (`u16`), content, and the CRC-32C of
//! all before. What damage or a newer release wrote is told from what is ours.

use placement_types::codec::{DecodeError, Decoder, Encode, Encoder};

/// One kind of such files.
pub(crate) struct Seal {
    pub magic: &'static [u8; 8],
    /// The newest version, the one that is written.
    pub version: u16,
    /// For messages.
    pub what: &'static str,
}

impl Seal {
    pub fn close(&self, content: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(self.magic);
        out.u16(self.version);
        content.encode(&mut out);
        let mut bytes = out.finish().to_vec();
        bytes.extend_from_slice(&crc_fast::crc32_iscsi(&bytes).to_be_bytes());
        bytes
    }

    /// The version of a whole file, and what follows it. The caller reads that to its end.
    pub fn open<'a>(&self, bytes: &'a [u8]) -> Result<(u16, Decoder<'a>), DecodeError> {
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(DecodeError::Truncated)?;
        if crc_fast::crc32_iscsi(content) != u32::from_be_bytes(*crc) {
            return Err(DecodeError::Invalid { what: "checksum" });
        }
        let mut input = Decoder::new(content);
        if input.raw(self.magic.len())? != self.magic {
            return Err(DecodeError::Invalid { what: "magic" });
        }
        let version = input.version(self.what, self.version)?;
        Ok((version, input))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_a_cut_and_another_kind_are_told() {
        let seal = Seal { magic: b"DOZOTEST", version: 2, what: "a test's file" };
        let bytes = seal.close(&7u64);
        assert!(seal.open(&bytes).is_ok_and(|(version, mut input)| version == 2 && input.u64() == Ok(7)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(seal.open(&damaged).is_err() && seal.open(&bytes[..at]).is_err(), "byte {at}");
        }
        assert!(Seal { magic: b"DOZOELSE", ..seal }.open(&bytes).is_err());
        assert!(Seal { magic: b"DOZOTEST", version: 1, what: "a test's file" }.open(&bytes).is_err());
    }
}
