//! [`HostTables`]: entries of host page tables (2.2.3).

use ipc_proto::Access;

use crate::paging::{Format, access};

const PRESENT: u64 = 1;
/// Level of the table that an entry leads to, 1 to 6; 0: a leaf.
const NEXT_LEVEL: u32 = 9;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The device's access to memory snoops caches.
const COHERENT: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct HostTables;

impl Format for HostTables {
    #[inline]
    fn leaf(physical: u64, _level: u8, access: Access) -> u64 {
        let mut entry = physical | PRESENT | COHERENT;
        if access.reads() {
            entry |= READ;
        }
        if access.writes() {
            entry |= WRITE;
        }
        entry
    }

    #[inline]
    fn table(physical: u64, level: u8) -> u64 {
        // Tables of leaves of 4 KiB are level 1 here.
        physical | PRESENT | READ | WRITE | u64::from(level + 1) << NEXT_LEVEL
    }

    #[inline]
    fn child(entry: u64) -> Option<u64> {
        let table = entry & PRESENT != 0 && entry >> NEXT_LEVEL & 7 != 0;
        table.then_some(entry & ADDRESS)
    }

    #[inline]
    fn is_large(entry: u64) -> bool {
        entry & PRESENT != 0 && entry >> NEXT_LEVEL & 7 == 0
    }

    fn read(entry: u64, level: u8) -> Option<(u64, Access)> {
        let physical = entry & ADDRESS;
        let access = access(entry & READ != 0, entry & WRITE != 0)?;
        (Self::leaf(physical, level, access) == entry).then_some((physical, access))
    }
}
