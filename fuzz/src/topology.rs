//! [`Wild`]: buses that make no sense, for paths to be followed through.

use hw::acpi::plan::Topology;
use hw::{BusRange, Sbdf};

/// Behind every other function are buses: loops, overlaps and all. The same for the same seed.
#[derive(Clone, Copy, Debug)]
pub struct Wild(pub u64);

impl Topology for Wild {
    fn behind(&self, bridge: Sbdf) -> Option<BusRange> {
        let mixed = (u64::from(bridge.to_bits()) ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [decision, first, last, ..] = (mixed >> 24).to_le_bytes();
        match decision & 1 {
            0 => None,
            _ => BusRange::new(first.min(last), first.max(last)),
        }
    }
}
