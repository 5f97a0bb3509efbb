//! Compresses one rotated file: `NAME` in, `NAME.zst` out, by way of `NAME.zst.part`.
//!
//! The library is zstd's own, in C. Compression ratio and speed, measured on one core with 64 MiB of syslog text made
//! from the public corpora:
//!
//! ```text
//! zstd 1.5.7, level 1     8.6 : 1    560 MB/s
//! zstd 1.5.7, level 3    10.3 : 1    420 MB/s     taken
//! zstd 1.5.7, level 6    12.0 : 1    127 MB/s
//! ruzstd 0.9.1            5.1 : 1     93 MB/s     all in Rust, one level; panics when the disk is full
//! ```
//!
//! A flood of repeats is rotated as fast as it arrives, so half the size in a quarter of the time counts. Compressed
//! input, which may come from anyone, is still *read* by ruzstd.
//!
//! # Guarantees
//!
//! - The compressed file gets its name only when all of it is on the disk, checksum included.
//! - A failure leaves no partial file behind.
//! - No symlink is followed, and no existing file is written to.
//!
//! # Left out
//!
//! Removing the plain file (the keeper does it).

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use zstd::stream::write::Encoder;

use super::open::{create_file, open_to_read, remove};

/// Writes the compressed form of `plain` to `part` and renames that to `compressed`.
pub(super) fn compress(plain: &Path, part: &Path, compressed: &Path) -> io::Result<()> {
    let source = open_to_read(plain)?;
    if !source.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let written = write(source, part).and_then(|()| {
        fs::rename(part, compressed)?;
        // The name has to be on the disk before the plain file is removed.
        let directory = compressed.parent().expect("it lies beside the plain file");
        File::open(directory)?.sync_all()
    });
    if written.is_err() {
        // If this fails too, the next run removes it.
        drop(remove(part));
    }
    written
}

fn write(mut source: File, part: &Path) -> io::Result<()> {
    let mut encoder = Encoder::new(create_file(part)?, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_all()
}

/// Measured: see the table at the top of this file.
const LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_was_compressed_is_read_back_octet_for_octet() {
        let dir = tempfile::tempdir().unwrap();
        let [plain, part, compressed] =
            ["a", "a.zst.part", "a.zst"].map(|name| dir.path().join(name));
        let text: Vec<u8> = (0..300_000_u32)
            .flat_map(|number| format!("<13>line {number}\n").into_bytes())
            .collect();
        fs::write(&plain, &text).unwrap();
        compress(&plain, &part, &compressed).unwrap();
        assert!(!part.exists());
        let mut octets = Vec::new();
        let file = fs::read(&compressed).unwrap();
        assert!(file.len() * 3 < text.len(), "{} octets", file.len());
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(file.as_slice()).unwrap();
        io::Read::read_to_end(&mut decoder, &mut octets).unwrap();
        assert!(octets == text);
    }

    #[test]
    fn a_symlink_is_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let [plain, part, compressed] =
            ["a", "a.zst.part", "a.zst"].map(|name| dir.path().join(name));
        let target = dir.path().join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, &plain).unwrap();
        compress(&plain, &part, &compressed).unwrap_err();
        assert!(!part.exists() && !compressed.exists());

        fs::remove_file(&plain).unwrap();
        fs::write(&plain, "text").unwrap();
        symlink(&target, &part).unwrap();
        compress(&plain, &part, &compressed).unwrap_err();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }
}
