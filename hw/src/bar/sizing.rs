//! How one base address register is sized: [`size_register`].

use crate::{ConfigSpace, Sbdf};

/// A register before, while and after ones were written to it.
#[derive(Clone, Copy)]
pub(super) struct Sized32 {
    pub(super) before: u32,
    pub(super) between: u32,
    pub(super) after: u32,
}

/// Writes `ones` to a register and puts its value back.
#[inline(always)]
pub(super) fn size_register<C: ConfigSpace + ?Sized>(
    cfg: &mut C,
    at: Sbdf,
    offset: u16,
    ones: u32,
) -> Sized32 {
    let before = cfg.read32(at, offset);
    cfg.write32(at, offset, ones);
    let between = cfg.read32(at, offset);
    // Nothing to put back: most registers have no bit that can be written.
    let after = if between == before {
        before
    } else {
        cfg.write32(at, offset, before);
        cfg.read32(at, offset)
    };
    Sized32 {
        before,
        between,
        after,
    }
}
