//! Platforms limit user-data to some kilobytes, so people pack it; what a few bytes unpack to has no limit of its own.

use std::io::Read;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;

use super::Problem;

/// Bytes that all gzip in one user-data may unpack to together. The largest user-data of any platform is 256 KiB
/// (GCE documentation, "Metadata values"); packed text seldom shrinks below a quarter.
const LIMIT: usize = 1 << 20;

/// The first bytes of gzip (RFC 1952, "Member format").
const GZIP: [u8; 2] = [0x1F, 0x8B];

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Unpacks, within one limit for everything.
pub struct Unpacker {
    left: usize,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self { left: LIMIT }
    }
}

impl Unpacker {
    /// Takes one wrapping off: gzip, or base64 around everything. `None` when there is none.
    pub fn unwrap(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        match self.gunzip(bytes)? {
            // No other form consists of nothing but letters and digits.
            None => Ok(base64(bytes).filter(|inner| !inner.is_empty())),
            unpacked => Ok(unpacked),
        }
    }

    /// Unpacks gzip; `None` when it is not gzip.
    pub fn gunzip(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        if !bytes.starts_with(&GZIP) {
            return Ok(None);
        }
        let mut unpacked = Vec::new();
        let most = self.left as u64 + 1;
        MultiGzDecoder::new(bytes).take(most).read_to_end(&mut unpacked).map_err(|error| {
            let what = format!("this is packed with gzip and cannot be unpacked: {error}");
            Problem::new(what, "pack it again, and see that the platform took all of it")
        })?;
        match self.left.checked_sub(unpacked.len()) {
            Some(left) => self.left = left,
            None => {
                let what = format!("unpacked this is larger than {} MiB", LIMIT >> 20);
                return Err(Problem::new(what, "leave only texts in it, and let the node fetch the rest"));
            }
        }
        Ok(Some(unpacked))
    }
}

/// Decodes base64 (RFC 4648) in lines of any length, with or without padding; `None` when it is anything else.
pub fn base64(bytes: &[u8]) -> Option<Vec<u8>> {
    let letters: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(letters).ok()
}
