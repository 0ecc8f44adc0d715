//! The bundle: what `images` appends to the root task's ELF. A header, then
//! entries; everything 8-byte aligned, little-endian.
//!
//! ```text
//! 0   magic "PCBUNDLE"
//! 8   u64 total bytes
//! 16  u32 format, u32 number of entries
//! 24  entries of 48 bytes: name (32 bytes, zero-padded), u64 offset, u64 length
//! ...  contents
//! ```
//! Entry [`SYSTEM`] is the compiled description; every other entry is a program's ELF.
//!
//! **Where it lies.** seL4 5.0.0 loads a boot module as one piece from its lowest to its highest address
//! (`elf_getMemoryBounds`, `load_boot_module`), so a gap would cost memory and boot time: the bundle's segment
//! follows the root task's last segment at the next page, [`vaddr_after`]. The root task finds it behind the
//! linker's symbol `_end`. The kernel also copies *every* program header with a size, whatever its type
//! (`elf_load`): a packed image keeps `PT_LOAD` headers only.

/// Bytes of a page: the bundle's segment begins on a page of its own.
pub const PAGE: u64 = 4096;

/// Where the bundle's segment is loaded: the first page at or above `image_end`, one past the highest byte in memory
/// of the root task's other `PT_LOAD` segments (`p_vaddr + p_memsz`).
#[must_use]
pub const fn vaddr_after(image_end: u64) -> u64 {
    image_end.next_multiple_of(PAGE)
}

/// First bytes.
pub const MAGIC: [u8; 8] = *b"PCBUNDLE";
/// Format of the bundle.
pub const FORMAT: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 24;
/// Bytes of an entry.
pub const ENTRY: usize = 48;
/// Bytes of a name in an entry.
pub const NAME: usize = 32;
/// Name of the description's entry.
pub const SYSTEM: &str = "system";
/// Most entries.
pub const MAX_ENTRIES: usize = 64;

/// Names of the entries that hold the servers' programs; clients' programs have the names that the description gives.
pub mod program {
    /// The console service.
    pub const CONSOLE: &str = "console";
    /// The timer service.
    pub const TIMER: &str = "timer";
    /// Every iommu-server shard.
    pub const IOMMU: &str = "iommu-server";
    /// Every msi-server shard.
    pub const MSI: &str = "msi-server";
    /// Every pci-server shard.
    pub const PCI: &str = "pci-server";
}

/// What is wrong with a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// The first bytes are not [`MAGIC`].
    NoMagic,
    /// Written by another version of the tool.
    Format(u32),
    /// A length or offset leaves the bundle (number of the entry; [`MAX_ENTRIES`] for the header).
    OutOfRange(usize),
}

impl core::fmt::Display for BundleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoMagic => write!(f, "the image carries no bundle; build it with ./x"),
            Self::Format(found) => write!(
                f,
                "the bundle has format {found}, this root task reads {FORMAT}; rebuild with ./x"
            ),
            Self::OutOfRange(entry) => write!(
                f,
                "entry {entry} of the bundle leaves it; the image is damaged"
            ),
        }
    }
}

impl core::error::Error for BundleError {}

/// A bundle in memory, checked.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    entries: usize,
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Total length that a header claims; read it before making the slice for [`Bundle::parse`].
#[must_use]
pub fn total_bytes(header: &[u8; HEADER]) -> Option<u64> {
    (header.first_chunk() == Some(&MAGIC))
        .then(|| word(header, 8).map(u64::from_le_bytes))
        .flatten()
}

impl<'a> Bundle<'a> {
    /// Checks the header and every entry.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let header = BundleError::OutOfRange(MAX_ENTRIES);
        if word::<8>(bytes, 0) != Some(MAGIC) {
            return Err(BundleError::NoMagic);
        }
        let format = word(bytes, 16).map(u32::from_le_bytes).ok_or(header)?;
        if format != FORMAT {
            return Err(BundleError::Format(format));
        }
        let total = word(bytes, 8).map(u64::from_le_bytes).ok_or(header)?;
        let entries = word(bytes, 20).map(u32::from_le_bytes).ok_or(header)? as usize;
        if usize::try_from(total) != Ok(bytes.len()) || entries > MAX_ENTRIES {
            return Err(header);
        }
        let bundle = Self { bytes, entries };
        for entry in 0..entries {
            bundle.entry(entry).ok_or(BundleError::OutOfRange(entry))?;
        }
        Ok(bundle)
    }

    /// Entry number `index`: name and contents.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<(&'a str, &'a [u8])> {
        if index >= self.entries {
            return None;
        }
        let at = HEADER + index * ENTRY;
        let name = self.bytes.get(at..at + NAME)?;
        let end = name.iter().position(|&byte| byte == 0)?;
        let name = core::str::from_utf8(name.get(..end)?).ok()?;
        let offset = usize::try_from(u64::from_le_bytes(word(self.bytes, at + NAME)?)).ok()?;
        let length = usize::try_from(u64::from_le_bytes(word(self.bytes, at + NAME + 8)?)).ok()?;
        Some((name, self.bytes.get(offset..offset.checked_add(length)?)?))
    }

    /// The contents under a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'a [u8]> {
        (0..self.entries)
            .filter_map(|index| self.entry(index))
            .find(|(found, _)| *found == name)
            .map(|(_, contents)| contents)
    }
}
