//! [`Buses`]: which buses are behind which bridge, from what `lspci -x` (or `-xxx`, `-xxxx`) printed.

use hw::acpi::plan::Topology;
use hw::header::BusNumbers;
use hw::{BusRange, Sbdf};
use std::collections::HashMap;

/// Where a function's header has its type.
const HEADER_TYPE: usize = 0x0e;
/// Where a bridge's header has its bus numbers: primary, secondary, subordinate.
const BUS_NUMBERS: usize = 0x18;

/// The bridges of a machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Buses(HashMap<Sbdf, BusRange>);

impl Buses {
    /// Reads a dump: a line that begins with the address of a function, then rows of bytes, of
    /// which the first two are of interest. All other lines are passed over.
    pub fn from_lspci(text: &str) -> Self {
        let mut buses = Self::default();
        let mut at = None;
        let mut header = Vec::new();
        for line in text.lines() {
            let Some((first, rest)) = line.split_once(' ') else {
                continue;
            };
            if let Ok(function) = first.parse::<Sbdf>() {
                at = Some(function);
                header.clear();
            } else if matches!(first, "00:" | "10:") {
                let bytes = rest.split_whitespace();
                header.extend(bytes.map_while(|byte| u8::from_str_radix(byte, 16).ok()));
            }
            if let (Some(function), "10:") = (at, first) {
                buses.add(function, &header);
            }
        }
        buses
    }

    fn add(&mut self, at: Sbdf, header: &[u8]) {
        let bridge = header
            .get(HEADER_TYPE)
            .is_some_and(|byte| matches!(byte & 0x7f, 1 | 2));
        let numbers = header.get(BUS_NUMBERS..BUS_NUMBERS + 3);
        if let (true, Some(&[primary, secondary, subordinate])) = (bridge, numbers) {
            let numbers = BusNumbers {
                primary,
                secondary,
                subordinate,
            };
            if let Some(behind) = numbers.behind() {
                self.0.insert(at, behind);
            }
        }
    }
}

impl Topology for Buses {
    fn behind(&self, bridge: Sbdf) -> Option<BusRange> {
        self.0.get(&bridge).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
00:1c.0 PCI bridge: Intel Corporation
\tKernel driver in use: pcieport
00: 86 80 94 a2 07 04 10 00 f0 00 04 06 10 00 81 00
10: 00 00 00 00 00 00 00 00 00 02 08 00 f0 00 00 20
20: 00 df 00 df f1 ff 01 00 00 00 00 00 00 00 00 00

0001:00:02.0 VGA compatible controller
00: 86 80 12 59 07 04 10 00 04 00 00 03 00 00 00 00
10: 04 00 00 de 00 00 00 00 0c 02 08 c0 00 00 00 00

00:1d.0 a bridge without buses
00: 86 80 94 a2 07 04 10 00 f0 00 04 06 10 00 01 00
10: 00 00 00 00 00 00 00 00 00 00 00 00 f0 00 00 20

00:1e.0 cut off
00: 86 80 94 a2 07 04 10 00 f0 00 04 06 10 00 01 00
10: 00 00 00
";

    #[test]
    fn bridges_of_a_dump_are_found() {
        let buses = Buses::from_lspci(DUMP);
        let at = |text: &str| text.parse::<Sbdf>().ok();
        let behind = |text| at(text).and_then(|at| buses.behind(at));
        assert_eq!(behind("00:1c.0"), BusRange::new(2, 8));
        for none in ["0001:00:02.0", "00:1d.0", "00:1e.0", "00:00.0"] {
            assert_eq!(behind(none), None, "{none}");
        }
    }
}
