//! seL4 13 to 16 without MCS. Sources: `libsel4/mode_include/64/sel4/shared_types.bf`,
//! `libsel4/include/sel4/bootinfo_types.h`, `libsel4/include/interfaces/object-api.xml`.

use super::TcbParameters;
use crate::bootinfo::Layout;
use crate::constants::{config, label, object};
use crate::invocation::{Outcome, invoke};
use crate::{CPtr, Word};

/// Object type of a 1 GiB page, where the kernel has those.
pub const HUGE_PAGE: Option<Word> = object::opt::HUGE_PAGE;
/// Object type of an IOMMU page table, where the kernel drives the IOMMU.
pub const IO_PAGE_TABLE: Option<Word> = object::opt::IO_PAGE_TABLE;
/// Label of `X86_IOPageTable_Map`.
pub const X86_IO_PAGE_TABLE_MAP: Option<Word> = label::opt::X86_IO_PAGE_TABLE_MAP;
/// Label of `X86_IOPageTable_Unmap`.
pub const X86_IO_PAGE_TABLE_UNMAP: Option<Word> = label::opt::X86_IO_PAGE_TABLE_UNMAP;
/// Label of `X86_Page_MapIO`.
pub const X86_PAGE_MAP_IO: Option<Word> = label::opt::X86_PAGE_MAP_IO;

/// Registers of `TCB_{Read,Write}Registers`: 18 general ones, FS base and GS base.
pub const USER_CONTEXT_WORDS: usize = 20;

/// All fields are aligned words; the TSC frequency has moved to the extra boot information.
pub const BOOTINFO: Layout = Layout {
    cnode_bits_offset: 136,
    cnode_bits_is_byte: false,
    domain_offset: 144,
    tsc_mhz_offset: None,
    untyped_offset: 152,
    list_offset: 168,
    entry_bytes: 16,
    entry_size_bits_offset: 8,
    entry_device_offset: 9,
    max_untypeds: config::MAX_NUM_BOOTINFO_UNTYPED_CAPS,
    root_cnode_bits: config::ROOT_CNODE_SIZE_BITS,
    max_nodes: config::MAX_NUM_NODES,
};

/// The interface's bits are this kernel's own.
#[inline(always)]
pub const fn rights(bits: Word) -> Word {
    bits & 0xf
}

/// A 58-bit guard above its size.
#[inline(always)]
pub const fn guard(guard: Word, size: u8) -> Word {
    guard << 6 | (size as Word & 63)
}

/// `IOPortControl_Issue`; ranges are exclusive.
pub fn issue_io_ports(
    (_, control, _): (CPtr, Word, u8),
    first: u16,
    last: u16,
    (root, index, depth): (CPtr, Word, u8),
) -> Outcome {
    invoke(
        control,
        label::X86_IO_PORT_CONTROL_ISSUE,
        [
            Word::from(first),
            Word::from(last),
            index,
            Word::from(depth),
        ],
        [root],
    )
}

/// Two calls: the spaces, then both priorities on the authority of a thread.
pub fn configure_tcb(tcb: CPtr, p: &TcbParameters) -> Outcome {
    invoke(
        tcb,
        label::TCB_CONFIGURE,
        [p.fault_endpoint, p.cspace_guard, 0, p.ipc_buffer],
        [p.cspace, p.vspace, p.ipc_buffer_frame],
    )?;
    let priorities = [
        Word::from(p.max_controlled_priority),
        Word::from(p.priority),
    ];
    invoke(tcb, label::TCB_SET_SCHED_PARAMS, priorities, [p.authority])
}

/// On the authority of the named thread.
pub fn set_priority(tcb: CPtr, authority: CPtr, priority: u8) -> Outcome {
    invoke(
        tcb,
        label::TCB_SET_PRIORITY,
        [Word::from(priority)],
        [authority],
    )
}

/// Answers in every case.
#[inline(always)]
pub fn unmap_page(frame: CPtr) -> Outcome {
    invoke(frame, label::X86_PAGE_UNMAP, [], [])
}

#[cfg(test)]
mod tests {
    use super::super::{RIGHT_GRANT_REPLY, RIGHT_READ, RIGHT_WRITE};
    use super::*;

    #[test]
    fn a_caller_gets_the_right_that_this_kernel_asks_for() {
        assert_eq!(rights(RIGHT_WRITE | RIGHT_GRANT_REPLY), 1 | 8);
        assert_eq!(rights(RIGHT_WRITE | RIGHT_READ), 3);
        assert_eq!(rights(Word::MAX), 15);
    }

    #[test]
    fn a_guard_is_where_this_kernel_reads_it() {
        assert_eq!(guard(0, 52), 52);
        assert_eq!(guard(5, 52), 5 << 6 | 52);
    }
}
