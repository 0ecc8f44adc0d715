//! A program's ELF, checked: [`Image`] says which pages it needs, what lies in
//! them and where it starts.
//!
//! The bundle comes from our own tool, but a damaged image must end in a
//! message, not in a root task that reads past a slice: every number is checked
//! once, here. No page is writable and executable.

use alloc::vec::Vec;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use system::layout::va;
use thiserror::Error;

use crate::region::{PAGE, Region};

/// What a PD may do with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
}

/// A segment of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First address, and where it ends in memory.
    pub region: Region,
    /// Where its contents are in the file.
    pub file: (usize, usize),
    /// What may be done with it.
    pub access: Access,
}

impl Segment {
    /// Bytes that the file has for it; the rest is zeros.
    #[must_use]
    pub const fn filled(&self) -> u64 {
        self.file.1.saturating_sub(self.file.0) as u64
    }

    /// The part of the file that belongs on the page at `page`: offset on the page, and range in the file.
    #[must_use]
    pub fn on_page(&self, page: u64) -> Option<(usize, core::ops::Range<usize>)> {
        let filled = Region::sized(self.region.start(), self.filled())?;
        let part = filled.intersection(Region::sized(page, PAGE)?)?;
        let first = self
            .file
            .0
            .checked_add(usize::try_from(part.start() - filled.start()).ok()?)?;
        let length = usize::try_from(part.bytes()).ok()?;
        Some((
            usize::try_from(part.start() - page).ok()?,
            first..first.checked_add(length)?,
        ))
    }
}

/// A program that can be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// Address of the first instruction.
    pub entry: u64,
    /// Segments in ascending order, no two on one page.
    pub segments: Vec<Segment>,
}

/// What is wrong with a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ImageError {
    /// It is no ELF file, or its headers leave the file.
    #[error("no readable ELF file")]
    NotElf,
    /// It is no static executable for x86_64.
    #[error("not a static x86_64 executable")]
    WrongKind,
    /// Nothing is loaded.
    #[error("nothing to load")]
    Empty,
    /// A segment's contents leave the file, or its file part is larger than its memory.
    #[error("segment {0} does not fit the file")]
    BadSegment(usize),
    /// A segment lies outside the part of the address space that is for images.
    #[error("segment {0} is outside {low:#x}..{high:#x}", low = va::IMAGE, high = va::INFO)]
    OutOfPlace(usize),
    /// A segment would be writable and executable, or not readable.
    #[error("segment {0} is not readable, or both writable and executable")]
    BadAccess(usize),
    /// Two segments lie on one page, or out of order.
    #[error("segment {0} shares a page with the one before it")]
    SharedPage(usize),
    /// The entry point is in no executable segment.
    #[error("entry point {0:#x} is in no executable segment")]
    BadEntry(u64),
}

