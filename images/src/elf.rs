//! Small ELF files: only what is loaded, plus one more segment where wanted.
//!
//! seL4 5.0.0 copies every program header that has a size, whatever its type,
//! so the result has `PT_LOAD` headers and nothing else: no sections, no
//! symbols, no debugging information.

use object::Endianness;
use object::elf::{
    ELFOSABI_NONE, EM_X86_64, ET_EXEC, FileFlags, FileHeader64, PF_R, PT_LOAD, PT_TLS, ProgramFlags,
};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::write::elf::{Encoder, FileHeader, FileHeaderLayout, ProgramHeader};

/// Segments begin at the same offset into a page in the file as in memory.
const PAGE: u64 = 4096;

/// A segment that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in memory.
    pub address: u64,
    /// Bytes in memory; what the file does not hold is zero.
    pub memory_bytes: u64,
    /// Rights: `PF_R`, `PF_W`, `PF_X`.
    pub flags: ProgramFlags,
    /// What the file holds.
    pub contents: Vec<u8>,
}

/// A program as it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it starts.
    pub entry: u64,
    /// Its segments, ascending.
    pub segments: Vec<Segment>,
}

impl Program {
    /// Reads a statically linked program.
    ///
    /// # Errors
    /// A sentence, when it is another kind of file, damaged, or uses thread-local storage, which no loader here sets up.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let wrong = |error: object::Error| error.to_string();
        let header = FileHeader64::<Endianness>::parse(file).map_err(wrong)?;
        let endian = header.endian().map_err(wrong)?;
        if header.e_machine(endian) != EM_X86_64 || header.e_type(endian) != ET_EXEC {
            return Err("not a program for x86-64 that is linked to a fixed address".into());
        }
        let mut segments: Vec<Segment> = Vec::new();
        for program_header in header.program_headers(endian, file).map_err(wrong)? {
            match program_header.p_type(endian) {
                PT_LOAD => {}
                PT_TLS => return Err("uses thread-local storage".into()),
                _ => continue,
            }
            let contents = program_header
                .data(endian, file)
                .map_err(|()| "a segment leaves the file".to_owned())?;
            let segment = Segment {
                address: program_header.p_vaddr(endian),
                memory_bytes: program_header.p_memsz(endian),
                flags: program_header.p_flags(endian),
                contents: contents.to_vec(),
            };
            if segment.memory_bytes < segment.contents.len() as u64 || segment.end().is_none() {
                return Err("a segment's size in memory is wrong".into());
            }
            if segments.last().and_then(Segment::end) > Some(segment.address) {
                return Err("segments overlap or are not in order".into());
            }
            if segment.memory_bytes > 0 {
                segments.push(segment);
            }
        }
        if segments.is_empty() {
            return Err("has nothing to load".into());
        }
        Ok(Self {
            entry: header.e_entry(endian),
            segments,
        })
    }

    /// One past the last byte in memory.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments
            .iter()
            .filter_map(Segment::end)
            .max()
            .unwrap_or(0)
    }

    /// Adds a read-only segment.
    pub fn append(&mut self, address: u64, contents: Vec<u8>) {
        self.segments.push(Segment {
            address,
            memory_bytes: contents.len() as u64,
            flags: PF_R,
            contents,
        });
    }

    /// The program as a file.
    ///
    /// # Errors
    /// The encoder's, which is not known to have any for such a file.
    pub fn to_file(&self) -> Result<Vec<u8>, String> {
        let encoder = Encoder::new(Endianness::Little, true, EM_X86_64);
        let count = self.segments.len() as u64;
        let mut offset = encoder.file_header_size() + count * encoder.program_header_size();
        let mut file = Vec::new();
        let header = FileHeader {
            os_abi: ELFOSABI_NONE,
            abi_version: 0,
            e_type: ET_EXEC,
            e_machine: EM_X86_64,
            e_entry: self.entry,
            e_flags: FileFlags(0),
        };
        let layout = FileHeaderLayout {
            e_phoff: encoder.file_header_size(),
            segment_num: count as u32,
            ..FileHeaderLayout::default()
        };
        encoder
            .file_header(&mut file, &header, &layout)
            .map_err(|error| error.to_string())?;
        let mut offsets = Vec::new();
        for segment in &self.segments {
            offset += (segment.address % PAGE + PAGE - offset % PAGE) % PAGE;
            offsets.push(offset);
            let header = ProgramHeader {
                p_type: PT_LOAD,
                p_flags: segment.flags,
                p_offset: offset,
                p_vaddr: segment.address,
                p_paddr: segment.address,
                p_filesz: segment.contents.len() as u64,
                p_memsz: segment.memory_bytes,
                p_align: PAGE,
            };
            encoder.program_header(&mut file, &header);
            offset += segment.contents.len() as u64;
        }
        for (segment, offset) in self.segments.iter().zip(offsets) {
            file.resize(offset as usize, 0);
            file.extend(&segment.contents);
        }
        Ok(file)
    }
}

impl Segment {
    /// One past its last byte in memory; `None` past the end of addresses.
    fn end(&self) -> Option<u64> {
        self.address.checked_add(self.memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::elf::{PF_W, PF_X};

    /// Bytes of the file header.
    const HEADER: usize = 64;

    fn program() -> Program {
        Program {
            entry: 0x40_0010,
            segments: vec![
                Segment {
                    address: 0x40_0000,
                    memory_bytes: 5000,
                    flags: PF_R | PF_X,
                    contents: vec![1; 5000],
                },
                Segment {
                    address: 0x40_2010,
                    memory_bytes: 0x3000,
                    flags: PF_R | PF_W,
                    contents: vec![2; 100],
                },
            ],
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut program = program();
        assert_eq!(
            Program::parse(&program.to_file().unwrap()),
            Ok(program.clone())
        );
        assert_eq!(program.end(), 0x40_5010);
        program.append(0x40_6000, vec![3; 9000]);
        assert_eq!(
            Program::parse(&program.to_file().unwrap()),
            Ok(program.clone())
        );
        // Offsets agree with addresses within a page: a loader may map the file.
        let file = program.to_file().unwrap();
        let header = FileHeader64::<Endianness>::parse(file.as_slice()).unwrap();
        for segment in header
            .program_headers(Endianness::Little, file.as_slice())
            .unwrap()
        {
            let endian = Endianness::Little;
            assert_eq!(
                segment.p_offset(endian) % PAGE,
                segment.p_vaddr(endian) % PAGE
            );
        }
    }

    #[test]
    fn other_files_are_refused() {
        let good = program().to_file().unwrap();
        assert!(Program::parse(b"#!/bin/sh\n").is_err());
        assert!(
            Program::parse(&good[..4000])
                .unwrap_err()
                .contains("leaves the file")
        );
        let with = |at: usize, byte: u8| {
            let mut file = good.clone();
            file[at] = byte;
            Program::parse(&file).unwrap_err()
        };
        assert!(with(16, 3).contains("fixed address")); // position independent
        assert!(with(18, 3).contains("x86-64")); // another machine
        assert!(with(HEADER, 7).contains("thread-local"));
        // The first segment's size in memory: less than in the file, then beyond the next segment.
        assert!(with(HEADER + 41, 0).contains("size in memory"));
        assert!(with(HEADER + 42, 1).contains("overlap"));
    }
}
