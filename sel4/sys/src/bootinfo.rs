//! What the kernel tells the root task, read from bytes and checked before anything believes it.
//!
//! A root task compiled for another kernel or configuration reads nonsense here, and acting on it destroys
//! the system in ways that are hard to find. So every field is held against what it can be, and the first
//! that makes no sense is named in a [`BootInfoError`]. No `unsafe`, no kernel: runs on the host.
//!
//! Source: `libsel4/include/sel4/bootinfo_types.h`. The layouts are in [`crate::abi`].

use core::fmt;
use core::ops::Range;

use crate::Word;

pub mod extra;

pub use extra::{ExtraChunk, extra_chunks};

/// Slots of the initial CSpace with a fixed meaning.
pub mod slot {
    /// The root task's own TCB.
    pub const TCB: u64 = 1;
    /// Its root CNode.
    pub const CNODE: u64 = 2;
    /// Its VSpace.
    pub const VSPACE: u64 = 3;
    /// Authority over interrupts.
    pub const IRQ_CONTROL: u64 = 4;
    /// Authority over address space identifiers.
    pub const ASID_CONTROL: u64 = 5;
    /// An ASID pool.
    pub const ASID_POOL: u64 = 6;
    /// 5.0.0: all IO ports. Later: the control capability that issues ranges.
    pub const IO_PORTS: u64 = 7;
    /// Authority over the kernel's IOMMU driver; null when it has none.
    pub const IO_SPACE: u64 = 8;
    /// The boot information's frame.
    pub const BOOTINFO_FRAME: u64 = 9;
    /// The IPC buffer's frame.
    pub const IPC_BUFFER: u64 = 10;
    /// Authority over scheduling domains.
    pub const DOMAIN: u64 = 11;
}

/// Bytes of the boot information itself; the extra part follows on the next page.
pub const FRAME_BYTES: usize = 4096;

const FIRST_ENTRY_SLOT: Word = slot::DOMAIN + 1;
const USER_TOP: Word = 0x0000_7fff_ffff_f000;
const IPC_BUFFER_BYTES: Word = 1024;
const SIZE_BITS: core::ops::RangeInclusive<u8> = 4..=47;
/// The kernel aligns memory as it sees it, at physical addresses shifted by 2^39: larger untypeds than that (of
/// device memory) are aligned no better.
const ALIGNED_BITS: u8 = 39;
const EXTRA_BYTES_MAX: Word = 16 << 20;
/// What a kernel writes for the levels if it was built without its IOMMU driver (`init_sys_state`).
const NO_IOMMU_DRIVER: Word = Word::MAX;

/// Where one kernel puts the fields, and what its configuration allows in them.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Size of the initial CNode.
    pub cnode_bits_offset: usize,
    /// The field above is one byte instead of a word.
    pub cnode_bits_is_byte: bool,
    /// Scheduling domain of the root task.
    pub domain_offset: usize,
    /// Frequency of the time stamp counter in MHz, where it is in this structure.
    pub tsc_mhz_offset: Option<usize>,
    /// Slots of the untyped capabilities.
    pub untyped_offset: usize,
    /// First entry of the list that describes them.
    pub list_offset: usize,
    /// Bytes from one entry to the next.
    pub entry_bytes: usize,
    /// Size field in an entry (a byte).
    pub entry_size_bits_offset: usize,
    /// Device flag in an entry (a byte).
    pub entry_device_offset: usize,
    /// Entries the list has room for (`MAX_NUM_BOOTINFO_UNTYPED_CAPS`).
    pub max_untypeds: Word,
    /// Size of the initial CNode this kernel was configured with (`ROOT_CNODE_SIZE_BITS`).
    pub root_cnode_bits: Word,
    /// Cores this kernel was configured for (`MAX_NUM_NODES`).
    pub max_nodes: Word,
}

/// A field that makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootInfoError {
    /// The field, as the kernel's header calls it.
    pub field: &'static str,
    /// Its number in a list, where it is in one.
    pub index: Option<usize>,
    /// What it holds.
    pub value: Word,
    /// What was expected of it.
    pub rule: &'static str,
}

impl fmt::Display for BootInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot information: {}", self.field)?;
        if let Some(index) = self.index {
            write!(f, "[{index}]")?;
        }
        write!(
            f,
            " is {:#x}, but {}; was the root task built for this kernel?",
            self.value, self.rule
        )
    }
}

impl core::error::Error for BootInfoError {}

/// One untyped capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UntypedDescriptor {
    /// Slot of the capability.
    pub slot: Word,
    /// Physical address of its memory.
    pub physical: Word,
    /// Size, log2 of bytes.
    pub size_bits: u8,
    /// RAM or not.
    pub kind: MemoryKind,
}

