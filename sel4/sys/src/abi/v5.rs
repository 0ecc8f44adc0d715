//! seL4 5.0.0. Sources: `libsel4/include/sel4/{types_64.bf, bootinfo_types.h}`, `src/object/tcb.c`.

use super::TcbParameters;
use crate::bootinfo::Layout;
use crate::constants::{config, label, object};
use crate::invocation::{Outcome, invoke};
use crate::{CPtr, Word};

/// Object type of a 1 GiB page, where the kernel has those.
pub const HUGE_PAGE: Option<Word> = Some(object::HUGE_PAGE);
/// Object type of an IOMMU page table, where the kernel drives the IOMMU.
pub const IO_PAGE_TABLE: Option<Word> = Some(object::IO_PAGE_TABLE);
/// Label of `X86_IOPageTable_Map`.
pub const X86_IO_PAGE_TABLE_MAP: Option<Word> = Some(label::X86_IO_PAGE_TABLE_MAP);
/// Label of `X86_IOPageTable_Unmap`.
pub const X86_IO_PAGE_TABLE_UNMAP: Option<Word> = Some(label::X86_IO_PAGE_TABLE_UNMAP);
/// Label of `X86_Page_MapIO`.
pub const X86_PAGE_MAP_IO: Option<Word> = Some(label::X86_PAGE_MAP_IO);

/// Registers of `TCB_{Read,Write}Registers`: 18 general ones and the FS base.
pub const USER_CONTEXT_WORDS: usize = 19;

/// A packed structure: one byte for the CNode size shifts all that follows.
pub const BOOTINFO: Layout = Layout {
    cnode_bits_offset: 136,
    cnode_bits_is_byte: true,
    domain_offset: 137,
    tsc_mhz_offset: Some(145),
    untyped_offset: 153,
    list_offset: 169,
    entry_bytes: 12,
    entry_size_bits_offset: 10,
    entry_device_offset: 11,
    max_untypeds: config::MAX_NUM_BOOTINFO_UNTYPED_CAPS,
    root_cnode_bits: config::ROOT_CNODE_SIZE_BITS,
    max_nodes: config::MAX_NUM_NODES,
};

/// Grant stands for grant-reply too: without it a caller is refused.
#[inline(always)]
pub const fn rights(bits: Word) -> Word {
    let grant = if bits & super::RIGHT_GRANT_REPLY != 0 {
        super::RIGHT_GRANT
    } else {
        0
    };
    bits & (super::RIGHT_WRITE | super::RIGHT_READ | super::RIGHT_GRANT) | grant
}

/// Type bit 31, an 18-bit guard from bit 8, its size from bit 2.
#[inline(always)]
pub const fn guard(guard: Word, size: u8) -> Word {
    1 << 31 | (guard & 0x3_ffff) << 8 | (size as Word & 63) << 2
}

/// There is no control capability: capability 7 is all ports, and a range is minted from it.
pub fn issue_io_ports(
    (source_root, source_index, source_depth): (CPtr, Word, u8),
    first: u16,
    last: u16,
    (root, index, depth): (CPtr, Word, u8),
) -> Outcome {
    let range = Word::from(first) << 16 | Word::from(last);
    let depths = (Word::from(depth), Word::from(source_depth));
    let all = rights(Word::MAX);
    invoke(
        root,
        label::CNODE_MINT,
        [index, depths.0, source_index, depths.1, all, range],
        [source_root],
    )
}

/// One call; the caller's own maximum controlled priority is the authority.
pub fn configure_tcb(tcb: CPtr, p: &TcbParameters) -> Outcome {
    let priorities = Word::from(p.max_controlled_priority) << 8 | Word::from(p.priority);
    invoke(
        tcb,
        label::TCB_CONFIGURE,
        [
            p.fault_endpoint,
            priorities,
            p.cspace_guard,
            0,
            p.ipc_buffer,
        ],
        [p.cspace, p.vspace, p.ipc_buffer_frame],
    )
}

/// The caller's own maximum controlled priority is the authority.
pub fn set_priority(tcb: CPtr, _authority: CPtr, priority: u8) -> Outcome {
    invoke(tcb, label::TCB_SET_PRIORITY, [Word::from(priority)], [])
}

/// Of a frame that is not mapped this kernel forgets to answer (`src/arch/x86/kernel/vspace.c`, `X86PageUnmap`):
/// the registers stay as they were, and the invocation's own label comes back as the error.
#[inline(always)]
pub fn unmap_page(frame: CPtr) -> Outcome {
    match invoke(frame, label::X86_PAGE_UNMAP, [], []) {
        Err(label::X86_PAGE_UNMAP) => Ok([0; 4]),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RIGHT_GRANT_REPLY, RIGHT_READ, RIGHT_WRITE};
    use super::*;

    #[test]
    fn a_caller_gets_the_right_that_this_kernel_asks_for() {
        assert_eq!(rights(RIGHT_WRITE | RIGHT_GRANT_REPLY), 1 | 4);
        assert_eq!(rights(RIGHT_WRITE | RIGHT_READ), 3);
        assert_eq!(rights(Word::MAX), 7);
    }

    #[test]
    fn a_guard_is_where_this_kernel_reads_it() {
        assert_eq!(guard(0, 52), 1 << 31 | 52 << 2);
        assert_eq!(guard(5, 52), 1 << 31 | 5 << 8 | 52 << 2);
    }
}
