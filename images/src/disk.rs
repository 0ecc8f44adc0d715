//! Disk images for the machine: made once, the same on every computer.

use crate::description::machine::{Content, Disk};
use crate::error::Error;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes that are written or digested at a time.
const CHUNK: usize = 1 << 16;

/// A disk image in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Name, as in `drive=<id>`.
    pub id: String,
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

/// Makes the image of a disk in `folder`, unless it is there, and digests it.
///
/// # Errors
/// A file cannot be read or written.
pub fn prepare(system: &str, disk: &Disk, folder: &Path) -> Result<Image, Error> {
    let id = disk.id.value.clone();
    let path = match &disk.content {
        Content::File(path) => path.clone(),
        Content::Zero { size } => {
            let path = folder.join(format!("{system}-{id}-zero-{size}.img"));
            if length(&path) != Some(*size) {
                make(&path, |file| file.set_len(*size))?;
            }
            path
        }
        Content::Random { size, seed } => {
            let path = folder.join(format!("{system}-{id}-{seed}-{size}.img"));
            if length(&path) != Some(*size) {
                let key = Sha256::digest(format!("{system}/{id}/{seed}"));
                make(&path, |file| fill(file, *size, key.into()))?;
            }
            path
        }
    };
    let sha256 = digest(&path)?;
    Ok(Image { id, path, sha256 })
}

fn length(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|file| file.len())
}

/// Writes a file beside its place and moves it there, so that a tool that is stopped leaves no half of one.
fn make(path: &Path, write: impl FnOnce(&File) -> std::io::Result<()>) -> Result<(), Error> {
    let unfinished = path.with_extension(format!("{}.part", std::process::id()));
    File::create(&unfinished)
        .and_then(|file| write(&file))
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(Error::file("write", path))
}

fn fill(file: &File, size: u64, key: [u8; 32]) -> std::io::Result<()> {
    let mut random = ChaCha8Rng::from_seed(key);
    let mut writer = BufWriter::new(file);
    let mut chunk = [0; CHUNK];
    let mut left = size;
    while left > 0 {
        let count = left.min(CHUNK as u64) as usize;
        random.fill_bytes(&mut chunk[..count]);
        writer.write_all(&chunk[..count])?;
        left -= count as u64;
    }
    writer.flush()
}

fn digest(path: &Path) -> Result<String, Error> {
    let read = || -> std::io::Result<String> {
        let mut reader = BufReader::new(File::open(path)?);
        let mut hash = Sha256::new();
        let mut chunk = [0; CHUNK];
        loop {
            match reader.read(&mut chunk)? {
                0 => break,
                count => hash.update(&chunk[..count]),
            }
        }
        Ok(hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    };
    read().map_err(Error::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::Placed;

    fn disk(id: &str, content: Content) -> Disk {
        Disk {
            id: Placed::new(id.into(), 0..0),
            content,
        }
    }

    #[test]
    fn a_random_disk_is_the_same_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let random = |id: &str, seed| {
            let content = Content::Random {
                size: 100_000,
                seed,
            };
            prepare("t", &disk(id, content), folder.path()).unwrap()
        };
        let first = random("a", 0);
        assert_eq!(length(&first.path), Some(100_000));
        // Whoever changes how contents are made makes every recorded digest wrong.
        assert_eq!(
            first.sha256,
            "d5aea330906ddf819888cd1918cedbe327f5546e07c3bb83317c6bb5adc7db18"
        );
        std::fs::remove_file(&first.path).unwrap();
        assert_eq!(random("a", 0), first);
        assert_ne!(random("b", 0).sha256, first.sha256);
        assert_ne!(random("a", 1).sha256, first.sha256);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn zeros_and_files_are_digested_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let zero = prepare("t", &disk("z", Content::Zero { size: 512 }), folder.path()).unwrap();
        assert_eq!(
            zero.sha256,
            "076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560"
        );
        let file = folder.path().join("abc");
        std::fs::write(&file, "abc").unwrap();
        let image = prepare("t", &disk("f", Content::File(file.clone())), folder.path()).unwrap();
        assert_eq!(image.path, file);
        assert_eq!(
            image.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let gone = disk("f", Content::File(folder.path().join("gone")));
        assert!(prepare("t", &gone, folder.path()).is_err());
    }
}
