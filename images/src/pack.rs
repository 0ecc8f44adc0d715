//! The bundle (`system::bundle`) and the image that is booted: the root task
//! with the bundle as one more segment.

use crate::elf::Program;
use crate::error::Error;
use std::path::Path;
use system::bundle::{self, ENTRY, FORMAT, HEADER, MAGIC, MAX_ENTRIES, NAME};

/// Writes a bundle of these entries: name and contents, in order.
///
/// # Errors
/// A sentence: too many entries, a name that is too long or there twice.
pub fn bundle(entries: &[(&str, &[u8])]) -> Result<Vec<u8>, String> {
    if entries.len() > MAX_ENTRIES {
        return Err(format!("{} entries, at most {MAX_ENTRIES}", entries.len()));
    }
    let mut offset = HEADER + entries.len() * ENTRY;
    let mut table = Vec::new();
    for (index, (name, contents)) in entries.iter().enumerate() {
        if name.is_empty() || name.len() >= NAME {
            return Err(format!("the name `{name}` does not fit {NAME} bytes"));
        }
        if entries[..index].iter().any(|(other, _)| other == name) {
            return Err(format!("two entries are named `{name}`"));
        }
        let mut padded = [0; NAME];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        table.extend(padded);
        table.extend((offset as u64).to_le_bytes());
        table.extend((contents.len() as u64).to_le_bytes());
        offset = (offset + contents.len()).next_multiple_of(8);
    }
    let mut bytes = Vec::with_capacity(offset);
    bytes.extend(MAGIC);
    bytes.extend((offset as u64).to_le_bytes());
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((entries.len() as u32).to_le_bytes());
    bytes.extend(table);
    for (_, contents) in entries {
        bytes.extend(*contents);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    Ok(bytes)
}

/// The image: the root task, and behind it a bundle of the compiled description and the programs.
///
/// # Errors
/// A file that is not a program, or a bundle that cannot be one.
pub fn image(
    system: &str,
    root_task: &Path,
    description: &[u8],
    programs: &[(&str, &Path)],
) -> Result<Vec<u8>, Error> {
    let mut files = Vec::new();
    for (name, path) in programs {
        files.push((*name, write_program(path, &read_program(path)?)?));
    }
    let mut entries = vec![(bundle::SYSTEM, description)];
    entries.extend(files.iter().map(|(name, file)| (*name, file.as_slice())));
    let bundle = bundle(&entries).map_err(|why| Error::Pack {
        system: system.to_owned(),
        why,
    })?;
    let mut image = read_program(root_task)?;
    image.append(bundle::vaddr_after(image.end()), bundle);
    write_program(root_task, &image)
}

fn read_program(path: &Path) -> Result<Program, Error> {
    let file = std::fs::read(path).map_err(Error::file("read", path))?;
    Program::parse(&file).map_err(|why| Error::Elf {
        path: path.to_owned(),
        why,
    })
}

fn write_program(path: &Path, program: &Program) -> Result<Vec<u8>, Error> {
    program.to_file().map_err(|why| Error::Elf {
        path: path.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Segment;
    use system::bundle::Bundle;

    #[test]
    fn the_root_task_reads_what_is_written_here() {
        let bytes = bundle(&[("system", b"abc"), ("console", &[7; 16]), ("empty", b"")]).unwrap();
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(
            bundle::total_bytes(bytes.first_chunk().unwrap()),
            Some(bytes.len() as u64)
        );
        let read = Bundle::parse(&bytes).unwrap();
        assert_eq!(read.find(bundle::SYSTEM), Some(b"abc".as_slice()));
        assert_eq!(read.find("console"), Some([7; 16].as_slice()));
        assert_eq!(read.find("empty"), Some([].as_slice()));
        assert_eq!(read.find("other"), None);
    }

    #[test]
    fn what_the_root_task_could_not_read_is_not_written() {
        assert!(bundle(&[("a", b""), ("a", b"")]).is_err());
        assert!(bundle(&[("a-name-of-thirty-two-characters--", b"")]).is_err());
        assert!(bundle(&[("", b"")]).is_err());
        let names: Vec<String> = (0..=MAX_ENTRIES).map(|n| n.to_string()).collect();
        let many: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), b"".as_slice()))
            .collect();
        assert!(bundle(&many).is_err());
        assert!(bundle(&many[1..]).is_ok());
    }

    #[test]
    fn the_bundle_follows_the_root_task_at_the_next_page() {
        let folder = tempfile::tempdir().unwrap();
        let program = |address, name: &str| {
            let segments = vec![Segment {
                address,
                memory_bytes: 0x1234,
                flags: object::elf::PF_R,
                contents: vec![1; 10],
            }];
            let path = folder.path().join(name);
            std::fs::write(
                &path,
                Program {
                    entry: address,
                    segments,
                }
                .to_file()
                .unwrap(),
            )
            .unwrap();
            path
        };
        let root = program(0x40_0000, "root");
        let console = program(0x50_0000, "console");
        let image = image("t", &root, b"description", &[("console", &console)]).unwrap();
        let read = Program::parse(&image).unwrap();
        assert_eq!((read.entry, read.segments.len()), (0x40_0000, 2));
        assert_eq!(read.segments[1].address, 0x40_2000);
        let bundle = Bundle::parse(&read.segments[1].contents).unwrap();
        assert_eq!(
            bundle.find("console"),
            Some(std::fs::read(&console).unwrap().as_slice())
        );
    }
}
