//! From a tar to the container it came in.

use std::io::Write;
use std::mem::take;

use flate2::write::GzEncoder;
use zstd::stream::write::Encoder;

use super::error::DumpFormatError;
use super::kind::{Compression, ContainerInfo};
use super::prefix::parse;

/// Level of the new compression, for zstd and gzip: the bytes live as long as one load.
const LEVEL: u8 = 1;

/// Wraps a tar that is pushed through it. The counts in the header are those of the dump it was unwrapped from.
pub struct Wrapper {
    /// Bytes that go out before the next ones.
    ready: Vec<u8>,
    compressor: Compressor,
}

enum Compressor {
    None,
    Zstd(Box<Encoder<'static, Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Wrapper {
    /// A container like the one that `info` tells of.
    ///
    /// # Errors
    /// If the header in `info` is not one of such a container.
    pub fn new(info: &ContainerInfo) -> Result<Self, DumpFormatError> {
        match parse(info.kind, &info.prefix) {
            Ok(prefix) if prefix.size == info.prefix.len() => {}
            Ok(_) | Err(_) => {
                return Err(DumpFormatError::Prefix { kind: info.kind, found: info.prefix.len() });
            }
        }
        let mut wrapper =
            Self { ready: info.kind.magic().to_vec(), compressor: Compressor::new(info.kind.compression())? };
        wrapper.compressor.write(&info.prefix, &mut wrapper.ready)?;
        Ok(wrapper)
    }

    /// Takes the next bytes of the tar and appends to `out` what they become.
    ///
    /// # Errors
    /// If the compressor has no memory.
    pub fn tar_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DumpFormatError> {
        out.append(&mut self.ready);
        self.compressor.write(bytes, out)
    }

    /// Appends the end of the container to `out`.
    ///
    /// # Errors
    /// If the compressor has no memory.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), DumpFormatError> {
        out.append(&mut self.ready);
        match self.compressor {
            Compressor::None => {}
            Compressor::Zstd(encoder) => out.append(&mut encoder.finish().map_err(refused)?),
            Compressor::Gzip(encoder) => out.append(&mut encoder.finish().map_err(refused)?),
        }
        Ok(())
    }
}

impl Compressor {
    fn new(compression: Compression) -> Result<Self, DumpFormatError> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Zstd => Self::Zstd(Box::new(zstd_encoder().map_err(refused)?)),
            Compression::Gzip => {
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), flate2::Compression::new(u32::from(LEVEL)))))
            }
        })
    }

    fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DumpFormatError> {
        match self {
            Self::None => out.extend_from_slice(bytes),
            Self::Zstd(encoder) => {
                encoder.write_all(bytes).map_err(refused)?;
                out.append(&mut take(encoder.get_mut()));
            }
            Self::Gzip(encoder) => {
                encoder.write_all(bytes).map_err(refused)?;
                out.append(&mut take(encoder.get_mut()));
            }
        }
        Ok(())
    }
}

fn zstd_encoder() -> std::io::Result<Encoder<'static, Vec<u8>>> {
    let mut encoder = Encoder::new(Vec::new(), i32::from(LEVEL))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

fn refused(source: std::io::Error) -> DumpFormatError {
    DumpFormatError::Compress { source }
}
