//! Extra boot information: chunks that the kernel puts on the pages after the boot information's frame.
//!
//! 5.0.0 tells nothing of use there; later kernels tell the ACPI root pointer, the memory map and the frequency of
//! the time stamp counter. So common code looks here first and then for itself. Source: `libsel4/include/sel4/bootinfo_types.h`.

use crate::Word;

/// Space without content.
pub const PADDING: Word = 0;
/// VESA display mode.
pub const X86_VBE: Word = 1;
/// Multiboot memory map.
pub const X86_MULTIBOOT_MEMORY_MAP: Word = 2;
/// The ACPI root pointer (RSDP), a copy: 36 bytes, of which only 20 count if it is of ACPI 1.0.
pub const X86_ACPI_RSDP: Word = 3;
/// Frame buffer.
pub const X86_FRAMEBUFFER: Word = 4;
/// Frequency of the time stamp counter, MHz in 32 bits.
pub const X86_TSC_MHZ: Word = 5;

/// A piece of extra boot information.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtraChunk<'a> {
    /// What it is, one of the identifiers in this module.
    pub id: Word,
    /// Its content, without the header.
    pub content: &'a [u8],
}

/// Walks the extra boot information. Ends at the first chunk whose length cannot be right.
pub fn extra_chunks(mut bytes: &[u8]) -> impl Iterator<Item = ExtraChunk<'_>> {
    const HEADER: usize = 16;
    core::iter::from_fn(move || {
        let id = Word::from_le_bytes(*bytes.first_chunk()?);
        let length = Word::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        let content = bytes.get(HEADER..length)?;
        bytes = bytes.get(length..)?;
        Some(ExtraChunk { id, content })
    })
}