/// What an untyped's memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryKind {
    /// RAM the kernel may build objects in.
    Ram,
    /// Anything else: device registers, firmware tables. Only frames and smaller untypeds come out of it.
    Device,
}

/// The boot information, checked. Borrows the bytes for the untyped list.
#[derive(Clone, Debug)]
pub struct BootInfo<'a> {
    /// Bytes of extra boot information that start at [`FRAME_BYTES`].
    pub extra_bytes: usize,
    /// The core this root task runs on.
    pub node: Word,
    /// Cores the kernel started.
    pub nodes: Word,
    /// Levels of the kernel's IOMMU page tables; 0 when the kernel does not drive the IOMMU.
    pub io_page_table_levels: Word,
    /// Address of the IPC buffer.
    pub ipc_buffer: Word,
    /// Slots without a capability.
    pub empty: Range<Word>,
    /// Frames of the root task's image, in the order of their addresses.
    pub user_image_frames: Range<Word>,
    /// Page tables of the root task's image.
    pub user_image_paging: Range<Word>,
    /// Frames of the extra boot information.
    pub extra_frames: Range<Word>,
    /// Size of the initial CNode, log2 of slots.
    pub cnode_bits: u8,
    /// Scheduling domain of the root task.
    pub domain: Word,
    /// Frequency of the time stamp counter in MHz, if told here.
    pub tsc_mhz: Option<Word>,
    /// Slots of the untyped capabilities.
    pub untyped: Range<Word>,
    list: &'a [u8],
    layout: Layout,
}

impl<'a> BootInfo<'a> {
    /// Reads and checks the boot information in `bytes`, which must be the whole frame.
    ///
    /// # Errors
    /// The first field that no working kernel of this layout would write.
    pub fn parse(bytes: &'a [u8], layout: &Layout) -> Result<Self, BootInfoError> {
        let word = |offset: usize| -> Result<Word, BootInfoError> {
            bytes
                .get(offset..)
                .and_then(<[u8]>::first_chunk)
                .map(|chunk| Word::from_le_bytes(*chunk))
                .ok_or(error(
                    "(length)",
                    bytes.len() as Word,
                    "the frame is shorter than its fields",
                ))
        };

        let nodes = word(16)?;
        check(
            nodes >= 1 && nodes <= layout.max_nodes,
            "numNodes",
            nodes,
            "the kernel is configured for fewer, or it is 0",
        )?;
        let node = word(8)?;
        check(node < nodes, "nodeID", node, "it must be below numNodes")?;

        let cnode_bits = if layout.cnode_bits_is_byte {
            word(layout.cnode_bits_offset)? & 0xff
        } else {
            word(layout.cnode_bits_offset)?
        };
        check(
            cnode_bits == layout.root_cnode_bits,
            "initThreadCNodeSizeBits",
            cnode_bits,
            "the kernel is configured otherwise",
        )?;
        check(
            (5..=32).contains(&cnode_bits),
            "initThreadCNodeSizeBits",
            cnode_bits,
            "a CNode cannot have that size",
        )?;
        let slots = 1 << cnode_bits;

        let region = |name: &'static str, offset: usize| -> Result<Range<Word>, BootInfoError> {
            let (start, end) = (word(offset)?, word(offset + 8)?);
            check(start <= end, name, start, "it starts after its end")?;
            check(end <= slots, name, end, "it ends outside the initial CNode")?;
            check(
                start == end || start >= FIRST_ENTRY_SLOT,
                name,
                start,
                "it covers the slots with a fixed meaning",
            )?;
            Ok(start..end)
        };
        let ipc_buffer = word(32)?;
        check(
            ipc_buffer.is_multiple_of(IPC_BUFFER_BYTES),
            "ipcBuffer",
            ipc_buffer,
            "it must be 1024-byte aligned",
        )?;
        check(
            ipc_buffer != 0 && ipc_buffer < USER_TOP,
            "ipcBuffer",
            ipc_buffer,
            "it is no user address",
        )?;

        let extra = word(0)?;
        check(
            extra <= EXTRA_BYTES_MAX,
            "extraLen",
            extra,
            "that much cannot be",
        )?;
        let levels = match word(24)? {
            NO_IOMMU_DRIVER => 0,
            levels => levels,
        };
        check(
            levels <= 6,
            "numIOPTLevels",
            levels,
            "no IOMMU has so many levels",
        )?;
        let domain = word(layout.domain_offset)?;
        check(
            domain < 256,
            "initThreadDomain",
            domain,
            "domains are numbered in a byte",
        )?;

