//! [`Machine`]: functions at fixed addresses, each a [`Space`] of registers,
//! behind [`hw::ConfigSpace`].
//!
//! Build functions with [`Endpoint`] and [`Bridge`], make them hostile with
//! [`Misbehaviour`], or load what `lspci -xxxx` printed on a real machine
//! ([`Machine::from_lspci`]). The machine counts accesses, so that a test can
//! hold a cost, and shows a function's whole space, so that a test can compare
//! before and after.
//!
//! Not simulated: routing by bridges. A function answers at its address whatever
//! the bridges above it say; a test that wants it unreachable does not add it.

mod allocation;
mod bridge;
mod capabilities;
pub mod dump;
mod endpoint;
mod hostile;
mod hotplug;
mod space;
#[cfg(test)]
mod tests;
mod virtualization;

pub use allocation::FixedShape;
pub use bridge::Bridge;
pub use capabilities::{ExpressShape, MsiShape, MsixShape, PortKind};
pub use dump::{DumpError, Dumped};
pub use endpoint::{BarShape, Endpoint};
pub use hostile::Misbehaviour;
pub use hotplug::SlotEvent;
pub use space::Space;
pub use virtualization::VirtualShape;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hw::Sbdf;

/// Offset of Bridge Control and its bit that resets what is behind the bridge.
const BRIDGE_CONTROL: u16 = 0x3e;
const SECONDARY_BUS_RESET: u8 = 1 << 6;

/// A machine as its configuration space shows it.
#[derive(Debug, Default)]
pub struct Machine {
    functions: BTreeMap<Sbdf, RefCell<Space>>,
    domains: dump::Domains,
    slots: BTreeMap<Sbdf, hotplug::SlotModel>,
    routed: bool,
    reads: Cell<usize>,
    writes: Cell<usize>,
}

impl Machine {
    /// A machine without devices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a function at `at` (text as `0000:00:03.0` or `00:03.0`), in place of what was there.
    pub fn add(&mut self, at: &str, function: impl Into<Space>) -> Sbdf {
        let Ok(at) = at.parse::<Sbdf>() else {
            panic!("{at:?} is no address of a function");
        };
        self.insert(at, function.into());
        at
    }

    /// Puts a function at `at`, in place of what was there.
    pub fn insert(&mut self, at: Sbdf, function: Space) {
        self.functions.insert(at, RefCell::new(function));
    }

    /// Takes the function at `at` out of the machine, as an unplug by surprise does.
    pub fn remove(&mut self, at: Sbdf) -> Option<Space> {
        self.functions.remove(&at).map(RefCell::into_inner)
    }

    /// A copy of the function at `at`, as it is.
    #[must_use]
    pub fn space(&self, at: Sbdf) -> Option<Space> {
        Some(self.functions.get(&at)?.borrow().clone())
    }

    /// Addresses of all functions in order.
    pub fn addresses(&self) -> impl Iterator<Item = Sbdf> {
        self.functions.keys().copied()
    }

    /// Reads so far, of absent functions too.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.reads.get()
    }

    /// Writes so far, to absent functions too.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes.get()
    }

    /// All registers of the function at `at`, as the device has them, whatever it says when it
    /// is asked; empty if there is none.
    #[must_use]
    pub fn snapshot(&self, at: Sbdf) -> Vec<u8> {
        self.functions
            .get(&at)
            .map(|function| function.borrow().bytes().to_vec())
            .unwrap_or_default()
    }

    /// How often the function at `at` was reset.
    #[must_use]
    pub fn resets(&self, at: Sbdf) -> usize {
        self.functions
            .get(&at)
            .map_or(0, |function| function.borrow().resets())
    }

    /// Changes registers of the function at `at` as the device itself would: without masks.
    pub fn poke(&self, at: Sbdf, offset: u16, bytes: &[u8]) {
        if let Some(function) = self.functions.get(&at) {
            function.borrow_mut().poke(offset, bytes);
        }
    }

    /// From now on only bus 0 answers by itself: another one as long as a bridge that answers has it as secondary bus.
    /// Without this a function answers at its address, whatever bridges say.
    pub fn route(&mut self) {
        self.routed = true;
    }

    /// Do accesses reach this bus?
    fn reaches(&self, segment: u16, bus: u8) -> bool {
        if !self.routed || bus == 0 {
            return true;
        }
        self.functions.iter().any(|(at, space)| {
            let space = space.borrow();
            let byte = |offset: usize| space.bytes().get(offset).copied().unwrap_or(0);
            at.segment() == segment
                && at.bus() < bus
                && byte(0x0e) & 0x7f == 1
                && byte(0x19) == bus
                && self.reaches(segment, at.bus())
        })
    }

    /// Makes the function at `at` misbehave from now on.
    pub fn misbehave(&self, at: Sbdf, how: Misbehaviour) {
        if let Some(function) = self.functions.get(&at) {
            function.borrow_mut().misbehave(how);
        }
    }

    fn read<const N: usize>(&self, at: Sbdf, offset: u16) -> [u8; N] {
        self.reads.set(self.reads.get() + 1);
        match self.functions.get(&at) {
            Some(function)
                if usize::from(offset).is_multiple_of(N)
                    && self.reaches(at.segment(), at.bus()) =>
            {
                function.borrow_mut().read(offset)
            }
            _ => [0xff; N],
        }
    }

    fn write<const N: usize>(&mut self, at: Sbdf, offset: u16, value: [u8; N]) {
        self.writes.set(self.writes.get() + 1);
        let Some(function) = self.functions.get(&at) else {
            return;
        };
        if !usize::from(offset).is_multiple_of(N) || !self.reaches(at.segment(), at.bus()) {
            return;
        }
        let before = secondary_reset(&function.borrow());
        function.borrow_mut().write(offset, value);
        let after = secondary_reset(&function.borrow());
        if let (None, Some((first, last))) = (before, after) {
            for (other, space) in &self.functions {
                if other.segment() == at.segment() && (first..=last).contains(&other.bus()) {
                    space.borrow_mut().reset();
                }
            }
            let all: Vec<Sbdf> = self.addresses().collect();
            all.into_iter().for_each(|at| self.update_virtual(at));
        }
        self.slot_written(at, offset, N);
        self.update_virtual(at);
    }
}

/// The buses that a bridge holds in reset.
fn secondary_reset(space: &Space) -> Option<(u8, u8)> {
    let byte = |offset: u16| space.bytes().get(usize::from(offset)).copied();
    let is_bridge = byte(0x0e)? & 0x7f == 1;
    let in_reset = byte(BRIDGE_CONTROL)? & SECONDARY_BUS_RESET != 0;
    (is_bridge && in_reset).then_some((byte(0x19)?, byte(0x1a)?))
}

impl hw::ConfigSpace for Machine {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        u8::from_le_bytes(self.read(at, offset))
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        u16::from_le_bytes(self.read(at, offset))
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        u32::from_le_bytes(self.read(at, offset))
    }
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        self.write(at, offset, value.to_le_bytes());
    }
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.write(at, offset, value.to_le_bytes());
    }
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        self.write(at, offset, value.to_le_bytes());
    }
}