impl Image {
    /// Checks the program in `bytes`.
    ///
    /// # Errors
    /// The first rule that it breaks; segments are numbered as in the file, only those that are loaded.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let file =
            ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|_| ImageError::NotElf)?;
        if file.ehdr.class != elf::file::Class::ELF64 {
            return Err(ImageError::WrongKind);
        }
        if file.ehdr.e_machine != EM_X86_64 || file.ehdr.e_type != ET_EXEC {
            return Err(ImageError::WrongKind);
        }
        let headers = file.segments().ok_or(ImageError::Empty)?;
        if headers
            .iter()
            .any(|header| matches!(header.p_type, PT_DYNAMIC | PT_INTERP))
        {
            return Err(ImageError::WrongKind);
        }
        let mut segments: Vec<Segment> = Vec::new();
        let loaded = headers
            .iter()
            .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0);
        for (index, header) in loaded.enumerate() {
            let bad = ImageError::BadSegment(index);
            if header.p_filesz > header.p_memsz {
                return Err(bad);
            }
            let first = usize::try_from(header.p_offset).map_err(|_| bad)?;
            let length = usize::try_from(header.p_filesz).map_err(|_| bad)?;
            let last = first
                .checked_add(length)
                .filter(|last| *last <= bytes.len())
                .ok_or(bad)?;
            let region = Region::sized(header.p_vaddr, header.p_memsz).ok_or(bad)?;
            if region.start() < va::IMAGE || region.end() > va::INFO {
                return Err(ImageError::OutOfPlace(index));
            }
            let access = match (
                header.p_flags & PF_R != 0,
                header.p_flags & PF_W != 0,
                header.p_flags & PF_X != 0,
            ) {
                (true, false, false) => Access::Read,
                (true, true, false) => Access::ReadWrite,
                (true, false, true) => Access::ReadExecute,
                _ => return Err(ImageError::BadAccess(index)),
            };
            if segments
                .last()
                .is_some_and(|before| before.region.pages().end() > region.pages().start())
            {
                return Err(ImageError::SharedPage(index));
            }
            segments.push(Segment {
                region,
                file: (first, last),
                access,
            });
        }
        if segments.is_empty() {
            return Err(ImageError::Empty);
        }
        let entry = file.ehdr.e_entry;
        let executable = |segment: &Segment| {
            segment.access == Access::ReadExecute
                && segment.region.start() <= entry
                && entry < segment.region.end()
        };
        if !segments.iter().any(executable) {
            return Err(ImageError::BadEntry(entry));
        }
        Ok(Self { entry, segments })
    }

    /// Where a restarted PD finds what its writable segment held at the start: the address of that segment's first byte in
    /// the pages at [`va::KEPT`].
    #[must_use]
    pub fn kept(&self) -> u64 {
        let writable = |segment: &&Segment| segment.access == Access::ReadWrite;
        let first = self.segments.iter().find(writable);
        va::KEPT + first.map_or(0, |segment| segment.region.start() % PAGE)
    }

    /// Pages of 4 KiB that it takes.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.region.pages().bytes() / PAGE)
            .sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// (flags, vaddr, memory bytes, contents)
    pub(crate) type Part = (u32, u64, u64, Vec<u8>);

    /// A small ELF file, written here by hand from the ELF specification.
    pub(crate) fn elf(entry: u64, parts: &[Part]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(2u16.to_le_bytes());
        file.extend(62u16.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(entry.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, parts.len() as u16, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = 64 + 56 * parts.len() as u64;
        for (flags, vaddr, memory, contents) in parts {
            file.extend(1u32.to_le_bytes());
            file.extend(flags.to_le_bytes());
            for word in [offset, *vaddr, *vaddr, contents.len() as u64, *memory, 4096] {
                file.extend(word.to_le_bytes());
            }
            offset += contents.len() as u64;
        }
        for (.., contents) in parts {
            file.extend(contents);
        }
        file
    }

    fn good() -> Vec<Part> {
        vec![
            (4, 0x40_0000, 0x1800, vec![1; 0x1800]),
            (5, 0x40_2000, 0x800, vec![2; 0x800]),
            (6, 0x40_3100, 0x5000, vec![3; 0x1000]),
        ]
    }

    #[test]
    fn segments_say_what_belongs_on_each_page() {
        let file = elf(0x40_2010, &good());
        let image = Image::parse(&file).unwrap();
        assert_eq!(image.pages(), 2 + 1 + 6);
        let data = image.segments[2];
        assert_eq!(data.access, Access::ReadWrite);
        let (at, range) = data.on_page(0x40_3000).unwrap();
        assert_eq!((at, range.len()), (0x100, 0xf00));
        assert!(file[range].iter().all(|byte| *byte == 3));
        let (at, range) = data.on_page(0x40_4000).unwrap();
        assert_eq!((at, range.len()), (0, 0x100));
        assert_eq!(data.on_page(0x40_5000), None, "bss has no contents");
    }

    #[test]
    fn a_bad_program_is_refused_with_its_rule() {
        let with = |change: &dyn Fn(&mut Vec<Part>)| {
            let mut parts = good();
            change(&mut parts);
            Image::parse(&elf(0x40_2010, &parts)).unwrap_err()
        };
        assert_eq!(Image::parse(b"no elf"), Err(ImageError::NotElf));
        assert_eq!(
            Image::parse(&elf(0x40_0000, &good())),
            Err(ImageError::BadEntry(0x40_0000))
        );
        assert_eq!(Image::parse(&elf(0x40_0000, &[])), Err(ImageError::Empty));
        assert_eq!(with(&|parts| parts[1].0 = 7), ImageError::BadAccess(1));
        assert_eq!(with(&|parts| parts[1].0 = 1), ImageError::BadAccess(1));
        assert_eq!(
            with(&|parts| parts[1].1 = 0x40_1900),
            ImageError::SharedPage(1)
        );
        assert_eq!(
            with(&|parts| parts[0].1 = 0x30_0000),
            ImageError::OutOfPlace(0)
        );
        assert_eq!(
            with(&|parts| parts[2].2 = u64::MAX - 5),
            ImageError::BadSegment(2)
        );
        assert_eq!(
            with(&|parts| parts[2].2 = va::INFO),
            ImageError::OutOfPlace(2)
        );
        assert_eq!(with(&|parts| parts[2].2 = 0x10), ImageError::BadSegment(2));
        let whole = elf(0x40_2010, &good());
        assert_eq!(
            Image::parse(&whole[..whole.len() - 1]),
            Err(ImageError::BadSegment(2))
        );
        let mut other = whole.clone();
        other[18] = 40;
        assert_eq!(Image::parse(&other), Err(ImageError::WrongKind));
        let mut shared = whole;
        shared[16] = 3;
        assert_eq!(Image::parse(&shared), Err(ImageError::WrongKind));
    }

    proptest! {
        /// Damage never panics, and what is accepted stays inside the file.
        #[test]
        fn damage_is_an_error_or_harmless(changes in proptest::collection::vec((0usize..300, any::<u8>()), 1..6)) {
            let mut file = elf(0x40_2010, &good());
            for (at, value) in changes {
                file[at] = value;
            }
            if let Ok(image) = Image::parse(&file) {
                for segment in &image.segments {
                    for page in (segment.region.pages().start()..segment.region.pages().end()).step_by(4096) {
                        if let Some((at, range)) = segment.on_page(page) {
                            prop_assert!(at + range.len() <= 4096);
                            prop_assert!(file.get(range).is_some());
                        }
                    }
                }
            }
        }
    }
}