        let untyped = region("untyped", layout.untyped_offset)?;
        let count = untyped.end - untyped.start;
        check(
            count >= 1 && count <= layout.max_untypeds,
            "untyped",
            count,
            "so many do not fit the list, or there are none",
        )?;
        let empty = region("empty", 40)?;
        check(
            empty.start < empty.end,
            "empty",
            empty.start,
            "no slot is left",
        )?;
        let list_bytes = (count as usize).saturating_mul(layout.entry_bytes);
        let list = bytes
            .get(layout.list_offset..)
            .and_then(|list| list.get(..list_bytes))
            .ok_or(error(
                "untypedList",
                count,
                "the list goes beyond the frame",
            ))?;

        let info = Self {
            extra_bytes: extra as usize,
            node,
            nodes,
            io_page_table_levels: levels,
            ipc_buffer,
            empty,
            user_image_frames: region("userImageFrames", 72)?,
            user_image_paging: region("userImagePaging", 88)?,
            extra_frames: region("extraBIPages", 120)?,
            cnode_bits: cnode_bits as u8,
            domain,
            tsc_mhz: layout.tsc_mhz_offset.map(word).transpose()?,
            untyped,
            list,
            layout: *layout,
        };
        info.check_regions()?;
        info.check_untypeds()?;
        Ok(info)
    }

    /// The untyped capabilities in the order of their slots.
    pub fn untypeds(&self) -> impl Iterator<Item = UntypedDescriptor> + '_ {
        let slots = self.untyped.clone();
        slots
            .zip(self.list.chunks_exact(self.layout.entry_bytes))
            .filter_map(|(slot, entry)| {
                let entry = Entry::read(entry, &self.layout)?;
                let kind = if entry.device == 0 {
                    MemoryKind::Ram
                } else {
                    MemoryKind::Device
                };
                Some(UntypedDescriptor {
                    slot,
                    physical: entry.physical,
                    size_bits: entry.size_bits,
                    kind,
                })
            })
    }

    /// The regions are given in the order of the kernel's allocations, so only overlaps are wrong.
    fn check_regions(&self) -> Result<(), BootInfoError> {
        let others = [
            ("userImageFrames", &self.user_image_frames),
            ("userImagePaging", &self.user_image_paging),
            ("extraBIPages", &self.extra_frames),
            ("untyped", &self.untyped),
        ];
        for (name, region) in others {
            let overlaps = region.start < self.empty.end && self.empty.start < region.end;
            check(
                !overlaps || region.is_empty(),
                name,
                region.start,
                "it overlaps the empty slots",
            )?;
        }
        Ok(())
    }

    fn check_untypeds(&self) -> Result<(), BootInfoError> {
        let entries = self.list.chunks_exact(self.layout.entry_bytes);
        for (index, entry) in entries.enumerate() {
            let at = |field, value, rule| BootInfoError {
                field,
                index: Some(index),
                value,
                rule,
            };
            let entry = Entry::read(entry, &self.layout).ok_or(at(
                "untypedList",
                index as Word,
                "the entry is cut short",
            ))?;
            let size = entry.size_bits;
            if !SIZE_BITS.contains(&size) {
                return Err(at(
                    "untypedList.sizeBits",
                    size.into(),
                    "an untyped has 4 to 47 bits",
                ));
            }
            if entry.device > 1 {
                return Err(at(
                    "untypedList.isDevice",
                    entry.device.into(),
                    "it must be 0 or 1",
                ));
            }
            if !entry.physical.is_multiple_of(1 << size.min(ALIGNED_BITS)) {
                return Err(at(
                    "untypedList.paddr",
                    entry.physical,
                    "it must be aligned to its size",
                ));
            }
        }
        Ok(())
    }
}

struct Entry {
    physical: Word,
    size_bits: u8,
    device: u8,
}

impl Entry {
    fn read(bytes: &[u8], layout: &Layout) -> Option<Self> {
        Some(Self {
            physical: Word::from_le_bytes(*bytes.first_chunk()?),
            size_bits: *bytes.get(layout.entry_size_bits_offset)?,
            device: *bytes.get(layout.entry_device_offset)?,
        })
    }
}

const fn error(field: &'static str, value: Word, rule: &'static str) -> BootInfoError {
    BootInfoError {
        field,
        index: None,
        value,
        rule,
    }
}

fn check(
    holds: bool,
    field: &'static str,
    value: Word,
    rule: &'static str,
) -> Result<(), BootInfoError> {
    if holds {
        Ok(())
    } else {
        Err(error(field, value, rule))
    }
}

#[cfg(test)]
#[path = "bootinfo_tests.rs"]
mod tests;
