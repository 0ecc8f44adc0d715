//! IO ports, and the DMA address spaces of the kernel's own IOMMU driver.

use sel4_sys::constants::label;
use sel4_sys::invocation::invoke;
use sel4_sys::{Word, abi};

use crate::error::{done, first};
use crate::{Error, IoPageTable, IoPort, IoPortControl, IoSpace, Result, Slot};

impl IoPortControl {
    /// Makes a capability for the ports `first..=last` in the slot `dest` (5.0.0: mints it from the
    /// capability to all ports; later: `X86_IOPortControl_Issue`, where a port is to be had only as long as no
    /// other capability names it, copies included).
    ///
    /// Revoking such a capability takes its copies on later kernels only: on 5.0.0 each is to be deleted.
    ///
    /// # Errors
    /// `DeleteFirst` if the slot is occupied; `RevokeFirst` (not on 5.0.0) if a port of the range is in use;
    /// `IllegalOperation` (later `InvalidArgument`) for an empty range.
    pub fn issue(self, first: u16, last: u16, dest: Slot) -> Result {
        let control = (self.0.root.cptr(), self.0.index, self.0.depth);
        done(abi::issue_io_ports(
            control,
            first,
            last,
            (dest.root.cptr(), dest.index, dest.depth),
        ))
    }
}

macro_rules! port_access {
    ($read:ident, $write:ident, $type:ty, $in:ident, $out:ident, $bits:literal) => {
        #[doc = concat!("`X86_IOPort_In", $bits, "`.")]
        ///
        /// # Errors
        /// `IllegalOperation` if a port is outside the capability's range.
        #[inline]
        pub fn $read(self, port: u16) -> Result<$type> {
            first(invoke(self.cptr(), label::$in, [port.into()], [])).map(|value| value as $type)
        }

        #[doc = concat!("`X86_IOPort_Out", $bits, "`.")]
        ///
        /// # Errors
        /// `IllegalOperation` if a port is outside the capability's range.
        #[inline]
        pub fn $write(self, port: u16, value: $type) -> Result {
            done(invoke(
                self.cptr(),
                label::$out,
                [port.into(), value.into()],
                [],
            ))
        }
    };
}

impl IoPort {
    port_access!(in8, out8, u8, X86_IO_PORT_IN8, X86_IO_PORT_OUT8, "8");
    port_access!(in16, out16, u16, X86_IO_PORT_IN16, X86_IO_PORT_OUT16, "16");
    port_access!(in32, out32, u32, X86_IO_PORT_IN32, X86_IO_PORT_OUT32, "32");
}

impl IoPageTable {
    /// `X86_IOPageTable_Map`: adds the next missing level for `address` (always three, see the kernel's
    /// `src/arch/x86/object/iospace.c`).
    ///
    /// # Errors
    /// `InvalidCapability` if this one is mapped or the space is the master capability, `DeleteFirst` if
    /// all levels are there; `Unsupported` if the kernel has no IOMMU driver.
    pub fn map(self, space: IoSpace, address: Word) -> Result {
        let label = abi::X86_IO_PAGE_TABLE_MAP.ok_or(Error::Unsupported)?;
        done(invoke(self.cptr(), label, [address], [space.cptr()]))
    }

    /// `X86_IOPageTable_Unmap`.
    ///
    /// # Errors
    /// `Unsupported` if the kernel has no IOMMU driver.
    pub fn unmap(self) -> Result {
        let label = abi::X86_IO_PAGE_TABLE_UNMAP.ok_or(Error::Unsupported)?;
        done(invoke(self.cptr(), label, [], []))
    }
}
