//! [`KernelSpaces`]: the kernel's I/O spaces, for `iommu_core::iospace`.
//!
//! Each requester's capability is minted of the master once and never deleted or handed out: copies of it
//! could not be taken back (seL4 5.0.0 `src/object/objecttype.c`: I/O spaces are not derived from each other).

use hw::Sbdf;
use iommu_core::iospace::{PlaceError, Spaces};
use iommu_core::{EffectError, Slot};
use ipc_proto::Access;
use sel4::{
    CNode, CapData, Error, Frame, IoPageTable, IoSpace, ObjectType, Rights, Untyped, Window,
};
use sel4_glue::error_code;
use system::info::IoSpaceInfo;
use system::layout::slot;

/// Domain ids from here on are given to requesters; the kernel keeps the lowest for regions that firmware reserved
/// (`src/plat/pc99/machine/intel-vtd.c`, `x86KSFirstValidIODomain`). Units have 256 at least for the most part.
const FIRST_DOMAIN: u16 = 64;

/// The kernel's I/O spaces.
pub struct KernelSpaces {
    info: IoSpaceInfo,
    cnode_bits: u8,
    next_domain: u16,
}

fn refused(error: Error) -> EffectError {
    EffectError::Kernel(error_code(error))
}

impl KernelSpaces {
    /// Those of which `info` names the master; the PD's private CNode has 2^`cnode_bits` slots.
    pub const fn new(info: IoSpaceInfo, cnode_bits: u8) -> Self {
        Self {
            info,
            cnode_bits,
            next_domain: FIRST_DOMAIN,
        }
    }

    fn slot(&self, number: Slot) -> sel4::Slot {
        CNode::at(slot::CNODE).slot_at(number.into(), self.cnode_bits)
    }
}

impl Spaces for KernelSpaces {
    fn open(&mut self, requester: Sbdf, into: Slot) -> Result<(), EffectError> {
        if requester.segment() != 0 {
            // The kernel's requester ids have no segment.
            return Err(refused(Error::RangeError));
        }
        let data = CapData::io_space(self.next_domain, requester.requester_id());
        let target = self.slot(into);
        target
            .mint_from(self.slot(self.info.master), Rights::ALL, data)
            .map_err(refused)?;
        self.next_domain = self.next_domain.saturating_add(1);
        Ok(())
    }

    fn add_table(&mut self, space: Slot, iova: u64, into: Slot) -> Result<(), EffectError> {
        let window = Window::of(CNode::at(slot::CNODE), into.into(), 1);
        Untyped::at(self.info.tables.slot.into())
            .retype(ObjectType::IoPageTable, window)
            .map_err(refused)?;
        let mapped = IoPageTable::at(into.into()).map(IoSpace::at(space.into()), iova);
        mapped.map_err(|error| {
            // It is mapped nowhere; its memory comes back when the untyped has no children.
            let _ = self.slot(into).delete();
            refused(error)
        })
    }

    fn place(
        &mut self,
        space: Slot,
        frame: Slot,
        copy: Slot,
        iova: u64,
        access: Access,
    ) -> Result<(), PlaceError> {
        let target = self.slot(copy);
        target
            .copy_from(self.slot(frame), Rights::READ_WRITE)
            .map_err(|error| PlaceError::Refused(refused(error)))?;
        let rights = match access {
            Access::Read => Rights::READ,
            Access::Write => Rights::WRITE,
            Access::ReadWrite => Rights::READ_WRITE,
        };
        let mapped = Frame::at(copy.into()).map_io(IoSpace::at(space.into()), rights, iova);
        mapped.map_err(|error| {
            // Mapped nowhere.
            let _ = target.delete();
            match error {
                Error::FailedLookup => PlaceError::NoTable,
                error => PlaceError::Refused(refused(error)),
            }
        })
    }

    fn take_away(&mut self, copy: Slot) -> Result<(), EffectError> {
        Frame::at(copy.into()).unmap().map_err(refused)?;
        self.slot(copy).delete().map_err(refused)
    }
}
