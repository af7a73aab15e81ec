//! Exports that are compressed, as their names say.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use store::Result;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Packing {
    /// What the name of a file says.
    pub(crate) fn of(path: &Path) -> Self {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("gz") => Packing::Gzip,
            Some("zst") => Packing::Zstd,
            _ => Packing::None,
        }
    }

    /// Compresses what is written, into `out`.
    ///
    /// # Errors
    /// `Unsupported` when this build cannot.
    pub(crate) fn pack<W: Write>(self, out: W) -> Result<Packer<W>> {
        match self {
            Packing::None => Ok(Packer::None(out)),
            Packing::Gzip => Ok(Packer::Gzip(GzEncoder::new(out, Compression::default()))),
            Packing::Zstd => zstandard::pack(out),
        }
    }

    /// Reads what was compressed, from `input`.
    ///
    /// # Errors
    /// `Unsupported` when this build cannot.
    pub(crate) fn unpack<'r>(self, input: impl BufRead + Send + 'r) -> Result<Box<dyn BufRead + Send + 'r>> {
        match self {
            Packing::None => Ok(Box::new(input)),
            Packing::Gzip => Ok(Box::new(BufReader::new(MultiGzDecoder::new(input)))),
            Packing::Zstd => zstandard::unpack(input),
        }
    }
}

/// A file that is being compressed.
pub(crate) enum Packer<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    fn out(&mut self) -> &mut dyn Write {
        match self {
            Packer::None(out) => out,
            Packer::Gzip(encoder) => encoder,
            #[cfg(feature = "zstd")]
            Packer::Zstd(encoder) => encoder,
        }
    }

    /// Writes what is left. Without it, the file is cut off.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Packer::None(mut out) => out.flush(),
            Packer::Gzip(encoder) => encoder.finish().map(drop),
            #[cfg(feature = "zstd")]
            Packer::Zstd(encoder) => encoder.finish().map(drop),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out().flush()
    }
}

#[cfg(feature = "zstd")]
mod zstandard {
    use super::*;
    use crate::transfer::failed;

    /// A file may ask its reader for a window of so many bytes, as a power of two: 128 MiB, the tool's own limit.
    const MAX_WINDOW_LOG: u32 = 27;

    pub(super) fn pack<W: Write>(out: W) -> Result<Packer<W>> {
        let begin = || {
            let mut encoder = zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            Ok(Packer::Zstd(encoder))
        };
        begin().map_err(failed("beginning to compress"))
    }

    pub(super) fn unpack<'r>(input: impl BufRead + Send + 'r) -> Result<Box<dyn BufRead + Send + 'r>> {
        let begin = || -> io::Result<Box<dyn BufRead + Send + 'r>> {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Ok(Box::new(BufReader::new(decoder)))
        };
        begin().map_err(failed("beginning to decompress"))
    }
}

#[cfg(not(feature = "zstd"))]
mod zstandard {
    use super::*;

    pub(super) fn pack<W: Write>(_: W) -> Result<Packer<W>> {
        Err(not_built_in())
    }

    pub(super) fn unpack<'r>(_: impl BufRead + Send + 'r) -> Result<Box<dyn BufRead + Send + 'r>> {
        Err(not_built_in())
    }

    fn not_built_in() -> store::Error {
        let operation =
            "Zstandard in this build: name the file .gz, or build with the cargo feature \"zstd\"";
        store::Error::Unsupported { operation: operation.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn names_say_how_a_file_is_compressed() {
        for (name, packing) in [
            ("a.jsonl", Packing::None),
            ("a.jsonl.gz", Packing::Gzip),
            ("A.GZ", Packing::Gzip),
            ("a.zst", Packing::Zstd),
            ("gz", Packing::None),
            (".gz", Packing::None),
        ] {
            assert_eq!(Packing::of(Path::new(name)), packing, "{name}");
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_and_smaller() {
        let text = "line\n".repeat(10_000);
        for packing in [Packing::Gzip, Packing::Zstd] {
            if packing == Packing::Zstd && !cfg!(feature = "zstd") {
                let error = packing.pack(Vec::new()).err().unwrap().to_string();
                assert!(error.contains("cargo feature \"zstd\""), "{error}");
                continue;
            }
            let mut packed = Vec::new();
            let mut packer = packing.pack(&mut packed).unwrap();
            packer.write_all(text.as_bytes()).unwrap();
            packer.finish().unwrap();
            assert!(packed.len() < text.len() / 10);
            let mut unpacked = String::new();
            packing.unpack(packed.as_slice()).unwrap().read_to_string(&mut unpacked).unwrap();
            assert_eq!(unpacked, text);
            let cut = &packed[..packed.len() - 3];
            assert!(packing.unpack(cut).unwrap().read_to_string(&mut unpacked).is_err());
        }
    }
}
